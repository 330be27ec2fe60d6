"""The environment of a record: its commit and errors of user modules."""

import subprocess
from pathlib import Path

import pytest

from bench.machine import environment


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(environment, "ROOT", tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    monkeypatch.delenv("BENCH_COMMIT", raising=False)
    return tmp_path


def test_unreadable_checkout_takes_its_commit_from_the_variable(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (checkout / ".git").mkdir()  # git refuses this folder, as it refuses a repository of another user
    assert environment._commit() == ""
    monkeypatch.setenv("BENCH_COMMIT", "0123456789ab")
    assert environment._commit() == "0123456789ab"


def test_user_module_of_a_missing_package_is_a_value_error() -> None:
    with pytest.raises(
        ValueError, match=r"^gone\.net:Net: cannot import 'gone\.net': No module named 'gone'"
    ):
        environment.gather("cpu", "gone.net:Net")


def test_readable_checkout_ignores_the_commit_variable(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    author = ["-c", "user.name=A. Author", "-c", "user.email=a@example.org"]
    for command in (["init", "-q"], [*author, "commit", "-q", "--allow-empty", "-m", "first"]):
        subprocess.run(["git", "-C", str(checkout), *command], check=True)
    monkeypatch.setenv("BENCH_COMMIT", "0123456789ab")
    head = ["git", "-C", str(checkout), "rev-parse", "HEAD"]
    commit = subprocess.run(head, capture_output=True, text=True, check=True).stdout
    assert environment._commit() == commit[:12]
