"""Whether jobs fit a Slurm cluster, and when they could start there, by Slurm's own word."""

from __future__ import annotations

import contextlib
import json
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import TYPE_CHECKING, Iterable, Sequence

from ... import protocol
from ...errors import Refused
from ...protocol.appraisal import SQUEUE_START, TEST_ONLY
from ...store.placements import Promise
from ..wanted import Wanted, unfit
from . import commands, partition_nodes, trial
from .partition_nodes import PartitionNode
from .runner import Answer, run
from .submitter import Submitter, slurm_type
from .trial import TrialAnswer

if TYPE_CHECKING:
    from ...protocol.appraisal import Prospect
    from ...protocol.settings import Settings
    from ...protocol.spec import Spec
    from ...store.directories import Root

# So many kinds of jobs Slurm is asked about at once, and so many at a time.
_MOST_TRIALS = 16
_AT_ONCE = 4
# Slurm rounds to seconds.
_NOW_S = 2.0
_LEAST_S = 0.05
_HELD = ("--hold", "-H")


class SlurmProspects:
    """
    One look at a Slurm cluster for all jobs that are asked about together.

    :param timeout_s: how long Slurm's answers may take together, in seconds.
    """

    def __init__(self, root: Root, settings: Settings, submitter: Submitter, timeout_s: float) -> None:
        self._root = root
        self._settings = settings
        self._submitter = submitter
        self._deadline = time.monotonic() + timeout_s

    def of(self, wanted: Sequence[Wanted], promises: Sequence[Promise]) -> list[Prospect]:
        """Return the prospect of each job; Slurm is asked once for those that ask it for the same."""
        # Most jobs name no type of GPUs, and can be tried while Slurm lists its nodes.
        plain = {self._key(one.spec): one.spec for one in wanted if one.status is None and not one.spec.get("gpu_type")}
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            listing = pool.submit(self._run, partition_nodes.listed())
            trials = self._tried(pool, plain, {})
            try:
                listed = listing.result()
            except Refused as refusal:
                return [unfit(refusal) for _ in wanted]
            if listed.code != 0:
                return [unfit(_silent(commands.said(listed.errors))) for _ in wanted]
            kinds: dict[str, str | Refused] = {}
            typed: dict[str, Spec] = {}
            for one in wanted:
                if one.spec.get("gpu_type"):
                    key = self._key(one.spec)
                    kinds[key] = self._kind(one.spec, self._nodes(listed, one.spec))
                    if one.status is None and not isinstance(kinds[key], Refused):
                        typed[key] = one.spec
            trials.update(self._tried(pool, typed, kinds))
        found = []
        for one in wanted:
            key = self._key(one.spec)
            try:
                kind = kinds.get(key)
                if isinstance(kind, Refused):
                    raise kind
                found.append(self._prospect(one, self._nodes(listed, one.spec), kind, trials.get(key), promises))
            except Refused as refusal:
                found.append(unfit(refusal))
        return found

    def _run(self, command: Sequence[str], standard_input: str = "") -> Answer:
        return run(command, standard_input, timeout_s=max(_LEAST_S, round(self._deadline - time.monotonic(), 1)))

    def _key(self, spec: Spec) -> str:
        return json.dumps([spec.get("gpu_type"), self._command(spec, None)])

    def _command(self, spec: Spec, kind: str | None) -> list[str]:
        return self._submitter.command(spec, kind, name="appraisal", folder=self._root.path, output="/dev/null")

    def _nodes(self, listed: Answer, spec: Spec) -> list[PartitionNode]:
        return partition_nodes.nodes_in(listed.output, commands.asked(spec, self._settings, "partition"))

    def _kind(self, spec: Spec, nodes: Sequence[PartitionNode]) -> str | Refused:
        try:
            return slurm_type(str(spec["gpu_type"]), {kind for node in nodes for kind in node.gpus})
        except Refused as refusal:
            return refusal

    def _tried(
        self, pool: ThreadPoolExecutor, specs: dict[str, Spec], kinds: dict[str, str | Refused]
    ) -> dict[str, TrialAnswer]:
        asked = {}
        for key, spec in list(specs.items())[:_MOST_TRIALS]:
            kind = kinds.get(key)
            command = trial.trial(self._command(spec, kind if isinstance(kind, str) else None))
            asked[key] = pool.submit(self._run, command, trial.SCRIPT)
        found = {}
        for key, answer in asked.items():
            try:
                found[key] = trial.meaning_of(answer.result())
            except Refused as refusal:
                found[key] = TrialAnswer(trial.SILENT, message=refusal.message)
        return found

    def _prospect(
        self,
        wanted: Wanted,
        nodes: Sequence[PartitionNode],
        kind: str | None,
        said: TrialAnswer | None,
        promises: Sequence[Promise],
    ) -> Prospect:
        spec = wanted.spec
        free, total = partition_nodes.free_and_all(nodes, kind)
        gpu_type = (spec.get("gpu_type") or "").lower()
        promised = sum(
            promise.gpus
            for promise in promises
            if promise.job_id != wanted.job_id and _may_overlap(gpu_type, (promise.gpu_type or "").lower())
        )
        prospect: Prospect = {"fits": True, "gpus": total, "free_gpus": max(0, free - promised)}
        if wanted.status is not None:
            # Slurm's plan, if it has made one.
            with contextlib.suppress(ValueError, KeyError, TypeError):
                _tell_start(prospect, datetime.fromisoformat(wanted.status["expected_start"]).timestamp(), SQUEUE_START)
            return prospect
        self._check_limit(spec, nodes, prospect)
        if said is None:
            prospect["remark"] = f"Slurm was asked about {_MOST_TRIALS} other kinds of jobs, and not about this one"
        elif said.said == trial.SILENT:
            prospect["remark"] = f"Slurm has not said when it could start: {said.message}"
        elif said.said == trial.TAKEN:
            self._tell_taken(spec, said, promised, free, prospect)
        elif said.said == trial.LIMIT:
            self._tell_limit(spec, said, prospect)
        elif said.said == trial.NOT_NOW:
            raise Refused(protocol.GPUS_UNAVAILABLE, f"Slurm takes no such job now: {said.message}")
        elif said.said == trial.LATER or (said.said == trial.NO_NODES and self._could_ever(spec, nodes, kind)):
            down = sorted({node.name for node in nodes if not node.is_up})
            out = f"; nodes that take no jobs now: {', '.join(down[:10])}" if down else ""
            prospect["remark"] = f"Slurm does not say when it could start: {said.message}{out}"
        else:
            raise Refused(protocol.LAUNCH_REFUSED, f"Slurm refuses the job: {said.message}")
        return prospect

    def _check_limit(self, spec: Spec, nodes: Sequence[PartitionNode], prospect: Prospect) -> None:
        """
        Refuse a job that asks for more time than its partition gives: most sites take it, and it waits for ever.

        :raises Refused: it does, and has no QOS, which could allow it.
        """
        asked_s = _time_of(self._command(spec, None))
        limits = [node.limit_s for node in nodes]
        longest = max((limit for limit in limits if limit is not None), default=None)
        if asked_s is None or longest is None or None in limits or asked_s <= longest:
            return
        if commands.asked(spec, self._settings, "qos") is None:
            raise Refused(
                protocol.LAUNCH_REFUSED,
                f"with its time_limit and its end it asks Slurm for {asked_s / 60:,.0f} minutes, and "
                f"{_partitions(nodes)} gives a job {longest / 60:,.0f}; lower time_limit",
            )

    def _tell_taken(self, spec: Spec, said: TrialAnswer, promised: int, free: int, prospect: Prospect) -> None:
        if said.start is None or any(option in _HELD for option in self._command(spec, None)):
            return
        needed = spec["gpus"] * (spec.get("nodes") or 1)
        if promised and said.start <= time.time() + _NOW_S and free - promised < needed:
            prospect["remark"] = (
                f"of {free} GPUs that are free, {promised} are promised to jobs that are being launched"
            )
            return
        _tell_start(prospect, said.start, TEST_ONLY)

    def _tell_limit(self, spec: Spec, said: TrialAnswer, prospect: Prospect) -> None:
        """
        Say by which limit Slurm takes no more jobs.

        :raises Refused: it never takes one like this.
        """
        left_s = self._deadline - time.monotonic()
        limits = self._submitter.limits(spec, said.message, left_s) if left_s > _LEAST_S else []
        for_good = [limit for limit in limits if limit.most == 0]
        if for_good:
            where = " and ".join(f"{limit.name} is set for {limit.where}" for limit in for_good)
            raise Refused(protocol.LAUNCH_REFUSED, f"Slurm never takes a job like this: {where} ({said.message})")
        full = [limit for limit in limits if not limit.room]
        where = "".join(f"; {limit.name} is set for {limit.where}" for limit in full)
        prospect["remark"] = f"Slurm takes no more jobs of yours now: {said.message}{where}"

    def _could_ever(self, spec: Spec, nodes: Sequence[PartitionNode], kind: str | None) -> bool:
        """Return whether enough nodes could run a job if all of them took jobs, and some do not now."""
        memory_mb = (spec.get("memory_bytes") or 0) / 2**20
        could = {
            node.name: node.is_up
            for node in nodes
            if node.could_have(spec["gpus"], kind, memory_mb, spec.get("cpus") or 1)
        }
        return len(could) >= (spec.get("nodes") or 1) and not all(could.values())


def _tell_start(prospect: Prospect, start: float, known_by: str) -> None:
    left_s = start - time.time()
    prospect["starts_in_s"] = round(left_s, 3) if left_s > _NOW_S else 0.0
    prospect["start_known_by"] = known_by


def _may_overlap(one: str, other: str) -> bool:
    """Return whether two jobs may want the same GPUs, by the types that they name."""
    return one in other or other in one


def _time_of(command: Iterable[str]) -> float | None:
    """Return how much time a command asks Slurm for, in seconds; None if it does not, or in another form."""
    found = None
    words_left = iter(command)
    for word in words_left:
        if word in ("--time", "-t"):
            found = next(words_left, "")
        elif word.startswith("--time="):
            found = word.partition("=")[2]
        elif word.startswith("-t"):
            found = word[2:]
    return None if found is None else partition_nodes.seconds_of(found)


def _partitions(nodes: Sequence[PartitionNode]) -> str:
    return "its partition {}".format(", ".join(sorted({node.partition for node in nodes})))


def _silent(said: str) -> Refused:
    return Refused(protocol.GPUS_UNAVAILABLE, f"Slurm cannot be asked: {said}")
