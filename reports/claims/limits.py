"""What the CPUs among the devices can answer of the claims, and what they cannot."""

from collections import Counter
from collections.abc import Iterable, Sequence

from baselines import load
from baselines.claims import Claim
from reports.claims.figure import PARTS
from reports.claims.verdicts import COUNTS, FAILS, HOLDS, OPEN, UNMEASURED, Finding
from reports.markdown import BLANK, Columns, markdown
from reports.naming import order

TIMED = ("speed", "slow-down", "relative slow-down")  # quantities that any device can measure
# quantities that no CPU can answer, with the reason
BEYOND = {
    "training memory": "whether a training step fits a GPU of 24 or 40 GB; predictions are beside the claims",
    "training steps/s": "training steps per second of GPUs that the claims name",
    "training steps": "steps to an FID after training on ImageNet, of weights that were not released",
    "FID": "ratios of FID after training on ImageNet; losses of small trainings are beside them",
}


def section(found: Sequence[Finding]) -> str:
    """The answers of CPUs by quantity, and what stays open; blank if no CPU judged a claim."""
    cpus = sorted({one.device for one in found if _is_cpu(one)})
    if not cpus:
        return ""
    parts = ["## Claims that a CPU can judge", markdown(_table(found)), "\n".join(_lines(found))]
    return "\n\n".join(parts)


def _is_cpu(one: Finding) -> bool:
    return one.measured is not None and one.measured.environment.device_type == "cpu"


def _table(found: Sequence[Finding]) -> Columns:
    """Each claim once: its verdict if all CPUs and models that it was measured with agree."""
    rows = []
    for heading, quantities in PARTS:
        if quantities == COUNTS:
            continue
        claims = {one.claim.id for one in found if one.claim.quantity in quantities}
        verdicts: dict[str, set[str]] = {}
        for one in filter(_is_cpu, found):
            if one.claim.id in claims:
                verdicts.setdefault(one.claim.id, set()).add(one.verdict)
        agreed = Counter(of.pop() if len(of) == 1 else OPEN for of in verdicts.values())
        counts = [len(claims), agreed[HOLDS], agreed[FAILS], agreed[OPEN], len(claims) - len(verdicts)]
        rows.append([heading, *(str(count or BLANK) for count in counts)])
    names = ("quantity", "claims", HOLDS, FAILS, f"{OPEN}, or CPUs differ", "not measured on a CPU")
    return dict(zip(names, map(list, zip(*rows, strict=True)), strict=True))


def _lines(found: Sequence[Finding]) -> list[str]:
    on_cpu = [one for one in found if _is_cpu(one)]
    on_gpu = {one.claim.id for one in found if one.measured is not None and not _is_cpu(one)}
    alone = {one.claim.id: one.claim for one in on_cpu if one.claim.id not in on_gpu}
    devices = ", ".join(sorted({one.device for one in on_cpu}))
    lines = [
        f"- {len(alone)} claims of speed are judged on CPUs alone: {devices}. The papers measured them on "
        f"{_published(alone.values())}. The verdict says whether these CPUs show the printed ratio; it "
        "neither confirms nor refutes the number on the paper's device. A CPU has no TF32, which torch "
        "allows in convolutions and not in matrix products by default, and neither FlashAttention-2 nor "
        "Flash Linear Attention, with which the papers ran DiT and DiG."
    ]
    for quantity, reason in BEYOND.items():
        count = sum(claim.quantity == quantity for claim in load.claims())
        lines.append(f"- {count} claims cannot be judged on a CPU: {reason}.")
    unmeasured = {
        one.claim.id: one.claim for one in found if one.verdict == UNMEASURED and one.claim.quantity in TIMED
    }
    if unmeasured:
        timed = {name for one in on_cpu for name in (one.model, one.reference)}
        names = {name for claim in unmeasured.values() for name in (claim.model, claim.reference)} - timed
        without = sorted((name for name in names if name and "*" not in name), key=order)
        lines.append(
            f"- {len(unmeasured)} claims of speed that a CPU can judge are not measured yet; the commands "
            "are below." + (f" No time of these models is recorded: {', '.join(without)}." if without else "")
        )
    return lines


def _published(claims: Iterable[Claim]) -> str:
    """The papers' devices and batches: A100, batch 64 (DiCo); a device that is not stated, ... (FCDM)."""
    where: dict[str, dict[str, None]] = {}
    for claim in claims:
        device = claim.device or "a device that is not stated"
        where.setdefault(f"{device}, batch {claim.batch or 'not stated'}", {})[claim.paper] = None
    return "; ".join(f"{words} ({', '.join(papers)})" for words, papers in where.items())
