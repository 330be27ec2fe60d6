"""Options shared by commands, and one-line error messages. Imports no torch."""

import argparse
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from bench.cli import values
from bench.cli.ending import UsageError as UsageError
from bench.cli.ending import print_error
from bench.cli.ending import run as run
from bench.records.base import Size
from bench.tables.render import FORMATS
from models.users.names import arguments_of, file_of, is_users, with_arguments

WORKS = ("inference", "training")
PRECISIONS = ("fp32", "tf32", "torch-default", "bf16", "fp16")


class DefaultSizes(list[Size]):
    """Default sizes, which a network published for another size replaces by its own."""


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line.

    Attributes:
        raises: an error is a UsageError instead, for calls from Python.
    """

    raises = False

    def error(self, message: str) -> NoReturn:
        if self.raises:
            raise UsageError(message.removeprefix("argument "))
        print_error(f"{self.prog}: {message.removeprefix('argument ')}")
        self.exit(2)

    def _print_message(self, message: str, file: Any = None) -> None:  # noqa: ANN401 - argparse's own signature
        """Print --help; argparse itself hides an error of writing."""
        (file or sys.stderr).write(message)

    def parse_args(  # type: ignore[override] # of its overloads only this one is used
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> argparse.Namespace:
        """Parse, and add --model-args to the names of users' models."""
        given = list(sys.argv[1:] if args is None else args)
        if bad := next((word for word in given if "\0" in word), None):
            self.error(f"{bad!r}: must have no null byte")
        parsed = super().parse_args(given, namespace)
        self._keep_other_files(parsed)
        self._note_repeated(given)
        if getattr(parsed, "task", None):
            parsed.model_args = {**(parsed.model_args or {}), "task": parsed.task}
        if getattr(parsed, "model_args", None):
            try:
                self._add_model_args(parsed)
            except ValueError as error:
                self.error(f"{'--task' if parsed.task else '--model-args'}: {error}")
        return parsed

    def _note_repeated(self, given: Sequence[str]) -> None:
        """Note the options given more than once: argparse takes the last in silence."""
        for action in self._actions:
            count = sum(word.partition("=")[0] in action.option_strings for word in given)
            if count > 1 and action.nargs != 0 and not isinstance(action, argparse._ExtendAction):
                print(f"{action.option_strings[0]}: given {count} times; the last counts", file=sys.stderr)

    def _keep_other_files(self, parsed: argparse.Namespace) -> None:
        """Refuse a table in --out that would replace a file that the command reads, or its other output."""
        out = getattr(parsed, "out", None)
        if out is None or out.suffix == ".jsonl":  # records are appended
            return
        for action in self._actions:
            given = getattr(parsed, action.dest, None)
            for value in given if isinstance(given, list) else [given]:
                path = file_of(value) if isinstance(value, str) else value
                if action.dest != "out" and isinstance(path, Path) and values.same_file(out, path):
                    flag = "/".join(action.option_strings) or action.dest
                    self.error(f"--out {out}: is given for {flag} too; name another")

    def _add_model_args(self, parsed: argparse.Namespace) -> None:
        is_any = False
        for field in ("model", "models", "explain"):
            given = getattr(parsed, field, None) or []
            is_any = is_any or any(map(is_users, given))
            changed = [with_arguments(name, parsed.model_args) if is_users(name) else name for name in given]
            if given:
                setattr(parsed, field, changed)
        if not is_any:
            raise ValueError("apply to models of your own (net.py:Net) only")


def command(make: Callable[[], Parser], body: Callable[[argparse.Namespace], int]) -> Callable[..., int]:
    """The main of a command: it parses its arguments, by default those of the process, and runs its body."""

    def main(argv: Sequence[str] | None = None) -> int:
        return run(make(), body, argv)

    return main


def parser(command: str, doc: str | None, arguments: str = "") -> Parser:
    """A parser whose --help is the module's docstring and, where possible, one line for each option."""
    width = min(110, shutil.get_terminal_size((110, 24)).columns)
    return Parser(
        prog=f"python -m {command}",
        usage=" ".join(["%(prog)s", *filter(None, [arguments]), "[options]"]),
        description=doc,
        formatter_class=lambda prog: argparse.RawDescriptionHelpFormatter(
            prog, max_help_position=34, width=width
        ),
        allow_abbrev=False,
    )


@contextmanager
def usage_errors(before: str = "", after: str = "", of: type[ValueError] = ValueError) -> Iterator[None]:
    """Context manager in which a ValueError is a UsageError, with text before and after its message."""
    try:
        yield
    except of as error:
        raise UsageError(f"{before}{error}{after}") from error


def checked(parse: Callable[[str], object]) -> Callable[[str], object]:
    """A parser for argparse, whose error is the message of the ValueError of `parse`."""

    def parsed(text: str) -> object:
        try:
            return parse(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from error

    return parsed


def add(
    group: argparse._ActionsContainer,
    flag: str,
    kind: Callable[[str], object] | Iterable[str],
    text: str = "",
    *,
    default: object = None,
    several: bool = False,
    metavar: str = "",
) -> None:
    """Add an option with a value, or with `several` a list of one or more.

    Args:
        kind: a parser of a word, which raises ValueError, or the words to choose from.
        text: of the help; blank: the choices. The default follows unless the text has "(default".
        metavar: of a value in the help; by default as METAVARS, or NAME.
    """
    parse, choices = (kind, None) if callable(kind) else (str, tuple(kind))
    said = text or ", ".join(choices or ())
    if default is not None and "(default" not in said:
        values = default if isinstance(default, list) else [default]
        shown = " ".join(f"{value:g}" if isinstance(value, float) else str(value) for value in values)
        said = f"{said} (default: {shown})" if said else f"default: {shown}"
    group.add_argument(
        flag,
        type=checked(parse),
        choices=choices,
        default=default,
        nargs="+" if several else None,
        metavar=metavar or METAVARS.get(parse, "NAME"),
        help=said,
    )


METAVARS: dict[Callable[[str], object], str] = {
    values.positive_int: "N",
    values.repetitions: "N",
    values.whole_number: "N",
    values.positive_seconds: "TIME",
    values.resolution: "PX",
    Path: "FILE",
    values.file: "FILE",
    values.file_or_folder: "PATH",
    values.folder: "DIR",
}


def add_flag(group: argparse._ActionsContainer, flag: str, text: str) -> None:
    """Add an option without a value, off by default."""
    group.add_argument(flag, action="store_true", help=text)


def add_model(parser: Parser, text: str) -> None:
    """Add --model, a list of names and patterns."""
    parser.add_argument("--model", nargs="+", action="extend", metavar="NAME", help=text)


def add_models(parser: Parser, default: str, weights: Callable[[str], Path] = values.file) -> None:
    """Add --model, and the options of users' models and of `weights`; `default` is in words."""
    add_model(parser, f"FCDM-S, FCDM-L@k3, 'DiT-*', your net.py:Net, pkg.mod:factory (default: {default})")
    add_model_args(parser)
    add(parser, "--weights", weights, "a checkpoint file of the one --model")


def add_model_args(parser: Parser) -> None:
    keywords = "keywords of your models: depth=12,width=384"
    add(parser, "--model-args", arguments_of, keywords, metavar="K=V,...")
    add(parser, "--task", values.task_name, "for your models: sd-f8, f16d32, pixels:velocity")


def add_res(parser: Parser, default: Sequence[Size]) -> None:
    sizes = " ".join(map(str, default))
    text = f"pixels: 512, or 512x256 (height x width) (default: {sizes}, or as published)"
    add(parser, "--res", values.resolution, text, default=DefaultSizes(default), several=True)


def add_device(parser: argparse._ActionsContainer) -> None:
    add(parser, "--device", ("cpu", "cuda"), "cpu, cuda (default: cuda where torch sees one)")


def add_records(parser: Parser, what: str) -> None:
    """Add --records, whose files `known_records` reads."""
    add(parser, "--records", values.file, f"JSON lines {what}", several=True)


def add_switch(parser: argparse._ActionsContainer, flag: str, what: str) -> None:
    """Add a switch: --flag turns it on; --flag off on measures both."""
    parser.add_argument(
        flag,
        nargs="*",
        type=checked(values.on_or_off),
        action=Switch,
        const=True,
        default=[False],
        metavar="on|off",
        help=what,
    )


class Switch(argparse.Action):
    """A list of values; of `const` alone where none is given."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,  # noqa: ANN401 - argparse's own signature
        option_string: str | None = None,
    ) -> None:
        setattr(namespace, self.dest, list(values) or [self.const])


def add_output(parser: Parser) -> None:
    group = parser.add_argument_group("output")
    group.add_argument("--format", choices=FORMATS, default="table", metavar="NAME", help=", ".join(FORMATS))
    add(group, "--out", Path, ".jsonl: append records; any other: the table")
    add_flag(group, "--force", "repeat what --out contains, or replace a table")
