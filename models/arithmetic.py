"""MACs of a forward pass as arithmetic on a Config and a Task, without building or running the network.

A network's formula is its static method `closed_form(terms, config, task)`, which adds the MACs of one image
term by term, from the operators and layers below. Under torch's rules the sum equals the traced count
exactly, for every backbone at every size; `Terms.torchprofile` holds the difference to torchprofile's rules.

Letters: C latent channels, H and W latent sides, P patch side, T tokens, D width, E width of a condition.
"""

import math
from collections import Counter
from collections.abc import Callable, Collection, Sequence

from models.layers.conditions import FREQUENCIES
from models.layers.mamba import STATES
from models.task import Task

# terms that an explanation of counter differences lists separately from products of elements
AFFINE_NORMS, MEANS, EINSUM = "affine norms", "means", "einsum that only permutes"
UNSTRIDED = "transposed convolutions counted without their stride"
UNREAD = "unread projections"


class _Operators:
    """MACs of a batch of images by name.

    Attributes:
        torch: what torch's rules count: convolutions, matrix products, attention, scans.
        torchprofile: what torchprofile's rules count in addition; negative where they count less.
        query_scaling: what they count in addition where attention is not fused.
    """

    def __init__(self, batch: int = 1) -> None:
        self.batch = batch
        self.torch: Counter[str] = Counter()
        self.torchprofile: Counter[str] = Counter()
        self.query_scaling = 0

    def linear(self, term: str, rows: int, inputs: int, outputs: int) -> None:
        """A matrix product, or a 1x1 convolution of `rows` pixels."""
        self.torch[term] += self.batch * rows * inputs * outputs

    def conv(self, term: str, pixels: int, inputs: int, outputs: int, kernel: int) -> None:
        """A full convolution with a kernel x kernel window, by its output pixels."""
        self.torch[term] += self.batch * pixels * inputs * outputs * kernel**2

    def depthwise(self, pixels: int, width: int, area: int, term: str = "depthwise") -> None:
        """A convolution of each channel by itself; area is the number of its weights."""
        self.torch[term] += self.batch * pixels * width * area

    def attention(self, tokens: int, keys: int, width: int) -> None:
        """Queries by keys and weights by values, over all heads together.

        Args:
            tokens: queries of all windows.
            keys: of each query.
            width: of all heads.
        """
        self.torch["attention products"] += 2 * self.batch * tokens * keys * width

    def fused_attention(self, tokens: int, keys: int, width: int) -> None:
        """Attention as one operator, whose scaling of the queries no counter sees."""
        self.attention(tokens, keys, width)
        self.query_scaling += self.batch * tokens * width

    def custom(self, term: str, macs: int) -> None:
        """An operator of models.kernels, for which torchprofile has no rule."""
        self.torch[term] += self.batch * macs
        self.torchprofile[f"{term}, unseen"] -= self.batch * macs

    def elementwise(self, term: str, elements: int) -> None:
        """One MAC per element by torchprofile's rules, none by torch's."""
        self.torchprofile[term] += self.batch * elements

    def once(self, term: str, elements: int) -> None:
        """As `elementwise`, for what is computed once per call whatever the batch."""
        self.torchprofile[term] += elements


class Terms(_Operators):
    """The layers that several networks have, as sums of operators."""

    def timestep_features(self, frequencies: int = FREQUENCIES) -> None:
        """The frequencies, computed once per call whatever the batch, times t."""
        self.once("timestep features", frequencies)
        self.elementwise("timestep features", frequencies)

    def time_embedding(self, features: int, hidden: int, width: int) -> None:
        """Timesteps through an MLP."""
        self.timestep_features(features // 2)
        self.linear("condition", 1, features, hidden)
        self.linear("condition", 1, hidden, width)

    def condition(self, *widths: int) -> None:
        """`Condition` of each width; labels are looked up."""
        for width in widths:
            self.time_embedding(2 * FREQUENCIES, width, width)

    def modulation(self, width: int, count: int, out_width: int | None = None) -> None:
        """`count` vectors from the condition."""
        self.linear("adaLN", 1, width, count * (out_width or width))

    def modulate(self, rows: int, width: int) -> None:
        """x * (1 + scale) + shift as a product and a sum; torchprofile does not count addcmul."""
        self.elementwise("modulation", rows * width)

    def gate(self, rows: int, width: int) -> None:
        """gate * x, with a gate from the condition or from another branch."""
        self.elementwise("gates", rows * width)

    def affine_norm(self, rows: int, width: int) -> None:
        self.elementwise(AFFINE_NORMS, rows * width)

    def weighted(self, term: str, rows: int, inputs: int, outputs: int, kernel: int = 1) -> None:
        """`magnitude.Linear` or `Conv`: its weights are scaled in every call."""
        self.conv(term, rows, inputs, outputs, kernel)
        self.once("scaling of weights", inputs * outputs * kernel**2)

    def denoise(self, task: Task) -> None:
        """The scales of `preconditioning.predict`: 3 of every value, and 1 of the noise."""
        if task.prediction == "denoised":
            self.elementwise("preconditioning", 3 * task.height * task.width * task.in_channels + 1)

    def rms_norm(self, rows: int, width: int) -> None:
        """`RMSNorm`: by the root mean square, then by the weight."""
        self.elementwise(MEANS, rows)
        self.elementwise("RMS norms", 2 * rows * width)

    def patch_embedding(self, task: Task, width: int, patch: int) -> int:
        """A strided convolution that makes each patch a token; returns the number of tokens."""
        tokens = task.height // patch * (task.width // patch)
        self.conv("patch embedding", tokens, task.in_channels, width, patch)
        return tokens

    def patch_head(self, tokens: int, width: int, outputs: int, patches: int | None = None) -> None:
        """`PatchHead` to P * P * C outputs per token, then the einsum of `unpatchify`.

        Args:
            tokens: that enter the head.
            width: D.
            outputs: P * P * C.
            patches: tokens that become the image, by default all.
        """
        self.modulation(width, 2)
        self.modulate(tokens, width)
        self.linear("head", tokens, width, outputs)
        self.elementwise(EINSUM, (patches or tokens) * outputs)

    def image_head(self, pixels: int, width: int, channels: int) -> None:
        """`Head`: norm, modulation, a 3x3 convolution."""
        self.modulation(width, 2)
        self.modulate(pixels, width)
        self.conv("head", pixels, width, channels, 3)

    def attention_projections(self, tokens: int, width: int) -> None:
        """Queries, keys, values and the output projection, each D x D."""
        self.linear("attention projections", tokens, width, 4 * width)

    def self_attention(self, tokens: int, width: int) -> None:
        self.attention_projections(tokens, width)
        self.fused_attention(tokens, tokens, width)

    def feed_forward(self, rows: int, width: int, ratio: int) -> None:
        """D -> ratio * D -> D, as linear layers or 1x1 convolutions."""
        self.linear("feed-forward", rows, width, 2 * ratio * width)

    def gated_feed_forward(self, rows: int, width: int, hidden: int) -> None:
        """D -> twice the hidden width, one half gates the other, -> D."""
        self.linear("feed-forward", rows, width, 3 * hidden)
        self.gate(rows, hidden)

    def adaptive(self, rows: int, width: int) -> None:
        """Modulation and gates of a block of two branches."""
        self.modulation(width, 6)
        for _ in range(2):
            self.modulate(rows, width)
            self.gate(rows, width)

    def join(self, tokens: int, width: int) -> None:
        """A long skip: tokens and those of an earlier block, 2D -> D."""
        self.linear("skips", tokens, 2 * width, width)

    def channel_attention(self, pixels: int, width: int, weights: int) -> None:
        """Each channel scaled by a function of the image average with that many weights."""
        self.elementwise(MEANS, width)
        self.linear("channel attention", 1, weights, 1)
        self.elementwise("channel attention", pixels * width)

    def mamba(
        self, tokens: int, width: int, kernel: int, *, padding: int | None = None, directions: int = 1
    ) -> None:
        """Mamba's mixer: D -> twice 2D, state spaces, 2D -> D.

        Args:
            tokens: T.
            width: D.
            kernel: of the causal convolution, which runs over tokens + padding.
            padding: after the last token; by default kernel - 1, as in Mamba's own code.
            directions: each with a state space of its own.
        """
        inner, rank = 2 * width, math.ceil(width / 16)
        padded = tokens + (kernel - 1 if padding is None else padding)
        self.linear("mixer projections", tokens, width, 3 * inner)
        for _ in range(directions):
            self.depthwise(padded, inner, kernel, "causal convolutions")
            self.linear("selection", tokens, inner, 2 * rank + 2 * STATES)  # steps twice
            self.custom("selective scan", 4 * tokens * inner * STATES)
            self.elementwise("scan's skip and gate", 2 * tokens * inner)

    def unet(
        self,
        task: Task,
        widths: Sequence[int],
        depths: Sequence[int],
        block: Callable[[int, int], None],  # of pixels and a width
    ) -> None:
        """A 3x3 stem, then five levels down, down, middle, up, up with 3x3 convolutions between them."""
        pixels = task.height * task.width
        self.conv("stem", pixels, task.in_channels, widths[0], 3)
        at = (pixels, pixels // 4, pixels // 16, pixels // 4, pixels)
        for here, width, depth in zip(at, widths, depths, strict=True):
            for _ in range(depth):
                block(here, width)
        self.conv("down and up", at[0], widths[0], widths[1] // 4, 3)
        self.conv("down and up", at[1], widths[1], widths[2] // 4, 3)
        self.conv("down and up", at[2], widths[2], 4 * widths[1], 3)
        self.conv("down and up", at[3], widths[3], 4 * widths[0], 3)

    def fused_skips(self, task: Task, widths: Sequence[int]) -> None:
        """1x1 convolutions of `UNet` from a level's input and its skip, at both levels."""
        pixels = task.height * task.width
        self.linear("skips", pixels // 4, 2 * widths[1], widths[3])
        self.linear("skips", pixels, 2 * widths[0], widths[4])

    def stepped_unet(
        self,
        task: Task,
        widths: Sequence[int],
        depth: int,
        attended: Collection[int],
        block: Callable[[int, int, int], None],  # of pixels, width in, width out
        attention: Callable[[int, int], None],  # of pixels, width
        down: Callable[[int, int], None],  # of the pixels before it, width
        up: Callable[[int, int], None],
    ) -> None:
        """`SteppedUNet` between a 3x3 stem and a norm with a 3x3 head."""
        pixels, last = task.height * task.width, len(widths) - 1
        self.conv("stem", pixels, task.in_channels, widths[0], 3)
        width, skips = widths[0], [widths[0]]
        for level, out_width in enumerate(widths):
            here = pixels // 4**level
            for _ in range(depth):
                block(here, width, out_width)
                width = out_width
                if level in attended:
                    attention(here, width)
                skips.append(width)
            if level != last:
                down(here, width)
                skips.append(width)
        here = pixels // 4**last
        block(here, width, width)
        attention(here, width)
        block(here, width, width)
        for level in range(last, -1, -1):
            here = pixels // 4**level
            for _ in range(depth + 1):
                block(here, width + skips.pop(), widths[level])
                width = widths[level]
                if level in attended:
                    attention(here, width)
            if level > 0:
                up(here, width)
        self.affine_norm(pixels, widths[0])
        self.conv("head", pixels, widths[0], task.out_channels, 3)

    def res_block(self, pixels_in: int, pixels: int, width: int, out_width: int) -> None:
        """Two normed 3x3 convolutions with a skip, without the effect of the condition."""
        self.affine_norm(pixels_in, width)
        self.conv("convolutions", pixels, width, out_width, 3)
        self.affine_norm(pixels, out_width)
        self.conv("convolutions", pixels, out_width, out_width, 3)
        if width != out_width:
            self.linear("skips", pixels, width, out_width)
