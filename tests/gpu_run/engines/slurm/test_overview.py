"""What a Slurm cluster looks like, from pasted answers; `test_jobs.py` asks a real one."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_gpu_cluster.gpu_run.engines.slurm import overview
from airflow_provider_gpu_cluster.gpu_run.engines.slurm.commands import SEPARATOR
from airflow_provider_gpu_cluster.gpu_run.engines.slurm.hostlist import MOST_NODES, nodes_of
from airflow_provider_gpu_cluster.gpu_run.protocol import overview as words


def node(name: str, partition: str, state: str, gres: str, used: str, reason: str = "none") -> str:
    """Return a line of sinfo."""
    values = (name, partition, state, gres, used, reason)
    return "".join(value.ljust(width) for value, (_, width) in zip(values, overview._NODE_FIELDS, strict=True))


def job(job_id: str, nodes: str, alloc: str, per_node: str, user: str = "ann") -> str:
    """Return a line of squeue about a job that has nodes."""
    values = (job_id, user, "gpu", nodes, alloc, per_node, "2026-11-28T10:00:00", "N/A")
    return "".join(value.ljust(width) for value, (_, width) in zip(values, overview._RUNNING_FIELDS, strict=True))


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("gpu1", ["gpu1"]),
        ("gpu[1-3]", ["gpu1", "gpu2", "gpu3"]),
        ("gpu[08-10,12],login", ["gpu08", "gpu09", "gpu10", "gpu12", "login"]),
        ("r[1-2]n[1-2].x", ["r1n1.x", "r1n2.x", "r2n1.x", "r2n2.x"]),
        ("a,b[1],c", ["a", "b1", "c"]),
        ("gpu[", ["gpu"]),
        ("gpu[x-y]", ["gpux-y"]),
        ("", []),
    ],
)
def test_lists_of_nodes(text: str, names: list[str]) -> None:
    assert nodes_of(text) == names


def test_a_list_of_nodes_is_bounded() -> None:
    assert len(nodes_of("n[1-999999999]")) == MOST_NODES
    assert len(nodes_of("n[1-99999]m[1-99999]")) == MOST_NODES


def test_nodes_with_gpus_each_once_with_its_partitions_and_why_it_takes_no_jobs() -> None:
    output = "\n".join(
        [
            node("gpu1", "gpu*", "mixed", "gpu:a100:2(S:0-1)", "gpu:a100:1(IDX:0)"),
            node("gpu1", "lone", "mixed", "gpu:a100:2(S:0-1)", "gpu:a100:1(IDX:0)"),
            node(
                "gpu2",
                "gpu*",
                "drained",
                "gpu:h100:1,gpu:v100:1",
                "gpu:h100:1(IDX:0),gpu:v100:0(IDX:N/A)",
                "fan is loud",
            ),
            node("gpu3", "gpu*", "down*", "gpu:1", "gpu:0", "Not responding"),
            node("gpu4", "gpu*", "idle~", "gpu:1", "gpu:0"),
            node("login", "gpu*", "idle", "(null)", "gpu:0"),
            "nonsense",
            "",
        ]
    )
    found = overview.node_list(output)
    assert [(one["name"], one["is_up"], one["partitions"], one.get("reason")) for one in found] == [
        ("gpu1", True, ["gpu", "lone"], None),
        ("gpu2", False, ["gpu"], "fan is loud"),
        ("gpu3", False, ["gpu"], "Not responding"),
        ("gpu4", True, ["gpu"], None),
    ]
    cells = [[(gpu["state"], gpu["type"]) for gpu in one["gpus"]] for one in found]
    assert cells == [
        [("leased", "a100"), ("free", "a100")],
        # A drained node still has its last job.
        [("leased", "h100"), ("down", "v100")],
        [("down", "gpu")],
        [("free", "gpu")],
    ]


def test_jobs_and_how_many_gpus_they_have_on_each_node() -> None:
    output = "\n".join(
        [
            job("7", "gpu[1-2]", "cpu=2,mem=1G,node=2,billing=2,gres/gpu=4,gres/gpu:a100=4", "gres:gpu:a100:2"),
            job("8_3", "gpu[1-3]", "cpu=2,gres/gpu=4", "N/A"),
            job("9", "gpu1", "cpu=2,gres/gpu:a100=1,gres/gpu:h100=2", "N/A"),
            job("10", "gpu1", "cpu=2,mem=1G", "gres/gpu:1"),
            job("11", "gpu1", "cpu=2,mem=1G", "N/A"),
            job("12", "(null)", "gres/gpu=1", "N/A"),
            "cut",
        ]
    )
    found = overview.running_jobs(output)
    assert [(one.id, one.gpus_by_node) for one in found] == [
        ("7", {"gpu1": 2, "gpu2": 2}),
        ("8_3", {"gpu1": 2, "gpu2": 1, "gpu3": 1}),
        ("9", {"gpu1": 3}),
        ("10", {"gpu1": 1}),
    ]
    assert found[0].since is not None
    assert found[0].until is None


def test_jobs_that_wait() -> None:
    lines = [
        ("20", "ann", "gpu", "2", "gres:gpu:a100:4", "Resources", "2026-11-28T16:00:00", "2026-11-28T14:00:00"),
        ("21_1", "bob", "gpu", "1", "gres:gpu:1", "NewReason", "N/A", "2026-11-28T14:00:00"),
        ("22", "bob", "cpu", "1", "N/A", "Priority", "N/A", "N/A"),
    ]
    waiting = overview.waiting_jobs("\n".join(map(SEPARATOR.join, lines)) + "\ncut")
    assert [(one.id, one.gpus, one.expected is None) for one in waiting] == [
        ("20", 8, False),
        ("21_1", 1, True),
        ("22", 0, True),
    ]


def test_all_together_says_who_has_which_gpu_and_whose_jobs_are_ours() -> None:
    mine: Any = object()
    nodes = overview.node_list(
        "\n".join(
            [
                node("gpu1", "gpu*", "mixed", "gpu:a100:4", "gpu:a100:3(IDX:0-2)"),
                node("gpu2", "gpu*", "allocated", "gpu:a100:2", "gpu:a100:2(IDX:0-1)"),
            ]
        )
    )
    running = overview.running_jobs(
        "\n".join([job("7", "gpu1", "", "gpu:1", "bob"), job("8", "gpu[1-2]", "", "gpu:2")])
    )
    waiting = [
        overview.WaitingJob("20", "ann", "gpu", 8, "Resources", 1.8e9, 1.7e9),
        overview.WaitingJob("21", "bob", "cpu", 0, "Priority", None, None),
        overview.WaitingJob("22", "bob", "gpu", 1, "NewReason", None, None),
    ]
    view, ours = overview.view_of(nodes, running, waiting, {"8": mine, "20": mine}, "gpu")
    # Ours come first, as the list of others is bounded.
    assert [one.get("scheduler_id") for one in view["jobs"]] == ["8", "7", "20", "22"]
    assert sorted(ours) == [0, 2]
    assert [[gpu.get("job") for gpu in one["gpus"]] for one in view["nodes"]] == [[0, 0, 1, None], [0, 0]]
    assert [(one.get("place"), one.get("why")) for one in view["jobs"][2:]] == [
        (1, "it is next, and the resources it asks for are in use"),
        (2, "NewReason"),
    ]
    assert (view["waiting_jobs"], view["waiting_gpus"], view["partition"]) == (2, 9, "gpu")


def test_a_large_cluster_is_cut_and_says_so() -> None:
    nodes = overview.node_list("\n".join(node(f"n{n}", "gpu", "idle", "gpu:8", "gpu:0") for n in range(1000)))
    waiting = [overview.WaitingJob(str(n), "ann", "gpu", 1, "Priority", None, None) for n in range(1000)]
    mine: Any = object()
    view, ours = overview.view_of(nodes, [], waiting, {"999": mine}, None)
    assert sum(len(one["gpus"]) for one in view["nodes"]) == words.MOST_GPUS
    assert view["left_out"] == 8000 - words.MOST_GPUS
    assert (len(view["jobs"]), view["waiting_jobs"]) == (words.MOST_WAITING + 1, 1000)
    assert [view["jobs"][place]["place"] for place in ours] == [1000]
