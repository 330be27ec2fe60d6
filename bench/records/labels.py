"""What a record is about: the name of its case, its device and software. Imports no torch."""

from bench.records.record import (
    Ceiling,
    Comparison,
    Counted,
    Environment,
    NotCompared,
    Note,
    Profiled,
    Quality,
    Record,
    Run,
    Trained,
    Work,
    size_text,
)


def name(record: Record) -> str:
    """Name the case that a record answers: its command or question, the model, and what is not as usual."""
    if isinstance(record, Comparison | NotCompared):
        first = record.runs[0]
        return f"{first.question} {', '.join(run.model for run in record.runs)} {settings(first)}"
    if isinstance(record, Counted):
        return f"flops {record.model} {size_text(record.res)} px, batch {record.batch}, {record.counter}"
    if isinstance(record, Work):
        size = f"{size_text(record.res)} px, batch {record.batch}, {record.precision}"
        return f"operators {record.model} {size}, {record.work}"
    if isinstance(record, Ceiling):
        return f"ceiling {record.what}, {record.precision}"
    if isinstance(record, Quality):
        return f"quality of {record.samples} beside {record.reference}"
    if isinstance(record, Note):
        return "note"
    seed = f", seed {record.seed}" if isinstance(record, Trained) else ""
    return f"{record.run.question} {words(record.run)}{seed}"


def environment(record: Record) -> Environment | None:
    """The device and the software of a record; None for a note, which has none of its own."""
    if isinstance(record, Note):
        return None
    if isinstance(record, Comparison | NotCompared):
        return record.runs[0].environment
    if isinstance(record, Counted | Work | Ceiling | Quality):
        return record.environment
    return record.run.environment


def passes(profiled: Profiled) -> str:
    """What the seconds of a profile are of, how far its passes lie apart, and whether that disturbs them."""
    if not profiled.has_samples:
        told = f"mean of {profiled.passes} passes, whose spread was not kept"
    elif profiled.spread is None:
        told = "one pass"
    else:
        told = f"median of {profiled.passes} passes, spread {100 * profiled.spread:.0f} %"
    return f"{told}; DISTURBED: {', '.join(profiled.noise)}" if profiled.noise else told


def words(run: Run) -> str:
    """The model and how it is run, with the settings that are not as usual."""
    return f"{run.model} {settings(run)}"


def settings(run: Run) -> str:
    """256 px, batch 64, bf16, and what else is not as usual."""
    return ", ".join([f"{size_text(run.res)} px", f"batch {run.batch}", run.precision, *switches(run)])


def switches(run: Run) -> tuple[str, ...]:
    """Name what is not as usual."""
    told = ["torch.compile"] * run.compile + ["CUDA graphs"] * run.cuda_graphs
    told += ["channels last"] * run.channels_last + ["checkpointing"] * run.checkpointing
    told += [f"{run.attention} attention"] * (run.attention != "auto")
    return (*told, *[f"protocol {run.protocol}"] * (run.protocol != "suite"))
