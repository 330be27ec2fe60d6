"""README.md and docs/commands.md: what they show is what the records, the commands and the files hold."""

import re
from pathlib import Path

import pytest

from bench.cli.commands import commands
from models.contract import check
from models.task import LATENTS
from reports import readme

TEXT = readme.README.read_text(encoding="utf-8")
COMMANDS = readme.COMMANDS.read_text(encoding="utf-8")


def test_the_readmes_table_is_that_of_the_records() -> None:
    assert readme.block(readme.table(readme.suite_records())) in TEXT, "python -m reports.readme writes it"


def test_the_readme_is_short_and_its_links_lead_somewhere() -> None:
    assert TEXT.count("\n") < 120
    targets = re.findall(r"\]\(([^)]+)\)", TEXT)
    assert targets
    assert all((readme.ROOT / target).exists() for target in targets)


def test_the_plot_of_the_readme_names_its_models() -> None:
    plot = readme.PLOT.read_text(encoding="utf-8")
    assert all(f">{model}<" in plot for model in readme.MODELS)


def test_every_command_is_listed_with_its_page() -> None:
    assert readme.block(readme.commands_table()) in COMMANDS, "python -m reports.readme writes it"
    assert set(re.findall(r"python -m bench\.(\w+)", TEXT + COMMANDS)) <= set(commands())
    assert all((readme.COMMANDS.parent / f"{name}.md").exists() for name in commands())


def test_the_readmes_model_of_five_lines_meets_the_interface(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = re.search(r"```python\n(class .*?)```", TEXT, re.DOTALL)
    assert code
    assert sum(map(bool, code[1].splitlines())) == 5
    (tmp_path / "net_of_the_readme.py").write_text(f"from torch import nn\n\n{code[1]}")
    monkeypatch.syspath_prepend(str(tmp_path))
    check("net_of_the_readme:Net", LATENTS)
