"""The commands as functions: records in Python, and frames of pandas.

    from bench import api

    api.flops("FCDM-S", res=256)[0].macs
    api.throughput("FCDM-S", "net.py:Net", res=[256, 512], batch=8, model_args={"depth": 12})
    api.versus("DiT-S/2", "FCDM-S", budget="1m", out="runs.jsonl")
    api.load("*.jsonl").to_pandas()

Options are those of the command, with underscores: `python -m bench.throughput --help` lists them.
"""

import importlib
from collections.abc import Mapping
from dataclasses import asdict
from glob import glob
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.cli import options as cli
from bench.cli import records as files
from bench.jobs import suite
from bench.records import comparison
from bench.records.base import Record, size_text
from bench.records.comparison import ComparisonCase
from bench.records.registry import RECORDS
from bench.tables import render

if TYPE_CHECKING:
    import pandas


class Records(list[Record]):
    """Records in order; a case without a result is a Skipped with its reason."""

    def to_pandas(self) -> "pandas.DataFrame":
        """A frame with a row for each record, and for each model of a comparison.

        Columns are named and valued as in --format json. ImportError: pandas is not installed.
        """
        import pandas

        return pandas.DataFrame([row for record in self for row in _rows(record)])


def flops(*models: str, out: str | Path | None = None, force: bool = False, **options: object) -> Records:
    """Count models, as `python -m bench.flops`.

    Args:
        models: names, patterns, or a user's such as net.py:Net.
        out: a .jsonl file: its records are used, and new ones appended.
        force: count again what the file has.
        options: of the command: res=256, counter=["torch", "fvcore"], batch=1, model_args={"depth": 12}.

    Raises:
        ValueError: what the command refuses, in its words.
    """
    return _run("flops", models, out, force, options)


def throughput(
    *models: str, out: str | Path | None = None, force: bool = False, **options: object
) -> Records:
    """Time passes or training steps, as `python -m bench.throughput`; the arguments are those of `flops`."""
    return _run("throughput", models, out, force, options)


def versus(*models: str, out: str | Path | None = None, force: bool = False, **options: object) -> Records:
    """Compare models in interleaved rounds, as `python -m bench.versus`, the reference first.

    The arguments are those of `flops`.
    """
    return _run("versus", models, out, force, options)


def load(*patterns: str | Path) -> Records:
    """Records of .jsonl files, by paths or patterns such as "runs/*.jsonl".

    ValueError: no such file, or a line that is not a record.
    """
    found = Records()
    for pattern in map(str, patterns):
        paths = [pattern] if Path(pattern).exists() else sorted(glob(pattern, recursive=True))
        if not paths:
            raise ValueError(f"{pattern}: no such file")
        for path in paths:
            found += files.read_contents(Path(path)).records
    return found


def _run(
    name: str, models: tuple[str, ...], out: str | Path | None, force: bool, given: Mapping[str, object]
) -> Records:
    if not models:
        raise ValueError(f"{name}: name a model, as FCDM-S or net.py:Net")
    command = importlib.import_module(f"bench.{name}")
    parser: cli.Parser = command.parser()
    parser.raises = True
    if unfit := {"model", "models", "help"} & given.keys():
        raise ValueError(f"{name}: takes no {', '.join(sorted(unfit))}; models are given without a keyword")
    named = {"models" if name == "versus" else "model": list(models)}
    words = {option.replace("_", "-"): _word(value) for option, value in given.items() if value is not None}
    device = ["--device", str(words.pop("device"))] if "device" in words else []
    path = None if out is None else Path(out)
    if path is not None and not files.keeps_records(path):
        raise ValueError(f"out: must end in .jsonl, got {str(out)!r}")
    files.check_output(path, force)
    args = parser.parse_args([*suite.arguments({**named, **words}), *device])
    return Records(files.run_jobs(command.jobs(args), path, force=force)[0])


def _word(value: object) -> object:
    """A value as `suite.arguments` takes it: a size of two numbers and keywords of a constructor as text."""
    if isinstance(value, Mapping):
        return ",".join(f"{key}={item!r}" for key, item in value.items())
    if isinstance(value, tuple):
        return size_text((value[0], value[1])) if _is_size(value) else list(value)
    if isinstance(value, list):
        return [_word(item) for item in value]
    return value


def _is_size(value: tuple[Any, ...]) -> bool:
    return len(value) == 2 and all(isinstance(side, int) and not isinstance(side, bool) for side in value)


def _rows(record: Record) -> list[dict[str, Any]]:
    """Values by name of the column, as in JSON; the fields of a kind without a table of its records."""
    table = getattr(importlib.import_module(RECORDS[record.case.kind].__module__), "TABLE", None)
    kind = {"kind": record.case.kind}
    if table is not None:
        rows: list[Any] = [*comparison.rows(record)] if isinstance(record.case, ComparisonCase) else [record]
        return [kind | render.raw(table, row) for row in rows]
    here = {key: getattr(record.environment, key) for key in ("device", "torch", "date")}
    measured = {key: value for key, value in asdict(record).items() if key not in ("case", "environment")}
    return [kind | asdict(record.case) | measured | here]
