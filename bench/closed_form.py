"""MACs of a forward pass as formulas of a model's Config and Task, without building or tracing it.

The third opinion beside what is counted by running: arithmetic on the numbers of a configuration, written
from the architecture, term by term. Under torch's rules it equals the traced count to the last MAC for
every backbone of the zoo, at every size; `Terms.torchprofile` holds what torchprofile's rules add to that
and leave out.

To add a backbone: write one function `(terms, config, task)` here that adds its terms, from the layers
below where it has them, and enter it in NETWORKS under the network's class. Every variant of the network,
its ablations included, is then covered; tests/test_closed_form.py holds it to the traced count.

Letters: C latent channels, H and W latent sides, P patch side, T tokens, D width, E width of a condition.
"""

import functools
import math
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from torch import nn

from models import adm, dic, dico, dig, dim, dimsum, dis, dit, fcdm, ldm, mdt, udit, uvit
from models.layers import FREQUENCIES, STATES
from models.registry import find
from models.task import Task

# terms that bench.counting.explain tells from products of elements
AFFINE_NORMS, MEANS, EINSUM = "affine norms", "means", "einsum that only permutes"
UNSTRIDED = "transposed convolutions counted without their stride"
UNREAD = "projections that nothing reads"


class Terms:
    """MACs by name, as they are added up, of a batch of images.

    Attributes:
        torch: what torch's rules count: convolutions, matrix products, attention, scans.
        torchprofile: what torchprofile's rules count beyond that; below zero, what they do not see.
        query_scaling: what they count besides where attention is not fused.
    """

    def __init__(self, batch: int = 1) -> None:
        self.batch = batch
        self.torch: Counter[str] = Counter()
        self.torchprofile: Counter[str] = Counter()
        self.query_scaling = 0

    def linear(self, term: str, rows: int, inputs: int, outputs: int) -> None:
        """A matrix product, or a 1x1 convolution of so many pixels."""
        self.torch[term] += self.batch * rows * inputs * outputs

    def conv(self, term: str, pixels: int, inputs: int, outputs: int, kernel: int) -> None:
        """A full convolution with a kernel x kernel window, by its pixels out."""
        self.torch[term] += self.batch * pixels * inputs * outputs * kernel**2

    def depthwise(self, pixels: int, width: int, area: int, term: str = "depthwise") -> None:
        """A convolution of each channel by itself; area is the number of its weights."""
        self.torch[term] += self.batch * pixels * width * area

    def attention(self, tokens: int, keys: int, width: int) -> None:
        """Queries by keys and weights by values, over all heads together.

        Args:
            tokens: queries of all windows.
            keys: that each of them sees.
            width: of all heads.
        """
        self.torch["attention products"] += 2 * self.batch * tokens * keys * width

    def fused_attention(self, tokens: int, keys: int, width: int) -> None:
        """The same as one operator, which hides that it scales the queries."""
        self.attention(tokens, keys, width)
        self.query_scaling += self.batch * tokens * width

    def unseen(self, term: str, macs: int) -> None:
        """An operator of this suite, which torchprofile has no rule for."""
        self.torch[term] += self.batch * macs
        self.torchprofile[f"{term}, unseen"] -= self.batch * macs

    def elementwise(self, term: str, elements: int) -> None:
        """Counted one an element by torchprofile, and by torch not at all."""
        self.torchprofile[term] += self.batch * elements

    def once(self, term: str, elements: int) -> None:
        """The same, whatever the batch."""
        self.torchprofile[term] += elements


Formula = Callable[[Terms, Any, Task], None]  # the network's own Config in the place of Any


def count(name: str, task: Task, batch: int = 1) -> Terms | None:
    """Count a backbone by name from its configuration alone; None where no formula is known.

    Args:
        name: as published, or a user's, which has a formula only if it is a partial of a network below.
        task: what it is built for.
        batch: images N; the MACs are those of all of them.

    Raises:
        ValueError: an unknown name.
    """
    factory = find(name)
    if not isinstance(factory, functools.partial) or factory.func not in NETWORKS or len(factory.args) != 1:
        return None
    terms = Terms(batch)
    NETWORKS[factory.func](terms, factory.args[0], task)
    return terms


# layers that several networks have


def timestep_features(terms: Terms, frequencies: int = FREQUENCIES) -> None:
    """The frequencies are made anew in each call, and then multiplied by t."""
    terms.once("timestep features", frequencies)
    terms.elementwise("timestep features", frequencies)


def condition(terms: Terms, width: int) -> None:
    """Timesteps through an MLP; labels are looked up."""
    timestep_features(terms)
    terms.linear("condition", 1, 2 * FREQUENCIES, width)
    terms.linear("condition", 1, width, width)


def time_embedding(terms: Terms, features: int, hidden: int, width: int) -> None:
    """Timesteps through an MLP of another shape."""
    timestep_features(terms, features // 2)
    terms.linear("condition", 1, features, hidden)
    terms.linear("condition", 1, hidden, width)


def modulation(terms: Terms, width: int, count: int, out_width: int | None = None) -> None:
    """adaLN: `count` vectors from the condition."""
    terms.linear("adaLN", 1, width, count * (out_width or width))


def modulated(terms: Terms, rows: int, width: int) -> None:
    """x * (1 + scale) + shift as a product and a sum; as one addcmul torchprofile does not count it."""
    terms.elementwise("modulation", rows * width)


def gated(terms: Terms, rows: int, width: int) -> None:
    """gate * x, of the condition or of another branch."""
    terms.elementwise("gates", rows * width)


def affine_norm(terms: Terms, rows: int, width: int) -> None:
    terms.elementwise(AFFINE_NORMS, rows * width)


def patch_embedding(terms: Terms, task: Task, width: int, patch: int) -> int:
    """A strided convolution, each patch a token; returns the tokens."""
    tokens = task.height // patch * (task.width // patch)
    terms.conv("patch embedding", tokens, task.in_channels, width, patch)
    return tokens


def patch_head(terms: Terms, tokens: int, width: int, outputs: int) -> None:
    """Norm without affine, modulation, a linear layer to the P * P * C values of a patch."""
    modulation(terms, width, 2)
    modulated(terms, tokens, width)
    terms.linear("head", tokens, width, outputs)


def unpatchified(terms: Terms, tokens: int, outputs: int) -> None:
    """The permutation of patches to an image is an einsum, which torchprofile takes for a product."""
    terms.elementwise(EINSUM, tokens * outputs)


def image_head(terms: Terms, pixels: int, width: int, channels: int) -> None:
    """Norm without affine, modulation, a 3x3 convolution."""
    modulation(terms, width, 2)
    modulated(terms, pixels, width)
    terms.conv("head", pixels, width, channels, 3)


def attention_projections(terms: Terms, tokens: int, width: int) -> None:
    """Queries, keys, values and the projection out, each D x D."""
    terms.linear("attention projections", tokens, width, 4 * width)


def self_attention(terms: Terms, tokens: int, width: int) -> None:
    attention_projections(terms, tokens, width)
    terms.fused_attention(tokens, tokens, width)


def feed_forward(terms: Terms, rows: int, width: int, ratio: int) -> None:
    """D -> ratio * D -> D, as linear layers or 1x1 convolutions."""
    terms.linear("feed-forward", rows, width, 2 * ratio * width)


def gated_feed_forward(terms: Terms, rows: int, width: int, hidden: int) -> None:
    """D -> twice the hidden width, one half gates the other, -> D."""
    terms.linear("feed-forward", rows, width, 3 * hidden)
    gated(terms, rows, hidden)


def adaptive(terms: Terms, rows: int, width: int) -> None:
    """Two branches, each modulated and gated by the condition."""
    modulation(terms, width, 6)
    for _ in range(2):
        modulated(terms, rows, width)
        gated(terms, rows, width)


def joined(terms: Terms, tokens: int, width: int) -> None:
    """A long skip: tokens and those of an earlier block, 2D -> D."""
    terms.linear("skips", tokens, 2 * width, width)


def channel_attention(terms: Terms, pixels: int, width: int) -> None:
    """A D x D product of the image's average scales every channel."""
    terms.elementwise(MEANS, width)
    terms.linear("channel attention", 1, width, width)
    terms.elementwise("channel attention", pixels * width)


def state_space(terms: Terms, tokens: int, padding: int, inner: int, rank: int, kernel: int) -> None:
    """One direction of Mamba's mixer; its convolution makes as many tokens more as it is padded by."""
    terms.depthwise(tokens + padding, inner, kernel, "causal convolutions")
    terms.linear("selection", tokens, inner, rank + 2 * STATES)
    terms.linear("selection", tokens, rank, inner)
    terms.unseen("selective scan", 4 * tokens * inner * STATES)
    terms.elementwise("scan's skip and gate", 2 * tokens * inner)


def mamba(
    terms: Terms, tokens: int, width: int, kernel: int, *, padding: int | None = None, directions: int = 1
) -> None:
    """Mamba's mixer: D -> twice 2D, state spaces, 2D -> D.

    Args:
        tokens: T.
        width: D.
        kernel: of the causal convolution.
        padding: of it behind the last token; by default kernel - 1, as in Mamba's own code.
        directions: each with a state space of its own.
    """
    inner, rank = 2 * width, math.ceil(width / 16)
    terms.linear("mixer projections", tokens, width, 2 * inner)
    for _ in range(directions):
        state_space(terms, tokens, kernel - 1 if padding is None else padding, inner, rank, kernel)
    terms.linear("mixer projections", tokens, inner, width)


def unet(
    terms: Terms,
    task: Task,
    widths: Sequence[int],
    depths: Sequence[int],
    block: Callable[[int, int], None],  # of pixels and a width
) -> None:
    """Five levels down, down, middle, up, up; 3x3 convolutions and pixel shuffles between them."""
    pixels = task.height * task.width
    at = (pixels, pixels // 4, pixels // 16, pixels // 4, pixels)
    for here, width, depth in zip(at, widths, depths, strict=True):
        for _ in range(depth):
            block(here, width)
    terms.conv("down and up", at[0], widths[0], widths[1] // 4, 3)
    terms.conv("down and up", at[1], widths[1], widths[2] // 4, 3)
    terms.conv("down and up", at[2], widths[2], 4 * widths[1], 3)
    terms.conv("down and up", at[3], widths[3], 4 * widths[0], 3)


def fused_skips(terms: Terms, task: Task, widths: Sequence[int]) -> None:
    """1x1 convolutions of what comes up and the skip beside it, at both levels."""
    pixels = task.height * task.width
    terms.linear("skips", pixels // 4, 2 * widths[1], widths[3])
    terms.linear("skips", pixels, 2 * widths[0], widths[4])


def stepped_unet(
    widths: Sequence[int],
    depth: int,
    attended: Collection[int],
    pixels: int,
    block: Callable[[int, int, int], None],  # of pixels, width in, width out
    attention: Callable[[int, int], None],  # of pixels, width
    down: Callable[[int, int], None],  # of the pixels before it, width
    up: Callable[[int, int], None],
) -> None:
    """The DDPM line's: every step down is concatenated to the input of a step up."""
    last = len(widths) - 1
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


def res_block(terms: Terms, pixels_in: int, pixels: int, width: int, out_width: int) -> None:
    """Two normed 3x3 convolutions beside a skip, without what the condition does to the second norm."""
    affine_norm(terms, pixels_in, width)
    terms.conv("convolutions", pixels, width, out_width, 3)
    affine_norm(terms, pixels, out_width)
    terms.conv("convolutions", pixels, out_width, out_width, 3)
    if width != out_width:
        terms.linear("skips", pixels, width, out_width)


# networks


def _fcdm_block(terms: Terms, config: fcdm.Config, pixels: int, width: int) -> None:
    modulation(terms, width, 3)
    gated(terms, pixels, width)
    if config.block == "resnet":
        terms.conv("convolutions", pixels, width, 2 * width, 3)
        return
    if config.neighbourhood is None:
        terms.depthwise(pixels, width, config.kernel**2)
    else:
        attention_projections(terms, pixels, width)
        terms.elementwise("scaling of queries", pixels * width)
        terms.unseen("neighbourhood attention", 2 * pixels * config.kernel**2 * width)
    hidden = config.mlp_ratio * width
    terms.linear("pointwise", pixels, width, 2 * hidden)
    if config.enhancement == "response":
        terms.elementwise(MEANS, 1)
        terms.elementwise("response norm", 2 * pixels * hidden)
    elif config.enhancement == "attention":
        channel_attention(terms, pixels, hidden)
    if config.feedforward_ratio:
        modulation(terms, width, 3)
        gated(terms, pixels, width)
        feed_forward(terms, pixels, width, config.feedforward_ratio)


def count_fcdm(terms: Terms, config: fcdm.Config, task: Task) -> None:
    """ConvNeXt blocks in a U-Net of three resolutions."""
    pixels, width = task.height * task.width, config.width
    for level_width in (width, 2 * width, 4 * width):
        condition(terms, level_width)
        if config.text_width:
            terms.linear("condition", 1, config.text_width + level_width, level_width)
    widths = (width, 2 * width, 4 * width, 2 * width, width)
    terms.conv("stem", pixels, task.in_channels, width, 3)
    unet(terms, task, widths, config.depths, lambda here, w: _fcdm_block(terms, config, here, w))
    fused_skips(terms, task, widths)
    terms.conv("head", pixels, width, width, 3)
    image_head(terms, pixels, width, task.out_channels)


def count_isotropic(terms: Terms, config: fcdm.IsotropicConfig, task: Task) -> None:
    """FCDM's blocks at one resolution."""
    block = fcdm.Config(width=config.width, depths=(0, 0, config.depth, 0, 0))
    condition(terms, config.width)
    tokens = patch_embedding(terms, task, config.width, config.patch)
    for _ in range(config.depth):
        _fcdm_block(terms, block, tokens, config.width)
    image_head(terms, tokens, config.width, config.patch**2 * task.out_channels)


def count_dit(terms: Terms, config: dit.Config, task: Task) -> None:
    """A transformer over patches; SiT and FasterDiT too."""
    width = config.width
    condition(terms, width)
    tokens = patch_embedding(terms, task, width, config.patch)
    for _ in range(config.depth):
        adaptive(terms, tokens, width)
        self_attention(terms, tokens, width)
        feed_forward(terms, tokens, width, config.mlp_ratio)
    for _ in range(config.skips):
        joined(terms, tokens, width)
    made = 2 * task.in_channels if config.spare_variance else task.out_channels
    patch_head(terms, tokens, width, config.patch**2 * made)
    unpatchified(terms, tokens, config.patch**2 * made)


def _dico_block(terms: Terms, config: dico.Config, pixels: int, width: int) -> None:
    adaptive(terms, pixels, width)
    feed_forward(terms, pixels, width, config.mlp_ratio)
    if config.heads:
        keys = config.window**2 if config.window else pixels
        attention_projections(terms, pixels, width)
        terms.elementwise("scaling of queries", pixels * width)
        terms.attention(pixels, keys, width)
        return
    terms.linear("pointwise", pixels, width, 2 * width)
    terms.depthwise(pixels, width, config.kernel**2)
    if config.attention == "compact":
        channel_attention(terms, pixels, width)
    elif config.attention == "squeeze-excite":
        terms.elementwise(MEANS, width)
        terms.linear("channel attention", 1, width, 2 * (width // dico.SqueezeExcite.reduction))
        terms.elementwise("channel attention", pixels * width)


def count_dico(terms: Terms, config: dico.Config, task: Task) -> None:
    """Depthwise blocks with channel attention in a U-Net of three resolutions."""
    pixels, width = task.height * task.width, config.width
    last = config.last_ratio * width
    for level_width in (width, 2 * width, 4 * width):
        condition(terms, level_width)
    widths = (width, 2 * width, 4 * width, 2 * width, last)
    terms.conv("stem", pixels, task.in_channels, width, 3)
    unet(terms, task, widths, config.depths, lambda here, w: _dico_block(terms, config, here, w))
    fused_skips(terms, task, widths)
    image_head(terms, pixels, last, task.out_channels)


def count_dic(terms: Terms, config: dic.Config, task: Task) -> None:
    """Full 3x3 convolutions in a U-Net; every third block of the way up takes in a skip as wide again."""
    width = config.width
    levels = (width, 2 * width, 4 * width, 2 * width, width)
    pixels = task.height * task.width

    def block(here: int, in_width: int, out_width: int) -> None:
        modulation(terms, out_width, 3)
        modulated(terms, here, out_width)
        gated(terms, here, out_width)
        res_block(terms, here, here, in_width, out_width)

    for level_width in levels[:3]:
        condition(terms, level_width)
    terms.conv("stem", pixels, task.in_channels, width, 3)
    unet(terms, task, levels, (*config.depths[:3], 0, 0), lambda here, w: block(here, w, w))
    for here, level_width, depth in zip((pixels // 4, pixels), levels[3:], config.depths[3:], strict=True):
        for i in range(depth):
            block(here, level_width if i % dic.SKIP_EVERY else 2 * level_width, level_width)
    terms.conv("head", pixels, width, width, 3)
    image_head(terms, pixels, width, task.out_channels)


def count_dig(terms: Terms, config: dig.Config, task: Task) -> None:
    """Gated linear attention over patches, and a depthwise convolution after every block."""
    width, keys = config.width, config.width // 2
    hidden = -(-(8 * width // 3) // 256) * 256
    condition(terms, width)
    tokens = patch_embedding(terms, task, width, dig.PATCH)
    for _ in range(config.depth):
        adaptive(terms, tokens, width)
        terms.linear("attention projections", tokens, width, 2 * keys + 3 * width)  # q, k, v, gate, out
        terms.linear("attention projections", tokens, dig.GATE_RANK, width + keys)  # the decay
        terms.unseen("linear attention", 2 * tokens * keys * dig.HEAD)
        gated(terms, tokens, width)
        gated_feed_forward(terms, tokens, width, hidden)
        terms.depthwise(tokens, width, 9)
    outputs = dig.PATCH**2 * task.out_channels
    patch_head(terms, tokens, width, outputs)
    unpatchified(terms, tokens, outputs)


def count_adm(terms: Terms, config: adm.Config, task: Task) -> None:
    """Residual blocks scaled and shifted by the condition, and attention at coarse levels, on pixels."""
    widths = [int(config.width * multiplier) for multiplier in config.multipliers]
    embedded = 4 * config.width
    pixels = task.height * task.width

    def block(before: int, here: int, width: int, out_width: int) -> None:
        res_block(terms, before, here, width, out_width)
        terms.linear("scale and shift", 1, embedded, 2 * out_width)
        modulated(terms, here, out_width)

    def attention(here: int, width: int) -> None:
        affine_norm(terms, here, width)
        attention_projections(terms, here, width)
        terms.elementwise("scaling of queries", 2 * here * width)  # and keys, before the fused operator
        terms.attention(here, here, width)

    def down(here: int, width: int) -> None:
        terms.elementwise(MEANS, 2 * (here // 4) * width)
        block(here, here // 4, width, width)

    time_embedding(terms, config.width, embedded, embedded)
    terms.conv("stem", pixels, task.in_channels, widths[0], 3)
    stepped_unet(
        widths,
        config.depth,
        config.attended,
        pixels,
        block=lambda here, width, out_width: block(here, here, width, out_width),
        attention=attention,
        down=down,
        up=lambda here, width: block(here, 4 * here, width, width),
    )
    affine_norm(terms, pixels, widths[0])
    terms.conv("head", pixels, widths[0], task.out_channels, 3)


def count_ldm(terms: Terms, config: ldm.Config, task: Task) -> None:
    """ADM's U-Net with transformer blocks, the label as the only token of their context."""
    widths = [config.width * multiplier for multiplier in config.multipliers]
    embedded = 4 * config.width
    pixels = task.height * task.width

    def block(here: int, width: int, out_width: int) -> None:
        res_block(terms, here, here, width, out_width)
        terms.linear("shift", 1, embedded, out_width)

    def transformer(here: int, width: int) -> None:
        for _ in range(4):  # a group norm, then three layer norms
            affine_norm(terms, here, width)
        terms.linear("transformers' ends", here, width, 2 * width)
        self_attention(terms, here, width)
        terms.linear("attention projections", here, width, 2 * width)
        terms.linear("attention projections", 1, config.context, 2 * width)
        terms.fused_attention(here, 1, width)
        gated_feed_forward(terms, here, width, config.mlp_ratio * width)

    time_embedding(terms, config.width, embedded, embedded)
    terms.conv("stem", pixels, task.in_channels, widths[0], 3)
    stepped_unet(
        widths,
        config.depth,
        config.attended,
        pixels,
        block=block,
        attention=transformer,
        down=lambda here, width: terms.conv("down and up", here // 4, width, width, 3),
        up=lambda here, width: terms.conv("down and up", 4 * here, width, width, 3),
    )
    affine_norm(terms, pixels, widths[0])
    terms.conv("head", pixels, widths[0], task.out_channels, 3)


def count_dis(terms: Terms, config: dis.Config, task: Task) -> None:
    """Mamba's mixers in both directions over time, label and patches."""
    width = config.width
    time_embedding(terms, width, 4 * width, width)
    patches = patch_embedding(terms, task, width, config.patch)
    tokens = 2 + patches
    for _ in range(config.depth + 1):
        mamba(terms, tokens, width, config.kernel, directions=2)
    for _ in range(config.depth // 2):
        joined(terms, tokens, width)
    outputs = config.patch**2 * task.out_channels
    patch_head(terms, tokens, width, outputs)
    unpatchified(terms, patches, outputs)


def count_dim(terms: Terms, config: dim.Config, task: Task) -> None:
    """Mamba's mixers over a grid of patches with learned cells, behind tokens of time and label."""
    width = config.width
    rows, columns = task.height // config.patch, task.width // config.patch
    timestep_features(terms, width // 2)
    condition(terms, width)
    modulation(terms, width, 3)
    patches = patch_embedding(terms, task, width, config.patch)
    terms.depthwise(patches, width, 9)
    tokens = dim.FRONT + (rows + dim.PADS) * (columns + dim.PADS)
    for _ in range(config.depth):
        modulated(terms, tokens, width)
        mamba(terms, tokens, width, config.kernel)
        gated(terms, tokens, width)
    for _ in range(config.depth // 2):
        joined(terms, tokens, width)
    terms.depthwise(patches, width, 9)
    outputs = config.patch**2 * task.out_channels
    patch_head(terms, patches, width, outputs)
    unpatchified(terms, patches, outputs)


def count_dimsum(terms: Terms, config: dimsum.Config, task: Task) -> None:
    """Half of the channels scanned in space, half among wavelet coefficients, joined by cross-attention."""
    width, half = config.width, config.width // 2
    hidden = config.mlp_ratio * width
    condition(terms, width)
    tokens = patch_embedding(terms, task, width, config.patch)
    for _ in range(config.depth):
        for _ in range(2):
            modulation(terms, width, 3, half)
            modulated(terms, tokens, half)
            mamba(terms, tokens, half, config.kernel, padding=0)
            terms.linear(UNREAD, 1, width, 2 * half)
            gated(terms, tokens, half)
        # two steps there and two back, each of 4 coefficients a channel and place from 4 weights of 2 x 2
        terms.depthwise(tokens, half, 2 * 4, "wavelets")
        terms.depthwise(tokens, half, 2 * 4, "wavelets")
        terms.elementwise(UNSTRIDED, 2 * (16 - 4) * tokens * half)
        terms.elementwise("wavelets' scale", tokens * half)
        for _ in range(2):
            terms.linear("attention projections", tokens, half, 3 * half)
            terms.fused_attention(tokens, tokens, half)
        terms.linear("attention projections", tokens, width, width)
        modulation(terms, width, 3)
        modulated(terms, tokens, width)
        gated_feed_forward(terms, tokens, width, hidden)
        gated(terms, tokens, width)
    for _ in range(config.depth // config.attention_every):
        adaptive(terms, tokens, width)
        self_attention(terms, tokens, width)
        gated_feed_forward(terms, tokens, width, hidden)
    outputs = config.patch**2 * task.out_channels
    patch_head(terms, tokens, width, outputs)
    unpatchified(terms, tokens, outputs)


def count_udit(terms: Terms, config: udit.Config, task: Task) -> None:
    """Two transformer layers a block, attention on four sub-maps; the feed-forward as it runs folded."""
    pixels, width = task.height * task.width, config.width

    def layer(here: int, level_width: int) -> None:
        tokens, hidden = here // 4, config.mlp_ratio * level_width
        adaptive(terms, here, level_width)
        terms.depthwise(here, level_width, 25)
        attention_projections(terms, here, level_width)
        terms.attention(here, tokens, level_width)
        terms.elementwise("rotations", here * level_width)  # queries and keys, complex: half the products
        terms.elementwise("scaling of logits", config.heads * here * tokens)
        feed_forward(terms, here, level_width, config.mlp_ratio)
        terms.depthwise(here, hidden, 25)

    def block(here: int, level_width: int) -> None:
        layer(here, level_width)
        layer(here, level_width)

    for level_width in (width, 2 * width, 4 * width):
        condition(terms, level_width)
    widths = (width, 2 * width, 4 * width, 2 * width, 2 * width)
    terms.conv("stem", pixels, task.in_channels, width, 3)
    unet(terms, task, widths, config.depths, block)
    fused_skips(terms, task, widths)
    terms.conv("head", pixels, 2 * width, 2 * width, 3)
    image_head(terms, pixels, 2 * width, task.out_channels)


def _mdt_ends(terms: Terms, config: mdt.Config, task: Task, blocks: int) -> int:
    """Everything of MDT but its skips; returns the tokens."""
    width = config.width
    condition(terms, width)
    tokens = patch_embedding(terms, task, width, config.patch)
    for _ in range(blocks):
        adaptive(terms, tokens, width)
        attention_projections(terms, tokens, width)
        terms.attention(tokens, tokens, width)
        terms.elementwise("scaling of logits", config.heads * tokens**2)
        feed_forward(terms, tokens, width, config.mlp_ratio)
    outputs = config.patch**2 * task.out_channels
    patch_head(terms, tokens, width, outputs)
    unpatchified(terms, tokens, outputs)
    return tokens


def count_mdt(terms: Terms, config: mdt.Config, task: Task) -> None:
    """DiT's blocks with a position bias, attention not fused."""
    _mdt_ends(terms, config, task, config.depth)


def count_mdtv2(terms: Terms, config: mdt.Config, task: Task) -> None:
    """The same with skips into the second half of the encoder and into every block of the decoder."""
    half = (config.depth - config.decoder_depth) // 2
    tokens = _mdt_ends(terms, config, task, 2 * half + config.decoder_depth)
    for _ in range(half + config.decoder_depth):
        joined(terms, tokens, config.width)


def count_uvit(terms: Terms, config: uvit.Config, task: Task) -> None:
    """Time, label and patches as tokens of a transformer, and skips from its first half to its second."""
    width = config.width
    timestep_features(terms, width // 2)
    tokens = 2 + patch_embedding(terms, task, width, config.patch)
    for _ in range(2 * (config.depth // 2) + 1):
        affine_norm(terms, tokens, width)
        self_attention(terms, tokens, width)
        affine_norm(terms, tokens, width)
        feed_forward(terms, tokens, width, config.mlp_ratio)
    for _ in range(config.depth // 2):
        joined(terms, tokens, width)
    affine_norm(terms, tokens, width)
    terms.linear("head", tokens, width, config.patch**2 * task.out_channels)
    if config.smoothing:
        terms.conv("head", task.height * task.width, task.out_channels, task.out_channels, 3)


NETWORKS: Mapping[Callable[..., nn.Module], Formula] = {
    fcdm.FCDM: count_fcdm,
    fcdm.Isotropic: count_isotropic,
    dit.DiT: count_dit,
    dico.DiCo: count_dico,
    dic.DiC: count_dic,
    dig.DiG: count_dig,
    adm.ADM: count_adm,
    ldm.LDM: count_ldm,
    dis.DiS: count_dis,
    dim.DiM: count_dim,
    dimsum.DiMSUM: count_dimsum,
    udit.UDiT: count_udit,
    mdt.MDT: count_mdt,
    mdt.MDTv2: count_mdtv2,
    uvit.UViT: count_uvit,
}
