"""``launch_command``: what becomes of its placeholders, and which commands cannot be used."""

from __future__ import annotations

from typing import Any, cast

import pytest

from airflow_provider_gpu_cluster.gpu_run.engines.command.template import NotGiven, Template, values_of
from airflow_provider_gpu_cluster.gpu_run.protocol.spec import Spec

FULL: dict[str, Any] = {
    "gpus": 2,
    "gpu_type": "H100 80GB",
    "cpus": 8,
    "memory_bytes": 32 << 30,
    "time_limit_s": 3600.5,
    "grace_s": 10.0,
    "priority": "high",
}
SCRIPT = "/jobs/my job/it's.sh"
BARE = {"gpus": 1}


def words(template: str, spec: dict[str, Any]) -> list[str]:
    values = values_of(cast(Spec, spec), {}, script=SCRIPT, job_id="job", job_dir="/jobs/my job")
    parsed = Template(template)
    return [parsed.program, *parsed.arguments(values)]


@pytest.mark.parametrize(
    ("template", "full", "bare"),
    [
        (
            "gpu-run --gpus {gpus} --memory {memory} {script}",
            ["gpu-run", "--gpus", "2", "--memory", "32896M", SCRIPT],
            ["gpu-run", "--gpus", "1", SCRIPT],
        ),
        (
            "run -t{time_limit} --cpus={cpus} --type {gpu_type} -v {script} {priority}",
            ["run", "-t3731", "--cpus=8", "--type", "H100 80GB", "-v", SCRIPT, "high"],
            ["run", "-v", SCRIPT, "normal"],
        ),
        (
            "env GPUS={gpus} MEM={memory} go -l mem={memory} --dir={job_dir} {script} {job_id}",
            [
                "env",
                "GPUS=2",
                "MEM=32896M",
                "go",
                "-l",
                "mem=32896M",
                "--dir=/jobs/my job",
                SCRIPT,
                "job",
            ],
            ["env", "GPUS=1", "go", "--dir=/jobs/my job", SCRIPT, "job"],
        ),
        (
            """sh -c 'launch "$1" {{x}} "$2"' - {gpus} {script}""",
            ["sh", "-c", 'launch "$1" {x} "$2"', "-", "2", SCRIPT],
            ["sh", "-c", 'launch "$1" {x} "$2"', "-", "1", SCRIPT],
        ),
        (
            "a\\ b '' {{{gpus}}} {script}",
            ["a b", "", "{2}", SCRIPT],
            ["a b", "", "{1}", SCRIPT],
        ),
    ],
)
def test_placeholders(template: str, full: list[str], bare: list[str]) -> None:
    assert words(template, FULL) == full
    assert words(template, BARE) == bare


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("", "it is empty"),
        ("gpu-run --gpus {gpus}", r"it has no \{script\}"),
        ("gpu-run {gpu} {script}", r"there is no placeholder \{gpu\}; valid are \{gpus\}, \{gpu_type\}"),
        ("gpu-run {} {script}", r"there is no placeholder \{\}"),
        ("gpu-run {gpus!r} {script}", r"there is no placeholder \{gpus!r\}"),
        ("gpu-run {gpus:d} {script}", r"there is no placeholder \{gpus:d\}"),
        ("gpu-run {gpus {script}", r"'\{gpus' has a \{ that belongs to no placeholder"),
        ("gpu-run gpus} {script}", r"'gpus\}' has a \} that belongs to no placeholder"),
        ("gpu-run '{gpus} {script}", r"its quotes do not match \(No closing quotation\)"),
        ("gpu-run {script} \\", r"its quotes do not match \(No escaped character\)"),
        ("{script} --gpus {gpus}", r"begins with '\{script\}', which must be a program"),
    ],
)
def test_what_cannot_be_used_says_why(template: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Template(template)


@pytest.mark.parametrize(
    "template",
    [
        "launch {gpus} {memory} {script}",
        "launch -- {memory} {script}",
        "launch -l gpus={gpus}:mem={memory} {script}",
        "launch --res=gpus:{gpus},mem:{memory} {script}",
        "sh -c 'launch --memory {memory} {script}'",
    ],
)
def test_what_cannot_be_left_out_must_be_given(template: str) -> None:
    words(template, FULL)
    with pytest.raises(NotGiven, match="memory must be given here"):
        words(template, BARE)


@pytest.mark.parametrize(
    ("memory", "written"), [(32 << 30, "32896M"), ((32 << 30) - (128 << 20), "32G"), (1, "129M"), (512 << 20, "640M")]
)
def test_memory_is_rounded_up_and_has_room_for_the_supervisor(memory: int, written: str) -> None:
    assert words("x {memory} {script}", {"gpus": 1, "memory_bytes": memory})[1] == written
