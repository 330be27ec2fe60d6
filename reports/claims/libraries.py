"""Libraries that decide a ratio of speeds: a device's rates of matrix products and of convolutions.

A ratio of a transformer and a convolutional network is one of two libraries too. Where one of them reaches
much less of the device, the ratio says little about other devices.
"""

from collections.abc import Mapping, Sequence

from bench.records.base import Record
from bench.records.ceiling import Ceiling
from reports.claims.timed import Measured
from reports.markdown import BLANK, significant

Rates = Mapping[tuple[str, str, str], float]  # by device, precision and kind of ceiling, FLOP/s


def rates(records: Sequence[Record]) -> Rates:
    """The newest measured rates of matrix products and convolutions."""
    ceilings = sorted(
        (r for r in records if isinstance(r, Ceiling) and r.case.what in ("matmul", "convolution")),
        key=lambda record: record.environment.date,
    )
    return {(one.environment.device, one.case.precision, one.case.what): one.per_s for one in ceilings}


def text(measured: Measured | None, known: Rates) -> str:
    """225 and 439: GFLOP/s of matrix products and of convolutions."""
    if measured is None:
        return BLANK
    here = measured.setting.device, measured.setting.precision
    both = [known.get((*here, what)) for what in ("matmul", "convolution")]
    return " and ".join(significant(rate / 1e9, 3) for rate in both if rate) if all(both) else BLANK


def in_bf16(others: Sequence[Measured], measured: Measured | None) -> str:
    """The ratio in bf16 beside one in another precision; of several batches the nearest."""
    if measured is None or measured.setting.precision == "bf16":
        return BLANK
    found = [one for one in others if one.setting.precision == "bf16"]
    nearest = min(found, key=lambda one: abs(one.setting.batch - measured.setting.batch), default=None)
    return BLANK if nearest is None else significant(nearest.value, 3)
