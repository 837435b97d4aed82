"""Commands that guide: next, list, completion. They answer at once, without JAX and MLflow.

Boundary: options in, a job out; the other modules of ``bench`` do the work.
"""

from __future__ import annotations

from timetrial.bench import completion
from timetrial.bench import usage_guiding as usage
from timetrial.bench.commands.command import Command, Job, Options, Parser, show

# Each prepare function imports its own modules; see ``running``.


def _next(options: Options) -> Job:
    from timetrial.bench.whats_next import show_next, tracking_of

    tracking = tracking_of(options.overrides)
    return lambda: show_next(tracking)


def _list(options: Options) -> Job:
    from timetrial.bench.listing import describe, listing

    if options.name is None:
        return lambda: show(listing())
    return lambda: show(describe(options.name))


def _list_arguments(parser: Parser) -> None:
    name = parser.add_argument("name", nargs="?", metavar="NAME", help="a listed name")
    completion.complete(name, completion.listed)


def _completion(options: Options) -> Job:
    return lambda: show(completion.script(options.shell), end="")


def _completion_arguments(parser: Parser) -> None:
    parser.add_argument("shell", choices=completion.SHELLS)


GUIDING = {
    "next": Command(
        "say what to do next, from what is recorded; the same as no command",
        _next,
        usage.NEXT,
        usage.NEXT_EXAMPLES,
    ),
    "list": Command(
        "list workloads, optimizers, suites and presets, or describe one",
        _list,
        usage.LIST,
        usage.LIST_EXAMPLES,
        _list_arguments,
        overrides=False,
    ),
    "completion": Command(
        "print the completion script of a shell",
        _completion,
        usage.COMPLETION,
        usage.COMPLETION_EXAMPLES,
        _completion_arguments,
        overrides=False,
    ),
}
