"""What a study of convergence says, one row a model: losses, differences within a seed, what it took."""

from collections.abc import Sequence

from bench.analysis import learning_curves
from bench.cli import tables
from bench.records.record import Trained


def rows(records: Sequence[Trained], reference: str) -> list[tables.Row]:
    """One object of the JSON output for each model; what is not known is None."""
    found = learning_curves.studies(records)
    study = found[0] if found else None
    return [_row(model, records, study, reference) for model in dict.fromkeys(r.run.model for r in records)]


def _row(
    model: str, records: Sequence[Trained], study: learning_curves.Study | None, reference: str
) -> tables.Row:
    ours = [record for record in records if record.run.model == model]
    run, recipe = ours[0].run, ours[0].recipe
    ended = study is not None and model in study.arms
    loss = learning_curves.final_loss(study, model) if study and ended else None
    averaged = (
        [learning_curves.final_loss(study, model, i).mean for i in range(len(recipe.ema_decays))]
        if study and ended
        else []
    )
    compared = study and ended and model != reference and reference in study.arms
    apart = learning_curves.difference(study, model, reference=reference) if study and compared else None
    last = [record.evaluations[-1] for record in ours if record.status == "ok"]
    joules = [at.joules for at in last if at.joules is not None]
    return {
        "model": model,
        "family": run.family,
        "data": recipe.data,
        "data_sha256": recipe.data_sha256,
        "objective": recipe.objective,
        "steps": recipe.steps,
        "batch": recipe.batch,
        "pass_batch": sorted({record.run.batch for record in ours}),
        "processes": ours[0].processes,
        "precision": run.precision,
        "compile": run.compile,
        "channels_last": run.channels_last,
        "checkpointing": run.checkpointing,
        "device": run.environment.device,
        "torch": run.environment.torch,
        "date": run.environment.date,
        "seeds": [record.seed for record in ours],
        "status": [record.status for record in ours],
        "reason": [record.reason for record in ours],
        "losses": [record.evaluations[-1].loss for record in ours if record.status == "ok"],
        "loss": loss and loss.mean,
        "loss_interval": list(loss.interval) if loss and loss.interval else None,
        "ema_decays": list(recipe.ema_decays),
        "ema_losses": averaged,
        "reference": reference,
        "difference": apart and apart.difference.mean,
        "difference_interval": list(apart.difference.interval)
        if apart and apart.difference.interval
        else None,
        "verdict": apart.difference.verdict if apart else None,
        "train_macs": ours[0].train_macs,
        "train_flops": 2 * ours[0].train_macs * recipe.batch * recipe.steps if last else None,
        "seconds": [at.seconds for at in last],
        "joules": joules if len(joules) == len(last) and last else None,
    }


def columns(rows: Sequence[tables.Row]) -> list[tables.Column]:
    """The columns; those that every row leaves blank are left out."""
    reference, decays = rows[0]["reference"], rows[0]["ema_decays"]

    def averaged(i: int) -> tables.Column:
        return f"EMA {decays[i]}", lambda row: _loss(row["ema_losses"][i] if row["ema_losses"] else None)

    joules: list[tables.Column] = [("kJ", lambda row: _mean(row["joules"], 1e3))]
    failed: list[tables.Column] = [("remarks", _remarks)]
    apart: list[tables.Column] = [
        (f"loss - {reference}'s", lambda row: tables.fixed(5, row["difference"])),
        ("95 % interval of that", lambda row: _interval(row["difference_interval"])),
        ("verdict", lambda row: row["verdict"] or "-"),
    ]
    return [
        ("model", lambda row: row["model"]),
        ("seeds", lambda row: str(len(row["losses"]))),
        ("loss", lambda row: _loss(row["loss"])),
        ("95 % interval", lambda row: _interval(row["loss_interval"])),
        *map(averaged, range(len(decays))),
        *(apart if len(rows) > 1 else []),
        ("training TFLOPs", lambda row: _tera(row["train_flops"])),
        ("s", lambda row: _mean(row["seconds"], 1.0)),
        *(joules if any(row["joules"] for row in rows) else []),
        *(failed if any(_remarks(row) for row in rows) else []),
    ]


def _loss(value: float | None) -> str:
    return tables.fixed(4, value)


def _interval(bounds: Sequence[float] | None) -> str:
    return f"{bounds[0]:.4f} to {bounds[1]:.4f}" if bounds else "-"


def _mean(values: Sequence[float] | None, unit: float) -> str:
    return tables.significant(sum(values) / len(values) / unit) if values else "-"


def _tera(flops: int | None) -> str:
    return "-" if flops is None else tables.significant(flops / 1e12)


def _remarks(row: tables.Row) -> str:
    """What became of seeds that did not end well, and the images of a pass where memory ran out."""
    odd = [
        f"seed {seed} {status}: {reason}"
        for seed, status, reason in zip(row["seeds"], row["status"], row["reason"], strict=True)
        if status != "ok"
    ]
    if len(row["pass_batch"]) > 1:
        odd.append(f"passes of {', '.join(map(str, row['pass_batch']))} images")
    return "; ".join(odd)
