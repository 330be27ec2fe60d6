"""Writes the report's section on training steps: how fast they are, and what a whole training costs."""

from collections.abc import Sequence

from bench.analysis import training_cost
from bench.analysis.training_cost import ZETTA, Cost
from bench.records.record import Record, Skipped, Throughput, size_text
from reports.figures.plots import Drawing
from reports.naming import order
from reports.overview import BLANK, Columns, images, markdown, significant, stamp

MJ = 1e6


def section(records: Sequence[Record]) -> tuple[str, list[Drawing]]:
    """Write the section; empty without timed steps and without counts of Table 17's models."""
    steps = _newest(records)
    costs = training_cost.costs(training_cost.published(), sorted(records, key=repr))
    known = [one for one in costs if one.train_macs is not None or one.measured]
    if not steps and not known:
        return "", []
    parts = ["## Training steps and what they add up to"]
    if steps:
        parts += [_of_steps(), markdown(_steps(steps))]
    if known:
        parts += ["### Cost of a training, beside FCDM's Table 17", _of_costs(costs), markdown(_costs(costs))]
        if any(one.measured for one in costs):
            parts += ["At the measured speed of a step, on one device:", markdown(_measured(costs))]
    return "\n\n".join(parts), []


Step = Throughput | Skipped


def _newest(records: Sequence[Record]) -> list[Step]:
    steps = [r for r in records if isinstance(r, Throughput | Skipped) and r.run.question == "train_step"]
    by_case = {
        (order(r.run.model), size_text(r.run.res), r.run.batch, *_setting(r)): r
        for r in sorted(steps, key=lambda r: r.run.environment.date)
    }
    return [by_case[case] for case in sorted(by_case)]


def _setting(step: Step) -> tuple[str, ...]:
    run = step.run
    return (
        run.environment.device,
        run.precision,
        "on" if run.checkpointing else "off",
        training_cost.settings(run) or BLANK,
    )


def _of_steps() -> str:
    return (
        "One step is the forward pass, the squared error of the noise, the backward pass, AdamW and the "
        "average of the weights; parameters, moments and average are float32, bf16 is autocast. Loading data "
        "and averaging gradients across devices are not in it. Checkpointing computes every block again in "
        "the backward pass, as FCDM's release does. Median step with its 95 % interval; "
        "† marks a case whose budget ended before the median was known to 1 %."
    )


def _steps(steps: Sequence[Step]) -> Columns:
    settings = [_setting(step) for step in steps]
    return {
        "model": [step.run.model for step in steps],
        "px": [size_text(step.run.res) for step in steps],
        "batch": [str(step.run.batch) for step in steps],
        "precision": [setting[1] for setting in settings],
        "checkpointing": [setting[2] for setting in settings],
        "images/s, measured here": [images(step) for step in steps],
        "J/image": [_joules(step) for step in steps],
        "settings": [setting[3] for setting in settings],
        "device": [setting[0] for setting in settings],
        "torch; commit; date": [
            f"{here.torch}; {here.commit or BLANK}; {here.date}"
            for here in (step.run.environment for step in steps)
        ],
    }


def _joules(step: Step) -> str:
    each = step.joules_per_image if isinstance(step, Throughput) else None
    return BLANK if each is None else significant(each)


def _of_costs(costs: Sequence[Cost]) -> str:
    made = sorted({stamp(counted.environment) for one in costs for counted in one.counted})
    return (
        "Z is the papers' unit: 3 x MACs of a forward pass x steps x batch 256, in zetta (1e21), printed as "
        "FLOPs with a MAC counted as one. *From printed* works it out from the MACs that the table prints, "
        "*from counted* from those counted here by torchprofile's rules. Real FLOPs are twice the MACs of "
        "every forward and backward pass; FCDM's release computes every block again in the backward pass, "
        "the other releases nothing. MDT trains on a second pass, over masked tokens, that is not counted. "
        f"Counted with {'; '.join(made) or BLANK}."
    )


def _zetta(value: float | None, scale: float = 1.0) -> str:
    return BLANK if value is None else significant(value / scale)


def _costs(costs: Sequence[Cost]) -> Columns:
    return {
        "model": [one.training.model for one in costs],
        "steps": [str(one.training.steps) for one in costs],
        "published Z": [one.training.printed.as_printed if one.training.printed else BLANK for one in costs],
        "Z from printed": [_zetta(one.from_printed) for one in costs],
        "Z from counted": [_zetta(one.from_counted) for one in costs],
        "published is": [one.verdict or BLANK for one in costs],
        "ZFLOPs, activations kept": [_zetta(one.flops(False), ZETTA) for one in costs],
        "ZFLOPs, recomputed": [_zetta(one.flops(True), ZETTA) for one in costs],
        "ZFLOPs as released": [
            f"{'over ' if one.at_least and one.release_flops else ''}{_zetta(one.release_flops, ZETTA)}"
            for one in costs
        ],
    }


def _measured(costs: Sequence[Cost]) -> Columns:
    rows = [(one, measured) for one in costs for measured in one.measured]
    return {
        "model": [one.training.model for one, _ in rows],
        "device": [measured.of.run.environment.device for _, measured in rows],
        "precision": [measured.of.run.precision for _, measured in rows],
        "batch of a step": [str(measured.of.run.batch) for _, measured in rows],
        "checkpointing": ["on" if measured.of.run.checkpointing else "off" for _, measured in rows],
        "settings": [training_cost.settings(measured.of.run) or BLANK for _, measured in rows],
        "measured with": [stamp(measured.of.run.environment) for _, measured in rows],
        "device-hours": [significant(measured.hours) for _, measured in rows],
        "MJ": [
            BLANK if measured.joules is None else significant(measured.joules / MJ) for _, measured in rows
        ],
    }
