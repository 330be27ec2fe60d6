"""Commands that count or measure the values of a claim."""

from collections.abc import Iterable

from baselines.claims import Claim
from bench.store.store import REPORTED


def commands(claims: Iterable[Claim]) -> list[str]:
    """Commands for some claims, merged if their options are equal; [] if no command helps."""
    models: dict[tuple[str, str], dict[str, None]] = {}
    for claim in claims:
        head, names, options = _parts(claim)
        if head:
            models.setdefault((head, options), {}).update(dict.fromkeys(names))
    return [" ".join([head, *names, options]) for (head, options), names in models.items()]


def _parts(claim: Claim) -> tuple[str, list[str], str]:
    """The start of a command, its models, and its options."""
    # for a claim on a family take XL, the size of the papers' tables
    model, reference = (name.replace("*", "XL") for name in (claim.model, claim.reference))
    names = [name for name in (model, reference) if name]
    small = claim.sizes[0]
    precision = claim.precision or "torch-default"
    if precision == "fp32":
        precision = "fp32 torch-default"
    batch = claim.batch.split()[0] if claim.batch else "64"
    timed = f"--batch {batch} --precision {precision} --out {REPORTED}"
    count = f"--res {small} --counter torch torchprofile-meta --out {REPORTED}"
    grow = f"--res 256 512 {timed}"
    step = f"--work training --res {small} --checkpointing on {timed}"
    return {
        "MACs": ("python -m bench.flops --model", names, count),
        "parameters": ("python -m bench.flops --model", names, count),
        "training MACs": ("python -m bench.flops --model", names, count),
        "speed": (f"python -m bench.versus {reference}", [model], f"--res {small} {timed}"),
        "slow-down": ("python -m bench.scaling --model", names, grow),
        "relative slow-down": ("python -m bench.scaling --model", names, grow),
        "training memory": ("python -m bench.memory --claims", [], f"--device cuda --out {REPORTED}"),
        "training steps/s": ("python -m bench.throughput --model", [model], step),
        "training steps": ("", [], ""),
        "FID": ("", [], ""),
    }[claim.quantity]
