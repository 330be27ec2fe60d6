"""What a backbone is built for: latents or pixels, classes, what it predicts, and what it reads as t."""

from dataclasses import dataclass, replace
from typing import Literal

Prediction = Literal["epsilon", "velocity", "reverse-velocity", "x", "denoised"]
Time = Literal["steps", "unit", "sigma"]

TIMES: dict[Prediction, Time] = {  # what a network that predicts this reads as t
    "epsilon": "steps",  # t is an integer from 0 (data) to 999 (noise)
    "velocity": "unit",  # data - noise; t is a float from 0 (noise) to 1 (data)
    "reverse-velocity": "unit",  # noise - data; t is a float from 0 (data) to 1 (noise)
    "x": "unit",  # the data; t is a float from 0 (noise) to 1 (data)
    "denoised": "sigma",  # the data, preconditioned as in arXiv:2206.00364; t is the noise's deviation
}
_SPACES = {(8, 4): "sd-f8"}  # (px a value, channels) -> a name other than f16d32


@dataclass(frozen=True)
class Task:
    """Class-conditional denoising of latents or pixels. ValueError: a value that no task has."""

    latent_size: int | tuple[int, int] = (
        32  # side of the latent, or (height, width): an image's side / factor
    )
    in_channels: int = 4  # channels C of the latent
    num_classes: int = 1000  # labels from 0 to num_classes - 1; num_classes itself is the null class
    learn_sigma: bool = True  # the output has twice the channels, the second half for the variance
    given_channels: int = 0  # of the C, from the last, not predicted: an upsampler's small image
    factor: int = 8  # px of an image's side for each value of the latent's; 1: the latents are pixels
    prediction: Prediction = "epsilon"  # the output; it decides what t is

    def __post_init__(self) -> None:
        if min(self.height, self.width) < 1:
            raise ValueError(f"latent_size: must be at least 1, got {self.latent_size}")
        for field in ("in_channels", "num_classes", "factor"):
            if getattr(self, field) < 1:
                raise ValueError(f"{field}: must be at least 1, got {getattr(self, field)}")
        if self.prediction not in TIMES:
            raise ValueError(f"prediction: must be one of {', '.join(TIMES)}, got {self.prediction!r}")
        if not 0 <= self.given_channels < self.in_channels:
            raise ValueError(
                f"given_channels: must be from 0 to below the {self.in_channels} in_channels, "
                f"got {self.given_channels}"
            )

    @property
    def height(self) -> int:
        return self.latent_size if isinstance(self.latent_size, int) else self.latent_size[0]

    @property
    def width(self) -> int:
        return self.latent_size if isinstance(self.latent_size, int) else self.latent_size[1]

    @property
    def out_channels(self) -> int:
        predicted = self.in_channels - self.given_channels
        return 2 * predicted if self.learn_sigma else predicted

    @property
    def time(self) -> Time:
        """What t is: steps, integers from 0 to 999; unit, floats in [0, 1]; sigma, floats above 0."""
        return TIMES[self.prediction]

    @property
    def space(self) -> str:
        """Where the noise is added: pixels, or latents by their factor and channels: sd-f8, f16d32."""
        if self.factor == 1:
            return "pixels"
        return _SPACES.get((self.factor, self.in_channels), f"f{self.factor}d{self.in_channels}")

    @property
    def res(self) -> int | tuple[int, int]:
        """Side of the image in px, or (height, width)."""
        high, wide = self.factor * self.height, self.factor * self.width
        return high if high == wide else (high, wide)

    def at(self, height: int, width: int) -> "Task":
        """The same task for images of a height and a width in px. ValueError: no multiple of a latent."""
        if height % self.factor or width % self.factor:
            raise ValueError(
                f"an image's sides must be multiples of {self.factor} for {self.space}, got {height}x{width}"
            )
        high, wide = height // self.factor, width // self.factor
        return replace(self, latent_size=high if high == wide else (high, wide))

    def grid(self, patch: int) -> tuple[int, int]:
        """Rows and columns of patches: (H/P, W/P). ValueError: a side that is not a multiple of the patch."""
        self.require_multiple(patch, "patch")
        return self.height // patch, self.width // patch

    def require_multiple(self, of: int, what: str) -> None:
        """Refuse a latent that a network cannot divide. ValueError: names a size that would work."""
        if self.height % of or self.width % of:
            works = tuple(-(-side // of) * of for side in (self.height, self.width))
            raise self._wrong_size(f"a multiple of {what} {of}", works)

    def require_at_least(self, side: int, what: str) -> None:
        """Refuse a latent that is too small for a network. ValueError: names a size that would work."""
        if min(self.height, self.width) < side:
            works = (max(self.height, side), max(self.width, side))
            raise self._wrong_size(f"at least {side}, {what}", works)

    def _wrong_size(self, wanted: str, works: tuple[int, ...]) -> ValueError:
        size = works[0] if isinstance(self.latent_size, int) else works
        return ValueError(f"latent_size: must be {wanted}, got {self.latent_size}; {size} would work")


LATENTS = Task()  # 4 channels of 32 x 32, 1000 classes, a learned variance
LATENTS_PLAIN = Task(learn_sigma=False)  # the same; the output is the noise alone
LATENTS_FLOW = Task(learn_sigma=False, prediction="velocity")
LATENTS_REVERSE_FLOW = Task(learn_sigma=False, prediction="reverse-velocity")
F16D32_FLOW = Task(latent_size=16, in_channels=32, learn_sigma=False, factor=16, prediction="velocity")
PIXELS = Task(latent_size=256, in_channels=3, factor=1)  # epsilon with a learned variance, as ADM
LATENTS_DENOISED = Task(learn_sigma=False, prediction="denoised")
PIXELS_DENOISED = Task(latent_size=256, in_channels=3, learn_sigma=False, factor=1, prediction="denoised")
PIXELS_X = Task(latent_size=256, in_channels=3, learn_sigma=False, factor=1, prediction="x")

TASKS = {"sd-f8": LATENTS, "f16d32": F16D32_FLOW, "pixels": PIXELS_X}  # each with its usual prediction


def named_task(name: str) -> Task:
    """A task of images of 256 px by name: sd-f8, f16d32, pixels, or with another prediction, sd-f8:velocity.

    Epsilon comes with a learned variance, other predictions without.
    ValueError: an unknown name.
    """
    space, colon, prediction = name.partition(":")
    if space not in TASKS or (colon and prediction not in TIMES):
        raise ValueError(
            f"{name}: no such task; known are {', '.join(TASKS)}, each also with a prediction, "
            f"as sd-f8:velocity, of {', '.join(TIMES)}"
        )
    task = TASKS[space]
    for known in TIMES:
        if known == prediction:
            return replace(task, prediction=known, learn_sigma=known == "epsilon")
    return task
