"""Floors: arithmetic by hand, known and unknown peaks, the command and the report's section."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from baselines import gpus
from bench.analysis.rooflines import floors, roofline
from bench.analysis.rooflines.floors import PartFloor, PassFloor
from bench.analysis.rooflines.roofline import Floor, Peaks
from bench.cli.settings import sized_fields
from bench.jobs import worker
from bench.machine import environment
from bench.measure import profiler
from bench.records.base import Environment, Record
from bench.records.ceiling import Ceiling, CeilingCase
from bench.records.operators import OperatorCase, OperatorCost, OperatorCosts
from bench.records.profile import Profile, ProfileCase
from bench.records.throughput import Throughput
from bench.roofline import jobs as jobs_of
from bench.roofline import main, parser
from bench.store.codec import read, to_line
from bench.tables.render import render
from models.registry import names
from reports.figures import roofline as figure
from reports.figures.plots import new_figure
from reports.naming import COLOURS, sizes_of
from reports.sections import roofline as section
from tests.commands import run
from tests.records.examples import CASE, COMPARISON, COUNT, ENVIRONMENT, MODEL, THROUGHPUT, VISIT

GPU = replace(ENVIRONMENT, device="NVIDIA H200", device_type="cuda")


def part(kind: str, *, macs: int = 0, eager: int = 0, fused: int = 0) -> OperatorCost:
    return OperatorCost(
        kind=kind,
        op=kind,
        module="layer",
        phase="forward",
        calls=1,
        macs=macs,
        eager_bytes=eager,
        fused_bytes=fused,
    )


COSTS = OperatorCosts(
    case=OperatorCase(**{**MODEL, "device": "meta"}, work="inference"),
    environment=replace(ENVIRONMENT, device="", device_type="meta"),
    parts=(
        part("linear", macs=5000, eager=300, fused=400),
        part("convolution", macs=500, eager=2000, fused=1000),
        part("norm", eager=1500),
    ),
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


def costs(**case: Any) -> OperatorCosts:  # noqa: ANN401 - fields of the case
    return replace(COSTS, case=replace(COSTS.case, **case))


def timed(*times_s: float, here: Environment = ENVIRONMENT, **case: Any) -> Throughput:  # noqa: ANN401
    return replace(THROUGHPUT, case=replace(CASE, **case), environment=here, times_s=times_s)


def rows(parts: list[PartFloor]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(render(floors.PARTS, parts, "json"))
    return found


def row(one: PassFloor) -> dict[str, Any]:
    (found,) = json.loads(render(floors.PASSES, [one], "json"))
    return dict(found)


def total(precision: str, form: str, peaks: Peaks = PEAKS) -> tuple[float, float]:
    floor = roofline.floor(COSTS, peaks, precision, form)
    assert floor is not None
    return floor.compute_s, floor.memory_s


def test_a_floor_sums_the_longer_of_flops_and_bytes() -> None:
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
    assert roofline.floor(COSTS, PEAKS, "bf16", "eager") is None
    assert roofline.floor(COSTS, replace(PEAKS, bytes_per_s=None), "fp32", "eager") is None
    assert roofline.floor(COSTS, replace(PEAKS, tf32=None), "torch-default", "eager") is None
    only_moved = replace(COSTS, parts=(part("norm", eager=1500),))
    assert roofline.floor(only_moved, PEAKS, "bf16", "eager") == Floor(compute_s=0, memory_s=15)


def test_the_share_of_arithmetic_is_of_the_time() -> None:
    assert Floor(compute_s=1, memory_s=3).compute_share == 0.25
    assert Floor(compute_s=0, memory_s=0).compute_share == 0


def test_intensity_counts_two_flops_a_mac() -> None:
    one = PassFloor(costs=COSTS, precision="fp32", peaks=PEAKS)
    assert one.intensity("eager") == 11000 / 3800
    assert one.intensity("fused") == 11000 / 1400


def test_peaks_of_a_gpu_are_those_of_its_row() -> None:
    h200 = roofline.of_gpu("h200 sxm5  141gb")
    assert (h200.device, h200.measured) == ("H200 SXM5 141GB", False)
    assert (h200.fp32, h200.tf32, h200.bf16) == pytest.approx((66.9e12, 494.7e12, 989.4e12))
    assert h200.bytes_per_s == 4.8e12
    known = gpus.gpus()["RTX 4090"]
    assert roofline.of_gpu("RTX 4090").fp16 == known.fp16_dense_fp32acc_tflops * 1e12  # type: ignore[operator]
    assert known.source.partition(" ; ")[0] in roofline.of_gpu("RTX 4090").source


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
        ("NVIDIA B200", "B200 SXM 180GB"),
        ("AMD EPYC (2 threads)", None),
        ("", None),
    ],
)
def test_gpu_is_identified_by_its_driver_name(name: str, gpu: str | None) -> None:
    assert roofline.gpu_named(name) == gpu


def ceiling(what: str, per_s: float, *, precision: str = "fp32", here: Environment = ENVIRONMENT) -> Ceiling:
    case = CeilingCase(device=here.device_type, what=what, precision=precision)
    return Ceiling(case=case, environment=here, size=8, work=100, times_s=(100 / per_s,))


def test_the_faster_of_two_products_is_the_roof() -> None:
    records = [ceiling("matmul", 20), ceiling("convolution", 45), ceiling("copy", 5)]
    peaks = roofline.measured_peaks(records, "a device")
    assert peaks is not None
    assert (peaks.fp32, peaks.bytes_per_s) == (45, 5)


def test_measured_peaks_are_the_highest_of_their_device() -> None:
    later = replace(ENVIRONMENT, date="2026-12-01T00:00:00Z")
    records: list[Record] = [
        ceiling("matmul", 20),
        ceiling("matmul", 10, here=later),
        ceiling("copy", 5),
        ceiling("matmul", 7, precision="bf16", here=GPU),
        THROUGHPUT,
    ]
    here = roofline.measured_peaks(records, "a device")
    assert here is not None
    assert (here.fp32, here.bf16, here.tf32, here.bytes_per_s) == (20, None, None, 5)
    assert here.measured
    assert roofline.measured_peaks(records, "another device") is None


def test_unknown_peaks_of_a_device_are_named() -> None:
    assert roofline.unknown(PEAKS, ["fp32", "torch-default"]) == []
    assert roofline.unknown(replace(PEAKS, bytes_per_s=None), ["bf16", "fp32"]) == ["bf16", "bandwidth"]


def test_the_fastest_measurement_of_the_same_pass_counts() -> None:
    faster = timed(0.25, engine="compile")
    others = [
        timed(0.1, **changed)
        for changed in (
            {"model": "DiT-S/2"},
            {"batch": 8},
            {"res": 512},
            {"precision": "bf16"},
            {"protocol": "dico"},
            {"work": "training"},
            {"here": GPU},
        )
    ]
    step = replace(VISIT, case=replace(VISIT.case, work="training"), times_s=(0.1,))
    records = roofline.inference_passes([THROUGHPUT, faster, *others, step])
    assert roofline.fastest(records, COSTS, "fp32", "a device") is faster
    assert roofline.fastest(records, COSTS, "tf32", "a device") is None
    assert roofline.fastest(records, costs(work="training"), "fp32", "a device") is None
    gpu = roofline.fastest(records, COSTS, "fp32", "H200 SXM5 141GB")
    assert gpu is not None
    assert gpu.environment.device == "NVIDIA H200"
    visit = replace(VISIT, times_s=(0.2,))
    assert roofline.fastest([*records, visit], COSTS, "fp32", "a device") is visit
    rounds = replace(COMPARISON, environment=THROUGHPUT.environment)
    (interleaved, _) = roofline.inference_passes([rounds])
    assert roofline.fastest([*records, interleaved], COSTS, "fp32", "a device") is interleaved


def test_achieved_is_the_floor_as_a_share_of_the_measured_time() -> None:
    found = row(floors.pass_floor(COSTS, "fp32", PEAKS, [timed(60.0, 90.0, 100.0)]))
    assert found["eager_floor_s"] == 45
    assert found["eager_images_per_s"] == 4 / 45
    assert found["eager_achieved"] == 0.5
    assert found["fused_achieved"] == pytest.approx(20 / 90)
    assert found["measured_images_per_s"] == 4 / 90
    unknown = row(floors.pass_floor(COSTS, "bf16", PEAKS, [THROUGHPUT]))
    assert unknown["eager_floor_s"] is unknown["fused_achieved"] is unknown["measured_on"] is None


PROFILE = Profile(
    case=ProfileCase(**MODEL, by="kind"),
    environment=ENVIRONMENT,
    seconds=(("convolution", (40.0,)), ("linear", (20.0,)), ("norm", (30.0,)), ("other", (10.0,))),
    wall_s=(100.0,),
)
PASS_FLOOR = PassFloor(costs=COSTS, precision="fp32", peaks=PEAKS)


def test_parts_have_floors_that_add_up_to_that_of_the_pass() -> None:
    *parts, whole = rows(floors.part_floors(PASS_FLOOR, "kind", None))
    # linear 10 s of FLOPs; convolution 20 s and norm 15 s of bytes; fused 10 and 10 s
    found = {row["part"]: (row["eager_floor_s"], row["fused_floor_s"]) for row in parts}
    assert found == {"convolution": (20, 10), "linear": (10, 10), "norm": (15, 0)}
    assert (whole["eager_floor_s"], whole["fused_floor_s"]) == (45, 20)
    assert [row["eager_compute_share"] for row in parts] == [0, 1, 0]
    assert sum(row["eager_floor_share"] for row in parts) == pytest.approx(1)
    assert sum(row["eager_bytes_share"] for row in parts) == pytest.approx(1)
    assert sum(row["macs_share"] for row in parts) == pytest.approx(1)
    assert {row["seconds"] for row in parts} == {None}
    blank = rows(floors.part_floors(replace(PASS_FLOOR, precision="bf16"), "op", None))
    assert [row["eager_floor_s"] for row in blank] == [None, 15, None, None]  # the norm needs no peak


def test_the_newest_profile_of_the_same_pass_counts() -> None:
    older = replace(PROFILE, seconds=(("norm", (1.0,)),))
    later = replace(ENVIRONMENT, date="2026-12-01T00:00:00Z")
    newer = replace(PROFILE, environment=later)
    others = [
        replace(newer, case=replace(newer.case, **changed))
        for changed in ({"batch": 8}, {"res": 512}, {"precision": "bf16"})
    ]
    records = [newer, older, *others, replace(newer, environment=GPU), THROUGHPUT]
    assert roofline.profile(records, COSTS, "fp32", "a device") is newer
    assert roofline.profile([newer], costs(work="training"), "fp32", "a device") is None
    by_module = replace(PROFILE, case=replace(PROFILE.case, by="module"))
    assert roofline.profile([PROFILE], COSTS, "fp32", "a device", "module") is None
    assert roofline.profile([PROFILE, by_module], COSTS, "fp32", "a device", "module") is by_module
    assert roofline.profile([PROFILE, by_module], COSTS, "fp32", "a device", "op") is None


def test_profiled_time_is_shown_with_the_floor_of_each_kind() -> None:
    *parts, whole = rows(floors.part_floors(PASS_FLOOR, "kind", PROFILE))
    found = {row["part"]: (row["seconds"], row["eager_achieved"]) for row in parts}
    assert found == {
        "convolution": (40, 0.5), "linear": (20, 0.5), "norm": (30, 0.5), "other": (10, 0),
    }  # fmt: skip
    assert (whole["seconds"], whole["eager_achieved"]) == (100, 0.45)


def test_each_kind_of_a_disturbed_profile_says_so() -> None:
    seconds = (("linear", (20.0, 20.0, 32.0)), ("other", (10.0, 10.0, 10.0)))
    disturbed = replace(PROFILE, seconds=seconds, wall_s=(30.0, 30.0, 42.0))
    found = {row["part"]: row for row in rows(floors.part_floors(PASS_FLOOR, "kind", disturbed))}
    assert {tuple(row["noise"]) for row in found.values()} == {("passes differ by 40 %",)}
    assert (found["linear"]["seconds"], found["linear"]["seconds_spread"]) == (20, 0.6)
    assert (found["all"]["seconds"], found["all"]["seconds_spread"]) == (30, 0.4)
    assert found["norm"]["seconds_spread"] is None
    single = rows(floors.part_floors(PASS_FLOOR, "kind", PROFILE))
    assert {(row["seconds_spread"], tuple(row["noise"])) for row in single} == {(None, ())}


def test_a_table_names_the_records_of_its_cells() -> None:
    known = [ceiling("matmul", 20), ceiling("copy", 5)]
    peaks = roofline.measured_peaks(known, "a device")
    assert peaks is not None
    one = floors.pass_floor(COSTS, "fp32", peaks, [THROUGHPUT])
    assert floors.PASSES.records(one) == (COSTS, known[0], known[1], THROUGHPUT)
    (*_, whole) = floors.part_floors(one, "kind", PROFILE)
    assert floors.PARTS.records(whole) == (COSTS, known[0], known[1], PROFILE)


# the command


@pytest.fixture
def records(tmp_path: Path) -> Path:
    """A file with ceilings of this machine's CPU and a throughput on it."""
    here = environment.gather("cpu", "")
    known: list[Record] = [
        ceiling("matmul", 1e12, here=here),
        ceiling("matmul", 4e12, precision="bf16", here=here),
        ceiling("copy", 1e11, here=here),
        timed(0.5, here=here, batch=2),
    ]
    path = tmp_path / "known.jsonl"
    path.write_text("".join(map(to_line, known)))
    return path


def test_the_command_shows_floors_with_a_measurement(
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
    assert "nvidia-ada-gpu-architecture" in sold["peaks_source"]
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


def test_the_command_names_sizes_that_were_measured(
    records: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["--model", "FCDM-S", "--records", str(records), "--device-peaks"]
    message = "none of these passes is measured; their models are at: 256 px, batch 2, fp32\n"
    assert run(main, *asked, "here", "--batch", "4") == 0
    assert message in capsys.readouterr().err
    assert run(main, *asked, "here", "--batch", "2") == 0
    assert "is measured" not in capsys.readouterr().err
    assert run(main, *asked, "L40S", "--batch", "4") == 0
    assert "is measured" not in capsys.readouterr().err


def test_tf32_moves_the_bytes_of_fp32(
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
    def measured(_: str, case: CeilingCase, *__: object, budget_s: float) -> Ceiling:
        rate = 1e11 if case.what == "copy" else 1e12
        return replace(ceiling(case.what, rate, here=environment.gather("cpu", "")), case=case)

    monkeypatch.setattr(worker, "run", measured)
    empty, store = tmp_path / "empty.jsonl", tmp_path / "out.jsonl"
    empty.write_text("")
    asked = ["--model", "DiT-S/2", "--records", str(empty), "--device-peaks", "here", "--device", "cpu"]
    assert run(main, *asked, "--out", str(store), "--format", "json") == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert (found["matmul_flops_per_s"], found["bytes_per_s"]) == (1e12, 1e11)
    kinds = [record.case.kind for record in read(store).records]
    assert kinds == ["ceiling", "ceiling", "ceiling", "operators"]


def test_without_peaks_only_counts_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(main, "--model", "FCDM-S", "--device-peaks", "none", "--by", "kind") == 0
    printed = capsys.readouterr()
    assert "GMACs" in printed.out
    assert "floor" not in printed.out


def test_a_trace_holds_the_operators_of_one_pass(tmp_path: Path) -> None:
    file = tmp_path / "pass.json"
    case = ProfileCase(**sized_fields("tests.tiny:Tiny", 64, "cpu"), batch=1, precision="fp32", by="kind")
    assert isinstance(profiler.measure(case, ENVIRONMENT, trace=str(file)), Profile)
    events = [event["name"] for event in json.loads(file.read_text())["traceEvents"] if event.get("name")]
    assert events.count("aten::conv2d") == 2  # of Tiny


def test_a_sweep_gets_counts_and_profiles() -> None:
    args = ["--model", "FCDM-S", "DiT-S/2", "--batch", "4", "--profile", "--device", "cpu"]
    found = jobs_of(parser().parse_args(args))
    assert [job.case.kind for job in found] == ["operators", "operators", "profile", "profile"]
    assert len({job.case.name for job in found}) == 4


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--model", "FDCM-XL"], "did you mean FCDM-XL"),
        (["--device-peaks", "H20"], "--device-peaks H20: no such GPU; did you mean H200 SXM5 141GB?"),
        (["--device-peaks", "A100"], "may be several GPUs: A100 SXM4 40GB or A100 SXM4 80GB; say which"),
        (["--records", "absent.jsonl"], "--records: absent.jsonl: no such file"),
        (["--records", __file__], "line 1: "),
        (["--precision", "int8"], "--precision: invalid choice: 'int8'"),
        (["--batch", "0"], "--batch: must be a whole number of at least 1"),
        (["--model", "FCDM-S", "--weights", __file__], "and no floor; leave it out"),
        (["--model", "FCDM-S", "--trace", __file__], f"--trace {__file__}: exists; name another file"),
        (["--model", "FCDM-S", "DiT-S/2", "--trace", "new.json"], "--trace new.json: traces one pass, got 2"),
    ],
)
def test_bad_input_is_one_line(args: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(main, *args) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert message in printed.err
    assert printed.err.count("\n") == 1


# the report


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures of measured devices alone."""
    monkeypatch.setattr(section, "GPUS", ())


def records_of_a_report(*precisions: str) -> list[Record]:
    names = ("FCDM-S", "DiT-S/2")
    counted = [costs(model=name, precision=p) for name in names for p in precisions]
    profiled = replace(
        PROFILE, seconds=(("linear", (0.3,)), ("norm", (0.1,)), ("other", (0.1,))), wall_s=(0.5,)
    )
    rates = {"fp32": 1000, "bf16": 3000}
    ceilings = [ceiling("matmul", rates[p], precision=p) for p in precisions] + [ceiling("copy", 100)]
    return [*counted, profiled, *ceilings, timed(90.0)]


def cells(text: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines()]


@pytest.mark.usefixtures("blank_figures")
def test_the_section_has_floors_shares_and_a_roofline() -> None:
    text, drawings = section.section(records_of_a_report("fp32", "bf16"))
    table = text.partition("### Floors")[2].partition("### Operators")[0]
    (mine,) = [row for row in cells(table) if row[:5] == ["FCDM-S", "256", "4", "fp32", "a device"]]
    assert "50.0" in mine  # 45 s of eager floor in 90 s
    assert "22.2" in mine
    assert "H200 SXM5 141GB" in text
    operators = text.partition("### Operators")[2]
    (linear,) = [row for row in cells(operators) if "linear" in row]
    assert linear[:5] == ["FCDM-S", "256", "4", "fp32", "a device"]
    shares = (100 * 5000 / 5500, 100 * 300 / 3800, 60.0)
    assert {f"{share:.1f}" for share in shares} <= set(linear)  # of MACs, bytes and time
    assert "3333.3" in linear  # 10 s of floor in 0.3 s
    assert [drawing.picture.name for drawing in drawings] == ["roofline_a-device-256-px-4"]
    listed = {row[4] for row in cells(table) if row[:3] == ["FCDM-S", "256", "4"]}
    assert listed == {"a device", *section.GPUS}
    assert "(plots/roofline_a-device-256-px-4.svg)" in text


@pytest.mark.usefixtures("no_gpu")
def test_the_order_of_the_records_changes_no_byte() -> None:
    known = records_of_a_report("fp32")
    once, again = section.section(known), section.section(known[::-1])
    assert once == again


@pytest.mark.usefixtures("no_gpu", "blank_figures")
def test_times_side_by_side_are_of_one_device() -> None:
    elsewhere = replace(ENVIRONMENT, device="another device", date="2027-01-01T00:00:00Z")
    dit = replace(PROFILE, case=replace(PROFILE.case, model="DiT-S/2"))
    newer = replace(PROFILE, environment=elsewhere)
    # no ceilings: a roofline has no profiles in it
    known = [one for one in records_of_a_report("fp32") if isinstance(one, OperatorCosts | Profile)]
    text, _ = section.section([*known, dit, newer])
    assert "another device" not in text
    text, _ = section.section([*known, newer])
    assert "ms profiled" in text
    assert "another device" in text


@pytest.mark.usefixtures("no_gpu")
def test_a_disturbed_profile_says_so_wherever_it_is_shown() -> None:
    seconds = (("linear", (0.3, 0.3, 0.5)), ("other", (0.1, 0.1, 0.1)))
    disturbed = replace(PROFILE, seconds=seconds, wall_s=(0.4, 0.4, 0.6))
    calm = replace(PROFILE, case=replace(PROFILE.case, model="DiT-S/2"))
    known = [record for record in records_of_a_report("fp32") if not isinstance(record, Profile)]
    text, _ = section.section([*known, disturbed, calm])
    operators = text.partition("### Operators")[2]
    lines = {line.split("|")[1].strip(): line for line in operators.splitlines() if line.startswith("| ")}
    assert "passes differ by 50 %" in lines["FCDM-S"]
    assert "passes differ" not in lines["DiT-S/2"]
    assert "median of 3 passes, spread 50 %; DISTURBED: passes differ by 50 %" in operators
    assert "one pass" in operators


def test_section_is_empty_without_operator_costs() -> None:
    assert section.section([THROUGHPUT, ceiling("matmul", 1)]) == ("", [])
    assert section.section([costs(work="training")]) == ("", [])


@pytest.mark.usefixtures("no_gpu")
def test_a_table_is_cut_and_the_roofline_has_the_whole_zoo() -> None:
    names = [f"Model-{i}" for i in range(14)]
    known = [*(costs(model=name) for name in names), timed(90.0, model="Model-13")]
    text, drawings = section.section([*known, ceiling("matmul", 1000), ceiling("copy", 100)])
    svg = drawings[0].svg.decode()
    assert ">fp32: 14 models; " in svg
    assert all(f">{name}</text>" in svg for name in names)  # in the legend: too many for names in panels
    assert "Left out" not in drawings[0].picture.caption
    table = text.partition("### Floors")[2].partition("### Operators")[0]
    listed = [line for line in table.splitlines() if line.startswith("| Model-")]
    assert len(listed) == section.MOST
    assert sum("Model-13" in line for line in listed) == 1


@pytest.mark.usefixtures("blank_figures")
def test_a_roofline_names_the_models_that_it_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(section, "GPUS", ("H200 SXM5 141GB",))
    counted = [costs(model=name) for name in ("FCDM-S", "FCDM-B", "DiT-S/2")]
    elsewhere = [costs(model=f"DiCo-{letter}", batch=1) for letter in ("S", "B")]
    uncounted = replace(COUNT, case=replace(COUNT.case, model="DiC-S"))
    _, drawings = section.section([*counted, costs(precision="bf16"), *elsewhere, uncounted])
    missing = drawings[0].picture.caption.partition("Not shown: ")[2]
    assert missing.startswith(
        "FCDM-B, DiT-S/2 at bf16 (counted at another precision only); "
        "DiCo-S, DiCo-B, DiC-S without operator costs at 256 px, batch 4 (bench.roofline counts them). "
    )
    many = [
        replace(COUNT, case=replace(COUNT.case, model=f"SiT-{letter}/{n}"))
        for letter in "SBL"
        for n in (2, 4, 8)
    ]
    shown = floors.every_floor(PEAKS, counted)
    assert "9 models without operator costs" in section._missing(shown, [*counted, *many])
    assert section._missing(shown, counted) == ""


def test_a_counted_model_is_left_out_for_want_of_a_peak() -> None:
    half = costs(model="DiT-S/2", precision="bf16")
    others = [
        costs(model="DiC-S", precision="bf16", **other) for other in ({"work": "training"}, {"batch": 8})
    ]
    shown = floors.every_floor(PEAKS, [COSTS, half])
    assert {one.case.model for one in shown} == {"FCDM-S"}
    reason = "Not shown, though counted: DiT-S/2 (no peak for bf16). "
    assert section._missing(shown, [COSTS, half]) == reason
    uncounted = "Not shown: DiC-S without operator costs at "
    assert (
        section._missing(shown, [COSTS, half, *others])
        == f"{uncounted}256 px, batch 4 (bench.roofline counts them). {reason}"
    )


@pytest.mark.usefixtures("no_gpu", "blank_figures")
@pytest.mark.parametrize("parts", [(), (part("linear", macs=5000),), (part("norm", eager=1500),)])
def test_a_pass_without_macs_or_bytes_is_in_no_roofline(parts: tuple[OperatorCost, ...]) -> None:
    empty = replace(costs(model="DiT-S/2"), parts=parts)
    peaks = [ceiling("matmul", 1000), ceiling("copy", 100)]
    text, drawings = section.section([empty, *peaks])
    assert "**No roofline.** A point needs the MACs and the eager bytes of a pass" in text
    assert "### Operators" in text
    assert drawings == []
    text, drawings = section.section([empty, COSTS, *peaks])
    assert "No roofline" not in text
    assert "Not shown, though counted: DiT-S/2 (no MACs or no bytes). " in drawings[0].picture.caption


def test_no_two_families_of_the_zoo_look_the_same() -> None:
    families = dict.fromkeys(map(sizes_of, names()))
    styles = figure.family_styles(families)
    assert len(set(styles.values())) == len(styles) == len(families) > figure.NAMED
    assert {styles[name][0] for name in ("DiT-*/2", "DiT-*/4", "DiT-*/8")} == {COLOURS["DiT"]}


def test_the_axes_of_a_roofline_are_those_of_its_points() -> None:
    (one,) = (one for one in floors.every_floor(PEAKS, [COSTS]) if one.precision == "fp32")
    drawn = new_figure(4.0, 4.0)
    panel = figure.Panel(axes=drawn.add_subplot(), floors=[one], styles={"FCDM-*": ("black", "o")})
    panel.draw()
    low, high = panel.axes.get_ylim()
    reached, roof = 11000 / 45, 1000  # FLOPs over the eager floor of 45 s, and the peak
    assert 0.8 * reached < low < reached
    assert roof < high < 1.25 * roof


@pytest.mark.usefixtures("blank_figures")
def test_the_report_reads_the_costs_of_the_command(tmp_path: Path) -> None:
    store = tmp_path / "a.jsonl"
    asked = ["--model", "FCDM-S", "--batch", "4", "--device-peaks", "none", "--out", str(store)]
    assert run(main, *asked, "--format", "csv") == 0
    text, drawings = section.section(read(store).records)
    assert "FCDM-S" in text
    assert [drawing.picture.name for drawing in drawings] == ["roofline_rtx-4090-256-px-4"]
