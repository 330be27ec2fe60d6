"""What timings that are compared with each other share."""

from dataclasses import dataclass

from bench.records.base import ModelCase, Size, height_width, size_text

FIRST_PRECISION = "fp32"  # of a baseline: that of the papers' tables


@dataclass(frozen=True, kw_only=True, order=True)
class Setting:
    """Settings that timings in one column or one ranking share."""

    device: str
    precision: str
    batch: int
    switches: tuple[str, ...]  # nondefault settings, in words
    is_interleaved: bool = False  # timed in rounds with other models; never in one column with others
    res: Size | None = None  # px; None: of every size

    @property
    def words(self) -> tuple[str, ...]:
        """Without the device: 256 px, fp32, batch 4, torch.compile."""
        size = [f"{size_text(self.res)} px"] if self.res is not None else []
        how = ["interleaved"] * self.is_interleaved
        return *size, self.precision, f"batch {self.batch}", *self.switches, *how

    @property
    def but_device(self) -> str:
        return ", ".join(self.words)

    @property
    def place(self) -> tuple[object, ...]:
        """Sorting key: the fewest switches, then fp32, then small images and batches."""
        precision = self.precision != FIRST_PRECISION, self.precision
        size = height_width(self.res) if self.res is not None else ()
        return len(self.switches), precision, size, self.batch, self.switches, self.device

    def __str__(self) -> str:
        return f"{self.device}, {self.but_device}"


def setting_of(case: ModelCase, device: str, res: Size | None = None) -> Setting:
    return Setting(
        device=device, precision=case.precision, batch=case.batch, switches=case.nondefault_settings, res=res
    )
