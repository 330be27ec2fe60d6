"""Commands as a user types them: output and errors."""

import argparse
import csv
import io
import json
import signal
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from bench import flops, throughput
from bench.__main__ import main as list_commands
from bench.cli import ending, options
from bench.records.counts import MacCount
from bench.records.throughput import Throughput
from bench.store import codec
from models import __main__ as listing
from tests.commands import run
from tests.test_layout import COMMANDS


@pytest.mark.parametrize("main", [flops.main, throughput.main], ids=["flops", "throughput"])
@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--model", "FDCM-XL"], "--model FDCM-XL: no such backbone; did you mean FCDM-XL"),
        (["--model", "FCDM-Z*"], "--model FCDM-Z*: matches no backbone"),
        (["--res", "100"], "--res: must be a multiple of 8 pixels, one latent, got 100; try 96"),
        (["--res", "0"], "--res: must be a multiple of 8 pixels"),
        (["--res", "big"], "--res: must be pixels, as 512 or 512x256"),
        (["--res", "264", "--model", "DiT-S/8"], "must be a multiple of patch 8, got 33; 40 would work"),
        (["--batch", "0"], "--batch: must be a whole number of at least 1, got '0'"),
        (["--model", "FCDM-S", "--weights", "absent.pt"], "--weights: absent.pt: no such file"),
        (["--model", "FCDM-S", "--weights", __file__], "not a checkpoint"),
        (["--model", "FCDM-S", "DiT-S/2", "--weights", __file__], "belongs to one --model, got 2"),
        (
            ["--model", "tests.tiny:WrongShape"],
            "must return (2, 8, 32, 32) for this task, got (2, 3, 32, 32)",
        ),
        (["--model", "tests.tiny:Raises"], "on the meta device raised KeyError"),
        (["--model", "tests.tiny:not_a_module"], "must return a torch.nn.Module, got int"),
        (["--model", "tests.tiny:takes_nothing"], "raised TypeError"),
        (["--model", "tests.tiny:absent"], "has no callable 'absent'"),
        (["--model", "absent_package:factory"], "cannot import 'absent_package'"),
        (["--out", "/dev/null/x"], "--out /dev/null/x: cannot be written"),
        (["--out", "/"], "--out /: is a folder"),
        (["--weights", __file__, "--out", __file__, "--force"], "is given for --weights too; name another"),
        (["--model", "net.py:Net", "--out", "./net.py"], "is given for --model too; name another"),
        (["--format", "xml"], "--format: invalid choice: 'xml'"),
        (["--nonsense"], "unrecognized arguments: --nonsense"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    main: object, args: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    extra = [] if any(flag in args for flag in ("--res", "--batch")) else ["--res", "256"]
    assert run(main, *args, *extra) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert message in printed.err
    assert printed.err.count("\n") == 1


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--precision", "int3"], "--precision: invalid choice: 'int3'"),
        (["--precision", "tf32", "--device", "cpu"], "--precision tf32: only a CUDA device has it"),
        (["--budget", "0"], "--budget: must be seconds above zero"),
        (["--budget", "soon"], "--budget: must be seconds above zero"),
        (["--precision-target", "2"], "--precision-target: must be a share above 0 and below 1"),
        (["--compile", "perhaps"], "--compile: must be on or off, got 'perhaps'"),
        (["--cuda-graphs", "--device", "cpu"], "--cuda-graphs: needs a CUDA device, got --device cpu"),
        (
            ["--attention", "cudnn", "--device", "cpu"],
            "--attention cudnn: a CPU has auto, flash and math",
        ),
        (["--attention", "fast"], "--attention: invalid choice: 'fast'"),
        (["--soak", "-3"], "--soak: must be seconds above zero"),
    ],
)
def test_throughput_refuses_impossible_settings(
    args: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(throughput.main, "--model", "FCDM-S", *args) == 2
    assert message in capsys.readouterr().err


@pytest.fixture
def default_signals() -> Iterator[None]:
    """Signals end a command, also where the tests run in the background of a shell, which ignores SIGINT."""
    interrupt = signal.signal(signal.SIGINT, signal.default_int_handler)
    terminate = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGINT, interrupt)
    signal.signal(signal.SIGTERM, terminate)


@pytest.mark.usefixtures("default_signals")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_that_torch_turns_into_an_error_is_one_line(
    number: int, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(_: object) -> int:
        try:
            signal.raise_signal(number)
        except KeyboardInterrupt as error:
            raise RuntimeError("of a meta kernel") from error
        return 0

    assert options.run(options.parser("bench.any", ""), interrupted, []) == code
    assert capsys.readouterr().err.count("\n") == 1


def test_an_interrupt_is_reported_by_the_first_process_only(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(_: object) -> int:
        raise KeyboardInterrupt

    def refused(_: argparse.Namespace) -> int:
        raise options.UsageError("wrong")

    parser = options.parser("bench.any", "")
    assert options.run(parser, interrupted, []) == 130
    assert capsys.readouterr().err == "python -m bench.any: interrupted; what was recorded is kept\n"
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setattr("time.sleep", interrupted)  # every wait is interrupted again
    assert options.run(parser, interrupted, []) == 130
    assert options.run(parser, refused, []) == 130
    assert options.run(parser, refused, ["--unknown"]) == 130
    assert capsys.readouterr().err == ""


def test_a_thread_of_a_users_code_does_not_keep_a_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    left: list[int] = []
    done = threading.Event()
    monkeypatch.setattr(ending, "THREADS_S", 0.0)
    monkeypatch.setattr(ending.os, "_exit", left.append)
    ending.leave_threads(0)
    thread = threading.Thread(target=done.wait, name="logger")
    thread.start()
    ending.leave_threads(2)
    done.set()
    thread.join()
    assert left == [2]
    assert "a thread of the model's code still runs after 0 s: logger; left" in capsys.readouterr().err


def test_flops_refuses_modules_of_fvcore(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(flops.main, "--counter", "fvcore", "--by", "module", "--model", "FCDM-S") == 2
    assert "--by module: not with --counter fvcore" in capsys.readouterr().err


def test_flops_json_has_an_object_a_model_size_and_counter(
    capsys: pytest.CaptureFixture[str],
) -> None:
    args = ["--model", "fcdm-*", "--model", "DiT-XL/2", "--res", "256", "512", "--format", "json"]
    assert run(flops.main, *args, "--counter", "torch", "torchprofile-meta") == 0
    rows = json.loads(capsys.readouterr().out)
    assert len(rows) == 5 * 2 * 2
    first = rows[0]
    assert first["model"] == "FCDM-S"
    assert first["family"] == "FCDM"
    assert (first["res"], first["latent_size"], first["batch"]) == (256, 32, 1)
    assert first["params"] == 32699912
    assert first["flops"] == 2 * first["macs"]
    assert 2.9 < first["train_macs"] / first["macs"] < 3
    assert first["train_macs_checkpointed"] > first["train_macs"]
    assert first["counter"] == "torch"
    assert "gelu" in first["not_counted"]


def test_flops_writes_every_format_and_the_same_numbers(capsys: pytest.CaptureFixture[str]) -> None:
    args = ["--model", "FCDM-S", "--res", "256"]
    out = {}
    for form in ("table", "md", "csv", "json", "latex"):
        assert run(flops.main, *args, "--format", form) == 0
        out[form] = capsys.readouterr().out
    assert "3.073" in out["table"]
    assert out["md"].startswith("| model")
    assert out["latex"].startswith(r"\begin{tabular}")
    (row,) = csv.DictReader(io.StringIO(out["csv"]))
    assert int(row["macs"]) == json.loads(out["json"])[0]["macs"] == 3073392640


@pytest.mark.parametrize("by", ["op", "module"])
def test_parts_of_a_model_add_up(by: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(flops.main, "--model", "FCDM-S", "--res", "256", "--by", by, "--format", "json") == 0
    rows = json.loads(capsys.readouterr().out)
    assert sum(row["macs"] for row in rows) == 3073392640
    assert sum(row["share"] for row in rows) == pytest.approx(1)
    assert {"convolution", "addmm"} == {r["part"] for r in rows} or "stem" in {r["part"] for r in rows}


def test_flops_takes_sizes_that_are_not_square(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(flops.main, "--model", "DiT-S/2", "--res", "256x512", "--format", "json") == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert (row["res"], row["latent_size"]) == ("256x512", "32x64")


def test_a_users_model_has_its_row_with_one_flag(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(flops.main, "--model", "tests.tiny:Tiny", "--res", "256", "--format", "json") == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert row["model"] == "tests.tiny:Tiny"
    assert row["macs"] > 32 * 32 * 9 * 8 * (4 + 8)


def test_out_replaces_a_file_only_if_forced(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    args = ["--model", "DiT-S/8", "--res", "256", "--format", "json"]
    kept = tmp_path / "kept.json"
    kept.write_text("precious")
    assert run(flops.main, *args, "--out", str(kept)) == 2
    assert "exists; name another file" in capsys.readouterr().err
    assert kept.read_text() == "precious"
    assert run(flops.main, *args, "--out", str(kept), "--force") == 0
    assert json.loads(kept.read_text()) == json.loads(capsys.readouterr().out)


def test_a_case_is_recorded_once_unless_forced(tmp_path: Path) -> None:
    path = tmp_path / "new" / "records.jsonl"
    args = ["--model", "DiT-S/8", "--out", str(path), "--res"]
    for sizes in (["256"], ["256", "512"], ["256", "--force"]):
        assert run(flops.main, *args, *sizes) == 0
    records = codec.read(path).records
    assert [one.case.res for one in records if isinstance(one, MacCount)] == [256, 512, 256]
    assert records[0] == replace(records[2], environment=records[0].environment)


def test_models_lists_sizes_and_standing(capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        run(listing.main, "FCDM-S", "FCDM-L@[kc]*", "DiG-S/2", "ADM-64", "ADM-U-256", "--format", "json") == 0
    )
    rows = {row["model"]: row for row in json.loads(capsys.readouterr().out)}
    assert rows["FCDM-S"]["params"] == 32699912
    assert rows["FCDM-S"]["macs"] == 3082699540
    assert (rows["FCDM-S"]["year"], rows["FCDM-S"]["standing"]) == (2026, "pinned")
    assert (rows["ADM-64"]["space"], rows["ADM-64"]["res"]) == ("pixels", 64)
    assert rows["ADM-U-256"]["macs"] == 741808988544
    assert rows["ADM-U-256"]["standing"] == "sum of ADM-64 and ADM-up-64-256"
    assert rows["FCDM-L@k3"]["standing"] == "sure by its printed numbers"
    assert rows["FCDM-L@cca"]["standing"] == "our reading: likely"
    assert rows["DiG-S/2"]["back_end"]
    assert run(listing.main, "FCDM-L@k4") == 2
    assert "kernels must be odd; the variants of FCDM-L are k3" in capsys.readouterr().err


def test_source_of_a_backbone_is_read_past_initials() -> None:
    assert listing.source_of(
        "X.\n\nSource: A. Author et al., 2025, arXiv:2501.00001; sizes from Table 2."
    ) == ("A. Author et al., 2025, arXiv:2501.00001")
    assert listing.source_of("Source: arXiv:2401.08740. Letters") == "arXiv:2401.08740"
    assert listing.source_of("Nothing.") == ""


def test_networks_for_other_sizes_are_counted_at_their_own(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(flops.main, "--model", "ADM-64", "DiT-S/8", "--format", "json") == 0
    rows = json.loads(capsys.readouterr().out)
    assert [(row["model"], row["res"], row["space"]) for row in rows] == [
        ("ADM-64", 64, "pixels"),
        *(("DiT-S/8", res, "f8") for res in (256, 512, 1024)),
    ]
    assert run(flops.main, "--model", "ADM-64", "--res", "256") == 0
    printed = capsys.readouterr()
    assert "ADM-64 was published for 64 px; here at 256 px" in printed.err
    assert "pixels" in printed.out


def test_a_task_is_given_to_users_models_by_name(capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["--model", "tests.tiny:Tiny", "--res", "64", "--format", "json", "--task"]
    for task, space, latent in (("f16d32", "f16", 4), ("pixels:velocity", "pixels", 64), ("sd-f8", "f8", 8)):
        assert run(flops.main, *asked, task) == 0
        (row,) = json.loads(capsys.readouterr().out)
        assert (row["space"], row["latent_size"]) == (space, latent)
        assert task in row["model"]
    assert run(flops.main, *asked, "f16") == 2
    assert "--task: f16: no such task; known are sd-f8, f16d32, pixels" in capsys.readouterr().err
    assert run(flops.main, "--model", "FCDM-S", "--task", "f16d32") == 2
    assert "apply to models of your own" in capsys.readouterr().err


def test_models_refuses_a_file_of_records(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "models.jsonl"
    assert run(listing.main, "FCDM-S", "--out", str(path)) == 2
    assert f"--out {path}: this command makes no records" in capsys.readouterr().err
    assert not path.exists()


QUICK = ["--device", "cpu", "--res", "64", "--batch", "2", "--budget", "0.3s", "--format", "json"]


def test_throughput_keeps_every_sample(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "records.jsonl"
    assert run(throughput.main, "--model", "DiT-Ti/2", *QUICK, "--out", str(path)) == 0
    printed = capsys.readouterr()
    (row,) = json.loads(printed.out)
    (kept,) = codec.read(path).records
    assert isinstance(kept, Throughput)
    assert row["samples"] == len(kept.times_s) == len(row["times_s"]) > 0
    assert row["images_per_s"] == pytest.approx(kept.images_per_s) == pytest.approx(2 / row["median_s"])
    assert row["stopped_by"] in ("precision", "budget")
    assert (row["stopped_by"] == "precision") == (row["unmet"] == [])
    assert (row["model"], row["res"], row["batch"], row["precision"]) == ("DiT-Ti/2", 64, 2, "fp32")
    assert row["device"] == kept.environment.device
    assert not kept.matmul_tf32
    assert not kept.conv_tf32
    assert "\r" not in printed.err  # no progress bar in a pipe


@pytest.mark.parametrize(
    ("factory", "status", "message"),
    [
        ("AsksForTooMuch", "out of memory", "allocate"),
        ("KilledWhenReal", "crashed", "SIGKILL"),
        ("RaisesWhenReal", "error", "only found out now"),
        ("Overflows", "not finite", "inf or NaN"),
    ],
)
def test_after_a_failed_case_the_next_is_measured(
    factory: str, status: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(throughput.main, "--model", f"tests.tiny:{factory}", "tests.tiny:Tiny", *QUICK) == 0
    failed, fine = json.loads(capsys.readouterr().out)
    assert failed["status"] == status
    assert message in failed["reason"]
    assert failed["images_per_s"] is None
    assert fine["status"] == "ok"
    assert fine["images_per_s"] > 0


def test_stored_cases_are_not_measured_again_unless_forced(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "records.jsonl"
    args = ["--model", "tests.tiny:Tiny", *QUICK, "--out", str(path)]
    assert run(throughput.main, *args) == 0
    first = capsys.readouterr()
    assert run(throughput.main, *args) == 0
    again = capsys.readouterr()
    assert again.out == first.out
    assert "1 of 1 were in" in again.err
    assert len(codec.read(path).records) == 1
    assert run(throughput.main, *args, "--force") == 0
    assert len(codec.read(path).records) == 2


@pytest.mark.parametrize("main", [flops.main, throughput.main], ids=["flops", "throughput"])
def test_an_unreadable_store_is_refused_and_kept(
    main: object, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "records.jsonl"
    path.write_text("{}\n")
    assert run(main, "--model", "tests.tiny:Tiny", "--res", "64", "--out", str(path)) == 2
    error = capsys.readouterr().err
    assert f"--out {path}, line 1: not a record of this suite: format None; this version reads 3" in error
    assert error.count("\n") == 1
    assert path.read_text() == "{}\n"


def test_batch_1_gives_percentiles_of_single_passes(capsys: pytest.CaptureFixture[str]) -> None:
    args = ["--model", "tests.tiny:Tiny", "--device", "cpu", "--res", "64", "--budget", "0.4s"]
    assert run(throughput.main, *args, "--batch", "1", "--format", "json") == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert row["batch"] == 1
    assert row["p50_s"] == row["median_s"]
    assert 0 < row["p50_s"] <= row["p90_s"] <= row["p99_s"] <= max(row["times_s"])


def test_soaking_adds_a_figure_and_a_protocol_a_row(
    capsys: pytest.CaptureFixture[str],
) -> None:
    args = ["--model", "tests.tiny:Tiny", *QUICK, "--protocol", "suite", "dico", "--soak", "0.2s"]
    assert run(throughput.main, *args) == 0
    suite, dico = json.loads(capsys.readouterr().out)
    assert suite["sustained_images_per_s"] > 0
    assert (suite["protocol"], dico["protocol"]) == ("suite", "dico")
    assert dico["samples"] == 1
    assert dico["images_per_s_interval"] is None
    assert "without synchronising" in dico["stopped_by"]


@pytest.mark.parametrize("setting", [["--attention", "math"], ["--checkpointing"], ["--channels-last"]])
def test_settings_reach_the_record(setting: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    long = ["5s" if word == "0.3s" else word for word in QUICK]  # for a busy machine; one process ends sooner
    early = ["--processes", "1", "--precision-target", "0.5"]
    assert run(throughput.main, "--model", "DiT-Ti/2", *long, *early, *setting) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert row["status"] == "ok"
    name = setting[0].removeprefix("--").replace("-", "_")
    assert row[name] == (setting[1] if len(setting) > 1 else True)


def test_throughput_combines_its_settings(capsys: pytest.CaptureFixture[str]) -> None:
    args = ["--device", "cpu", "--model", "tests.tiny:Tiny", "--res", "64", "--batch", "1", "2"]
    assert (
        run(throughput.main, *args, "--precision", "fp32", "bf16", "--budget", "0.2s", "--format", "json")
        == 0
    )
    rows = json.loads(capsys.readouterr().out)
    assert {(row["batch"], row["precision"]) for row in rows} == {
        (1, "fp32"),
        (2, "fp32"),
        (1, "bf16"),
        (2, "bf16"),
    }


def test_the_commands_are_listed_most_used_first(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(list_commands) == 0
    lines = capsys.readouterr().out.splitlines()
    listed = {line.split()[2]: line.split(maxsplit=3)[3] for line in lines}
    assert set(listed) == set(COMMANDS)
    assert list(listed)[:3] == ["models", "bench.flops", "bench.throughput"]
    assert listed["bench.throughput"].startswith("Time denoising passes or training steps")
    assert run(list_commands, "flop") == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_a_command_is_run_by_its_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(list_commands, "flops", "--model", "DiT-S/8", "--res", "64") == 0
    assert "DiT-S/8" in capsys.readouterr().out
