"""Where does the time of a pass go? Seconds by kind of operator or by module, from torch.profiler.

Self time only, so that the kinds and what is left sum to the pass: an operator that calls others, as a linear
layer calls its product, has them counted to it, and nothing twice. On a CPU what is left, "other", is Python
and the dispatcher: the wall clock less the operators. On CUDA seconds are those of kernels, and "other" are
those that belong to no operator; the CUDA part was written without a GPU and has never run.

Every pass is under a profiler of its own, so that each gives a sample.

By module, every call of one is marked, and an operator's time is that of the innermost around it. The marks
are Python's and so fall to "other", which they swell.
"""

import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, Protocol

from torch import nn
from torch.profiler import ProfilerActivity, profile, record_function
from torch.utils.hooks import RemovableHandle

from bench.analysis.roofline import KINDS, OTHER, PROFILES
from bench.counting import counters
from bench.counting.kernels import kind_of, names
from bench.jobs.worker import Case
from bench.measure.passes import skipped
from bench.measure.prepared import Arm, NotFiniteError, prepared
from bench.records.record import Profiled, Run, Skipped

WARM_UP = 2  # passes, under the profiler too: its own start is in none that counts
PASSES = 5
_MARK = "module "  # begins the name of an event around a module's call
_OURS = ("backbones", "diffusion_bench")  # namespaces of models.kernels

# what is one operator, called so before it falls apart into others, beside those that kind_of knows
_WHOLE = {
    "linear": "linear",
    "scaled_dot_product_attention": "attention",
    "softmax": "attention",
    "layer_norm": "norm",
    "group_norm": "norm",
    "batch_norm": "norm",
    "rms_norm": "norm",
}
_CONVOLUTIONS = ("conv1d", "conv2d", "conv3d", "convolution")
# what only looks at tensors, makes room for them or calls others: the host's time, in which no kernel runs
_HOST = names(
    "view view_as reshape reshape_as contiguous t transpose permute movedim swapaxes expand expand_as "
    "as_strided select slice narrow unsqueeze squeeze chunk split split_with_sizes tensor_split unbind "
    "unflatten flatten detach alias unfold diagonal numpy_T lift_fresh _unsafe_view _reshape_alias to empty "
    "empty_like empty_strided new_empty resize_ set_ resolve_conj resolve_neg result_type matmul einsum pad "
    "item _local_scalar_dense is_nonzero"
)


class Event(Protocol):
    """What is read of an event of torch.profiler; times are in microseconds."""

    name: str
    cpu_parent: Any  # an Event, or None
    input_shapes: Any  # of its arguments, in order
    device_type: Any  # its name is CPU or CUDA
    is_user_annotation: Any

    @property
    def self_cpu_time_total(self) -> Any: ...  # noqa: ANN401 - torch does not say

    @property
    def self_device_time_total(self) -> Any: ...  # noqa: ANN401

    @property
    def device_time_total(self) -> Any: ...  # noqa: ANN401


def kind(event: Event) -> str | None:
    """The kind of operator whose time an event is: that of the outermost one around it that has a kind."""
    around = [event]
    while around[-1].cpu_parent is not None:
        around.append(around[-1].cpu_parent)
    for each in reversed(around):
        space, _, name = each.name.partition("::")
        if name in _CONVOLUTIONS:
            x, weight = each.input_shapes[:2]
            return kind_of("convolution", weight, x[1])
        if name in _WHOLE:
            return _WHOLE[name]
        if space == "aten" and name not in _HOST:
            return kind_of(name)
        if space in _OURS:
            return kind_of(name)
    return None


def module(event: Event) -> str | None:
    """The path of the innermost marked module that an event is in; None outside of all."""
    inside: Event | None = event
    while inside is not None:
        if inside.name.startswith(_MARK):
            return inside.name.removeprefix(_MARK)
        inside = inside.cpu_parent
    return None


@contextmanager
def marked(model: nn.Module) -> Iterator[None]:
    """Within it, every call of a module is an event around those of its operators."""
    running: list[record_function] = []

    def mark(part: nn.Module, path: str) -> None:
        def entered(_module: nn.Module, _args: object) -> None:
            running.append(record_function(_MARK + path))
            running[-1].__enter__()

        def left(_module: nn.Module, _args: object, _out: object) -> None:
            running.pop().__exit__(None, None, None)

        hooks.extend([part.register_forward_pre_hook(entered), part.register_forward_hook(left)])

    hooks: list[RemovableHandle] = []
    for name, part in model.named_modules():
        mark(part, counters.starred(name))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def measure(case: Case) -> Profiled | Skipped:
    """Profile a few denoising passes of a case in this process."""
    try:
        with prepared(case.run, case.weights) as arm:
            return _profiled(case, arm)
    except (RuntimeError, NotFiniteError, MemoryError) as error:
        row = skipped(case.run, error)
        if row is None:
            raise
        return row


def _profiled(case: Case, arm: Arm) -> Profiled | Skipped:
    by_module = case.run.question == PROFILES["module"]
    cuda = case.run.environment.device_type == "cuda"
    with marked(arm.model) if by_module else nullcontext():
        seen = [_pass(arm, cuda=cuda, by_module=by_module) for _ in range(WARM_UP + PASSES)]
    return record_of(case.run, seen[WARM_UP:])


def _pass(arm: Arm, *, cuda: bool, by_module: bool) -> tuple[dict[str, float], float]:
    """Seconds of one pass by part, and of the wall clock."""
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if cuda else [])]
    arm.synchronise()
    with profile(activities=activities, record_shapes=True) as seen:
        begin = time.perf_counter()
        arm.call()
        arm.synchronise()
        wall_s = time.perf_counter() - begin
    events = seen.events()
    assert events is not None
    return seconds_of(events, wall_s, cuda=cuda, by_module=by_module), wall_s


def seconds_of(events: Iterable[Event], wall_s: float, *, cuda: bool, by_module: bool) -> dict[str, float]:
    """Seconds of one pass by kind or by module; OTHER is what they leave of it, below 0 if they exceed it.

    Args:
        events: of the profiler.
        wall_s: of the pass, which is the whole of it on a CPU; on CUDA that is the time of all kernels.
        cuda: whose seconds these are.
        by_module: the modules were marked.
    """
    events = list(events)
    on_host = [event for event in events if event.device_type.name == "CPU"]
    if cuda:
        on_device = [event for event in events if event.device_type.name == "CUDA"]
        # a mark has an event there as well, as long as the kernels in it
        whole = sum(event.device_time_total for event in on_device if not event.is_user_annotation) / 1e6
        times = [(event, event.self_device_time_total) for event in on_host]
    else:
        whole = wall_s
        times = [(event, event.self_cpu_time_total) for event in on_host]
    found = seconds_by_module(times) if by_module else seconds_by_kind(times)
    found[OTHER] = whole - sum(found.values())
    return found


def record_of(run: Run, passes: Sequence[tuple[dict[str, float], float]]) -> Profiled | Skipped:
    """Put the seconds of passes, by part and of the wall clock, together; a pass without any is no result."""
    if not all(sum(seconds.values()) > 0 for seconds, _ in passes):
        return Skipped(run=run, status="not timed", reason="the profiler saw no kernels")
    names = dict.fromkeys(name for seconds, _ in passes for name in seconds if name != OTHER)
    return Profiled(
        run=run,
        passes=len(passes),
        seconds=tuple(
            (name, tuple(seconds.get(name, 0.0) for seconds, _ in passes)) for name in (*names, OTHER)
        ),
        wall_s=tuple(wall_s for _, wall_s in passes),
    )


def seconds_by_kind(times: Iterable[tuple[Event, float]]) -> dict[str, float]:
    """Sum self times in microseconds by the kind of operator, in the order of KINDS."""
    sums = dict.fromkeys(KINDS, 0.0)
    for event, microseconds in times:
        found = kind(event) if microseconds else None
        if found is not None:
            sums[found] += microseconds / 1e6
    return {name: seconds for name, seconds in sums.items() if seconds}


def seconds_by_module(times: Iterable[tuple[Event, float]]) -> dict[str, float]:
    """Sum self times in microseconds, of operators that have a kind, by the module that they are in."""
    sums: defaultdict[str, float] = defaultdict(float)
    for event, microseconds in times:
        where = module(event) if microseconds and kind(event) is not None else None
        if where is not None:
            sums[where] += microseconds / 1e6
    return dict(sums)
