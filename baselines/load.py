"""Reads what others published, with the printed text beside every number.

Sources are in the rows; README.md beside this file says what each file is. Files are found beside this
module, so an installed copy reads its own.
"""

import csv
import difflib
import hashlib
import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from decimal import Decimal
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

ROOT = Path(__file__).parent
MEASURED = ROOT / "measured"  # records of this suite, one folder a device

Shapes = Mapping[str, tuple[int, ...]]
Tensors = dict[str, NDArray[np.float32]]

_NUMBER = re.compile(r"([-+]?\d+(?:\.\d+)?(?:e[-+]?\d+)?)([KMB]?)")
_POWER = {"": 0, "K": 3, "M": 6, "B": 9}
_TAKEN_OVER = 18  # the remark on cells that are another paper's


@dataclass(frozen=True, kw_only=True)
class Published:
    """A printed cell: blank is "", and a text that is no number has no value."""

    value: float | None
    as_printed: str

    @property
    def decimals(self) -> int:
        """Digits after the point of the printed number."""
        return len(self.as_printed.partition(".")[2].rstrip("KMB"))


Row = Mapping[str, Published]  # column -> cell; `source` is the table's


@dataclass(frozen=True, kw_only=True)
class PublishedTable:
    """One table of a paper; conditions are as the paper states them, blank where it says nothing."""

    id: str  # fcdm_table03
    source: str  # fcdm:table3
    paper: str
    title: str
    arxiv: str
    number: int
    subject: str
    res_px: str  # "256", "512" or "256 and 512"
    device: str
    precision: str
    batch: str
    conditions_of: str  # what device, precision and batch belong to: throughput, training or nothing
    note: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]


@dataclass(frozen=True, kw_only=True)
class Remark:
    """Something that a reader of certain cells should know."""

    id: int
    kind: str  # contradiction (numbers that disagree) or provenance (where they seem to come from)
    source: str
    cells: tuple[str, ...]  # table:column:model or table:column:model:steps; * stands for any text
    statement: str

    def touches(self, table: str, column: str, row: Row) -> bool:
        """Say whether the remark is about this column of this row."""
        name = row_name(row)
        steps = row["train_steps"].as_printed if "train_steps" in row else ""
        return any(
            fnmatchcase(cell, pattern)
            for pattern in self.cells
            for cell in (f"{table}:{column}:{name}", f"{table}:{column}:{name}:{steps}")
        )


QUANTITIES = (
    "MACs",
    "speed",
    "slow-down",
    "relative slow-down",
    "training memory",
    "training steps/s",
    "training MACs",
    "training steps",
)


@dataclass(frozen=True, kw_only=True)
class Claim:
    """Something that a paper says can be expected, in our words; conditions blank where it states none."""

    id: str
    paper: str
    where: str  # text, or the tables
    claim: str
    quantity: str  # of QUANTITIES; a ratio to the reference's, where there is a reference
    model: str  # or a pattern, FCDM-*: then a claim about a family, of any size
    reference: str  # the same, of the same size; blank where the model stands alone
    res_px: str  # "256", or "256 to 512" for what grows between them
    batch: str
    precision: str
    device: str
    stated: Published  # a number in words or in the text; blank where only cells give one
    cells: str  # of tables, table:column:row or table:column:row:steps, joined by " / " and " * "
    headline: bool
    source: str

    @property
    def sizes(self) -> tuple[int, ...]:
        return tuple(map(int, self.res_px.split(" to ")))

    @property
    def by_cells(self) -> float | None:
        """What the printed cells give; None without cells."""
        return None if not self.cells else _computed(self.cells)[0]

    @property
    def value(self) -> float | None:
        """What is claimed: as stated, or else as the cells give it; None for a claim without a number."""
        return self.by_cells if self.stated.value is None else self.stated.value

    @property
    def bounds(self) -> tuple[float, float] | None:
        """What rounds to the printed digits, of the stated number or of every cell."""
        if self.stated.value is None:
            return None if not self.cells else _computed(self.cells)[1:]
        half = _half_a_digit(self.stated)
        return self.stated.value - half, self.stated.value + half


@dataclass(frozen=True, kw_only=True)
class Ablation:
    """What one row of a table of ablations was, as far as its printed numbers tell."""

    source: str  # of the counts
    table: str  # fcdm_table06
    row: int  # from 1
    model: str | None  # ours; None where no configuration is known
    grade: str  # sure, likely, guess or open; README.md says what they mean
    params_m: Published  # counted, millions, trainable; blank without a model
    gmacs: Published  # counted under torchprofile's rules at latent side 32; blank without a model
    note: str
    published: Row  # as the paper prints it


@dataclass(frozen=True, kw_only=True)
class Gpu:
    """Peaks of one GPU; None where the source gives nothing. Tensor rates are dense, without sparsity."""

    gpu: str
    compute_capability: str
    sms: int
    boost_mhz: float
    fp32_tflops: float | None
    tf32_dense_tflops: float | None
    bf16_dense_tflops: float | None
    fp16_dense_fp32acc_tflops: float | None
    fp16_dense_fp16acc_tflops: float | None
    fp8_dense_tflops: float | None
    mem_gb: float
    mem_type: str
    mem_bw_gbs: float
    l2_mb: float
    tdp_w: float
    source: str
    note: str


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """Names and shapes in the authors' checkpoint, in its order, at one latent side."""

    model: str
    latent: int
    params_total: int
    params_trainable: int  # without a fixed pos_embed and what else is frozen
    shapes: dict[str, tuple[int, ...]]
    integers: tuple[str, ...]  # ends of the keys of integer tables, which are no parameters

    @property
    def parameters(self) -> dict[str, tuple[int, ...]]:
        return {key: shape for key, shape in self.shapes.items() if not key.endswith(self.integers)}


@dataclass(frozen=True, kw_only=True, eq=False)
class Golden:
    """One call of the authors' model under `fill`, in eval mode; None is what a file does not hold."""

    x: NDArray[np.float32]  # (N, C, H, H)
    t: NDArray[np.int64] | NDArray[np.float32]  # (N,), float in SiT
    y: NDArray[np.int64]  # (N,)
    out: NDArray[np.float32]  # (N, C_out, H, H), computed in float64
    out_f32: NDArray[np.float32] | None  # the same, computed in float32
    out_n: NDArray[np.float32] | None  # as out, under `fill` with the norms and tables that meta names
    low_res: NDArray[np.float32] | None  # (N, C, h, h), what an upsampler is given beside x
    meta: dict[str, Any]

    @property
    def norm_keys(self) -> frozenset[str]:
        """Keys of the norm weights that `out_n` has near 1."""
        return frozenset(self.meta.get("norm_weight_keys", ()))

    @property
    def kept_keys(self) -> frozenset[str]:
        """Keys that `out` has as the model made them."""
        return frozenset(self.meta.get("kept_as_built", ("pos_embed",)))

    @property
    def outputs(self) -> dict[str, NDArray[np.float32]]:
        """The outputs by name, each under weights of its own; one under those of another is left out."""
        if self.out_n is None or np.array_equal(self.out, self.out_n):
            return {"out": self.out}
        return {"out": self.out, "out_n": self.out_n}

    @property
    def norms_of_out(self) -> frozenset[str]:
        """Keys of the norm weights that `out` has near 1: those of `out_n` in U-ViT, where both are one."""
        same = self.out_n is not None and "out_n" not in self.outputs
        return self.norm_keys if same else frozenset()

    def released_error(self, output: str) -> float:
        """Relative rms by which the released code differs between float32 and float64."""
        return float(
            self.meta[{"out": "float32_vs_float64", "out_n": "float32_vs_float64_n"}[output]]["rel_rms"]
        )


def number(text: str) -> float | None:
    """Read a printed number: 12.20, 1e-4, 400K, 1.3M, 1.0B; None for any other text."""
    match = _NUMBER.fullmatch(text)
    return float(Decimal(match[1]).scaleb(_POWER[match[2]])) if match else None


def _published(text: str) -> Published:
    return Published(value=number(text), as_printed=text)


def row_name(row: Row) -> str:
    """The model or the variant a row is about."""
    return next(row[column].as_printed for column in ("model", "variant") if column in row)


def backbone_name(row: Row) -> str:
    """The backbone of this suite that a row is about, where tables print another name for it."""
    name = row_name(row)
    return {"DiM-H": "DiM-H/2"}.get(name, name)


def tables() -> tuple[PublishedTable, ...]:
    """Read every published table, FCDM's first."""
    return tuple(_table(entry) for entry in _rows("published/tables.csv"))


def table(id: str) -> PublishedTable:  # noqa: A002 - it is the table's id
    """Read one published table, such as "fcdm_table03".

    Raises:
        ValueError: no such table.
    """
    entries = {entry["id"]: entry for entry in _rows("published/tables.csv")}
    if id not in entries:
        raise _unknown("published table", id, entries)
    return _table(entries[id])


def remark(number: int) -> Remark:
    """The remark of that id."""
    (found,) = (one for one in remarks() if one.id == number)
    return found


def taken_over(table: str, column: str, row: Row) -> bool:
    """Whether a printed number is probably another paper's, and so not measured with those beside it."""
    return remark(_TAKEN_OVER).touches(table, column, row)


def remarks() -> tuple[Remark, ...]:
    """Read what contradicts what in the published tables."""
    return tuple(
        Remark(
            id=int(entry["id"]),
            kind=entry["kind"],
            source=entry["source"],
            cells=tuple(entry["cells"].split("; ")),
            statement=entry["statement"],
        )
        for entry in _rows("published/remarks.csv")
    )


def claims() -> tuple[Claim, ...]:
    """Read what the papers claim, FCDM's first."""
    read = []
    for entry in _rows("claims.csv"):
        fields_of: dict[str, Any] = {
            **entry,
            "stated": _published(entry["stated"]),
            "headline": entry["headline"] == "yes",
        }
        claim = Claim(**fields_of)
        assert claim.quantity in QUANTITIES, claim.id
        read.append(claim)
    return tuple(read)


@cache
def _computed(cells: str) -> tuple[float, float, float]:
    """The value of cells joined by " / " and " * ", left to right, and the bounds of what rounds to them."""
    first, *others = re.split(r" ([/*]) ", cells)
    value, low, high = _cell(first)
    for sign, text in zip(others[::2], others[1::2], strict=True):
        by, least, most = _cell(text)
        if sign == "*":
            value, low, high = value * by, low * least, high * most
        else:
            value, low, high = value / by, low / most, high / least
    return value, low, high


def _cell(reference: str) -> tuple[float, float, float]:
    """A printed number, such as fcdm_table03:gflops:FCDM-S, with the bounds of what rounds to it."""
    name, column = reference.split(":")[:2]
    for row in table(name).rows:
        whole = f"{name}:{column}:{row_name(row)}"
        steps = row["train_steps"].as_printed if "train_steps" in row else ""
        if reference in (whole, f"{whole}:{steps}"):
            printed = row[column]
            assert printed.value is not None, reference
            half = _half_a_digit(printed)
            return printed.value, printed.value - half, printed.value + half
    raise ValueError(f"{reference}: no such cell")


def _half_a_digit(printed: Published) -> float:
    """Half a unit of the last printed digit."""
    unit = _POWER.get(printed.as_printed[-1], 0)
    return 0.5 * 10.0 ** (unit - printed.decimals)


def gpus() -> dict[str, Gpu]:
    """Read the peaks of GPUs by name."""
    return {entry["gpu"]: Gpu(**_typed(entry)) for entry in _rows("gpus.csv")}


def gpus_fitting(text: str) -> list[Gpu]:
    """Every GPU whose name and kind of memory hold what a text says: "a100-80", "NVIDIA H200"."""
    said = _words(text) - Counter(("nvidia", "geforce"))
    return [gpu for gpu in gpus().values() if said and said <= _words(f"{gpu.gpu} {gpu.mem_type}")]


def gpu(text: str) -> Gpu:
    """Read the one GPU that a text means; of a PCIe card and an SXM module that fit it alike, the module.

    Raises:
        ValueError: it means none, with the nearest names, or several.
    """
    fitting = gpus_fitting(text)
    if len(fitting) > 1:
        fitting = [one for one in fitting if "PCIe" not in one.gpu] or fitting
    if len(fitting) > 1:
        names = " or ".join(one.gpu for one in fitting)
        raise ValueError(f"{text}: may be several GPUs: {names}; say which")
    if not fitting:
        begun = [name for name in gpus() if text and text.lower() in name.lower()]
        raise _unknown("GPU", text, gpus(), begun)
    return fitting[0]


def _words(text: str) -> Counter[str]:
    """Runs of letters and runs of digits: a, 100, sxm, 4, 80, gb."""
    return Counter(re.findall(r"[a-z]+|\d+", text.lower()))


def macs() -> dict[tuple[str, int], tuple[int, int]]:
    """Read (params, MACs) of the authors' models by (model, latent side), batch 1, torchprofile's rules.

    Products of sizes, which a tracer records beside the arithmetic (traced_sizes.csv), are left out.
    """
    sizes = {(entry["model"], entry["latent"]): int(entry["macs"]) for entry in _rows("traced_sizes.csv")}
    return {
        (entry["model"], int(entry["latent"])): (
            int(entry["params"]),
            int(entry["macs"]) - sizes.get((entry["model"], entry["latent"]), 0),
        )
        for entry in _rows("macs.csv")
    }


def macs_unets() -> dict[tuple[str, str, str], tuple[int, int]]:
    """Read (params, MACs) of ADM and LDM-4 by (model, input such as "3x64x64", counter), batch 1."""
    return {
        (entry["model"], entry["input"], entry["counter"]): (int(entry["params"]), int(entry["macs"]))
        for entry in _rows("macs_unets.csv")
    }


def dig_macs() -> dict[tuple[str, int], dict[str, int]]:
    """Read the terms of DiG's MACs by (model, latent side), batch 1; README.md says what each is."""
    return {
        (entry["model"], int(entry["latent"])): {
            term: int(text) for term, text in entry.items() if term not in ("source", "model", "latent")
        }
        for entry in _rows("dig_macs.csv")
    }


def ablations() -> tuple[Ablation, ...]:
    """Read what became of every row of FCDM's Tables 6, 10, 12 to 15 and DiCo's 3 and 4."""
    read = []
    for entry in _rows("ablations.csv"):
        published = table(entry["table"]).rows[int(entry["row"]) - 1]
        assert row_name(published) == entry["variant"], entry
        read.append(
            Ablation(
                source=entry["source"],
                table=entry["table"],
                row=int(entry["row"]),
                model=entry["model"] or None,
                grade=entry["grade"],
                params_m=_published(entry["params_m"]),
                gmacs=_published(entry["gmacs"]),
                note=entry["note"],
                published=published,
            )
        )
    return tuple(read)


def macs_ssm() -> dict[tuple[str, int], tuple[int, int, int]]:
    """Read (params, MACs without the scans, with them) of DiS, DiM and DiMSUM by (model, latent side)."""
    return {
        (entry["model"], int(entry["latent"])): (
            int(entry["params"]),
            int(entry["macs_without_scan"]),
            int(entry["macs_with_scan"]),
        )
        for entry in _rows("macs_ssm.csv")
    }


def manifest(model: str) -> Manifest:
    """Read the keys and shapes of a model, such as "DiT-S/2"; SiT's are those of DiT (same_as.csv).

    Raises:
        ValueError: no manifest of that model.
    """
    for entry in _rows("same_as.csv"):
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


def goldens() -> dict[str, int]:
    """List the models that have a golden file, with its latent side."""
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
    """Make the weights under which the golden outputs were computed; README.md states the rule.

    Every tensor depends on its own key and shape only.

    Args:
        shapes: of a manifest.
        kept: keys left out: these keep a model's own values. A golden file's meta may name them.
        norms: keys that are norm weights, which spread about 1; `Golden.norm_keys` of those that need it.
    """
    left_out, about_one = set(kept), set(norms)
    return {
        key: _filled(key, shape, key in about_one) for key, shape in shapes.items() if key not in left_out
    }


def fill_sha256(tensors: Mapping[str, NDArray[np.float32]]) -> str:
    """Digest filled weights, in the order of their keys, as the golden files' meta does."""
    digest = hashlib.sha256()
    for key in sorted(tensors):
        digest.update(key.encode() + b"\0" + tensors[key].astype("<f4").tobytes())
    return digest.hexdigest()


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


def _rows(name: str) -> list[dict[str, str]]:
    with (ROOT / name).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _table(entry: Mapping[str, str]) -> PublishedTable:
    rows = [
        {column: _published(text) for column, text in row.items()}
        for row in _rows(f"published/{entry['id']}.csv")
    ]
    for row in rows:
        assert row.pop("source").as_printed == entry["source"], entry["id"]
    numbered: dict[str, Any] = {**entry, "number": int(entry["number"])}
    return PublishedTable(**numbered, columns=tuple(rows[0]), rows=tuple(rows))


def _typed(entry: Mapping[str, str]) -> dict[str, Any]:
    """Turn the texts of a row of gpus.csv into what Gpu's fields ask for."""
    texts = {field.name for field in fields(Gpu) if field.type is str}
    typed: dict[str, Any] = {
        name: text if name in texts else float(text) if text else None for name, text in entry.items()
    }
    return typed | {"sms": int(entry["sms"])}


def _model_file(what: str, folder: str, model: str, suffix: str) -> Path:
    stems = [file.name.removesuffix(suffix) for file in (ROOT / folder).glob(f"*{suffix}")]
    # DiT-S/2 is kept as DiT-S-2: a patch side is the number after the letters of a size
    known = {re.sub(r"^([\w-]+-[A-Z]+)-(\d+)", r"\1/\2", stem): stem for stem in stems}
    if model not in known:
        raise _unknown(what, model, known)
    return ROOT / folder / (known[model] + suffix)


def _unknown(what: str, name: str, known: Iterable[str], close: Sequence[str] = ()) -> ValueError:
    """Say that there is no such thing, with those that are close, by default in their letters."""
    ordered = sorted(known)
    lower = {entry.lower(): entry for entry in ordered}
    close = close or [
        lower[entry] for entry in difflib.get_close_matches(name.lower(), lower, n=2, cutoff=0.6)
    ]
    hint = f"did you mean {' or '.join(close)}?" if close else f"known are {', '.join(ordered) or 'none'}"
    return ValueError(f"{name}: no such {what}; {hint}")
