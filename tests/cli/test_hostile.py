"""Hostile input to every command: one line, exit code 2, nothing left behind."""

import os
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest
import torch

from bench import flops
from tests.commands import run

RAISES = {
    "assertion": 'assert 1 == 2, "one is two"',
    "exit": "raise SystemExit(0)",
    "memory": "raise MemoryError",
    "recursion": "def again():\n    return again()\nagain()",
    "closed": "import sys\nsys.stdout.close()",
    "warning": 'import warnings\nwarnings.simplefilter("error")\nwarnings.warn("old")',
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


CHANGES = """
import os, time
import torch
torch.set_default_dtype(torch.float64)
torch.set_num_threads(torch.get_num_threads() + 1)
torch.set_default_device("meta")
os.environ["OMP_NUM_THREADS"] = "7"
os.chdir("/")
time.perf_counter = lambda: 0.0
print("text")
from tests.tiny import Tiny
"""


def test_global_state_that_users_code_changes_is_restored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import time

    def state() -> tuple[object, ...]:
        torch_state = torch.get_default_dtype(), torch.get_num_threads(), torch.empty(0).device
        return (*torch_state, dict(os.environ), Path.cwd(), time.perf_counter, list(sys.path))

    (tmp_path / "net_changes.py").write_text(CHANGES)
    monkeypatch.syspath_prepend(tmp_path)
    before = state()
    assert run(flops.main, "--model", "net_changes:Tiny", "--res", "64", "--format", "csv") == 0
    assert state() == before
    assert "text" not in capsys.readouterr().out


def test_debug_shows_the_traceback_of_users_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "net_debugged.py").write_text("raise ValueError('deep')\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert run(flops.main, "--model", "net_debugged:x", "--res", "64") == 2
    assert capsys.readouterr().err.endswith("; --debug shows the traceback\n")
    assert run(flops.main, "--debug", "--model", "net_debugged:x", "--res", "64") == 2
    assert "Traceback (most recent call last)" in capsys.readouterr().err
