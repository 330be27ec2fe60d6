"""One training run: a backbone trained by a recipe from one seed."""

from dataclasses import dataclass
from typing import ClassVar

from bench.records.base import TRAINING, FloatOrNaN, ModelCase, Record
from bench.records.registry import register

OBJECTIVES = ("iddpm", "flow", "flow-x", "edm")  # noise and its variance, velocity, the image (x and EDM)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Training settings, equal for all compared backbones."""

    objective: str  # of OBJECTIVES
    data: str  # digits, fashion-mnist, cifar10, or the name of a folder or file of latents
    data_sha256: str  # head of the SHA-256 of the decoded training and validation images with their labels
    channels: int
    classes: int
    train_images: int
    validation_images: int
    validation_draws: int  # pairs of (t, noise) for every validation image, equal for all runs
    batch: int  # images of an optimizer step, summed over processes and accumulated passes
    steps: int
    learning_rate: float
    weight_decay: float
    ema_decays: tuple[float, ...]
    flip: bool
    label_dropout: float
    evaluate_every: int  # steps


@dataclass(frozen=True, kw_only=True)
class TrainingCase(ModelCase):
    """Training one backbone; `batch` is the number of images of one pass on one process."""

    kind: ClassVar[str] = "convergence"
    view: ClassVar[str] = TRAINING

    recipe: Recipe
    seed: int  # of initialisation, data order, timesteps and noise
    processes: int

    @property
    def details(self) -> tuple[str, ...]:
        recipe = self.recipe
        words = recipe.data, recipe.objective, f"{recipe.steps} steps", f"seed {self.seed}"
        return *self.nondefault_settings, *words

    @property
    def command(self) -> tuple[object, ...]:
        recipe = self.recipe
        return (
            *("bench.convergence", "--model", self.model, "--data", recipe.data),
            *("--objective", recipe.objective, "--steps", recipe.steps, "--batch", recipe.batch),
            *("--first-seed", self.seed, "--seeds", 1, "--learning-rate", f"{recipe.learning_rate:g}"),
            *("--device", self.device, "--precision", self.precision),
        )

    @property
    def short_label(self) -> str:
        """FCDM-S seed 0."""
        return f"{self.model} seed {self.seed}"

    @property
    def label(self) -> str:
        recipe = self.recipe
        words = [
            self.short_label,
            f"{recipe.data} {recipe.objective}",
            f"{recipe.steps} steps of {recipe.batch}",
        ]
        words += [self.precision, *self.nondefault_settings]
        return ", ".join([*words, *[f"{self.processes} processes"] * (self.processes > 1)])


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Validation loss of one run at one step, by the training loss: L_simple + L_vlb, or velocity."""

    step: int  # optimizer steps done
    seconds: float | None  # of training since step 0, without evaluations and pauses; None: machine was busy
    joules: float | None  # energy of the device in those seconds; None without a reading
    train_loss: float | None  # mean over the steps since the previous evaluation; None at step 0
    loss: float  # of the trained weights on the fixed validation set
    ema_losses: tuple[float, ...]  # of the averaged weights, in the order of Recipe.ema_decays
    # of the trained weights, in equal ranges of noise level, ascending; NaN for a range without timesteps
    bin_losses: tuple[FloatOrNaN, ...]


@register
@dataclass(frozen=True, kw_only=True)
class TrainingRun(Record):
    """Evaluations of one run. A diverged run has the evaluations before the divergence."""

    case: TrainingCase
    train_macs: int  # of one image, forward and backward, under torch's rules
    evaluations: tuple[Evaluation, ...]
    status: str  # ok; not finite: the evaluations end before the step in reason; or as in Skipped
    reason: str  # blank if ok

    @property
    def last(self) -> Evaluation:
        return self.evaluations[-1]

    @property
    def validation_loss(self) -> float:
        """Of the last evaluation."""
        return self.last.loss

    @property
    def result(self) -> str:
        return self.reason
