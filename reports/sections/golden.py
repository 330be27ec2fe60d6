"""Writes the report's section on golden outputs: whether devices compute what the released code computes."""

from collections.abc import Sequence

from bench.records import labels
from bench.records.record import REPRODUCED, Golden, Record, Skipped, size_text
from reports.figures.plots import Drawing
from reports.naming import order
from reports.overview import BLANK, Columns, markdown
from reports.selection import Setting, setting_of

Answer = Golden | Skipped


def section(records: Sequence[Record]) -> tuple[str, list[Drawing]]:
    """Write the section; empty without records of goldens, which may be in any order. The newest counts."""
    answers = [one for one in records if isinstance(one, Golden | Skipped) and one.run.question == "golden"]
    newest: dict[tuple[Setting, tuple[int, int, str]], Answer] = {}
    for one in sorted(answers, key=lambda one: one.run.environment.date):
        newest[setting_of(one.run), order(one.run.model)] = one
    if not newest:
        return "", []
    kept = [newest[case] for case in sorted(newest)]
    return "\n\n".join(["## Golden outputs", _said(kept), markdown(_table(kept))]), []


def _said(answers: Sequence[Answer]) -> str:
    done = sum(_verdict(one) == REPRODUCED for one in answers)
    return (
        f"{done} of {len(answers)} cases reproduced what the authors' released code gives for the same "
        "weights and inputs. Cells are the root mean square of the difference as a share of that of the "
        "released output, and in brackets what rounding explains in that precision (`python -m bench.golden "
        "--help`). out_n is the call under sharper weights; other inputs are those of a later call, held to "
        "the same model run eagerly. fp32 has no TF32 in it."
    )


def _table(answers: Sequence[Answer]) -> Columns:
    runs = [one.run for one in answers]
    outputs = dict.fromkeys(
        dev.output for one in answers if isinstance(one, Golden) for dev in one.deviations
    )
    return {
        "model": [run.model for run in runs],
        "px": [size_text(run.res) for run in runs],
        "batch": [str(run.batch) for run in runs],
        "precision": [", ".join([run.precision, *labels.switches(run)]) for run in runs],
        **{name: [_cell(one, name) for one in answers] for name in sorted(outputs)},
        "recompilations": [_recompilations(one) for one in answers],
        "verdict": [_verdict(one) for one in answers],
        "device": [run.environment.device for run in runs],
        "torch": [run.environment.torch for run in runs],
        "commit": [run.environment.commit or BLANK for run in runs],
        "date": [run.environment.date[:10] for run in runs],
    }


def _cell(answer: Answer, output: str) -> str:
    found = [one for one in answer.deviations if one.output == output] if isinstance(answer, Golden) else []
    return f"{found[0].error:.1e} ({found[0].tolerance:.1e})" if found else BLANK


def _recompilations(answer: Answer) -> str:
    if isinstance(answer, Skipped) or answer.recompilations is None:
        return BLANK
    return str(answer.recompilations)


def _verdict(answer: Answer) -> str:
    return answer.verdict if isinstance(answer, Golden) else f"{answer.status}: {answer.reason}"
