"""What is known of clusters, as the metric families of Prometheus. No IO."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from airflow_provider_gpu_cluster.gpu_run.protocol.replies import Capacity
    from airflow_provider_gpu_cluster.gpu_run.protocol.totals import Histogram, LedgerTotals, PairTotals
    from airflow_provider_gpu_cluster.plugins.cluster_looks import ClusterLook

_OF_PAIR = ("cluster", "dag", "user")
_OF_TRANSFERS = ("cluster", "direction")
# Name of the counter, what it counts, and the field of the sums.
_PAIR_COUNTERS: tuple[tuple[str, str, Callable[[PairTotals], float]], ...] = (
    ("run_seconds", "Seconds for which attempts ran that have ended.", lambda pair: pair["running_s"]),
    ("gpu_seconds", "GPU-seconds that attempts had leased that have ended.", lambda pair: pair["gpu_seconds"]),
    (
        "used_gpu_seconds",
        "GPU-seconds in which a leased GPU computed, where that was measured.",
        lambda pair: pair["used_gpu_seconds"],
    ),
    (
        "idle_gpu_seconds",
        "GPU-seconds in which a leased GPU did nothing, where that was measured.",
        lambda pair: pair["idle_gpu_seconds"],
    ),
    ("energy_joules", "Energy of leased GPUs, where that was measured.", lambda pair: pair["energy_j"]),
)


class ClusterCollector(Collector):
    """
    Makes metric families of what is known of clusters.

    :param looks: the clusters.
    """

    def __init__(self, looks: Iterable[ClusterLook]) -> None:
        self._looks = list(looks)

    def collect(self) -> Iterator[Metric]:
        """Yield the families. What is not known now has no sample."""
        yield from self._reachability()
        yield from self._now()
        yield from self._counters()
        yield from self._histograms()
        yield self._final_numbers()

    # -- whether clusters answer

    def _reachability(self) -> Iterator[Metric]:
        up = _gauge("up", "Whether the cluster answered the last look (1) or not (0).")
        age = _gauge("answer_age_seconds", "How old the cluster's last answer is.")
        took = _gauge("look_duration_seconds", "How long the last look at the cluster took.")
        for look in self._looks:
            up.add_metric([look.conn_id], look.is_up)
            if look.age_s is not None:
                age.add_metric([look.conn_id], look.age_s)
            if look.took_s is not None:
                took.add_metric([look.conn_id], look.took_s)
        yield from (up, age, took)

    # -- what there is now

    def _now(self) -> Iterator[Metric]:
        gpus = _gauge("gpus", "GPUs by type and state: free, leased, other, down, broken.", "type", "state")
        waiting = _gauge("waiting_jobs", "Jobs of all users that wait for GPUs.")
        waiting_gpus = _gauge("waiting_gpus", "GPUs for which jobs of all users wait.")
        jobs = _gauge("active_jobs", "Jobs of the connection's root_dir that wait or run.", "state")
        connections = _gauge(
            "open_connections", "Calls of Airflow's processes that are under way on the cluster.", "verb"
        )
        for look in self._looks:
            if look.answer is None:
                continue
            for call in look.answer["calls"]:
                connections.add_metric([look.conn_id, call["verb"]], call["count"])
            if "waiting_jobs" in look.answer and "running_jobs" in look.answer:
                jobs.add_metric([look.conn_id, "waiting"], look.answer["waiting_jobs"])
                jobs.add_metric([look.conn_id, "running"], look.answer["running_jobs"])
            capacity = look.answer.get("capacity")
            if capacity is None:
                continue
            waiting.add_metric([look.conn_id], capacity["waiting_jobs"])
            waiting_gpus.add_metric([look.conn_id], capacity["waiting_gpus"])
            for (kind, state), count in _gpus(capacity).items():
                gpus.add_metric([look.conn_id, kind, state], count)
        yield from (gpus, waiting, waiting_gpus, jobs, connections)

    # -- what the ledgers add up to

    def _ledgers(self) -> Iterator[tuple[str, LedgerTotals]]:
        """Yield the sums of each ledger. Before they are complete, counters would go backwards."""
        for look in self._looks:
            ledger = look.answer.get("ledger") if look.answer is not None else None
            if ledger is not None and ledger["is_complete"]:
                yield look.conn_id, ledger

    def _counters(self) -> Iterator[Metric]:
        jobs = _counter("jobs", "Attempts of jobs that have ended, by reason.", *_OF_PAIR, "reason")
        for conn_id, ledger in self._ledgers():
            for pair in ledger["pairs"]:
                for end in pair["ends"]:
                    jobs.add_metric([conn_id, pair["dag_id"], pair["user"], end["reason"]], end["count"])
        yield jobs
        for name, words, value in _PAIR_COUNTERS:
            family = _counter(name, words, *_OF_PAIR)
            for conn_id, ledger in self._ledgers():
                for pair in ledger["pairs"]:
                    family.add_metric([conn_id, pair["dag_id"], pair["user"]], value(pair))
            yield family
        transferred = _counter("transfer_bytes", "Bytes to the cluster (in) and home from it (out).", *_OF_TRANSFERS)
        for conn_id, ledger in self._ledgers():
            for transfers in ledger["transfers"]:
                transferred.add_metric([conn_id, transfers["direction"]], transfers["bytes"])
        yield transferred

    def _histograms(self) -> Iterator[Metric]:
        jobs = _histogram("job_duration_seconds", "How long attempts ran that have ended.", "cluster")
        queue = _histogram("queue_duration_seconds", "How long attempts waited that have ended.", "cluster")
        transfers = _histogram("transfer_duration_seconds", "How long transfers took.", *_OF_TRANSFERS)
        for conn_id, ledger in self._ledgers():
            _add(jobs, [conn_id], ledger["job_durations"])
            _add(queue, [conn_id], ledger["queue_durations"])
            for one in ledger["transfers"]:
                _add(transfers, [conn_id, one["direction"]], one["durations"])
        yield from (jobs, queue, transfers)

    def _final_numbers(self) -> Metric:
        family = _gauge(
            "final_metric", "Accuracy and loss in metrics.json of a task's job that ended last.", "dag", "task", "name"
        )
        for conn_id, ledger in self._ledgers():
            for task in ledger["final_numbers"]:
                for number in task["numbers"]:
                    family.add_metric([conn_id, task["dag_id"], task["task_id"], number["name"]], number["value"])
        return family


def _gauge(name: str, words: str, *labels: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"gpu_cluster_{name}", words, labels=["cluster", *labels])


def _counter(name: str, words: str, *labels: str) -> CounterMetricFamily:
    return CounterMetricFamily(f"gpu_cluster_{name}", words, labels=labels)


def _histogram(name: str, words: str, *labels: str) -> HistogramMetricFamily:
    return HistogramMetricFamily(f"gpu_cluster_{name}", words, labels=labels)


def _add(family: HistogramMetricFamily, labels: list[str], histogram: Histogram) -> None:
    bounds = [*map(str, histogram["bounds_s"]), "+Inf"]
    if len(bounds) != len(histogram["counts"]):
        return
    buckets = []
    total = 0
    for bound, count in zip(bounds, histogram["counts"], strict=True):
        total += count
        buckets.append((bound, total))
    family.add_metric(labels, buckets, sum_value=histogram["sum_s"])


def _gpus(capacity: Capacity) -> Counter[tuple[str, str]]:
    counts = Counter(
        (gpu["type"], gpu.get("state") or ("free" if gpu["free"] else "other")) for gpu in capacity["gpus"]
    )
    if broken := len(capacity.get("broken_gpus", [])):
        # What type they are, their driver does not say.
        counts["", "broken"] = broken
    return counts
