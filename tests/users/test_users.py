"""Users' models: their imports, constructors, arguments and outputs."""

import json
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
import torch

from bench import flops, throughput
from models import users
from models.contract import build, check
from models.registry import find, printed, published_task, task_at
from models.task import LATENTS, Task
from models.users import names
from models.users.calls import notes_of
from tests.commands import run

SMALL = Task(latent_size=8)
# a repository as FCDM's, REPA's or LightningDiT's: a package `models` and no wrapper for this suite
REPOSITORY = {
    "models/blocks.py": """
        from torch import nn

        OWNER = "user"

        class Block(nn.Conv2d):
            def __init__(self, width):
                super().__init__(width, width, 1)
    """,
    "models/dit.py": """
        import importlib
        import torch
        from torch import nn
        from models.blocks import Block
        from .blocks import OWNER

        class DiT(nn.Module):
            def __init__(self, input_size=32, in_channels=4, hidden_size=16, depth=2, num_classes=10,
                         learn_sigma=True):
                super().__init__()
                assert importlib.import_module("models.blocks").Block is Block
                self.stem = nn.Conv2d(in_channels, hidden_size, 1)
                self.pos = nn.Parameter(torch.zeros(1, hidden_size, input_size, input_size))
                self.y = nn.Embedding(num_classes + 1, hidden_size)
                self.blocks = nn.ModuleList(Block(hidden_size) for _ in range(depth))
                self.head = nn.Conv2d(hidden_size, in_channels * (1 + learn_sigma), 1)

            def forward(self, x, t, y):
                from models import blocks
                assert blocks.OWNER == OWNER == "user"
                h = self.stem(x) + self.pos + self.y(y)[:, :, None, None] + t[:, None, None, None] / 1000
                for block in self.blocks:
                    h = block(h)
                return self.head(h)

        def DiT_S(**kwargs):
            return DiT(hidden_size=8, depth=1, **kwargs)
    """,
    "net.py": """
        from models.dit import DiT

        def make():
            return DiT(num_classes=1000, input_size=8)

        def of_task(task):
            return DiT(task.latent_size, num_classes=task.num_classes)
    """,
}


def write(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text), encoding="utf-8")


@pytest.fixture(params=["packages", "folders"])
def repository(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A user's repository, its `models` with __init__.py or without."""
    write(tmp_path, REPOSITORY)
    if request.param == "packages":
        write(tmp_path, {"models/__init__.py": ""})
    return tmp_path


@pytest.mark.parametrize("name", ["net.py:make", "net.py:of_task", "models/dit.py:DiT", "models.dit:DiT_S"])
def test_a_file_imports_its_own_models_package(
    repository: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(repository)
    assert type(check(name, SMALL)).__name__ == "DiT"
    assert find("DiT-S/2") is not find(name)  # ours is found after it
    assert sys.modules["models"].__file__ == str(Path(users.__file__).parents[1] / "__init__.py")


def test_a_file_is_found_from_another_folder(repository: Path) -> None:
    assert type(check(f"{repository}/models/dit.py:DiT_S", SMALL)).__name__ == "DiT"


def test_two_files_of_one_name_are_two_models(tmp_path: Path) -> None:
    for side in ("old", "new"):
        helper = f"def make():\n    raise ValueError({side!r})"
        write(tmp_path / side, {"net.py": "from helper import make", "helper.py": helper})
        with pytest.raises(ValueError, match=side):
            build(f"{tmp_path / side}/net.py:make", SMALL)


def test_a_changed_import_is_another_version_of_the_code(repository: Path) -> None:
    name = f"{repository}/net.py:make"
    assert {path.name for path in users.sources(name)} >= {"net.py", "dit.py", "blocks.py"}


def test_a_file_with_relative_imports_needs_no_package(tmp_path: Path) -> None:
    write(
        tmp_path, {"lib/a.v2.py": "from .b import make", "lib/b.py": "def make(task): raise ValueError('b')"}
    )
    with pytest.raises(ValueError, match=r"a.v2.py:make: raised ValueError: b \(b.py:1\)"):
        build(f"{tmp_path}/lib/a.v2.py:make", SMALL)


CONSTRUCTORS = """
    import dataclasses
    import functools
    import torch
    from torch import nn

    class Net(nn.Module):
        def __init__(self, img_size, in_chans, n_classes, depth=1, learn_sigma=True):
            super().__init__()
            self.given = dict(img_size=img_size, in_chans=in_chans, n_classes=n_classes, depth=depth,
                              learn_sigma=learn_sigma)
            self.head = nn.Conv2d(in_chans, in_chans * (1 + learn_sigma), 1)
        def forward(self, x, timesteps, class_labels=None):
            return self.head(x)

    class Deep(Net):
        def __init__(self, **kwargs):
            super().__init__(depth=9, **kwargs)

    class Plain(Net):
        pass

    def small(img_size=1, **rest):
        return Net(img_size, **rest)
    def fixed(**kw):
        return Net(learn_sigma=False, **kw)
    part = functools.partial(Net, depth=7)
    ready = Net(8, 4, 1000)
    def needs(hidden, heads, img_size):
        return Net(img_size, 4, 3)
    class Returns(Net):
        def __init__(self, task):
            super().__init__(task.latent_size, task.in_channels, task.num_classes)
    class Pair(Returns):
        def forward(self, x, t, y): return [None, t], super().forward(x, t)
    class Named(Returns):
        def forward(self, sigma, noisy, cls, *, scale=1):
            return {"aux": x2(noisy), "sample": self.head(noisy)}
    class Swapped(Returns):
        def forward(self, x, y, t): return super().forward(x, t + y.clamp(0, 0))
    class Without(Returns):
        def forward(self, x, t): return super().forward(x, t)
    class Text(Returns):
        def forward(self, x, t, encoder_hidden_states): return self.head(x)
    class Kwargs(Returns):
        def forward(self, x, t, **kwargs): return self.head(x + kwargs["y"].clamp(0, 0)[:, None, None, None])
    class Opaque(Returns):
        def forward(self, a, b, c): return self.head(a)
    class Keywords(Returns):
        def forward(self, *, hidden_states, timestep, class_labels=None): return self.head(hidden_states)
    @dataclasses.dataclass(slots=True)
    class Output:
        loss: object
        prediction: torch.Tensor
    class Structured(Returns):
        def forward(self, x, t, y): return Output(None, self.head(x))
    def x2(x): return torch.cat([x, x])
"""
TASK = {"img_size": 8, "in_chans": 4, "n_classes": 1000, "learn_sigma": True}


@pytest.fixture
def net(tmp_path: Path) -> str:
    write(tmp_path, {"net.py": CONSTRUCTORS})
    return f"{tmp_path}/net.py"


@pytest.mark.parametrize(
    ("factory", "given"),
    [
        ("Net", {**TASK, "depth": 1}),
        ("Net(depth=3,learn_sigma=false)", {**TASK, "depth": 3, "learn_sigma": False}),
        ("Deep", {**TASK, "depth": 9}),
        ("Plain(depth=2)", {**TASK, "depth": 2}),
        ("small", {**TASK, "depth": 1}),
        ("fixed", {**TASK, "depth": 1, "learn_sigma": False}),
        ("part", {**TASK, "depth": 7}),
        ("ready", {**TASK, "depth": 1}),
    ],
)
def test_a_constructor_gets_the_values_of_the_task(net: str, factory: str, given: dict[str, Any]) -> None:
    assert check(f"{net}:{factory}", SMALL, either_sigma=True).given == given


@pytest.mark.parametrize(
    ("factory", "message"),
    [
        ("needs", "needs hidden, heads: --model-args hidden=...,heads=..."),
        ("Net(dept=3)", "takes no dept; its arguments are img_size, in_chans, n_classes, depth"),
        ("Text", r"forward\(x, t, encoder_hidden_states\) needs encoder_hidden_states, none of x, t, y"),
        ("missing", "has no callable 'missing'"),
        ("Net(3)", "must be key=value"),
    ],
)
def test_what_cannot_be_called_is_one_line(net: str, factory: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check(printed(f"{net}:{factory}"), SMALL)


@pytest.mark.parametrize(
    ("factory", "notes"),
    [
        ("Returns", []),
        ("Pair", ["[1] of its output is the sample"]),
        ("Named", ["called with sigma=t, noisy=x, cls=y", "['sample'] of its output is the sample"]),
        ("Swapped", ["called with x=x, y=y, t=t"]),
        ("Without", ["called with x=x, t=t, without labels"]),
        ("Kwargs", ["called with x=x, t=t, y=y"]),
        ("Opaque", []),
        ("Keywords", ["called with hidden_states=x, timestep=t, class_labels=y"]),
        ("Structured", [".prediction of its output is the sample"]),
    ],
)
def test_a_forward_is_called_by_its_names(net: str, factory: str, notes: list[str]) -> None:
    model = check(f"{net}:{factory}", SMALL)
    assert notes_of(model) == notes
    real = build(f"{net}:{factory}", SMALL, "cpu")
    out = real(torch.ones(2, 4, 8, 8), torch.zeros(2), torch.zeros(2, dtype=torch.int64))
    assert out.shape == (2, 8, 8, 8)


@pytest.mark.parametrize(
    ("arguments", "task"),
    [
        ("", LATENTS),
        ("(in_channels=16,num_classes=10)", Task(in_channels=16, num_classes=10)),
        ("(input_size=16,in_channels=32)", Task(latent_size=16, in_channels=32, factor=16)),
        ("(in_channels=3,image_size=64)", Task(latent_size=64, in_channels=3, factor=1)),
    ],
)
def test_arguments_decide_the_task(arguments: str, task: Task) -> None:
    assert published_task(f"net.py:Net{arguments}") == task


def test_a_name_keeps_its_arguments() -> None:
    text = "a/net.py:Net(depth=12,widths=(64,128),act=gelu,mode='a, b',on=True,rate=0.1,path='x/y')"
    assert printed(text.replace(",w", ", w")) == text
    assert names.parse(text).arguments["mode"] == "a, b"
    assert task_at("net.py:Net(input_size=16)", 512, 256).latent_size == (32, 16)


def test_model_args_belong_to_models_of_users(net: str, capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["--res", "128", "--format", "csv", "--model-args", "depth=3"]
    assert run(flops.main, "--model", f"{net}:Net", "DiT-S/8", *argv) == 0
    table = capsys.readouterr().out
    assert "net.py:Net(depth=3)" in table
    assert "DiT-S/8," in table
    assert run(flops.main, "--model", "DiT-S/8", *argv) == 2
    assert "--model-args: apply to models of your own" in capsys.readouterr().err
    assert run(flops.main, "--model", "net.py") == 2
    assert "net.py:Net would work" in capsys.readouterr().err


@pytest.mark.parametrize("repository", ["folders"], indirect=True)
def test_a_worker_imports_the_same_files(
    repository: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(repository)
    argv = [
        "--model",
        "models/dit.py:DiT",
        "--res",
        "64",
        "--batch",
        "1",
        "--budget",
        "0.1",
        "--device",
        "cpu",
    ]
    assert run(throughput.main, *argv, "--format", "json") == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert row["status"] == "ok", row
