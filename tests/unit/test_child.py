"""The process of a worker: its cores, its signals, and its end with its parent."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import launched
import pytest

from timetrial.bench.launch import begin
from timetrial.bench.launch.child import Child, start

REPORT = """\
import json, os, signal
ignored = [n for n in (2, 12, 15) if signal.getsignal(n) is signal.SIG_IGN]
print(json.dumps([sorted(os.sched_getaffinity(0)), ignored, os.environ["MINE"], os.getcwd()]))
"""


def test_a_process_gets_its_cores_signals_variables_and_directory(tmp_path: Path):
    (tmp_path / "timetrial.py").write_text(REPORT)
    cores = sorted(os.sched_getaffinity(0))
    given = {"environment": {"MINE": "yes"}, "directory": str(tmp_path)}
    found = []
    for more in ({"cores": cores[:1], "ignored": (12, 15)}, {}):
        log = tmp_path / f"log{len(found)}"
        with log.open("wb") as output:
            assert start(["worker"], output, **given, **more).wait(timeout=60) == 0
        found.append(json.loads(log.read_text()))
    assert found == [
        [cores[:1], [12, 15], "yes", str(tmp_path)],
        [cores, [], "yes", str(tmp_path)],
    ]


@pytest.mark.skipif(sys.platform != "linux", reason="Linux only")
def test_a_process_is_killed_when_its_parent_ends(tmp_path: Path):
    (tmp_path / "timetrial.py").write_text(
        "import time\nprint('begun', flush=True)\ntime.sleep(99)"
    )
    code = (
        "import sys, time\nfrom timetrial.bench.launch.child import start\n"
        "child = start([], None, directory=sys.argv[1], ends_with_parent=True)\n"
        "print(child.pid, flush=True)\ntime.sleep(99)\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=launched.ROOT) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        assert parent.stdout.readline() == b"begun\n"
        parent.send_signal(signal.SIGKILL)
        launched.wait_until(lambda: not Path(f"/proc/{child}").exists())
    orphan = [sys.executable, begin.__file__, json.dumps({"ignored": [], "cores": [], "parent": 1})]
    assert subprocess.run([*orphan, "/bin/true"], check=False).returncode == 1


def test_a_killed_process_is_started_again_three_times(tmp_path: Path):
    (tmp_path / "timetrial.py").write_text(
        "import os\nopen('n', 'a').write('x')\nos.kill(os.getpid(), 9)\n"
    )
    child = Child(lambda: start([], None, directory=str(tmp_path)))
    assert child.run() == -signal.SIGKILL
    assert (tmp_path / "n").read_text() == "xxxx"
