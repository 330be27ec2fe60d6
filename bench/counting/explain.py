"""Why do counters disagree on a model: every difference to torch's count, named and in MACs.

What a counter has beyond torch's count, or lacks of it, is named by the operators that it counted, by what
it said it had no rule for, and by what ran outside of any layer; a closed form says which parts of the
network these are. What no name is found for is a difference of its own, `UNEXPLAINED`, so that the
differences of a counter always add up to the whole.
"""

import importlib.util
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from bench.cli import tables
from bench.records.record import Counted, height_width, size_text

if TYPE_CHECKING:
    from torch import nn

    from bench.closed_form import Terms
    from bench.counting.counters import Count, SideBySide

PAIR = ("FCDM-XL", "DiT-XL/2")  # whose ratio is printed
PACKAGES = ("torchprofile", "fvcore")
COUNTERS = {
    "torch": "convolutions, matrix products, attention, linear attention and scans",
    "closed-form": "formulas of the Config and the Task; nothing is traced or walked",
    "torchprofile-meta": "torchprofile's rules: elementwise products, means and affine norms too",
    "torchprofile-unfused": "the same where attention is not one operator; DiCo's figures of DiT round to it",
    "module-hooks": "hooks on layers, as in thop; no function is seen (calflops, never run here, also counts "
    "functional convolutions and matrix products, but not scaled_dot_product_attention)",
    "torchprofile": "the package, on real weights",
    "fvcore": "the package, on real weights",
}
MOST_CASES = 4  # models times sizes that the packages are run on unasked
MOST_MACS = 150 * 10**9  # of a pass that the packages are run on unasked
UNEXPLAINED = "unexplained"
_RAISED = (TypeError, ValueError, AttributeError, RuntimeError, LookupError, NotImplementedError)  # tracing

ATTENTION = "scaled_dot_product_attention"
_PRODUCTS = ("mm", "addmm", "bmm", "baddbmm", "mv", "addmv", "linear", "matmul", ATTENTION)
_CONVOLUTIONS = ("convolution", "_convolution", "conv")
_CAUSES = {  # of what other counters add to products and convolutions, and the operators they add it for
    "elementwise products counted": ("mul",),
    "means and pooling counted": ("mean", "avg_pool2d", "_adaptive_avg_pool2d", "adaptive_avg_pool2d"),
    "norms counted": ("native_layer_norm", "layer_norm", "native_group_norm", "group_norm"),
    "upsampling counted": ("upsample_nearest2d",),
    "unfused attention's query scaling": ("query_scaling",),
}
_PERMUTED = "permuting einsum counted"
_KNOWN = {*_PRODUCTS, *_CONVOLUTIONS, "einsum", *(op for ops in _CAUSES.values() for op in ops)}


@dataclass(frozen=True, kw_only=True)
class Difference:
    """What one counter has beyond torch's count, below zero where it lacks it."""

    counter: str
    cause: str
    part: str  # of the network, where the closed form tells; else blank
    operators: tuple[str, ...]
    macs: int

    @property
    def name(self) -> str:
        return f"{self.cause}: {self.part}" if self.part else self.cause


@dataclass(frozen=True, kw_only=True)
class Explained:
    """One model at one size under every counter."""

    counted: Mapping[str, Counted]  # by counter, torch first
    missing: Mapping[str, str]  # why a counter gave none
    differences: tuple[Difference, ...]
    terms: Mapping[str, int]  # of the closed form; empty without one

    @property
    def torch(self) -> Counted:
        return self.counted["torch"]

    @property
    def agrees(self) -> bool:
        """False where the closed form and the traced count differ, so that one of them is wrong."""
        return "closed-form" not in self.counted or self.counted["closed-form"].macs == self.torch.macs

    def of(self, counter: str) -> list[Difference]:
        return [difference for difference in self.differences if difference.counter == counter]


def explain(
    blank: Counted, model: "nn.Module", packages: Mapping[str, str], most_macs: float = MOST_MACS
) -> Explained:
    """Count a model under every counter and name the differences.

    Args:
        blank: torch's record before it is counted.
        model: on the meta device.
        packages: of `PACKAGES`, blank to run it and otherwise why not.
        most_macs: of a pass that they are run on.
    """
    from bench import closed_form
    from bench.counting import counters as counters
    from models.contract import build
    from models.registry import is_plugin, task_at

    task = task_at(blank.model, *height_width(blank.res))
    side = counters.count_side_by_side(model, task, blank.batch)
    terms = closed_form.count(blank.model, task, blank.batch)
    counts = dict(side.counts)
    missing: dict[str, str] = {}
    parameters = list(model.parameters())
    sized = replace(
        blank,
        params=sum(p.numel() for p in parameters),
        params_trainable=sum(p.numel() for p in parameters if p.requires_grad),
    )
    if terms is None:
        missing["closed-form"] = (
            "no formula: a user's model; bench/closed_form.py says how one of the zoo gets it"
            if is_plugin(blank.model)
            else "no formula yet; bench/closed_form.py says how to add one"
        )
    else:
        counts["closed-form"] = counters.Count(by_op=dict(terms.torch), by_module={}, not_counted=())
    real: nn.Module | None = None
    for package, why_not in packages.items():
        reason = why_not or _too_large(sized)
        if not reason and side.counts["torch"].macs > most_macs:
            reason = f"left out above {most_macs / 1e9:.0f} GMACs; --counter {package} runs it"
        if not reason:
            try:
                real = real if real is not None else build(blank.model, task, device="cpu")
                counts[package] = counters.count_forward(real, task, counter=package, batch=blank.batch)
            except _RAISED as error:
                reason = f"raised {type(error).__name__}: {' '.join(str(error).split())[:160]}"
        if reason:
            missing[package] = reason
    ordered = [counter for counter in COUNTERS if counter in counts]
    return Explained(
        counted={counter: _record(sized, counter, counts[counter]) for counter in ordered},
        missing=missing,
        differences=tuple(
            difference
            for counter in ordered
            if counter != "torch"
            for difference in differences(counter, counts[counter], side, terms)
        ),
        terms=dict(terms.torch) if terms is not None else {},
    )


def packages_asked(asked: Sequence[str] | None, cases: int) -> dict[str, str]:
    """Which packages to run: blank for those that run, else why not.

    Args:
        asked: packages that the user named, or torch for none of them; None for the rule.
        cases: models times sizes to be explained.
    """
    reasons = {}
    for package in PACKAGES:
        reasons[package] = ""
        if importlib.util.find_spec(package) is None:
            reasons[package] = f"not installed here; pip install {package}"
        elif asked is not None and package not in asked:
            reasons[package] = f"not asked for; --counter {package} runs it"
        elif asked is None and cases > MOST_CASES:
            reasons[package] = (
                f"left out above {MOST_CASES} models times sizes, here {cases}; --counter {package} runs it"
            )
    return reasons


def _too_large(counted: Counted) -> str:
    """Why a model's real weights would not fit here; blank where they do."""
    from bench.machine.device import free_host_bytes

    needed, free = 2 * 4 * counted.params, free_host_bytes()  # as much again for what they compute
    if free is None or needed <= free:
        return ""
    return f"about {needed / 2**30:.1f} GiB of memory needed, {free / 2**30:.1f} are free"


def _record(blank: Counted, counter: str, count: "Count") -> Counted:
    from bench.machine import environment

    return replace(
        blank,
        counter=counter,
        macs=count.macs,
        not_counted=count.not_counted,
        environment=environment.gather("cpu", blank.model) if counter in PACKAGES else blank.environment,
    )


def differences(counter: str, count: "Count", side: "SideBySide", terms: "Terms | None") -> list[Difference]:
    """Name what a counter has beyond torch's count and what it lacks of it.

    Args:
        counter: its name, not torch.
        count: what it counted.
        side: the same pass under the counters that compute nothing.
        terms: the closed form, where there is one.

    Returns:
        Differences that add up to the whole; the last is `UNEXPLAINED`, 0 where all are named.
    """
    if counter == "module-hooks":
        named = _beside_layers(side, terms)
    elif counter == "closed-form":
        named = []
    else:
        named = [*_products(counter, count, side, terms), *_added(counter, count, side, terms)]
    found = [replace(difference, counter=counter) for difference in named if difference.macs]
    rest = count.macs - side.counts["torch"].macs - sum(difference.macs for difference in found)
    unknown = tuple(op for op in count.by_op if op not in _KNOWN) if rest else ()
    return [*found, Difference(counter=counter, cause=UNEXPLAINED, part="", operators=unknown, macs=rest)]


def _difference(cause: str, macs: int, operators: Iterable[str] = (), part: str = "") -> Difference:
    return Difference(counter="", cause=cause, part=part, operators=tuple(operators), macs=macs)


def _sum(count: "Count", operators: Iterable[str]) -> int:
    return sum(count.by_op.get(op, 0) for op in operators)


def _own(count: "Count") -> list[str]:
    """Operators that are not torch's, which only torch's table with our formulas in it counts."""
    return [op for op in count.by_op if op not in _KNOWN and not op.startswith(f"_{ATTENTION}")]


def _beside_layers(side: "SideBySide", terms: "Terms | None") -> list[Difference]:
    """What hooks on layers miss: all that a network computes in functions."""
    fused, beside = side.counts["torchprofile-meta"].by_op, dict(side.beside_layers)
    named = []
    convolutions = {op: beside.pop(op) for op in _CONVOLUTIONS if op in beside}
    named.append(_difference("functional convolutions unseen", -sum(convolutions.values()), convolutions))
    own = [op for op in beside if op in _own(side.counts["torch"])]
    named += [_difference(f"custom operator {op} unseen", -beside.pop(op), [op]) for op in own]
    attention = fused.get(ATTENTION, 0)
    written_out = terms.torch["attention products"] - attention if terms else 0
    rest = sum(beside.values()) - attention - written_out
    named.append(_difference("attention products unseen", -attention, [ATTENTION]))
    named.append(_difference("written-out attention products unseen", -written_out, ["matmul"]))
    named.append(_difference("functional matrix products unseen", -rest, beside))
    return named


def _products(counter: str, count: "Count", side: "SideBySide", terms: "Terms | None") -> list[Difference]:
    """Differences of products and convolutions, which all counters have."""
    from bench import closed_form

    plain, fused = side.counts["torch"], side.counts["torchprofile-meta"]
    named = [_difference(f"custom operator {op} unseen", -plain.by_op[op], [op]) for op in _own(plain)]
    if counter != "fvcore":
        unstrided = _sum(fused, _CONVOLUTIONS) - _sum(plain, _CONVOLUTIONS)
        named.append(_difference(closed_form.UNSTRIDED, unstrided, ["convolution"]))
    attention = fused.by_op.get(ATTENTION, 0)
    if ATTENTION in count.not_counted:
        named.append(_difference("attention products unseen", -attention, [ATTENTION]))
    elif _own(plain):
        # on real weights, what is one operator here may be computed by others
        instead = count.by_op.get(ATTENTION, 0) - attention
        named.append(_difference("attention in the custom operator's place", instead, [ATTENTION]))
    if counter in PACKAGES and terms is not None:
        unread = terms.torch[closed_form.UNREAD]
        contracted = fused.by_op.get("einsum", 0) - side.permuted
        torchs = sum(macs for op, macs in plain.by_op.items() if op not in (*_CONVOLUTIONS, *_own(plain)))
        of_attention = sum(d.macs for d in named if ATTENTION in d.operators)
        if unread and _sum(count, _PRODUCTS) + contracted - torchs - of_attention == -unread:
            named.append(
                _difference("products that nothing reads, dropped from the trace", -unread, ["linear"])
            )
    return named


def _elementwise_parts(terms: "Terms") -> dict[str, int]:
    from bench import closed_form

    others = (closed_form.AFFINE_NORMS, closed_form.MEANS, closed_form.EINSUM, closed_form.UNSTRIDED)
    return {part: macs for part, macs in terms.torchprofile.items() if macs > 0 and part not in others}


def _added(counter: str, count: "Count", side: "SideBySide", terms: "Terms | None") -> list[Difference]:
    """What a counter gives to operators that torch's table has no formula for, by part of the network."""
    contracted = side.counts["torchprofile-meta"].by_op.get("einsum", 0) - side.permuted
    permuted = count.by_op.get("einsum", 0) - contracted if side.permuted else 0
    named = [_difference(_PERMUTED, permuted, ["einsum"])]
    for cause, operators in _CAUSES.items():
        ran = [op for op in operators if op in count.by_op]
        macs = _sum(count, ran)
        parts = _elementwise_parts(terms) if terms is not None and "mul" in ran else {}
        if sum(parts.values()) == macs:
            named += [_difference(cause, part_macs, ran, part) for part, part_macs in parts.items()]
        else:
            named.append(_difference(cause, macs, ran))
    return named


# what is shown of it


def verdict(explained: Explained) -> str:
    """Which count to trust, and by how much and why the others are off."""
    trusted = explained.torch
    total = f"trust torch, {trusted.macs / 1e9:,.4f} GMACs"
    formula = explained.counted.get("closed-form")
    if formula is None:
        total += f" (closed form: {explained.missing['closed-form']})"
    elif explained.agrees:
        total += ", which the closed form gives to the last MAC"
    else:
        total += f", but the closed form says {formula.macs / 1e9:,.4f}: one of the two is wrong"
    off: dict[tuple[str, str], list[str]] = defaultdict(list)
    for counter, counted in explained.counted.items():
        if counter in ("torch", "closed-form"):
            continue
        more = counted.macs - trusted.macs
        by = f"{100 * more / trusted.macs:+.2f} %" if trusted.macs else f"{more:+,d} MACs"
        off[by if more else "the same", _main_causes(explained, counter)].append(counter)
    others = [
        f"{', '.join(counters)} {by}{f' ({causes})' if causes else ''}"
        for (by, causes), counters in off.items()
    ]
    return f"{total}. {'; '.join(others)}."


def _main_causes(explained: Explained, counter: str) -> str:
    """What moves a counter from torch's, the largest first, to a tenth of that; blank where nothing does."""
    causes: dict[str, int] = defaultdict(int)
    for difference in explained.of(counter):
        causes[difference.cause] += difference.macs
    largest = max(map(abs, causes.values()))
    ordered = sorted(causes, key=lambda cause: -abs(causes[cause]))
    return ", ".join(cause for cause in ordered if causes[cause] and 10 * abs(causes[cause]) >= largest)


def published(explained: Explained) -> list[tuple[str, str, str]]:
    """What is printed of a model at its size: source, GMACs as printed, and the counters that round to it.

    That a count rounds to a figure does not say that the figure was counted so: few digits are printed.
    """
    from baselines import load

    record = explained.torch
    if record.res not in (256, 512):
        return []
    printed: dict[tuple[str, str], None] = {}
    for table in load.tables():
        if table.res_px != str(record.res) or not {"model", "gflops"} <= set(table.columns):
            continue
        for row in table.rows:
            if load.backbone_name(row) == record.model and row["gflops"].value is not None:
                printed[table.source, row["gflops"].as_printed] = None
    each = {counter: one.macs / one.batch / 1e9 for counter, one in explained.counted.items()}
    latent = record.latent_size
    if isinstance(latent, int) and (terms := load.dig_macs().get((record.model, latent))) is not None:
        # in the release a function with a backward pass of its own, which no tracer looks into
        hidden = each["torchprofile-meta"] - terms["mlp_down"] / 1e9
        each["torchprofile-meta less the down projections that the release hides"] = hidden
    found = [(source, text, _rounding(each, text)) for source, text in printed]
    if isinstance(latent, int) and (record.model, latent) in (released := load.macs()):
        macs = released[record.model, latent][1]
        same = [counter for counter, one in explained.counted.items() if one.macs == macs * one.batch]
        text = f"{', '.join(same)}, to the last MAC" if same else _rounding(each, f"{macs / 1e9:.3f}")
        found.append(("the released code under torchprofile 0.1.0", f"{macs / 1e9:.4f}", text))
    return found


def _rounding(gmacs: Mapping[str, float], as_printed: str) -> str:
    """The counters that round to what is printed; the nearest one where none does."""
    decimals = len(as_printed.partition(".")[2])
    same = [counter for counter, value in gmacs.items() if f"{value:.{decimals}f}" == as_printed]
    if same:
        return "every one" if len(same) == len(gmacs) else ", ".join(same)
    nearest = min(gmacs, key=lambda counter: abs(gmacs[counter] - float(as_printed)))
    return f"none; {nearest} is {100 * (gmacs[nearest] / float(as_printed) - 1):+.2f} %"


def rows(explained: Sequence[Explained], pair: Sequence[Explained]) -> list[tables.Row]:
    """Every raw value as one list of rows with the same keys, told apart by `part`.

    `part` is count, difference, term, published, verdict or ratio; `of_torch` is a share of torch's count,
    `other_macs` those of the model that a ratio is to.

    Args:
        explained: the models asked for.
        pair: both models of `PAIR` at every size that takes them.
    """
    made: list[tables.Row] = []
    for one in explained:
        total = one.torch.macs
        for counter, label in COUNTERS.items():
            counted = one.counted.get(counter)
            if counted is None and counter not in one.missing:
                continue
            macs = counted.macs if counted else None
            text = label if counted else one.missing[counter]
            made.append(_row(one.torch, "count", counter=counter, macs=macs, total=total, text=text))
        for found in one.differences:
            made.append(
                _row(
                    one.torch,
                    "difference",
                    counter=found.counter,
                    name=found.name,
                    operators=found.operators,
                    macs=found.macs,
                    total=total,
                )
            )
        for term, macs in sorted(one.terms.items(), key=lambda item: -item[1]):
            made.append(_row(one.torch, "term", counter="closed-form", name=term, macs=macs, total=total))
        for source, as_printed, counters in published(one):
            made.append(_row(one.torch, "published", counter=counters, name=source, text=as_printed))
        made.append(_row(one.torch, "verdict", text=verdict(one)))
    return made + ratios(pair)


def _row(
    about: Counted,
    part: str,
    *,
    counter: str = "",
    name: str = "",
    operators: Sequence[str] = (),
    macs: int | None = None,
    total: int = 0,
    other_macs: int | None = None,
    text: str = "",
) -> tables.Row:
    return {
        "part": part,
        "model": about.model,
        "family": about.family,
        "res": tables.size(about.res),
        "latent_size": tables.size(about.latent_size),
        "batch": about.batch,
        "counter": counter,
        "name": name,
        "operators": list(operators),
        "macs": macs,
        "of_torch": macs / total if macs is not None and total else None,
        "other_macs": other_macs,
        "ratio": macs / other_macs if macs is not None and other_macs else None,
        "text": text,
    }


def ratios(pair: Sequence[Explained]) -> list[tables.Row]:
    """`PAIR`'s first model over its second under each counter that has both, at every size."""
    made: list[tables.Row] = []
    by_case = {(one.torch.model, one.torch.res): one for one in pair}
    for res in dict.fromkeys(res for _, res in by_case):
        first, second = (by_case.get((model, res)) for model in PAIR)
        if first is None or second is None:
            continue
        for counter in COUNTERS:
            if counter in first.counted and counter in second.counted:
                above, below = first.counted[counter].macs, second.counted[counter].macs
                name = " / ".join(PAIR)
                made.append(
                    _row(first.torch, "ratio", counter=counter, name=name, macs=above, other_macs=below)
                )
    return made


def render(made: Sequence[tables.Row], form: str) -> str:
    """Lay out what `rows` gave: one list for a machine, or a table each for a person.

    Args:
        made: the rows.
        form: table, md, csv, json or latex.
    """
    if form in ("csv", "json"):
        return tables.render(made, [], form)
    texts = []
    for part, (title, columns) in _SECTIONS.items():
        chosen = [row for row in made if row["part"] == part]
        if part == "count":
            chosen, columns = _side_by_side(chosen)
        if part == "difference":
            chosen = _merged(chosen)
        if not chosen:
            continue
        heading = {"md": f"### {title}\n\n", "latex": f"% {title}\n"}.get(form, f"{title}\n\n")
        if part == "verdict" and form == "table":
            lines = (f"{row['model']} {row['res']}: {row['text']}\n" for row in chosen)
            texts.append(heading + "".join(lines))
        else:
            texts.append(heading + tables.render(chosen, columns, form))
    return "\n".join(texts)


def _side_by_side(made: Sequence[tables.Row]) -> tuple[list[tables.Row], list[tables.Column]]:
    """A row a model and size, a column a counter."""
    cases: dict[tuple[str, object], dict[str, int | None]] = defaultdict(dict)
    for row in made:
        cases[row["model"], row["res"]][row["counter"]] = row["macs"]
    shown = [counter for counter in COUNTERS if any(counter in counts for counts in cases.values())]

    def column(counter: str) -> tables.Column:
        return (counter, lambda row: _giga(row[counter]))

    wide: list[tables.Row] = [
        {"model": model, "res": res, **{counter: counts.get(counter) for counter in shown}}
        for (model, res), counts in cases.items()
    ]
    return wide, [*_CASE, *map(column, shown)]


def _merged(made: Sequence[tables.Row]) -> list[tables.Row]:
    """Counters that differ from torch's in the same way share their rows."""
    by_counter: dict[tuple[str, object, str], list[tables.Row]] = defaultdict(list)
    for row in made:
        by_counter[row["model"], row["res"], row["counter"]].append(row)
    alike: dict[tuple[object, ...], list[list[tables.Row]]] = defaultdict(list)
    for (model, res, _), each in by_counter.items():
        alike[model, res, *((row["name"], row["macs"]) for row in each)].append(each)
    return [
        {**row, "counter": ", ".join(each[0]["counter"] for each in groups)}
        for groups in alike.values()
        for row in groups[0]
    ]


def _giga(macs: int | None) -> str:
    return tables.fixed(4, None if macs is None else macs / 1e9)


def _percent(row: tables.Row) -> str:
    return "-" if row["of_torch"] is None else f"{100 * row['of_torch']:.4f}"


_CASE: list[tables.Column] = [("model", lambda row: row["model"]), ("res", lambda row: str(row["res"]))]
_SECTIONS: dict[str, tuple[str, list[tables.Column]]] = {
    "count": ("GMACs under each counter", []),
    "difference": (
        "Differences to torch's count, in MACs",
        [
            *_CASE,
            ("counter", lambda row: row["counter"]),
            ("difference", lambda row: row["name"]),
            ("operators", lambda row: ", ".join(row["operators"])),
            ("MACs", lambda row: f"{row['macs']:+,d}" if row["macs"] else "0"),
            ("% of torch's", _percent),
        ],
    ),
    "term": (
        "The closed form, in MACs",
        [
            *_CASE,
            ("term", lambda row: row["name"]),
            ("MACs", lambda row: f"{row['macs']:,d}"),
            ("%", _percent),
        ],
    ),
    "published": (
        "Published, and which counts round to it",
        [
            *_CASE,
            ("source", lambda row: row["name"]),
            ("GMACs as printed", lambda row: row["text"]),
            ("rounds to it", lambda row: row["counter"]),
        ],
    ),
    "verdict": ("Verdict", [*_CASE, ("verdict", lambda row: row["text"])]),
    "ratio": (
        f"{PAIR[0]} / {PAIR[1]} under each counter",
        [
            ("res", lambda row: str(row["res"])),
            ("counter", lambda row: row["counter"]),
            (f"{PAIR[0]} GMACs", lambda row: tables.fixed(3, row["macs"] / 1e9)),
            (f"{PAIR[1]} GMACs", lambda row: tables.fixed(3, row["other_macs"] / 1e9)),
            ("ratio", lambda row: tables.fixed(4, row["ratio"])),
        ],
    ),
}


def notes(explained: Sequence[Explained]) -> list[str]:
    """What the tables stand on, each counter in words, and which gave no count for what."""
    first = explained[0].torch
    ran = [counter for counter in COUNTERS if any(counter in one.counted for one in explained)]
    missing: dict[tuple[str, str], list[str]] = defaultdict(list)
    for one in explained:
        for counter, reason in one.missing.items():
            missing[counter, reason].append(f"{one.torch.model} {size_text(one.torch.res)}")
    return [
        f"1 MAC = 2 FLOPs; batch {first.batch}; torch {first.environment.torch}; {first.environment.date}",
        *(f"{counter}: {COUNTERS[counter]}" for counter in ran),
        *(f"{counter}, no count: {reason} ({_some(of)})" for (counter, reason), of in missing.items()),
    ]


def _some(cases: Sequence[str]) -> str:
    return ", ".join(cases[:3]) + (f" and {len(cases) - 3} more" if len(cases) > 3 else "")
