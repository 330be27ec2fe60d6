"""Who may import whom, and what a command may import before it has read its arguments."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from models.registry import ENTRIES

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("models", "bench", "baselines", "reports")
NO_TORCH = [
    "bench/about.py",
    "bench/agreement.py",
    "bench/record.py",
    "bench/stats.py",
    "bench/curves.py",
    "bench/capacity.py",
    "bench/explain.py",
    "bench/cli.py",
    "bench/output.py",
    "bench/probing.py",
    "bench/timing.py",
    "bench/paired.py",
    "bench/exponents.py",
    "bench/resolution.py",
    "bench/cost.py",
    "bench/noise.py",
    "bench/convergence.py",
    "bench/training/identity.py",
    "bench/training/processes.py",
    "bench/floors.py",
    "bench/golden.py",
    "bench/implemented.py",
    "bench/projection.py",
    "bench/validation.py",
    "bench/convergence.py",
    "bench/training/identity.py",
    "bench/training/processes.py",
]
# what reports may take from bench
LIGHT = [
    "bench.records.labels",
    "bench.analysis.agreement",
    "bench.analysis.memory_fit",
    "bench.analysis.training_cost",
    "bench.analysis.learning_curves",
    "bench.counting.explain",
    "bench.stats.power_law",
    "bench.analysis.roofline",
    "bench.stats.ratios",
    "bench.analysis.depthwise",
    "bench.analysis.projection",
    "bench.record",
    "bench.analysis.resolution",
    "bench.stats",
    "bench.analysis.calibration",
]
COMMANDS = [
    "bench.agree",
    "bench.ceilings",
    "bench.channels",
    "bench.convergence",
    "bench.data",
    "bench.depthwise",
    "bench.flops",
    "bench.golden",
    "bench.latency",
    "bench.memory",
    "bench.note",
    "bench.operators",
    "bench.project",
    "bench.quality",
    "bench.roofline",
    "bench.sample",
    "bench.scaling",
    "bench.spectrum",
    "bench.sweep",
    "bench.throughput",
    "bench.train_step",
    "bench.training_cost",
    "bench.versus",
    "reports",
]


def imports(path: Path, *, everywhere: bool = True) -> set[str]:
    """Modules that a file imports; at its top level only unless everywhere."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    nodes = ast.walk(tree) if everywhere else tree.body
    found = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def files(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def backbones() -> list[Path]:
    return [path for path in files("models") if "\nVARIANTS" in path.read_text()]


def test_every_backbone_file_is_in_the_registry() -> None:
    assert {f"models.{path.stem}" for path in backbones()} == {entry.module for entry in ENTRIES.values()}


@pytest.mark.parametrize("path", backbones(), ids=lambda path: path.stem)
def test_a_backbone_imports_no_other_backbone(path: Path) -> None:
    ours = {name.split(".")[1] for name in imports(path) if name.startswith("models.")}
    assert ours <= {"arithmetic", "family", "layers", "kernels", "task", f"_{path.stem}_ablations"}
    assert not {name for name in imports(path) if name.split(".")[0] in ("bench", "baselines", "reports")}


@pytest.mark.parametrize(
    "path", [path for path in files("models") if path.stem != "__main__"], ids=lambda path: path.stem
)
def test_models_know_nothing_of_measuring(path: Path) -> None:
    assert not {name for name in imports(path) if name.split(".")[0] in ("bench", "baselines", "reports")}


@pytest.mark.parametrize("package", ["baselines", "reports"])
def test_data_and_reports_import_no_torch_and_no_network(package: str) -> None:
    allowed = {"baselines", "reports", "bench", *LIGHT}
    for path in files(package):
        names = imports(path)
        assert not {name for name in names if name.split(".")[0] == "torch"}
        assert not {name for name in names if name.split(".")[0] == "models"} - {
            "models.registry",
            "models.registry.ENTRIES",
        }
        ours = {".".join(name.split(".")[:2]) for name in names if name.split(".")[0] == "bench"}
        assert ours <= allowed | {"bench.cli"}, path


@pytest.mark.parametrize("name", NO_TORCH)
def test_the_light_modules_import_no_torch_at_the_top(name: str) -> None:
    assert not {module for module in imports(ROOT / name, everywhere=False) if module.startswith("torch")}


def test_the_registry_imports_neither_torch_nor_a_backbone() -> None:
    code = "import sys, models.registry; print({'torch', 'models.dit'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout == "set()\n", done.stderr


def test_triton_is_imported_in_kernels_only() -> None:
    for package in PACKAGES:
        for path in files(package):
            if "kernels" not in path.parts:
                assert not {name for name in imports(path) if name.split(".")[0] == "triton"}


@pytest.mark.parametrize("path", [p for name in PACKAGES for p in files(name)], ids=str)
def test_every_module_says_in_one_line_what_it_is_for(path: Path) -> None:
    doc = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    assert doc
    assert doc.splitlines()[0].endswith((".", "?"))


@pytest.mark.parametrize("command", COMMANDS)
def test_help_imports_no_torch_and_shows_an_example(command: str) -> None:
    code = (
        f"import sys, runpy; sys.argv = [{command!r}, '--help']\n"
        "try: runpy.run_module(sys.argv[0], run_name='__main__', alter_sys=False)\n"
        "except SystemExit as end: assert not end.code\n"
        "assert not {'torch', 'pandas', 'matplotlib'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert f"python -m {command}" in done.stdout
    assert "--out" in done.stdout
