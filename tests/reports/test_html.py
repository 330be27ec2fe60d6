"""report.html: complete without scripts, hostile text, deep links, and its behaviour in a real browser."""

import csv
import hashlib
import importlib
import io
import itertools
import re
import shlex
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree import ElementTree

import pytest

from baselines import load
from bench.records.base import Case, Record
from bench.records.note import Note
from reports import answers
from reports.__main__ import main
from reports.claims import timed as timings
from reports.claims import verdicts
from reports.figures.plots import new_figure, saved
from reports.html import board
from reports.html import page as html
from reports.html.page import command
from reports.selection import gather
from tests.records.examples import COMPARISON, RECORDS, THROUGHPUT
from tests.reports.test_reports import SEVEN, append, case, counted, skipped, timed

if TYPE_CHECKING:
    from playwright.sync_api import Page

HOSTILE = "<script>alert(1)</script>"
NOTE = Note(
    text="loud <b>neighbour</b>", about="", devices=("Some CPU",), author="", date="2026-02-01T00:00:00Z"
)


def known() -> list[Record]:
    """Counts and times of a few models, one of them with a hostile name."""
    records: list[Record] = [counted(name, macs=macs) for name, macs in (("FCDM-S", 3), ("DiT-S/2", 6))]
    for at, name in enumerate(("FCDM-S", "DiT-S/2", "DiC-S", HOSTILE, "../../x")):
        records.append(timed(case(name, precision="bf16"), *((1 + 0.5 * at) * s for s in SEVEN)))
    return [*records, skipped(case("DiCo-S"), "out of memory", "asked for ](javascript:alert(1))")]


def rendered(records: Sequence[Record]) -> str:
    found = answers.answers(gather(records), timings.timings(records), records)
    return html.render(records, [NOTE], found, verdicts.findings(records))


@pytest.fixture(scope="module")
def text() -> str:
    return rendered(known())


def test_tables_are_complete_without_scripts(text: str) -> None:
    table = text[text.index('<table id="records"') : text.index("</table>", text.index('id="records"'))]
    assert table.count("<tr") - 1 >= len(known()) + sum(len(one.rows) for one in load.tables()) // 2
    assert "<td>242.4<td>222.2 to 266.7<td>33.00" in table
    assert "out of memory: asked for ](javascript:alert(1))" in table
    assert all(f'id="claim-{number}"' in text for number in range(1, len(load.claims()) + 1))
    assert '<a id="FCDM-S/256/bf16">' in table


def test_names_and_notes_are_text(text: str) -> None:
    assert "<script>alert" not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text
    assert "loud &lt;b&gt;neighbour&lt;/b&gt;" in text
    links = re.findall(r'(?:src|href)="([^"]*)"', text[: text.index('class="chunk"')])
    assert all(link.startswith("#") or link == "data:," for link in links)


def test_names_in_figures_are_drawn_as_they_read() -> None:
    figure = new_figure(3, 3)
    axes = figure.add_subplot()
    axes.set_xscale("log")
    axes.plot([1, 1000], [1, 2], label="GPU $\\frac$ \x1b[31m\u202e<b>")
    axes.legend()
    svg = saved("x", figure, "", "").svg.decode()
    ElementTree.fromstring(svg)
    assert r"GPU $\frac$ \x1b[31m\u202e&lt;b&gt;" in svg
    assert "mathdefault" not in re.sub("<!--.*?-->", "", svg)  # powers of ten are still formulas


@pytest.mark.usefixtures("blank_figures")
def test_no_record_writes_outside_the_folder(tmp_path: Path) -> None:
    append(tmp_path / "a.jsonl", known())
    assert main(["--records", str(tmp_path / "a.jsonl"), "--out", str(tmp_path / "in/out")]) == 0
    assert {path.name for path in tmp_path.iterdir()} == {"a.jsonl", "in"}
    assert [path.name for path in (tmp_path / "in").iterdir()] == ["out"]
    pages = "".join(path.read_text() for path in (tmp_path / "in/out").glob("*.md"))
    assert "<script" not in pages.replace("\\<script", "")
    assert "](javascript" not in pages


def test_inlined_libraries_are_the_released_ones() -> None:
    table = (html.FOLDER / "vendor/README.md").read_text()
    listed = re.findall(r"\| (\S+) \| \S+ \| \S+ \| (\w{64}) \|", table)
    assert len(listed) == 4
    for name, digest in listed:
        assert hashlib.sha256((html.FOLDER / "vendor" / name).read_bytes()).hexdigest() == digest


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: str(record.case.kind))
def test_a_command_is_one_that_its_parser_takes(
    record: Record, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    words = shlex.split(command(record.case))
    for option, value in itertools.pairwise(words):
        if option in ("--checkpoint", "--weights", "--compare", "--reference"):  # files must exist
            Path(value).touch()
    importlib.import_module(words[2]).parser().parse_args(words[3:])


@pytest.mark.parametrize(
    "case",
    [
        replace(THROUGHPUT.case, processes=2, precision_target=0.03),
        replace(THROUGHPUT.case, work="training"),
        replace(COMPARISON.case, processes=4),
        replace(
            COMPARISON.case,
            arms=tuple(
                replace(arm, impl=impl, engine=engine)
                for arm in COMPARISON.case.arms
                for impl in ("reference", "fast")
                for engine in ("eager", "compile")
            ),
        ),
    ],
    ids=("pass", "training step", "two models", "two implementations and engines"),
)
def test_a_command_plans_the_case_of_its_record(case: Case) -> None:
    words = shlex.split(command(case))
    module = importlib.import_module(words[2])
    assert module.plan(module.parser().parse_args(words[3:])) == [case]


# in a browser


@pytest.fixture(scope="module")
def browser_page(text: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple["Page", list[str]]]:
    """The page from disk in headless Chromium, offline, with the messages of its console."""
    sync_api = pytest.importorskip("playwright.sync_api")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        pytest.skip("needs Chromium: apt-get install chromium")
    path = tmp_path_factory.mktemp("html") / "report.html"
    path.write_text(text, encoding="utf-8")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        context = browser.new_context(viewport={"width": 1280, "height": 900}, offline=True)
        page, messages = context.new_page(), []
        page.on("console", lambda message: messages.append(message.text))
        page.on("pageerror", lambda error: messages.append(str(error)))
        page.on("dialog", lambda dialog: messages.append(f"dialog {dialog.message}"))
        page.goto(path.as_uri())
        page.wait_for_selector(".tabulator-row")
        yield page, messages
        browser.close()


def models(page: "Page") -> list[str]:
    return page.locator(".tabulator-row a.model").all_inner_texts()


def test_the_table_sorts_filters_and_changes_columns(browser_page: tuple["Page", list[str]]) -> None:
    page, _ = browser_page
    page.locator('.tabulator-col[tabulator-field="status"] input').fill("measured")
    page.keyboard.press("Enter")
    page.wait_for_function("document.querySelectorAll('.tabulator-row').length === 6")
    assert HOSTILE in models(page)
    assert page.locator("#records").count() == 0  # the table for readers without JavaScript
    page.locator('.tabulator-col[tabulator-field="rate"] .tabulator-col-title').click()
    assert models(page)[:3] == ["FCDM-S", "DiT-S/2", "DiC-S"]
    page.locator('[data-view="counts"]').click()
    page.locator("#clear").click()
    assert page.locator('.tabulator-col[tabulator-field="gmacs"]').is_visible()
    assert not page.locator('.tabulator-col[tabulator-field="rate"]').is_visible()
    page.locator('[data-view="speed"]').click()


def test_a_row_opens_its_record_by_click_and_key(browser_page: tuple["Page", list[str]]) -> None:
    page, _ = browser_page
    page.locator(".tabulator-row", has_text="forward pass").first.click()
    page.wait_for_selector("dialog[open] svg circle")
    words = page.locator("dialog").inner_text()
    assert "python -m bench.throughput --model FCDM-S --res 256 --batch 8" in words
    assert "abc1234" in words
    assert "loud <b>neighbour</b>" in words
    page.keyboard.press("Escape")
    assert page.locator("dialog[open]").count() == 0


def test_axes_of_the_pareto_view_change_and_take_focus(browser_page: tuple["Page", list[str]]) -> None:
    page, _ = browser_page
    page.locator("#pareto").scroll_into_view_if_needed()
    page.wait_for_selector("#chart .point")
    names = page.locator("#x option").all_inner_texts()
    speed = next(name for name in names if name.startswith("images/s, measured: 256 px, Some CPU, batch 8"))
    page.select_option("#x", label=speed)
    names = page.locator("#y option").all_inner_texts()
    quality = next(name for name in names if name.startswith("FID") and "Table 3, steps 400K" in name)
    page.select_option("#y", label=quality)
    page.locator("#chart .point > *").first.focus()
    assert page.locator("#tip").is_visible()
    spoken = page.locator("#point").inner_text()
    assert "FCDM-S; images/s: 242.4 [222.2, 266.7], measured; FID: 48.52, published" in spoken
    page.keyboard.press("Enter")
    page.wait_for_selector("dialog[open] pre")
    page.keyboard.press("Escape")


def test_two_models_stand_side_by_side(browser_page: tuple["Page", list[str]]) -> None:
    page, _ = browser_page
    page.select_option("#a", "FCDM-S")
    page.select_option("#b", "DiT-S/2")
    row = page.locator("#pair tr", has_text="images/s").filter(has_text="Some CPU").first.inner_text()
    assert "242.4 [222.2, 266.7]" in row
    assert "1.5" in row.split("\t")


def test_copies_keys_themes_and_print(browser_page: tuple["Page", list[str]]) -> None:
    page, _ = browser_page
    page.locator('[data-view="speed"]').click()
    page.evaluate("navigator.clipboard.writeText = async (text) => { window.copied = text; }")
    page.locator('[data-copy="csv"]').click()
    rows = list(csv.DictReader(io.StringIO(page.evaluate("copied"))))
    (row,) = (one for one in rows if (one["model"], one["status"]) == ("FCDM-S", "measured"))
    assert (row["images/s"], row["interval"], row["device"]) == ("242.4", "222.2 to 266.7", "Some CPU")
    assert HOSTILE in {one["model"] for one in rows}
    page.locator('[data-copy="latex"]').click()
    head, *lines = page.evaluate("copied").splitlines()
    assert head.startswith("\\begin{tabular}{l")
    assert len(lines) == len(rows) + 5  # the headings, three rules and the end
    assert any(line.startswith("FCDM-S & FCDM & Some CPU & forward pass & measured & 256") for line in lines)

    page.locator(".tabulator-row a.model").first.focus()
    page.keyboard.press("Enter")
    page.wait_for_selector("dialog[open] pre")
    page.keyboard.press("Escape")
    assert page.evaluate("document.activeElement.className") == "model"

    ground = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(ground)
    page.locator("#theme").click()
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"
    assert page.evaluate(ground) != light
    page.emulate_media(media="print")
    assert page.evaluate(ground) == "rgb(255, 255, 255)"
    assert page.locator("#answers").is_visible()
    assert not any(page.locator(one).first.is_visible() for one in ("nav", ".tools", "footer"))
    page.emulate_media(media="screen")
    page.locator("#theme").click()
    assert page.evaluate(ground) == light


def test_deep_links_lead_to_claims_rows_and_records(browser_page: tuple["Page", list[str]]) -> None:
    page, messages = browser_page
    page.evaluate("location.hash = '#claim-17'")
    page.wait_for_selector("#claim-17[open]")
    page.evaluate("location.hash = '#FCDM-S/256/bf16'")
    page.wait_for_function("document.querySelectorAll('.tabulator-row').length === 1")
    assert models(page) == ["FCDM-S"]
    page.locator(".answer .links a").first.click()
    page.wait_for_selector("dialog[open] pre")
    page.keyboard.press("Escape")
    assert messages == []


def test_a_claim_that_nothing_here_can_judge_says_so() -> None:
    items = {item.claim.id: item for item in board.items(verdicts.findings([]), {})}
    assert items["fcdm-fid-fcdm-xl-dit-xl"].rule.startswith("No verdict here")
    assert items["fcdm-params-fcdm-xl"].rule.startswith("Counted: holds from 698.")
