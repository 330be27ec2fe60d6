"""Records: round trip through a line, and refusal of lines that are no records."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bench.records.base import ModelCase, Record, StoreError
from bench.records.profile import Profile
from bench.records.quality import Quality
from bench.records.throughput import Throughput
from bench.store import codec
from bench.tables.numbers import giga, mega
from tests.records.examples import (
    CASE,
    CEILING,
    COMPARISON,
    COUNT,
    GOLDEN,
    NOTE,
    PROFILE,
    QUALITY,
    RECORDS,
    SAMPLING,
    SKIPPED,
    TELEMETRY,
    THROUGHPUT,
)


@pytest.mark.parametrize("record", [*RECORDS, NOTE], ids=lambda record: type(record).__name__)
def test_record_round_trips_through_its_line(record: Record) -> None:
    line = codec.to_line(record)
    assert line.startswith('{"format": 3, "kind": ')
    assert line.count("\n") == 1
    assert codec.from_dict(json.loads(line)) == record


def test_every_kind_of_record_has_an_example() -> None:
    assert {type(record) for record in RECORDS} >= set(codec.kinds().values())


def test_cases_round_trip_with_their_kind() -> None:
    for record in RECORDS:
        data = json.loads(json.dumps(codec.encode_case(record.case)))
        assert codec.decode_case(data) == record.case


def test_images_per_second_follow_from_the_samples() -> None:
    assert THROUGHPUT.images_per_s == 4 / 0.5
    assert THROUGHPUT.images_per_s_interval == (4 / 0.6, 4 / 0.4)
    assert replace(THROUGHPUT, times_s=(0.5,)).images_per_s_interval is None
    assert COUNT.flops == 200


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "rumour"}, "kind 'rumour'; known are"),
        ({"kind": ["flops"]}, "kind \\['flops'\\]; known are"),
        ({"format": 99}, "format 99; this version reads 3"),
        ({"macs": "many"}, "Expected `int`, got `str` - at `\\$.macs`"),
        ({"macs": True}, "Expected `int`, got `bool`"),
        ({"macs": -1}, "counts cannot be negative"),
        ({"extra": 1}, "unknown field `extra`"),
        ({"environment": 3}, "Expected `object`, got `int` - at `\\$.environment`"),
    ],
)
def test_a_line_that_is_no_record_is_named_by_number(
    change: dict[str, object], message: str, tmp_path: Path
) -> None:
    path = tmp_path / "records.jsonl"
    path.write_text(codec.to_line(COUNT) + json.dumps({**codec.to_dict(COUNT), **change}) + "\n")
    with pytest.raises(StoreError, match=f"records.jsonl, line 2: not a record of this suite: .*{message}"):
        codec.read(path)


def test_a_size_of_three_numbers_is_refused() -> None:
    data = json.loads(codec.to_line(COUNT))
    data["case"]["res"] = [1, 2, 3]
    with pytest.raises(StoreError, match=r"Expected `array` of length <= 2 - at `\$.case.res`"):
        codec.from_dict(data)


@pytest.mark.parametrize("line", ["{", "[]", "null", "3"])
def test_a_line_that_is_no_object_is_refused(line: str, tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    path.write_text(f"{line}\n")
    with pytest.raises(StoreError, match="line 1: not a record"):
        codec.read(path)


def test_impossible_measurements_are_refused() -> None:
    for times_s in ((), (0.0,), (5e-324,), (1e308,)):
        with pytest.raises(ValueError, match="all from 1e-12 to 1e9 s"):
            replace(THROUGHPUT, times_s=times_s)
    device = replace(THROUGHPUT, environment=replace(THROUGHPUT.environment, device="\ud800"))
    with pytest.raises(StoreError, match="expected Unicode text"):
        codec.from_dict(json.loads(codec.to_line(device)))
    with pytest.raises(ValueError, match="batch: must be at least 1"):
        replace(CASE, batch=0)
    with pytest.raises(ValueError, match="note: needs a text"):
        replace(NOTE, text=" ")


def test_energy_is_shared_among_the_images_of_its_window() -> None:
    assert replace(SAMPLING, telemetry=TELEMETRY).joules_per_image == 1200 / (3 * SAMPLING.case.batch)
    blind = replace(TELEMETRY, energy_j=None)
    assert replace(SAMPLING, telemetry=blind).joules_per_image is None


def test_images_per_second_of_chains_are_of_the_median() -> None:
    assert SAMPLING.images_per_s == 4 / 3.0
    assert SAMPLING.images_per_s_interval is None
    with pytest.raises(ValueError, match="needs at least one time"):
        replace(SAMPLING, times_s=())


@pytest.mark.parametrize(
    "change", [{"kid": (0.1, math.nan, 0.3)}, {"frechet": math.inf}, {"recall": math.nan}]
)
def test_a_distance_that_is_not_finite_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"quality of samples\.npz .*: needs finite distances"):
        replace(QUALITY, **change)


def test_subsets_of_one_image_give_no_kid() -> None:
    one = replace(QUALITY, case=replace(QUALITY.case, kid_subset=1), kid=(math.nan, math.inf))
    assert not one.has_kid


def test_shares_of_a_profile_are_of_median_passes() -> None:
    assert PROFILE.medians == {"depthwise": 0.1, "other": 0.2}
    assert PROFILE.whole_s == pytest.approx((0.4, 0.3, 0.33))
    assert PROFILE.spread == pytest.approx(0.1 / 0.33)
    assert PROFILE.noise == ("passes differ by 30 %",)
    calm = replace(PROFILE, seconds=(("depthwise", (0.1, 0.1, 0.11)), ("other", (0.2, 0.2, 0.2))))
    assert calm.noise == ()
    with pytest.raises(ValueError, match="2 passes cannot have 3 samples"):
        replace(PROFILE, wall_s=(0.4, 0.3))


def test_operators_that_exceed_their_pass_are_noise() -> None:
    over = replace(PROFILE, seconds=(("linear", (0.4, 0.4, 0.4)), ("other", (-0.1, -0.1, -0.1))))
    assert over.noise == ("operators sum to 33 % more than the pass",)
    assert over.medians == {"linear": 0.4, "other": 0.0}
    rounded = replace(over, seconds=(("linear", (0.4, 0.4, 0.4)), ("other", (-0.001, -0.001, -0.001))))
    assert rounded.noise == ()


def test_quality_is_identified_by_what_was_compared() -> None:
    def key(record: Quality, **changes: object) -> str:
        return codec.key(replace(record.case, **changes), record.environment)

    assert key(QUALITY, made="by bench.sample") == key(QUALITY)
    assert key(QUALITY, n_samples=49) != key(QUALITY)
    assert key(QUALITY, kid_subsets=50) != key(QUALITY)
    assert QUALITY.kid_mean == pytest.approx(0.1)


def test_a_golden_is_reproduced_within_all_tolerances() -> None:
    assert GOLDEN.verdict == "reproduced"
    assert replace(GOLDEN, recompilations=0).verdict == "reproduced"
    assert replace(GOLDEN, recompilations=1).verdict == "recompiled"
    far = replace(GOLDEN.deviations[1], error=3.1e-5)
    both = replace(GOLDEN, deviations=(GOLDEN.deviations[0], far), recompilations=1)
    assert both.verdict == "not reproduced"
    with pytest.raises(ValueError, match="out: needs an error of at least 0"):
        replace(GOLDEN.deviations[0], error=float("nan"))


# format 2


def as_format_2(data: dict[str, Any]) -> dict[str, Any]:
    for case in (data["case"], *data["case"].get("arms", ())):
        if case.pop("impl", None):
            case["compile"] = case.pop("engine") == "compile"
    return {**data, "format": 2}


@pytest.mark.parametrize("record", [THROUGHPUT, COMPARISON, CEILING, SKIPPED])
@pytest.mark.parametrize("engine", ["eager", "compile"])
def test_a_record_of_format_2_has_the_reference(record: Record, engine: str) -> None:
    if isinstance(record.case, ModelCase):
        record = replace(record, case=replace(record.case, engine=engine))
    older = as_format_2(json.loads(codec.to_line(record)))
    assert "impl" not in json.dumps(older["case"])
    assert codec.from_dict(older) == record


# format 1


ENVIRONMENT_1 = {
    "device": "a device",
    "device_type": "cpu",
    "driver": "",
    "cuda": "",
    "torch": "2.13.0",
    "python": "3.11.7",
    "platform": "Linux x86_64",
    "threads": 2,
    "commit": "abc",
    "code": "0123",
    "date": "2026-11-21T00:00:00Z",
}
RUN_1 = {
    "question": "throughput",
    "model": "FCDM-S",
    "family": "FCDM",
    "res": 256,
    "latent_size": 32,
    "batch": 4,
    "precision": "fp32",
    "budget_s": 30.0,
    "precision_target": 0.01,
    "environment": ENVIRONMENT_1,
}


def old(kind: str, question: str = "throughput", **body: object) -> dict[str, object]:
    return {"kind": kind, "schema": 1, "run": {**RUN_1, "question": question}, **body}


HEAD = ("format", "kind", "case", "environment")


def body_of(record: Record) -> dict[str, object]:
    data = json.loads(codec.to_line(record))
    return {name: value for name, value in data.items() if name not in HEAD}


def test_a_throughput_of_format_1_is_read() -> None:
    assert codec.from_dict(old("throughput", **body_of(THROUGHPUT))) == THROUGHPUT
    latency = codec.from_dict(old("throughput", "latency", **body_of(THROUGHPUT)))
    assert latency == THROUGHPUT
    step = codec.from_dict(old("throughput", "train_step", **body_of(THROUGHPUT)))
    assert isinstance(step, Throughput)
    assert step.case.work == "training"


@pytest.mark.parametrize(
    ("question", "kind"),
    [
        ("scaling of training from batch 8, visit 2", "scaling"),
        ("memory of training within 1024 bytes", "memory"),
        ("profile by module", "profile"),
        ("golden", "golden"),
        ("sample: 8 by ddim of iddpm in 50 steps, seed 0, guidance 1.5 of 3 channels, classes 1 2", "sample"),
        ("depthwise: conv, 7x7, 128 channels, 32x64", "depthwise"),
    ],
)
def test_a_failure_of_format_1_keeps_its_case(question: str, kind: str) -> None:
    failed = codec.from_dict(old("skipped", question, status="crashed", reason="SIGSEGV"))
    assert isinstance(failed, Record)
    assert (failed.case.kind, failed.is_skipped) == (kind, True)
    assert codec.from_dict(json.loads(codec.to_line(failed))) == failed


def test_a_profile_of_means_is_read_as_one_pass() -> None:
    means = {"passes": 3, "seconds": [["depthwise", 0.1], ["other", 0.2]], "wall_s": 0.35}
    mean = codec.from_dict(old("profiled", "profile", **means))
    assert isinstance(mean, Profile)
    assert (mean.passes, mean.spread, mean.noise) == (1, None, ())
    assert (mean.medians, mean.median_wall_s) == ({"depthwise": 0.1, "other": 0.2}, 0.35)


def test_a_failed_memory_of_format_1_is_skipped() -> None:
    failure = {"status": "error", "reason": "no", "use": None, "work": "inference", "checkpointing": False}
    failed = codec.from_dict(
        old("memory", "memory of inference", predicted=True, limit_bytes=None, **failure)
    )
    assert isinstance(failed, Record)
    assert failed.is_skipped


def test_an_unknown_question_of_format_1_is_refused() -> None:
    with pytest.raises(StoreError, match="not a record of format 1: ValueError question 'rumour'"):
        codec.from_dict(old("throughput", "rumour", **body_of(THROUGHPUT)))


def test_small_counts_keep_four_digits() -> None:
    assert [giga(value) for value in (64_586e6, 294_912.0, 0.0, None)] == [
        "64.586",
        "0.0002949",
        "0.000",
        "-",
    ]
    assert [mega(value) for value in (698_812_928, 296)] == ["698.81", "0.000296"]
