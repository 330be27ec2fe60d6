"""The report: published, counted and measured columns, wrong input, equal bytes in every run."""

import os
import re
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import replace
from functools import cache
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules

import pytest

from baselines import load
from bench.records.base import Record, Skipped
from bench.records.counts import CountCase, MacCount
from bench.records.throughput import Throughput, ThroughputCase
from bench.store.codec import key, to_line
from reports import answers, overview, page, sections
from reports.__main__ import main
from reports.claims.timed import timings
from reports.markdown import BLANK, harmless, with_contents
from reports.naming import dit_of, family, order, size
from reports.papers.compared import COUNTED
from reports.sections import paper_figures, paper_tables
from reports.selection import PAPERS_RULES, gather, is_own_size
from tests.analysis.builders import compared
from tests.commands import run
from tests.records.examples import ENVIRONMENT, OPERATORS, PASS, QUALITY, THROUGHPUT

CPU = replace(ENVIRONMENT, device="Some CPU", commit="abc1234", date="2026-01-02T03:04:05+00:00")


def counted(
    model: str = "FCDM-XL", *, res: int = 256, macs: int = 77_777_000_000, counter: str = "torchprofile-meta"
) -> MacCount:
    case = CountCase(
        device="meta",
        model=model,
        family=family(model),
        res=res,
        latent_size=res // 8,
        batch=1,
        counter=counter,
    )
    return MacCount(
        case=case,
        environment=CPU,
        params=699_000_000,
        params_trainable=699_000_000,
        macs=macs,
        train_macs=3 * macs,
        train_macs_checkpointed=4 * macs,
        not_counted=(),
        remarks=(),
    )


def case(model: str = "FCDM-XL", *, res: int = 256, precision: str = "fp32") -> ThroughputCase:
    sizes = {"res": res, "latent_size": res // 8, "batch": 8}
    return ThroughputCase(
        **{**PASS, **sizes, "model": model, "family": family(model), "precision": precision}
    )


def timed(of: ThroughputCase, *times_s: float, date: str = CPU.date) -> Throughput:
    environment = replace(CPU, date=date)
    return replace(THROUGHPUT, case=of, environment=environment, times_s=times_s, warmup_times_s=(), unmet=())


def skipped(of: ThroughputCase, status: str, reason: str, *, date: str = CPU.date) -> Skipped:
    return Skipped(case=of, environment=replace(CPU, date=date), status=status, reason=reason)


def append(path: Path, records: Iterable[Record]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(map(to_line, records)))


PASS_OF_CASE = {"res": 256, "latent_size": 32, "batch": 8, "precision": "fp32"}
SEVEN = (0.030, 0.031, 0.032, 0.033, 0.034, 0.035, 0.036)  # median 33 ms, interval the whole range


@cache
def report(*records: Record) -> str:
    evidence = gather(records)
    parts = [overview.head(records, evidence)]
    parts += [section(records)[0] for section in (overview.counts, overview.speeds, paper_tables.section)]
    return "\n\n".join(parts)


def columns(text: str, heading: str) -> dict[str, list[str]]:
    """Read the first markdown table under a heading of the report."""
    lines = text[text.index(heading) :].splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("|"))
    table = [
        [cell.strip() for cell in line.strip("|").split(" |")]
        for line in lines[start:]
        if line.startswith("|")
    ]
    height = next((i for i, line in enumerate(lines[start:]) if not line.startswith("|")), len(table))
    head, _, *rows = table[:height]
    return {name: [row[i] for row in rows] for i, name in enumerate(head)}


EVERY = [*map(load.table, paper_tables.TABLES)]
SHOWN = {f"## {table.paper} Table {table.number}:": {*table.columns} for table in EVERY}
NAMES = {"model", "variant", "our model"}


def test_networks_on_pixels_are_shown_at_their_own_size() -> None:
    shown = {"ADM-64": 64, "JiT-B/32": 512, "U-ViT-M/4-img64": 64}
    for name, own in shown.items():
        assert [res for res in (64, 256, 512) if is_own_size(counted(name, res=res))] == [own]
    assert all(is_own_size(counted(name, res=1024)) for name in ("FCDM-S", "net.py:Net", "<b>-64"))


def test_every_table_of_both_papers_is_regenerated() -> None:
    assert {table.id for table in load.tables()} == {*paper_tables.TABLES}
    assert all(heading in report() for heading in SHOWN)


@pytest.mark.parametrize("heading", SHOWN)
def test_without_records_no_column_of_ours_holds_a_number(heading: str) -> None:
    found = columns(report(), heading)
    assert NAMES & {*found}
    here = {head: cells for head, cells in found.items() if "published" not in head and head not in NAMES}
    assert any("counted here" in head for head in here) == bool(COUNTED.keys() & SHOWN[heading])
    assert all(set(cells) == {BLANK} for cells in here.values())


@pytest.mark.parametrize("heading", [head for head, own in SHOWN.items() if "gflops" in own])
def test_records_never_change_a_published_column(heading: str) -> None:
    models = ["FCDM-S", "FCDM-L", "FCDM-XL", "DiT-S/2", "DiT-XL/2", "DiCo-S", "DiCo-XL", "DiG-XL/2"]
    models += ["LightningDiT-XL/1"]
    records: list[Record] = [counted(model, res=res) for model in models for res in (256, 512)]
    records += [timed(case(model, res=res), *SEVEN) for model in models for res in (256, 512)]
    before, after = columns(report(), heading), columns(report(*records), heading)
    assert before != after
    assert {h: c for h, c in before.items() if "published" in h} == {
        h: c for h, c in after.items() if "published" in h
    }


def test_an_ablation_is_counted_as_our_model_of_its_row() -> None:
    table = columns(report(counted("FCDM-L@k5", macs=48_142_000_000)), "## FCDM Table 6:")
    row = table["variant"].index("5x5 DWConv")
    assert table["our model"][row] == "FCDM-L@k5"
    assert table["GMACs, counted here"][row] == "48.14"
    assert table["GMACs, difference"][row] == "-0.12 %"  # the paper prints 48.2
    open_row = columns(report(), "## DiCo Table 4:")
    at = open_row["variant"].index("CM -> Agent Attn")
    assert open_row["our model"][at] == BLANK
    assert open_row["÷ first, published"][at] == "0.68"  # of the first row of its group


def test_printed_hours_give_the_rate_of_a_gpu() -> None:
    table = columns(report(counted("DiCo-S", macs=4_000_000_000, counter="torch")), "## DiCo Table 6:")
    assert table["training ZFLOPs, counted here"][0] == "0.002458"  # 24 GFLOPs x 400K steps x 256
    assert table["TFLOP/s a GPU: counted FLOPs / published hours"][0] == "7.8"  # 11 hours of 8 GPUs


def test_predicted_speeds_have_a_column_of_their_own() -> None:
    of = replace(OPERATORS.case, model="FCDM-S", res=256, batch=64, precision="fp32", work="inference")
    table = columns(report(replace(OPERATORS, case=of)), "## FCDM Table 3:")
    row = table["model"].index("FCDM-S")
    assert re.fullmatch(r"[\d,.]+ \[[\d,.]+, [\d,.]+\]", table["images/s, predicted"][row])
    assert table["images/s, measured here"][row] == BLANK
    assert table["images/s, published"][row] == "2687.2"
    assert "images/s, predicted" not in columns(report(), "## FCDM Table 3:")


def test_what_is_published_only_says_why() -> None:
    table = columns(report(), "## Published only")
    assert len(table["what"]) == len(load.rows("published_only.csv"))
    assert BLANK not in {*table["why"], *table["nearest here"]}


@pytest.mark.usefixtures("blank_figures")
def test_figures_of_the_papers_have_counted_and_measured_numbers() -> None:
    text, drawings = paper_figures.section([counted(), timed(case("DiCo-S", res=512), *SEVEN)])
    assert [one.picture.name for one in drawings] == ["fcdm_figure06", "dico_figure03"]
    figure = columns(text, "## FCDM Figure 6")
    assert figure["training ZMACs from published MACs"][figure["model"].index("FCDM-XL")] == "0.099"
    assert figure["training ZMACs from counted MACs"][figure["model"].index("FCDM-XL")] == "0.119"
    figure = columns(text, "## DiCo Figure 3")
    assert figure["ms an image, measured here (M1)"][figure["model"].index("DiCo-S")] == "4.125"
    assert figure["lowest FID, published"][figure["model"].index("DiCo-XL")] == "2.53"


def test_published_cells_keep_their_printed_text() -> None:
    table = columns(report(), "## FCDM Table 3:")
    assert table["images/s, published"][0].startswith("1234.0")
    assert table["FID, published"][0] == "68.40"


def test_the_difference_says_when_the_digits_agree() -> None:
    table = columns(
        report(counted("FCDM-S", macs=3_082_699_540), counted("DiCo-S", macs=4_400_000_000)),
        "## FCDM Table 3:",
    )
    rows = dict(
        zip(
            table["model"],
            zip(table["GMACs, counted here"], table["GMACs, difference"], strict=True),
            strict=True,
        )
    )
    assert rows["FCDM-S"] == ("3.083", "-0.56 % (=)")
    assert rows["DiCo-S"] == ("4.400", "+2.33 %")
    assert rows["DiT-S/2"] == (BLANK, BLANK)


def test_published_tables_prefer_torchprofiles_rules() -> None:
    records = [
        counted(macs=1_000_000_000, counter="torch"),
        counted(macs=2_000_000_000, counter="torchprofile"),
        counted(macs=3_000_000_000, counter="torchprofile-meta"),
    ]
    found = [gather(records[:n]).count("FCDM-XL", 256, PAPERS_RULES) for n in (1, 2, 3)]
    assert [count.macs // 10**9 for count in found if count] == [1, 2, 3]
    assert "counter torchprofile-meta" in report(*records)


def test_a_measured_cell_is_the_median_with_its_interval() -> None:
    table = columns(report(timed(case(), *SEVEN)), "## FCDM Table 1:")
    cell = table["images/s, measured here (M1)"][table["model"].index("FCDM-XL")]
    assert cell == "242.4 [222.2, 266.7]‡"  # 8 images in 33, 36 and 30 ms, of one process


def test_too_few_samples_have_no_interval() -> None:
    assert "250.0 (n = 3, no interval)" in report(timed(case(), 0.031, 0.032, 0.033))


def test_the_measured_ratio_stands_beside_the_published_one() -> None:
    table = columns(
        report(timed(case(), *SEVEN), timed(case("DiT-XL/2"), *(3 * s for s in SEVEN))), "## FCDM Table 3:"
    )
    row = table["model"].index("FCDM-XL")
    assert table["÷ DiT, measured here (M1)"][row] == "3.00"
    assert table["÷ DiT, published"][row] == "3.39"


def test_interleaved_passes_have_columns_of_their_own() -> None:
    rounds = compared({"DiT-XL/2": 1, "FCDM-XL": 1.5}, CPU, spread=0.01, **PASS_OF_CASE)
    text = report(timed(case("DiT-XL/2"), *SEVEN), rounds)
    table = columns(text, "## FCDM Table 3:")
    row, dit = table["model"].index("FCDM-XL"), table["model"].index("DiT-XL/2")
    assert "**Measured here (M2)**: Some CPU, fp32, batch 8, interleaved; " in text
    assert table["images/s, measured here (M1)"][row] == BLANK  # no ratio of rounds and passes timed alone
    assert table["images/s, measured here (M1)"][dit].startswith("242.4 ")
    assert re.fullmatch(r"1[12]\.\d+ \[.*\]", table["images/s, measured here (M2)"][row])
    assert re.fullmatch(r"1\.5\d \[1\.\d\d, 1\.\d\d\]", table["÷ DiT, measured here (M2)"][row])


def test_every_setting_has_a_column_with_its_conditions() -> None:
    text = report(timed(case(), *SEVEN), timed(case(precision="bf16"), *SEVEN))
    table = columns(text, "## FCDM Table 1:")
    assert {"images/s, measured here (M1)", "images/s, measured here (M2)"} <= set(table)
    assert (
        "**Measured here (M1)**: Some CPU, bf16, batch 8; threads 2; weights random; torch 2.13.0; " in text
    )
    assert "commit abc1234; date 2026-01-02." in text


def test_a_table_shows_only_the_timings_of_its_resolution() -> None:
    text = report(timed(case(res=512), *SEVEN))
    assert "images/s, measured here (M1)" in columns(text, "## FCDM Table 5:")
    assert "images/s, measured here (M1)" not in columns(text, "## FCDM Table 3:")


def test_a_skipped_case_is_a_row_with_its_status_and_reason() -> None:
    text = report(skipped(case(), "out of memory", "asked for 2 GiB | had 1"))
    table = columns(text, "## FCDM Table 3:")
    assert table["images/s, measured here (M1)"][table["model"].index("FCDM-XL")] == "out of memory"
    assert columns(text, "## Cases without a number")["status"] == ["out of memory"]
    assert "asked for 2 GiB \\| had 1" in text


def test_the_newest_record_of_a_case_wins_in_any_order() -> None:
    old = timed(case(), *(2 * s for s in SEVEN), date="2025-01-01T00:00:00+00:00")
    new = timed(case(), *SEVEN)
    failed = skipped(case(), "crashed", "signal 9", date="2025-06-01T00:00:00+00:00")
    assert report(old, new, failed) == report(failed, new, old)
    assert "242.4 [222.2, 266.7]" in report(old, new, failed)
    assert "2 of them are superseded by a newer record of the same case" in report(old, new, failed)
    assert "crashed" not in report(old, new, failed)


@pytest.mark.parametrize(("slower", "processes", "best"), [(1.1, 1, 2), (1.5, 1, 1), (1.1, 3, 1)])
def test_one_process_decides_only_what_processes_cannot(slower: float, processes: int, best: int) -> None:
    each = tuple(0.03 * (1 + i % 2 / 100) for i in range(20))
    starts = tuple(20 * i for i in range(1, processes))
    records = [
        replace(timed(case(model), *[by * s for s in each * processes]), process_starts=starts)
        for model, by in (("FCDM-S", 1.0), ("DiC-S", slower))
    ]
    found = answers.answers(gather(records), timings(records), records)
    assert [len(one.best) for one in found if one.question == answers.FASTEST] == [best]


def test_interleaved_rounds_answer_where_no_pass_was_timed_alone() -> None:
    def fastest(*records: Record) -> list[answers.Answer]:
        found = answers.answers(gather(records), timings(records), records)
        return [one for one in found if one.question == answers.FASTEST]

    (decided,) = fastest(compared({"DiT-S/2": 1, "FCDM-S": 1.5, "DiCo-S": 1.2}, spread=0.01))
    assert (decided.best, decided.among) == (("FCDM-S",), ("FCDM-S", "DiCo-S", "DiT-S/2"))
    assert len(decided.records) == 3
    assert re.fullmatch(r"1\.\d+ \[1\..*\] times the speed of DiT-S/2, .*", decided.number("measured"))
    (open_,) = fastest(compared({"DiT-S/2": 1, "FCDM-S": 1.5, "DiCo-S": 1.49}, spread=0.05))
    assert {*open_.best} >= {"FCDM-S", "DiCo-S"}
    assert open_.text.startswith("cannot tell ")
    uncertain = compared({"DiT-S/2": 1, "DiC-S": 1.2}, spread=0.15)  # may be faster than the fastest
    (three,) = fastest(compared({"DiT-S/2": 1, "FCDM-S": 1.5, "DiCo-S": 1.3}, spread=0.01), uncertain)
    assert three.best == ("FCDM-S", "DiC-S")
    assert fastest(compared({"DiT-S/2": 1, "FCDM-S": 1.5}, processes=1)) == []


def test_remarks_follow_the_cells_they_are_about() -> None:
    text = report()
    table = columns(text, "## FCDM Table 3:")
    cells = {
        (model, steps): fid
        for model, steps, fid in zip(
            table["model"], table["training steps, published"], table["FID, published"], strict=True
        )
    }
    mark = re.search(r"\[r\d+\]", cells["FCDM-XL", "400K"])
    assert mark is not None
    assert cells["FCDM-XL", "1M"] == "7.91"
    assert f"- {mark[0]} FID 10.72" in text


def test_digs_full_count_stands_beside_the_published_one() -> None:
    heading = "## What DiG's published MACs leave out"
    row = {head: cells[-1] for head, cells in columns(report(), heading).items()}
    assert list(row.values()) == ["DiG-XL/2", "89.40", "89.33", "25.37", "0.5285", "115.2", BLANK]
    full = load.dig_macs()["DiG-XL/2", 32]["matmul_conv_gla_all"]
    record = counted("DiG-XL/2", macs=full, counter="torch")
    assert columns(report(record), heading)["in full, counted here"] == [*[BLANK] * 3, "115.2"]


def test_models_pair_with_the_dit_of_their_size() -> None:
    assert [dit_of(name) for name in ("FCDM-XL", "DiT-B/4", "DiC-H", "my_mod:factory")] == [
        "DiT-XL/2",
        "DiT-B/2",
        "",
        "",
    ]
    assert (family("U-ViT-H/2"), size("U-ViT-H/2"), size("FCDM-L@na7")) == ("U-ViT", "H", "L")
    assert (family("EDM2-XXL"), size("EDM2-XS-img64"), family("HDiT-oxford-flowers")) == (
        "EDM2",
        "XS",
        "HDiT",
    )
    assert sorted(("DiT-S/2", "FCDM-XL", "zoo:net", "FCDM-S"), key=order) == [
        "FCDM-S",
        "FCDM-XL",
        "DiT-S/2",
        "zoo:net",
    ]


def test_two_processes_write_the_same_bytes(tmp_path: Path) -> None:
    sizes = ("-S", "-B", "-XL")  # a figure of many panels
    models = [
        model for model, latent in load.macs() if latent == 32 and model.partition("/")[0].endswith(sizes)
    ]
    records: list[Record] = [counted(), counted("my_mod:factory")]
    records += [timed(case(model, res=res), *SEVEN) for model in models for res in (256, 512)]
    append(tmp_path / "a.jsonl", records)
    append(tmp_path / "b.jsonl", reversed(records))
    written = []
    for name, seed in (("a", "1"), ("b", "2")):  # the order of sets and the solver of layouts depend on it
        command = [sys.executable, "-m", "reports", "--records", f"{tmp_path / name}.jsonl"]
        subprocess.run(
            [*command, "--out", str(tmp_path / name)],
            env=os.environ | {"PYTHONHASHSEED": seed},
            cwd=Path(__file__).parents[2],
            capture_output=True,
            check=True,
        )
        files = [path for path in sorted((tmp_path / name).rglob("*")) if path.is_file()]
        written.append({str(path.relative_to(tmp_path / name)): path.read_bytes() for path in files})
    assert written[0] == written[1]
    assert {"report.md", "claims.md", "plots/macs_fid.svg", "plots/claims_some-cpu.svg"} <= set(written[0])
    pages = "".join(text.decode() for name, text in written[0].items() if name.endswith(".md"))
    links = re.findall(r"\(((?:plots/)?[\w-]+\.(?:svg|md))\)", pages)
    assert set(links) == {name for name in written[0] if name.endswith((".md", ".svg"))}


def test_without_records_the_report_names_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("baselines.load.MEASURED", tmp_path / "none")
    assert main([]) == 0
    out, err = capsys.readouterr()
    assert out.startswith(f"{Path('reports/out/report.md')}, with ")
    assert err.startswith("no records")
    assert "python -m bench.flops" in (tmp_path / "reports/out/report.md").read_text(encoding="utf-8")


def test_the_default_is_the_last_run_and_the_suites_records(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("baselines.load.MEASURED", tmp_path / "measured")
    append(tmp_path / "reports/out/records.jsonl", [counted("FCDM-S")])
    append(tmp_path / "measured/some-gpu/first.jsonl", [counted("FCDM-B")])
    assert main([]) == 0
    table = columns(
        (tmp_path / "reports/out/counting.md").read_text(encoding="utf-8"), "## Counts of every model"
    )
    assert table["model"] == ["FCDM-S", "FCDM-B"]


@pytest.mark.parametrize(
    "content",
    [b'{"kind": "counted"}\n', b"not json\n", b"\xff\xfe\x00", b'{"kind": "timed", "schema": 1}\n', None],
)
def test_unreadable_records_end_in_one_line_and_write_nothing(
    content: bytes | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "x.jsonl"
    if content is not None:
        path.write_bytes(content)
    assert run(main, "--records", str(path), "--out", str(tmp_path / "out")) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("python -m reports: --records")
    assert str(path) in err
    assert err.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_an_out_that_cannot_be_written_ends_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    append(tmp_path / "a.jsonl", [counted()])
    blocked = tmp_path / "file"
    blocked.write_text("")
    assert main(["--records", str(tmp_path / "a.jsonl"), "--out", str(blocked)]) == 2
    err = capsys.readouterr().err
    assert err.startswith(f"python -m reports: --out {blocked}: ")
    assert err.count("\n") == 1


def test_rows_name_the_keys_of_their_records() -> None:
    record = timed(case(), *SEVEN)
    text = report(record)
    table = text[text.index("## Images per second") :]
    assert f"<!-- records: {key(record.case, record.environment)} -->" in table


def test_the_report_says_where_its_samples_are_judged() -> None:
    assert "nothing here samples" not in report()


def test_a_count_on_the_meta_device_says_so() -> None:
    meta = replace(counted(), environment=replace(CPU, device="", device_type="meta"))
    assert "device meta; torch 2.13.0; commit abc1234; date 2026-01-02." in report(meta)


def test_markup_and_links_in_records_are_text() -> None:
    ours = "[claims.md](claims.md) ![x](plots/a_b.svg) <!-- records: 0a1b; 2c -->\n"
    assert harmless(ours) == ours
    assert harmless("<script> [x](javascript:alert(1)) [y](../../z.md)") == (
        "\\<script> [x]\\(javascript:alert(1)) [y]\\(../../z.md)"
    )


def test_plots_of_an_earlier_run_are_removed(tmp_path: Path) -> None:
    (tmp_path / "plots").mkdir()
    (tmp_path / "plots/old.svg").write_text("")
    append(tmp_path / "a.jsonl", [counted()])
    assert main(["--records", str(tmp_path / "a.jsonl"), "--out", str(tmp_path)]) == 0
    plots = {path.name for path in (tmp_path / "plots").iterdir()}
    assert plots == {"macs_fid.svg", "fcdm_figure06.svg", "dico_figure03.svg"}


def test_the_report_is_short_and_counts_every_kind_of_record(tmp_path: Path) -> None:
    append(tmp_path / "a.jsonl", [QUALITY])
    assert main(["--records", str(tmp_path / "a.jsonl"), "--out", str(tmp_path)]) == 0
    text = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert "**Records.** 1: 1 quality." in text
    assert text.count("\n") <= 250


def test_a_page_begins_with_links_to_its_sections() -> None:
    text = "# Page\n\nWords.\n\n## FCDM Table 1: DiT, again\n\ntext\n\n### Part\n\n## Floors\n\n## Floors\n"
    assert with_contents(text) == text.replace(
        "Words.\n",
        "Words.\n\n**Contents.** [FCDM Table 1: DiT, again](#fcdm-table-1-dit-again) · [Floors](#floors) · "
        "[Floors](#floors-1)\n",
    )
    assert with_contents("no section\n") == "no section\n"


def test_every_section_has_a_place_of_its_own_on_a_page() -> None:
    files = {topic.file for topic in page.TOPICS}
    names = [module.name for module in iter_modules(sections.__path__, "reports.sections.")]
    parts = {f"reports.sections.{name}" for name in ("loss_differences", "notes", "published_convergence")}
    places = [import_module(name).PLACE for name in names if name not in parts]
    places += [place for place, _ in page.OVERVIEWS]
    assert len({*places}) == len(places) == sum(len(topic.sections) for topic in page.TOPICS)
    assert {file for file, _ in places} == files
