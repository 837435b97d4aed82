"""The commands of ``timetrial``: arguments, help texts and what each of them calls.

Boundary: options in, a job out. Preparing imports what a command needs and refuses bad input; the
job that is returned opens stores and writes files.
"""

from __future__ import annotations

from timetrial.bench.commands.command import Command
from timetrial.bench.commands.reading import READING
from timetrial.bench.commands.running import RUNNING

__all__ = ["COMMANDS", "Command"]

COMMANDS = {**RUNNING, **READING}
"""Every command by name, in the order of ``timetrial --help``."""
