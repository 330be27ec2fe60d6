"""What two or more backbones share: conditions, norms, modulation, patches, mixers, blocks, resampling.

Letters: N batch, C latent channels, H and W latent sides, P patch side, T tokens, D width.
"""

import math
from collections.abc import Callable, Collection, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.kernels.selective_scan import Backend, selective_scan
from models.task import Renames

FREQUENCIES = 128
STATES = 16  # of each channel of a selective scan, in all three papers that have one
LABEL_DROPOUT = 0.1  # all four papers


def timestep_features(t: Tensor, frequencies: int = FREQUENCIES) -> Tensor:
    """Cosines, then sines, of t at F geometric frequencies from 1 down to 1/10000: (N,) -> (N, 2F).

    Always float32, whatever the network computes in, as in every release.
    """
    steps = torch.arange(frequencies, dtype=torch.float32, device=t.device)
    rates = torch.exp(-math.log(10000) * steps / frequencies)
    angles = t[:, None].float() * rates
    return torch.cat([torch.cos(angles), torch.sin(angles)], dim=-1)


class Condition(nn.Module):
    """Embeds timesteps and labels and adds them: (N,), (N,) -> (N, D).

    The label table has one row more than there are classes: the null class of guidance.
    """

    def __init__(self, width: int, num_classes: int) -> None:
        super().__init__()
        self.time1 = nn.Linear(2 * FREQUENCIES, width)
        self.time2 = nn.Linear(width, width)
        self.labels = nn.Embedding(num_classes + 1, width)

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        features = timestep_features(t).to(self.time1.weight.dtype)
        embedded: Tensor = self.time2(F.silu(self.time1(features)))
        return embedded + self.labels(y)


class LabelDropout(nn.Module):
    """In training mode, replaces each label by the null class with probability 0.1: (N,) -> (N,)."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.null = num_classes

    def forward(self, y: Tensor) -> Tensor:
        if not self.training:
            return y
        dropped = torch.rand(y.shape, device=y.device) < LABEL_DROPOUT
        return torch.where(dropped, self.null, y)


class Modulation(nn.Module):
    """`count` vectors from the condition, Linear(SiLU(c)): (N, D) -> (count, N, D or out_width)."""

    def __init__(self, width: int, count: int, out_width: int | None = None) -> None:
        super().__init__()
        self.linear = nn.Linear(width, count * (out_width or width))
        self.count = count

    def forward(self, c: Tensor) -> Tensor:
        vectors = self.linear(F.silu(c))  # (N, count * D)
        return vectors.unflatten(1, (self.count, -1)).transpose(0, 1)


class ChannelNorm(nn.Module):
    """Layer norm over the channels of an image, without affine: (N, D, H, W) -> (N, D, H, W)."""

    eps = 1e-6

    def forward(self, x: Tensor) -> Tensor:
        x = x.permute(0, 2, 3, 1)  # (N, H, W, D)
        return F.layer_norm(x, x.shape[-1:], eps=self.eps).permute(0, 3, 1, 2)


def modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """x * (1 + scale) + shift, as a product and a sum.

    `modulate_addcmul` is the same function. Both are kept because the releases differ: it passes over x
    once less, and torchprofile counts the product here and nothing there, which the published GMACs show.
    """
    return x * (1 + scale) + shift


def modulate_addcmul(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """x * (1 + scale) + shift in one operator, as in FCDM's blocks."""
    return torch.addcmul(shift, x, 1 + scale)


class ChannelAttention(nn.Module):
    """Scales each channel by a sigmoid of the image's average: (N, D, H, W) -> (N, D, H, W)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mix = nn.Conv2d(width, width, 1)

    def forward(self, h: Tensor) -> Tensor:
        return h * torch.sigmoid(self.mix(F.adaptive_avg_pool2d(h, 1)))


def position_table(height: int, width: int, channels: int) -> Tensor:
    """Fixed 2-D sin-cos positions: (1, height * width, channels), row by row, computed in float64.

    The first half of the channels encodes the column, the second the row; each half is channels/4
    frequencies 10000^(-i / (channels/4)), their sines, then their cosines.
    """
    count = channels // 4
    frequencies = 10000.0 ** (-torch.arange(count, dtype=torch.float64) / count)

    def encode(positions: Tensor) -> Tensor:
        angles = positions[:, None] * frequencies
        return torch.cat([angles.sin(), angles.cos()], dim=1)

    columns = encode(torch.arange(width, dtype=torch.float64)).repeat(height, 1)
    rows = encode(torch.arange(height, dtype=torch.float64)).repeat_interleave(width, dim=0)
    return torch.cat([columns, rows], dim=1)[None]


class Attention(nn.Module):
    """(N, T, D) -> (N, T, D)"""

    def __init__(self, width: int, heads: int, *, qkv_bias: bool = True) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width, bias=qkv_bias)
        self.project = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)  # (N, heads, T, d)
        x = F.scaled_dot_product_attention(q, k, v)
        return self.project(x.transpose(1, 2).flatten(2))


class TransformerBlock(nn.Module):
    """Attention, then an MLP, each behind a norm that the condition modulates and gates.

    (N, T, D), (N, D) -> (N, T, D)
    """

    def __init__(self, width: int, mlp_ratio: int, attention: nn.Module) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)
        self.norm2 = nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)
        self.modulation = Modulation(width, count=6)
        self.attention = attention
        self.expand = nn.Linear(width, mlp_ratio * width)
        self.contract = nn.Linear(mlp_ratio * width, width)

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        shift1, scale1, gate1, shift2, scale2, gate2 = self.modulation(c)[:, :, None]
        x = x + gate1 * self.attention(modulate(self.norm1(x), shift1, scale1))
        h = self.expand(modulate(self.norm2(x), shift2, scale2))
        return x + gate2 * self.contract(F.gelu(h, approximate="tanh"))


class SkipTransformerBlock(TransformerBlock):
    """A block on the tokens and those of a skip: (N, T, D), (N, T, D), (N, D) -> (N, T, D)."""

    def __init__(self, width: int, mlp_ratio: int, attention: nn.Module) -> None:
        super().__init__(width, mlp_ratio, attention)
        self.join = nn.Linear(2 * width, width)

    def forward(self, x: Tensor, skip: Tensor, c: Tensor) -> Tensor:  # type: ignore[override]  # one input more
        return super().forward(self.join(torch.cat([x, skip], dim=-1)), c)


class PatchHead(nn.Module):
    """Norm, modulation, and P*P*C_out outputs a token: (N, T, D), (N, D) -> (N, T, P*P*C_out).

    The norm is a layer norm without affine unless one is given.
    """

    def __init__(self, width: int, patch: int, out_channels: int, norm: nn.Module | None = None) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, eps=1e-6, elementwise_affine=False) if norm is None else norm
        self.modulation = Modulation(width, count=2)
        self.linear = nn.Linear(width, patch * patch * out_channels)

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        shift, scale = self.modulation(c)[:, :, None]  # each (N, 1, D)
        return self.linear(modulate(self.norm(x), shift, scale))


def unpatchify(x: Tensor, grid: tuple[int, int], patch: int) -> Tensor:
    """Lay tokens out as an image: (N, H/P * W/P, P*P*C) -> (N, C, H, W).

    A token's values are ordered (row in patch, column in patch, channel), the channel fastest. The
    permutation is an einsum, as in the releases of DiT and MDT, whose MACs torchprofile counts one a value.
    """
    x = x.reshape(len(x), *grid, patch, patch, -1)
    return torch.einsum("nhwpqc->nchpwq", x).flatten(4, 5).flatten(2, 3)


class StateSpace(nn.Module):
    """One direction of Mamba's mixer, between its projections: causal convolution, selection, scan, gate.

    Inputs and gates (N, T, I), (N, T, I) -> (N, T, I). Fresh, it decays as in the paper; `initialise_mamba`
    sets its steps.

    Args:
        inner: channels I.
        rank: of the steps.
        kernel: of the causal convolution.
        backend: of the scan.
    """

    def __init__(self, inner: int, rank: int, kernel: int, backend: Backend) -> None:
        super().__init__()
        self.backend = backend
        self.split = (rank, STATES, STATES)
        self.conv = nn.Conv1d(inner, inner, kernel, padding=kernel - 1, groups=inner)
        self.select = nn.Linear(inner, sum(self.split), bias=False)
        self.step = nn.Linear(rank, inner)
        self.decay = nn.Parameter(
            torch.arange(1.0, STATES + 1).log().repeat(inner, 1)
        )  # log of minus the rate
        self.skip = nn.Parameter(torch.ones(inner))

    def forward(self, u: Tensor, z: Tensor) -> Tensor:
        # padded on both sides; what the right side adds is cut, so that no token sees a later one
        u = F.silu(self.conv(u.transpose(1, 2))[..., : u.shape[1]]).transpose(1, 2)
        step, b, c = self.select(u).split(self.split, dim=2)
        return selective_scan(u, self.step(step), self.decay, b, c, self.skip, z, self.backend)


# from our names to those of Mamba's own code, which the releases keep
MAMBA_KEYS: Renames = (
    (r"\.project_(in|out)\.", r".\1_proj."),
    (r"\.forwards\.decay$", ".A_log"),
    (r"\.forwards\.skip$", ".D"),
    (r"\.forwards\.conv\.", ".conv1d."),
    (r"\.forwards\.select\.", ".x_proj."),
    (r"\.forwards\.step\.", ".dt_proj."),
)


class Mamba(nn.Module):
    """Mamba's mixer: (N, T, D) -> (N, T, D). A token sees those before it."""

    def __init__(self, width: int, kernel: int, backend: Backend) -> None:
        super().__init__()
        self.inner, self.rank = 2 * width, math.ceil(width / 16)
        self.project_in = nn.Linear(width, 2 * self.inner, bias=False)
        self.forwards = StateSpace(self.inner, self.rank, kernel, backend)
        self.project_out = nn.Linear(self.inner, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        u, z = self.project_in(x).chunk(2, dim=2)  # each (N, T, 2D)
        return self.project_out(self.forwards(u, z))


class Down(nn.Module):
    """3x3 convolution without bias to out/4 channels, then pixel-unshuffle.

    (N, D, H, W) -> (N, D_out, H/2, W/2)
    """

    def __init__(self, width: int, out_width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, out_width // 4, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return F.pixel_unshuffle(self.conv(x), 2)


class Up(nn.Module):
    """3x3 convolution without bias to 4*out channels, then pixel-shuffle.

    (N, D, H, W) -> (N, D_out, 2H, 2W)
    """

    def __init__(self, width: int, out_width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, 4 * out_width, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return F.pixel_shuffle(self.conv(x), 2)


class UNet(nn.Module):
    """Blocks at three resolutions, down and up again, each way up fused with the skip of its level.

    (N, D, H, W) and a condition for each of the five levels -> (N, widths[4], H, W).

    Args:
        block: makes a block of a width; it is called with (x, c).
        widths: of the five levels down, down, middle, up, up. The last may differ from the first.
        depths: blocks in each of the five levels.
    """

    def __init__(
        self, block: Callable[[int], nn.Module], widths: Sequence[int], depths: Sequence[int]
    ) -> None:
        super().__init__()
        self.encoder1, self.encoder2, self.middle, self.decoder2, self.decoder1 = (
            nn.ModuleList(block(width) for _ in range(depth))
            for width, depth in zip(widths, depths, strict=True)
        )
        self.down1 = Down(widths[0], widths[1])
        self.down2 = Down(widths[1], widths[2])
        self.up2 = Up(widths[2], widths[1])
        self.fuse2 = nn.Conv2d(2 * widths[1], widths[3], 1)
        self.up1 = Up(widths[3], widths[0])
        self.fuse1 = nn.Conv2d(2 * widths[0], widths[4], 1)

    def forward(self, x: Tensor, conditions: Sequence[Tensor]) -> Tensor:
        skip1 = _run(self.encoder1, x, conditions[0])  # (N, D, H, W)
        skip2 = _run(self.encoder2, self.down1(skip1), conditions[1])  # (N, 2D, H/2, W/2)
        x = _run(self.middle, self.down2(skip2), conditions[2])  # (N, 4D, H/4, W/4)
        x = self.fuse2(torch.cat([self.up2(x), skip2], dim=1))
        x = _run(self.decoder2, x, conditions[3])  # (N, 2D, H/2, W/2)
        x = self.fuse1(torch.cat([self.up1(x), skip1], dim=1))
        return _run(self.decoder1, x, conditions[4])  # (N, widths[4], H, W)


def _run(blocks: nn.ModuleList, x: Tensor, c: object) -> Tensor:
    for block in blocks:
        x = block(x, c)
    return x


class TimeEmbedding(nn.Module):
    """Timesteps through sines and an MLP as wide as its output: (N,) -> (N, E)."""

    def __init__(self, features: int, width: int) -> None:
        super().__init__()
        self.count = features // 2
        self.linear1 = nn.Linear(features, width)
        self.linear2 = nn.Linear(width, width)

    def forward(self, t: Tensor) -> Tensor:
        features = timestep_features(t, self.count).to(self.linear1.weight.dtype)
        return self.linear2(F.silu(self.linear1(features)))


def unchanged(x: Tensor) -> Tensor:
    return x


class ResBlock(nn.Module):
    """Two normed 3x3 convolutions beside a skip: (N, D, H, W), condition -> (N, D_out, H', W').

    Args:
        width: D.
        out_width: D_out.
        conditioned: the second norm, called with (h, condition); the first does not see the condition.
        resample: halves or doubles the sides, before the first convolution and of the skip.
        dropout: of the second convolution's input, in training.
    """

    def __init__(
        self,
        width: int,
        out_width: int,
        conditioned: nn.Module,
        resample: Callable[[Tensor], Tensor] = unchanged,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(32, width)
        self.resample = resample
        self.conv1 = nn.Conv2d(width, out_width, 3, padding=1)
        self.norm2 = conditioned
        self.dropout = nn.Dropout(dropout)
        self.conv2 = nn.Conv2d(out_width, out_width, 3, padding=1)
        self.skip = nn.Identity() if width == out_width else nn.Conv2d(width, out_width, 1)

    def forward(self, x: Tensor, c: object) -> Tensor:
        h = self.conv1(self.resample(F.silu(self.norm1(x))))
        h = self.conv2(self.dropout(F.silu(self.norm2(h, c))))
        return self.skip(self.resample(x)) + h


class Step(nn.ModuleList):
    """Layers in a row that all take the condition: (N, D, H, W), condition -> (N, D_out, H', W')."""

    def forward(self, x: Tensor, c: object) -> Tensor:
        return _run(self, x, c)


class SteppedUNet(nn.Module):
    """The U-Net of the DDPM line: each step down is concatenated to the input of a step up.

    (N, widths[0], H, W) and a condition, handed to every layer as it is -> (N, widths[0], H, W).

    Args:
        widths: of each level, the finest first; the sides are halved between two levels.
        depth: blocks a level on the way down; on the way up it is one more.
        attended: the levels, counted from 0, with attention after each block; the middle always has it.
        block, attention, down, up: make a layer, called with (x, condition): of a width, the block of a
            width in and a width out.
    """

    def __init__(
        self,
        widths: Sequence[int],
        depth: int,
        attended: Collection[int],
        block: Callable[[int, int], nn.Module],
        attention: Callable[[int], nn.Module],
        down: Callable[[int], nn.Module],
        up: Callable[[int], nn.Module],
    ) -> None:
        super().__init__()
        last = len(widths) - 1
        self.encoder, self.decoder = nn.ModuleList(), nn.ModuleList()
        width = widths[0]
        skips = [width]
        for level, out_width in enumerate(widths):
            for _ in range(depth):
                layers = [block(width, out_width)]
                if level in attended:
                    layers.append(attention(out_width))
                self.encoder.append(Step(layers))
                width = out_width
                skips.append(width)
            if level != last:
                self.encoder.append(Step([down(width)]))
                skips.append(width)
        self.middle = Step([block(width, width), attention(width), block(width, width)])
        for level, out_width in reversed(list(enumerate(widths))):
            for index in range(depth + 1):
                layers = [block(width + skips.pop(), out_width)]
                if level in attended:
                    layers.append(attention(out_width))
                if level > 0 and index == depth:
                    layers.append(up(out_width))
                self.decoder.append(Step(layers))
                width = out_width

    def forward(self, x: Tensor, c: object) -> Tensor:
        skips = [x]
        for step in self.encoder:
            x = step(x, c)
            skips.append(x)
        x = self.middle(x, c)
        for step in self.decoder:
            x = step(torch.cat([x, skips.pop()], dim=1), c)
        return x


# ADM's and LDM's releases call what they share by the same names. A network that holds it as `time`, `stem`,
# `unet`, `norm` and `head` is renamed by these, its own layers inside the steps apart.
STEPPED_OFFICIAL: Renames = (
    (r"^time\.linear1\.", "time_embed.0."),
    (r"^time\.linear2\.", "time_embed.2."),
    (r"^stem\.", "input_blocks.0.0."),
    # the stem is their first input block; no network has as many as 32
    *((rf"^unet\.encoder\.{i}\.", f"input_blocks.{i + 1}.") for i in range(32)),
    (r"^unet\.middle\.", "middle_block."),
    (r"^unet\.decoder\.", "output_blocks."),
    (r"^norm\.", "out.0."),
    (r"^head\.", "out.2."),
    (r"\.norm1\.", ".in_layers.0."),
    (r"\.conv1\.", ".in_layers.2."),
    (r"\.norm2\.linear\.", ".emb_layers.1."),
    (r"\.norm2\.norm\.", ".out_layers.0."),
    (r"\.conv2\.", ".out_layers.3."),
    (r"\.skip\.", ".skip_connection."),
    (r"\.project\.", ".proj_out."),
)


class Head(nn.Module):
    """Norm, modulation by the condition, 3x3 convolution: (N, D, H, W), (N, D) -> (N, C_out, H, W)."""

    def __init__(self, width: int, out_channels: int) -> None:
        super().__init__()
        self.norm = ChannelNorm()
        self.modulation = Modulation(width, count=2)
        self.conv = nn.Conv2d(width, out_channels, 3, padding=1)

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        shift, scale = self.modulation(c)[..., None, None]  # each (N, D, 1, 1)
        return self.conv(modulate(self.norm(x), shift, scale))


def initialise(model: nn.Module) -> None:
    """Fill a whole network as all four papers start: the caller then zeroes its own layers.

    Xavier-uniform linears and convolutions, zero biases, N(0, 0.02) for label tables and timestep MLPs.
    """
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            nn.init.xavier_uniform_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    for module in model.modules():
        if isinstance(module, Condition):
            for weight in (module.time1.weight, module.time2.weight, module.labels.weight):
                nn.init.normal_(weight, std=0.02)


def initialise_flat(conv: nn.Conv2d) -> None:
    """Xavier-uniform over the weight as a matrix (out, in * height * width), as stems and patches start."""
    nn.init.xavier_uniform_(conv.weight.view(conv.out_channels, -1))


def initialise_mamba(model: nn.Module, depth: int) -> None:
    """Fill a network of Mamba's mixers as the authors of DiS, DiM and DiMSUM do; the caller adds its own.

    Zero biases of linears and N(0, 0.02) for embeddings. In every mixer, steps of 0.001 to 0.1 (their
    logarithm uniform, one below 1e-4 raised to it), and output projections of 1/sqrt(depth) the usual size.
    """
    for module in model.modules():
        if isinstance(module, nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight, std=0.02)
    with torch.no_grad():
        for mixer in (module for module in model.modules() if isinstance(module, Mamba)):
            nn.init.uniform_(mixer.forwards.step.weight, -(mixer.rank**-0.5), mixer.rank**-0.5)
            steps = torch.empty_like(mixer.forwards.step.bias).uniform_(math.log(0.001), math.log(0.1))
            steps = steps.exp().clamp(min=1e-4)
            mixer.forwards.step.bias.copy_(steps + torch.log(-torch.expm1(-steps)))  # softplus undone
            nn.init.kaiming_uniform_(mixer.project_out.weight, a=math.sqrt(5))
            mixer.project_out.weight.div_(math.sqrt(depth))


def zero(*layers: nn.Linear | nn.Conv1d | nn.Conv2d) -> None:
    """Set weights and biases to zero: modulations and last projections start so."""
    for layer in layers:
        nn.init.zeros_(layer.weight)
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)


def require_odd(kernel: int) -> None:
    """Refuse a kernel without a middle.

    Raises:
        ValueError: names the odd neighbours.
    """
    if kernel < 1 or kernel % 2 == 0:
        near = f"{kernel - 1} or {kernel + 1}" if kernel > 1 else "1"
        raise ValueError(f"kernel: must be odd, got {kernel}; {near} would work")
