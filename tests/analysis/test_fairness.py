"""Ranks of families by speed under every setting: ties, chains of comparisons, changes, the section."""

import random
from dataclasses import replace
from statistics import fmean

import pytest

from bench.analysis.speed import fairness, rank_changes
from bench.analysis.speed.fairness import CHAINED, INTERLEAVED, SEPARATE, MeasuredRanks
from bench.records.base import Record
from bench.stats import processes
from reports.sections.fairness import section
from tests.analysis.builders import CPU, compared, throughput
from tests.reports.test_reports import columns

THREE = {"DiT-S/2": 1.0, "FCDM-S": 2.0, "DiC-S": 1.02}


def only(*records: Record) -> MeasuredRanks:
    (found,) = fairness.rankings(records)
    return found


def texts(ranks: MeasuredRanks) -> dict[str, str]:
    return {name: ranks.text(name) for name in ranks.speeds}


def test_families_tie_where_the_interval_contains_1() -> None:
    assert texts(only(compared(THREE))) == {"FCDM": "1", "DiC": "2", "DiT": "3"}
    noisy = only(compared(THREE, spread=0.05))
    assert texts(noisy)["FCDM"] == "1"
    assert {texts(noisy)[name] for name in ("DiC", "DiT")} == {"2="}
    assert noisy.methods == (INTERLEAVED,)


def test_rounds_within_one_process_rank_nothing() -> None:
    assert fairness.rankings([compared(THREE, processes=1)]) == []
    twice = [compared(THREE, replace(CPU, date=f"2026-11-2{day}"), processes=1) for day in (1, 2)]
    assert texts(only(*twice))["FCDM"] == "1"


@pytest.mark.parametrize(
    ("arm", "switch"), [("fast eager", "fast implementation"), ("reference compile", "torch.compile")]
)
def test_other_arms_compare_through_shared_models(arm: str, switch: str) -> None:
    fast = [
        compared({name: 1.0, f"{name} {arm}": gain}, arms=("reference eager", arm))
        for name, gain in (("DiT-S/2", 1.1), ("FCDM-S", 1.5))
    ]
    plain, chained = fairness.rankings([compared({"DiT-S/2": 1.0, "FCDM-S": 1.2}), *fast])
    assert chained.setting.switches == (switch,)
    assert (plain.methods, chained.methods) == ((INTERLEAVED,), (CHAINED,))
    assert chained.speeds["FCDM"] == pytest.approx(1.2 * 1.5 / 1.1)
    assert [*fairness.rankings(fast)] == []


def test_chained_intervals_hold_the_true_ratio() -> None:
    draw = random.Random(0)

    def ratio(n: int) -> processes.LogMean:
        return processes.log_mean([[draw.gauss(0, 0.05)] for _ in range(n)])

    sums = [processes.log_sum([ratio(3), -ratio(5), ratio(3)]) for _ in range(400)]
    assert fmean(abs(one.mean) <= one.reach(0.95) for one in sums) >= 0.93


def test_passes_timed_separately_fill_what_rounds_leave_out() -> None:
    runs = [
        throughput(
            (1 / speed,) * 6, replace(CPU, date=f"2026-11-2{day}", code=str(day)), model=model, family=family
        )
        for day in (1, 2, 3)
        for model, family, speed in (("DiT-S/2", "DiT", 1.0), ("FCDM-S", "FCDM", 1.3 + day / 100))
    ]
    assert (texts(only(*runs)), only(*runs).methods) == ({"FCDM": "1", "DiT": "2"}, (SEPARATE,))
    assert texts(only(*runs[:2])) == {"FCDM": "1=", "DiT": "1="}  # one process of each
    mixed = only(*runs, compared({"DiT-S/2": 1.0, "FCDM-S": 0.5}))
    assert texts(mixed) == {"DiT": "1", "FCDM": "2"}


def test_sizes_devices_and_ablations_are_not_mixed() -> None:
    other = replace(CPU, device="another device")
    records = [compared(THREE), compared(THREE, other), compared({"FCDM-S": 1.0, "DiT-B/2": 1.0})]
    found = fairness.rankings([*records, compared({"DiCo-S": 1.0, "DiCo-S@k7": 1.0}, other)])
    assert [(one.setting.device, one.size, len(one.speeds)) for one in found] == [
        ("a device", "S", 3),
        ("another device", "S", 3),
    ]


AT_512 = {"DiT-S/2": 1.0, "FCDM-S": 0.9, "DiC-S": 0.5}


def test_pairs_are_kept_tied_or_reversed_between_settings() -> None:
    small, large = fairness.rankings([compared(THREE), compared(AT_512, res=512, latent_size=64)])
    assert rank_changes.baseline([large, small]) == small.setting
    changed = rank_changes.changes(small, large)
    assert (changed.kept, changed.reversed) == ((("FCDM", "DiC"),), (("FCDM", "DiT"), ("DiC", "DiT")))
    tied = fairness.rankings([compared(THREE, spread=0.05)])[0]
    assert rank_changes.changes(small, tied).tied == (("DiC", "DiT"),)
    assert rank_changes.changes(tied, small).parted == (("DiT", "DiC"),)
    found = rank_changes.stability([small, tied])
    assert (found.pairs, len(found.kept), len(found.tied)) == (3, 2, 1)
    assert [one.pair for one in rank_changes.stability([small, large]).reversed] == [
        ("FCDM", "DiT"),
        ("DiT", "DiC"),
    ]


def test_published_ranks_are_those_of_the_printed_throughput() -> None:
    found = {(one.paper, one.res, one.size): one for one in rank_changes.published()}
    fcdm = found["FCDM", 256, "S"]
    assert [*fcdm.speeds] == ["DiC", "FCDM", "DiCo", "DiT", "DiG"]
    assert (fcdm.source, fcdm.text("DiT"), "DiG" in fcdm.copied) == ("FCDM Table 3", "4", True)
    assert (found["DiCo", 256, "XL"].device, found["FCDM", 512, "XL"].text("FCDM")) == ("A100", "1")


def test_the_section_answers_how_many_pairs_keep_their_order() -> None:
    records = [compared(THREE), compared(AT_512, res=512, latent_size=64), throughput((0.1,))]
    text, (drawing,) = section(records)
    assert section(records[::-1]) == (text, [drawing])
    assert (
        "baseline 256 px, fp32, batch 4: of 3 pairs, 1 in one order under every setting measured, 2 "
        "reversed: FCDM-S is faster than DiT-S at (256 px, fp32, batch 4), slower at (512 px, fp32, batch 4)"
    ) in text
    assert "FCDM's order at 256 px (device not stated) against a device" in text
    table = columns(text, "## Ranks by speed")
    assert table["FCDM"] == ["2", "1", "2"]
    assert table["pairs against the baseline"][1:] == [
        "baseline",
        "1 kept, **2 reversed** (FCDM-S over DiT-S, DiC-S over DiT-S)",
    ]
    assert drawing.picture.name == "fairness_a-device"


def test_the_section_is_empty_without_two_comparable_families() -> None:
    assert section([throughput((0.1,))]) == ("", [])
