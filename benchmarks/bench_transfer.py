"""
Inputs up and outputs down, beside scp, rsync, tar over ssh and what SFTPOperator does.

Our times include connecting, as theirs do, and every checksum. With arguments, only the rows of these names are
measured; with ``BENCH_SCALE=0.1`` in the environment a tenth of everything is moved, to see whether it works.
"""

from __future__ import annotations

import itertools
import os
import random
import shutil
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from benchmarks import transfer_ours as ours
from benchmarks.far_network import FAR_HOST, far_network, missing_for_far_network, run_within
from benchmarks.measure import Bench, bench, paired
from benchmarks.race import Contender, Prepared, race
from benchmarks.transfer_memory import memory
from benchmarks.transfer_rivals import CIPHERS, Rivals

RUNS = 5
FAR_RUNS = 3
CIPHER_RUNS = 2
_SCALE = float(os.environ.get("BENCH_SCALE", "1"))
LARGE_MB = 500 * _SCALE
FAR_MB = 200 * _SCALE
MEMORY_MB = 2000 * _SCALE
FILES = int(5000 * _SCALE)
FILE_BYTES = 4000
FILES_PER_FOLDER = 100
CHANGED_FILES = 10
ROUND_TRIP_S = 0.05
SETTLE_S = 3.0
# Set in the process that this benchmark starts at the near end of a long line: the namespace of the far end.
_FAR_NAMESPACE = "BENCH_FAR_NAMESPACE"

Move = Callable[[Path, Path], object]


def main() -> None:
    wanted = sys.argv[1:] or list(ROWS)
    if not set(wanted) <= ROWS.keys():
        sys.exit(f"usage: python -m benchmarks.bench_transfer [row]...; the rows are {', '.join(ROWS)}")
    for name in wanted:
        ROWS[name]()


def _big() -> None:
    with bench(gpus=1) as cluster:
        rivals = Rivals(cluster)
        source = _large_file(cluster, LARGE_MB)
        for way, scp, rsync, sftp, bare in (
            ("up", rivals.scp_up, rivals.rsync_up, rivals.sftp_up, rivals.paramiko_up),
            ("down", rivals.scp_down, rivals.rsync_down, rivals.sftp_down, rivals.paramiko_down),
        ):
            best = _best_cipher(cluster, way, source, scp)
            contenders = [
                _ours(way, cluster, source),
                _rival(f"scp -c {best}, its best", source, partial(scp, cipher=best), 1.0),
                _rival("scp", source, scp),
                _rival("rsync -a", source, rsync),
                _rival("SFTPOperator's SSHHook and paramiko", source, partial(sftp, compress=True), 2.5),
                _rival("the same without compression", source, partial(sftp, compress=False), 2.5),
                _rival("paramiko alone, nothing checked", source, bare),
            ]
            race(f"{LARGE_MB:.0f} MB of random bytes, {way}", contenders, source, cluster.folder, runs=RUNS)


def _small() -> None:
    with bench(gpus=1) as cluster:
        rivals = Rivals(cluster)
        source = _small_files(cluster)
        for way, tar, rsync, scp in (
            ("up", rivals.tar_up, rivals.rsync_up, rivals.scp_up),
            ("down", rivals.tar_down, rivals.rsync_down, rivals.scp_down),
        ):
            contenders = [
                _ours(way, cluster, source),
                _rival("tar over ssh", source, tar, 1.0),
                _rival("rsync -a", source, rsync),
                _rival("scp -r", source, scp),
            ]
            race(f"{FILES} files of {FILE_BYTES} bytes, {way}", contenders, source, cluster.folder, runs=RUNS)


def _again() -> None:
    with bench(gpus=1) as cluster:
        source = _large_file(cluster, LARGE_MB)
        title = f"the same {LARGE_MB:.0f} MB again, nothing changed"
        race(title, _repeated(cluster, source), source, cluster.folder, runs=RUNS)


def _changed() -> None:
    with bench(gpus=1) as cluster:
        source = _small_files(cluster)
        title = f"{FILES} files, {CHANGED_FILES} changed"
        change = partial(_change_some, source, random.Random(7))
        race(title, _repeated(cluster, source), source, cluster.folder, runs=RUNS, change=change)


def _far() -> None:
    if far := os.environ.get(_FAR_NAMESPACE):
        with bench(gpus=1, host=FAR_HOST, within=["ip", "netns", "exec", far]) as cluster:
            _far_races(cluster)
    elif missing := missing_for_far_network():
        print(f"\n-- {FAR_MB:.0f} MB far away: left out, {missing}")
    else:
        with far_network(ROUND_TRIP_S) as network:
            run_within(network.near, __spec__.name, "far", environ={_FAR_NAMESPACE: network.far})


def _far_races(cluster: Bench) -> None:
    rivals = Rivals(cluster)
    source = _large_file(cluster, FAR_MB)
    for way, scp, rsync in (
        ("up", rivals.scp_up, rivals.rsync_up),
        ("down", rivals.scp_down, rivals.rsync_down),
    ):
        contenders = [
            _ours(way, cluster, source),
            _rival("scp", source, scp, 2.0),
            _rival("rsync -a", source, rsync, 2.0),
        ]
        title = f"{FAR_MB:.0f} MB, {ROUND_TRIP_S * 1000:.0f} ms there and back, {way}"
        race(title, contenders, source, cluster.folder, runs=FAR_RUNS)


def _memory() -> None:
    with bench(gpus=1) as cluster:
        memory(cluster, _large_file(cluster, MEMORY_MB), _random_file(cluster.folder / "byte", 1))


ROWS: dict[str, Callable[[], None]] = {
    "big": _big,
    "small": _small,
    "again": _again,
    "changed": _changed,
    "far": _far,
    "memory": _memory,
}


# -- contenders --------------------------------------------------------------------------------------------------


def _ours(way: str, cluster: Bench, source: Path) -> Contender:
    """Return our own way for what is moved for the first time."""

    def up(place: Path) -> Prepared:
        root_dir = ours.turn_to(cluster, place)
        return partial(ours.stage, "job", source), root_dir / "job" / "data" / source.name

    def down(place: Path) -> Prepared:
        root_dir = ours.turn_to(cluster, place)
        ours.make_job("job")
        # Linked, so that what is read lies where the rivals read it.
        _link(source, root_dir / "job" / "outputs" / source.name)
        home = place / "home"
        return partial(ours.collect, "job", home), home / source.name

    return Contender(f"ours, {way}", up if way == "up" else down, is_ours=True)


def _rival(name: str, source: Path, move: Move, target: float | None = None) -> Contender:
    return Contender(name, lambda place: (partial(move, source, place / "moved"), place / "moved"), target=target)


def _repeated(cluster: Bench, source: Path) -> list[Contender]:
    """Return the ways to bring what is there already, each to a place of its own where it is."""
    numbers = itertools.count()
    rivals = Rivals(cluster)
    new, same, theirs = (cluster.folder / name for name in ("new", "same", "theirs"))

    def new_job(_: Path) -> Prepared:
        job_id = f"job-{next(numbers)}"
        root_dir = ours.turn_to(cluster, new)
        return partial(ours.stage, job_id, source), root_dir / job_id / "data" / source.name

    def same_job(_: Path) -> Prepared:
        root_dir = ours.turn_to(cluster, same)
        return partial(ours.stage, "job", source), root_dir / "job" / "data" / source.name

    def rsync(_: Path) -> Prepared:
        return partial(rivals.rsync_up, source, theirs), theirs

    # A worker trusts what it knows of a file once it has lain a while.
    time.sleep(SETTLE_S)
    contenders = [
        Contender("ours, for a new job", new_job, is_ours=True),
        Contender("ours, for the same job", same_job, is_ours=True),
        Contender("rsync -a", rsync, target=1.0),
    ]
    for contender in contenders:
        action, _ = contender.prepare(cluster.folder)
        action()
    return contenders


def _best_cipher(cluster: Bench, way: str, source: Path, scp: Callable[..., None]) -> str:
    """Return the cipher with which scp is fastest on this machine."""
    target = cluster.folder / "with-cipher"
    times = paired(CIPHER_RUNS, *(partial(scp, source, target, cipher=cipher) for cipher in CIPHERS))
    target.unlink()
    print(f"\nscp {way}, the better of {CIPHER_RUNS}, by cipher:", end=" ")
    print(", ".join(f"{cipher} {min(mine):.2f} s" for cipher, mine in zip(CIPHERS, times, strict=True)), flush=True)
    return min(zip(times, CIPHERS, strict=True), key=lambda pair: min(pair[0]))[1]


# -- what is moved -----------------------------------------------------------------------------------------------


def _large_file(cluster: Bench, megabytes: float) -> Path:
    return _random_file(cluster.folder / "large", int(megabytes * 1e6))


def _random_file(path: Path, size: int) -> Path:
    with path.open("wb") as file:
        for start in range(0, size, 1 << 20):
            file.write(os.urandom(min(1 << 20, size - start)))
    return path


def _small_files(cluster: Bench) -> Path:
    folder = cluster.folder / "small"
    for number in range(FILES):
        path = folder / f"{number // FILES_PER_FOLDER:03}" / f"{number:05}.bin"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(os.urandom(FILE_BYTES))
    return folder


def _change_some(folder: Path, choice: random.Random) -> None:
    for path in choice.sample(sorted(folder.glob("*/*")), CHANGED_FILES):
        path.write_bytes(os.urandom(FILE_BYTES))


def _link(source: Path, target: Path) -> None:
    if source.is_file():
        os.link(source, target)
    else:
        shutil.copytree(source, target, copy_function=os.link)


if __name__ == "__main__":
    main()
