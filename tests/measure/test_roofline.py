"""Floors: arithmetic by hand, peaks that are known or blank, what the command and the report make of them."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from baselines import load
from bench import operators, roofline
from bench.analysis import roofline as floors
from bench.analysis.roofline import Floor, Peaks
from bench.records.record import Ceiling, Environment, Part, Profiled, Record, Work, read, to_line
from bench.roofline import main
from models.registry import BACKBONES
from reports.__main__ import SECTIONS
from reports.figures.plots import COLOURS, new_figure
from reports.naming import sizes_of
from reports.sections import roofline as section
from tests.cli.test_cli import run
from tests.records.test_record import COUNTED, HERE, RUN, TIMED

GPU = replace(HERE, device="NVIDIA H200", device_type="cuda")


def part(kind: str, *, macs: int = 0, eager: int = 0, fused: int = 0) -> Part:
    return Part(
        kind=kind,
        op=kind,
        module="layer",
        phase="forward",
        calls=1,
        macs=macs,
        eager_bytes=eager,
        fused_bytes=fused,
    )


WORK = Work(
    model="FCDM-S",
    family="FCDM",
    res=256,
    latent_size=32,
    batch=4,
    precision="fp32",
    work="inference",
    parts=(
        part("linear", macs=5000, eager=300, fused=400),
        part("convolution", macs=500, eager=2000, fused=1000),
        part("norm", eager=1500),
    ),
    environment=replace(HERE, device="", device_type="meta"),
)
PEAKS = Peaks(
    device="a device",
    source="made up",
    measured=True,
    fp32=1000.0,
    tf32=4000.0,
    bf16=None,
    fp16=None,
    bytes_per_s=100.0,
)


def total(precision: str, form: str, peaks: Peaks = PEAKS) -> tuple[float, float]:
    floor = floors.floor(WORK, peaks, precision, form)
    assert floor is not None
    return floor.compute_s, floor.memory_s


def test_a_floor_is_the_longer_of_flops_and_bytes_of_every_operator_and_their_sum() -> None:
    # linear 10 s of FLOPs, 3 s of bytes; convolution 1 s, 20 s; norm 15 s of bytes
    assert total("fp32", "eager") == (10, 35)
    # linear 10 s, 4 s; convolution 1 s, 10 s
    assert total("fp32", "fused") == (10, 10)
    # linear 2.5 s, 4 s; convolution 0.25 s, 10 s
    assert total("tf32", "fused") == (0, 14)


def test_under_torch_default_only_convolutions_run_in_tf32() -> None:
    fast = replace(PEAKS, bytes_per_s=1e9)
    compute, memory = total("torch-default", "eager", fast)
    assert compute == pytest.approx(10 + 0.25)
    assert memory == pytest.approx(1500 / 1e9)


def test_a_floor_that_needs_an_unknown_peak_is_not_known() -> None:
    assert floors.floor(WORK, PEAKS, "bf16", "eager") is None
    assert floors.floor(WORK, replace(PEAKS, bytes_per_s=None), "fp32", "eager") is None
    assert floors.floor(WORK, replace(PEAKS, tf32=None), "torch-default", "eager") is None
    only_moved = replace(WORK, parts=(part("norm", eager=1500),))
    assert floors.floor(only_moved, PEAKS, "bf16", "eager") == Floor(compute_s=0, memory_s=15)


def test_the_share_of_arithmetic_is_of_the_time() -> None:
    assert Floor(compute_s=1, memory_s=3).compute_share == 0.25
    assert Floor(compute_s=0, memory_s=0).compute_share == 0


def test_intensity_counts_two_flops_a_mac() -> None:
    assert floors.intensity(WORK, "eager") == 11000 / 3800
    assert floors.intensity(WORK, "fused") == 11000 / 1400


def test_peaks_of_a_gpu_are_those_of_its_row_and_a_blank_stays_unknown() -> None:
    h200 = floors.of_gpu("h200 sxm5  141gb")
    assert (h200.device, h200.measured) == ("H200 SXM5 141GB", False)
    assert (h200.fp32, h200.tf32, h200.bf16) == pytest.approx((66.9e12, 494.7e12, 989.4e12))
    assert h200.bytes_per_s == 4.8e12
    row = load.gpus()["RTX 4090"]
    assert floors.of_gpu("RTX 4090").fp16 == row.fp16_dense_fp32acc_tflops * 1e12  # type: ignore[operator]
    assert row.source in floors.of_gpu("RTX 4090").source


@pytest.mark.parametrize(
    ("name", "gpu"),
    [
        ("NVIDIA H200", "H200 SXM5 141GB"),
        ("NVIDIA GeForce RTX 4090", "RTX 4090"),
        ("NVIDIA H100 80GB HBM3", "H100 SXM5 80GB"),
        ("NVIDIA H100 PCIe", "H100 PCIe 80GB"),
        ("NVIDIA A100-SXM4-40GB", "A100 SXM4 40GB"),
        ("NVIDIA L40S", "L40S"),
        ("NVIDIA A100", None),
        ("NVIDIA B200", None),
        ("AMD EPYC (2 threads)", None),
        ("", None),
    ],
)
def test_the_drivers_name_says_which_gpu_it_is_or_it_is_not_guessed(name: str, gpu: str | None) -> None:
    assert floors.gpu_named(name) == gpu


def ceiling(what: str, per_s: float, *, precision: str = "fp32", on: Environment = HERE) -> Ceiling:
    return Ceiling(what=what, precision=precision, size=8, work=100, times_s=(100 / per_s,), environment=on)


def test_the_faster_of_two_products_is_the_roof() -> None:
    records = [ceiling("matmul", 20), ceiling("convolution", 45), ceiling("copy", 5)]
    peaks = floors.measured_peaks(records, "a device")
    assert peaks is not None
    assert (peaks.fp32, peaks.bytes_per_s) == (45, 5)


def test_measured_peaks_are_the_highest_of_their_device_whenever_that_was() -> None:
    later = replace(HERE, date="2026-12-01T00:00:00Z")
    records: list[Record] = [
        ceiling("matmul", 20),
        ceiling("matmul", 10, on=later),
        ceiling("copy", 5),
        ceiling("matmul", 7, precision="bf16", on=GPU),
        TIMED,
    ]
    here = floors.measured_peaks(records, "a device")
    assert here is not None
    assert (here.fp32, here.bf16, here.tf32, here.bytes_per_s) == (20, None, None, 5)
    assert here.measured
    assert floors.measured_peaks(records, "another device") is None


def test_what_is_not_known_of_a_device_is_named() -> None:
    assert floors.unknown(PEAKS, ["fp32", "torch-default"]) == []
    assert floors.unknown(replace(PEAKS, bytes_per_s=None), ["bf16", "fp32"]) == ["bf16", "bandwidth"]


def test_the_fastest_measurement_of_the_same_pass_on_the_same_device_counts() -> None:
    faster = replace(TIMED, run=replace(RUN, compile=True), times_s=(0.25,))
    others = [
        replace(TIMED, run=replace(RUN, **changed), times_s=(0.1,))  # type: ignore[arg-type]
        for changed in (
            {"model": "DiT-S/2"},
            {"batch": 8},
            {"res": 512},
            {"precision": "bf16"},
            {"protocol": "dico"},
            {"question": "train_step"},
            {"environment": GPU},
            {"question": "train_step"},
            {"question": "scaling of training from batch 4, visit 1"},
        )
    ]
    records = [TIMED, faster, *others]
    assert floors.fastest(records, WORK, "fp32", "a device") is faster
    assert floors.fastest(records, WORK, "tf32", "a device") is None
    assert floors.fastest(records, replace(WORK, work="training"), "fp32", "a device") is None
    on_gpu = floors.fastest(records, WORK, "fp32", "H200 SXM5 141GB")
    assert on_gpu is not None
    assert on_gpu.run.environment.device == "NVIDIA H200"


def test_achieved_is_the_floor_as_a_share_of_the_measured_time() -> None:
    row = roofline.row(roofline.point(WORK, "fp32", PEAKS, [replace(TIMED, times_s=(60.0, 90.0, 100.0))]))
    assert row["eager_floor_s"] == 45
    assert row["eager_images_per_s"] == 4 / 45
    assert row["eager_achieved"] == 0.5
    assert row["fused_achieved"] == pytest.approx(20 / 90)
    assert row["measured_images_per_s"] == 4 / 90
    unknown = roofline.row(roofline.point(WORK, "bf16", PEAKS, [TIMED]))
    assert unknown["eager_floor_s"] is unknown["fused_achieved"] is unknown["measured_on"] is None


PROFILE = Profiled(
    run=replace(RUN, question="profile"),
    passes=3,
    seconds=(("convolution", 40.0), ("linear", 20.0), ("norm", 30.0), ("other", 10.0)),
    wall_s=100.0,
)


def test_parts_have_floors_that_add_up_to_that_of_the_pass() -> None:
    point = roofline.point(WORK, "fp32", PEAKS, [])
    *parts, whole = roofline.part_rows(point, "kind", None)
    # linear 10 s of FLOPs; convolution 20 s and norm 15 s of bytes; fused 10 and 10 s
    told = {row["part"]: (row["eager_floor_s"], row["fused_floor_s"]) for row in parts}
    assert told == {"convolution": (20, 10), "linear": (10, 10), "norm": (15, 0)}
    assert (whole["eager_floor_s"], whole["fused_floor_s"]) == (45, 20)
    assert [row["eager_compute_share"] for row in parts] == [0, 1, 0]
    assert sum(row["eager_floor_share"] for row in parts) == pytest.approx(1)
    assert {row["profiled_s"] for row in parts} == {None}
    blank = roofline.part_rows(roofline.point(WORK, "bf16", PEAKS, []), "op", None)
    assert [row["eager_floor_s"] for row in blank] == [None, 15, None, None]  # the norm needs no peak


def test_the_newest_profile_of_the_same_pass_stands_beside_the_kinds() -> None:
    older = replace(PROFILE, seconds=(("norm", 1.0),))
    later = replace(HERE, date="2026-12-01T00:00:00Z")
    newer = replace(PROFILE, run=replace(PROFILE.run, environment=later))
    others = [
        replace(newer, run=replace(newer.run, **changed), seconds=())  # type: ignore[arg-type]
        for changed in ({"batch": 8}, {"res": 512}, {"precision": "bf16"}, {"environment": GPU})
    ]
    assert floors.profile([newer, older, *others, TIMED], WORK, "fp32", "a device") is newer
    assert floors.profile([newer], replace(WORK, work="training"), "fp32", "a device") is None
    *parts, whole = roofline.part_rows(roofline.point(WORK, "fp32", PEAKS, []), "kind", PROFILE)
    told = {row["part"]: (row["profiled_s"], row["eager_achieved"]) for row in parts}
    assert told == {
        "convolution": (40, 0.5), "linear": (20, 0.5), "norm": (30, 0.5), "other": (10, 0),
    }  # fmt: skip
    assert (whole["profiled_s"], whole["eager_achieved"]) == (100, 0.45)
    of_modules = replace(PROFILE, run=replace(PROFILE.run, question="profile by module"))
    assert floors.profile([PROFILE], WORK, "fp32", "a device", "module") is None
    assert floors.profile([PROFILE, of_modules], WORK, "fp32", "a device", "module") is of_modules
    assert floors.profile([PROFILE, of_modules], WORK, "fp32", "a device", "op") is None


def test_a_disturbed_profile_says_so_beside_each_kind() -> None:
    seconds = (("linear", (20.0, 20.0, 32.0)), ("other", (10.0, 10.0, 10.0)))
    disturbed = replace(PROFILE, seconds=seconds, wall_s=(30.0, 30.0, 42.0))
    point = roofline.point(WORK, "fp32", PEAKS, [])
    rows = {row["part"]: row for row in roofline.part_rows(point, "kind", disturbed)}
    assert {tuple(row["noise"]) for row in rows.values()} == {("passes differ by 40 %",)}
    assert (rows["linear"]["profiled_s"], rows["linear"]["profiled_spread"]) == (20, 0.6)
    assert (rows["all"]["profiled_s"], rows["all"]["profiled_spread"]) == (30, 0.4)
    assert rows["norm"]["profiled_spread"] is None
    of_means = roofline.part_rows(point, "kind", PROFILE)
    assert {(row["profiled_spread"], tuple(row["noise"])) for row in of_means} == {(None, ())}


# the command


@pytest.fixture
def records(tmp_path: Path) -> Path:
    """Ceilings of this machine's CPU and a throughput on it."""
    from bench.machine import environment

    here = environment.gather("cpu", "")
    run_here = replace(RUN, model="FCDM-S", batch=2, environment=here)
    known: list[Record] = [
        ceiling("matmul", 1e12, on=here),
        ceiling("matmul", 4e12, precision="bf16", on=here),
        ceiling("copy", 1e11, on=here),
        replace(TIMED, run=run_here, times_s=(0.5,)),
    ]
    path = tmp_path / "known.jsonl"
    path.write_text("".join(map(to_line, known)))
    return path


def test_the_command_sets_floors_beside_a_measurement(
    records: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["--model", "FCDM-S", "--batch", "2", "--precision", "fp32", "bf16", "--records", str(records)]
    assert run(main, *asked, "--device-peaks", "here", "RTX 4090", "--format", "json") == 0
    printed = capsys.readouterr()
    rows = {(row["precision"], row["peaks"]): row for row in json.loads(printed.out)}
    assert len(rows) == 4
    here = rows["fp32", "measured"]
    assert here["eager_floor_s"] >= max(here["flops"] / 1e12, here["eager_bytes"] / 1e11)
    assert here["eager_floor_s"] >= here["fused_floor_s"] >= here["flops"] / 1e12
    assert here["eager_achieved"] == here["eager_floor_s"] / 0.5
    half = rows["bf16", "measured"]
    assert half["flops"] == here["flops"]
    assert half["eager_floor_s"] < here["eager_floor_s"]
    assert half["eager_achieved"] is None
    sold = rows["fp32", "as sold"]
    assert (sold["device"], sold["matmul_flops_per_s"], sold["bytes_per_s"]) == ("RTX 4090", 82.6e12, 1008e9)
    assert sold["measured_on"] is None
    assert "waredb.com" in sold["peaks_source"]
    assert "ceilings measured on it" in printed.err


@pytest.mark.parametrize("by", ["kind", "module", "op"])
def test_the_command_shows_the_floor_of_every_part(
    by: str, records: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["--model", "FCDM-S", "--batch", "2", "--records", str(records), "--device-peaks", "here", "L40S"]
    assert run(main, *asked, "--format", "json") == 0
    of_pass = {row["device"]: row["eager_floor_s"] for row in json.loads(capsys.readouterr().out)}
    assert run(main, *asked, "--by", by, "--format", "json") == 0
    rows = json.loads(capsys.readouterr().out)
    for device, seconds in of_pass.items():
        *parts, whole = (row for row in rows if row["device"] == device)
        assert whole["eager_floor_s"] == seconds
        assert sum(row["eager_floor_s"] for row in parts) == pytest.approx(seconds)
        assert len(parts) > 4


def test_without_a_measurement_of_the_pass_the_command_says_which_there_are(
    records: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["--model", "FCDM-S", "--records", str(records), "--device-peaks"]
    told = "nothing measured of these passes; of their models there are: 256 px, batch 2, fp32\n"
    assert run(main, *asked, "here", "--batch", "4") == 0
    assert told in capsys.readouterr().err
    assert run(main, *asked, "here", "--batch", "2") == 0
    assert "nothing measured" not in capsys.readouterr().err
    assert run(main, *asked, "L40S", "--batch", "4") == 0
    assert "nothing measured" not in capsys.readouterr().err


def test_tf32_moves_the_bytes_of_fp32_and_a_cpu_has_no_ceiling_for_it(
    records: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = tmp_path / "out.jsonl"
    asked = ["--model", "FCDM-S", "--batch", "2", "--records", str(records), "--out", str(store)]
    assert run(main, *asked, "--precision", "fp32", "tf32", "--device-peaks", "here", "--format", "json") == 0
    printed = capsys.readouterr()
    full, tensor = json.loads(printed.out)
    assert full["eager_bytes"] == tensor["eager_bytes"]
    assert full["eager_floor_s"] is not None
    assert tensor["eager_floor_s"] is None
    assert "not known, and its floors blank: tf32" in printed.err
    assert len(store.read_text().splitlines()) == 1  # one trace for both


def test_ceilings_that_no_record_has_are_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from bench import ceilings

    def measured(case: ceilings.CeilingCase) -> Ceiling:
        rate = 1e11 if case.what == "copy" else 1e12
        return replace(case.blank, size=8, work=100, times_s=(100 / rate,))

    monkeypatch.setattr(ceilings, "result_of", measured)
    empty, store = tmp_path / "empty.jsonl", tmp_path / "out.jsonl"
    empty.write_text("")
    asked = ["--model", "DiT-S/2", "--records", str(empty), "--device-peaks", "here", "--out", str(store)]
    assert run(main, *asked, "--format", "json") == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert (row["matmul_flops_per_s"], row["bytes_per_s"]) == (1e12, 1e11)
    kinds = [json.loads(line)["kind"] for line in store.read_text().splitlines()]
    assert kinds == ["ceiling", "ceiling", "ceiling", "work"]


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (["--model", "FDCM-XL"], "did you mean FCDM-XL"),
        (["--device-peaks", "H20"], "--device-peaks H20: no such GPU; did you mean H200 SXM5 141GB?"),
        (["--device-peaks", "A100"], "may be several GPUs: A100 SXM4 40GB or A100 SXM4 80GB; say which"),
        (["--records", "absent.jsonl"], "--records absent.jsonl: No such file"),
        (["--records", __file__], "line 1: not a record of this suite"),
        (["--precision", "int8"], "--precision: invalid choice: 'int8'"),
        (["--batch", "0"], "--batch: must be a whole number of at least 1"),
        (["--model", "FCDM-S", "--weights", __file__], "change no floor; leave it out"),
    ],
)
def test_bad_input_is_one_line(args: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(main, *args) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert told in printed.err
    assert printed.err.count("\n") == 1


# the report


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures of the devices at hand alone, for tests of what is the same on all."""
    monkeypatch.setattr(section, "GPUS", ())


def records_of_a_report(*precisions: str) -> list[Record]:
    names = ("FCDM-S", "DiT-S/2")
    works = [replace(WORK, model=name, precision=p) for name in names for p in precisions]
    profiled = Profiled(
        run=replace(RUN, question="profile"),
        passes=3,
        seconds=(("linear", 0.3), ("norm", 0.1), ("other", 0.1)),
        wall_s=0.5,
    )
    rates = {"fp32": 1000, "bf16": 3000}
    ceilings = [ceiling("matmul", rates[p], precision=p) for p in precisions] + [ceiling("copy", 100)]
    return [*works, profiled, *ceilings, replace(TIMED, times_s=(90.0,))]


@pytest.mark.usefixtures("blank_figures")
def test_the_section_shows_floors_shares_what_was_achieved_and_a_roofline_of_each_device() -> None:
    assert "roofline" in SECTIONS
    text, drawings = section.section(records_of_a_report("fp32", "bf16"))
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines()]
    (mine,) = [row for row in cells if row[:6] == ["a device", "measured", "FCDM-S", "256", "4", "fp32"]]
    assert "50.0 %" in mine  # 45 s of eager floor in 90 s
    assert "22.2 %" in mine
    assert "H200 SXM5 141GB" in text
    linear = f"{100 * 5000 / 5500:.1f} / {100 * 300 / 3800:.1f} / 60.0"
    assert linear in text
    of_kinds = text.partition("### Kinds of operators beside their floors")[2]
    assert "10000.00 / 300.00 (3333 %) | 15000.00 / 100.00 (15000 %)" in " ".join(of_kinds.split())
    names = [drawing.picture.name for drawing in drawings]
    assert names[0] == "roofline_a-device-256-px-4"
    assert "operators_256-px-4-fp32" in names
    drawn = {d.picture.title.partition(",")[0] for d in drawings if d.picture.name.startswith("roofline")}
    listed = {row[0] for row in cells if row[2:5] == ["FCDM-S", "256", "4"]}
    assert drawn == {f"Roofline: {device}" for device in listed}
    assert listed == {"a device", *section.GPUS}
    assert all(f"{name}.png" in text for name in names)
    titles = {drawing.picture.name: drawing.picture.title for drawing in drawings}
    assert "the time on a device" in titles["operators_256-px-4-fp32"]


@pytest.mark.usefixtures("no_gpu")
def test_the_section_is_the_same_bytes_whatever_the_order_of_the_records() -> None:
    records = records_of_a_report("fp32")
    once, again = section.section(records), section.section(records[::-1])
    assert once[0] == again[0]
    assert [(d.png, d.svg) for d in once[1]] == [(d.png, d.svg) for d in again[1]]


@pytest.mark.usefixtures("no_gpu", "blank_figures")
def test_times_that_stand_side_by_side_are_of_one_device() -> None:
    elsewhere = replace(HERE, device="another device", date="2027-01-01T00:00:00Z")
    dit = replace(PROFILE, run=replace(PROFILE.run, model="DiT-S/2"))
    newer = replace(PROFILE, run=replace(PROFILE.run, environment=elsewhere))
    # no ceilings: a roofline has no profiles in it
    known = [record for record in records_of_a_report("fp32") if isinstance(record, Work | Profiled)]
    text, _ = section.section([*known, dit, newer])
    assert "another device" not in text
    text, _ = section.section([*known, newer])
    assert "profiled" in text
    assert "time on another device" in text


@pytest.mark.usefixtures("no_gpu")
def test_a_disturbed_profile_says_so_wherever_its_shares_stand() -> None:
    seconds = (("linear", (0.3, 0.3, 0.5)), ("other", (0.1, 0.1, 0.1)))
    disturbed = replace(PROFILE, seconds=seconds, wall_s=(0.4, 0.4, 0.6))
    calm = replace(PROFILE, run=replace(PROFILE.run, model="DiT-S/2"))
    known = [record for record in records_of_a_report("fp32") if not isinstance(record, Profiled)]
    text, drawings = section.section([*known, disturbed, calm])
    (bars,) = (d for d in drawings if d.picture.name == "operators_256-px-4-fp32")
    assert "not to be relied on: FCDM-S (passes differ by 50 %)." in bars.picture.caption
    assert b"disturbed" in bars.svg
    for heading in ("### Operators", "### Kinds of operators beside their floors"):
        lines = text.partition(heading)[2].partition("###")[0].splitlines()
        told = {line.split("|")[1].strip(): line for line in lines if line.startswith("|") and "256" in line}
        assert "median of 3 passes, spread 50 %; DISTURBED: passes differ by 50 %" in told["FCDM-S"]
        assert "mean of 3 passes, whose spread was not kept" in told["DiT-S/2"]
        assert "DISTURBED" not in told["DiT-S/2"]


def test_without_the_work_of_a_pass_there_is_no_section() -> None:
    assert section.section([TIMED, ceiling("matmul", 1)]) == ("", [])
    assert section.section([replace(WORK, work="training")]) == ("", [])


@pytest.mark.usefixtures("no_gpu")
def test_a_table_is_cut_the_measured_first_and_the_roofline_has_the_whole_zoo() -> None:
    names = [f"Model-{i}" for i in range(14)]
    works = [replace(WORK, model=name) for name in names]
    timed = replace(TIMED, run=replace(RUN, model="Model-13"), times_s=(90.0,))
    text, drawings = section.section([*works, timed, ceiling("matmul", 1000), ceiling("copy", 100)])
    svg = drawings[0].svg.decode()
    assert "<!-- fp32, eager: 14 models; " in svg
    assert all(f"<!-- {name} -->" in svg for name in names)  # in the legend: too many for names in panels
    assert "Left out" not in drawings[0].picture.caption
    on_device = [line for line in text.splitlines() if line.startswith("| a device") and "Model-" in line]
    assert len(on_device) == section.MOST
    assert sum("Model-13" in line for line in on_device) == 1


@pytest.mark.usefixtures("blank_figures")
def test_a_roofline_says_which_models_it_or_a_panel_of_it_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(section, "GPUS", ("H200 SXM5 141GB",))
    works = [replace(WORK, model=name) for name in ("FCDM-S", "FCDM-B", "DiT-S/2")]
    half = replace(WORK, precision="bf16")
    elsewhere = [replace(WORK, model=f"DiCo-{letter}", batch=1) for letter in ("S", "B")]
    known = [*works, half, *elsewhere, replace(COUNTED, model="DiC-S")]
    _, drawings = section.section(known)
    told = drawings[0].picture.caption.partition("Left out, until bench.operators counts them: ")[2]
    assert told.startswith(
        "at bf16 FCDM-B, DiT-S/2, whose bytes are counted at another precision only; "
        "DiCo-S, DiCo-B, DiC-S, whose bytes are not counted at 256 px, batch 4. "
    )
    many = [replace(COUNTED, model=f"SiT-{letter}/{n}") for letter in "SBL" for n in (2, 4, 8)]
    points = section.every_point(PEAKS, works)
    assert "9 models of SiT, whose bytes are not counted" in section._left_out(points, [*works, *many])
    assert section._left_out(points, works) == ""


def test_a_model_whose_bytes_are_counted_is_left_out_of_a_roofline_for_want_of_a_peak() -> None:
    half = replace(WORK, model="DiT-S/2", precision="bf16")
    training, larger = (
        replace(half, model="DiC-S", **other) for other in ({"work": "training"}, {"batch": 8})
    )
    points = section.every_point(PEAKS, [WORK, half])
    assert {point.work.model for point in points} == {"FCDM-S"}
    told = "Left out, though their bytes are counted: DiT-S/2 (no peak for bf16). "
    assert section._left_out(points, [WORK, half]) == told
    uncounted = "Left out, until bench.operators counts them: DiC-S, whose bytes are not counted at "
    assert section._left_out(points, [WORK, half, training, larger]) == f"{uncounted}256 px, batch 4. {told}"


def test_no_two_families_of_the_zoo_look_the_same_in_a_roofline() -> None:
    families = dict.fromkeys(map(sizes_of, BACKBONES))
    looks = section._looks(families)
    assert len(set(looks.values())) == len(looks) == len(families) > section.NAMED
    assert {looks[name][0] for name in ("DiT-*/2", "DiT-*/4", "DiT-*/8")} == {COLOURS["DiT"]}


def test_the_axes_of_a_roofline_are_those_of_its_points() -> None:
    (point,) = (p for p in section.every_point(PEAKS, [WORK]) if p.precision == "fp32")
    figure = new_figure(4.0, 4.0)
    panel = section._Panel(
        axes=figure.add_subplot(), form="fused", under=[point], looks={"FCDM-*": ("black", "o")}
    )
    panel.draw()
    low, high = panel.axes.get_ylim()
    reached, roof = 11000 / 20, 1000  # FLOPs over the fused floor of 20 s, and the peak
    assert 0.8 * reached < low < reached
    assert roof < high < 1.2 * roof


@pytest.mark.usefixtures("blank_figures")
def test_the_work_of_the_command_is_what_the_report_reads(tmp_path: Path) -> None:
    store = tmp_path / "a.jsonl"
    assert (
        run(operators.main, "--model", "FCDM-S", "--batch", "4", "--out", str(store), "--format", "csv") == 0
    )
    text, drawings = section.section(read(store))
    assert "FCDM-S" in text
    assert [drawing.picture.name for drawing in drawings] == [
        "roofline_rtx-4090-256-px-4",
        "roofline_a100-sxm4-80gb-256-px-4",
        "roofline_h200-sxm5-141gb-256-px-4",
        "operators_256-px-4-fp32",
    ]
    assert "time" not in drawings[-1].picture.title
