"""The identity of a training run: everything that determines its losses, bitwise on a CPU."""

from dataclasses import asdict, dataclass
from typing import Any

from bench.records.base import Environment
from bench.records.training import TrainingCase

# fields of the environment that may differ when a run resumes
INCIDENTAL = ("commit", "date", "platform", "python", "driver", "cuda")


@dataclass(frozen=True, kw_only=True)
class Identity:
    """Case and environment of a training run; a run resumes only from checkpoints with an equal identity."""

    case: TrainingCase
    environment: Environment


def differences(stored: Identity, requested: Identity) -> list[str]:
    """The fields in which two identities differ, in words; empty if the run can resume."""
    a, b = _flat(asdict(stored)), _flat(asdict(requested))
    return [f"{name} is {a[name]} in the checkpoint, {b[name]} requested" for name in a if a[name] != b[name]]


def _flat(fields: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in fields.items():
        if isinstance(value, dict):
            flat.update(_flat(value, f"{prefix}{name}."))
        elif name not in INCIDENTAL:
            flat[prefix + name] = value
    return flat
