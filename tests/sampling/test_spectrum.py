"""Spectra of predicted noise: conservation laws of the transform, and networks with known predictions."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from bench import analyse
from bench.records.base import Record, Skipped
from bench.records.probes import BANDS, Spectrum
from bench.store.codec import case_key, read
from bench.training.losses.diffusion import IDDPM
from bench.training.probes import spectrum
from bench.training.probes.probe import guarded
from tests.commands import run
from tests.probes import IMAGES, command, subject, trained_run


def bands(x: Tensor) -> dict[str, float]:
    """Energy of (N, C, H, W) by band, as a record gives it."""
    _, radii, counts = spectrum.rings(*x.shape[2:])
    power = tuple(spectrum.ring_power(x).tolist())
    one = subject(Knows)
    one = replace(one, probe=replace(one.probe, levels=(0,)))
    held = Spectrum(
        case=spectrum.case_of(one),
        environment=one.environment,
        radii=tuple(radii.tolist()),
        counts=tuple(counts.tolist()),
        predicted=(power,),
        added=(power,),
        error=(power,),
    )
    return {name: held.energy(power, name) for name, _, _ in BANDS}


class Knows(nn.Module):
    """Predicts exactly the noise that is in x."""

    def forward(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        return torch.cat([IMAGES.noise[: len(x)]] * 2, dim=1)


class Sees(Knows):
    """Predicts three times the noise."""

    def forward(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        return 3 * super().forward(x, t, y)


class Flows(nn.Module):
    """Predicts the exact velocity of the images."""

    def forward(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        return IMAGES.x0 - IMAGES.noise


class Fails(Knows):
    def forward(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        return super().forward(x, t, y) / 0


def test_white_noise_has_a_flat_spectrum_of_1() -> None:
    x = torch.randn(500, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    power = spectrum.ring_power(x)
    assert len(power) > 8
    assert torch.allclose(power, torch.ones_like(power), atol=0.08)  # 4 standard errors of the smallest ring


@pytest.mark.parametrize("size", [(8, 8), (7, 7), (16, 8), (5, 12), (1, 1)])
def test_energies_of_the_bands_add_up(size: tuple[int, int]) -> None:
    x = torch.randn(3, 2, *size, generator=torch.Generator().manual_seed(0))
    energy = x.double().square().sum((2, 3)).mean()
    assert math.isclose(sum(bands(x).values()), energy, rel_tol=1e-12)


@pytest.mark.parametrize(
    ("cycles", "band"), [(1, "low"), (4, "low"), (6, "mid"), (9, "mid"), (12, "high"), (16, "high")]
)
@pytest.mark.parametrize("across", [2, 3])
def test_a_pure_wave_falls_into_its_band(cycles: int, band: str, across: int) -> None:
    wave = torch.cos(2 * math.pi * cycles * torch.arange(32) / 32)
    x = wave.expand(1, 1, 32, 32) if across == 3 else wave[:, None].expand(1, 1, 32, 32)
    energies = bands(x)
    assert math.isclose(energies.pop(band), x.double().square().sum(), rel_tol=1e-9)
    assert max(energies.values()) < 1e-9


def test_a_constant_is_in_the_first_ring_alone() -> None:
    power = spectrum.ring_power(torch.full((2, 1, 8, 8), 3.0))
    assert math.isclose(power[0], 9 * 64)
    assert power[1:].max() < 1e-9


def test_every_coefficient_is_in_one_ring() -> None:
    for size in ((8, 8), (16, 8), (7, 9)):
        _, radii, counts = spectrum.rings(*size)
        assert counts.sum() == size[0] * size[1]
        assert (radii.diff() > 0).all()
        assert counts.min() > 0


def test_exact_noise_has_its_spectrum_and_no_error() -> None:
    result = spectrum.measure(subject(Knows), IMAGES)
    assert isinstance(result, Spectrum)
    assert result.predicted == result.added
    assert max(map(max, result.error)) == 0


def test_thrice_the_noise_is_nine_times_the_power() -> None:
    result = spectrum.measure(subject(Sees), IMAGES)
    assert isinstance(result, Spectrum)
    for predicted, added, error in zip(result.predicted, result.added, result.error, strict=True):
        assert predicted == pytest.approx([9 * power for power in added], rel=1e-5)
        assert error == pytest.approx([4 * power for power in added], rel=1e-5)


def test_a_velocity_is_turned_into_its_noise() -> None:
    result = spectrum.measure(subject(Flows, objective_name="flow"), IMAGES)
    assert isinstance(result, Spectrum)
    for predicted, added in zip(result.predicted, result.added, strict=True):
        assert predicted == pytest.approx(added, rel=1e-4)


def test_an_output_that_is_not_finite_is_a_row() -> None:
    result = spectrum.measure(subject(Fails), IMAGES)
    assert isinstance(result, Skipped)
    assert result.reason == "the output at level 0"


def test_out_of_memory_is_a_row_with_the_batch() -> None:
    def look() -> Record:
        raise RuntimeError("CUDA error: out of memory\nand more")

    one = subject(Knows)
    result = guarded(spectrum.case_of(one), one.environment, look)
    assert isinstance(result, Skipped)
    assert (result.status, result.reason) == ("out of memory", "at batch 6: CUDA error: out of memory")


def test_networks_are_given_images_noised_to_the_level() -> None:
    seen: list[tuple[Tensor, Tensor]] = []

    class Watches(Knows):
        def forward(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
            seen.append((x, t))
            return super().forward(x, t, y)

    spectrum.measure(subject(Watches), IMAGES)
    assert [t.unique().tolist() for _, t in seen] == [[0], [500], [999]]
    for x, t in seen:
        assert torch.equal(x, IDDPM().q_sample(IMAGES.x0, t, IMAGES.noise))


def test_other_levels_or_data_are_another_case() -> None:
    one = subject(Knows)
    case = spectrum.case_of(one)
    assert spectrum.measure(one, IMAGES).case == case
    for change in ({"data_sha256": "0"}, {"levels": (0, 1, 2)}):
        other = replace(one, probe=replace(one.probe, **change))
        assert case_key(spectrum.case_of(other)) != case_key(case)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained_run(tmp_path_factory.mktemp("runs"), "tests.tiny:Tiny")


def test_a_checkpoint_is_analysed_once_and_then_found(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["--checkpoint", str(folder), "--images", "8", "--levels", "0", "999", "--out"]
    argv.append(str(tmp_path / "spectra.jsonl"))
    rows, _ = command(analyse.main, ["spectrum", *argv], capsys)
    assert [row["level"] for row in rows] == [0, 999]
    assert rows[0]["trained"] == "step 2, seed 0, weights as trained"
    again, notes = command(analyse.main, ["spectrum", *argv], capsys)
    assert again == rows
    assert "1 of 1 were in" in notes
    averaged, _ = command(analyse.main, ["spectrum", *argv, "--ema", "0.5"], capsys)
    assert averaged[0]["trained"] == "step 2, seed 0, EMA 0.5"
    assert averaged[0]["predicted_low"] != rows[0]["predicted_low"]


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ([], "no network: give --checkpoint PATH"),
        (["--model", "DiT-S/2"], "--model: needs --weights;"),
        (["--weights", __file__], "--weights: needs --model;"),
        (["--checkpoint", "nowhere"], "nowhere: no such file or folder"),
        (["--model", "DiT-S/9", "--weights", __file__], "DiT-S/9: no such backbone"),
        (["--model", "DiT-S/2", "--weights", "a.pt"], "a.pt: no such file"),
    ],
)
def test_a_missing_network_is_refused_in_one_line(
    argv: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(analyse.main, "spectrum", *argv) == 2
    shown = capsys.readouterr()
    assert message in shown.err
    assert shown.err.count("\n") == 1


def test_a_run_checkpoint_given_as_weights_is_refused(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = next(folder.glob("*.pt"))
    assert run(analyse.main, "spectrum", "--model", "DiT-S/2", "--weights", str(given)) == 2
    err = capsys.readouterr().err
    assert f"--weights {given}: a checkpoint of bench.convergence; give it to --checkpoint\n" in err


@pytest.mark.parametrize(
    ("factory", "message"), [("TooLarge", "allocate"), ("BrokenWhenReal", "do not match")]
)
def test_a_network_that_cannot_be_built_is_refused(
    factory: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save({"idle": torch.zeros(1)}, tmp_path / "some.pt")
    argv = ["--model", f"tests.tiny:{factory}", "--weights", str(tmp_path / "some.pt"), "--data", "digits"]
    assert run(analyse.main, "spectrum", *argv, "--device", "cpu") == 2
    shown = capsys.readouterr().err
    assert f"tests.tiny:{factory}: raised " in shown
    assert message in shown
    assert shown.count("\n") == 1


def test_data_of_another_shape_are_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from tests import archives

    latents, labels = archives.latents()
    path = archives.latent_files(folder.parent / "latents", latents, labels)
    assert analyse.main(["spectrum", "--checkpoint", str(folder), "--data", str(path)]) == 2
    assert "3 classes of (4, 8, 8); tests.tiny:Tiny is built for 10 of (1, 8, 8)" in capsys.readouterr().err


def test_missing_path_of_latents_is_requested(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = trained_run(tmp_path, "tests.tiny:Tiny", called="mine.npz")
    assert analyse.main(["spectrum", "--checkpoint", str(folder)]) == 2
    assert "--data: trained on latents called mine.npz; give their path" in capsys.readouterr().err


def test_data_have_one_name_however_their_path_is_typed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from models import create
    from tests import archives

    model = create("tests.tiny:Tiny", latent_size=8, in_channels=4, num_classes=3)
    torch.save(model.state_dict(), tmp_path / "tiny.pt")
    path = archives.latent_files(tmp_path / "mine", *archives.latents())
    out = tmp_path / "spectra.jsonl"
    argv = ["--model", "tests.tiny:Tiny", "--weights", str(tmp_path / "tiny.pt"), "--levels", "500"]
    (path / "within").mkdir()
    asked = [
        (tmp_path, "mine"),
        (tmp_path, "./mine"),
        (path, "."),
        (path / "within", ".."),
        (tmp_path, str(path)),
    ]
    for folder, typed in asked:
        monkeypatch.chdir(folder)
        _, notes = command(analyse.main, ["spectrum", *argv, "--data", typed, "--out", str(out)], capsys)
        assert "validation images of mine (" in notes
    (made,) = read(out).records
    assert isinstance(made, Spectrum)
    assert made.case.probe.data == "mine"


def test_decay_missing_from_the_checkpoint_is_refused(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert analyse.main(["spectrum", "--checkpoint", str(folder), "--ema", "0.9"]) == 2
    assert "has no average of decay 0.9; it has 0.5" in capsys.readouterr().err


def test_authors_weights_are_analysed_at_published_size(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from models import create
    from tests import archives

    model = create("tests.tiny:Tiny", latent_size=8, in_channels=4, num_classes=3)
    torch.save(model.state_dict(), tmp_path / "tiny.pt")
    latents, labels = archives.latents()
    path = archives.latent_files(tmp_path / "latents", latents, labels)
    argv = ["--model", "tests.tiny:Tiny", "--weights", str(tmp_path / "tiny.pt"), "--data", str(path)]
    rows, notes = command(analyse.main, ["spectrum", *argv, "--levels", "500"], capsys)
    assert rows[0]["weights"].startswith("tiny.pt sha256:")
    assert "3 validation images; all of them are used" in notes
