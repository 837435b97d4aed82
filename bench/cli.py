"""The command line: ``timetrial train | bench | tune | calibrate | report | ...``.

Boundary: arguments in, exit code out; ``commands`` defines the commands.
"""

from __future__ import annotations

import argparse
import contextlib
import difflib
import functools
import logging
import os
import re
import sys
import traceback
from collections.abc import Sequence
from typing import Any, NoReturn

from timetrial.bench import completion, usage
from timetrial.bench.commands import COMMANDS, Command
from timetrial.bench.invocation import program, version
from timetrial.bench.terminal import mask_output
from timetrial.framework import signals
from timetrial.framework.compiled_files import use_compiled_files
from timetrial.framework.errors import UserError


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line and exits.

    Exit codes: 0 done, 1 a run failed, 2 bad input, 128 + N ended by signal N (130 Ctrl-C, 143
    SIGTERM, 129 SIGHUP).
    """
    mask_output()
    given = sys.argv[1:] if arguments is None else list(arguments)
    with signals.exit_at_once("" if _is_worker(given) else "interrupted; nothing was started"):
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # XLA's start-up messages
        if "_ARGCOMPLETE" in os.environ:
            import argcomplete

            argcomplete.autocomplete(parser())
        if arguments is None:  # this process is ours, and has not imported JAX
            use_compiled_files(os.environ)
        _show_warnings()
        code = _exit_code(given)
        if arguments is None:  # this process ends now
            with contextlib.suppress(OSError, ValueError):  # closed, or full
                sys.stdout.flush()
            signals.exit_with(code)
    sys.exit(code)


def _exit_code(arguments: Sequence[str]) -> int:
    debug = "--debug" in arguments
    interrupted = ""
    try:
        options = _parsed(arguments)
        interrupted = options.command.interrupted
        job = options.command.prepare(options)
        with signals.raise_interrupted():
            return int(job())
    except KeyboardInterrupt as stop:
        number = stop.number if isinstance(stop, signals.Interrupted) else signals.ENDING[0]
        if _is_worker(arguments):  # the process that started it tells
            return 128 + number
        text = f"interrupted; {interrupted}" if interrupted else "interrupted"
        return _complain(text, debug, 128 + number)
    except BrokenPipeError:  # head or less closed our output
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except UserError as error:
        return _complain(str(error), debug, 2)
    except Exception as error:
        return _complain(f"unexpected {_described(error)} (--debug shows where)", debug, 1)


def _is_worker(arguments: Sequence[str]) -> bool:
    return "--worker" in arguments


def _show_warnings() -> None:
    """Prints warnings like all other messages, also after a library sets up logging (Orbax)."""
    if logging.lastResort is not None:
        logging.lastResort.setFormatter(_Lines())
        if not logging.root.handlers:
            logging.root.addHandler(logging.lastResort)


def _parsed(arguments: Sequence[str]) -> argparse.Namespace:
    """Parses arguments; unlike argparse, allows ``key=value`` words on both sides of an option."""
    _check_text(arguments)
    _check_command(arguments)
    options, rest = parser().parse_known_args(arguments or ["next"])
    others = [word for word in rest if word.startswith("-") or "=" not in word]
    if others or (rest and not hasattr(options, "overrides")):
        raise UserError(f"unrecognized arguments: {_cut(' '.join(others or rest))}")
    if rest:
        options.overrides += rest
    options.typed = tuple(arguments)
    return options


def _check_text(arguments: Sequence[str]) -> None:
    for word in arguments:
        try:
            word.encode()
        except UnicodeEncodeError:
            shown = os.fsencode(word)
            raise UserError(f"arguments: expected UTF-8 text, got {shown!r:.80}") from None


def _check_command(arguments: Sequence[str]) -> None:
    name = arguments[0] if arguments else ""
    if not name or name.startswith("-") or name in COMMANDS:
        return
    known = [name for name, command in COMMANDS.items() if command.summary]
    near = difflib.get_close_matches(name[:80], known, n=1, cutoff=0.5)
    hint = f"; did you mean {near[0]!r}?" if near else "."
    raise UserError(f"unknown command {_cut(repr(name))}{hint} Known: {', '.join(known)}")


def _cut(text: str, limit: int = 2000) -> str:
    """The beginning of a text of a user's own, which may be very long."""
    return text if len(text) <= limit else f"{text[:limit]}... ({len(text):,} characters)"


def _described(error: Exception) -> str:
    """Class and text of an exception; without text, the place that raised it."""
    text = str(error).strip()
    if not text:
        place = traceback.extract_tb(error.__traceback__)[-1]
        text = f"without a message, raised in {place.name} ({place.filename}:{place.lineno})"
    return f"{type(error).__name__}: {text}"


def _complain(text: str, debug: bool, code: int) -> int:
    if debug:
        traceback.print_exc()
    print(f"timetrial: {as_typed(' '.join(text.split()))}", file=sys.stderr)
    return code


_TYPED = re.compile(rf"(?<![\w/.])timetrial(?= (?:{'|'.join(COMMANDS)})\b)")


def as_typed(text: str) -> str:
    """Replaces every ``timetrial COMMAND`` by the command line for the current folder."""
    started = program()
    return _TYPED.sub(lambda match: started, text)


class _Lines(logging.Formatter):
    """Formats warnings like all other messages."""

    def format(self, record: logging.LogRecord) -> str:
        return f"timetrial: {as_typed(super().format(record))}"


_FORMATTER = functools.partial(argparse.RawDescriptionHelpFormatter, max_help_position=30)


class _Parser(argparse.ArgumentParser):
    """Argument parser with one-line errors."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{_cut(message)}; see {self.prog} --help")


def parser() -> argparse.ArgumentParser:
    """The argument parser of ``timetrial``."""
    top = _Parser(
        prog="timetrial",
        description=usage.TOP,
        epilog=as_typed(f"{usage.START}\n{version()}\n"),
        formatter_class=_FORMATTER,
    )
    top.add_argument("--version", action="version", version=version())
    commands = top.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name, command in COMMANDS.items():
        shown: dict[str, Any] = {"help": command.summary} if command.summary else {}
        _fill(commands.add_parser(name, formatter_class=_FORMATTER, **shown), command)
    return top


def _fill(sub: argparse.ArgumentParser, command: Command) -> None:
    """Adds the texts and arguments of one command to its parser."""
    parts = [command.examples, usage.OVERRIDES if command.overrides else ""]
    sub.description = as_typed(command.text)
    sub.epilog = as_typed("\n".join(part for part in parts if part))
    sub.add_argument("--debug", action="store_true", help="show a traceback with errors")
    command.arguments(sub)
    if command.overrides:
        words = sub.add_argument("overrides", nargs="*", metavar="key=value")
        completion.complete_overrides(words, command.text)
    sub.set_defaults(command=command)


if __name__ == "__main__":
    main()
