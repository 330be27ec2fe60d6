"""The report's section on kernels: implementations of an operation compared with each other and the floor."""

from collections import defaultdict
from collections.abc import Iterator, Sequence

from bench.analysis.rooflines import kernels, roofline
from bench.analysis.rooflines.kernels import NOT_HERE
from bench.records.base import Record
from bench.records.kernels import OperatorComparison
from reports.figures import kernels as figure
from reports.markdown import table
from reports.sections import Part, of_parts

PLACE = "speed.md", 4
TEXT = (
    "The reference of the ratios is what a network runs by default, on contiguous images: *nchw* of the "
    "depthwise operations, *eager* of the others; above 1 an implementation is faster. *conv* is a "
    "depthwise convolution with its bias; *block* adds layer norm, shift and scale, *conv-gelu* GELU and "
    "averages over the image; *norm-gelu* is DiC's group norm with shift, scale and GELU. *gelu-product* is "
    "FCDM's first product over the channels with GELU and norms over the image, *scaled-product* its second "
    "with the response norm before it and gate and residual behind it, *shuffled-product* the product of an "
    "upsampled image and its skip. Interleaved rounds; median visit with its 95 % interval, ratio of speeds "
    "with its 99 % interval. The floors are the least bytes at the measured copy ceiling, and the FLOPs (1 "
    "MAC = 2 FLOPs) at the measured ceiling of products, for depthwise convolutions that of fp32, with the "
    "zeros around the image included; other operators count as no FLOPs."
)


@of_parts
def section(records: Sequence[Record]) -> Iterator[Part]:
    """Write the section from the newest records, in any order; empty without records of its kinds."""
    found = kernels.newest(records)
    if not found:
        return
    devices = dict.fromkeys(one.environment.device for one in found)
    peaks = {device: roofline.measured_peaks(records, device) for device in devices}
    lines = [line for one in found for line in kernels.lines(one, peaks[one.environment.device])]
    absent = dict.fromkeys(
        f"- {line.implementation.name} on {line.environment.device}, torch {line.environment.torch}: "
        f"{line.reason}"
        for line in lines
        if line.status == NOT_HERE
    )
    lines = [line for line in lines if line.status != NOT_HERE]
    sums = kernels.pass_sums(found)
    groups: defaultdict[figure.Setting, list[OperatorComparison]] = defaultdict(list)
    for one in found:
        groups[figure.setting(one)].append(one)
    yield from (f"## {kernels.TABLE.title}", TEXT)
    for of in groups.values():
        yield figure.draw(of, peaks[of[0].environment.device])
    yield table(kernels.TABLE, lines)
    if absent:
        yield from ("Implementations that cannot run:", "\n".join(absent))
    yield "All of them in one pass of the model: medians times the calls of each size."
    yield table(kernels.sums_table(sums), sums)
