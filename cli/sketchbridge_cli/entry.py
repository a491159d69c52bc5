"""Finds the sub-command, imports it, runs it, and turns what went wrong into an exit status."""

from __future__ import annotations

import argparse
import importlib
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, NoReturn, Protocol, cast

from sketchbridge_cli.errors import CommandError, MissingExtra
from sketchbridge_cli.exit_status import ExitStatus

if TYPE_CHECKING:
    from types import FrameType


@dataclass(frozen=True)
class Command:
    """One sub-command. module: has `add_arguments(parser)` and `run(arguments) -> int`; imported only when called.

    extra: the extra of the package that installs what it needs, None if the base install does.
    """

    name: str
    module: str
    summary: str
    extra: str | None = None


COMMANDS = (
    Command("paint", "sketchbridge_cli.commands.paint", "Paint photos from drawings."),
    Command("sketch", "sketchbridge_cli.commands.sketch", "Draw the lines of photos."),
    Command("roundtrip", "sketchbridge_cli.commands.roundtrip", "Draw photos and paint them again."),
    Command("models", "sketchbridge_cli.commands.models", "List the models of a server."),
    Command("serve", "sketchbridge_server.command", "Serve a model repository.", extra="serve"),
    Command("export", "sketchbridge_export.command", "Turn a checkpoint into a served model.", extra="export"),
    Command("verify", "sketchbridge_export.verify_command", "Check a model repository again.", extra="export"),
    Command("train", "sketchbridge_training.command", "Train a generator.", extra="train"),
    Command("quality", "sketchbridge_training.quality.command", "Measure the generators.", extra="train"),
)

_DESCRIPTION = "A two-way bridge between drawings and photographs."
_EXAMPLES = """examples:
  sketchbridge serve --repository ./model_repository
  sketchbridge paint drawing.png --model shoes -o photo.png
  sketchbridge paint drawings/ --model shoes -o photos/ --jobs 8
  sketchbridge sketch photo.jpg --method xdog -o drawing.png

`sketchbridge COMMAND --help` says more. SKETCHBRIDGE_URL names the server to use where --url does not.
Exit status: 0 done, 1 the work failed, 2 the call was wrong, 130 interrupted, 143 terminated."""


class _CommandModule(Protocol):
    def add_arguments(self, parser: argparse.ArgumentParser) -> None: ...

    def run(self, arguments: argparse.Namespace) -> int: ...


def main(argv: Sequence[str] | None = None) -> int:
    """Run `sketchbridge` with these arguments (those of the process if None) and return the exit status."""
    given = sys.argv[1:] if argv is None else list(argv)
    command = next((known for known in COMMANDS if given[:1] == [known.name]), None)
    try:
        with _extra_named(command), _sigterm_unwinds():
            module = None if command is None else cast("_CommandModule", importlib.import_module(command.module))
            parser = _parser_for(command, module)
            arguments = parser.parse_args(given)
            if module is None:  # as `sketchbridge -- paint`
                parser.error("the command comes first, as in `sketchbridge paint`")
            status = int(module.run(arguments))
        sys.stdout.flush()
    except SystemExit as exc:  # argparse has printed help or a usage error
        return exc.code if isinstance(exc.code, int) else ExitStatus.WRONG_CALL
    except CommandError as exc:
        sys.stderr.write(f"sketchbridge{f' {command.name}' if command else ''}: error: {exc}\n")
        return ExitStatus.WRONG_CALL
    except KeyboardInterrupt as exc:  # a command may say how far it came
        sys.stderr.write(f"\ninterrupted{f': {exc}' if exc.args else ''}\n")
        return ExitStatus.INTERRUPTED
    except BrokenPipeError:  # whoever read our output has gone, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # so that the flush at exit has somewhere to go
        return ExitStatus.FAILED
    return status


class _Parser(argparse.ArgumentParser):
    """argparse with our house settings: whole option names, examples kept as they were typed."""

    def __init__(self, **settings: Any) -> None:
        settings.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        settings.setdefault("allow_abbrev", False)
        super().__init__(**settings)


class _Version(argparse.Action):
    """Prints the version; it is looked up only when asked for."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> NoReturn:
        print(f"sketchbridge {version('sketchbridge')}")
        parser.exit()


def _parser_for(command: Command | None, module: _CommandModule | None) -> argparse.ArgumentParser:
    """The parser of everything. `module` fills in the arguments of `command`; the others are names in the help."""
    parser = _Parser(prog="sketchbridge", description=_DESCRIPTION, epilog=_EXAMPLES)
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version and exit")
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for known in COMMANDS:
        subparser = subparsers.add_parser(known.name, help=known.summary)
        if known is command and module is not None:
            module.add_arguments(subparser)
    return parser


@contextmanager
def _sigterm_unwinds() -> Iterator[None]:
    """Let SIGTERM, which `docker stop` sends, end the command as Ctrl-C does: by way of what it has to clean up."""
    process_id = os.getpid()

    def end(_number: int, _frame: FrameType | None) -> NoReturn:
        if os.getpid() != process_id:  # a forked worker, which has nothing of its own to clean up
            os._exit(ExitStatus.TERMINATED)
        sys.stderr.write("\nterminated\n")
        raise SystemExit(ExitStatus.TERMINATED)

    if threading.current_thread() is not threading.main_thread():  # which alone may handle signals
        yield
        return
    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _extra_named(command: Command | None) -> Iterator[None]:
    """Say which extra is missing, where a package from outside is what could not be imported."""
    try:
        yield
    except ModuleNotFoundError as exc:
        if command is None or command.extra is None or (exc.name or "sketchbridge").startswith("sketchbridge"):
            raise
        raise MissingExtra(
            f"`sketchbridge {command.name}` needs the {command.extra} extra ({exc.name} is not installed): "
            f"pip install 'sketchbridge[{command.extra}]'"
        ) from exc
