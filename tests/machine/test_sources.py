"""Which edits of the code make a stored case a new one."""

import functools
import shutil
from pathlib import Path

import pytest

from bench.machine import sources


@pytest.fixture
def copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for package in ("models", "bench/measure"):
        shutil.copytree(
            sources.ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__")
        )
    monkeypatch.setattr(sources, "ROOT", tmp_path)
    for name in ("_read", "_of_rooms"):
        monkeypatch.setattr(sources, name, functools.cache(getattr(sources, name).__wrapped__))
    return tmp_path


@pytest.mark.parametrize(
    ("file", "old", "new", "same"),
    [
        ("models/dit.py", '"""DiT', '"""Another sentence. DiT', True),
        ("models/dit.py", "\nclass ", "\n\n# a comment\nclass ", True),
        ("models/uvit.py", "def forward", "def forwards", True),
        ("models/registry.py", "U-ViT", "V-ViT", True),
        ("models/dit.py", "def forward", "def forwards", False),
        ("models/layers/modulation.py", "def ", "def _", False),
        ("models/fast/packed.py", "def ", "def _", True),
        ("models/fcdm.py", "def ", "def _", True),
        ("bench/measure/timing.py", "def ", "def _", False),
    ],
)
def test_only_edits_that_decide_a_number_change_its_key(
    copy: Path, file: str, old: str, new: str, same: bool
) -> None:
    before, fast = (sources.digest(sources.deciding("models.dit", fast=impl)) for impl in (False, True))
    sources._read.cache_clear()
    sources._of_rooms.cache_clear()
    text = (copy / file).read_text()
    assert old in text
    (copy / file).write_text(text.replace(old, new))
    assert (sources.digest(sources.deciding("models.dit")) == before) is same
    if "fast" in file:
        assert sources.digest(sources.deciding("models.dit", fast=True)) != fast
