"""The elements of an array as their records tell them, for a table that compares them."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, cast

import pytest

from airflow_provider_gpu_cluster.gpu_run import protocol
from airflow_provider_gpu_cluster.gpu_run.errors import Refused
from airflow_provider_gpu_cluster.gpu_run.jobs import elements as elements_module
from airflow_provider_gpu_cluster.gpu_run.jobs.elements import list_elements
from airflow_provider_gpu_cluster.gpu_run.protocol.masks import masks_of
from airflow_provider_gpu_cluster.gpu_run.store import arrays, records
from airflow_provider_gpu_cluster.gpu_run.store.directories import Attempt, Root

SECRET = "s3cret-of-ada"
CLAIM = {"by": "supervisor", "at": "2026-01-01T00:00:00.000+00:00", "gpus": [{"index": 3, "key": "k"}], "host": "gpu1"}


@pytest.fixture
def root(tmp_path: Path) -> Root:
    """A root with an array of six elements, each in a state of its own."""
    root = Root(str(tmp_path / "root"))
    array = root.job("array")
    array.create()
    arrays.keep_elements(array, [f"array_{index}" for index in range(6)])
    running, failed, waiting, succeeded, cancelled = (element(root, index) for index in range(5))
    records.write_json(running.at("claim.json"), {**CLAIM, "pid": 1, "start": 1, "boot": "b"})
    Path(running.job.at("logs", "progress.jsonl")).write_text(
        json.dumps({"step": 3, "total": 10, "key": SECRET}) + "\n"
    )
    ends(failed, protocol.FAILED, "user_error", f"no {SECRET}")
    assert waiting.claimed() is None
    ends(succeeded, protocol.SUCCEEDED, None, "")
    Path(succeeded.job.at("outputs", "metrics.json")).write_text('{"loss": 0.25, "nan": NaN}')
    end = {"state": "CANCELLED", "reason": "cancelled", "message": "by ada"}
    records.write_json(cancelled.at("claim.json"), {**CLAIM, "pid": 1, "start": 1, "boot": "b", "end": end})
    return root


def element(root: Root, index: int) -> Attempt:
    job = root.job(f"array_{index}")
    job.create()
    request = {
        "spec": {"script_args": ["--lr", f"0.{index}", "--key", SECRET]},
        "requested_at": "2026-01-01T00:00:00.000+00:00",
        "by": {},
        "masks": masks_of([SECRET]),
    }
    records.write_json(job.spec, {"environment_names": ["SEED"]})
    attempt = job.add_attempt(1, cast(Any, request), {})
    assert attempt is not None
    return attempt


def ends(attempt: Attempt, state: str, reason: str | None, message: str) -> None:
    end = {"state": state, "reason": reason, "message": message, "exit_code": 1, "started_at": "a", "ended_at": "b"}
    records.write_json(attempt.at("exit.json"), end)


def look(root: Root, **request: Any) -> dict[str, Any]:
    return dict(list_elements(root, cast(Any, {"job_id": "array", **request})))


def files(root: Root) -> list[tuple[str, int]]:
    return sorted(
        (os.path.join(where, name), os.lstat(os.path.join(where, name)).st_mtime_ns)
        for where, _, names in os.walk(root.path)
        for name in names
    )


def test_what_is_told_of_each(root: Root) -> None:
    before = files(root)
    reply = look(root)
    assert files(root) == before
    running, failed, waiting, succeeded, cancelled, gone = reply["elements"]
    assert [one["state"] for one in reply["elements"]] == [
        "RUNNING",
        "FAILED",
        "QUEUED",
        "SUCCEEDED",
        "CANCELLED",
        "LOST",
    ]
    assert (reply["size"], reply["next"]) == (6, None)
    assert (running["index"], running["job_id"], running["gpus"], running["host"]) == (0, "array_0", [3], "gpu1")
    assert running["progress"] == {"step": 3, "total": 10, "key": "***"}
    assert running["started_at"] == CLAIM["at"]
    assert (failed["reason"], failed["message"], failed["exit_code"]) == ("user_error", "no ***", 1)
    assert waiting["arguments"] == ["--lr", "0.2", "--key", "***"]
    assert waiting["env_names"] == ["SEED"]
    assert (succeeded["metrics"], succeeded["metric_count"]) == ({"loss": 0.25, "nan": "NaN"}, 2)
    assert (cancelled["reason"], cancelled["message"]) == ("cancelled", "by ada")
    assert gone["index"] == 5
    assert SECRET not in json.dumps(reply)


def test_failed_ones_first_in_pages(root: Root) -> None:
    found: list[dict[str, Any]] = [look(root, failed_first=True, limit=4)]
    found.append(look(root, failed_first=True, limit=4, offset=found[0]["next"]))
    assert [one["index"] for page in found for one in page["elements"]] == [1, 5, 4, 0, 2, 3]
    assert found[1]["next"] is None
    assert found[0]["counts"] == dict.fromkeys(("RUNNING", "FAILED", "QUEUED", "SUCCEEDED", "CANCELLED", "LOST"), 1)
    assert [one["index"] for one in look(root, indexes=[4, 99, -1, 0])["elements"]] == [4, 0]


def test_a_reply_has_limits(root: Root, monkeypatch: pytest.MonkeyPatch) -> None:
    Path(root.job("array_0").at("outputs", "metrics.json")).write_text(
        json.dumps({f"m{number}": "x" * 1000 for number in range(900)})
    )
    (one,) = look(root, indexes=[0])["elements"]
    assert (len(one["metrics"]), one["metric_count"]) == (200, 900)
    monkeypatch.setattr(elements_module, "_MOST_CHARACTERS", 2000)
    page = look(root, failed_first=True, offset=3)
    assert (len(page["elements"]), page["next"]) == (1, 4)


@pytest.mark.parametrize("name", ["request.json", "exit.json", "claim.json", "../../spec.json"])
@pytest.mark.parametrize("content", ["{", "[]", '{"spec": 7, "state": ["x"], "gpus": 7, "by": 1}', "{}"])
def test_an_element_may_have_written_anything(root: Root, name: str, content: str) -> None:
    attempt = root.job("array_2").attempt(1)
    Path(attempt.at(name)).write_text(content)
    reply = look(root, failed_first=True)
    assert len(reply["elements"]) == 6
    assert {one["index"]: one["state"] for one in reply["elements"]}[3] == "SUCCEEDED"
    json.dumps(reply, allow_nan=False)


def test_arguments_of_a_command(root: Root) -> None:
    attempt = root.job("array_2").attempt(1)
    request: Any = attempt.request()
    for command, arguments in (
        (f"python x.py --name 'a b' --key '{SECRET}'", ["python", "x.py", "--name", "a b", "--key", "***"]),
        ("echo 'unclosed", None),
    ):
        records.write_json(attempt.at("request.json"), {**request, "spec": {"command": command}})
        (one,) = look(root, indexes=[2])["elements"]
        assert one.get("arguments") == arguments
        assert SECRET not in json.dumps(one)


@pytest.mark.parametrize("job_id", ["nope", "array_0"])
def test_no_array(root: Root, job_id: str) -> None:
    with pytest.raises(Refused) as caught:
        look(root, job_id=job_id)
    assert caught.value.code == protocol.NO_SUCH_JOB
