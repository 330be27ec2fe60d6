"""The options that commands share, and the one line a wrong one ends in. Imports no torch."""

import argparse
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from bench.records.record import Record, Size, StoreError, height_width, read, size_text
from bench.records.store import Store, open_store
from bench.training import processes

if TYPE_CHECKING:
    from torch import nn

PIXELS_PER_LATENT = 8
REPORTED = Path("reports/out/records.jsonl")  # what a sweep leaves, from where it was started
FORMATS = ("table", "md", "csv", "json", "latex")
PATIENCE_S = 10.0  # more than processes that begin together differ by
PRECISIONS = ("fp32", "tf32", "torch-default", "bf16", "fp16")


class UsageError(ValueError):
    """What a user asked for cannot be done: told in one line, exit code 2, nothing measured."""


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        _tell(f"{self.prog}: {message.removeprefix('argument ')}")
        self.exit(2)


def parser(command: str, doc: str | None) -> Parser:
    """A parser whose --help is the module's docstring."""
    return Parser(
        prog=f"python -m {command}",
        description=doc,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )


def run(parser: Parser, body: Callable[[argparse.Namespace], int], argv: Sequence[str] | None) -> int:
    """Parse and run a command; a UsageError becomes its one line and exit code 2."""
    try:
        args = parser.parse_args(argv)
        try:
            return body(args)
        except UsageError as error:
            _tell(f"{parser.prog}: {error}".replace("\n", " "))
            return 2
    except KeyboardInterrupt:
        if not processes.local_rank():  # it was interrupted with the first, which says it
            print(f"{parser.prog}: interrupted; what was recorded is kept", file=sys.stderr)
        return 130


def _tell(line: str) -> None:
    """Say what ends a command, once where torchrun started several processes of it.

    The first on a machine says it, and torchrun then ends the others. One that is still there after a while
    was alone with its trouble, and says it.
    """
    if processes.local_rank():
        time.sleep(PATIENCE_S)
    print(line, file=sys.stderr)


def positive_int(text: str) -> int:
    if not (text.isascii() and text.isdigit()) or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number of at least 1, got {text!r}")
    return int(text)


def positive_seconds(text: str) -> float:
    """Seconds: 90, 90s, 8m or 1h."""
    scale = {"s": 1, "m": 60, "h": 3600}.get(text[-1:], 0)
    try:
        seconds = float(text[:-1]) * scale if scale else float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise argparse.ArgumentTypeError(f"must be seconds above zero, as 90, 90s, 8m or 1h, got {text!r}")
    return seconds


def resolution(text: str) -> Size:
    """Pixels: 512, or 512x256 for height x width."""
    sides = text.lower().split("x")
    if len(sides) > 2 or not all(side.isascii() and side.isdigit() for side in sides):
        raise argparse.ArgumentTypeError(f"must be pixels, as 512 or 512x256 (height x width), got {text!r}")
    numbers = [int(side) for side in sides]
    if any(n < PIXELS_PER_LATENT or n % PIXELS_PER_LATENT for n in numbers):
        near = [max(PIXELS_PER_LATENT, round(n / PIXELS_PER_LATENT) * PIXELS_PER_LATENT) for n in numbers]
        works = "x".join(map(str, near))
        raise argparse.ArgumentTypeError(
            f"must be a multiple of {PIXELS_PER_LATENT} pixels, one latent, got {text}; try {works}"
        )
    return numbers[0] if len(set(numbers)) == 1 else (numbers[0], numbers[1])


def add_models(parser: Parser, default: str) -> None:
    parser.add_argument(
        "--model",
        nargs="+",
        action="extend",
        metavar="NAME",
        help="as published, in any case, FCDM-L@k3 for an ablation; a pattern such as 'FCDM-*'; or your own "
        f"my_pkg.my_mod:factory, a callable that takes a models.Task (default: {default})",
    )
    parser.add_argument(
        "--weights",
        type=Path,
        metavar="FILE",
        help="a checkpoint with its authors' keys for the one --model: .pt (ema, model or a bare "
        "state_dict) or .safetensors",
    )


def add_res(parser: Parser, default: Sequence[int]) -> None:
    parser.add_argument(
        "--res",
        nargs="+",
        type=resolution,
        default=list(default),
        metavar="PX",
        help="pixels of the image, 8 times the latent: 512, or 512x256 (height x width); "
        f"(default: {' '.join(map(str, default))})",
    )


def add_device(parser: argparse._ActionsContainer) -> None:
    parser.add_argument(
        "--device", choices=("cpu", "cuda"), help="default: cuda where torch sees one, else cpu"
    )


def add_records(parser: Parser, what: str) -> None:
    """The option whose files `known_records` reads."""
    parser.add_argument("--records", type=Path, nargs="+", metavar="FILE", help=f"JSON lines {what}")


def add_switch(parser: Parser, flag: str, what: str) -> None:
    """--flag alone turns it on; --flag off on sweeps both."""
    parser.add_argument(
        flag, nargs="*", type=on_or_off, action=_Switch, default=[False], metavar="on|off", help=what
    )


class _Switch(argparse.Action):
    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,  # noqa: ANN401 - argparse's own signature
        option_string: str | None = None,
    ) -> None:
        setattr(namespace, self.dest, list(values) or [True])


def on_or_off(text: str) -> bool:
    if text not in ("on", "off"):
        raise argparse.ArgumentTypeError(f"must be on or off, got {text!r}")
    return text == "on"


def share(text: str) -> float:
    """A share of a whole: above 0, below 1."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"must be a share above 0 and below 1, as 0.01, got {text!r}")
    return value


def add_output(parser: Parser) -> None:
    parser.add_argument("--format", choices=FORMATS, default="table", help="default: table")
    parser.add_argument(
        "--out",
        type=Path,
        metavar="FILE",
        help="write the output to FILE as well; a FILE that ends in .jsonl gets each record, raw samples "
        "included, appended as soon as it is there",
    )
    parser.add_argument(
        "--force",
        action="store_true",
        help="measure again what a .jsonl FILE holds already; let --out replace a FILE of another kind",
    )


def check_output(out: Path | None, force: bool) -> None:
    """Refuse, before anything is measured, an --out that cannot be written or would be lost.

    Raises:
        UsageError: a folder, an unwritable place, or a file with something in it and no --force.
    """
    if out is None:
        return
    if out.is_dir():
        raise UsageError(f"--out {out}: is a folder; name a file in it")
    if not keeps_records(out) and not force and out.exists() and out.stat().st_size:
        raise UsageError(f"--out {out}: exists; name another file, or one ending in .jsonl, or add --force")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with out.open("a", encoding="utf-8"):
            pass
    except OSError as error:
        raise UsageError(f"--out {out}: cannot be written: {error.strerror}") from error


@contextmanager
def store(out: Path | None) -> Iterator[Store | None]:
    """The store of records that --out names by ending in .jsonl, open for writing; None for any other --out.

    Raises:
        UsageError: it cannot be opened, another process writes to it, or a line in it is not a record.
    """
    if out is None or not keeps_records(out):
        yield None
        return
    with ExitStack() as stack:
        try:
            opened = stack.enter_context(open_store(out))
        except StoreError as error:
            raise UsageError(f"--out {error}") from error
        yield opened


def store_notes(opened: Store) -> list[str]:
    """What a user should know of a store that was found."""
    if not opened.torn:
        return []
    where = f"{opened.path}.torn"
    return [f"{opened.path}: a killed writer left its last line unfinished; it is now in {where}"]


def known_records(given: Sequence[Path] | None) -> list[Record]:
    """The records of --records; by default those that python -m reports reads.

    Raises:
        UsageError: a file that cannot be read, or a line in it that is not a record.
    """
    from baselines import load

    mine = [REPORTED] if REPORTED.exists() else []
    records: list[Record] = []
    for path in given or [*mine, *sorted(load.MEASURED.glob("**/*.jsonl"))]:
        records += records_of(path, "--records ")
    return records


def records_of(path: Path, flag: str = "") -> list[Record]:
    """Every whole record of a file that an option, or an argument of its own, names.

    Raises:
        UsageError: the file cannot be read, or a line in it is not a record.
    """
    try:
        return read(path)
    except StoreError as error:
        raise UsageError(f"{flag}{error}") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{flag}{path}: not a text file: byte {error.start}") from error
    except OSError as error:
        raise UsageError(f"{flag}{path}: {error.strerror}") from error


def records_file(text: str) -> Path:
    """A path for records, which ends in .jsonl."""
    if not keeps_records(Path(text)):
        raise argparse.ArgumentTypeError(f"must end in .jsonl, got {text!r}")
    return Path(text)


def keeps_records(out: Path | None) -> bool:
    return out is not None and out.suffix == ".jsonl"


def model_names(given: Sequence[str] | None, default: Sequence[str], flag: str = "--model") -> list[str]:
    """Printed names of --model, or of another argument, patterns expanded, each once, in the order given.

    Raises:
        UsageError: a name or a pattern that matches nothing, with the nearest names.
    """
    from models.registry import names, printed

    found: list[str] = []
    for name in given or default:
        if any(sign in name for sign in "*?["):
            matches = names(name)
            if not matches:
                all_of_them = names("*@*" if "@" in name else "*")
                raise UsageError(
                    f"{flag} {name}: matches no backbone; all of them are {', '.join(all_of_them)}"
                )
            found += matches
        else:
            try:
                found.append(printed(name))
            except ValueError as error:
                raise UsageError(f"{flag} {error}") from error
    return list(dict.fromkeys(found))


def meta_models(
    names: Sequence[str], sizes: Sequence[Size], weights: Path | None, flag: str = "--model"
) -> dict[tuple[str, Size], "nn.Module"]:
    """Every model at every size on the meta device: whatever cannot be built is known before measuring.

    A user's model is called once as well, and held to the interface.

    Raises:
        UsageError: a model that cannot be built for a size, breaks the interface or does not fit --weights.
    """
    from models.weights import load_official, read_weights

    if weights is not None and len(names) != 1:
        raise UsageError(f"--weights {weights}: belongs to one --model, got {len(names)}: {', '.join(names)}")
    built = {(name, size): _on_meta(name, size, flag) for name in names for size in sizes}
    if weights is not None:
        try:
            state_dict = read_weights(weights)
            for model in built.values():
                load_official(model, state_dict)
        except ValueError as error:
            raise UsageError(f"--weights {error}") from error
    return built


def check_models(
    names: Sequence[str], sizes: Sequence[Size], weights: Path | None, flag: str = "--model"
) -> None:
    """Raise as `meta_models` does, for commands that need no model: what was built for a flag is not again.

    A suite names the same models in one table after another.
    """
    if weights is not None:
        meta_models(names, sizes, weights, flag)
        return
    for name in names:
        for size in sizes:
            _builds(name, size, flag)


@cache
def _builds(name: str, size: Size, flag: str) -> None:
    _on_meta(name, size, flag)


def _on_meta(name: str, size: Size, flag: str) -> "nn.Module":
    from models.contract import build, check
    from models.registry import is_plugin, task_at

    try:
        task = task_at(name, *height_width(size))
        return check(name, task) if is_plugin(name) else build(name, task)
    except ValueError as error:
        raise UsageError(f"{flag} {error} (at --res {size_text(size)})") from error


@contextmanager
def progress(what: str, total: int) -> Iterator[Callable[[str], None]]:
    """A bar on stderr where that is a terminal, nothing in a pipe.

    Yields:
        A function to call with the name of the case that begins; the one before it is then done.
    """
    with live_progress(what, total) as (begin, _):
        yield begin


@contextmanager
def live_progress(what: str, total: int) -> Iterator[tuple[Callable[[str], None], Callable[[str], None]]]:
    """The bar of `progress`, for cases that have something to say while they last.

    Yields:
        The function of `progress`, and one to call with another name for the case at hand.
    """
    if not sys.stderr.isatty():
        yield (lambda name: None), (lambda name: None)
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn(what),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[name]}"),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=total, name="")
        started = 0

        def begin(name: str) -> None:
            nonlocal started
            bar.update(task, completed=started, name=name)
            started += 1

        yield begin, lambda name: bar.update(task, name=name)
