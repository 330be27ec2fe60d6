"""What a measurement becomes: frozen dataclasses, kept as JSON lines.

Units: seconds, bytes, counts of multiply-accumulates (MACs; 1 MAC = 2 FLOPs). Statistics are derived
from the samples when read; none is stored. Nothing here imports torch.
"""

import hashlib
import json
import math
import types
import typing
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from bench.stats import intervals, ratios
from bench.stats import noise as noise

SCHEMA = 1

Size = int | tuple[int, int]  # a square's side, or (height, width)


class StoreError(ValueError):
    """A file of records that cannot be read as one."""


def size_text(size: Size) -> str:
    """Write 256 or 256x512 (height x width)."""
    return str(size) if isinstance(size, int) else f"{size[0]}x{size[1]}"


def height_width(size: Size) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else size


@dataclass(frozen=True, kw_only=True)
class Environment:
    """The machine and the software that a number depends on."""

    device: str  # as the driver or the operating system names it
    device_type: str  # cpu or cuda
    driver: str  # blank without a GPU
    cuda: str  # the version torch was built for; blank without
    torch: str
    python: str
    platform: str
    threads: int  # of one operator on the CPU
    commit: str  # of this suite; "+dirty" with uncommitted changes, blank outside a checkout
    code: str  # head of the SHA-256 of the sources that make the number: models, bench and a user's module
    date: str  # UTC, ISO 8601, to the second
    unit: str = ""  # which GPU of its kind: head of the SHA-256 of its UUID; blank on a CPU


@dataclass(frozen=True, kw_only=True)
class Run:
    """One case that a device works on: question, model, work and settings, by default torch's own."""

    # throughput, latency, versus, train_step, profile, convergence, spectrum, channels or golden; memory of
    # WORK, scaling of WORK, sample: ... or depthwise: ..., with what else tells the case from others
    question: str
    model: str
    family: str
    res: Size  # pixels
    latent_size: Size
    batch: int
    precision: str  # fp32 (no TF32 anywhere), tf32, torch-default (TF32 in convolutions only), bf16, fp16
    compile: bool = False
    cuda_graphs: bool = False
    channels_last: bool = False
    attention: str = "auto"  # auto (torch chooses), flash, cudnn, efficient, math, flash-attn
    checkpointing: bool = False
    protocol: str = "suite"  # suite, or the published one that is replayed: dico
    soak_s: float = 0.0  # of continuous work before the sustained samples; 0: none are taken
    budget_s: float = 0.0
    precision_target: float = 0.0  # half-width of the median's 95 % interval, as a share of the median
    weights: str = "random"  # "random", "golden" as baselines/README.md fills them, or file and its SHA-256
    environment: Environment

    def __post_init__(self) -> None:
        if self.batch < 1:
            raise ValueError(f"batch: must be at least 1, got {self.batch}")

    @property
    def work(self) -> str:
        """What a pass of it is: inference, or training for a whole step."""
        trains = self.question == "train_step" or " of training" in self.question
        return "training" if trains else "inference"


@dataclass(frozen=True, kw_only=True)
class Counted:
    """MACs of one model at one size under one counter."""

    model: str
    family: str
    res: Size  # pixels
    latent_size: Size
    batch: int
    counter: str  # of bench.flops: torch, closed-form, torchprofile-meta, module-hooks, fvcore, ...
    params: int  # every tensor the authors' checkpoint holds as a parameter
    params_trainable: int  # without fixed position tables
    macs: int  # of one forward pass of the batch
    train_macs: int | None  # forward and backward, the input needing no gradient; None: not counted
    train_macs_checkpointed: int | None  # the same with every block recomputed in the backward pass
    not_counted: tuple[str, ...]  # operators that ran and that the counter gave nothing for
    environment: Environment

    def __post_init__(self) -> None:
        if self.macs < 0 or self.params < 0:
            raise ValueError(f"{self.model}: counts cannot be negative")

    @property
    def flops(self) -> int:
        return 2 * self.macs


@dataclass(frozen=True, kw_only=True)
class Telemetry:
    """What the GPU said of itself while passes were timed. What it did not say is None or empty.

    The window goes from the first timed pass to the last, through a soak and the sustained passes after it.
    """

    clocks_mhz: tuple[float, ...]  # of the streaming multiprocessors, in order of time
    power_w: tuple[float, ...]
    temperature_c: tuple[float, ...]
    window_s: float
    energy_j: float | None  # of the energy counter over the window; None below 5 s, which it resolves badly
    idle_w: float | None  # before the model was there; None where no soak was asked for
    # passes within the window; None in records from before this field: the timed ones
    calls: int | None = None
    held_back: tuple[str, ...] = ()  # what held the clocks down at any reading: power cap, thermal, ...


@dataclass(frozen=True, kw_only=True)
class Throughput:
    """Seconds of every timed pass: one denoising forward call, or one training step (Run.work)."""

    run: Run
    times_s: tuple[float, ...]  # wall clock, from before the call to after the device has finished
    device_times_s: tuple[float, ...]  # between device events; empty on a CPU
    warmup_times_s: tuple[float, ...]  # wall clock, not in the statistics
    warmup_stationary: bool  # the warm-up ended because passes had stopped getting faster
    stopped_by: str  # precision, or budget
    unmet: tuple[str, ...]  # the criteria that were open when sampling ended
    build_s: float  # making the model and moving it
    compile_s: float | None  # the first call of the compiled model; None without torch.compile
    matmul_tf32: bool  # the two switches as they stood while timing
    conv_tf32: bool
    sustained_times_s: tuple[float, ...]  # wall clock, after run.soak_s of continuous work; empty without
    telemetry: Telemetry | None  # None where no counters could be read

    def __post_init__(self) -> None:
        if not self.times_s or min(self.times_s) <= 0:
            raise ValueError(f"{self.run.model}: needs at least one time, all above zero")

    @property
    def median_s(self) -> float:
        return intervals.median(self.times_s)

    @property
    def interval_s(self) -> tuple[float, float] | None:
        """95 % interval of the median pass; None with fewer than six samples."""
        return intervals.median_interval(self.times_s)

    @property
    def images_per_s(self) -> float:
        return self.run.batch / self.median_s

    @property
    def noise(self) -> tuple[str, ...]:
        """What disturbed the passes, by name and size; empty for a quiet machine."""
        return noise.noise(self.times_s, self.telemetry.clocks_mhz if self.telemetry else ())

    @property
    def sustained_images_per_s(self) -> float | None:
        """Of the heat-soaked device; None if that was not asked for."""
        return self.run.batch / intervals.median(self.sustained_times_s) if self.sustained_times_s else None

    @property
    def joules_per_image(self) -> float | None:
        """From the energy counter, the device's idle draw included; None without a reading."""
        return _joules_per_image(self)

    @property
    def images_per_s_interval(self) -> tuple[float, float] | None:
        interval = self.interval_s
        return interval and (self.run.batch / interval[1], self.run.batch / interval[0])


@dataclass(frozen=True, kw_only=True)
class Skipped:
    """A case that gave no number: a row with its reason, not a gap."""

    run: Run
    status: str  # out of memory, crashed, timed out, error, not finite, not timed
    reason: str


@dataclass(frozen=True, kw_only=True)
class Interleaved:
    """Every visit of interleaved rounds over two or more arms, the reference first.

    Ratios are those of speeds: reference time / time of the arm.
    """

    order: tuple[int, ...]  # the arm of each visit; a round is two visits of each arm
    visits_s: tuple[float, ...]  # wall clock, from before the first call to after the device has finished
    calls: tuple[int, ...]  # in one visit of each arm
    clocks_mhz: tuple[float | None, ...]  # of the device, after each visit; empty where nothing reads it
    warmup_times_s: tuple[tuple[float, ...], ...]  # single calls of each arm, not in the statistics
    warmup_stationary: tuple[bool, ...]
    margin: float  # ratios within 1 +- margin are the same speed
    stopped_by: str  # verdicts, or budget
    unmet: tuple[str, ...]  # what was open when sampling ended

    @property
    def arms(self) -> tuple[str, ...]:
        """Their names, in order."""
        raise NotImplementedError

    def __post_init__(self) -> None:
        arms = len(self.calls)
        if arms < 2 or min(self.calls) < 1:
            raise ValueError(f"rounds: need two or more arms, each with its calls, got {arms} arms")
        if len(self.visits_s) != len(self.order) or not self.order or min(self.visits_s) <= 0:
            raise ValueError("rounds: need a time above zero for every visit")
        if any(self.order.count(arm) * arms != len(self.order) for arm in range(arms)):
            raise ValueError("rounds: every arm needs the same number of visits")
        if self.clocks_mhz and len(self.clocks_mhz) != len(self.order):
            raise ValueError("rounds: need a clock for every visit, or none at all")

    @property
    def rounds(self) -> int:
        return len(self.order) // (2 * len(self.calls))

    def times_s(self, arm: int) -> tuple[float, ...]:
        """Mean seconds of a call in each visit of an arm, in order."""
        return ratios.seconds_per_call(self, arm)

    def ratio(self, arm: int, against: int = 0) -> float:
        """Speed of an arm as a multiple of another's, by default the reference's."""
        return ratios.ratio(self, arm, against)

    def interval(self, arm: int, against: int = 0) -> tuple[float, float] | None:
        """99 % interval of the ratio; None with too few rounds."""
        return ratios.ratio_interval(self, arm, against)

    def verdict(self, arm: int) -> str:
        """Faster, slower, same, too close to call or refused; see `paired.verdict`."""
        if ratios.why_refused(self, arm) is not None:
            return ratios.REFUSED
        return ratios.verdict(self.interval(arm), self.margin)

    def noise(self, arm: int) -> tuple[str, ...]:
        """What disturbed the visits of an arm, by name and size; empty for a quiet machine."""
        visits = zip(self.order, self.clocks_mhz, strict=False)
        clocks = [clock for at, clock in visits if at == arm and clock is not None]
        return noise.noise(self.times_s(arm), clocks)


@dataclass(frozen=True, kw_only=True)
class Comparison(Interleaved):
    """Interleaved rounds over two or more cases."""

    runs: tuple[Run, ...]  # of the arms; they differ in the model only
    build_s: tuple[float, ...]
    compile_s: tuple[float | None, ...]
    matmul_tf32: bool  # the two switches as they stood while timing
    conv_tf32: bool

    def __post_init__(self) -> None:
        if len(self.calls) != len(self.runs):
            arms = len(self.runs)
            raise ValueError(f"comparison: needs two or more arms, each with its calls, got {arms} arms")
        super().__post_init__()

    @property
    def arms(self) -> tuple[str, ...]:
        return tuple(run.model for run in self.runs)

    def images_per_s(self, arm: int) -> float:
        return self.runs[arm].batch / intervals.median(self.times_s(arm))


@dataclass(frozen=True, kw_only=True)
class NotCompared:
    """A comparison that gave no number."""

    runs: tuple[Run, ...]
    status: str  # as of Skipped
    reason: str


@dataclass(frozen=True, kw_only=True)
class MemoryUse:
    """Bytes that an inference pass or a training step holds, counted by the allocator or as it would."""

    passes_peak_bytes: int  # allocated at once in the forward and backward pass
    passes_peak_phase: str  # forward or backward: where that was
    passes_gradients_bytes: int  # of the gradients there at that peak: they come as activations go
    update_peak_bytes: int | None  # allocated at once while optimizer and EMA update; None for inference
    parameters_bytes: int  # with buffers
    gradients_bytes: int  # of all gradients, at the end of the backward pass
    optimizer_bytes: int
    ema_bytes: int
    reserved_bytes: int | None  # the most that the allocator held of the device; None: not known
    process_bytes: int | None  # of the whole process, as the driver counts; None: not known

    def __post_init__(self) -> None:
        if min(self.passes_peak_bytes, self.update_peak_bytes or 0) < 0:
            raise ValueError("a peak cannot be negative")

    @property
    def peak_bytes(self) -> int:
        return max(self.passes_peak_bytes, self.update_peak_bytes or 0)

    @property
    def peak_phase(self) -> str:
        """forward, backward or update."""
        return self.passes_peak_phase if self.peak_bytes == self.passes_peak_bytes else "update"

    @property
    def gradients_at_peak_bytes(self) -> int:
        return self.gradients_bytes if self.peak_phase == "update" else self.passes_gradients_bytes

    @property
    def activations_bytes(self) -> int:
        """The rest at the peak: activations, casts of weights, temporaries, inputs."""
        held = self.parameters_bytes + self.optimizer_bytes + self.ema_bytes
        return self.peak_bytes - held - self.gradients_at_peak_bytes


@dataclass(frozen=True, kw_only=True)
class Memory:
    """The memory of one case, measured on a GPU or predicted; or what kept it from being known."""

    run: Run
    work: str  # inference or training
    checkpointing: bool
    predicted: bool  # from the sizes of tensors that were never there
    limit_bytes: int | None  # what the allocator was held to; None: all of the device
    status: str  # ok; or out of memory, crashed, timed out, error: then there is no use
    reason: str  # blank if ok
    use: MemoryUse | None

    def __post_init__(self) -> None:
        if (self.status == "ok") != (self.use is not None):
            raise ValueError(f"{self.run.model}: status {self.status!r} with use {self.use}")
        if self.predicted and self.use is not None and self.use.reserved_bytes is not None:
            raise ValueError(f"{self.run.model}: nothing was reserved for a prediction")


@dataclass(frozen=True, kw_only=True)
class Part:
    """Calls of one operator in one kind of module, summed over a pass."""

    kind: str  # depthwise, pointwise, convolution, linear, attention, scan, norm, elementwise or movement
    op: str  # torch's name of the operator
    module: str  # the innermost one that called it, an index in a list as *
    phase: str  # forward or backward
    calls: int  # kernels that an eager pass starts for it
    macs: int  # as bench.flops counts them by default; 0 for all but products, convolutions, attention, scans
    eager_bytes: int  # read and written by an eager pass: every tensor that goes in or comes out of a kernel
    fused_bytes: int  # with ideal fusion: norms, elementwise work and movements ride on the operators beside


@dataclass(frozen=True, kw_only=True)
class Work:
    """What one pass of a model asks of a device, operator by operator, from the sizes of meta tensors."""

    model: str
    family: str
    res: Size  # pixels
    latent_size: Size
    batch: int
    precision: str  # of the tensors: fp32 (tf32 moves the same bytes), bf16, fp16
    work: str  # inference or training: then forward and backward
    parts: tuple[Part, ...]
    environment: Environment

    @property
    def macs(self) -> int:
        return sum(part.macs for part in self.parts)

    @property
    def eager_bytes(self) -> int:
        return sum(part.eager_bytes for part in self.parts)

    @property
    def fused_bytes(self) -> int:
        return sum(part.fused_bytes for part in self.parts)


@dataclass(frozen=True, kw_only=True)
class Ceiling:
    """The most that a device was seen to do of one thing: samples of one benchmark, fastest size."""

    what: str  # matmul, convolution or copy
    precision: str  # of what is multiplied; fp32 for copy
    size: int  # side of the square matrices, channels, or bytes that are read and written again
    work: int  # FLOPs of one call, or bytes read and written by it
    times_s: tuple[float, ...]  # wall clock, synchronised
    environment: Environment

    @property
    def per_s(self) -> float:
        """FLOP/s or bytes/s at the median time."""
        return self.work / intervals.median(self.times_s)


@dataclass(frozen=True, kw_only=True)
class Profiled:
    """Where the time of passes went, as torch.profiler saw it.

    Each statistic is derived from the seconds of every pass. Records from before these were kept have the
    mean of the passes, a number where now there is a list.
    """

    run: Run
    passes: int
    # of the device, by kind of Part or by module; "other" is the rest of a pass, below 0 where the others sum
    # to more than it
    seconds: tuple[tuple[str, float | tuple[float, ...]], ...]
    wall_s: float | tuple[float, ...]  # under the profiler

    def __post_init__(self) -> None:
        kept = [each for each in (self.wall_s, *dict(self.seconds).values()) if isinstance(each, tuple)]
        if odd := [each for each in kept if len(each) != self.passes]:
            raise ValueError(f"{self.run.model}: {self.passes} passes cannot have {len(odd[0])} samples")

    @property
    def has_samples(self) -> bool:
        """False where the mean of the passes is all there is."""
        return isinstance(self.wall_s, tuple)

    @property
    def samples(self) -> dict[str, tuple[float, ...]]:
        """Seconds of every pass by part; of the mean where there is no more."""
        return {name: _each(seconds) for name, seconds in self.seconds}

    @property
    def medians(self) -> dict[str, float]:
        """Median seconds by part. They sum to about the median pass, and shares are those of their sum."""
        return {name: max(0.0, intervals.median(each)) for name, each in self.samples.items()}

    @property
    def median_wall_s(self) -> float:
        return intervals.median(_each(self.wall_s))

    @property
    def whole_s(self) -> tuple[float, ...]:
        """Seconds of the device in every pass; of the mean where there is no more."""
        return tuple(map(sum, zip(*self.samples.values(), strict=True)))

    @property
    def spread(self) -> float | None:
        """What whole passes differ by; None where only their mean is known."""
        return noise.spread(self.whole_s)

    @property
    def noise(self) -> tuple[str, ...]:
        """Why the shares are not to be relied on, by name and size; empty where nothing says so."""
        found = []
        if self.spread is not None and self.spread > noise.MAX_SPREAD:
            found.append(f"passes differ by {100 * self.spread:.0f} %")
        whole, beyond = intervals.median(self.whole_s), -intervals.median(self.samples.get("other", (0.0,)))
        if beyond > noise.MAX_EXCESS * whole > 0:
            found.append(f"operators sum to {100 * beyond / whole:.0f} % more than the pass")
        return tuple(found)


def _each(samples: float | tuple[float, ...]) -> tuple[float, ...]:
    return samples if isinstance(samples, tuple) else (samples,)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How backbones are trained: one for all that are compared."""

    objective: str  # iddpm or flow
    data: str  # digits, fashion-mnist, cifar10, or the name of a folder or file of latents
    data_sha256: str  # head of the SHA-256 of the decoded training and validation images with their labels
    channels: int
    classes: int
    train_images: int
    validation_images: int
    validation_draws: int  # of (t, noise) for every validation image, the same for all arms
    batch: int  # images of an optimizer step, over all processes and accumulated passes
    steps: int
    learning_rate: float
    weight_decay: float
    ema_decays: tuple[float, ...]
    flip: bool
    label_dropout: float
    evaluate_every: int  # steps


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Validation loss of one arm at one step; losses are those of training, L_simple + L_vlb or velocity."""

    step: int  # optimizer steps done
    seconds: float  # of training since step 0, evaluations and pauses left out
    joules: float | None  # of the device in those seconds; None where nothing reads it
    train_loss: float | None  # mean over the steps since the evaluation before; None at step 0
    loss: float  # of the trained weights on the fixed validation set
    ema_losses: tuple[float, ...]  # of the averaged weights, in the order of Recipe.ema_decays
    bin_losses: tuple[float, ...]  # of the trained weights, by equal ranges of t, from little noise to much


@dataclass(frozen=True, kw_only=True)
class Trained:
    """One arm of a study of convergence: a backbone trained from one seed."""

    run: Run  # question "convergence"; batch is that of one pass on one process
    recipe: Recipe
    seed: int  # of initialisation, data order, timesteps and noise: the same for every arm of a study
    processes: int
    train_macs: int  # of one image: forward and backward, counted by torch's rules
    evaluations: tuple[Evaluation, ...]
    status: str  # ok; not finite: then the evaluations end before the step in reason; or as of Skipped
    reason: str  # blank if ok


@dataclass(frozen=True, kw_only=True)
class Sampled:
    """Seconds of whole sampling chains, from noise to samples: every step, and the guidance, is in them."""

    run: Run  # question "sample: ..." and all that follows here in words; batch is the images of a chain
    objective: str  # iddpm or flow
    sampler: str  # ancestral, ddim, sde, euler or heun
    steps: int
    passes: int  # of the network in a chain, each over twice the batch under guidance
    guidance: float  # scale; 1: none
    guided_channels: int
    images: int  # asked for; every chain is of a whole batch
    seed: int
    times_s: tuple[float, ...]  # wall clock, from before a chain's noise to after the device has finished
    build_s: float
    compile_s: float | None  # the first pass of the compiled model; None without torch.compile
    matmul_tf32: bool
    conv_tf32: bool
    telemetry: Telemetry | None  # of the chains of the session that made the last of them

    def __post_init__(self) -> None:
        if not self.times_s or min(self.times_s) <= 0:
            raise ValueError(f"{self.run.model}: needs at least one time, all above zero")

    @property
    def median_s(self) -> float:
        return intervals.median(self.times_s)

    @property
    def images_per_s(self) -> float:
        return self.run.batch / self.median_s

    @property
    def joules_per_image(self) -> float | None:
        """From the energy counter, idle draw and work between chains included; None without a reading."""
        return _joules_per_image(self)

    @property
    def images_per_s_interval(self) -> tuple[float, float] | None:
        """95 % interval; None with fewer than six chains."""
        interval = intervals.median_interval(self.times_s)
        return interval and (self.run.batch / interval[1], self.run.batch / interval[0])


def _joules_per_image(timed: Throughput | Sampled) -> float | None:
    seen = timed.telemetry
    if seen is None or seen.energy_j is None:
        return None
    calls = len(timed.times_s) if seen.calls is None else seen.calls
    return seen.energy_j / (calls * timed.run.batch)


@dataclass(frozen=True, kw_only=True)
class Quality:
    """How far samples lie from real images, in the features that are named."""

    samples: str  # the file, with its folder's name and the head of its SHA-256
    reference: str  # a data set, its split and digest, or a file as above
    distance: str  # what the Fréchet distance in these features is called
    n_samples: int
    n_reference: int
    dimensions: int  # of the features
    frechet: float
    kid: tuple[float, ...]  # of every random subset
    kid_subset: int  # samples of each set in a subset
    precision: float
    recall: float
    neighbours: int
    compared: int  # samples of each set that precision and recall are of; at the most, in older records
    environment: Environment
    kid_subsets: int = 0  # how many were asked for; 0, in records of before it was kept: as many as kid has
    made: str = ""  # how bench.sample drew the samples, in words; blank: not known

    def __post_init__(self) -> None:
        kid = self.kid if self.has_kid else ()
        if not all(map(math.isfinite, (self.frechet, *kid, self.precision, self.recall))):
            raise ValueError(f"quality of {self.samples}: needs finite distances, got inf or NaN")

    @property
    def has_kid(self) -> bool:
        """Whether subsets had pairs; those of one image, which older records may be of, gave NaN or inf."""
        return self.kid_subset > 1

    @property
    def kid_mean(self) -> float:
        return sum(self.kid) / len(self.kid)

    @property
    def kid_spread(self) -> tuple[float, float]:
        """What the middle 95 % of the subsets gave."""
        return intervals.quantile(self.kid, 0.025), intervals.quantile(self.kid, 0.975)


@dataclass(frozen=True, kw_only=True)
class Probe:
    """What a trained network was shown: validation images, noised to several levels."""

    trained: str  # in words: which checkpoint or file, and which of its weights
    objective: str  # iddpm or flow
    data: str  # as of Recipe
    data_sha256: str
    images: int  # the same ones at every level and for every network, with the same noise
    levels: tuple[int, ...]  # of noise, in thousandths: a timestep of iddpm; of flow 1000 (1 - t)

    def __post_init__(self) -> None:
        if self.images < 1 or not self.levels:
            raise ValueError("probe: needs at least one image and one level of noise")


BANDS = (
    ("low", 0.0, 1 / 6),
    ("mid", 1 / 6, 1 / 3),
    ("high", 1 / 3, 1.0),
)  # cycles a pixel, up to the corners


@dataclass(frozen=True, kw_only=True)
class Spectrum:
    """Power by spatial frequency of the noise that a network sees in noised images.

    Powers are means of squared coefficients of an orthonormal Fourier transform, over images, channels and
    the coefficients of a ring: 1 for standard normal noise at every frequency.
    """

    run: Run  # question "spectrum"
    probe: Probe
    radii: tuple[float, ...]  # mean frequency of every ring, in cycles a pixel
    counts: tuple[int, ...]  # coefficients in every ring
    predicted: tuple[tuple[float, ...], ...]  # for every level, the power in every ring: of the prediction,
    added: tuple[tuple[float, ...], ...]  # of the noise that was there,
    error: tuple[tuple[float, ...], ...]  # and of their difference

    def __post_init__(self) -> None:
        for powers in (self.predicted, self.added, self.error):
            if len(powers) != len(self.probe.levels) or {len(rings) for rings in powers} != {len(self.radii)}:
                raise ValueError(f"{self.run.model}: needs a power for every level and ring")

    def energy(self, powers: tuple[float, ...], band: str) -> float:
        """Sum of the squared coefficients of an image's channel in a band, from the powers in the rings."""
        low, high = next((low, high) for name, low, high in BANDS if name == band)
        rings = zip(self.radii, self.counts, powers, strict=True)
        return sum(count * power for radius, count, power in rings if low <= radius < high)

    def power(self, powers: tuple[float, ...], band: str) -> float:
        """Mean squared coefficient in a band; nan where the images are too small to have it."""
        count = self.energy((1.0,) * len(self.radii), band)
        return self.energy(powers, band) / count if count else float("nan")


DEAD = 0.01  # of the mean score of a layer: a channel below it counts as near-dead


@dataclass(frozen=True, kw_only=True)
class Scores:
    """How much every channel of one hidden layer is used."""

    layer: str  # name of the module that reads these channels
    scores: tuple[float, ...]  # of every channel: the mean over images, levels and places of max(0, value)

    def __post_init__(self) -> None:
        if not self.scores or min(self.scores) < 0:
            raise ValueError(f"{self.layer}: needs scores of 0 and above")

    @property
    def dead_share(self) -> float:
        """Share of the channels that are near-dead: below DEAD of the layer's mean score, or all zero."""
        mean = sum(self.scores) / len(self.scores)
        return sum(score < DEAD * mean or score == 0 for score in self.scores) / len(self.scores)

    @property
    def gini(self) -> float:
        return intervals.gini(self.scores)

    @property
    def effective_share(self) -> float:
        """Equally used channels with the entropy of these, as a share of the channels."""
        return intervals.effective_count(self.scores) / len(self.scores)


@dataclass(frozen=True, kw_only=True)
class ChannelScores:
    """How evenly a network uses its hidden channels, layer by layer."""

    run: Run  # question "channels"
    probe: Probe
    pattern: str  # regular expression that the names of the layers match
    layers: tuple[Scores, ...]  # in the order in which the network has them

    def __post_init__(self) -> None:
        if not self.layers:
            raise ValueError(f"{self.run.model}: needs the scores of at least one layer")


@dataclass(frozen=True, kw_only=True)
class Note:
    """A remark on records of the file it stands in: by a person, or what a command found out about them."""

    text: str
    about: str  # a pattern of the names of cases, as `about.name` gives them; blank: all that was held then
    devices: tuple[str, ...]  # of the records it is about, as their environments name them
    author: str  # blank: not said
    date: str  # UTC, ISO 8601, to the second

    def __post_init__(self) -> None:
        if not self.text.strip():
            raise ValueError("note: needs a text")


REPRODUCED = "reproduced"


@dataclass(frozen=True, kw_only=True)
class Deviation:
    """How far one output lies from what was wanted of it."""

    output: (
        str  # out or out_n of the golden; "other inputs": a later call, against the same model run eagerly
    )
    error: float  # rms of the difference, as a share of that of what was wanted
    tolerance: float  # for the error, in this precision

    def __post_init__(self) -> None:
        if not self.error >= 0 or not self.tolerance > 0:
            raise ValueError(
                f"{self.output}: an error of {self.error} and a tolerance of {self.tolerance} cannot be"
            )


@dataclass(frozen=True, kw_only=True)
class Golden:
    """What a network gave for the inputs, and under the weights, of a call of the released code."""

    run: Run  # question "golden"
    deviations: tuple[Deviation, ...]
    graph_breaks: int | None  # of the first call; None without torch.compile, as the next
    recompilations: int | None  # of all later calls, with other values of the same shapes
    matmul_tf32: bool  # the two switches as they stood
    conv_tf32: bool

    def __post_init__(self) -> None:
        if not self.deviations:
            raise ValueError(f"{self.run.model}: needs the deviation of at least one output")

    @property
    def verdict(self) -> str:
        """Reproduced; not reproduced; or recompiled, where the outputs are right but were compiled again."""
        if any(one.error > one.tolerance for one in self.deviations):
            return f"not {REPRODUCED}"
        return "recompiled" if self.recompilations else REPRODUCED


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One implementation of an operation, checked before it was timed."""

    name: str
    ran: str  # what computed it, as torch or the suite calls it; blank where nothing did
    status: str  # ok; not here: it cannot run; wrong, error or out of memory: it ran and was not timed
    reason: str  # blank if ok
    error: float | None  # ||out - exact|| / ||exact||, exact being float64; None without a finite output


@dataclass(frozen=True, kw_only=True)
class Implemented(Interleaved):
    """Interleaved rounds over implementations of one operation of a model: an arm is a variant that is ok."""

    run: Run  # question "depthwise: ...", with the operation and its size in words
    operation: str  # conv: a depthwise convolution with its bias; or block: norm and modulation behind it
    kernel: int  # side of the window
    channels: int
    size: Size  # of the image
    calls_a_pass: int  # such operations in one pass of the model
    variants: tuple[Variant, ...]
    inputs: int  # that one call works through, an operation each, so that no cache holds them

    def __post_init__(self) -> None:
        if not self.variants or self.variants[0].status != "ok" or len(self.calls) != len(self.timed):
            raise ValueError(f"{self.run.question}: needs a first variant that was timed, and calls for each")
        super().__post_init__()

    @property
    def timed(self) -> tuple[Variant, ...]:
        """The variants that are arms."""
        return tuple(variant for variant in self.variants if variant.status == "ok")

    @property
    def arms(self) -> tuple[str, ...]:
        return tuple(variant.name for variant in self.timed)

    @property
    def elements(self) -> int:
        """Values of the output."""
        height, width = height_width(self.size)
        return self.run.batch * height * width * self.channels

    @property
    def flops(self) -> int:
        """Of the convolution, its border counted like the rest; norm and modulation are nothing beside it."""
        return 2 * self.kernel**2 * self.elements

    @property
    def least_bytes(self) -> int:
        """Every input read once and every output written once, in the type of the run."""
        weights = (self.kernel**2 + 1) * self.channels
        modulation = 2 * self.run.batch * self.channels if self.operation == "block" else 0
        size = 2 if self.run.precision in ("bf16", "fp16") else 4
        return size * (2 * self.elements + weights + modulation)

    def times_s(self, arm: int) -> tuple[float, ...]:
        """Mean seconds of one operation in each visit of an arm, in order."""
        return tuple(seconds / self.inputs for seconds in super().times_s(arm))

    def median_s(self, arm: int) -> float:
        return intervals.median(self.times_s(arm))

    def interval_s(self, arm: int) -> tuple[float, float] | None:
        """95 % interval of the median; None with fewer than six visits."""
        return intervals.median_interval(self.times_s(arm))


Record = (
    Counted
    | Throughput
    | Memory
    | Skipped
    | Comparison
    | NotCompared
    | Work
    | Ceiling
    | Profiled
    | Trained
    | Sampled
    | Quality
    | Spectrum
    | ChannelScores
    | Note
    | Golden
    | Implemented
)
KINDS: dict[str, type[Record]] = {
    "counted": Counted,
    "throughput": Throughput,
    "memory": Memory,
    "skipped": Skipped,
    "comparison": Comparison,
    "not compared": NotCompared,
    "work": Work,
    "ceiling": Ceiling,
    "profiled": Profiled,
    "trained": Trained,
    "sampled": Sampled,
    "quality": Quality,
    "spectrum": Spectrum,
    "channel scores": ChannelScores,
    "note": Note,
    "golden": Golden,
    "implemented": Implemented,
}
_NAMES = {cls: kind for kind, cls in KINDS.items()}


def failed(record: Record) -> bool:
    """Tell whether a record says only what kept its case from being known; of trainings none does."""
    if isinstance(record, Memory):
        return record.use is None
    return isinstance(record, Skipped | NotCompared)


def to_dict(record: Record) -> dict[str, Any]:
    return {"kind": _NAMES[type(record)], "schema": SCHEMA, **asdict(record)}


def to_line(record: Record) -> str:
    return json.dumps(to_dict(record), ensure_ascii=False) + "\n"


def from_dict(data: Mapping[str, Any]) -> Record:
    """Rebuild a record.

    Raises:
        StoreError: an unknown kind, another schema version, a field missing, unknown or of a wrong type.
    """
    if not isinstance(data, Mapping):
        raise StoreError(f"a record is an object, got {type(data).__name__}")
    kind, schema = data.get("kind"), data.get("schema")
    if schema != SCHEMA:
        raise StoreError(f"schema {schema!r}; this version reads {SCHEMA}")
    if kind not in KINDS:
        raise StoreError(f"kind {kind!r}; known are {', '.join(KINDS)}")
    body = {key: value for key, value in data.items() if key not in ("kind", "schema")}
    record: Record = decode(KINDS[kind], body)
    return record


def decode(annotation: Any, value: Any) -> Any:  # noqa: ANN401 - it walks annotations of any kind
    """Check a JSON value against an annotation, a dataclass's or a field's; lists become tuples on the way.

    A field with a default may be missing: records from before it was there are read as if it had that value.

    Raises:
        StoreError: says which value does not fit, or which fields are missing or unknown.
    """
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (typing.Union, types.UnionType):
        for choice in args:
            try:
                return decode(choice, value)
            except StoreError:
                continue
    elif origin is tuple and isinstance(value, list):
        items = [args[0]] * len(value) if args[-1] is Ellipsis else list(args)
        if len(items) == len(value):
            return tuple(decode(item, entry) for item, entry in zip(items, value, strict=True))
    elif annotation is type(None) and value is None:
        return None
    elif isinstance(annotation, type) and hasattr(annotation, "__dataclass_fields__"):
        if isinstance(value, Mapping):
            hints = typing.get_type_hints(annotation)
            names = {field.name for field in fields(annotation)}
            needed = {field.name for field in fields(annotation) if field.default is MISSING}
            if odd := (needed - set(value)) | (set(value) - names):
                raise StoreError(
                    f"{annotation.__name__}: fields missing or unknown: {', '.join(sorted(odd))}"
                )
            try:
                return annotation(**{name: decode(hints[name], entry) for name, entry in value.items()})
            except StoreError:
                raise
            except ValueError as error:
                raise StoreError(str(error)) from error
    elif annotation is float and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    elif annotation in (int, str, bool) and type(value) is annotation:
        return value
    raise StoreError(f"expected {annotation}, got {value!r}")


def key(record: "Record | Run | tuple[Run, ...]") -> str:
    """Name the case that a record answers, by what it asks, the device and the software.

    The same case on the same device under the same software has the same key, whenever it was measured and
    whatever came out. Left out: the commit and the date, for which the code itself stands.

    Args:
        record: of any kind; or, of a case that is still to be measured, its run or, for a comparison, runs.
    """
    return _digest(_questions(record))


def case(record: "Record | Run | tuple[Run, ...]") -> str:
    """Name the case that a record answers by what it asks alone: two sessions have it in common.

    Left out beside the device and the software: how long it may be sampled.
    """
    asked = _questions(record)
    for one in asked:
        for circumstance in ("environment", "budget_s", "precision_target"):
            one.pop(circumstance, None)
    return _digest(asked)


def _digest(asked: list[dict[str, Any]]) -> str:
    return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:16]


def _questions(record: "Record | Run | tuple[Run, ...]") -> list[dict[str, Any]]:
    """What a record was asked, without what came out."""
    if isinstance(record, Counted):
        asked = [_asked(replace(record, params=0, params_trainable=0, macs=0, not_counted=()))]
        asked[0].update(train_macs=None, train_macs_checkpointed=None)
    elif isinstance(record, Work):
        asked = [_asked(replace(record, parts=()))]
    elif isinstance(record, Ceiling):
        asked = [_asked(replace(record, size=0, work=0, times_s=()))]
    elif isinstance(record, Trained):
        where = {"seed": record.seed, "processes": record.processes}
        asked = [_asked(record.run), asdict(record.recipe), where]
    elif isinstance(record, Spectrum | ChannelScores):
        asked = [_asked(record.run), asdict(record.probe)]
        if isinstance(record, ChannelScores):
            asked += [{"pattern": record.pattern}]
    elif isinstance(record, Quality):
        subsets = record.kid_subsets or len(record.kid)
        blank = replace(record, dimensions=0, frechet=0.0, kid=(), precision=0.0, recall=0.0)
        # the digest of the samples stands for how they were made
        asked = [_asked(replace(blank, kid_subsets=subsets, made=""))]
    elif isinstance(record, Note):
        asked = [asdict(record)]
    elif isinstance(record, Run):
        asked = [_asked(record)]
    elif isinstance(record, Throughput | Memory | Skipped | Profiled | Sampled | Golden | Implemented):
        asked = [_asked(record.run)]
    else:
        asked = [_asked(run) for run in (record if isinstance(record, tuple) else record.runs)]
    return asked


def _asked(about: Run | Counted | Work | Ceiling | Quality) -> dict[str, Any]:
    asked = asdict(about)
    for incidental in ("commit", "date", "platform", "python", "unit"):
        del asked["environment"][incidental]
    return asked


def parse(text: str, name: str) -> tuple[list[Record], str]:
    """Read every record of a text of JSON lines, in order.

    A last line without its line break was cut off while it was written, by a kill or a full disk.

    Args:
        text: what the file holds.
        name: the file's, for errors.

    Returns:
        The records, and the torn last line; blank where there is none.

    Raises:
        StoreError: names the file, the line and what is wrong with it.
    """
    whole, _, torn = text.rpartition("\n")
    records: list[Record] = []
    for number, line in enumerate(whole.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            records.append(from_dict(json.loads(line)))
        except (json.JSONDecodeError, StoreError) as error:
            raise StoreError(f"{name}, line {number}: not a record of this suite: {error}") from error
    return records, torn


def read(path: Path) -> list[Record]:
    """Read every whole record of a file of JSON lines, in order; a torn last line is passed over.

    Raises:
        StoreError: names the file, the line and what is wrong with it.
    """
    return parse(path.read_text(encoding="utf-8"), str(path))[0]
