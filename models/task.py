"""What a backbone is built for: the latents, the classes and the kind of output."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Task:
    """Class-conditional denoising of latents.

    Args:
        latent_size: side of the latent, or (height, width); for most, an image's side / 8.
        in_channels: channels C of the latent.
        num_classes: labels run from 0 to num_classes - 1; num_classes itself is the null class.
        learn_sigma: the output has twice the channels, the second half for the variance.
        given_channels: how many of the C, from the last, are not predicted: an upsampler's small image.

    Raises:
        ValueError: for a size or a count below one, or for nothing left to predict.
    """

    latent_size: int | tuple[int, int] = 32
    in_channels: int = 4
    num_classes: int = 1000
    learn_sigma: bool = True
    given_channels: int = 0

    def __post_init__(self) -> None:
        if min(self.height, self.width) < 1:
            raise ValueError(f"latent_size: must be at least 1, got {self.latent_size}")
        for field in ("in_channels", "num_classes"):
            if getattr(self, field) < 1:
                raise ValueError(f"{field}: must be at least 1, got {getattr(self, field)}")
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

    def grid(self, patch: int) -> tuple[int, int]:
        """Rows and columns of patches: (H/P, W/P).

        Raises:
            ValueError: a side that is not a multiple of the patch.
        """
        self.require_multiple(patch, "patch")
        return self.height // patch, self.width // patch

    def require_multiple(self, of: int, what: str) -> None:
        """Refuse a latent that a network cannot divide.

        Raises:
            ValueError: names the side, what it must be a multiple of, and a size that would work.
        """
        if self.height % of or self.width % of:
            works = tuple(-(-side // of) * of for side in (self.height, self.width))
            raise self._wrong_size(f"a multiple of {what} {of}", works)

    def require_at_least(self, side: int, what: str) -> None:
        """Refuse a latent that is too small for a network.

        Raises:
            ValueError: names the least side, what it comes from, and a size that would work.
        """
        if min(self.height, self.width) < side:
            works = (max(self.height, side), max(self.width, side))
            raise self._wrong_size(f"at least {side}, {what}", works)

    def _wrong_size(self, wanted: str, works: tuple[int, ...]) -> ValueError:
        size = works[0] if isinstance(self.latent_size, int) else works
        return ValueError(f"latent_size: must be {wanted}, got {self.latent_size}; {size} would work")


LATENTS = Task()  # 4 channels of 32 x 32, 1000 classes, a learned variance
LATENTS_PLAIN = Task(learn_sigma=False)  # the same; the output is the noise or the velocity alone
