"""The report's section on depthwise convolutions: implementations compared with each other and the floor."""

from collections.abc import Sequence

from bench.analysis import depthwise, roofline
from bench.analysis.depthwise import NOT_HERE
from bench.records.base import Record
from reports.figures.plots import Drawing
from reports.markdown import table

TEXT = (
    "*nchw* is torch's kernel on contiguous images, the reference of the ratios: above 1 an implementation "
    "is faster. *conv* is the convolution with its bias; *block* adds layer norm, shift and scale, as in "
    "FCDM. Interleaved rounds; median visit with its 95 % interval, ratio of speeds with its 99 % interval. "
    "The floors are the least bytes at the measured copy ceiling, and 2 K² FLOPs an output value at the "
    "measured fp32 ceiling, zeros around the image included; norm and modulation count as nothing."
)


def section(records: Sequence[Record]) -> tuple[str, list[Drawing]]:
    """Write the section from the newest records, in any order; empty without records of its kind."""
    found = depthwise.newest(records)
    if not found:
        return "", []
    devices = dict.fromkeys(one.environment.device for one in found)
    peaks = {device: roofline.measured_peaks(records, device) for device in devices}
    lines = [line for one in found for line in depthwise.lines(one, peaks[one.environment.device])]
    absent = dict.fromkeys(
        f"- {line.implementation.name} on {line.environment.device}, torch {line.environment.torch}: "
        f"{line.reason}"
        for line in lines
        if line.status == NOT_HERE
    )
    lines = [line for line in lines if line.status != NOT_HERE]
    sums = depthwise.pass_sums(found)
    parts = [f"## {depthwise.TABLE.title}", TEXT, table(depthwise.TABLE, lines)]
    parts += ["Implementations that cannot run:", "\n".join(absent)] if absent else []
    parts += [
        "All of them in one pass of the model: medians times the calls of each size.",
        table(depthwise.sums_table(sums), sums),
    ]
    return "\n\n".join(parts), []
