"""Which training run is this? What determines its curve, to the last bit on a CPU; imports no torch."""

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from bench.records.record import Recipe, Run

if TYPE_CHECKING:
    from models.task import Task

# of the software and the machine, what a run may go on without
INCIDENTAL = ("commit", "date", "platform", "python", "driver", "cuda")


@dataclass(frozen=True, kw_only=True)
class Identity:
    """What determines a training curve; a run goes on from checkpoints of its own only."""

    run: Run  # question "convergence"; batch is that of one pass on one process
    recipe: Recipe
    seed: int
    processes: int

    @property
    def task(self) -> "Task":
        """What the network is built for."""
        from models.task import Task

        return Task(
            latent_size=self.run.latent_size,
            in_channels=self.recipe.channels,
            num_classes=self.recipe.classes,
            learn_sigma=self.recipe.objective == "iddpm",
        )


def differences(there: Identity, asked: Identity) -> list[str]:
    """What tells two runs apart, in words; empty where one may go on from the other's checkpoints."""
    held, wanted = _flat(asdict(there)), _flat(asdict(asked))
    return [f"{name} {held[name]} there, {wanted[name]} asked" for name in held if held[name] != wanted[name]]


def _flat(fields: dict[str, Any], within: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in fields.items():
        if isinstance(value, dict):
            flat.update(_flat(value, f"{within}{name}."))
        elif name not in INCIDENTAL:
            flat[within + name] = value
    return flat
