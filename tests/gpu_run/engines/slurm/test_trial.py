"""What `sbatch --test-only` says, as Slurm 22.05 has said it, and what else may be in its place."""

from __future__ import annotations

import time

import pytest

from airflow_provider_gpu_cluster.gpu_run.engines.slurm import partition_nodes, trial
from airflow_provider_gpu_cluster.gpu_run.engines.slurm.runner import Answer

START = time.mktime((2026, 11, 28, 17, 56, 41, 0, 0, -1))
AT = "Job 14 to start at 2026-11-28T17:56:41 using 1 processors on nodes gpu1 in partition gpu"
POLICY = "allocation failure: Job violates accounting/QOS policy (job submit limit, user's size and/or time limits)"


@pytest.mark.parametrize(
    ("code", "output", "errors", "said", "start", "message"),
    [
        (0, "", f"sbatch: {AT}\n", trial.TAKEN, START, AT),
        # A site's own script around it, in whatever language, and on whatever output.
        (0, f"{AT}\n", "", trial.TAKEN, START, AT),
        (0, "", f"Bitte beachten: Wartung am Montag!\nsbatch: {AT}\n", trial.TAKEN, START, "Wartung"),
        (0, "", "", trial.TAKEN, None, "no message"),
        (0, "", "sbatch: Job 3 to start at N/A using 1 processors\n", trial.TAKEN, None, "N/A"),
        (0, "", "sbatch: Job 3 to start at 28.11. 17:56\n", trial.TAKEN, None, "28.11."),
        (
            1,
            "",
            "allocation failure: Requested node configuration is not available\n",
            trial.NO_NODES,
            None,
            "Requested",
        ),
        (
            1,
            "",
            "allocation failure: Required node not available (down, drained or reserved)\n",
            trial.LATER,
            None,
            "down",
        ),
        (1, "", "allocation failure: Requested partition configuration not available now\n", trial.LATER, None, "now"),
        (
            1,
            "",
            "allocation failure: Required partition not available (inactive or drain)\n",
            trial.NOT_NOW,
            None,
            "drain",
        ),
        (1, "", f"sbatch: error: QOSMaxSubmitJobPerUserLimit\n{POLICY}\n", trial.LIMIT, None, "QOSMaxSubmitJobPer"),
        (1, "", f"{POLICY}\n", trial.LIMIT, None, "Job violates"),
        (1, "", f"sbatch: error: QOSMaxGRESPerJob\n{POLICY}\n", trial.REFUSED, None, "QOSMaxGRESPerJob; Job violates"),
        (1, "", "allocation failure: Invalid qos specification\n", trial.REFUSED, None, "Invalid qos specification"),
        (255, "", "sbatch: unrecognized option '--bogus'\n", trial.REFUSED, None, "unrecognized option '--bogus'"),
        (1, "Ask the help desk.\n", "", trial.REFUSED, None, "Ask the help desk."),
        (1, "", "sbatch: --test-only is not allowed here\n", trial.SILENT, None, "not allowed here"),
        (2, "usage: no such option: --test-only\n", "", trial.SILENT, None, "no such option"),
        (3, "", "", trial.REFUSED, None, "exit code 3"),
        (None, "", "sbatch gave no answer in 2 s", trial.SILENT, None, "gave no answer in 2 s"),
        (
            1,
            "",
            "allocation failure: Unable to contact slurm controller (connect failure)\n",
            trial.SILENT,
            None,
            "Unable",
        ),
    ],
)
def test_what_an_answer_means(
    code: int | None, output: str, errors: str, said: str, start: float | None, message: str
) -> None:
    found = trial.meaning_of(Answer(code, output, errors))
    assert (found.said, found.start) == (said, start)
    assert message in found.message
    assert "allocation failure" not in found.message


def test_a_trial_asks_for_what_a_launch_would_ask_for() -> None:
    assert trial.trial(["sbatch", "--parsable", "--gres=gpu:1"]) == [
        "sbatch",
        "--test-only",
        "--parsable",
        "--gres=gpu:1",
    ]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("5", 300),
        ("5:30", 330),
        ("1:00:00", 3600),
        ("1-0", 86400),
        ("1-00:00:00", 86400),
        ("2-12:30", 217800),
        ("infinite", None),
        ("n/a", None),
        ("", None),
        ("-1", None),
        ("1:2:3:4", None),
    ],
)
def test_slurms_durations(text: str, seconds: float | None) -> None:
    assert partition_nodes.seconds_of(text) == seconds


def node(
    name: str, partition: str, state: str, gres: str, used: str, limit: str = "infinite", memory: str = "64000"
) -> str:
    """Return a line of sinfo."""
    values = (name, partition, state, gres, used, memory, "64", limit)
    return "".join(value.ljust(width) for value, (_, width) in zip(values, partition_nodes._FIELDS, strict=True))


LISTED = "\n".join(
    [
        node("gpu1", "gpu*", "mixed", "gpu:a100:4(S:0-1)", "gpu:a100:3(IDX:0-2)", "1-00:00:00"),
        node("gpu1", "lone", "mixed", "gpu:a100:4(S:0-1)", "gpu:a100:3(IDX:0-2)"),
        node("gpu2", "gpu*", "drained*", "gpu:a100:4(S:0-1)", "gpu:a100:0(IDX:N/A)", "1-00:00:00"),
        node("gpu3", "gpu*", "idle", "gpu:h100:1,gpu:v100:2", "gpu:h100:0,gpu:v100:0", "1-00:00:00", "N/A"),
        node("cpu1", "cpu", "idle", "(null)", "(null)"),
    ]
)


@pytest.mark.parametrize(
    ("partition", "names", "kind", "free_and_all"),
    [
        (None, ["gpu1", "gpu2", "gpu3"], None, (4, 7)),
        (None, ["gpu1", "gpu2", "gpu3"], "a100", (1, 4)),
        ("gpu,lone", ["gpu1", "gpu1", "gpu2", "gpu3"], None, (4, 7)),
        ("lone", ["gpu1"], "h100", (0, 0)),
        ("cpu", ["cpu1"], None, (0, 0)),
        ("nope", [], None, (0, 0)),
    ],
)
def test_the_nodes_of_a_partition(
    partition: str | None, names: list[str], kind: str | None, free_and_all: tuple[int, int]
) -> None:
    found = partition_nodes.nodes_in(LISTED, partition)
    assert [one.name for one in found] == names
    assert partition_nodes.free_and_all(found, kind) == free_and_all


def test_what_a_node_could_have() -> None:
    first, _, third = partition_nodes.nodes_in(LISTED, None)
    assert (first.limit_s, first.is_up) == (86400, True)
    assert first.could_have(4, "a100", 64000, 64)
    assert not first.could_have(5, None, 0, 1)
    assert not first.could_have(1, "h100", 0, 1)
    assert not first.could_have(1, None, 64001, 1)
    assert not first.could_have(1, None, 0, 65)
    assert third.could_have(3, None, 10**9, 1)
