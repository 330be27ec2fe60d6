"""Predicted speed and memory of a backbone on GPUs that are not available.

    python -m bench.project --to rtx4090 a100-80 h100-sxm
    python -m bench.project --to h200 --model FCDM-XL DiT-XL/2 --res 256 512 --precision bf16 tf32
    python -m bench.project --to "A100 PCIe 40GB" --work training --checkpointing --batch 32 64

Predictions use operator costs, nominal peaks, and efficiencies calibrated on measured passes. Published rows
calibrate nothing, but DiT's were known when the prior of fp32 products was set. Method: docs/project.md
"""

import argparse
import math
from collections import Counter
from collections.abc import Iterable, Sequence

from bench.analysis.memory import memory_ratios
from bench.analysis.projection.passes import PassKey, pass_key
from bench.analysis.projection.predictions import TABLE, PassPrediction
from bench.analysis.projection.projector import DEVICE_NAMES, Projector
from bench.analysis.rooflines import roofline
from bench.cli import models, options, records, settings, values
from bench.cli.progress import progress
from bench.jobs.pass_costs import CostSource
from bench.store.store import REPORTED

MODELS = ("FCDM-XL", "DiT-XL/2", "DiCo-XL", "DiC-XL")
TO = ("rtx4090", "a100-80", "h100-sxm", "h200")


def _gpus(to: Iterable[str], precisions: Sequence[str]) -> dict[str, str]:
    """Names of GPUs, each with the text that the user gave for it."""
    found: dict[str, str] = {}
    for text in to:
        peaks = settings.gpu_peaks(text, precisions, "--to")
        found.setdefault(peaks.device, text)
    return found


def _keys(args: argparse.Namespace) -> list[tuple[PassKey, str, bool]]:
    """Keys of every pass, each with the precision of its arithmetic and whether blocks are recomputed."""
    names = models.model_names(args.model, default=MODELS)
    models.check_models(names, args.res, weights=None)
    return [
        (pass_key(name, res, batch, precision, work), precision, checkpointing)
        for work in dict.fromkeys(args.work)
        for checkpointing in (dict.fromkeys(args.checkpointing) if work == "training" else (False,))
        for precision in dict.fromkeys(args.precision)
        for group in models.by_size(names, args.res)
        for batch in dict.fromkeys(args.batch)
        for name, res in group
    ]


def _body(args: argparse.Namespace) -> int:
    records.check_output(args.out, args.force)
    if args.weights:
        raise options.UsageError(f"--weights {args.weights}: weights do not change costs; leave it out")
    if "training" in args.work:
        settings.check_training((), args.precision)
    elif any(args.checkpointing):
        raise options.UsageError("--checkpointing: is of a training step; add --work training")
    gpus = _gpus(args.to or TO, args.precision)
    keys = _keys(args)
    known = records.known_records(args.records)
    with records.store(args.out) as store, progress("predicting", len(keys)) as begin:
        source = CostSource(known, store, args.force)
        notes = records.store_notes(store) if store is not None else []
        made, unused = source.calibrated(known)
        errors, lacking = source.memory_errors(known, args.work)
        rows = []
        for key, precision, checkpointing in keys:
            begin(key[0])
            with options.usage_errors("--model "):
                work = source.work(key, checkpointing=checkpointing)
                memory = source.memory(key, checkpointing=checkpointing)
            rows += [
                PassPrediction(
                    gpu=gpu,
                    precision=precision,
                    work=work,
                    prediction=made.predict(work, roofline.of_gpu(gpu), precision),
                    memory=memory,
                    checkpointing=checkpointing,
                    errors=errors,
                )
                for gpu in gpus
            ]
    rows.sort(key=lambda row: list(gpus).index(row.gpu))
    notes += [errors.describe(work) for work in dict.fromkeys(args.work)] + lacking
    notes += memory_ratios.known_errors(known, args.work)
    records.show(TABLE, rows, [*notes, *_notes(made, gpus, unused), _origin(rows)], args)
    return 0


def _notes(made: Projector, gpus: dict[str, str], unused: Counter[str]) -> list[str]:
    named = [f"{text}: {gpu}" for gpu, text in gpus.items() if text.lower() != gpu.lower()]
    notes = [f"--to {'; '.join(named)}"] if named else []
    notes.append(f"predicted, not measured; {made.describe()}")
    for device_type, calibration in made.calibrations.items():
        if count := len(calibration.observations):
            misfit = 100 * math.expm1(calibration.misfit)
            notes.append(
                f"calibrated on {count} passes of {DEVICE_NAMES[device_type]}s; root mean square of their "
                f"residuals: {misfit:.0f} %"
            )
    notes.append(made.describe_coverage())
    if unused:
        reasons = "; ".join(f"{count} {reason}" for reason, count in unused.most_common())
        notes.append(f"measured passes that do not calibrate: {reasons}")
    return notes


def _origin(rows: Sequence[PassPrediction]) -> str:
    """Torch versions, commits and newest date of the operator costs."""
    environments = [row.work.environment for row in rows]
    made = sorted(
        {f"torch {environment.torch}, commit {environment.commit or '-'}" for environment in environments}
    )
    return f"work counted with {', '.join(made)}; {max(environment.date for environment in environments)}"


def parser() -> options.Parser:
    made = options.parser("bench.project", __doc__)
    text = (
        "GPUs of baselines/gpus.csv by name or a unique part of it; SXM unless PCIe is named (default: "
        f"{' '.join(TO)})"
    )
    options.add(made, "--to", str, text, several=True, metavar="GPU")
    options.add_models(made, default=" ".join(MODELS))
    options.add_res(made, default=(256,))
    options.add(made, "--batch", values.positive_int, "images a pass", default=[64], several=True)
    options.add(made, "--precision", options.PRECISIONS, default=["bf16"], several=True)
    options.add(made, "--work", options.WORKS, default=["inference"], several=True)
    options.add_switch(made, "--checkpointing", "in training, compute every block again for its gradients")
    options.add_records(made, f"to calibrate on (default: {REPORTED} and the suite's own)")
    options.add_output(made)
    return made


main = options.command(parser, _body)

if __name__ == "__main__":
    raise SystemExit(main())
