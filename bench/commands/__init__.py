"""The commands of ``timetrial``: arguments, help texts and functions.

Boundary: options in, a job out. Preparing a command imports its modules and checks its input; the
returned job opens stores and writes files.
"""

from __future__ import annotations

from timetrial.bench.commands.command import Command
from timetrial.bench.commands.datasets import DATA
from timetrial.bench.commands.guiding import GUIDING
from timetrial.bench.commands.launching import LAUNCHING
from timetrial.bench.commands.pools import POOLS
from timetrial.bench.commands.reading import READING
from timetrial.bench.commands.running import RUNNING

__all__ = ["COMMANDS", "Command"]

COMMANDS = {**RUNNING, **LAUNCHING, **POOLS, **DATA, **READING, **GUIDING}
"""Every command by name, in the order of ``timetrial --help``."""
