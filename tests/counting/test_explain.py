"""Differences between counters: each has a name, and they add up."""

import csv
import importlib.util
import io
import json
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench import flops
from bench.analysis.costs.counts import PAIR
from bench.cli import options
from bench.counting import count, counters, explain, explain_tables
from bench.counting.dispatch import Count
from bench.records.counts import COUNTERS, PACKAGES, CountCase, MacCount
from bench.store.codec import read
from models import Task, names
from models.arithmetic import Terms
from models.contract import build
from models.dit import Config, DiT
from reports.sections.counters import section
from tests.commands import run

MAIN = ["FCDM-XL", "DiT-XL/2", "DiCo-S", "DiC-S", "DiG-S/2"]
# without those whose operators of models.kernels the packages see in parts
WHOLE = [name for name in names("*-Ti*") if not name.startswith(("Flow", "HDiT"))]
WHOLE += [f"tests.narrow:{name}" for name in ("udit", "mdt", "mdtv2", "adm", "ldm", "uvit")]
SCANNING = [f"tests.narrow:{name}" for name in ("dis", "dim", "dimsum")]


class Functional(nn.Module):
    """A user's model that calls functions instead of layers."""

    def __init__(self, task: Task) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(task.out_channels, task.in_channels))

    def forward(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        x = F.linear(x.permute(0, 2, 3, 1), self.weight)  # (N, H, W, C_out)
        x = torch.einsum("nhwc,dc->nhwd", x, self.weight @ self.weight.T)
        return torch.einsum("nhwc->nchw", x)


class Scaled(nn.Module):
    """A user's model without a product of matrices."""

    def __init__(self, task: Task) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(task.out_channels, 1, 1))

    def forward(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        return torch.cat([x, x], dim=1) * self.scale


def explained(capsys: pytest.CaptureFixture[str], *args: str) -> list[dict[str, Any]]:
    assert run(flops.main, "--explain", *args, "--format", "json") == 0
    rows: list[dict[str, Any]] = json.loads(capsys.readouterr().out)
    return rows


def explanation(name: str, res: str, why_not: str = "not requested") -> explain.Explanation:
    """One model under every counter; a blank `why_not` runs the packages."""
    (job,) = flops.jobs(flops.parser().parse_args(["--model", name, "--res", res]))
    assert isinstance(job.case, CountCase)
    model = build(name, count.task_of(job.case))
    one = explain.explain(job.case, job.environment, model, dict.fromkeys(PACKAGES, why_not))
    assert isinstance(one, explain.Explanation)
    return one


def with_packages(name: str, res: str) -> list[dict[str, Any]]:
    """The rows of one model under every counter, without those of the ratio."""
    rows: list[dict[str, Any]] = json.loads(explain_tables.render([explanation(name, res, "")], [], "json"))
    return rows


def counts_in(path: Path) -> list[MacCount]:
    return [record for record in read(path).records if isinstance(record, MacCount)]


def counts(rows: list[dict[str, Any]], model: str) -> dict[str, int]:
    found = [row for row in rows if row["part"] == "count" and row["model"] == model]
    return {row["counter"]: row["macs"] for row in found if row["macs"] is not None}


def named(rows: list[dict[str, Any]], model: str, counter: str) -> dict[str, int]:
    of = (model, counter)
    found = [row for row in rows if row["part"] == "difference" and (row["model"], row["counter"]) == of]
    return {row["name"]: row["macs"] for row in found}


def assert_all_named(rows: list[dict[str, Any]]) -> None:
    for model in {row["model"] for row in rows if row["part"] == "verdict"}:
        each = counts(rows, model)
        for counter in each.keys() - {"torch"}:
            differences = named(rows, model, counter)
            assert each["torch"] + sum(differences.values()) == each[counter]
            assert differences[explain.UNEXPLAINED] == 0, (model, counter)


def test_differences_of_main_models_are_named_and_add_up(capsys: pytest.CaptureFixture[str]) -> None:
    rows = explained(capsys, *MAIN, "--res", "256", "512x256")
    for res in (256, "512x256"):
        here = [row for row in rows if row["res"] == res]
        assert counts(here, "DiG-S/2").keys() == COUNTERS.keys() - set(PACKAGES)
        assert_all_named(here)


@pytest.mark.parametrize("name", [*WHOLE, *SCANNING])
def test_differences_of_packages_are_named_and_add_up(name: str) -> None:
    rows = with_packages(name, "64")
    macs = counts(rows, name)
    assert macs.keys() == COUNTERS.keys()
    assert_all_named(rows)
    if name in WHOLE:
        assert macs["torchprofile"] == macs["torchprofile-meta"]
    else:
        assert named(rows, name, "torchprofile")["custom operator selective_scan unseen"] < 0


def test_replacement_of_a_custom_operator_is_named() -> None:
    rows = with_packages("FCDM-S@na7", "224")
    assert_all_named(rows)
    differences = named(rows, "FCDM-S@na7", "torchprofile")
    assert differences["custom operator neighbourhood_attention unseen"] < 0
    assert differences["attention in the custom operator's place"] > 0


def test_causes_have_the_names_of_the_papers_differences(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [*with_packages("DiT-S/8", "128"), *with_packages("FCDM-S", "64")]
    attention = 12 * 2 * 4**2 * 384  # blocks, two products, tokens by tokens, width
    for counter in ("module-hooks", "fvcore"):
        assert named(rows, "DiT-S/8", counter)["attention products unseen"] == -attention
    assert named(rows, "FCDM-S", "fvcore")["norms counted"] > 0
    rows = explained(capsys, "DiT-XL/2", "DiG-S/2", "U-DiT-S", "DiCo-S", "--counter", "torch")
    unfused = named(rows, "DiT-XL/2", "torchprofile-unfused")
    assert unfused["unfused attention's query scaling"] == 28 * 256 * 1152
    assert unfused["elementwise products counted: gates"] == 28 * 2 * 256 * 1152
    assert named(rows, "DiG-S/2", "torchprofile-meta")["custom operator gla unseen"] < 0
    assert named(rows, "U-DiT-S", "module-hooks")["functional convolutions unseen"] < 0
    assert named(rows, "U-DiT-S", "module-hooks")["written-out attention products unseen"] < 0
    assert named(rows, "DiCo-S", "torchprofile-meta")["means and pooling counted"] > 0
    assert_all_named(rows)


def test_legend_tells_module_hooks_from_calflops(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(flops.main, "--explain", "U-DiT-S", "--counter", "torch") == 0
    printed = capsys.readouterr()
    (legend,) = (line for line in printed.err.splitlines() if line.startswith("module-hooks: "))
    assert "calflops, never run here, also counts functional convolutions and matrix products" in legend
    assert "calflops" not in printed.out  # whose differences these are


def test_an_operator_that_no_rule_names_is_unexplained() -> None:
    with torch.device("meta"):
        model = build("DiT-S/8", Task(16))
    side = counters.count_side_by_side(model, Task(16))
    torchs = side.counts["torch"]
    odd = Count(by_op={**torchs.by_op, "conjure": 7}, by_module={}, not_counted=())
    *others, last = explain.differences("torchprofile", odd, side, None)
    assert (last.cause, last.macs, last.operators) == (explain.UNEXPLAINED, 7, ("conjure",))
    assert not others


def test_hooks_miss_the_functions_of_a_users_model() -> None:
    name = "tests.counting.test_explain:Functional"
    rows = with_packages(name, "64")
    each = counts(rows, name)
    assert each["torch"] == 64 * (8 * 4 + 8 * 8) + 8 * 4 * 8
    assert each["module-hooks"] == 0
    assert named(rows, name, "module-hooks")["functional matrix products unseen"] == -each["torch"]
    assert named(rows, name, "torchprofile")["permuting einsum counted"] == 8 * 8 * 8
    assert each["torchprofile"] == each["torchprofile-meta"]
    assert_all_named(rows)


def test_a_model_without_products_has_a_verdict() -> None:
    rows = with_packages("tests.counting.test_explain:Scaled", "64")
    (verdict,) = (row["text"] for row in rows if row["part"] == "verdict")
    assert "trust torch, 0.0000 GMACs" in verdict
    assert "torchprofile +512 MACs (elementwise products counted)" in verdict
    assert_all_named(rows)


def test_a_failing_package_is_a_row_with_its_reason() -> None:
    rows = with_packages("tests.tiny:RaisesWhenReal", "64")
    (row,) = (row for row in rows if (row["part"], row["counter"]) == ("count", "fvcore"))
    assert row["macs"] is None
    assert row["text"] == "raised KeyError: 'only found out now'"
    assert_all_named(rows)


def test_a_users_model_has_no_closed_form(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(flops.main, "--explain", "tests.tiny:Tiny") == 0
    printed = capsys.readouterr()
    assert (
        "tests.tiny:Tiny 256: trust torch, 0.0009 GMACs (closed form: no formula of a user's model)"
        in printed.out
    )
    assert "closed-form, no count: no formula" in printed.err
    assert run(flops.main, "--model", "tests.tiny:Tiny", "--counter", "closed-form") == 2
    assert "--counter closed-form: tests.tiny:Tiny has no formula" in capsys.readouterr().err


def test_the_ratio_depends_on_the_counter(capsys: pytest.CaptureFixture[str]) -> None:
    rows = explained(capsys, "DiT-S/8", "--res", "256", "512")
    ratios = {(row["res"], row["counter"]): row for row in rows if row["part"] == "ratio"}
    assert rows[-1]["part"] == "ratio"
    assert {res for res, _ in ratios} == {256, 512}
    assert f"{ratios[256, 'torch']['ratio']:.3f}" == "0.544"
    assert f"{ratios[256, 'module-hooks']['ratio']:.3f}" == "0.564"
    of = ratios[256, "closed-form"]
    assert of["ratio"] == of["macs"] / of["other_macs"]
    assert run(flops.main, "--explain", "DiT-S/8", "--res", "8x264") == 2  # neither the model nor the ratio


def test_a_size_without_a_ratio_has_the_other_tables(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(flops.main, "--explain", "tests.tiny:Tiny", "--res", "264", "--format", "json") == 0
    printed = capsys.readouterr()
    assert not [row for row in json.loads(printed.out) if row["part"] == "ratio"]
    assert "no ratio at 264 px: FCDM-XL: latent_size: must be a multiple of" in printed.err


def test_published_figures_have_the_counts_that_round_to_them(
    capsys: pytest.CaptureFixture[str],
) -> None:
    rows = explained(capsys, "DiT-XL/2", "FCDM-XL", "DiG-S/2", "--counter", "torch")
    rounding = {
        (row["model"], row["name"], row["text"]): row["counter"] for row in rows if row["part"] == "published"
    }
    assert rounding["DiT-XL/2", "dico:table1", "118.66"] == "torchprofile-unfused"
    assert rounding["DiT-XL/2", "fcdm:table3", "118.6"] == "torch, closed-form"
    assert rounding["FCDM-XL", "fcdm:table3", "64.6"] == "torchprofile-meta, torchprofile-unfused"
    released = [
        text for (model, source, _), text in rounding.items() if "released" in source and model == "FCDM-XL"
    ]
    assert released == ["torchprofile-meta, torchprofile-unfused, to the last MAC"]
    assert "that the release hides" in rounding["DiG-S/2", "dico:table1", "4.30"]


def test_rounding_to_a_figure_is_not_called_its_origin(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(flops.main, "--explain", "DiT-XL/2", "--counter", "torch") == 0
    table = capsys.readouterr().out.partition("Published, ")[2].partition("Verdict")[0].splitlines()
    assert table[0] == "and which counts round to it"
    assert table[2].split("  ")[-1] == "rounds to it"
    (fcdm,) = (line for line in table if "fcdm:table3" in line)
    assert fcdm.endswith("118.6  torch, closed-form")


def test_packages_that_do_not_run_have_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    assert explain.packages_to_run(None, 4) == {"torchprofile": "", "fvcore": ""}
    assert explain.packages_to_run(None, 5)["fvcore"].startswith("left out above 4 models times sizes, got 5")
    assert explain.packages_to_run(["fvcore"], 5) == {
        "torchprofile": "not requested; --counter torchprofile runs it",
        "fvcore": "",
    }
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert explain.packages_to_run(["fvcore"], 1)["fvcore"] == "not installed; pip install fvcore"


def test_a_package_too_costly_to_run_has_a_reason(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def reason(*args: str) -> str:
        rows = explained(capsys, *args)
        (found,) = (row for row in rows if (row["part"], row["counter"]) == ("count", "fvcore"))
        assert found["macs"] is None
        return str(found["text"])

    assert reason("DiT-XL/2", "--res", "512") == "left out above 150 GMACs; --counter fvcore runs it"
    monkeypatch.setattr(count, "free_host_bytes", lambda: 2**20)
    assert reason("DiT-S/8", "--res", "64") == "about 0.2 GiB of memory needed, 0.0 are free"


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["FDCM-XL"], "--explain FDCM-XL: no such backbone; did you mean FCDM-XL"),
        (["FCDM-Z*"], "--explain FCDM-Z*: matches no backbone"),
        (
            ["DiT-S/8", "--res", "264"],
            "--explain DiT-S/8: latent_size: must be a multiple of patch 8, got 33",
        ),
        (["DiT-S/8", "--model", "DiT-S/2"], "--explain: takes no --model; leave --model out"),
        (["DiT-S/8", "--by", "op"], "takes no --by; leave --by out"),
        (
            ["DiT-S/8", "--counter", "closed-form", "fvcore"],
            "--explain: has closed-form already; --counter names the packages to run, torchprofile or fvcore",
        ),
        (["tests.tiny:WrongShape"], "--explain tests.tiny:WrongShape: model(x, t, y) must return"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    args: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(flops.main, "--explain", *args) == 2
    printed = capsys.readouterr()
    assert not printed.out
    assert message in printed.err
    assert printed.err.count("\n") == 1


def test_a_wrong_closed_form_is_reported_with_exit_code_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = DiT.closed_form

    def without_a_head(terms: Terms, config: Config, task: Task) -> None:
        whole(terms, config, task)
        del terms.torch["head"]

    monkeypatch.setattr(DiT, "closed_form", staticmethod(without_a_head))
    args = ("--explain", "DiT-S/8", "--res", "64", "--counter", "torch")
    assert run(flops.main, *args, "--format", "json") == 1
    rows = json.loads(capsys.readouterr().out)
    head = 384 * 8 * 8 * 8  # one token, 8 channels of a patch of 8
    assert named(rows, "DiT-S/8", "closed-form") == {explain.UNEXPLAINED: -head}
    (verdict,) = (row["text"] for row in rows if row["part"] == "verdict")
    assert "one of the two is wrong" in verdict


def test_a_suite_cannot_explain() -> None:
    with pytest.raises(options.UsageError, match="--explain: has tables of its own, which no suite runs"):
        flops.jobs(flops.parser().parse_args(["--explain", "DiT-S/8"]))


def test_every_format_has_the_same_counts() -> None:
    made = {name: explanation(name, "64") for name in ("DiT-S/8", *PAIR)}
    pair = [made[name] for name in PAIR]
    out = {
        form: explain_tables.render([made["DiT-S/8"]], pair, form)
        for form in ("table", "md", "csv", "json", "latex")
    }
    rows = [row for row in csv.DictReader(io.StringIO(out["csv"])) if row["part"] == "count" and row["macs"]]
    each = {row["counter"]: int(row["macs"]) for row in rows}
    assert each == counts(json.loads(out["json"]), "DiT-S/8")
    for form in ("table", "md", "latex"):
        assert f"{each['module-hooks'] / 1e9:.4f}" in out[form]
        for title in ("GMACs of one image under each counter", "Differences to torch's count", "Verdict"):
            assert title in out[form]
    assert out["latex"].count(r"\begin{tabular}") == out["md"].count("### ") == 5  # none published at 64 px


def test_records_of_every_counter_are_stored_once(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    for _ in range(2):
        args = ("DiT-S/8", "--res", "64", "--out", str(path))
        assert run(flops.main, "--explain", *args) == 0
    kept = [one for one in counts_in(path) if one.case.model == "DiT-S/8"]
    assert [one.case.counter for one in kept] == list(COUNTERS)
    assert {one.params for one in kept} == {kept[0].params}
    assert kept[0].macs == kept[1].macs


def test_report_has_a_column_for_every_counter(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    args = ("--explain", *PAIR, "DiT-S/8", "--res", "256", "--counter", "torch", "--out", str(path))
    assert run(flops.main, *args) == 0
    records = read(path).records
    text, drawings = section(records)
    assert not drawings
    assert "## The same model under every counter" in text
    header, _, *lines = (line for line in text.splitlines() if line.startswith("|") and "px" not in line[:8])
    assert [cell.strip() for cell in header.split("|")[3:-1]] == list(COUNTERS)[:5]
    by_model = {line.split("|")[1].strip(): line for line in lines}
    assert "118.6630" in by_model["DiT-XL/2"]
    assert "114.3936" in by_model["DiT-XL/2"]
    assert "0.5440" in text
    assert "0.5641" in text
    assert section(list(reversed(records))) == (text, drawings)


def test_report_needs_two_counters_of_a_model(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    assert run(flops.main, "--model", "DiT-S/8", "FCDM-S", "--res", "64", "--out", str(path)) == 0
    assert section(read(path).records) == ("", [])
    assert section([]) == ("", [])


def test_report_orders_sizes_by_their_pixels(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    args = ("--model", *PAIR, "--res", "256", "1024", "512", "--counter", "torch", "module-hooks")
    assert run(flops.main, *args, "--out", str(path)) == 0
    text, _ = section(read(path).records)
    cells = [line.split("|") for line in text.splitlines()]
    assert [row[2].strip() for row in cells if row[1:2] == [" DiT-XL/2 "]] == ["256", "512", "1024"]
    ratios = text.rpartition("###")[2].splitlines()
    assert [row.split("|")[1].strip() for row in ratios if "0." in row] == ["256", "512", "1024"]


def test_counters_on_meta_tensors_are_chosen_by_name(capsys: pytest.CaptureFixture[str]) -> None:
    chosen = ["closed-form", "module-hooks", "torchprofile-unfused"]
    args = ("--model", "DiT-S/8", "--res", "256", "--counter", *chosen, "--format", "json")
    assert run(flops.main, *args) == 0
    rows = json.loads(capsys.readouterr().out)
    side = counts(explained(capsys, "DiT-S/8", "--counter", "torch"), "DiT-S/8")
    assert {row["counter"]: row["macs"] for row in rows} == {counter: side[counter] for counter in chosen}
    assert run(flops.main, *args, "--by", "op") == 0
    terms = {row["part"]: row["macs"] for row in json.loads(capsys.readouterr().out)}
    assert terms["attention products"] == 12 * 2 * 16**2 * 384
