"""What changes between rankings: baselines, pairs that keep their order, published rankings. No torch."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache

from baselines import load
from bench.analysis.speed.fairness import REFERENCE, MeasuredRanks, Ranks, place, size_of
from bench.analysis.speed.settings import Setting
from models.registry import ENTRIES

Pair = tuple[str, str]  # families, in the order of the registry


# published rankings


@dataclass(frozen=True, kw_only=True)
class PublishedRanks(Ranks):
    """Ranks by the throughput that a paper prints; only equal numbers are ties."""

    paper: str
    res: int  # px
    tables: Mapping[str, int]  # number of the table, by family
    device: str  # as stated for the throughput; blank if not
    copied: frozenset[str]  # families whose number is probably another paper's, so of another device

    @property
    def source(self) -> str:
        tables = sorted({self.tables[family] for family in self.speeds})
        return f"{self.paper} Table{'s' * (len(tables) > 1)} {', '.join(map(str, tables))}"


@dataclass(frozen=True, kw_only=True)
class _Printed:
    """A throughput that a paper prints."""

    images_per_s: float
    table: int
    device: str
    copied: bool


@cache
def published() -> tuple[PublishedRanks, ...]:
    """The ranks of every paper, resolution and size; of several tables the one with most speeds counts."""
    found: dict[tuple[str, int, str], dict[str, _Printed]] = {}
    tables = [
        table
        for table in load.tables()
        if {"throughput", "model"} <= {*table.columns} and table.res_px.isdecimal()
    ]
    for table in sorted(tables, key=lambda one: (-_speeds_in(one), one.id)):
        for row in table.rows:
            family, size = _named(load.backbone_name(row))
            value = row["throughput"].value
            if not size or value is None:
                continue
            of_families = found.setdefault((table.paper, int(table.res_px), size), {})
            if family not in of_families:
                of_families[family] = _Printed(
                    images_per_s=value,
                    table=table.number,
                    device=table.device,
                    copied=load.taken_over(table.id, "throughput", row),
                )
    return tuple(_published(*key, of_families) for key, of_families in found.items() if len(of_families) > 1)


def _speeds_in(table: load.PublishedTable) -> int:
    return sum(row["throughput"].value is not None for row in table.rows)


def _named(model: str) -> tuple[str, str]:
    """The family and the size of a published name; blank for a family that is not in the registry."""
    families = [family for family in ENTRIES if model.startswith(f"{family}-")]
    family = max(families, key=len, default="")
    return family, size_of(model, family) if family else ""


def _published(paper: str, res: int, size: str, printed: Mapping[str, _Printed]) -> PublishedRanks:
    rates = {family: one.images_per_s for family, one in printed.items()}
    base = rates[REFERENCE] if REFERENCE in rates else rates[min(rates, key=place)]
    return PublishedRanks(
        size=size,
        speeds={
            name: rates[name] / base for name in sorted(rates, key=lambda name: (-rates[name], place(name)))
        },
        faster=frozenset((a, b) for a in rates for b in rates if rates[a] > rates[b]),
        paper=paper,
        res=res,
        tables={family: one.table for family, one in printed.items()},
        device=" or ".join(sorted({one.device for one in printed.values()} - {""})),
        copied=frozenset(family for family, one in printed.items() if one.copied),
    )


def among(one: PublishedRanks, families: Collection[str]) -> PublishedRanks:
    """The ranks of some families only."""
    return replace(
        one,
        speeds={name: speed for name, speed in one.speeds.items() if name in families},
        faster=frozenset(pair for pair in one.faster if {*pair} <= {*families}),
    )


# changes


def baseline(measured: Sequence[MeasuredRanks]) -> Setting:
    """The setting of one device that others are compared with.

    Of the settings with the fewest switches, in fp32 if any, and with the smallest image, the one with most
    ranks, then with the smallest batch.
    """
    counts: dict[Setting, int] = {}
    for one in measured:
        counts[one.setting] = counts.get(one.setting, 0) + len(one.speeds)
    return min(counts, key=lambda setting: (*setting.place[:3], -counts[setting], setting.place))


@dataclass(frozen=True, kw_only=True)
class Changes:
    """Pairs of families of one size in two rankings; the first of a pair was faster before, if either was."""

    kept: tuple[Pair, ...]  # the same one is faster
    reversed: tuple[Pair, ...]
    tied: tuple[Pair, ...]  # one was faster before
    parted: tuple[Pair, ...]  # one is faster now
    open: tuple[Pair, ...]  # ties in both


def changes(before: Ranks, after: Ranks) -> Changes:
    """What became of the pairs that both rankings have."""
    found: dict[str, list[Pair]] = {name: [] for name in ("kept", "reversed", "tied", "parted", "open")}
    for one, other in before.pairs:
        if one in after.speeds and other in after.speeds:
            pair = (one, other) if before.order(one, other) >= 0 else (other, one)
            was, now = before.order(*pair), after.order(*pair)
            if was and now:
                found["kept" if now > 0 else "reversed"].append(pair)
            else:
                found["tied" if was else "parted" if now else "open"].append(pair)
    return Changes(**{name: tuple(pairs) for name, pairs in found.items()})


@dataclass(frozen=True, kw_only=True)
class Reversal:
    """A pair of which each family is faster for certain under some settings."""

    size: str
    pair: Pair
    first_faster: tuple[Setting, ...]
    second_faster: tuple[Setting, ...]


@dataclass(frozen=True, kw_only=True)
class Stability:
    """The pairs of one size that two rankings or more contain."""

    kept: tuple[tuple[str, Pair], ...]  # with the size; the same family is faster in every ranking
    tied: tuple[tuple[str, Pair], ...]  # ties in at least one, never reversed
    open: tuple[tuple[str, Pair], ...]  # ties in every one
    reversed: tuple[Reversal, ...]

    @property
    def pairs(self) -> int:
        return len(self.kept) + len(self.tied) + len(self.open) + len(self.reversed)


def stability(rankings: Iterable[MeasuredRanks]) -> Stability:
    """Compare the order of every pair over all rankings of its size."""
    seen: dict[tuple[str, Pair], list[MeasuredRanks]] = {}
    for one in rankings:
        for pair in one.pairs:
            seen.setdefault((one.size, pair), []).append(one)
    kept: list[tuple[str, Pair]] = []
    tied: list[tuple[str, Pair]] = []
    unknown: list[tuple[str, Pair]] = []
    reversals: list[Reversal] = []
    for (size, pair), of in seen.items():
        if len(of) < 2:
            continue
        orders = [ranks.order(*pair) for ranks in of]
        if {1, -1} <= {*orders}:
            first, second = (
                tuple(ranks.setting for ranks, order in zip(of, orders, strict=True) if order == sign)
                for sign in (1, -1)
            )
            reversals.append(Reversal(size=size, pair=pair, first_faster=first, second_faster=second))
        else:
            (kept if 0 not in orders else tied if any(orders) else unknown).append((size, pair))
    return Stability(kept=tuple(kept), tied=tuple(tied), open=tuple(unknown), reversed=tuple(reversals))
