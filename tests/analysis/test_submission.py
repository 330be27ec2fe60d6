"""Findings in submitted records, the command that prints them, and the JSON Schema."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import jsonschema
import pytest

from bench import check
from bench.analysis.submissions import submission
from bench.records.base import Record
from bench.records.golden import Golden
from bench.records.note import Note
from bench.store.codec import to_dict, to_line
from bench.store.schema import schema
from tests.commands import run
from tests.records import examples
from tests.records.examples import CASE, CEILING, ENVIRONMENT, THROUGHPUT

H200 = replace(ENVIRONMENT, device="NVIDIA H200", device_type="cuda", unit="0a1b", driver="570", cuda="12.8")
XL = replace(CASE, device="cuda", model="FCDM-XL", batch=64, precision="bf16")
TIMED = replace(THROUGHPUT, case=XL, environment=H200, times_s=(0.05, 0.051, 0.052))
OF_XL = replace(examples.OPERATORS.case, model="FCDM-XL", batch=64, precision="bf16")
GOLDEN: Golden = replace(
    examples.GOLDEN, case=replace(examples.GOLDEN.case, device="cuda"), environment=H200, recompilations=0
)


def found(*entries: Record | Note, known: Sequence[Record] = ()) -> list[str]:
    return submission.findings([("a.jsonl", "".join(map(to_line, entries)))], known)


def test_a_sound_submission_has_no_findings() -> None:
    assert GOLDEN.verdict == "reproduced"
    assert found(TIMED, GOLDEN) == []


@pytest.mark.parametrize(
    ("record", "finding"),
    [
        (
            replace(TIMED, times_s=(0.001, 0.05)),
            "floor: FCDM-XL 256 px, batch 64, bf16 took 1 ms, ",
        ),
        (replace(TIMED, times_s=(50.0, 51.0, 520.0, 500.0)), "a budget of 30 s: milliseconds?"),
        (replace(TIMED, device_times_s=(50.0, 51.0, 52.0)), "device_times_s exceed the wall clock"),
        (replace(TIMED, environment=replace(H200, unit="")), "device: blank: unit"),
        (replace(TIMED, environment=replace(H200, device_type="cpu")), "the case is of 'cuda'"),
        (replace(TIMED, environment=replace(H200, commit="abc+dirty")), "uncommitted changes"),
        (replace(TIMED, environment=replace(H200, date="yesterday")), "is not ISO 8601"),
        (replace(TIMED, environment=replace(H200, device="GPU X")), "floor: GPU X is not in baselines/gpus"),
        (replace(TIMED, case=replace(XL, model="../../x")), "text: model '../../x' is no name"),
        (replace(TIMED, environment=replace(H200, driver="5\x1b[31m")), "driver has control characters"),
        (
            replace(examples.COUNT, case=replace(examples.COUNT.case, res=256, latent_size=32), macs=3),
            "units: macs 3 an image",
        ),
    ],
)
def test_each_fault_is_a_line_that_names_it(record: Record, finding: str) -> None:
    lines = found(GOLDEN, record)
    assert any(line.startswith("a.jsonl:2: ") and finding in line for line in lines), lines
    assert all("\n" not in line and "\x1b" not in line for line in lines)


@pytest.mark.parametrize(
    ("model", "is_name"),
    [
        ("net.py:Net(depth=12)", True),
        ("/tmp/a dir/net.py:Net(act='a b',widths=(64,128))", True),
        ("my_pkg.my_mod:factory", True),
        ("diffusers:DiTTransformer2DModel(num_layers=2)", True),
        ("my/config.json", True),
        ("FCDM-L@na7", True),
        ("MPDiT-B/4x", True),
        ("DiT-XL/2(depth=12)", False),
        ("../../x:Net", False),
        ("net.py:Net(12)", False),
        ("net.py:Net(depth = 12)", False),
    ],
)
def test_users_models_with_arguments_have_names(model: str, is_name: bool) -> None:
    lines = found(replace(TIMED, case=replace(XL, model=model)), GOLDEN)
    assert any("is no name of a backbone" in line for line in lines) is not is_name


def test_names_in_comparisons_and_counts_are_checked() -> None:
    def named(model: str) -> list[str]:
        """Findings on the name in a comparison of two implementations of a model, and in its count."""
        case = examples.COMPARISON.case
        arms = tuple(replace(case.arms[0], model=model, impl=impl) for impl in ("reference", "fast"))
        comparison = replace(examples.COMPARISON, case=replace(case, arms=arms))
        count = replace(examples.COUNT, case=replace(examples.COUNT.case, model=model))
        return [line for line in found(comparison, count) if "is no name of a backbone" in line]

    assert named("net.py:Net(depth=12)") == []
    (line,) = named("../../x:Net")  # once a record; equal findings share a line
    assert line.startswith("a.jsonl:1: text: model '../../x:Net' ")
    assert line.endswith("(and 1 more line)")


def test_a_cpus_floor_is_that_of_its_ceilings() -> None:
    case = replace(CASE, model="DiT-XL/2")
    fast = replace(THROUGHPUT, case=case, times_s=(1e-3, 1e-3))
    ceiling = replace(CEILING, case=replace(CEILING.case, precision="fp32"))
    assert any("below the floor" in line for line in found(fast, ceiling))
    assert any("has no ceilings" in line for line in found(fast))
    assert any("below the floor" in line for line in found(fast, known=[ceiling]))


def test_a_convolution_may_take_the_time_of_winograds() -> None:
    part = replace(examples.OPERATORS.parts[0], kind="convolution", macs=10**14)  # 0.20 s at the H200's peak
    costs = replace(examples.OPERATORS, case=replace(OF_XL, work="inference"), parts=(part,))

    def below(seconds: float) -> bool:
        lines = found(replace(TIMED, times_s=(seconds, seconds)), GOLDEN, known=[costs])
        return any("below the floor" in line for line in lines)

    assert not below(0.05)
    assert below(0.04)


def test_goldens_are_of_the_same_device_and_commit() -> None:
    none = "a.jsonl:1: golden: none reproduced on NVIDIA H200 at commit abc; "
    assert found(TIMED)[0].startswith(none)
    assert found(TIMED, replace(GOLDEN, environment=replace(H200, commit="def")))[0].startswith(none)
    failed = replace(
        GOLDEN, deviations=tuple(replace(one, error=9 * one.tolerance) for one in GOLDEN.deviations)
    )
    lines = found(TIMED, failed)
    assert lines[0].startswith(none)
    assert lines[1] == f"a.jsonl:2: golden: {GOLDEN.case.model} {GOLDEN.case.precision}: not reproduced"


def test_duplicates_are_found_within_and_beside_the_suite() -> None:
    other = replace(TIMED, times_s=(0.06, 0.07))
    assert found(TIMED, GOLDEN, TIMED) == ["a.jsonl:3: duplicate: equal to a.jsonl:1"]
    assert found(TIMED, GOLDEN, other) == [
        "a.jsonl:3: duplicate: same case, device and second as a.jsonl:1, other numbers"
    ]
    assert found(TIMED, GOLDEN, known=[TIMED]) == [
        "a.jsonl:1: duplicate: baselines/measured has this record already"
    ]


def test_two_devices_in_one_file_are_a_finding() -> None:
    second = replace(TIMED, environment=replace(H200, unit="ffff"))
    assert (
        "a.jsonl: device: 2 devices in one file: NVIDIA H200 0a1b, NVIDIA H200 ffff"
        in found(TIMED, GOLDEN, second)[0]
    )


def test_notes_name_cases_and_devices_of_their_file() -> None:
    note = Note(text="x", about="versus *", devices=("a GPU",), author="", date="2026-01-01T00:00:00Z")
    assert found(TIMED, GOLDEN, note) == [
        "a.jsonl:3: note: its pattern 'versus *' names no case of the file",
        "a.jsonl:3: note: the file has no record of a GPU",
    ]
    assert found(TIMED, GOLDEN, replace(note, about="*FCDM-XL*", devices=("NVIDIA H200",))) == []


def test_lines_of_another_schema_are_one_finding() -> None:
    text = '{"format": 9, "kind": "throughput"}\n' * 3 + "[" * 100_000 + "\n" + "{torn"
    lines = submission.findings([("a.jsonl", text)], [])
    assert lines[0].startswith("a.jsonl:1: schema: format 9; ")
    assert lines[0].endswith("(and 2 more lines)")
    assert [line.partition(": ")[0] for line in lines] == ["a.jsonl:1", "a.jsonl:4", "a.jsonl:5"]
    assert "torn" in lines[2]
    assert submission.findings([("b.jsonl", "")], []) == ["b.jsonl: holds no records"]


# the command


def test_findings_end_with_exit_code_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(to_line(TIMED) + '{"format": 9}\n')
    assert run(check.main, str(path)) == 1
    assert len(capsys.readouterr().out.splitlines()) == 2
    path.write_text(to_line(TIMED) + to_line(GOLDEN))
    assert run(check.main, str(path)) == 0
    assert capsys.readouterr().out == ""


def test_unreadable_files_end_with_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "binary").write_bytes(b"\xff\xfe\n")
    for given in (
        [],
        ["missing.jsonl"],
        [str(tmp_path)],
        [str(tmp_path / "binary")],
        ["--schema", "a.jsonl"],
    ):
        assert run(check.main, *given) == 2
        written = capsys.readouterr()
        assert (written.out, written.err.count("\n")) == ("", 1)


# the schema

EXAMPLES = [one for one in vars(examples).values() if isinstance(one, Record | Note)]


@pytest.mark.parametrize("entry", EXAMPLES, ids=lambda one: to_dict(one)["kind"])
def test_every_kind_of_record_fits_the_schema(entry: Record | Note) -> None:
    VALIDATOR.validate(json.loads(to_line(entry)))


def test_the_schema_refuses_what_the_reader_refuses() -> None:
    line = to_dict(THROUGHPUT)
    for wrong in ({**line, "more": 1}, {**line, "kind": "unknown"}, {**line, "times_s": ["0.1"]}):
        assert not VALIDATOR.is_valid(json.loads(json.dumps(wrong)))


def test_the_command_prints_the_schema(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(check.main, "--schema") == 0
    printed = json.loads(capsys.readouterr().out)
    jsonschema.Draft202012Validator.check_schema(printed)
    assert printed == SCHEMA


SCHEMA = schema()
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)
