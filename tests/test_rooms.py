"""
The rooms of the package stand on floors: a room imports from those below it, and nothing imports in a circle.

What is imported late, or for types alone, counts as well. `docs/architecture.md` draws the same picture.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import airflow_provider_gpu_cluster

PACKAGE = airflow_provider_gpu_cluster.__name__
FOLDER = Path(airflow_provider_gpu_cluster.__file__).parent

# From the top. A room is a folder or a module; "" is the package itself, which knows its version.
FLOORS = (
    ("task_groups", "callbacks"),
    ("operators", "sensors", "decorators", "notifications", "cli", "retry_policies"),
    ("plugins", "triggers"),
    ("job_table",),
    ("tasks",),
    ("hooks", "watch"),
    ("pools",),
    ("cluster",),
    ("transfer", "logs", "messages"),
    ("jobs",),
    ("sources", "sinks"),
    ("connection", "files"),
    ("stats",),
    ("exceptions", "options"),
    ("sandbox", "get_provider_info"),
    ("connection_form",),
    ("gpu_run.protocol", "gpu_run", ""),
)
# The program on the cluster: nothing above imports any of it but the words of the protocol.
PROGRAM_FLOORS = (
    ("gpu_run.__main__",),
    ("gpu_run.command_line",),
    ("gpu_run.cli",),
    ("gpu_run.gc", "gpu_run.watch", "gpu_run.series"),
    ("gpu_run.jobs",),
    ("gpu_run.staging", "gpu_run.engines.host", "gpu_run.engines.slurm", "gpu_run.engines.command"),
    ("gpu_run.engines",),
    ("gpu_run.cache", "gpu_run.environments", "gpu_run.supervise", "gpu_run.outputs"),
    ("gpu_run.store", "gpu_run.gpus", "gpu_run.verdict"),
    ("gpu_run.ledger",),
    ("gpu_run.linux", "gpu_run.recovery"),
    ("gpu_run.protocol", "gpu_run.errors", "gpu_run"),
)
# Arrows that go up or sideways, and why.
EXCEPTIONS = {
    # Of the engines, one is chosen by its name, and imported when it is.
    ("gpu_run.engines", "gpu_run.engines.host.engine"),
    ("gpu_run.engines", "gpu_run.engines.slurm.engine"),
    ("gpu_run.engines", "gpu_run.engines.command.engine"),
    # The sandbox plays the cluster, and ends what is left there.
    ("sandbox.cluster", "gpu_run.linux.processes"),
}


@cache
def modules() -> dict[str, Path]:
    """Return the package's modules by their names, without the package's own."""
    found = {}
    for path in sorted(FOLDER.rglob("*.py")):
        parts = path.relative_to(FOLDER).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imported(name: str) -> Iterator[str]:
    """Return the modules of the package that one of them imports, wherever in it."""
    path = modules()[name]
    here = name.split(".") if path.name == "__init__.py" else name.split(".")[:-1]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = [PACKAGE, *(part for part in here if part)]
            start = above[: len(above) - node.level + 1] if node.level else []
            module = ".".join([*start, *([node.module] if node.module else [])])
            # What is imported from a package may be one of its modules, or something that is defined there.
            names = [f"{module}.{alias.name}" for alias in node.names]
            names = [full if _within(full) in modules() else module for full in names]
        else:
            continue
        for full in names:
            if _within(full) in modules():
                yield _within(full)


def _within(full: str) -> str:
    """Return the name of a module without the package's own; one of another package is none of ours."""
    return "" if full == PACKAGE else full[len(PACKAGE) + 1 :] if full.startswith(PACKAGE + ".") else full


def room(name: str) -> str:
    """Return the room of a module: the longest name of one that the module is, or is in."""
    rooms = {room for floor in (*FLOORS, *PROGRAM_FLOORS) for room in floor}
    parts = name.split(".")
    return next(room for room in (".".join(parts[:end]) for end in range(len(parts), 0, -1)) if room in rooms)


def arrows() -> set[tuple[str, str]]:
    return {(name, other) for name in modules() for other in imported(name)}


def is_downward(name: str, other: str) -> bool:
    floors = PROGRAM_FLOORS if room(name).startswith("gpu_run") else FLOORS
    number = {room: number for number, floor in enumerate(floors) for room in floor}
    # What has no floor here is upstairs, or of the program's own.
    return room(name) == room(other) or number[room(name)] < number.get(room(other), -1)


def test_a_room_imports_from_the_floors_below_it() -> None:
    wrong = {arrow for arrow in arrows() if not is_downward(*arrow)}
    assert wrong - EXCEPTIONS == set()


def test_no_exception_is_kept_longer_than_needed() -> None:
    assert EXCEPTIONS - {arrow for arrow in arrows() if not is_downward(*arrow)} == set()


def test_no_module_imports_itself_in_a_circle() -> None:
    below: dict[str, list[str]] = {name: [] for name in modules()}
    for name, other in arrows():
        below[name].append(other)
    done: set[str] = set()

    def walk(name: str, way: tuple[str, ...]) -> None:
        assert name not in way, " -> ".join([*way[way.index(name) :], name])
        if name not in done:
            for other in below[name]:
                walk(other, (*way, name))
            done.add(name)

    for name in below:
        walk(name, ())


def test_the_program_on_the_cluster_imports_nothing_of_the_rest() -> None:
    for name in modules():
        if room(name).startswith("gpu_run"):
            assert [other for other in imported(name) if not other.startswith("gpu_run")] == []
            assert PACKAGE not in modules()[name].read_text(encoding="utf-8"), name
