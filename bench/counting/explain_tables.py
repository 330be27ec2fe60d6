"""Tables of explanations: counts, differences, closed form, published figures, verdict and ratio."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from baselines import load
from bench.analysis.costs.counts import PAIR, RATIOS, TABLE, ModelCounts, ratios, side_by_side
from bench.counting.explain import Explanation
from bench.records.base import Skipped, size_text
from bench.records.columns import MODEL, RES, SIZED, SPACE
from bench.records.counts import COUNTERS, CountCase
from bench.tables.numbers import percent
from bench.tables.render import render as render_table
from bench.tables.render import titled
from bench.tables.table import Column, Table, fields

Answer = Explanation | Skipped


@dataclass(frozen=True, kw_only=True)
class Line:
    """One value of an explanation."""

    part: str  # count, difference, term, published, verdict or ratio
    case: CountCase
    counter: str = ""
    name: str = ""
    operators: tuple[str, ...] = ()
    macs: int | None = None
    torch_macs: int = 0  # torch's count of the same model
    other_macs: int | None = None  # of the second model of a ratio
    text: str = ""

    @property
    def of_torch(self) -> float | None:
        return self.macs / self.torch_macs if self.macs is not None and self.torch_macs else None

    @property
    def ratio(self) -> float | None:
        return self.macs / self.other_macs if self.macs is not None and self.other_macs else None


def verdict(explanation: Explanation) -> str:
    """Recommended count, and the differences of the others with their causes."""
    trusted = explanation.torch.macs
    total = f"trust torch, {trusted / 1e9:,.4f} GMACs"
    formula = explanation.counted.get("closed-form")
    if formula is None:
        total += f" (closed form: {explanation.missing['closed-form']})"
    elif explanation.agrees:
        total += ", equal to the closed form"
    else:
        total += f", but the closed form gives {formula.macs / 1e9:,.4f}: one of the two is wrong"
    groups: dict[tuple[str, str], list[str]] = defaultdict(list)
    for counter, counted in explanation.counted.items():
        if counter not in ("torch", "closed-form"):
            more = counted.macs - trusted
            by = f"{100 * more / trusted:+.2f} %" if trusted else f"{more:+,d} MACs"
            groups[by if more else "the same", _main_causes(explanation, counter)].append(counter)
    others = [
        f"{', '.join(counters)} {by}{f' ({causes})' if causes else ''}"
        for (by, causes), counters in groups.items()
    ]
    return f"{total}. {'; '.join(others)}."


def _main_causes(explanation: Explanation, counter: str) -> str:
    """Causes of at least a tenth of a counter's difference, largest first; blank without any."""
    causes: dict[str, int] = defaultdict(int)
    for difference in explanation.differences_of(counter):
        causes[difference.cause] += difference.macs
    least = max(map(abs, causes.values())) / 10
    ordered = sorted(causes, key=lambda cause: -abs(causes[cause]))
    return ", ".join(cause for cause in ordered if causes[cause] and abs(causes[cause]) >= least)


def published(explanation: Explanation) -> list[tuple[str, str, str]]:
    """Published figures of a model at its size: source, GMACs as printed, and the counters that round to it.

    A count that rounds to a figure need not be its origin: few digits are printed.
    """
    case = explanation.torch.case
    printed = {
        (table.source, row["gflops"].as_printed): None
        for table in load.tables()
        if table.res_px == str(case.res) in ("256", "512") and {"model", "gflops"} <= set(table.columns)
        for row in table.rows
        if load.backbone_name(row) == case.model and row["gflops"].value is not None
    }
    gmacs = {counter: counted.macs_per_image / 1e9 for counter, counted in explanation.counted.items()}
    released = None
    if isinstance(case.latent_size, int) and case.res in (256, 512):
        released = load.macs().get((case.model, case.latent_size)) or load.macs_2026().get(
            (case.model, case.latent_size)
        )
        if (terms := load.dig_macs().get((case.model, case.latent_size))) is not None:
            # the release has an autograd.Function here, which tracers do not enter
            name = "torchprofile-meta less the down projections that the release hides"
            gmacs[name] = gmacs["torchprofile-meta"] - terms["mlp_down"] / 1e9
    found = [(source, text, _rounding(gmacs, text)) for source, text in printed]
    if released is not None:
        macs = released[1]
        equal = [name for name, counted in explanation.counted.items() if counted.macs == macs * case.batch]
        text = f"{', '.join(equal)}, to the last MAC" if equal else _rounding(gmacs, f"{macs / 1e9:.3f}")
        found.append(("the released code under torchprofile 0.1.0", f"{macs / 1e9:.4f}", text))
    return found


def _rounding(gmacs: Mapping[str, float], as_printed: str) -> str:
    """Counters that round to a printed figure; the nearest counter if none does."""
    decimals = len(as_printed.partition(".")[2])
    equal = [counter for counter, value in gmacs.items() if f"{value:.{decimals}f}" == as_printed]
    if equal:
        return "all" if len(equal) == len(gmacs) else ", ".join(equal)
    nearest = min(gmacs, key=lambda counter: abs(gmacs[counter] - float(as_printed)))
    return f"none; {nearest} is {100 * (gmacs[nearest] / float(as_printed) - 1):+.2f} %"


def lines(answers: Sequence[Answer], pair: Sequence[Explanation]) -> list[Line]:
    """Every value of the requested models, and of PAIR's ratio at every size with both models, in order."""
    return [line for answer in answers for line in _lines(answer)] + list(_ratio_lines(pair))


def _lines(answer: Answer) -> Iterator[Line]:
    if isinstance(answer, Skipped):
        assert isinstance(answer.case, CountCase)
        yield Line(part="count", case=answer.case, counter="torch", text=answer.reason)
        yield Line(part="verdict", case=answer.case, text=f"no count: {answer.status}: {answer.reason}")
        return
    base = Line(part="", case=answer.torch.case, torch_macs=answer.torch.macs)
    for counter in COUNTERS:
        if counter in answer.counted:
            macs = answer.counted[counter].macs
            yield replace(base, part="count", counter=counter, macs=macs, text=COUNTERS[counter])
        elif counter in answer.missing:
            yield replace(base, part="count", counter=counter, text=answer.missing[counter])
    for found in answer.differences:
        yield replace(
            base,
            part="difference",
            counter=found.counter,
            name=found.name,
            operators=found.operators,
            macs=found.macs,
        )
    for term, macs in sorted(answer.terms.items(), key=lambda item: -item[1]):
        yield replace(base, part="term", counter="closed-form", name=term, macs=macs)
    for source, as_printed, counters in published(answer):
        yield Line(part="published", case=base.case, counter=counters, name=source, text=as_printed)
    yield Line(part="verdict", case=base.case, text=verdict(answer))


def _ratio_lines(pair: Sequence[Explanation]) -> Iterator[Line]:
    for ratio in ratios(_model_counts(pair)):
        for counter in COUNTERS:
            if ratio.of(counter) is not None:
                above, below = ratio.above.counts[counter], ratio.below.counts[counter]
                yield Line(
                    part="ratio",
                    case=above.case,
                    counter=counter,
                    name=" / ".join(PAIR),
                    macs=above.macs,
                    other_macs=below.macs,
                )


def _model_counts(answers: Sequence[Answer]) -> list[ModelCounts]:
    explained = [explanation for explanation in answers if isinstance(explanation, Explanation)]
    return side_by_side(record for explanation in explained for record in explanation.counted.values())


_share = partial(percent, digits=4)
_CASE: tuple[Column[Any], ...] = (MODEL, RES, SPACE)
VALUES = Table[Line](
    title="Values of explanations",
    columns=(
        *fields("part"),
        *SIZED,
        *fields("counter", "name", "operators", "macs", "of_torch", "other_macs", "ratio", "text"),
    ),
)
DIFFERENCES = Table[Line](
    title="Differences to torch's count, in MACs",
    columns=(
        *_CASE,
        Column("counter", lambda line: line.counter),
        Column("difference", lambda line: line.name),
        Column("operators", lambda line: ", ".join(line.operators)),
        Column("MACs", lambda line: line.macs, lambda macs: f"{macs:+,d}" if macs else "0"),
        Column("% of torch's", lambda line: line.of_torch, _share),
    ),
)
TERMS = Table[Line](
    title="The closed form, in MACs",
    columns=(
        *_CASE,
        Column("term", lambda line: line.name),
        Column("MACs", lambda line: line.macs, "{:,d}".format),
        Column("%", lambda line: line.of_torch, _share),
    ),
)
PUBLISHED = Table[Line](
    title="Published, and which counts round to it",
    columns=(
        *_CASE,
        Column("source", lambda line: line.name),
        Column("GMACs as printed", lambda line: line.text),
        Column("rounds to it", lambda line: line.counter),
    ),
)
VERDICTS = Table[Line](title="Verdict", columns=(*_CASE, Column("verdict", lambda line: line.text)))


def render(answers: Sequence[Answer], pair: Sequence[Explanation], form: str) -> str:
    """Render explanations, and those of PAIR: one list in CSV and JSON, otherwise one table for each part."""
    values = lines(answers, pair)
    if form in ("csv", "json"):
        return render_table(VALUES, values, form)
    parts: dict[str, list[Line]] = defaultdict(list)
    for line in values:
        parts[line.part].append(line)
    tables: tuple[tuple[Table[Any], Sequence[Any]], ...] = (
        (TABLE, _model_counts(answers)),
        (DIFFERENCES, _merged(parts["difference"])),
        (TERMS, parts["term"]),
        (PUBLISHED, parts["published"]),
        (VERDICTS, parts["verdict"]),
        (RATIOS, ratios(_model_counts(pair))),
    )
    return "\n".join(titled(table.title, _text(table, rows, form), form) for table, rows in tables if rows)


def _text(table: Table[Any], rows: Sequence[Any], form: str) -> str:
    if table is VERDICTS and form == "table":  # sentences, too long for a column
        return "".join(f"{row.case.model} {size_text(row.case.res)}: {row.text}\n" for row in rows)
    return render_table(table, rows, form)


def _merged(differences: Sequence[Line]) -> list[Line]:
    """Merge the rows of counters with equal differences."""
    by_counter: dict[tuple[object, ...], list[Line]] = defaultdict(list)
    for line in differences:
        by_counter[line.case, line.counter].append(line)
    equal: dict[tuple[object, ...], list[list[Line]]] = defaultdict(list)
    for (case, _), group in by_counter.items():
        equal[case, *((line.name, line.macs) for line in group)].append(group)
    return [
        replace(line, counter=", ".join(group[0].counter for group in groups))
        for groups in equal.values()
        for line in groups[0]
    ]


def notes(answers: Sequence[Answer]) -> list[str]:
    """Units, descriptions of the counters, and reasons of missing counts."""
    explained = [explanation for explanation in answers if isinstance(explanation, Explanation)]
    here = answers[0].torch.environment if isinstance(answers[0], Explanation) else answers[0].environment
    ran = [
        counter for counter in COUNTERS if any(counter in explanation.counted for explanation in explained)
    ]
    missing: dict[tuple[str, str], list[str]] = defaultdict(list)
    for explanation in explained:
        for counter, reason in explanation.missing.items():
            missing[counter, reason].append(
                f"{explanation.torch.case.model} {size_text(explanation.torch.case.res)}"
            )
    return [
        f"1 MAC = 2 FLOPs; torch {here.torch}; {here.date}",
        *(f"{counter}: {COUNTERS[counter]}" for counter in ran),
        *(f"{counter}, no count: {reason} ({_first(cases)})" for (counter, reason), cases in missing.items()),
    ]


def _first(cases: Sequence[str]) -> str:
    return ", ".join(cases[:3]) + (f" and {len(cases) - 3} more" if len(cases) > 3 else "")
