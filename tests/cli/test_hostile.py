"""Hostile input to every command: one line, exit code 2, nothing left behind."""

import argparse
import csv
import importlib
import io
import json
import os
import signal
import sys
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import pytest
import torch

from bench import flops
from bench.machine import environment
from bench.measure import passes
from bench.records.base import ModelCase
from bench.records.comparison import ComparisonCase
from bench.records.throughput import TABLE
from bench.store.files import why_not_writable
from bench.tables.render import FORMATS, render
from tests.commands import run
from tests.records.examples import CASE, SKIPPED, THROUGHPUT
from tests.test_layout import COMMANDS
from tests.tiny import Tiny

RAISES = {
    "assertion": 'assert 1 == 2, "one is two"',
    "exit": "raise SystemExit(0)",
    "memory": "raise MemoryError",
    "recursion": "def again():\n    return again()\nagain()",
    "closed": "import sys\nsys.stdout.close()",
    "warning": 'import warnings\nwarnings.simplefilter("error")\nwarnings.warn("old")',
    "leaves": "import os\nos._exit(0)",
    "replaced": "import os\nos.execl('/bin/true', 'true')",
    "unprintable": "class E(BaseException):\n    def __str__(self): raise SystemExit\nraise E",
    "absent": "import absent_package",
    "syntax": "def (",
    "long": 'raise ValueError("\\x1b[31m" + "x" * 1000)',
}


@pytest.mark.parametrize("where", ["import", "factory", "eval", "call"])
@pytest.mark.parametrize("kind", RAISES)
def test_what_users_code_raises_is_one_line(
    kind: str, where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    if kind == "syntax" and where != "import":
        pytest.skip("a file that cannot be parsed fails at its import")
    name = f"net_{kind}_{where}"
    body = RAISES[kind].replace("\n", "\n        ")
    parts = {
        "import": f"{RAISES[kind]}\ndef factory(task): return None",
        "factory": f"def factory(task):\n        {body}",
        "eval": f"class factory(Tiny):\n    def eval(self):\n        {body}\n        return super().eval()",
        "call": f"class factory(Tiny):\n    def forward(self, x, t, y):\n        {body}\n"
        "        return super().forward(x, t, y)",
    }
    (tmp_path / f"{name}.py").write_text(f"from tests.tiny import Tiny\n{parts[where]}\n")
    monkeypatch.syspath_prepend(tmp_path)
    with ExitStack() as stack:
        for stream, number in (("stdout", 1), ("stderr", 2)):  # a user's code may close them
            own = stack.enter_context(os.fdopen(os.dup(number), "w", buffering=1))
            monkeypatch.setattr(sys, stream, own)
        assert run(flops.main, "--model", f"{name}:factory", "--res", "64") == 2
        monkeypatch.undo()
    out, err = capfd.readouterr()
    assert out == ""
    assert f"--model {name}:factory: " in err
    assert err.count("\n") == 1
    assert len(err) <= 301
    assert err.rstrip("\n").isprintable()
    if kind not in ("closed", "syntax", "long"):
        assert f"({name}.py:" in err


class _Ends(Tiny):
    """Ends the process in its second pass."""

    passes = 0

    def forward(self, x: torch.Tensor, t: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        _Ends.passes += 1
        if _Ends.passes > 1:
            (sys.exit if _Ends.passes == 2 else os._exit)(0)
        return super().forward(x, t, y)


def test_a_pass_that_ends_the_process_is_a_row(capsys: pytest.CaptureFixture[str]) -> None:
    models = f"{__name__}:_Ends", f"{__name__}:Tiny"
    assert run(flops.main, "--model", *models, "--res", "64", "--counter", "torch", "--format", "csv") == 0
    ends, tiny = csv.DictReader(io.StringIO(capsys.readouterr().out))
    assert ends["reason"] == "SystemExit: 0"
    assert int(tiny["macs"]) > 0


CHANGES = """
import os, sys, time
import torch
torch.set_default_dtype(torch.float64)
torch.set_num_threads(torch.get_num_threads() + 1)
torch.set_default_device("meta")
os.environ["OMP_NUM_THREADS"] = "7"
os.chdir("/")
time.perf_counter = lambda: 0.0
print("text")
import argparse, builtins, signal
argparse.ArgumentParser().parse_args()
builtins.open = signal.signal(signal.SIGALRM, lambda *_: 1 / 0)
signal.setitimer(signal.ITIMER_REAL, 600)
torch.backends.mkldnn.enabled = False
from tests.tiny import Tiny
sys.modules["torch"] = None
"""


def test_global_state_that_users_code_changes_is_restored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import time

    def state() -> tuple[object, ...]:
        torch_state = torch.get_default_dtype(), torch.get_num_threads(), torch.empty(0).device
        process = open, signal.getsignal(signal.SIGALRM), signal.getitimer(signal.ITIMER_REAL)[0] > 0
        kernels = torch.backends.mkldnn.enabled, sys.modules["torch"], sys.argv[:]
        return (
            *torch_state,
            *process,
            *kernels,
            dict(os.environ),
            Path.cwd(),
            time.perf_counter,
            sys.path[:],
        )

    (tmp_path / "net_changes.py").write_text(CHANGES)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "argv", ["bench.flops", "--model", "net_changes:Tiny"])
    before = state()
    assert run(flops.main, "--model", "net_changes:Tiny", "--res", "64", "--format", "csv") == 0
    assert state() == before
    assert "text" not in capsys.readouterr().out


class _Threads(Tiny):
    """Leaves another number of threads to the process at each pass: two or three."""

    def forward(self, x: torch.Tensor, t: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        torch.set_num_threads(3 if torch.get_num_threads() == 2 else 2)
        return super().forward(x, t, y)


class _Counts(Tiny):
    """Writes the number of threads of each pass into a list."""

    seen: ClassVar[list[int]] = []

    def forward(self, x: torch.Tensor, t: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        self.seen.append(torch.get_num_threads())
        return super().forward(x, t, y)


def test_a_model_that_sets_threads_does_not_change_the_others() -> None:
    before = torch.get_num_threads()
    shared: dict[str, Any] = {
        "device": "cpu",
        "res": 64,
        "latent_size": 8,
        "batch": 1,
        "precision": "fp32",
        "family": "x",
    }
    arms = [ModelCase(model=f"{__name__}:{arm.__name__}", **shared) for arm in (_Counts, _Threads)]
    case = ComparisonCase(device="cpu", arms=tuple(arms), budget_s=0.1, precision_target=0.5)
    passes.compare(case, environment.of(case))
    torch.set_num_threads(before)
    assert set(_Counts.seen) == {before}


def test_debug_shows_the_traceback_of_users_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "net_debugged.py").write_text("raise ValueError('deep')\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert run(flops.main, "--model", "net_debugged:x", "--res", "64") == 2
    assert capsys.readouterr().err.endswith("; --debug shows the traceback\n")
    assert run(flops.main, "--debug", "--model", "net_debugged:x", "--res", "64") == 2
    assert "Traceback (most recent call last)" in capsys.readouterr().err


SUITE = "[[run]]\ncommand = 'flops'\nmodel = ['DiT-S/8']\nres = [64]\n"
ARGUMENTS = {  # as few as a command needs
    "bench.analyse": ["spectrum"],
    "bench.check": None,  # writes no file
    "bench.compare": ["absent.jsonl"],
    "bench.data": ["digits"],
    "bench.sweep": ["suite.toml"],
    "bench.versus": ["DiT-S/8", "DiT-S/8"],
}
WRITING = [command for command in COMMANDS if ARGUMENTS.get(command, []) is not None]


FILES = ("FILE", "PATH", "DIR", "NAME|PATH", "DATA|FILE")
TEXTS = ("x", "x=1")  # what options of text take


def module_of(command: str) -> ModuleType:
    return importlib.import_module(command if command.startswith("bench.") else f"{command}.__main__")


@pytest.mark.parametrize("command", WRITING)
def test_an_out_that_is_no_file_is_refused_and_leaves_nothing(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("suite.toml").write_text(SUITE)
    os.mkfifo("fifo.jsonl")
    left = sorted(tmp_path.rglob("*"))
    for out in ("fifo.jsonl", "/dev/null/x.jsonl", "x" * 5000 + ".jsonl", f"new/{'x' * 300}.jsonl"):
        assert run(module_of(command).main, *(ARGUMENTS.get(command) or ()), "--out", out) == 2
        err = capsys.readouterr().err
        assert err.count("\n") == 1
        assert len(err) <= 301
        assert sorted(tmp_path.rglob("*")) == left


@pytest.mark.parametrize("command", COMMANDS)
def test_options_take_ascii_numbers_within_bounds(command: str) -> None:
    module = module_of(command)
    for action in module.parser()._actions if hasattr(module, "parser") else ():
        if not callable(action.type) or action.metavar in FILES:
            continue
        if action.type is Path or any(accepts(action.type, t) for t in TEXTS):
            continue
        for text in ("\u0663", "\u0663s", "\uff15%", "1_0", "nan", "", "-1", "9" * 5000):
            assert not accepts(action.type, text), (action.option_strings, text)
        accepts(action.type, "9" * 400)  # refused or clear: no other error


@pytest.mark.parametrize("command", COMMANDS)
def test_a_fifo_to_read_is_refused_as_it_is_parsed(command: str, tmp_path: Path) -> None:
    module = module_of(command)
    os.mkfifo(tmp_path / "fifo")
    for action in module.parser()._actions if hasattr(module, "parser") else ():
        if action.metavar in FILES and action.option_strings and action.dest not in ("out", "trace"):
            assert not accepts(action.type, str(tmp_path / "fifo")), action.option_strings


def accepts(kind: Callable[[str], object], text: str) -> bool:
    try:
        kind(text)
    except (argparse.ArgumentTypeError, ValueError):
        return False
    return True


@pytest.mark.parametrize("command", COMMANDS)
def test_undecodable_arguments_are_refused(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(module_of(command).main, "a\udcff\x1b[31m") == 2
    err = capsys.readouterr().err
    assert "must be UTF-8 text" in err
    assert err.rstrip("\n").isprintable()


def test_an_output_that_cannot_be_written_keeps_the_records(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    args = ["--model", "DiT-S/8", "--res", "64", "--out", str(tmp_path / "kept.jsonl")]
    for given in (args, ["--help"]):
        with open("/dev/full", "w") as full:  # which the command replaces by the null device
            monkeypatch.setattr(sys, "stdout", full)
            assert run(flops.main, *given) == 2
    assert (tmp_path / "kept.jsonl").read_text().count("\n") == 1
    monkeypatch.setattr(sys, "stdout", None)
    assert run(flops.main, *args[:-1], str(tmp_path / "none.jsonl")) == 2
    assert not (tmp_path / "none.jsonl").exists()
    assert [line.partition(": ")[2][:30] for line in capsys.readouterr().err.splitlines()] == [
        *["standard output: cannot be writ"[:30]] * 2,
        "standard output: is closed; redirect"[:30],
    ]


def test_an_out_that_is_an_input_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("config.json").write_text('{"_class_name": "DiTTransformer2DModel"}')
    os.link("config.json", "twin")
    for out in ("config.json", "twin"):
        assert run(flops.main, "--model", "config.json(num_layers=1)", "--out", out, "--force") == 2
        assert f"--out {out}: is given for --model too" in capsys.readouterr().err


def test_a_dangling_link_is_followed_and_written(tmp_path: Path) -> None:
    link = tmp_path / "link.jsonl"
    link.symlink_to("new/records.jsonl")
    args = "--model", f"{__name__}:Tiny", "--res", "64", "--counter", "torch"
    assert run(flops.main, *args, "--out", str(link)) == 0
    assert (tmp_path / "new" / "records.jsonl").read_text().count("\n") == 1
    assert "embedded null byte" in (why_not_writable(Path("a\0b")) or "")


def test_an_option_given_twice_is_noted(capsys: pytest.CaptureFixture[str]) -> None:
    args = "--model", f"{__name__}:Tiny", "--res", "64", "--res=128", "--model", f"{__name__}:Tiny"
    assert flops.parser().parse_args(args).res == [128]
    assert capsys.readouterr().err == "--res: given 2 times; the last counts\n"
    assert run(flops.main, *args, "--out", "a\0b") == 2
    assert "'a\\x00b': must have no null byte" in capsys.readouterr().err


USERS = {
    "latin1": (b"# -*- coding: latin-1 -*-\nfrom tests.tiny import Tiny as f  # \xe9\n", ""),
    "broken": (b"try:\n    import old\nexcept SyntaxError:\n    from tests.tiny import Tiny as f\n", ""),
    "hash": (
        b"from tests.tiny import Tiny\nclass f(Tiny):\n    __hash__ = None\n",
        "a dataclass has one with eq=False",
    ),
}


@pytest.mark.parametrize("kind", USERS)
def test_unusual_files_are_read_or_refused_in_a_line(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, message = USERS[kind]
    (tmp_path / "old.py").write_text("print 'of Python 2'\n")
    (tmp_path / "net file.py").write_bytes(source)
    args = "--model", f"{tmp_path}/net file.py:f", "--res", "64", "--counter", "torch"
    assert run(flops.main, *args) == (2 if message else 0)
    assert message in capsys.readouterr().err


HOSTILE = "<img src=x>|`*_a_*` [x](http://y)\\\n\x1b[31m\u202e#&%$~^{}"


@pytest.mark.parametrize("form", FORMATS)
def test_names_are_text_in_every_format(form: str) -> None:
    record = replace(THROUGHPUT, case=replace(CASE, model=HOSTILE))
    text = render(TABLE, [record, replace(SKIPPED, reason=HOSTILE)], form)
    lines = text.splitlines()
    assert all(line.isprintable() for line in lines)
    if form in ("table", "md"):
        assert len(lines) == 4
    if form == "md":
        assert len({line.replace(r"\|", "").count("|") for line in lines}) == 1
        assert "<" not in text
        assert "](" not in text
    if form == "latex":
        assert r"\textless{}img src=x\textgreater{}\textbar{}" in text
        assert r"\textbackslash{} \textbackslash{}x1b[31m\textbackslash{}u202e\#\&\%\$" in text
    if form == "json":
        assert json.loads(text)[0]["model"] == HOSTILE
