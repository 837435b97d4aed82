"""The command ``timetrial list``: all names, or the details of one.

Boundary: text only; loads plug-ins and lists broken ones with their error. Lists load no JAX unless
a plug-in does; the details of one optimizer or workload do.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
import json
import textwrap
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from timetrial.bench.docstrings import attribute_texts
from timetrial.bench.launch.launchers import LAUNCHERS
from timetrial.bench.obstacles import obstacles
from timetrial.bench.suite import load_suite, presets, suites
from timetrial.framework import config as configuration
from timetrial.framework.config import ConfigError
from timetrial.framework.entries import Entry, OptimizerEntry, WorkloadEntry
from timetrial.framework.errors import UserError, reason_of
from timetrial.framework.ranges import ranges_of
from timetrial.framework.registry import Plugin, PluginError, Registry
from timetrial.framework.roles import Role, tensors
from timetrial.framework.spaces import OneOf, Range
from timetrial.optimizers import OPTIMIZERS
from timetrial.optimizers.weights.catalogue import PUBLISHED, is_fetched
from timetrial.workloads import WORKLOADS

_REGISTRIES: tuple[Registry[Any], ...] = (LAUNCHERS, WORKLOADS, OPTIMIZERS)

Lines = Sequence[Sequence[str]]
"""Rows of a table without rules: name first, text last."""


def listing() -> str:
    """All names with one line each; plug-ins with their origin."""
    return _texts({title: lines for make in _SECTIONS.values() for title, lines in make().items()})


def _entry_sections(registry: Registry[Any]) -> dict[str, Lines]:
    """The entries of a registry, those apart that cannot run here."""
    what = f"{registry.what}s"
    plugins = registry.plugins()
    names = dict.fromkeys([*registry.built_in, *(plugin.name for plugin in plugins)])
    barred = {name: unavailable(registry, name) for name in names}
    return {
        what: [line for line in _entry_lines(registry, plugins) if not barred.get(line[0])],
        f"{what} that cannot run here": [(name, why) for name, why in barred.items() if why],
    }


def _file_sections(
    what: str,
    files: Mapping[str, Path],
    line: Callable[[Path], str],
    lacking: Callable[[str], str],
) -> dict[str, Lines]:
    """Suites or presets, those apart that cannot run here."""
    barred = {name: lacking(name) for name in files}
    return {
        what: [(name, line(path)) for name, path in files.items() if not barred[name]],
        f"{what} that cannot run here": [(name, why) for name, why in barred.items() if why],
    }


def _suites() -> dict[str, Lines]:
    return _file_sections("suites", suites(), _summary, _obstacles)


def _presets() -> dict[str, Lines]:
    files, barred_by = presets(), functools.cache(_barred_by)
    return _file_sections(
        "presets", files, _header, lambda name: missing_entries(files[name], barred_by)
    )


def _barred_by(what: str, name: str) -> str:
    return unavailable(WORKLOADS if what == WORKLOADS.what else OPTIMIZERS, name)


def _weights() -> dict[str, Lines]:
    return {
        "published weights": [(f"timetrial fetch {name}", _fetched(name)) for name in PUBLISHED]
    }


_SECTIONS: dict[str, Callable[[], dict[str, Lines]]] = {
    "workload": functools.partial(_entry_sections, WORKLOADS),
    "optimizer": functools.partial(_entry_sections, OPTIMIZERS),
    "suite": _suites,
    "preset": _presets,
    "launcher": functools.partial(_entry_sections, LAUNCHERS),
    "weight": _weights,
}
"""What makes the lines of a section, by its name in the singular."""


def _texts(sections: dict[str, Lines]) -> str:
    return "\n\n".join(f"{title}\n{_table(lines)}" for title, lines in sections.items() if lines)


def _fetched(name: str) -> str:
    """Whether published weights are on this machine, and their page."""
    entry = PUBLISHED[name]
    return f"{entry.title} ({entry.page}): {'fetched' if is_fetched(name) else 'not here'}"


def describe(name: str) -> str:
    """Details of a workload, optimizer, launcher, suite or preset; of all that have the name.

    The name of a section, ``workload`` or ``workloads``, gives its lines.

    Raises:
        UserError: an unknown name (with the nearest known one), or an unusable plug-in.
    """
    found, broken = [], []
    if (section := name.removesuffix("s")) in _SECTIONS:
        chosen = _SECTIONS[section]()
        if section == "workload":
            chosen["roles of tensors, and how many have them"] = [
                (each, WORKLOADS.listed(each).roles) for each in WORKLOADS.built_in
            ]
        found.append(_texts(chosen))
    for registry in _REGISTRIES:
        if name in registry:
            try:
                found.append(_entry_text(registry, name))
            except PluginError as error:
                broken.append(error)
    for what, files in (("suite", suites()), ("preset", presets())):
        if name in files:
            text = files[name].read_text(encoding="utf-8").rstrip()
            lacking = _obstacles(name) if what == "suite" else missing_entries(files[name])
            note = f"cannot run here: {lacking}\n" if lacking else ""
            found.append(f"{what} {name}: {files[name]}\n{note}\n{textwrap.indent(text, '  ')}")
    if broken and not found:
        raise broken[-1]
    if not found:
        known = [*WORKLOADS, *OPTIMIZERS, *LAUNCHERS, *suites(), *presets()]
        raise ConfigError(configuration.unknown("name", name, known))
    return "\n\n".join(found)


def _entry_lines(registry: Registry[Any], plugins: Sequence[Plugin]) -> Lines:
    """Name, origin and summary of every entry; for an unusable plug-in, its error."""
    lines = [
        (name, registry.origin(name), registry.listed(name).line)
        for name in (*registry.built_in, *registry.adapters)
    ]
    for plugin in plugins:
        if plugin.name in registry.built_in:
            text = f"refused: {plugin.name} is the name of a built-in {registry.what}"
        else:
            try:
                text = registry.listed(plugin.name).line
            except PluginError as error:
                text = f"broken: {error.reason}"
        lines.append((plugin.name, plugin.origin, text))
    return lines


def unavailable(registry: Registry[Any], name: str) -> str:
    """The reason why an entry cannot run here; "" where it can or cannot be loaded."""
    try:
        return registry.listed(name).unavailable()
    except PluginError:
        return ""


def missing_entries(path: Path, barred_by: Callable[[str, str], str] | None = None) -> str:
    """Missing entries of a preset, in words; "" if none is missing.

    Args:
        path: the preset.
        barred_by: why an entry cannot run here, by kind and name; None looks.
    """
    barred_by = barred_by or _barred_by
    try:
        tree = configuration.read_preset(path)
    except UserError as error:
        return str(error)
    wanted = [
        (registry, tree[registry.what]["name"])
        for registry in (WORKLOADS, OPTIMIZERS)
        if isinstance(tree.get(registry.what), dict) and "name" in tree[registry.what]
    ]
    lacking = [f"{registry.what} {name}" for registry, name in wanted if name not in registry]
    if lacking:
        return f"needs {' and '.join(lacking)}, which is not installed"
    barred = [f"{what.what} {name}" for what, name in wanted if barred_by(what.what, name)]
    return f"{barred[0]} cannot run here" if barred else ""


def _obstacles(name: str) -> str:
    """What a suite lacks on this machine, in one line; "" if nothing."""
    try:
        suite, _ = load_suite([f"suite={name}"])
    except UserError as error:
        return str(error)
    if not obstacles(suite):
        return ""
    barred = [workload for workload in suite.workloads if unavailable(WORKLOADS, workload)]
    lacks = f"lacks data of {', '.join(barred)}; " if barred else ""
    return f"{lacks}timetrial bench suite={name} --plan says what is missing"


def _summary(path: Path) -> str:
    return str(configuration.read_yaml(path).get("summary", ""))


def _header(path: Path) -> str:
    """First line of a preset's header comment."""
    return path.read_text(encoding="utf-8").split("\n", 1)[0].lstrip("# ")


def _entry_text(registry: Registry[Any], name: str) -> str:
    """An entry's summary, its facts, its settings and its search space."""
    entry: Entry[Any] = registry[name]
    parts = [f"{registry.what} {name} ({registry.origin(name)}): {entry.summary}"]
    if why := unavailable(registry, name):
        parts.append(f"cannot run here: {why}")
    if isinstance(entry, OptimizerEntry):
        parts.append(_table(_optimizer_facts(entry)))
    elif isinstance(entry, WorkloadEntry):
        parts.append(_table(_workload_facts(entry)))
    parts.append(f"\nsettings ({registry.what}.KEY=VALUE)\n{_settings_text(entry.settings)}")
    space = entry.space if isinstance(entry, OptimizerEntry) else None
    if space:
        lines = [(key, _values(values)) for key, values in space.items()]
        parts.append(f"\nsearch space (timetrial tune)\n{_table(lines)}")
    if isinstance(entry, WorkloadEntry):
        parts.append(f"\nroles of its tensors\n{_roles_text(entry)}")
    return "\n".join(parts)


def _optimizer_facts(entry: OptimizerEntry) -> Lines:
    needs = [
        text
        for needed, text in (
            (entry.needs_steps, "the number of steps that the budget allows"),
            (entry.needs_feed, "the remaining share of a time budget, at every update"),
        )
        if needed
    ]
    return [
        ("learned", "yes" if entry.learned else "no"),
        ("needs", " and ".join(needs) or "nothing beyond gradients and parameters"),
        ("tuning", "has a search space" if entry.space else "none without study.space=FILE"),
    ]


def _workload_facts(entry: WorkloadEntry) -> Lines:
    facts = [("metric", entry.goal)]
    return [*facts, *((f"{split} target", f"{value:g}") for split, value in entry.targets.items())]


def _roles(entry: WorkloadEntry) -> list[tuple[Role, str]]:
    """The role of every tensor, and its name and shape in words."""
    workload = (entry.without_data or entry.make)(entry.settings())
    import jax  # only for the details of one workload

    params, _ = jax.eval_shape(workload.init, jax.random.key(0))
    roles, leaves = jax.tree.leaves(workload.roles(params)), jax.tree.leaves(params)
    sizes = [" x ".join(f"{size:,}" for size in leaf.shape) or "1" for leaf in leaves]
    names = [f"{name} {size}" for name, size in zip(tensors(params), sizes, strict=True)]
    return list(zip(roles, names, strict=True))


def role_counts(entry: WorkloadEntry) -> str:
    """The roles of a workload's tensors, and how many have them: ``hidden 7, head 1``."""
    counts = collections.Counter(role for role, _ in _roles(entry))
    return ", ".join(f"{role} {counts[role]}" for role in Role if counts[role])


def _roles_text(entry: WorkloadEntry) -> str:
    """The tensors of each role with their shapes; the reason where they are unknown."""
    try:
        found = _roles(entry)
    except Exception as error:  # a plug-in may raise anything, and data may be missing
        return f"  unknown: {reason_of(error)}"
    lines = []
    for role in Role:
        own = ", ".join(name for each, name in found if each == role)
        if own:
            indent = f"  {role:<12} "
            lines += textwrap.wrap(own, 100, initial_indent=indent, subsequent_indent=" " * 15)
    return "\n".join(lines)


def _settings_text(settings: type[Any]) -> str:
    """Two lines per setting: type, range and default; then the meaning."""
    fields = [field for field in dataclasses.fields(settings) if field.init]
    texts, ranges, hints = attribute_texts(settings), ranges_of(settings), _hints(settings)
    width = max((len(field.name) for field in fields), default=0)
    margin = " " * (width + 4)
    lines = []
    for field in fields:
        kind = _type_words(hints[field.name], ranges.get(field.name, ""))
        lines.append(f"  {field.name:<{width}}  {kind}; {_default(field)}")
        text = texts.get(field.name, "").replace("`", "")
        lines += textwrap.wrap(text, 100, initial_indent=margin, subsequent_indent=margin)
    return "\n".join(lines) or "  none"


def _hints(settings: type[Any]) -> dict[str, Any]:
    """Type by setting; as written if it cannot be resolved."""
    try:
        return configuration.hints(settings)
    except (NameError, TypeError):
        return {field.name: field.type for field in dataclasses.fields(settings)}


def _type_words(hint: Any, allowed: str = "") -> str:
    """A type and its range in words: ``a number >= 0``, ``a list of whole numbers``, ..."""
    args = typing.get_args(hint)
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        some = [_type_words(arg, allowed) for arg in args if arg is not type(None)]
        return " or ".join([*some, *(["null"] if type(None) in args else [])])
    if typing.get_origin(hint) is tuple:
        return f"a list of {_type_words(args[0]).removeprefix('a ')}s"
    if typing.get_origin(hint) is typing.Literal:
        return " or ".join(map(str, args))
    words = {float: "a number", int: "a whole number", str: "text", bool: "true or false"}
    known = str(words.get(hint) or getattr(hint, "__name__", hint))
    return f"{known} {'in ' if allowed[:1] in ('[', '(') else ''}{allowed}" if allowed else known


def _default(field: dataclasses.Field[Any]) -> str:
    """The default in command-line form; default factories are called."""
    if field.default is not dataclasses.MISSING:
        value = field.default
    elif field.default_factory is not dataclasses.MISSING:
        value = field.default_factory()
    else:
        return "required"
    shown = value if isinstance(value, str) and value else json.dumps(value, default=str)
    return f"default {shown}"


def _values(values: Range | OneOf) -> str:
    if isinstance(values, Range):
        return f"{values.low:g} to {values.high:g}, {values.scale}"
    return " or ".join(json.dumps(choice).strip('"') for choice in values.choices)


def _table(lines: Lines) -> str:
    """Columns of equal width, indented by two."""
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]) - 1)]
    return "\n".join(
        "  "
        + "  ".join([*(f"{cell:<{w}}" for cell, w in zip(line, widths, strict=False)), line[-1]])
        for line in lines
    )
