"""What a host says of jobs that may be launched there."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_gpu_cluster.gpu_run import protocol
from airflow_provider_gpu_cluster.gpu_run.engines.host.engine import HostEngine
from airflow_provider_gpu_cluster.gpu_run.engines.wanted import Wanted
from airflow_provider_gpu_cluster.gpu_run.environments import python_environment
from airflow_provider_gpu_cluster.gpu_run.errors import Refused
from airflow_provider_gpu_cluster.gpu_run.jobs import appraisal, status
from airflow_provider_gpu_cluster.gpu_run.ledger.ledger import Ledger
from airflow_provider_gpu_cluster.gpu_run.protocol.placement import FENCE, Placement
from airflow_provider_gpu_cluster.gpu_run.protocol.spec import Spec
from airflow_provider_gpu_cluster.gpu_run.staging import lacking
from airflow_provider_gpu_cluster.gpu_run.store import records
from airflow_provider_gpu_cluster.gpu_run.store.arrays import keep_elements
from airflow_provider_gpu_cluster.gpu_run.store.asked import asked_at
from airflow_provider_gpu_cluster.gpu_run.store.placements import Promise, new_note, note_placement
from tests.gpu_run.gpus.test_inventory import A100, FakeNvidiaSmi, divided
from tests.gpu_run.host import Host
from tests.gpu_run.staging.test_inputs import sources, stage
from tests.harness.small_disk import fill, small_disk


def job(job_id: str = "new", *, inputs: Any = (), record: Any = None, input_bytes: Any = (), **spec: Any) -> Any:
    asked = {"job_id": job_id, "spec": {"gpus": 1, **spec}, "inputs": None if inputs is None else list(inputs)}
    return {**asked, "record": record or {}, "input_bytes": list(input_bytes)}


def ask(host: Host, *jobs: Any) -> list[Any]:
    """Return what the host says of jobs."""
    reply = appraisal.answer(host.root, host.engine, {"jobs": list(jobs), "settings": host.settings, "umask": 0o22})
    # In the form in which it goes over the wire.
    value = json.loads(json.dumps(reply.value))
    assert abs(value["now"] - time.time()) < 20
    return list(value["jobs"])


# -- whether it fits, and when it could start ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spec", "why_not"),
    [
        ({"gpus": 4}, None),
        ({"gpus": 5}, "the job asks for 5 GPUs, but .* has 4 x virtual"),
        ({"gpu_type": "h100"}, "1 GPU of type 'h100'"),
        ({"nodes": 2}, "asks for 2 nodes, and .* is one host"),
        (
            {"partition": "gpu"},
            "the job gives partition, which only Slurm has; to let it run elsewhere too, give it in",
        ),
        (
            {"constraint": "a", "sbatch_options": ["-x"]},
            "gives constraint and sbatch_options, which only Slurm .* them",
        ),
        # For whom it runs, and what is not given, is no hindrance.
        ({"account": "lab", "qos": "low", "partition": None, "sbatch_options": [], "memory_bytes": 1 << 30}, None),
        ({"memory_bytes": 1 << 50}, r"asks for 1048576\.0 GiB of host memory, but .* has \d+\.\d GiB"),
    ],
)
def test_what_fits_a_host(host: Host, spec: Any, why_not: str | None) -> None:
    (found,) = ask(host, job(**spec))
    if why_not is None:
        assert (found["fits"], found["starts_in_s"], found["start_known_by"]) == (True, 0, "free now")
        assert (found["gpus"], found["free_gpus"], found["waiting"]) == (4, 4, 0)
    else:
        assert not found["fits"]
        assert re.search(why_not, found["why_not"])
        assert "is_passing" not in found


def test_the_queue_tells_when_it_could_start(host: Host, eventually: Callable[..., Any]) -> None:
    host.submit("sleep 600", job_id="runs", gpus=3, time_limit_s=100.0)
    host.wait("runs", state="RUNNING")
    asked = asked_at(host.job("runs").path)
    # Its dispatcher has not shown it to all of the host yet, perhaps.
    host.submit("sleep 600", job_id="waits", gpus=4, time_limit_s=1000.0)
    wide, short, urgent, runs, waits, endless = ask(
        host,
        job("wide", gpus=2),
        job("short", time_limit_s=20.0),
        job("urgent", gpus=2, priority="high"),
        job("runs", gpus=3),
        job("waits", gpus=4),
        job("endless"),
    )
    # The time limits, their grace of 1 s, and 5 s for an end.
    assert 1050 < wide["starts_in_s"] < 1112
    assert (wide["start_known_by"], wide["free_gpus"], wide["waiting"]) == ("queue", 1, 1)
    assert (short["starts_in_s"], short["start_known_by"]) == (0, "free now")
    assert 50 < urgent["starts_in_s"] < 106
    assert urgent["waiting"] == 0
    assert endless["starts_in_s"] == wide["starts_in_s"]
    assert "placed" not in wide
    assert runs["placed"]["status"]["state"] == protocol.RUNNING
    assert waits["placed"]["status"]["state"] == protocol.QUEUED
    # It is asked about itself, and does not wait behind itself.
    assert (waits["waiting"], waits["starts_in_s"]) == (0, urgent["starts_in_s"])
    assert asked_at(host.job("runs").path) == asked
    # Nobody knows when this one ends.
    host.submit("sleep 600", job_id="for-ever", priority="high")
    host.wait("for-ever", state="RUNNING")
    unknown, known = ask(host, job(gpus=4), job(gpus=3, priority="high"))
    assert "starts_in_s" not in unknown
    assert 50 < known["starts_in_s"] < 106


def test_what_is_promised_counts_as_taken(host: Host) -> None:
    engine, wanted = host.engine, Spec(gpus=2, time_limit_s=60.0)

    def free(*promises: Promise) -> bool:
        return appraisal.is_free_now(host.root, engine, wanted, promised=promises)

    one, three = Promise("one", 1, None), Promise("three", 3, None, 60.0)
    assert free()
    assert free(one, one._replace(job_id="two"))
    assert not free(three)
    assert not free(three._replace(gpu_type="virt", time_limit_s=None, priority="high"))
    # What cannot be one keeps nobody away.
    assert free(Promise("odd", 0, None, priority="odd"))
    (found,) = engine.prospects([Wanted(wanted)], [three], within_s=1.0)
    assert (found["free_gpus"], found["waiting"], round(found["starts_in_s"])) == (1, 1, 60)
    (itself,) = engine.prospects([Wanted(wanted, "three")], [three], within_s=1.0)
    assert (itself["waiting"], itself["starts_in_s"]) == (0, 0)
    with pytest.raises(Refused, match="gpus is 'x'"):
        appraisal.is_free_now(host.root, engine, {"gpus": "x"}, promised=[])  # type: ignore[typeddict-item]


def test_what_is_known_of_the_job_itself(host: Host) -> None:
    placement: Placement = {"epoch": 3, "key": "k", "conn_id": "gpu02"}
    os.makedirs(os.path.join(host.root.own, "placements"), exist_ok=True)
    note_placement(host.root, new_note("elsewhere", placement, FENCE, None))
    note_placement(host.root, new_note("spoilt", placement, FENCE, None))
    (path,) = (path for path in Path(host.root.own).rglob("spoilt.json"))
    path.write_text("[")
    engine, elements = host.engine, ["array_0", "array_1"]
    for job_id in elements:
        host.submit("sleep 600", job_id=job_id)
    host.job("array").create()
    keep_elements(host.job("array"), elements)
    for job_id in elements:
        os.unlink(host.job(job_id).at(".job", "asked"))
    elsewhere, spoilt, array = ask(host, job("elsewhere"), job("spoilt"), job("array"))
    assert (elsewhere["placed"]["placement"]["epoch"], elsewhere["placed"]["kind"]) == (3, FENCE)
    # It is not taken for a job of which nothing is here.
    assert spoilt["placed"]["status"]["state"] == protocol.UNKNOWN
    assert "remove it" in spoilt["placed"]["status"]["message"]
    assert len(array["placed"]["status"]["elements"]) == 2
    assert not [job_id for job_id in elements if asked_at(host.job(job_id).path) is not None]
    status.statuses(host.root, engine, ["array"], 0)
    assert all(asked_at(host.job(job_id).path) for job_id in elements)


def test_broken_gpus_instances_and_a_silent_driver(
    cluster_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = FakeNvidiaSmi(tmp_path / "fake-nvidia-smi")
    monkeypatch.setenv("PATH", f"{fake.folder}:{os.environ['PATH']}")
    host = Host(cluster_folder, virtual_gpus=None)
    count = len(A100.splitlines())
    fake.says(gpus=A100 + "Unable to determine the device handle for GPU 0000:3B:00.0: GPU is lost.\n")
    all_of_them, one = ask(host, job(gpus=count + 1), job())
    # It waits for the repair.
    assert (all_of_them["fits"], "starts_in_s" in all_of_them) == (True, False)
    assert "does not work" in all_of_them["remark"]
    assert (one["gpus"], one["starts_in_s"]) == (count, 0)
    fake.says(**divided())
    whole, small, several = ask(host, job(), job(gpus=2, gpu_type="1g.10gb"), job(gpus=2, gpu_type="80GB"))
    assert [(found["gpus"], found["free_gpus"], found["starts_in_s"]) for found in (whole, small)] == [
        (1, 1, 0),
        (2, 2, 0),
    ]
    assert "a process can use only one MIG instance" in several["why_not"]
    fake.says(gpus="", then="echo the driver is silent; exit 9")
    (silent,) = ask(host, job())
    assert (silent["fits"], silent["is_passing"]) == (False, True)
    assert "nvidia-smi failed" in silent["why_not"]


def test_many_alike_cost_what_one_costs(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    prospects = HostEngine.prospects

    def counted(engine: HostEngine, wanted: Sequence[Any], promises: Sequence[Any], **more: Any) -> Any:
        asked.append(len(wanted))
        return prospects(engine, wanted, promises, **more)

    monkeypatch.setattr(HostEngine, "prospects", counted)
    jobs = [job(f"job-{number}", env={"N": str(number)}, script_args=[str(number)]) for number in range(1000)]
    began = time.perf_counter()
    found = ask(host, *jobs)
    assert time.perf_counter() - began < 10
    assert asked == [1]
    assert len(found) == 1000
    with pytest.raises(Refused, match="10,000 jobs are asked about at once, and at most 1,000 can be"):
        ask(host, *jobs * 10)


# -- what it needs besides -------------------------------------------------------------------------------------------


def test_what_has_to_be_sent(host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    worker = tmp_path / "worker"
    (worker / "code").mkdir(parents=True)
    (worker / "code" / "train.py").write_text("print(1)\n")
    (worker / "data.bin").write_bytes(os.urandom(3_000_000))
    wanted = sources(worker, code="code", data=["data.bin"])
    inputs, sizes = [source.to_json() for source in wanted], [9, 3_000_000]
    git = {"type": "git", "kind": "models", "name": "x", "written": "git+x", "url": "https://h/x", "ref": None}
    nothing_known, told, git_too = ask(
        host,
        job(inputs=inputs),
        job(inputs=inputs, input_bytes=sizes),
        job(inputs=[*inputs, git], input_bytes=[*sizes, None]),
    )
    assert "missing_bytes" not in nothing_known
    assert told["missing_bytes"] == git_too["missing_bytes"] == 3_000_009
    other = host.job("other")
    other.create()
    stage(other, *wanted)
    contents = sorted(path for path in Path(host.root.cache).rglob("*") if path.is_file())
    (all_here,) = ask(host, job(inputs=inputs))
    assert all_here["missing_bytes"] == 0
    with monkeypatch.context() as patch:
        # A list that is too long to be read in a moment: it has been here once, and more is not known.
        patch.setattr(lacking, "_MOST_BYTES_OF_ROWS", 10)
        assert "missing_bytes" not in ask(host, job(inputs=inputs, input_bytes=sizes))[0]
    # A large content has gone since, and a part of it has come again.
    (large,) = [path for path in contents if path.stat().st_size == 3_000_000]
    large.unlink()
    (gone,) = ask(host, job(inputs=inputs))
    assert gone["missing_bytes"] == 3_000_000
    (in_place,) = ask(host, job("other", inputs=inputs))
    assert in_place["missing_bytes"] == 0
    assert not host.job("new").exists()
    assert sorted(path for path in Path(host.root.cache).rglob("*") if path.is_file()) == [
        path for path in contents if path != large
    ]


def test_a_source_that_must_be_here_and_is_not(host: Host, tmp_path: Path) -> None:
    there = tmp_path / "there"
    there.mkdir()

    def at(path: Path) -> dict[str, str]:
        return {"type": "cluster", "kind": "data", "name": "x", "written": f"cluster:{path}", "path": str(path)}

    here, gone, staged = ask(host, job(inputs=[at(there)]), job(inputs=[at(tmp_path / "gone")]), job(inputs=None))
    assert here["fits"]
    assert here["missing_bytes"] == 0
    assert (gone["fits"], staged["fits"]) == (False, False)
    assert f"{tmp_path}/gone on the cluster: No such file or directory" in gone["why_not"]
    assert f"there is no {host.root.path}/new" in staged["why_not"]


def test_how_fast_inputs_came_lately(host: Host) -> None:
    line: Any = {"kind": "transfer", "at": records.now(), "job_id": "x", "direction": "in", "seconds": 2.0}
    assert "bytes_per_s" not in ask(host, job())[0]
    ledger = Ledger(host.root.own)
    others: list[Any] = [{"bytes": 8 << 20}, {"bytes": 1 << 20, "direction": "out"}, {"bytes": 1000}, {"bytes": "x"}]
    for more in [*others, {"bytes": 4 << 20, "seconds": 0}]:
        written: Any = {**line, **more}
        ledger.append(written)
    with open(os.path.join(ledger.folder, ledger.months()[-1]), "a") as file:
        file.write('{"kind": "transfer", "torn\n')
    assert ask(host, job())[0]["bytes_per_s"] == 4 << 20


def test_a_start_that_nobody_knows_is_likely_when_jobs_that_have_no_limit_took_as_long_as_others(host: Host) -> None:
    host.submit("sleep 600", job_id="for-ever", gpus=3)
    host.wait("for-ever", state="RUNNING")
    (found,) = ask(host, job(gpus=4))
    assert not found.keys() & {"starts_in_s", "likely_in_s"}
    ledger = Ledger(host.root.own)
    ends: list[Any] = [{"leased_s": 900.0}, {"leased_s": 300.0}, {"leased_s": 0.0}, {"leased_s": "x"}, {}]
    line: Any = {"kind": "end", "at": records.now(), "job_id": "x"}
    for end in ends:
        line.pop("leased_s", None)
        line.update(end)
        ledger.append(line)
    (found,) = ask(host, job(gpus=4))
    assert "starts_in_s" not in found
    assert 590 < found["likely_in_s"] <= 600
    # It fits beside that one.
    (known,) = ask(host, job())
    assert known["starts_in_s"] == 0
    assert "likely_in_s" not in known


def test_whether_its_environment_is_built(host: Host, tmp_path: Path) -> None:
    worker = tmp_path / "worker"
    (worker / "code").mkdir(parents=True)
    (worker / "code" / "requirements.txt").write_text("six\n")
    inputs = [source.to_json() for source in sources(worker, code="code")]
    jobs = [job(requirements="six\n"), job(), job(inputs=inputs), job(requirements="-r base.txt")]

    def built() -> list[bool | None]:
        return [found.get("is_environment_built") for found in ask(host, *jobs)]

    # What code needs that nobody here has seen is not known.
    assert built() == [False, None, None, False]
    other = host.job("other")
    other.create()
    stage(other, *sources(worker, code="code"))
    assert built() == [False, None, False, False]
    parts = python_environment.wanted("six\n", "", None, str(worker / "code"))
    assert parts is not None
    folder = Path(host.root.cache, "environments", "some")
    folder.mkdir(parents=True)
    records.write_json(str(folder / "built.json"), {"path": str(folder), "group": python_environment.group(parts)})
    (folder.parent / "spoilt").mkdir()
    (folder.parent / "spoilt" / "built.json").write_text("[")
    assert built() == [True, None, True, False]


def test_a_full_disk_says_how_much_is_free_and_how_much_is_needed(tmp_path: Path) -> None:
    upload = {"type": "upload", "kind": "data", "name": "x", "written": "x", "digest": "d", "single_file": False}
    with small_disk(tmp_path / "disk", 20_000) as disk:
        host = Host(disk)
        enough, too_much = ask(host, job(), job(inputs=[upload], input_bytes=[10 << 30]))
        assert enough["fits"]
        assert "it needs 21,479.0 MB in" in too_much["why_not"]
        fill(disk, leave_kb=500)
        (full,) = ask(host, job())
        assert (full["fits"], full["is_passing"]) == (False, True)
        assert "it needs 4.2 MB in" in full["why_not"]
        assert "there is room for 0.5 MB" in full["why_not"]


# -- budgets ---------------------------------------------------------------------------------------------------------


def test_a_budget_that_is_used_up_keeps_it_from_starting(cluster_folder: Path) -> None:
    line: Any = {"kind": "end", "at": records.now(), "job_id": "x", "dag_id": "nightly", "user": "ada"}
    line.update(state="SUCCEEDED", gpus=2, leased_s=1.0, gpu_seconds=7200.0)
    asked = job(record={"dag_id": "nightly"})
    for over_budget in ("wait", "refuse"):
        host = Host(cluster_folder, conn_id="gpu", gpu_hours_budget={"dag:nightly": 2}, over_budget=over_budget)
        if over_budget == "wait":
            assert ask(host, asked)[0]["starts_in_s"] == 0
            Ledger(host.root.own).append(line)
        mine, others = ask(host, asked, job(record={"dag_id": "other"}))
        assert (others["fits"], others["starts_in_s"]) == (True, 0)
        if over_budget == "wait":
            assert (mine["fits"], mine["start_known_by"]) == (True, "budget")
            assert 0 < mine["starts_in_s"] < 31 * 86400
            assert "is used up: 2 of 2" in mine["remark"]
        else:
            assert not mine["fits"]
            assert "is used up: 2 of 2" in mine["why_not"]


# -- requests that are none ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("jobs", "said"),
    [
        (None, "jobs is None, and not a list"),
        ([7], "a job is 7"),
        ([{"job_id": "x"}], "spec is None"),
        ([job(gpus=0)], "gpus is 0, and not a whole number from 1 up"),
        ([job(gpus="4")], "gpus is '4'"),
        ([job(gpus=True)], "gpus is True"),
        ([job(gpus=10**30)], "gpus is 1000"),
        ([job(nodes=-1)], "nodes is -1"),
        ([job(time_limit_s=float("nan"))], "time_limit_s is nan"),
        ([job(time_limit_s="1h")], "time_limit_s is '1h'"),
        ([job(gpu_type=["a"])], "gpu_type is"),
        ([job(gpu_type="a\0")], "gpu_type is"),
        ([job(priority="urgent")], "priority is 'urgent', and not one of high, normal, low"),
        ([job(sbatch_options="--mem=1")], "sbatch_options is"),
        ([job(inputs=["x"])], "an input is 'x'"),
        ([job(inputs=[{"type": "cluster", "kind": "data", "name": "x", "written": "x"}])], "path of an input is None"),
        ([job(inputs=[{"type": "upload", "kind": "..", "name": "x", "written": "x", "digest": "d"}])], "cannot become"),
        ([job(input_bytes=["1"])], "input_bytes is"),
        ([job("../x")], "is no job id"),
        ([{**job(), "record": 7}], "record is 7"),
    ],
)
def test_what_is_no_job_is_refused_in_a_sentence(host: Host, jobs: Any, said: str) -> None:
    with pytest.raises(Refused, match=said) as refused:
        appraisal.answer(host.root, host.engine, {"jobs": jobs, "settings": host.settings})
    assert refused.value.code == protocol.BAD_REQUEST


def test_the_program_answers(host: Host) -> None:
    done = subprocess.run(
        [sys.executable, "-I", "-S", host.program, "appraise"],
        input=json.dumps({"jobs": [job(), job(gpus=9)], "settings": host.settings}).encode() + b"\n",
        capture_output=True,
        check=True,
    )
    reply = json.loads(done.stdout.splitlines()[-1])["ok"]
    assert [found["fits"] for found in reply["jobs"]] == [True, False]
