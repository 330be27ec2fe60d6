"""What a record says of where it was made."""

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


def test_a_checkout_that_git_does_not_read_takes_its_commit_from_the_variable(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (checkout / ".git").mkdir()  # git calls this no repository, as it does what another user owns
    assert environment._commit() == ""
    monkeypatch.setenv("BENCH_COMMIT", "0123456789ab")
    assert environment._commit() == "0123456789ab"


def test_a_users_module_in_a_package_that_is_not_there_is_the_callers_mistake() -> None:
    with pytest.raises(
        ValueError, match=r"^gone\.net:Net: cannot import 'gone\.net': No module named 'gone'"
    ):
        environment.gather("cpu", "gone.net:Net")


def test_a_checkout_that_git_reads_knows_its_commit_whatever_the_variable_says(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    author = ["-c", "user.name=A. Author", "-c", "user.email=a@example.org"]
    for command in (["init", "-q"], [*author, "commit", "-q", "--allow-empty", "-m", "first"]):
        subprocess.run(["git", "-C", str(checkout), *command], check=True)
    monkeypatch.setenv("BENCH_COMMIT", "0123456789ab")
    head = ["git", "-C", str(checkout), "rev-parse", "HEAD"]
    told = subprocess.run(head, capture_output=True, text=True, check=True).stdout
    assert environment._commit() == told[:12]
