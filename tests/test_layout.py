"""The rooms and their layers: imports found by parsing the sources."""

import ast
import json
import runpy
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from bench.cli.commands import commands
from models.registry import ENTRIES

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("models", "bench", "baselines", "reports")
# the lower layer never imports the higher; a room is a package below bench, or a top-level package
LAYERS = (
    ("bench.stats", "bench.tables", "models", "baselines"),
    ("bench.records", "bench.store"),
    (
        *("bench.counting", "bench.measure", "bench.machine", "bench.analysis"),
        *("bench.training", "bench.datasets", "bench.sampling"),
    ),
    ("bench.jobs", "bench.cli"),
    ("bench", "reports"),
    ("bench.api",),  # the commands as functions
)
ROOMS = {room for layer in LAYERS for room in layer}
NO_TORCH = ("bench.stats", "bench.tables", "bench.records", "bench.store", "bench.analysis", "reports")
ARGPARSE = ("bench", "bench.cli")
COMMANDS = [*(f"bench.{name}" for name in commands()), "models", "reports"]


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


SOURCES = {module_name(path): path for name in PACKAGES for path in sorted((ROOT / name).rglob("*.py"))}


@cache
def imports(path: Path, *, everywhere: bool = True) -> set[str]:
    """Modules that a file imports, but for types; at its top level only unless everywhere."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    typing_only = {
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for inner in ast.walk(node)
    }
    found = set()
    for node in ast.walk(tree) if everywhere else tree.body:
        if node in typing_only:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name in SOURCES else node.module for name in names}
    return found


def room(module: str) -> str:
    """The room of a module of ours: bench.stats, or bench for a command, or a top-level package."""
    parts = module.split(".")
    if parts[0] == "bench" and len(parts) > 1 and f"bench.{parts[1]}" in ROOMS:
        return f"bench.{parts[1]}"
    # the commands of models and of baselines are commands like those of bench
    return "bench" if parts[-1] == "__main__" else parts[0]


def layer(module: str) -> int:
    return next(number for number, rooms in enumerate(LAYERS) if room(module) in rooms)


def ours(path: Path) -> set[str]:
    return {name for name in imports(path) if name.split(".")[0] in PACKAGES and name in SOURCES}


@pytest.mark.parametrize("module", SOURCES)
def test_a_module_imports_its_own_layer_or_lower(module: str) -> None:
    higher = {name for name in ours(SOURCES[module]) if layer(name) > layer(module)}
    assert not higher


@pytest.mark.parametrize("module", [m for m in SOURCES if room(m) == "bench" and m != "bench"])
def test_a_command_imports_no_command(module: str) -> None:
    others = {name for name in ours(SOURCES[module]) if room(name) == "bench" and name != "bench"}
    assert not others


def test_no_module_imports_itself_in_a_circle() -> None:
    arrows = {module: ours(path) - {module} for module, path in SOURCES.items()}
    while free := {module for module, targets in arrows.items() if not targets & arrows.keys()}:
        arrows = {module: targets for module, targets in arrows.items() if module not in free}
    assert not arrows, f"in circles, or importing one: {sorted(arrows)}"


@pytest.mark.parametrize("module", [m for m in SOURCES if m.startswith("bench.") and room(m) not in ARGPARSE])
def test_only_commands_and_cli_know_argparse(module: str) -> None:
    assert "argparse" not in imports(SOURCES[module])


@pytest.mark.parametrize("name", NO_TORCH)
def test_rooms_of_records_and_reports_load_no_torch(name: str) -> None:
    modules = [module for module in SOURCES if room(module) == name and not module.endswith("__main__")]
    code = (
        f"import sys, importlib\nfor m in {modules}: importlib.import_module(m)\n"
        "assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("module", [m for m in SOURCES if room(m) == "models"])
def test_triton_is_imported_in_kernels_only(module: str) -> None:
    assert "kernels" in module or not {n for n in imports(SOURCES[module]) if n.split(".")[0] == "triton"}


BACKBONES = [m for m in SOURCES if room(m) == "models" and "\nVARIANTS" in SOURCES[m].read_text()]


def test_every_backbone_file_is_in_the_registry() -> None:
    assert set(BACKBONES) == {entry.module for entry in ENTRIES.values()}


@pytest.mark.parametrize("module", BACKBONES)
def test_a_backbone_imports_no_other_backbone(module: str) -> None:
    assert not ours(SOURCES[module]) & {*BACKBONES, "models.registry"} - {module}


@pytest.mark.parametrize("module", SOURCES)
def test_a_module_says_what_it_is_and_is_short(module: str) -> None:
    source = SOURCES[module].read_text(encoding="utf-8")
    doc = ast.get_docstring(ast.parse(source))
    if source.strip():
        assert doc
        assert doc.splitlines()[0].endswith(".")
    assert source.count("\n") <= 400


HELPS = """
import contextlib, io, json, runpy, sys
commands, found = sys.argv[1:], {}
for command in commands:
    sys.argv, printed, code = [command, "--help"], io.StringIO(), 0
    with contextlib.redirect_stdout(printed):
        try:
            runpy.run_module(command, run_name="__main__", alter_sys=False)
        except SystemExit as end:
            code = end.code
    found[command] = printed.getvalue(), code, sorted({"torch", "matplotlib", "scipy"} & set(sys.modules))
print(json.dumps(found))
"""


@cache
def helps() -> dict[str, tuple[str, int, list[str]]]:
    """What each command prints, its exit code, and the slow packages loaded by then, all in one process."""
    done = subprocess.run([sys.executable, "-c", HELPS, *COMMANDS], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    found: dict[str, tuple[str, int, list[str]]] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("command", COMMANDS)
def test_help_fits_on_a_screen_and_loads_no_torch(command: str) -> None:
    printed, code, slow = helps()[command]
    assert not code
    assert slow == []
    assert f"python -m {command}" in printed
    assert printed.count("\n") <= 60


RENAMED = sorted(p.stem for p in (ROOT / "bench").glob("*.py") if "cli.renamed" in p.read_text())


@pytest.mark.parametrize("old", RENAMED)
def test_an_old_command_names_the_new_one(old: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        runpy.run_module(f"bench.{old}", run_name="__main__")
    printed = capsys.readouterr()
    assert (ended.value.code, printed.out, printed.err.count("\n")) == (2, "", 1)
    assert printed.err.startswith(f"python -m bench.{old}: replaced by python -m bench.")
