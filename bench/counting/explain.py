"""Differences of counters from torch's count, in MACs, with their causes.

A cause is an operator that only this counter counts, an operator without a rule, or work outside of any
layer; the closed form gives the part of the network. The remainder is UNEXPLAINED, so that the differences of
a counter add up.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from torch import nn

from bench.counting import closed_form, count, counters
from bench.counting.counters import SideBySide
from bench.counting.dispatch import Count
from bench.machine import environment
from bench.machine.failures import RAISED, failed_row
from bench.records.base import Environment, Skipped
from bench.records.counts import COUNTERS, PACKAGES, CountCase, MacCount
from models import arithmetic
from models.arithmetic import Terms
from models.contract import build
from models.registry import is_plugin

MAX_CASES = 4  # models times sizes, for packages that were not requested
MAX_MACS = 150 * 10**9  # of a pass, for packages that were not requested
UNEXPLAINED = "unexplained"

ATTENTION = "scaled_dot_product_attention"
_PRODUCTS = ("mm", "addmm", "bmm", "baddbmm", "mv", "addmv", "linear", "matmul", ATTENTION)
_CONVOLUTIONS = ("convolution", "_convolution", "conv")
_PERMUTED = "permuting einsum counted"
_ADDED = {  # work that counters count besides products and convolutions, with its operators
    "elementwise products counted": ("mul",),
    "means and pooling counted": ("mean", "avg_pool2d", "_adaptive_avg_pool2d", "adaptive_avg_pool2d"),
    "norms counted": ("native_layer_norm", "layer_norm", "native_group_norm", "group_norm"),
    "upsampling counted": ("upsample_nearest2d",),
    "unfused attention's query scaling": ("query_scaling",),
}
_KNOWN = {*_PRODUCTS, *_CONVOLUTIONS, "einsum", *(op for ops in _ADDED.values() for op in ops)}


@dataclass(frozen=True, kw_only=True)
class Difference:
    """One difference of a counter from torch's count; negative if the counter counts less."""

    counter: str = ""
    cause: str
    part: str = ""  # of the network, from the closed form
    operators: tuple[str, ...]
    macs: int

    @property
    def name(self) -> str:
        return f"{self.cause}: {self.part}" if self.part else self.cause


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """One model at one size under every counter."""

    counted: Mapping[str, MacCount]  # by counter, torch first
    missing: Mapping[str, str]  # reason of a missing count, by counter
    differences: tuple[Difference, ...]
    terms: Mapping[str, int]  # of the closed form; empty without one

    @property
    def torch(self) -> MacCount:
        return self.counted["torch"]

    @property
    def agrees(self) -> bool:
        """False if the closed form and the traced count differ: one of them is wrong."""
        return "closed-form" not in self.counted or self.counted["closed-form"].macs == self.torch.macs

    def differences_of(self, counter: str) -> list[Difference]:
        return [difference for difference in self.differences if difference.counter == counter]


def explain(
    case: CountCase,
    here: Environment,
    model: nn.Module,
    packages: Mapping[str, str],
    max_macs: float = MAX_MACS,
) -> Explanation | Skipped:
    """Count a model's forward pass under every counter and name the differences.

    Args:
        packages: blank for a package of PACKAGES that runs, otherwise the reason why it does not.
        max_macs: limit of a pass for packages.
    """
    task = count.task_of(case)
    try:
        side = counters.count_side_by_side(model, task, case.batch)
        terms = closed_form.count(case.model, task, case.batch)
    except RAISED as error:
        return failed_row(case, here, error)
    counts = dict(side.counts)
    missing: dict[str, str] = {}
    if terms is not None:
        counts["closed-form"] = Count(by_op=dict(terms.torch), by_module={}, not_counted=())
    else:
        missing["closed-form"] = "no formula" + (" of a user's model" if is_plugin(case.model) else "")
    real: nn.Module | None = None
    for package, why_not in packages.items():
        reason = why_not or count.why_too_large(model)
        if not reason and side.counts["torch"].macs > max_macs:
            reason = f"left out above {max_macs / 1e9:.0f} GMACs; --counter {package} runs it"
        if not reason:
            try:
                real = real if real is not None else build(case.model, task, device="cpu")
                counts[package] = counters.count_forward(real, task, counter=package, batch=case.batch)
            except RAISED as error:
                reason = f"raised {failed_row(case, here, error).reason}"
        if reason:
            missing[package] = reason

    def recorded(counter: str) -> MacCount:
        real = counter in PACKAGES
        return count.record(
            replace(case, counter=counter, device="cpu" if real else "meta"),
            environment.gather("cpu", case.model) if real else here,
            model,
            counts[counter],
        )

    ordered = [counter for counter in COUNTERS if counter in counts]
    return Explanation(
        counted={counter: recorded(counter) for counter in ordered},
        missing=missing,
        differences=tuple(
            difference
            for counter in ordered
            if counter != "torch"
            for difference in differences(counter, counts[counter], side, terms)
        ),
        terms=dict(terms.torch) if terms is not None else {},
    )


def packages_to_run(requested: Sequence[str] | None, cases: int) -> dict[str, str]:
    """Packages with a blank if they run, otherwise the reason; by default they run for few cases."""
    reasons = {}
    for package in PACKAGES:
        reasons[package] = count.why_missing(package)
        if reasons[package]:
            continue
        if requested is not None and package not in requested:
            reasons[package] = f"not requested; --counter {package} runs it"
        elif requested is None and cases > MAX_CASES:
            limit = f"left out above {MAX_CASES} models times sizes, got {cases}"
            reasons[package] = f"{limit}; --counter {package} runs it"
    return reasons


def differences(counter: str, counted: Count, side: SideBySide, terms: Terms | None) -> list[Difference]:
    """The differences of a counter from torch's count; the last is UNEXPLAINED, 0 if all have a cause."""
    if counter == "module-hooks":
        named = _outside_layers(side, terms)
    elif counter == "closed-form":
        named = []
    else:
        named = [*_products(counter, counted, side, terms), *_additions(counted, side, terms)]
    found = [replace(difference, counter=counter) for difference in named if difference.macs]
    rest = counted.macs - side.counts["torch"].macs - sum(difference.macs for difference in found)
    unknown = tuple(op for op in counted.by_op if op not in _KNOWN) if rest else ()
    return [*found, Difference(counter=counter, cause=UNEXPLAINED, operators=unknown, macs=rest)]


def _difference(cause: str, macs: int, operators: Iterable[str], part: str = "") -> Difference:
    return Difference(cause=cause, part=part, operators=tuple(operators), macs=macs)


def _sum(counted: Count, operators: Iterable[str]) -> int:
    return sum(counted.by_op.get(op, 0) for op in operators)


def _custom(counted: Count) -> list[str]:
    """Operators of models.kernels: only torch's table, which has their formulas, counts them."""
    return [op for op in counted.by_op if op not in _KNOWN and not op.startswith(f"_{ATTENTION}")]


def _outside_layers(side: SideBySide, terms: Terms | None) -> list[Difference]:
    """Operators that hooks on layers miss: those that a network calls as functions."""
    fused, outside = side.counts["torchprofile-meta"].by_op, dict(side.outside_layers)
    convolutions = {op: outside.pop(op) for op in _CONVOLUTIONS if op in outside}
    custom = {op: outside.pop(op) for op in _custom(side.counts["torch"]) if op in outside}
    attention = fused.get(ATTENTION, 0)
    written_out = terms.torch["attention products"] - attention if terms else 0
    rest = sum(outside.values()) - attention - written_out
    return [
        _difference("functional convolutions unseen", -sum(convolutions.values()), convolutions),
        *(_difference(f"custom operator {op} unseen", -macs, [op]) for op, macs in custom.items()),
        _difference("attention products unseen", -attention, [ATTENTION]),
        _difference("written-out attention products unseen", -written_out, ["matmul"]),
        _difference("functional matrix products unseen", -rest, outside),
    ]


def _products(counter: str, counted: Count, side: SideBySide, terms: Terms | None) -> list[Difference]:
    """Differences in products and convolutions, which every counter counts."""
    plain, fused = side.counts["torch"], side.counts["torchprofile-meta"]
    custom = _custom(plain)
    named = [_difference(f"custom operator {op} unseen", -plain.by_op[op], [op]) for op in custom]
    if counter != "fvcore":
        unstrided = _sum(fused, _CONVOLUTIONS) - _sum(plain, _CONVOLUTIONS)
        named.append(_difference(arithmetic.UNSTRIDED, unstrided, ["convolution"]))
    attention = fused.by_op.get(ATTENTION, 0)
    if ATTENTION in counted.not_counted:
        named.append(_difference("attention products unseen", -attention, [ATTENTION]))
    elif custom:
        # one operator on the meta device may be several operators on real weights
        instead = counted.by_op.get(ATTENTION, 0) - attention
        named.append(_difference("attention in the custom operator's place", instead, [ATTENTION]))
    if counter in PACKAGES and terms is not None:
        unread = terms.torch[arithmetic.UNREAD]
        contracted = fused.by_op.get("einsum", 0) - side.permuted
        expected = sum(macs for op, macs in plain.by_op.items() if op not in (*_CONVOLUTIONS, *custom))
        expected += sum(difference.macs for difference in named if ATTENTION in difference.operators)
        if unread and _sum(counted, _PRODUCTS) + contracted - expected == -unread:
            cause = "products that nothing reads, dropped from the trace"
            named.append(_difference(cause, -unread, ["linear"]))
    return named


def _elementwise_parts(terms: Terms) -> dict[str, int]:
    others = (arithmetic.AFFINE_NORMS, arithmetic.MEANS, arithmetic.EINSUM, arithmetic.UNSTRIDED)
    return {part: macs for part, macs in terms.torchprofile.items() if macs > 0 and part not in others}


def _additions(counted: Count, side: SideBySide, terms: Terms | None) -> list[Difference]:
    """Counts of operators without a formula in torch's table, by part of the network."""
    contracted = side.counts["torchprofile-meta"].by_op.get("einsum", 0) - side.permuted
    permuted = counted.by_op.get("einsum", 0) - contracted if side.permuted else 0
    named = [_difference(_PERMUTED, permuted, ["einsum"])]
    for cause, operators in _ADDED.items():
        ran = [op for op in operators if op in counted.by_op]
        macs = _sum(counted, ran)
        parts = _elementwise_parts(terms) if terms is not None and "mul" in ran else {}
        if sum(parts.values()) == macs:
            named += [_difference(cause, part_macs, ran, part) for part, part_macs in parts.items()]
        else:
            named.append(_difference(cause, macs, ran))
    return named
