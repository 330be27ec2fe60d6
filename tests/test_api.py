"""The Python API: the same jobs as the commands, records and frames."""

import runpy
from pathlib import Path

import pytest

from bench import api
from bench.records.counts import MacCount
from bench.store import codec
from tests.records import examples

ROOT = Path(__file__).resolve().parents[1]


def test_counts_are_those_of_the_command(tmp_path: Path) -> None:
    out = tmp_path / "counts.jsonl"
    found = api.flops("FCDM-S", "tests.tiny:Tiny", res=[256, (512, 256)], out=out)
    sizes = [(record.case.label.partition(",")[0]) for record in found]
    assert sizes == [
        *("FCDM-S 256 px", "FCDM-S 512x256 px", "tests.tiny:Tiny 256 px", "tests.tiny:Tiny 512x256 px")
    ]
    first = found[0]
    assert isinstance(first, MacCount)
    assert round(first.macs / 1e9, 3) == 3.073
    assert api.load(str(tmp_path / "*.jsonl")) == found
    assert api.flops("FCDM-S", res=256, out=out) == found[:1]


def test_a_frame_has_the_columns_of_json() -> None:
    pandas = pytest.importorskip("pandas")
    frame = api.flops("DiT-S/8", res=256).to_pandas()
    assert isinstance(frame, pandas.DataFrame)
    assert frame.loc[0, ["kind", "model", "res", "status"]].tolist() == ["flops", "DiT-S/8", 256, "ok"]
    assert frame.loc[0, "flops"] == 2 * frame.loc[0, "macs"]


def test_every_kind_of_record_has_rows() -> None:
    records = [value for value in vars(examples).values() if isinstance(value, api.Record)]
    assert len({record.case.kind for record in records}) > 5
    assert all(api._rows(record) for record in records)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"res": 0}, "--res: must be"),
        ({"nonsense": 1}, "unrecognized arguments: --nonsense"),
        ({"model_args": {"depth": 1}}, "--model-args: apply to models of your own"),
        ({"out": "counts.csv"}, "out: must end in .jsonl"),
        ({"out": "a\0b.jsonl"}, "cannot be written: embedded null byte"),
        ({"model": "DiT-S/2"}, "flops: takes no model; models are given without"),
        ({"help": True}, "flops: takes no help"),
    ],
)
def test_what_a_command_refuses_is_a_value_error(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        api.flops("FCDM-S", **options)  # type: ignore[arg-type] # wrong on purpose


def test_files_are_loaded_by_any_name_or_refused(tmp_path: Path) -> None:
    path = tmp_path / "a[1].jsonl"
    path.write_text(codec.to_line(examples.COUNT))
    assert api.load(path) == [examples.COUNT]
    for other, message in ((tmp_path, "is a folder"), (tmp_path / "b*", "no such file")):
        with pytest.raises(ValueError, match=message):
            api.load(other)


def test_the_example_of_the_docs_runs(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("pandas")
    runpy.run_path(str(ROOT / "docs" / "api_example.py"))
    printed = capsys.readouterr().out
    assert "FCDM-S: 3.073 GMACs" in printed
    assert printed.count(" ok ") == 2
