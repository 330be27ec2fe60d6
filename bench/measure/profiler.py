"""Seconds of a pass by kind of operator or by module, from torch.profiler.

Only self times are summed, so that no time counts twice and the parts sum to the pass. On a CPU the rest,
"other", is the wall clock minus the operators: Python and the dispatcher. On CUDA the seconds are those of
kernels, and "other" those without an operator; the CUDA part was written without a GPU and has never run.

Every pass runs under its own profiler and gives one sample. By module, every call of a module is marked, and
the time of an operator belongs to the innermost module around it. The marks run in Python and add to "other".
"""

import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

from torch import nn
from torch.autograd.profiler_util import FunctionEvent as Event  # its times are in microseconds
from torch.profiler import ProfilerActivity, profile, record_function

from bench.analysis.rooflines.roofline import KINDS
from bench.counting.hooks import hooked
from bench.counting.kernels import kind_of
from bench.counting.paths import folded_paths
from bench.counting.rules import names
from bench.measure.prepared.prepared import PreparedModel, prepare
from bench.records.base import Environment, Record, Skipped
from bench.records.profile import REST, Profile, ProfileCase

WARM_UP = 2  # passes under the profiler, to exclude its start-up
PASSES = 5
_MARK = "module "  # prefix of the name of an event around a module's call
_OURS = ("backbones", "diffusion_bench")  # namespaces of models.kernels

# operators that call others and have one kind, in addition to those of kind_of
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
# views, allocations and operators that call others: host time without a kernel
_HOST = names(
    "view view_as reshape reshape_as contiguous t transpose permute movedim swapaxes expand expand_as "
    "as_strided select slice narrow unsqueeze squeeze chunk split split_with_sizes tensor_split unbind "
    "unflatten flatten detach alias unfold diagonal numpy_T lift_fresh _unsafe_view _reshape_alias to empty "
    "empty_like empty_strided new_empty resize_ set_ resolve_conj resolve_neg result_type matmul einsum pad "
    "item _local_scalar_dense is_nonzero"
)


def kind(event: Event) -> str | None:
    """Kind of the outermost event around an event that has a kind; None without one."""
    enclosing = [event]
    while enclosing[-1].cpu_parent is not None:
        enclosing.append(enclosing[-1].cpu_parent)
    for outer in reversed(enclosing):
        space, _, name = outer.name.partition("::")
        if name in _CONVOLUTIONS:
            shapes: Any = outer.input_shapes  # of the arguments, in order
            return kind_of("convolution", shapes[1], channels=shapes[0][1])
        if name in _WHOLE:
            return _WHOLE[name]
        if space == "aten" and name not in _HOST:
            return kind_of(name)
        if space in _OURS:
            return kind_of(name)
    return None


def module(event: Event) -> str | None:
    """Path of the innermost marked module around an event; None outside of all modules."""
    outer: Event | None = event
    while outer is not None:
        if outer.name.startswith(_MARK):
            return outer.name.removeprefix(_MARK)
        outer = outer.cpu_parent
    return None


@contextmanager
def marked(model: nn.Module) -> Iterator[None]:
    """Context manager in which every call of a module is an event around the events of its operators."""
    paths = folded_paths(model)
    marks = {part: _MARK + paths[name] for name, part in model.named_modules()}
    running: list[record_function] = []

    def entered(part: nn.Module, _args: object) -> None:
        running.append(record_function(marks[part]))
        running[-1].__enter__()

    def left(_part: nn.Module, _args: object, _out: object) -> None:
        running.pop().__exit__(None, None, None)

    with hooked(marks, before=entered, after=left):
        yield


def measure(case: ProfileCase, environment: Environment, trace: str | None = None) -> Record:
    """Profile a few passes of a case; `trace` is a file for a trace of one more, in Perfetto's JSON."""
    by_module = case.by == "module"
    with prepare(case, None) as ready, marked(ready.loaded.model) if by_module else nullcontext():
        passes = [_pass(ready, case.device, by_module=by_module) for _ in range(WARM_UP + PASSES)]
        if trace is not None:
            _profiled(ready, case.device)[0].export_chrome_trace(trace)
    return record_of(case, environment, passes[WARM_UP:])


def _pass(ready: PreparedModel, where: str, *, by_module: bool) -> tuple[dict[str, float], float]:
    """Seconds of one pass by part, and its wall-clock seconds."""
    profiled, wall_s = _profiled(ready, where)
    events = profiled.events()
    assert events is not None
    return seconds_of(events, wall_s, cuda=where == "cuda", by_module=by_module), wall_s


def _profiled(ready: PreparedModel, where: str) -> tuple[profile, float]:
    """The profile of one pass, and its wall-clock seconds."""
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if where == "cuda" else [])]
    ready.synchronise()
    with profile(activities=activities, record_shapes=True) as profiled:
        begin = time.perf_counter()
        ready.call()
        ready.synchronise()
        wall_s = time.perf_counter() - begin
    return profiled, wall_s


def seconds_of(events: Iterable[Event], wall_s: float, *, cuda: bool, by_module: bool) -> dict[str, float]:
    """Seconds of one pass by kind or by marked module; REST is the remainder, possibly negative.

    The pass takes `wall_s` on a CPU, and the time of all kernels on CUDA.
    """
    events = list(events)
    on_host = [event for event in events if event.device_type.name == "CPU"]
    if cuda:
        on_device = [event for event in events if event.device_type.name == "CUDA"]
        # a module's mark also has a device event, which spans its kernels
        whole = sum(event.device_time_total for event in on_device if not event.is_user_annotation) / 1e6
        times = [(event, event.self_device_time_total) for event in on_host]
    else:
        whole = wall_s
        times = [(event, event.self_cpu_time_total) for event in on_host]
    found = seconds_by_module(times) if by_module else seconds_by_kind(times)
    found[REST] = whole - sum(found.values())
    return found


def record_of(
    case: ProfileCase, environment: Environment, passes: Sequence[tuple[dict[str, float], float]]
) -> Record:
    """Record of passes from their seconds by part; Skipped if the profiler recorded no time in one."""
    if not all(sum(seconds.values()) > 0 for seconds, _ in passes):
        reason = "the profiler saw no kernels"
        return Skipped(case=case, environment=environment, status="not timed", reason=reason)
    parts = dict.fromkeys(name for seconds, _ in passes for name in seconds if name != REST)
    return Profile(
        case=case,
        environment=environment,
        seconds=tuple(
            (name, tuple(seconds.get(name, 0.0) for seconds, _ in passes)) for name in (*parts, REST)
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
    """Sum self times in microseconds of operators with a kind, by their module."""
    sums: defaultdict[str, float] = defaultdict(float)
    for event, microseconds in times:
        path = module(event) if microseconds and kind(event) is not None else None
        if path is not None:
            sums[path] += microseconds / 1e6
    return dict(sums)
