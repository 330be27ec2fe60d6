"""DDT: an encoder of the noisy latent makes a condition for every token of a decoder of the same latent.

Source: arXiv:2504.05741; XL as released, B and L from its paper. ImprovedDiT, its baseline of the same
release, is the decoder alone, conditioned on timestep and label.
Letters: N batch, C latent channels, H and W latent sides, P patch side, T tokens (H/P * W/P), D width.

The output is a velocity, data - noise; t is a float from 0 (noise) to 1 (data), embedded unscaled with
periods up to 10. The release can sample with the encoder's output of an earlier step, which is left out here:
every call runs both. Its training drops labels outside of the network.
"""

from dataclasses import dataclass
from functools import partial

import torch.nn.functional as F
from torch import Tensor, nn

from models.arithmetic import Terms
from models.family import Factory, Family, Renames
from models.layers.conditions import Condition, LabelDropout
from models.layers.initialisation import initialise_small, zero
from models.layers.modulation import modulate
from models.layers.rms import SwiGLU
from models.layers.rms_transformer import RMS_BLOCK_KEYS, RMSBlock, RotaryAttention, count_block
from models.layers.rotary import Rotary, spread_angles, turn_complex
from models.layers.transformer import DIT_KEYS
from models.task import LATENTS_FLOW, Task

TIME_PERIOD = 10.0


@dataclass(frozen=True, kw_only=True)
class Config:
    width: int
    encoder: int  # blocks; 0: ImprovedDiT
    decoder: int
    heads: int
    patch: int = 2

    @property
    def hidden(self) -> int:
        """Inner width of the feed-forward."""
        return 8 * self.width // 3


class Head(nn.Module):
    """Norm, modulation by each token's condition, linear: (N, T, D), (N, 1 or T, D) -> (N, T, P*P*C_out).

    The condition comes after its activation.
    """

    def __init__(self, width: int, outputs: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)
        self.modulation = nn.Linear(width, 2 * width)
        self.linear = nn.Linear(width, outputs)

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        shift, scale = self.modulation(c).chunk(2, dim=-1)
        return self.linear(modulate(self.norm(x), shift, scale))


class DDT(nn.Module):
    def __init__(self, config: Config, task: Task) -> None:
        super().__init__()
        self.patch, self.grid = config.patch, task.grid(config.patch)
        values = config.patch**2 * task.in_channels
        self.drop = LabelDropout(task.num_classes)
        self.condition = Condition(config.width, task.num_classes, TIME_PERIOD)
        self.embed = nn.Linear(values, config.width)
        self.embed_condition = nn.Linear(values, config.width) if config.encoder else None
        self.rotary = Rotary(partial(spread_angles, *self.grid, config.width // config.heads))
        self.encoder = config.encoder
        self.blocks = nn.ModuleList(
            RMSBlock(
                config.width,
                RotaryAttention(config.width, config.heads, turn_complex, qkv_bias=False),
                SwiGLU(config.width, config.hidden),
            )
            for _ in range(config.encoder + config.decoder)
        )
        self.head = Head(config.width, config.patch**2 * task.out_channels)
        self._initialise()

    def _initialise(self) -> None:
        """Torch's initial weights in the blocks, whose gates so start at random."""
        for embed in filter(None, (self.embed, self.embed_condition)):
            nn.init.xavier_uniform_(embed.weight)
            nn.init.zeros_(embed.bias)
        initialise_small(self.condition.time1, self.condition.time2, self.condition.labels)
        zero(self.head.modulation, self.head.linear)

    def forward(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        patches = F.pixel_unshuffle(x, self.patch).flatten(2).transpose(1, 2)  # (N, T, C*P*P)
        time = self.condition.time(t)[:, None]  # (N, 1, D)
        c = F.silu(time + self.condition.labels(self.drop(y))[:, None])

        turns = self.rotary.cosines, self.rotary.sines  # each (T, d/2)
        if self.embed_condition is not None:
            s = self.embed_condition(patches)  # (N, T, D)
            for block in self.blocks[: self.encoder]:
                s = block(s, c, *turns)
            c = F.silu(time + s)  # (N, T, D)

        x = self.embed(patches)
        for block in self.blocks[self.encoder :]:
            x = block(x, c, *turns)
        x = self.head(x, c).transpose(1, 2).unflatten(2, self.grid)  # (N, C_out*P*P, H/P, W/P)
        return F.pixel_shuffle(x, self.patch)  # (N, C_out, H, W)

    @staticmethod
    def closed_form(terms: Terms, config: Config, task: Task) -> None:
        width, (high, wide) = config.width, task.grid(config.patch)
        tokens, values = high * wide, config.patch**2 * task.in_channels
        terms.condition(width)
        for _ in range(2 if config.encoder else 1):
            terms.linear("patch embedding", tokens, values, width)
        decoder_conditions = tokens if config.encoder else 1
        for depth, conditions in ((config.encoder, 1), (config.decoder, decoder_conditions)):
            for _ in range(depth):
                count_block(
                    terms, tokens, width, config.hidden, config.heads, turning=1, conditions=conditions
                )
        terms.linear("adaLN", decoder_conditions, width, 2 * width)
        terms.modulate(tokens, width)
        terms.linear("head", tokens, width, config.patch**2 * task.out_channels)


_SIZES = {  # width, blocks of the encoder, of the decoder, heads
    "B": (768, 8, 4, 12),
    "L": (1024, 20, 4, 16),
    "XL": (1152, 22, 6, 16),
}
VARIANTS: dict[str, Factory] = {
    f"DDT-{size}/2": partial(DDT, Config(width=width, encoder=encoder, decoder=decoder, heads=heads))
    for size, (width, encoder, decoder, heads) in _SIZES.items()
}
IMPROVED_VARIANTS: dict[str, Factory] = {
    f"ImprovedDiT-{size}/2": partial(DDT, Config(width=width, encoder=0, decoder=first + last, heads=heads))
    for size, (width, first, last, heads) in _SIZES.items()
}
SMALL: dict[str, Factory] = {
    "DDT-Ti/2": partial(DDT, Config(width=64, encoder=4, decoder=1, heads=4)),
}

OFFICIAL: Renames = (
    (r"^embed_condition\.", "s_embedder.proj."),
    (r"^head\.modulation\.", "final_layer.adaLN_modulation.0."),
    *DIT_KEYS,
    (r"\.modulation\.", ".adaLN_modulation.0."),
    (r"\.feedforward\.gate\.", ".mlp.w1."),
    (r"\.feedforward\.value\.", ".mlp.w3."),
    (r"\.feedforward\.contract\.", ".mlp.w2."),
    *RMS_BLOCK_KEYS,
)

FAMILY = Family(
    network=DDT,
    task=LATENTS_FLOW,
    official=OFFICIAL,
    variants=VARIANTS,
    small=SMALL,
    aliases={
        f"DDT-{size}/2-{encoder}en{decoder}de": f"DDT-{size}/2"
        for size, (_, encoder, decoder, _) in _SIZES.items()
    },
)
IMPROVED = Family(network=DDT, task=LATENTS_FLOW, official=OFFICIAL, variants=IMPROVED_VARIANTS)
