"""The report's section on kernels: implementations of an operation compared with each other and the floor."""

from collections.abc import Iterator, Sequence

from bench.analysis.rooflines import kernels, roofline
from bench.analysis.rooflines.kernels import NOT_HERE
from bench.records.base import Record
from reports.figures import kernels as figure
from reports.markdown import table
from reports.sections import Part, of_parts
from reports.selection import grouped

PLACE = "speed.md", 4
TEXT = (
    "Implementations of one operation, timed in interleaved rounds. A time is the median visit with its 95 % "
    "interval. A ratio is a speed / that of the reference, with its 99 % interval: above 1 the "
    "implementation is faster. The reference is what a network runs by default on contiguous images: *nchw* "
    "for depthwise operations, *eager* for the others.",
    "- *conv*: depthwise convolution and bias. *block*: *conv*, then layer norm, shift and scale. "
    "*conv-gelu*: *conv*, then GELU and averages over the image.\n"
    "- *norm-gelu*: DiC's group norm, then shift, scale and GELU.\n"
    "- *gelu-product*: FCDM's first product over the channels, then GELU and norms over the image. "
    "*scaled-product*: its second product, with the response norm before it and gate and residual after it. "
    "*shuffled-product*: the product of an upsampled image and its skip.\n"
    "- A floor is a least time: of the bytes that must move, at the measured ceiling of a copy; of the FLOPs "
    "(1 MAC = 2 FLOPs), at the measured ceiling of matrix products, for depthwise convolutions that of fp32. "
    "The FLOPs include the zeros around an image; operators other than products and convolutions count as "
    "none.",
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
    yield from (f"## {kernels.TABLE.title}", *TEXT)
    for of in grouped(found, figure.setting).values():
        yield figure.draw(of, peaks[of[0].environment.device])
    yield table(kernels.TABLE, lines)
    if absent:
        yield from ("Implementations that cannot run:", "\n".join(absent))
    yield "All of them in one pass of the model: medians times the calls of each size."
    yield table(kernels.sums_table(sums), sums)
