"""Runs of a pool of machines, and runs that disturbed each other, in scores and reports."""

from __future__ import annotations

import dataclasses

import pytest
from race import race

from timetrial.framework.records import RunRecord
from timetrial.tracking.report.results import ReportOptions, results_of
from timetrial.tracking.report.sections import setup
from timetrial.tracking.report.sections.notes import notes
from timetrial.tracking.report.standings import refused, standings
from timetrial.tracking.scores.machines import (
    AT_ONCE,
    MixedMachinesError,
    check_one_machine,
    differences,
)
from timetrial.tracking.scores.resampling import Bootstrap

RACE = [run for run in race(conditions=("time",)) if run.status == "FINISHED"]
KIND = {"device_platform": "gpu", "device_kind": "H100", "host_cpu": "Xeon", "host_cores": "8"}
POOLED = {**KIND, "pool": "h100@0123abcd", "pool.step_seconds": "0.0125"}


def tagged(index: int, **tags: str) -> RunRecord:
    """A run of the race with further tags; ``_`` in a name stands for itself."""
    run = RACE[index]
    return dataclasses.replace(run, tags={**run.tags, **tags})


def first(*tags: dict[str, str]) -> list[RunRecord]:
    """The first runs of the race, all of one workload, with these tags."""
    return [tagged(index, **more) for index, more in enumerate(tags)]


def test_hosts_of_a_pool_are_alike():
    runs = first({**POOLED, "host": "n1"}, {**POOLED, "host": "n2"}, {**POOLED, "host": "n3"})
    assert differences(runs) == {}
    check_one_machine(runs)


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"pool": "spot@4567cdef"}, r"pool: h100@0123abcd / spot@4567cdef"),
        ({"pool": "h100@4567cdef"}, r"pool: h100@0123abcd / h100@4567cdef"),
        ({"pool.step_seconds": "0.013"}, r"pool\.step_seconds: 0\.0125 / 0\.013"),
        ({"device_kind": "A100"}, r"device_kind: A100 / H100"),
    ],
)
def test_two_pools_in_one_workload_are_refused_by_name(changed: dict[str, str], named: str):
    runs = first({**POOLED, "host": "n1"}, {**POOLED, "host": "n2", **changed})
    with pytest.raises(MixedMachinesError, match=named):
        check_one_machine(runs)
    other = dataclasses.replace(runs[1], workload="another workload")
    check_one_machine([runs[0], other])


def test_runs_without_a_pool_count_on_hosts_of_the_pool_only():
    pooled = [{**POOLED, "host": "n1"}, {**POOLED, "host": "n2"}]
    check_one_machine(first(*pooled, {**KIND, "host": "n2"}))
    check_one_machine(first({**KIND, "host": "n1"}, {**KIND, "host": "n2"}))  # as without pools
    with pytest.raises(MixedMachinesError, match=r"pool: h100@0123abcd / none \(host n9\)"):
        check_one_machine(first(*pooled, {**KIND, "host": "n9"}))


def used(cores: str, start: int, end: int, **more: str) -> dict[str, str]:
    times = {"started_ms": str(start), "ended_ms": str(end)}
    return {"host": "n1", "boot": "b", "cpu_affinity": cores, **times, **more}


@pytest.mark.parametrize(
    ("one", "other", "disturbed"),
    [
        (used("0-1", 1000, 2000), used("0-1", 2000, 3000), False),
        (used("0-1", 1000, 2000), used("1-2", 1999, 3000), True),
        (used("0-1", 1000, 2000), used("2-3", 1000, 2000), False),
        (used("0-1", 1000, 9000), used("1", 2000, 3000), True),
        (used("0-1", 1000, 2000), {**used("0-1", 1000, 2000), "boot": "c", "host": "n2"}, False),
        (used("0", 1, 9, gpu_uuid="GPU-a"), used("1", 1, 9, gpu_uuid="GPU-b"), False),
        (used("0", 1, 9, gpu_uuid="GPU-a"), used("1", 1, 9, gpu_uuid="GPU-b,GPU-a"), True),
        (used("0", 1, 9, gpu_uuid="MIG-a"), used("1", 1, 9, gpu_uuid="MIG-a"), True),
        # Two containers of one machine; their names may differ.
        ({**used("0-1", 1, 9), "host": "pod-a"}, {**used("0-1", 1, 9), "host": "pod-b"}, True),
        # Two machines of one name.
        (used("0-1", 1, 9), {**used("0-1", 1, 9), "boot": "c"}, False),
        ({"host": "n1"}, used("0-1", 1, 9), False),  # of an earlier version
        (used("x", 1, 9), used("0-1", 1, 9), False),
    ],
)
def test_runs_at_once_on_the_same_cores_or_gpu_are_refused(
    one: dict[str, str], other: dict[str, str], disturbed: bool
):
    runs = first(one, other)
    assert (AT_ONCE in differences(runs).get(runs[0].workload, {})) is disturbed
    assert (AT_ONCE in differences(runs[::-1]).get(runs[0].workload, {})) is disturbed
    if disturbed:
        with pytest.raises(MixedMachinesError, match=r"adam seed 0 and .*adam seed 1 on"):
            check_one_machine(runs)


@pytest.mark.parametrize(
    ("one", "other", "disturbed"),
    [
        ({"cpu_affinity": "0-1", "pid": "1"}, {"cpu_affinity": "0-1", "pid": "2"}, True),
        ({"cpu_affinity": "0-1", "pid": "1"}, {"cpu_affinity": "0-1", "pid": "1"}, False),
        ({"cpu_affinity": "0", "pid": "1"}, {"cpu_affinity": "1", "pid": "2"}, False),
        ({"cpu_affinity": "0", "pid": "1", "concurrent_runs": "1"},
         {"cpu_affinity": "0", "pid": "2"}, False),
    ],
)  # fmt: skip
def test_without_times_the_runs_themselves_say_whether_they_were_alone(
    one: dict[str, str], other: dict[str, str], disturbed: bool
):
    alike = {"host": "n1", "boot": "b", "concurrent_runs": "2"}
    runs = first({**alike, **one}, {**alike, **other})
    assert (AT_ONCE in differences(runs).get(runs[0].workload, {})) is disturbed


def test_a_run_is_no_neighbour_of_itself():
    run = tagged(0, **used("0-1", 1, 9))
    assert differences([run, dataclasses.replace(run, condition="step")]) == {}


def test_runs_under_step_control_disturb_those_under_time_control():
    timed = first(used("0-1", 1, 9), used("0-1", 9, 20))
    step = dataclasses.replace(tagged(2, **used("1", 5, 12)), condition="step")
    assert standings(timed)
    assert not [s for s in standings([*timed, step]) if s.condition == "time"]
    found = refused([*timed, step], "time")
    assert len(found[timed[0].workload][AT_ONCE]) == 2
    said = " ".join(notes([*timed, step], []))
    assert "timed at once on one machine" in said
    assert "The runs shared cores or GPUs at the same time" in said
    assert standings([*timed, step], mixed_machines=True)[0].condition == "time"


def test_many_pairs_are_counted():
    runs = [tagged(index, **used("0-1", 1, 9)) for index in range(6)]
    here = [run for run in runs if run.workload == runs[0].workload]
    listed = differences(here)[here[0].workload][AT_ONCE]
    assert len(listed) == 4
    assert listed[-1] == f"{len(here) * (len(here) - 1) // 2 - 3} more"


def pools_of(runs: list[RunRecord]) -> list[list[str]]:
    """Texts of the report's table of pools."""
    results = results_of(runs, ReportOptions(bootstrap=Bootstrap(samples=10)))
    tables = {table.name: table for table in setup.section(results).tables}
    rows = tables["pools"].body if "pools" in tables else []
    return [[" ".join(filter(None, [cell.text, cell.sub])) for cell in row] for row in rows]


def test_the_report_lists_hosts_gpus_and_ratios_of_a_pool():
    def node(host: str, gpu: str, ratio: str) -> dict[str, str]:
        more = {"gpu_uuid": gpu, "admission_ratio": ratio, "cpu_affinity": "0-7"}
        return {**POOLED, "host": host, "boot": host, **more}

    runs = first(
        node("n1", "GPU-aaaaaaaa-bbbb", "0.9812"),
        node("n1", "GPU-b", "1.0123"),
        node("n2", "GPU-c", "1.0400"),
    )
    split = dataclasses.replace(runs[0], condition="step")  # one run under both kinds of budget
    assert pools_of([*runs, split, tagged(40)]) == [
        ["h100@0123abcd", "all 2", "3", "3 GPU-aaaaaaaa, GPU-b, GPU-c", "0-7", "0.981 to 1.040"],
        ["h100@0123abcd", "n1", "2", "2 GPU-aaaaaaaa, GPU-b", "0-7", "0.981 to 1.012"],
        ["h100@0123abcd", "n2", "1", "1 GPU-c", "0-7", "1.040 to 1.040"],
    ]
    assert pools_of([tagged(0)]) == []


def test_a_pool_of_many_gpus_or_of_strange_tags_is_listed_all_the_same():
    many = [tagged(i, **POOLED, host="n1", gpu_uuid=f"GPU-{i}") for i in range(9)]
    odd = tagged(9, **POOLED, host="n1", admission_ratio="fast", cpu_affinity="?")
    assert pools_of([*many, odd]) == [
        ["h100@0123abcd", "n1", "10", "9 GPU-0, GPU-1, GPU-2, GPU-3 and 5 more", "?", "–"]
    ]
