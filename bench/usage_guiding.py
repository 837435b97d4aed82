"""Help texts of the commands that guide: next, list, completion.

Boundary: text only, as ``usage``.
"""

from __future__ import annotations

NEXT = """\
Says what to do next, from what is recorded: the first command where nothing is, how to continue a
race or a study that is half done, where its report is, and what is newer than the report. The same
as `timetrial` without a command. Reads local files only: it answers while MLflow is out of reach.

  tracking.root=DIR       directory of the runs (default: runs)
"""

NEXT_EXAMPLES = """\
examples:
  timetrial
  timetrial next tracking.root=/data/runs
"""

LIST = """\
Lists workloads, optimizers, suites, presets and launchers, one line each. With NAME: the details of
one; of an optimizer, workload or launcher every setting with its type, range, default and meaning.
"""

LIST_EXAMPLES = """\
examples:
  timetrial list
  timetrial list optimizers
  timetrial list adam
"""

COMPLETION = """\
Prints the completion script of a shell. It completes commands, options, keys and names.
"""

COMPLETION_EXAMPLES = """\
examples:
  timetrial completion bash
  timetrial completion fish

to switch it on, in the start-up file of the shell:
  bash, zsh    eval "$(timetrial completion bash)"     (or zsh)
  fish         timetrial completion fish | source
"""
