"""The results as Markdown tables.

Boundary: texts from outcomes; measures nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from benchmarks.gpu.cases import CASES

Record = Mapping[str, Any]

SHOWN_KERNELS: Final = 3
"""Kernels shown for each update; the file of results has more."""

_STEPS: Final = (
    *("workload", "optimizer", "precision", "batch", "step ms", "p10-p90", "examples/s"),
    *("TFLOP/s", "of peak", "plan GB", "peak GB", "kernels", "busy", "compile s", "VeLO/Adam"),
    *("paper", "A100 ms"),
)


def markdown(results: Record) -> str:
    """All tables of a file of results."""
    parts: Sequence[Record] = results["parts"]
    sections = [
        head(results),
        step_table(parts),
        kernel_table(parts),
        wait_table(parts),
        repeats_table(parts),
        agreement_table(parts),
        tests_line(parts),
        failures(parts),
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def grid(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; "" without rows."""
    lines = [list(columns), *map(list, rows)]
    if len(lines) == 1:
        return ""
    widths = [max(len(line[i]) for line in lines) for i in range(len(columns))]
    padded = [
        [cell.ljust(width) for cell, width in zip(line, widths, strict=True)] for line in lines
    ]
    padded.insert(1, ["-" * width for width in widths])
    return "\n".join("| " + " | ".join(line) + " |" for line in padded)


def head(results: Record) -> str:
    """One line on the device, the versions and the date."""
    device = results.get("device") or {}
    limit = device.get("bytes_limit")
    size = f", {limit / 1e9:.1f} GB for XLA" if limit else ""
    kind = "**dry run, reduced sizes: no measurement**" if results["dry"] else "full sizes"
    return (
        f"### {results['date']}: {device.get('kind', 'unknown device')}, {kind}\n\n"
        f"jax {device.get('jax', '?')}, jaxlib {device.get('jaxlib', '?')}, "
        f"Python {device.get('python', '?')}{size}; {results['seconds']:.0f} s of "
        f"{results['budget_seconds']:.0f} s."
    )


def _of(parts: Sequence[Record], kind: str) -> list[Record]:
    return [one for one in parts if one["part"]["kind"] == kind and one["result"]]


def _number(value: float | None, digits: int = 1) -> str:
    if value is None:
        return "-"
    return f"{value:,.{digits}f}" if abs(value) >= 10**-digits or value == 0 else f"{value:.1e}"


def step_table(parts: Sequence[Record]) -> str:
    """Time, speed, memory, kernels and compilation of every measured update."""
    measured = {
        tuple(one["part"]["arguments"][key] for key in ("name", "optimizer", "precision")): one
        for one in _of(parts, "measure")
    }
    rows = []
    for (name, optimizer, precision), one in measured.items():
        result, case = one["result"], CASES[name]
        adam = measured.get((name, "adam", precision))
        is_velo = optimizer.startswith("velo")
        ratio = result["step_ms"] / adam["result"]["step_ms"] if is_velo and adam else None
        low, high = result["spread_ms"]
        share = result["share_of_peak"]
        rows.append(
            [
                *(name, optimizer, precision, f"{result['batch']:,}"),
                *(_number(result["step_ms"], 2), f"{_number(low, 2)}-{_number(high, 2)}"),
                *(_number(result["examples_per_second"], 0), _number(result["tflops_per_second"])),
                "-" if share is None else f"{share:.1%}",
                *(_gigabytes(result["memory"].get("plan")), _gigabytes(result["peak_bytes"])),
                *(_kernels(result), _busy(result), _number(result["compile_seconds"])),
                *(_number(ratio, 2), _number(case.velo_over_baseline if is_velo else None, 2)),
                _number(None if is_velo else case.a100_step_ms),
            ]
        )
    return grid(_STEPS, rows)


def _gigabytes(size: int | None) -> str:
    return "-" if size is None else _number(size / 1e9, 2)


def _kernels(result: Record) -> str:
    """Kernels of a profile, else launches in the program's text, with ~."""
    profile = result["profile"] or {}
    if "kernels" in profile:
        return _number(profile["kernels"], 0)
    launches = sum(result["launches"].values())
    return f"~{launches:,}" if launches else "-"


def _busy(result: Record) -> str:
    """Share of an update in which the profile shows the GPU at work."""
    busy = (result["profile"] or {}).get("busy_ms")
    return "-" if busy is None else f"{busy / result['step_ms']:.0%}"


def kernel_table(parts: Sequence[Record]) -> str:
    """The kernels with the most time in updates at tf32, from the profiles."""
    rows = []
    for one in _of(parts, "measure"):
        profile, arguments = one["result"]["profile"] or {}, one["part"]["arguments"]
        if arguments["precision"] != "tf32":
            continue
        for kernel in profile.get("top", [])[:SHOWN_KERNELS]:
            rows.append(
                [
                    *(arguments["name"], arguments["optimizer"], f"`{kernel['name'][:60]}`"),
                    *(_number(kernel["number"], 0), _number(kernel["ms"], 2)),
                    f"{kernel['ms'] / profile['busy_ms']:.0%}",
                ]
            )
    columns = ("workload", "optimizer", "kernel", "per update", "ms per update", "of busy time")
    return grid(columns, rows)


def wait_table(parts: Sequence[Record]) -> str:
    """Waiting for data in the real trainer."""
    rows = []
    for one in _of(parts, "wait"):
        found = one["result"]
        charged = found["train_seconds"] + found["data_wait_seconds"]
        rows.append(
            [
                one["part"]["arguments"]["name"],
                f"{found['pipeline']}, {found['threads']}",
                _number(found["pipeline_examples_per_second"], 0),
                str(found["updates"]),
                _number(charged, 2),
                _number(found["data_wait_seconds"], 3),
                f"{found['data_wait_seconds'] / charged:.1%}",
                str(found["stalled_updates"]),
            ]
        )
    columns = (
        *("workload", "pipeline", "alone, examples/s", "updates", "charged s"),
        *("data wait s", "share", "stalled updates"),
    )
    return grid(columns, rows)


def repeats_table(parts: Sequence[Record]) -> str:
    """Whether two fresh programs give the same bits."""
    rows = []
    for one in _of(parts, "repeats"):
        for name, found in one["result"].items():
            rows.append([name, "reduced", _flags(one), _same(found["same"])])
    first = {
        (args["name"], args["optimizer"], args["precision"]): one["result"]["digest"]
        for one in _of(parts, "measure")
        for args in [one["part"]["arguments"]]
    }
    for one in _of(parts, "again"):
        args = one["part"]["arguments"]
        before = first.get((args["name"], args["optimizer"], args["precision"]))
        if before is not None:
            size = "reduced" if args["reduced"] else "full"
            same = _same(before == one["result"]["digest"])
            rows.append([args["name"], f"{size}, two processes", _flags(one), same])
    return grid(("workload", "size", "XLA flags", "same bits twice"), rows)


def _flags(one: Record) -> str:
    return " ".join(one["part"]["flags"]) or "-"


def _same(same: bool) -> str:
    return "yes" if same else "no"


def agreement_table(parts: Sequence[Record]) -> str:
    """Losses of the mini workloads against those of the CPU."""
    rows = []
    for one in _of(parts, "agreement"):
        for optimizer, found in one["result"].items():
            gaps = found["relative_differences"]
            marks = ", ".join(
                f"{mark}: {gap:.1e}" for mark, gap in zip(found["marks"], gaps, strict=True)
            )
            last_cpu, last_device = found["losses"][-1]
            rows.append(
                [
                    *(one["part"]["arguments"]["name"], optimizer, f"{max(gaps):.1e}", marks),
                    *(f"{last_cpu:.6f}", f"{last_device:.6f}", found["devices"][1]),
                ]
            )
    columns = (
        *("mini workload", "optimizer", "largest difference", "by update"),
        *("last loss on CPU", "on device", "device"),
    )
    return grid(columns, rows)


def tests_line(parts: Sequence[Record]) -> str:
    """The tests that need a GPU."""
    lines = []
    for one in _of(parts, "tests"):
        found = one["result"]
        lines.append(
            f"Tests: {found['passed']} passed, {len(found['failed'])} failed, "
            f"{found['skipped']} skipped."
        )
        lines += [f"- {name}: {reason}" for name, reason in found["failed"].items()]
    return "\n".join(lines)


def failures(parts: Sequence[Record]) -> str:
    """What failed, did not begin or did not end, and why; else one line that nothing did."""
    lines = [
        f"- {one['label']}: {one['status']}; {one['reason']}"
        for one in parts
        if one["status"] != "ok"
    ]
    return "\n".join(["Not measured:", "", *lines]) if lines else "Every part ended well."
