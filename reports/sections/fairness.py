"""The report's section on fairness: ranks of families by speed under every setting, and what changes them."""

from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate

from bench.analysis.speed import fairness, rank_changes
from bench.analysis.speed.fairness import CHAINED, INTERLEAVED, SEPARATE, MeasuredRanks, Ranks
from bench.analysis.speed.rank_changes import Pair, PublishedRanks, Reversal, Stability
from bench.analysis.speed.settings import Setting
from bench.records.base import Record
from models.registry import size_place
from reports.figures import ranks as figure
from reports.figures.plots import MOST, Drawing
from reports.markdown import BLANK, Columns, markdown, sentence
from reports.sections import Part, of_parts
from reports.selection import grouped

PLACE = "speed.md", 1
MARKS = 200  # maximum marks in a figure
NAMED, LISTED = 6, 2  # maximum reversals that a sentence names, and settings of each
READING = (
    "Whether the order of two families of one size depends on the setting. Rank: 1 + the number of "
    "families that are significantly faster (the 99 % interval of the ratio of speeds lies above 1). "
    f"`2=`: tied with another family of the row. Ratios are *{INTERLEAVED}* (bench.versus, two "
    f"processes or more), *{CHAINED}* (products of such ratios), or *{SEPARATE}*. *Published* rows rank "
    "the printed throughputs; † is a number that is probably another paper's, so that the row mixes "
    "devices."
)


@of_parts
def section(records: Sequence[Record]) -> Iterator[Part]:
    """Write the section; empty where no two families of a size were compared. Records may be in any order."""
    measured = sorted(fairness.rankings(records), key=_size)
    if not measured:
        return
    families: dict[str, set[str]] = {}  # by size
    for one in measured:
        families.setdefault(one.size, set()).update(one.speeds)
    printed = [
        rank_changes.among(theirs, families[theirs.size])
        for theirs in sorted(rank_changes.published(), key=_size)
        if len(families.get(theirs.size, set()) & {*theirs.speeds}) > 1
    ]
    by_device = _by_device(measured)
    bases = {device: rank_changes.baseline(of) for device, of in by_device.items()}
    yield from ("## Ranks by speed under every setting", READING)
    yield "\n".join(f"- {line}" for line in answers(by_device, bases, printed))
    for device, of in [*by_device.items()][:MOST]:
        yield _drawing(bases[device], of, printed)
    yield _table(measured, printed, bases, sorted(set().union(*families.values()), key=fairness.place))


def _drawing(base: Setting, of: Sequence[MeasuredRanks], printed: Sequence[PublishedRanks]) -> Drawing:
    """Draw the rankings of a device: the baseline's, then those of most families, up to MARKS marks."""
    ranked = sorted(of, key=lambda one: (one.setting != base, -len(one.speeds)))
    sums = accumulate(len(one.speeds) for one in ranked)
    kept = [one for one, marks in zip(ranked, sums, strict=True) if marks <= MARKS] or ranked[:1]
    finding = sentence(_on_device(of))
    if len(kept) < len(of):
        finding += f" {len(kept)} of {len(of)} rankings are drawn, those with most families."
    return figure.draw(base, [one for one in of if one in kept], printed, finding)


def _by_device(measured: Sequence[MeasuredRanks]) -> dict[str, list[MeasuredRanks]]:
    """The rankings of every device, that with most ranks first."""
    found = grouped(measured, lambda one: one.setting.device)
    most = sorted(found, key=lambda device: (-sum(len(one.speeds) for one in found[device]), device))
    return {device: found[device] for device in most}


def _size(one: Ranks) -> tuple[int, str]:
    return size_place(one.size), one.size


# the answer


def answers(
    by_device: dict[str, list[MeasuredRanks]], bases: dict[str, Setting], printed: Sequence[PublishedRanks]
) -> list[str]:
    """What keeps its order: on each device, against each paper, and between devices."""
    lines = []
    for device, of in by_device.items():
        reversals = _reversals(rank_changes.stability(of), lambda one: one.but_device)
        lines.append(f"**{device}**, baseline {bases[device].but_device}: {_on_device(of)}{reversals}")
        lines += _against_papers(device, bases[device], of, printed)
    everywhere = [one for of in by_device.values() for one in of]
    for words, of in grouped(everywhere, lambda one: one.setting.but_device).items():
        found = rank_changes.stability(of)
        if len(by_device) > 1 and found.pairs:
            changes = f"{_counts(found, 'on each', 'on some')}{_reversals(found, lambda one: one.device)}"
            lines.append(f"The same setting on several devices, {words}: {changes}")
    return lines


def _on_device(of: Sequence[MeasuredRanks]) -> str:
    found = rank_changes.stability(of)
    if not found.pairs:
        return "every pair was measured under one setting only"
    return _counts(found, "under every setting measured", "under some settings")


def _counts(found: Stability, where: str, some: str) -> str:
    """How many pairs keep or change their order: where is every setting, some is a part of them."""
    return f"of {_pairs(found.pairs)}, " + _tally(
        (found.kept, f"in one order {where}"),
        (found.tied, f"tied {some} and never reversed"),
        (found.open, f"tied {where}"),
        (found.reversed, "reversed"),
    )


def _tally(*groups: tuple[Sequence[object], str]) -> str:
    """3 in one order, 1 tied, none reversed: groups that are empty are left out, but the last."""
    parts = [f"{len(of)} {words}" for of, words in groups if of]
    return ", ".join(parts if groups[-1][0] else [*parts, f"none {groups[-1][1]}"])


def _pairs(count: int) -> str:
    return f"{count} pair{'s' * (count != 1)}"


def _reversals(found: Stability, words: Callable[[Setting], str]) -> str:
    return _named([_reversal(one, words) for one in found.reversed])


def _named(reversals: Sequence[str]) -> str:
    shown = "; ".join(reversals[:NAMED])
    more = f"; and {len(reversals) - NAMED} more" if len(reversals) > NAMED else ""
    return f": {shown}{more}." if shown else "."


def _reversal(one: Reversal, words: Callable[[Setting], str]) -> str:
    a, b = one.pair
    first, second = (_listed(list(map(words, of))) for of in (one.first_faster, one.second_faster))
    return f"{a}-{one.size} is faster than {b}-{one.size} at {first}, slower at {second}"


def _listed(settings: Sequence[str]) -> str:
    shown = " and ".join(f"({words})" for words in settings[:LISTED])
    return f"{shown} and {len(settings) - LISTED} more" if len(settings) > LISTED else shown


def _against_papers(
    device: str, base: Setting, of: Sequence[MeasuredRanks], printed: Sequence[PublishedRanks]
) -> list[str]:
    """One line for each paper and resolution: printed pairs against the setting nearest to the baseline."""
    lines = []
    for paper, res in sorted({(one.paper, one.res) for one in printed}):
        changed: dict[str, list[str]] = {"kept": [], "tied": [], "reversed": []}
        wheres: list[Setting] = []
        for theirs in (one for one in printed if (one.paper, one.res) == (paper, res)):
            ours = min(
                (one for one in of if one.size == theirs.size and one.setting.res == res),
                key=lambda one: (one.setting != base, one.setting.place),
                default=None,
            )
            if ours is None:
                continue
            found = rank_changes.changes(theirs, ours)
            wheres += [ours.setting] if found.kept or found.tied or found.reversed else []
            for name, pairs in changed.items():
                pairs += [_pair(pair, theirs.size) for pair in getattr(found, name)]
        total = sum(map(len, changed.values()))
        if total:
            where = " or ".join(dict.fromkeys(setting.but_device for setting in wheres))
            stated = next(one for one in printed if (one.paper, one.res) == (paper, res)).device
            words = ("in the same order", "tied here", "reversed here")
            here = [(pairs, text) for pairs, text in zip(changed.values(), words, strict=True)]
            lines.append(
                f"{paper}'s order at {res} px ({stated or 'device not stated'}) against {device}, {where}: "
                f"of {_pairs(total)} printed and measured, {_tally(*here)}"
                f"{_named(changed['reversed'])}"
            )
    return lines


def _pair(pair: Pair, size: str) -> str:
    return f"{pair[0]}-{size} over {pair[1]}-{size}"


# the table


def _table(
    measured: Sequence[MeasuredRanks],
    printed: Sequence[PublishedRanks],
    bases: dict[str, Setting],
    families: Sequence[str],
) -> str:
    rows: list[tuple[Ranks, str, str, str, Sequence[Record]]] = []
    for size in dict.fromkeys(one.size for one in measured):
        for theirs in (one for one in printed if one.size == size):
            where = f"published, {theirs.source}"
            rows.append(
                (theirs, where, f"{theirs.res} px, {theirs.device or 'device not stated'}", BLANK, ())
            )
        of_size = [one for one in measured if one.size == size]
        for ours in sorted(
            of_size, key=lambda one: (one.setting != bases[one.setting.device], one.setting.place)
        ):
            base = bases[ours.setting.device]
            before = next((o for o in of_size if o.setting == base), None)
            setting = ours.setting.but_device
            rows.append((ours, ours.setting.device, setting, _changes(before, ours), ours.records))
    columns: Columns = {
        "size": [one.size for one, *_ in rows],
        "device or paper": [where for _, where, *_ in rows],
        "setting": [setting for _, _, setting, *_ in rows],
        **{name: [_cell(one, name) for one, *_ in rows] for name in families},
        "pairs against the baseline": [changed for *_, changed, _ in rows],
        "ratios": [", ".join(one.methods) if isinstance(one, MeasuredRanks) else BLANK for one, *_ in rows],
    }
    return markdown(columns, [records for *_, records in rows])


def _cell(one: Ranks, family: str) -> str:
    copied = "†" if isinstance(one, PublishedRanks) and family in one.copied else ""
    return f"{one.text(family)}{copied}" or BLANK


def _changes(before: MeasuredRanks | None, ours: MeasuredRanks) -> str:
    if before is None:
        return BLANK
    if before is ours:
        return "baseline"
    found = rank_changes.changes(before, ours)
    words = [
        f"{len(pairs)} {name}"
        for name, pairs in (
            ("kept", found.kept),
            ("now a tie", found.tied),
            ("no longer a tie", found.parted),
            ("ties in both", found.open),
        )
        if pairs
    ]
    reversed_pairs = [_pair(pair, ours.size) for pair in found.reversed]
    words += [f"**{len(reversed_pairs)} reversed** ({', '.join(reversed_pairs)})"] if reversed_pairs else []
    return ", ".join(words) or BLANK
