"""
What runs on each node of a job on several: ``run.sh``, under the same care as on one node.

The supervisor's orders come in a file. The first failure is noted, since ``srun`` tells the largest exit code, which
may be of a script that was killed for the failure of another.
"""

from __future__ import annotations

import os
import signal
import time
from typing import TYPE_CHECKING

from ..linux import processes
from ..store.directories import Attempt
from .job_processes import JobProcesses
from .main_process import catching
from .node_orders import OrdersRead, note_failure
from .signals import HANDED_ON
from .telling import Telling
from .usage_sampler import UsageSampler, start_node_sampler

if TYPE_CHECKING:
    from ..protocol.records import NodeOrder

_TICK_S = 0.1


class _NodeRun:
    def __init__(self, attempt: Attempt, sampler: UsageSampler) -> None:
        self._sampler = sampler
        self._orders = OrdersRead(attempt)
        self._job = JobProcesses()
        self._telling: Telling | None = None
        self._is_told = False
        #: Whether the supervisor has ordered the end.
        self.is_ordered = False

    def run(self, script: str, env: dict[str, str], umask: int) -> int:
        """Run the script, and return its exit code as a shell tells it."""
        for number in HANDED_ON:
            # What Slurm sends reaches every process here, and this one only waits.
            signal.signal(number, lambda number, frame: None)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._note_term)
        processes.become_subreaper()
        self._job.start(["bash", script], cwd=os.getcwd(), env=env, out=None, errors=None, umask=umask)
        self._sampler.begin()
        while not self._is_over():
            for order in self._orders.new():
                self._obey(order)
            if self._is_told and self._telling is None:
                self._telling = Telling(self._job, signal.SIGTERM, is_told=True)
            time.sleep(_TICK_S)
        told = None
        if self._telling is not None:
            self._telling.end_shells()
            self._job.reap_top()
            told = self._telling.status()
        if self._job.reap():
            self._job.end_leftovers(lambda: None)
        self._sampler.end()
        status = self._job.status if told is None else told
        if status is None:
            return 1
        return os.WEXITSTATUS(status) if os.WIFEXITED(status) else 128 + os.WTERMSIG(status)

    def _note_term(self, number: int, frame: object) -> None:
        self._is_told = True

    def _is_over(self) -> bool:
        is_left = self._job.reap()
        if self._telling is None or not is_left:
            return self._job.status is not None
        return self._telling.is_over()

    def _obey(self, order: NodeOrder) -> None:
        if order["kind"] == "warn":
            processes.send_signal(catching(self._job.tops(), order["number"]), order["number"])
        elif order["kind"] == "stop" and self._telling is None:
            self.is_ordered = True
            self._telling = Telling(self._job, order["number"], to_all=bool(order["to_all"]))
        elif order["kind"] == "kill":
            self.is_ordered = True
            self._job.kill()


def run_on_node(path: str, script: str, *, umask: int) -> int:
    """
    Run an attempt's script on one of its nodes.

    :param path: the attempt's folder.
    :return: the exit code for ``srun``. When the job is being stopped it is 0: for another one, ``srun`` would kill the
        other nodes, which may still save.
    """
    rank = os.environ.get("SLURM_NODEID", "0")
    attempt = Attempt.at_path(path)
    # Before this process becomes a subreaper, which would make it the sampler's parent.
    run = _NodeRun(attempt, start_node_sampler(attempt, int(rank), os.environ.get("SLURMD_NODENAME", rank)))
    code = run.run(script, {**os.environ, "NODE_RANK": rank}, umask)
    if code:
        note_failure(attempt.at("first_failure"), rank, code)
    return 0 if run.is_ordered else code
