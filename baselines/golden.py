"""Reference data of the authors' models: checkpoint keys and shapes, outputs, the rule for weights."""

import hashlib
import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from baselines._files import ROOT, rows, unknown

Shapes = Mapping[str, tuple[int, ...]]
Tensors = dict[str, NDArray[np.float32]]


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """Names and shapes of the authors' checkpoint in its order, at one latent side."""

    model: str
    latent: int
    params_total: int
    params_trainable: int  # without frozen tensors such as a fixed pos_embed
    shapes: dict[str, tuple[int, ...]]
    integers: tuple[str, ...]  # suffixes of the keys of integer tables, which are no parameters

    @property
    def parameters(self) -> dict[str, tuple[int, ...]]:
        return {key: shape for key, shape in self.shapes.items() if not key.endswith(self.integers)}


@dataclass(frozen=True, kw_only=True, eq=False)
class Golden:
    """One call of the authors' model with weights from `fill`, in eval mode; None if not in the file."""

    x: NDArray[np.float32]  # (N, C, H, H)
    t: NDArray[np.int64] | NDArray[np.float32]  # (N,), float in SiT
    y: NDArray[np.int64]  # (N,)
    out: NDArray[np.float32]  # (N, C_out, H, H), computed in float64
    out_f32: NDArray[np.float32] | None  # the same, computed in float32
    out_n: NDArray[np.float32] | None  # as out, with `fill` also of the norms and tables that meta names
    low_res: NDArray[np.float32] | None  # (N, C, h, h), the second input of an upsampler
    meta: dict[str, Any]

    @property
    def norm_keys(self) -> frozenset[str]:
        """Keys of the norm weights that are filled around 1 for `out_n`."""
        return frozenset(self.meta.get("norm_weight_keys", ()))

    @property
    def kept_keys(self) -> frozenset[str]:
        """Keys of the tensors that keep their initial values for `out`."""
        return frozenset(self.meta.get("kept_as_built", ("pos_embed",)))

    @property
    def outputs(self) -> dict[str, NDArray[np.float32]]:
        """The outputs by name; an output with the same weights as another is left out."""
        if self.out_n is None or np.array_equal(self.out, self.out_n):
            return {"out": self.out}
        return {"out": self.out, "out_n": self.out_n}

    @property
    def norms_of_out(self) -> frozenset[str]:
        """Keys of the norm weights that are filled around 1 for `out`: in U-ViT, whose outputs are equal."""
        same = self.out_n is not None and "out_n" not in self.outputs
        return self.norm_keys if same else frozenset()

    def released_error(self, output: str) -> float:
        """Relative rms difference between float32 and float64 outputs of the released code."""
        return float(
            self.meta[{"out": "float32_vs_float64", "out_n": "float32_vs_float64_n"}[output]]["rel_rms"]
        )


def manifest(model: str) -> Manifest:
    """Read the keys and shapes of a model, such as "DiT-S/2"; SiT's are those of DiT (same_as.csv).

    Raises:
        ValueError: no manifest of that model.
    """
    for entry in rows("same_as.csv"):
        if entry["model"] == model:
            return replace(manifest(entry["same_as"]), model=model)
    path = _model_file("manifest", "manifests", model, ".json")
    data = json.loads(path.read_text(encoding="utf-8"))
    return Manifest(
        model=data["model"],
        latent=data["input_size"],
        params_total=data["params_total"],
        params_trainable=data["params_trainable"],
        shapes={key: tuple(shape) for key, shape in data["state_dict"].items()},
        integers=tuple(data.get("integer_buffers", ())),
    )


def has_manifest(model: str) -> bool:
    """Whether the keys and shapes of a model are known."""
    try:
        manifest(model)
    except ValueError:
        return False
    return True


def _model_file(what: str, folder: str, model: str, suffix: str) -> Path:
    stems = [file.name.removesuffix(suffix) for file in (ROOT / folder).glob(f"*{suffix}")]
    # the file of DiT-S/2 is DiT-S-2: a number after a size is a patch side
    known = {re.sub(r"^([\w-]+-[A-Z]+)-(\d+)", r"\1/\2", stem): stem for stem in stems}
    if model not in known:
        raise unknown(what, model, known)
    return ROOT / folder / (known[model] + suffix)


def goldens() -> dict[str, int]:
    """List the models with a golden file and its latent side."""
    found = {}
    for path in sorted((ROOT / "golden").glob("*_latent*.npz")):
        with np.load(path, allow_pickle=False) as file:
            found[str(json.loads(str(file["meta"]))["model"])] = int(path.stem.rpartition("_latent")[2])
    return found


def golden(model: str, latent: int = 32) -> Golden:
    """Read the reference call of a model, such as "FCDM-S", at a latent side.

    Raises:
        ValueError: no golden file of that model at that side.
    """
    path = _model_file(f"golden output at latent {latent}", "golden", model, f"_latent{latent}.npz")
    with np.load(path, allow_pickle=False) as file:
        return Golden(
            x=file["x"],
            t=file["t"],
            y=file["y"],
            out=file["out"],
            out_f32=file.get("out_f32"),
            out_n=file.get("out_n"),
            low_res=file.get("low_res"),
            meta=json.loads(str(file["meta"])),
        )


def diffusion() -> dict[str, NDArray[Any]]:
    """Read the released diffusion process: schedule, training loss, reverse step, sampler; see README.md."""
    with np.load(ROOT / "golden" / "diffusion.npz", allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


def fill(shapes: Shapes, *, kept: Iterable[str] = ("pos_embed",), norms: Iterable[str] = ()) -> Tensors:
    """Make the weights of the golden outputs; README.md states the rule.

    A tensor depends only on its key and shape.

    Args:
        shapes: shapes of a manifest.
        kept: keys to leave out, which keep the model's own values; see `Golden.kept_keys`.
        norms: keys of norm weights to fill around 1; see `Golden.norm_keys`.
    """
    left_out, about_one = set(kept), set(norms)
    return {
        key: _filled(key, shape, key in about_one) for key, shape in shapes.items() if key not in left_out
    }


def _filled(key: str, shape: tuple[int, ...], norm: bool) -> NDArray[np.float32]:
    seed = int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "little")
    draw = np.random.Generator(np.random.PCG64(seed)).standard_normal(math.prod(shape))  # float64
    z = draw.astype(np.float32).reshape(shape)
    if key.endswith(("grn.gamma", "grn.beta")):
        return np.float32(0.5) * z
    if len(shape) >= 2:
        return z * np.float32(1 / math.sqrt(math.prod(shape[1:])))
    if norm or key.endswith(("norm0.weight", "norm1.weight")):
        return np.float32(1) + np.float32(0.1) * z
    return np.float32(0.02) * z


def fill_sha256(tensors: Mapping[str, NDArray[np.float32]]) -> str:
    """SHA-256 of filled weights in the order of their keys, as in the meta of golden files."""
    digest = hashlib.sha256()
    for key in sorted(tensors):
        digest.update(key.encode() + b"\0" + tensors[key].astype("<f4").tobytes())
    return digest.hexdigest()
