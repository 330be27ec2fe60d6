"""Reference data of the authors' models: checkpoint keys and shapes, outputs, the rule for weights."""

import functools
import hashlib
import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from baselines._files import ROOT, rows, unknown

Shapes = Mapping[str, tuple[int, ...]]
Tensors = dict[str, NDArray[np.float32]]
Rule = Literal["dit", "rms", "edm2", "hdit"]  # how weights are made; README.md states them


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """Names and shapes of the authors' checkpoint in its order, at one latent side."""

    model: str
    latent: int
    params_total: int
    params_trainable: int  # without frozen tensors such as a fixed pos_embed
    shapes: dict[str, tuple[int, ...]]
    buffers: tuple[str, ...]  # keys of floating tensors that are no parameters
    integers: tuple[str, ...]  # suffixes of the keys of integer tables, which are no parameters

    @property
    def parameters(self) -> dict[str, tuple[int, ...]]:
        return {key: shape for key, shape in self.floating.items() if key not in self.buffers}

    @property
    def floating(self) -> dict[str, tuple[int, ...]]:
        """Parameters and buffers that are no integers."""
        return {key: shape for key, shape in self.shapes.items() if not key.endswith(self.integers)}


@dataclass(frozen=True, kw_only=True, eq=False)
class Golden:
    """One call of the authors' model with weights from `fill`, in eval mode; None if not in the file."""

    x: NDArray[np.float32]  # (N, C, H, H)
    t: NDArray[np.int64] | NDArray[np.float32]  # (N,): steps, or floats in [0, 1], or deviations of the noise
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
    def rule(self) -> Rule:
        """The rule that makes the weights."""
        if "kind" not in self.meta:
            return "dit"
        family = str(self.meta["model"]).partition("-")[0]
        return "edm2" if family == "EDM2" else "hdit" if family == "HDiT" else "rms"

    @property
    def kept_keys(self) -> frozenset[str]:
        """Keys, or their last parts, of the tensors that keep their initial values for `out`."""
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
        if "f32_rel_rms" in self.meta:
            return float(self.meta["f32_rel_rms"])
        return float(
            self.meta[{"out": "float32_vs_float64", "out_n": "float32_vs_float64_n"}[output]]["rel_rms"]
        )


@functools.cache
def manifest(model: str) -> Manifest:
    """Read the keys and shapes of a model, such as "DiT-S/2"; SiT's are those of DiT (same_as.csv).

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
        shapes={key: tuple(shape) for key, shape in (data["state_dict"] | data.get("buffers", {})).items()},
        buffers=tuple(data.get("buffers", ())),
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
    # the file of DiT-S/2 is DiT-S-2: a number after a size, as S or 1p0B, is a patch side
    known = {re.sub(r"^([\w-]+-(?:\dp\d)?[A-Z]+)-(\d+)", r"\1/\2", stem): stem for stem in stems}
    if model not in known:
        raise unknown(what, model, known)
    return ROOT / folder / (known[model] + suffix)


@functools.cache
def goldens() -> dict[str, int]:
    """List the models with a golden file and its latent side."""
    found = {}
    for path in sorted((ROOT / "golden").glob("*_latent*.npz")):
        with np.load(path, allow_pickle=False) as file:
            found[str(json.loads(str(file["meta"]))["model"])] = int(path.stem.rpartition("_latent")[2])
    return found


def golden(model: str, latent: int = 32) -> Golden:
    """Read the reference call of a model, such as "FCDM-S", at a latent side.

    ValueError: no golden file of that model at that side.
    """
    path = _model_file(f"golden output at latent {latent}", "golden", model, f"_latent{latent}.npz")
    with np.load(path, allow_pickle=False) as file:
        x = file["x"]
        made = Golden(
            x=x,
            t=file["sigma"] if "sigma" in file else file["t"],
            y=file.get("y", np.zeros(len(x), np.int64)),
            out=file["out"],
            out_f32=file.get("out_f32"),
            out_n=file.get("out_n"),
            low_res=file.get("low_res"),
            meta=json.loads(str(file["meta"])),
        )
    return _around_a_denoiser(made) if made.rule == "hdit" else made


def _around_a_denoiser(raw: Golden) -> Golden:
    """The call of a denoiser whose inner network is called with `raw`: HDiT's file is of that network."""
    sigma = raw.t.astype(np.float64)[:, None, None, None]
    total = sigma**2 + 0.25
    x = raw.x * np.sqrt(total)
    out, out_f32 = (
        None
        if inner is None
        else (x * 0.25 / total + inner * sigma * 0.5 / np.sqrt(total)).astype(np.float32)
        for inner in (raw.out, raw.out_f32)
    )
    assert out is not None
    return replace(raw, x=x.astype(np.float32), out=out, out_f32=out_f32)


def diffusion() -> dict[str, NDArray[Any]]:
    """Read the released diffusion process: schedule, training loss, reverse step, sampler; see README.md."""
    with np.load(ROOT / "golden" / "diffusion.npz", allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


def fill(
    shapes: Shapes, *, kept: Iterable[str] = ("pos_embed",), norms: Iterable[str] = (), rule: Rule = "dit"
) -> Tensors:
    """Make the weights of the golden outputs; README.md states the rules.

    A tensor depends only on its key, its shape and the rule.

    Args:
        shapes: shapes of a manifest.
        kept: keys, or their last parts, to leave out: they keep the model's values; see `Golden.kept_keys`.
        norms: keys of norm weights to fill around 1 by the rule "dit"; see `Golden.norm_keys`.
        rule: see `Golden.rule`.
    """
    left_out, about_one = set(kept), set(norms)
    return {
        key: _filled(key, shape, "norm" if key in about_one else rule)
        for key, shape in shapes.items()
        if not left_out & {key, key.rpartition(".")[2]}
    }


_DRAWN = 2**15  # values drawn at a time: they stay in the cache of a CPU


def _filled(key: str, shape: tuple[int, ...], rule: str) -> NDArray[np.float32]:
    seed = int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "little")
    rng = np.random.Generator(np.random.PCG64(seed))
    z = np.empty(math.prod(shape), np.float32)
    for start in range(0, z.size, _DRAWN):  # the values of one draw, in less memory
        part = z[start : start + _DRAWN]
        part[:] = rng.standard_normal(part.size)  # float64
    z = z.reshape(shape)
    mean, std = _spread(key, shape, rule)
    z *= np.float32(std)
    if rule == "rms" and key.endswith(("qk_deformables.weight", "qk_scales.weight")):
        z *= np.float32(0.1)
    if mean:
        z += np.float32(mean)
    return z


def _spread(key: str, shape: tuple[int, ...], rule: str) -> tuple[float, float]:
    """Mean and standard deviation of a tensor's values: the first line that fits."""
    *_, module, last = ("", *key.split("."))
    if rule == "edm2":
        return 0, 0.5 if last.endswith("gain") else 2 * math.pi if last in ("freqs", "phases") else 1
    if rule == "hdit":
        if module in ("time_emb", "aug_emb"):
            return 0, 1
        if last == "scale":
            return (10, 1) if module == "self_attn" else (1, 0.1)
        if last == "fac":
            return 0.5, 0.1
    if rule == "dit" and key.endswith(("grn.gamma", "grn.beta")):
        return 0, 0.5
    if len(shape) >= 2:
        return 0, 1 / math.sqrt(math.prod(shape[1:]))
    near_one = "norm" in module if rule == "rms" else module.endswith(("norm0", "norm1"))
    return (1, 0.1) if rule == "norm" or (near_one and last == "weight") else (0, 0.02)


def fill_sha256(tensors: Mapping[str, NDArray[np.float32]]) -> str:
    """SHA-256 of filled weights in the order of their keys, as in the meta of golden files."""
    digest = hashlib.sha256()
    for key in sorted(tensors):
        digest.update(key.encode() + b"\0" + tensors[key].astype("<f4").tobytes())
    return digest.hexdigest()
