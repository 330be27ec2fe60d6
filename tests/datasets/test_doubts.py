"""Latents that are not what they are taken for."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from bench import data as command
from bench.datasets import datasets, images
from bench.datasets.doubts import doubts
from tests.commands import run

FIELD = Path(__file__).parents[1] / "field"
SHAPE = (60, 4, 8, 8)


def test_moments_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "moments.npz"
    subprocess.run([sys.executable, FIELD / "moments.py", file], check=True)
    assert run(command.main, str(file)) == 0
    notes = capsys.readouterr().err
    assert "channels 5 to 8 look like log variances" in notes
    assert "the standard deviation is 5, far from 1" in notes


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda noise: noise, []),
        (lambda noise: 5.5 * noise, ["the standard deviation is 5.5"]),
        (lambda noise: 0.3 * noise + 0.5, ["the standard deviation is 0.3"]),
        (
            lambda noise: np.concatenate([noise, 0.01 * abs(noise)], 1),
            ["5 to 8 look like standard deviations"],
        ),
        (lambda noise: np.concatenate([noise, noise - 8], 1), ["5 to 8 look like log variances"]),
        (lambda noise: noise - 8, []),
    ],
)
def test_latents_of_the_usual_kind_raise_no_doubt(tmp_path: Path, change: object, words: list[str]) -> None:
    assert callable(change)
    rng = np.random.default_rng(0)
    np.savez(
        tmp_path / "f.npz", latents=change(rng.normal(size=SHAPE)).astype("f4"), labels=rng.integers(0, 5, 60)
    )
    found = doubts(datasets.load(str(tmp_path / "f.npz")))
    assert len(found) == len(words)
    assert all(word in note for word, note in zip(words, found, strict=True))


def test_statistics_in_a_reference_are_named_as_unused(tmp_path: Path) -> None:
    path = tmp_path / "reference.npz"
    np.savez(path, arr_0=np.zeros((4, 8, 8, 3), np.uint8), mu=np.zeros(2), sigma=np.eye(2))
    assert images.unused_arrays(path) == ["mu", "sigma"]
    np.savez(path, mu=np.zeros(2), sigma=np.eye(2))
    with pytest.raises(ValueError, match="mu and sigma of features are not used"):
        images.read_samples(path)
