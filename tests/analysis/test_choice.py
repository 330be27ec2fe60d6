"""Backbones kept, dropped and ranked; published FID; the command bench.choose."""

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from bench import choose
from bench.analysis.choice import choice, published_fid
from bench.analysis.choice.choice import Candidate, Figure, Limits
from bench.records.base import Record
from bench.store.codec import to_line
from tests.commands import run
from tests.records.examples import CASE, ENVIRONMENT, MEMORY, OPERATORS, THROUGHPUT

FREE = Limits(images_per_s=None, peak_bytes=20 * 2**30, fid=None)
H200 = replace(ENVIRONMENT, device="NVIDIA H200", device_type="cuda", unit="0a1b", driver="570", cuda="12.8")


def candidate(model: str, rate: float, spread: float = 0.0, gib: float = 4.0) -> Candidate:
    """A backbone with a predicted speed, within a factor of 1 + spread."""
    bounds = (rate / (1 + spread), rate * (1 + spread))
    return Candidate(
        model=model,
        images_per_s=Figure(value=rate, interval=bounds, status="predicted"),
        peak_bytes=Figure(value=gib * 2**30, interval=None, status="measured"),
        macs=rate,
    )


def test_kept_backbones_are_ranked_and_dropped_ones_say_why() -> None:
    given = [candidate("A", 30.0), candidate("B", 50.0), candidate("C", 10.0), candidate("D", 90.0, gib=30.0)]
    rows = choice.choose(given, replace(FREE, images_per_s=20.0), "images-per-s")
    assert [(row.candidate.model, row.rank) for row in rows] == [("B", 1), ("A", 2), ("C", None), ("D", None)]
    assert rows[2].remarks == ("predicted 10 [10, 10] images/s, below 20",)
    assert rows[3].remarks == ("measured 30.00 GiB, above 20.00 usable",)
    assert [row.candidate.model for row in choice.choose(given, FREE, "macs")] == ["C", "A", "B", "D"]


def test_an_interval_that_includes_a_limit_is_said() -> None:
    limits = replace(FREE, images_per_s=20.0)
    kept, dropped = choice.choose([candidate("A", 21.0, 0.5), candidate("B", 19.0, 0.5)], limits, "memory")
    assert kept.is_kept
    assert kept.remarks[0].endswith("at or above 20: cannot tell, the interval includes the limit")
    assert not dropped.is_kept
    assert dropped.remarks[0].endswith("below 20: cannot tell, the interval includes the limit")


def test_overlapping_intervals_are_undecided_until_compared() -> None:
    given = [candidate("A", 100.0, 0.2), candidate("B", 90.0, 0.2), candidate("C", 40.0, 0.1)]
    rows = choice.choose(given, FREE, "images-per-s")
    assert choice.undecided(rows, "images-per-s", ()) == [["A", "B"]]
    assert choice.undecided(rows, "images-per-s", [frozenset("AB")]) == []
    assert choice.undecided(rows, "macs", ()) == []


def test_an_unknown_figure_drops_a_backbone_with_its_reason() -> None:
    given = [Candidate(model="A", unknown="A: cannot be built"), Candidate(model="B")]
    rows = choice.choose(given, FREE, "images-per-s")
    assert [row.remarks for row in rows] == [
        ("A: cannot be built",),
        ("images-per-s unknown, so it has no rank",),
    ]


@pytest.mark.parametrize(
    ("model", "res", "kind", "printed", "conditions"),
    [
        ("FCDM-XL", 512, "best", "7.46", "FCDM Table 5, 1M steps [r17]"),
        ("FCDM-XL", 512, "400K", "10.23", "FCDM Table 5, 400K steps"),
        ("DiCo-XL", 512, "best", "7.48", "DiCo Table 2, 3M steps"),
        ("DiCo-XL", 512, "guided", "2.53", "DiCo Table 2, guided"),
        ("FCDM-XL", 256, "guided", "2.03", "FCDM Table 4, 400 epochs, guided"),
    ],
)
def test_published_fid_has_its_conditions(
    model: str, res: int, kind: str, printed: str, conditions: str
) -> None:
    fid = published_fid.lowest(model, res, kind)
    assert fid is not None
    assert (fid.as_printed, fid.conditions) == (printed, conditions)


def test_no_fid_is_made_up() -> None:
    assert published_fid.lowest("DiCo-XL", 512, "400K") is None
    assert published_fid.lowest("FCDM-XL", 384, "best") is None
    assert all(fid.value == float(fid.as_printed) for fid in published_fid.every())


# the command

SMALL = replace(CASE, device="cuda", model="FCDM-S", batch=4, precision="bf16")
TIMES_S = (2e-4, 4e-4, 8e-4, 1.6e-3, 3.2e-3, 6.4e-3)  # an interval that overlaps every prediction
MEASURED = replace(THROUGHPUT, case=SMALL, environment=H200, times_s=TIMES_S)


def costs(model: str) -> list[Record]:
    """Operator costs and predicted memory of a pass, so that nothing is counted."""
    fields = {"model": model, "family": model[:-2], "batch": 4, "precision": "bf16", "work": "inference"}
    fields |= {"res": 256, "latent_size": 32, "device": "meta"}
    memory = {**fields, "limit_bytes": None, "checkpointing": False}
    use = replace(MEMORY.use, reserved_bytes=None, process_bytes=None)
    part = replace(OPERATORS.parts[0], macs=10**10)
    return [
        replace(OPERATORS, case=replace(OPERATORS.case, **fields), parts=(part,)),
        replace(MEMORY, case=replace(MEMORY.case, **memory), use=use),
    ]


def test_each_figure_is_measured_predicted_or_published(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "known.jsonl"
    path.write_text("".join(map(to_line, [MEASURED, *costs("FCDM-S"), *costs("DiC-S")])))
    names = ("FCDM-S", "DiT-S/2", "DiC-S", "DiT-Ti/2")
    args = ("--gpu", "h200", "--batch", "4", "--model", *names, "--max-fid", "60", "--records", str(path))
    assert run(choose.main, *args) == 0
    out = capsys.readouterr().out
    head, rule, *rows = out.partition("\n\n")[0].splitlines()
    edges = [0, *(i for i, sign in enumerate(rule) if sign == " " and rule[i - 1] == "-"), len(rule)]
    cells = [[line[a:b].strip() for a, b in pairwise(edges)] for line in (head, *rows)]
    found = {row[1]: dict(zip(cells[0], row, strict=True)) for row in cells[1:]}
    assert found["FCDM-S"]["images/s, measured"] == "3,333"  # 4 images in 1.2 ms
    assert found["FCDM-S"]["images/s, predicted"] == "-"
    assert found["DiC-S"]["images/s, measured"] == "-"
    assert found["DiC-S"]["images/s, predicted"] != "-"
    assert found["FCDM-S"]["FID, published"] == "48.52"
    assert "published FID 68.40, above 60" in out
    assert "2 of 4 backbones kept on H200 SXM5 141GB (inference, 256 px, batch 4, bf16, eager)" in out
    assert "cannot tell " in out
    assert "not shown: 1 without a published FID of this kind" in out
    assert "DiT-Ti/2" not in found
    assert " --res 256 --batch 4 --precision bf16 --device cuda\n" in out


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("--gpu", "h300"), "--gpu h300: no such GPU"),
        (("--gpu", "a100"), "--gpu a100: may be several GPUs"),
        (("--gpu", "rtx5090", "--precision", "tf32"), "its tf32 peak is unknown"),
        ((), "the following arguments are required: --gpu"),
        (("--gpu", "h200", "--memory", "some"), "--memory: must be a size such as 24GB"),
        (("--gpu", "h200", "--memory", "1MB"), "must be a size above the reserve"),
        (("--gpu", "h200", "--max-fid", "nan"), "--max-fid: must be a number above zero, got 'nan'"),
        (("--gpu", "h200", "--model", "FCDM-Q"), "--model FCDM-Q: no such backbone"),
        (("--gpu", "h200", "--records", "missing.jsonl"), "--records: missing.jsonl: no such file"),
        (("--gpu", "h200", "--work", "training", "--precision", "fp16"), "--precision fp16"),
        (("--gpu", "h200", "--out", "choice.jsonl"), "a choice makes no records"),
    ],
)
def test_wrong_input_is_one_line(
    args: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bench.counting.work.count", None)
    assert run(choose.main, *args) == 2
    written = capsys.readouterr()
    assert (written.out, written.err.count("\n")) == ("", 1)
    assert message in written.err


@pytest.mark.parametrize("text", ['{"format": 99}\n', '{"format": 3, "kind"', "[]\n", "\x00\n"])
def test_files_of_no_records_are_one_line(
    text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "wrong.jsonl"
    path.write_text(text)
    assert run(choose.main, "--gpu", "h200", "--records", str(path)) == 2
    written = capsys.readouterr()
    assert (written.out, written.err.count("\n")) == ("", 1)
    assert f"--records {path}" in written.err
