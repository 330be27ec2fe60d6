"""Whole pictures: chains of one backbone whose latents an autoencoder's decoder turns into images, by stage.

The decoder is that of AutoencoderKL of diffusers in its published shape. Random weights are enough for times.
"""

import importlib.metadata
import importlib.util
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor, nn

from bench.counting.dispatch import CountingMode
from bench.counting.rules import TORCH_RULES
from bench.machine import device, telemetry
from bench.machine.failures import NotFiniteError
from bench.measure.prepared import engine
from bench.records.base import Environment, height_width
from bench.records.pictures import PictureCase, PictureRun
from bench.sampling import chains, samplers

P = ParamSpec("P")
T = TypeVar("T")

# arguments of AutoencoderKL by the latents that it decodes
SHAPES: dict[str, Mapping[str, Any]] = {
    "sd-f8": {  # config.json of stabilityai/sd-vae-ft-ema, the autoencoder of Stable Diffusion and of DiT
        "in_channels": 3,
        "out_channels": 3,
        "down_block_types": ("DownEncoderBlock2D",) * 4,
        "up_block_types": ("UpDecoderBlock2D",) * 4,
        "block_out_channels": (128, 256, 512, 512),
        "layers_per_block": 2,
        "latent_channels": 4,
        "norm_num_groups": 32,
        "sample_size": 256,
        "scaling_factor": 0.18215,
    }
}


def why_not(name: str, model: str, space: str) -> str | None:
    """Reason why an autoencoder cannot decode what a model draws, in a space such as f16d32, or None."""
    if space != name:
        return f"{model} draws {space}; a model of {name} latents would work"
    if importlib.util.find_spec("diffusers") is None:
        return "diffusers is not installed; pip install -e '.[diffusers]' adds it"
    return None


class LatentDecoder(nn.Module):
    """Latents of a chain (N, C, H, W) to images in [-1, 1]: unscaled, a 1x1 convolution, the decoder."""

    def __init__(self, name: str) -> None:
        from diffusers import AutoencoderKL

        super().__init__()
        made: Any = AutoencoderKL(**SHAPES[name])  # its annotations lack what its decorators add
        self.scaling_factor = made.config.scaling_factor
        self.post_quant_conv = made.post_quant_conv
        self.decoder = made.decoder

    def forward(self, latents: Tensor) -> Tensor:
        return self.decoder(self.post_quant_conv(latents / self.scaling_factor))  # (N, 3, 8 H, 8 W)


def count(case: PictureCase) -> tuple[int, int]:
    """Parameters of the decoder, its 1x1 convolution included, and MACs of one image."""
    with torch.device("meta"):
        decoder = LatentDecoder(case.autoencoder)
        latents = torch.empty(_latents(case, 1))
    counting = CountingMode(TORCH_RULES)
    with torch.no_grad(), counting:
        decoder(latents)
    return sum(p.numel() for p in decoder.parameters()), counting.total


class Stopwatch:
    """Seconds of calls, each with the device synchronised before and after."""

    def __init__(self, synchronise: Callable[[], None]) -> None:
        self._synchronise = synchronise
        self.seconds: list[float] = []

    def timed(self, call: Callable[P, T]) -> Callable[P, T]:
        """The call, timed."""

        def run(*args: P.args, **keywords: P.kwargs) -> T:
            self._synchronise()
            begin = time.perf_counter()
            out = call(*args, **keywords)
            self._synchronise()
            self.seconds.append(time.perf_counter() - begin)
            return out

        return run


@dataclass(frozen=True, kw_only=True)
class Stages:
    """Seconds of one chain and of its stages."""

    total: float
    noise: float
    passes: tuple[float, ...]
    decoder: float


def measure(case: PictureCase, environment: Environment, source: chains.Source) -> PictureRun:
    """Draw and decode every batch of a case, each stage timed; errors as of chains.measure."""
    monitor = telemetry.monitor(case.device)
    if monitor:
        monitor.measure_idle()
    matmul_tf32, conv_tf32 = device.set_precision(case.precision)
    params, macs = count(case)
    timed: list[Stages] = []
    with chains.ready(case, source) as (drawer, network_build_s):
        begin = time.perf_counter()
        decode = decoder_of(case)
        decoder_build_s = time.perf_counter() - begin
        first_s = drawer.warm_up() + _warm_up(case, decode)
        with engine.compiled_already(case):
            if monitor:
                monitor.restart()
            for first in range(0, case.images, case.batch):
                timed.append(_chain(case, drawer, decode, first))
                if monitor:
                    monitor.between_passes()
        readings = monitor.finish() if monitor else None
    return PictureRun(
        case=case,
        environment=environment,
        passes=samplers.SAMPLERS[case.sampler].calls(case.steps),
        times_s=tuple(stages.total for stages in timed),
        noise_s=tuple(stages.noise for stages in timed),
        passes_s=tuple(stages.passes for stages in timed),
        decoder_s=tuple(stages.decoder for stages in timed),
        decoder_params=params,
        decoder_macs=macs,
        diffusers=importlib.metadata.version("diffusers"),
        build_s=network_build_s + decoder_build_s,
        compile_s=first_s if case.is_compiled else None,
        matmul_tf32=matmul_tf32,
        conv_tf32=conv_tf32,
        telemetry=readings,
    )


def _latents(case: PictureCase, batch: int) -> tuple[int, int, int, int]:
    height, width = height_width(case.latent_size)
    return batch, SHAPES[case.autoencoder]["latent_channels"], height, width


def decoder_of(case: PictureCase) -> Callable[[Tensor], Tensor]:
    """The decoder in the precision and layout of a case; its weights, unlike the network's, are cast."""
    dtype = device.DTYPES[case.precision]
    layout = torch.channels_last if case.channels_last else torch.contiguous_format
    with torch.device(case.device):
        decoder = LatentDecoder(case.autoencoder).to(dtype).eval()
    decoder.to(memory_format=layout)  # type: ignore[call-overload] # missing in its stub
    called = torch.compile(decoder) if case.is_compiled else decoder
    device.synchronise(case.device)()

    def decode(latents: Tensor) -> Tensor:
        with torch.autocast(case.device, enabled=False):  # autocast is for the network only
            images: Tensor = called(latents.to(dtype).contiguous(memory_format=layout))
        return images

    return decode


def _warm_up(case: PictureCase, decode: Callable[[Tensor], Tensor]) -> float:
    """Decode once as a chain does; return the seconds, which may include compiling."""
    latents = torch.zeros(_latents(case, case.batch), device=case.device)
    watch = Stopwatch(device.synchronise(case.device))
    watch.timed(decode)(latents)
    return watch.seconds[0]


def _chain(
    case: PictureCase, drawer: chains.Drawer, decode: Callable[[Tensor], Tensor], first: int
) -> Stages:
    """Draw and decode one batch, by its first image number. NotFiniteError: an image has inf or NaN."""
    synchronise = device.synchronise(case.device)
    drawing, predicting, decoding = (Stopwatch(synchronise) for _ in range(3))
    synchronise()
    begin = time.perf_counter()
    noise, y, _ = drawing.timed(drawer.begin)(first)
    start = drawing.timed(noise.draw)()
    sampler = samplers.SAMPLERS[case.sampler]
    latents = sampler.draw(predicting.timed(drawer.predict(y)), start, drawing.timed(noise), case.steps)
    images = decoding.timed(decode)(latents)
    total = time.perf_counter() - begin
    if not bool(torch.isfinite(images).all()):
        raise NotFiniteError(f"images from {first} on in {case.precision} hold inf or NaN")
    return Stages(
        total=total,
        noise=sum(drawing.seconds),
        passes=tuple(predicting.seconds),
        decoder=sum(decoding.seconds),
    )
