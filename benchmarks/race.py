"""Contenders that bring the same content somewhere, in turn: how long each takes, and how ours compares."""

from __future__ import annotations

import hashlib
import os
import shutil
import statistics
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.measure import timed

# What to time, and where the content is afterwards.
Prepared = tuple[Callable[[], object], Path]


@dataclass(frozen=True)
class Contender:
    """
    One way to bring content somewhere.

    :param prepare: gets an empty folder that is removed afterwards, and does what does not count.
    :param is_ours: this is what the others are there to be compared with.
    :param target: how many times as fast as this one ours must be; None where nothing is promised.
    """

    name: str
    prepare: Callable[[Path], Prepared]
    is_ours: bool = False
    target: float | None = None


def race(
    title: str,
    contenders: Sequence[Contender],
    source: Path,
    folder: Path,
    *,
    runs: int,
    change: Callable[[], object] = lambda: None,
) -> None:
    """
    Time all contenders in turn, A B C A B C ..., and print how they compare.

    :param source: the file or folder that they move; in the end each must have brought just this.
    :param folder: on the disk that both sides use.
    :param change: changes the source before each round.
    """
    times: dict[str, list[float]] = {contender.name: [] for contender in contenders}
    for number in range(runs):
        change()
        for contender in contenders:
            place = Path(tempfile.mkdtemp(prefix="place-", dir=folder))
            action, arrived = contender.prepare(place)
            # What the one before has written must not go to the disk while this one works.
            os.sync()
            times[contender.name].append(timed(action))
            if number == runs - 1:
                assert checksums(arrived) == checksums(source), f"{title}: {contender.name} brought something else"
            shutil.rmtree(place)
    _print(title, contenders, times, _size(source))


def checksums(path: Path) -> dict[str, str]:
    """Return the SHA-256 of a file, or of every file in a folder by its path."""
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return {os.path.relpath(file, path): _sha256(file) for file in files}


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


def _size(source: Path) -> int:
    files = [source] if source.is_file() else source.rglob("*")
    return sum(file.stat().st_size for file in files if file.is_file())


def _print(title: str, contenders: Sequence[Contender], times: dict[str, list[float]], size: int) -> None:
    print(f"\n-- {title}")
    medians = {name: statistics.median(mine) for name, mine in times.items()}
    for name, mine in times.items():
        speed = size / medians[name] / 1e6
        print(f"{name:<48} median {medians[name]:7.3f} s   min {min(mine):7.3f} s   {speed:8.1f} MB/s   n {len(mine)}")
    for ours in (contender for contender in contenders if contender.is_ours):
        for rival in (contender for contender in contenders if not contender.is_ours):
            target = "" if rival.target is None else f"   (target: at least {rival.target:.1f}x)"
            times_as_fast = medians[rival.name] / medians[ours.name]
            print(f"{ours.name} is {times_as_fast:.2f}x as fast as {rival.name}{target}", flush=True)
