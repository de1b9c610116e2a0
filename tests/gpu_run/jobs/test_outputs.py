"""What somebody who looks at a job's outputs is told: page by page, part by part, and without its secrets."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import re
from pathlib import Path
from typing import Any, cast

import pytest

from airflow_provider_gpu_cluster.gpu_run import protocol
from airflow_provider_gpu_cluster.gpu_run.errors import Refused
from airflow_provider_gpu_cluster.gpu_run.jobs import output_list
from airflow_provider_gpu_cluster.gpu_run.jobs.final_metrics import final_metrics
from airflow_provider_gpu_cluster.gpu_run.jobs.output_list import list_outputs
from airflow_provider_gpu_cluster.gpu_run.jobs.output_reading import answer_send, read_output
from airflow_provider_gpu_cluster.gpu_run.protocol.looks import MOST_METRICS, SLICE_BYTES
from airflow_provider_gpu_cluster.gpu_run.protocol.masks import masks_of
from airflow_provider_gpu_cluster.gpu_run.store import arrays
from airflow_provider_gpu_cluster.gpu_run.store.directories import Root

SECRET = "s3cret-of-ada"


@pytest.fixture
def root(tmp_path: Path) -> Root:
    """A root with a job that has a secret."""
    root = Root(str(tmp_path / "root"))
    job = root.job("job")
    job.create()
    assert job.add_attempt(1, cast(Any, {"spec": {}, "by": {}, "masks": masks_of([SECRET])}), {})
    return root


@pytest.fixture
def folder(root: Root) -> Path:
    return Path(root.job("job").at("outputs"))


def tree(path: str) -> dict[str, tuple[int, int]]:
    """Return what is in a folder, and when it was last changed."""
    found = [Path(where, name).lstat() for where, dirs, files in os.walk(path) for name in dirs + files]
    return {str(number): (one.st_ino, one.st_mtime_ns) for number, one in enumerate(found)}


def pages(root: Root, job_id: str = "job", **request: Any) -> list[Any]:
    """Return all pages of a list, in their order."""
    found: list[Any] = [list_outputs(root, cast(Any, {"job_id": job_id, **request}))]
    while found[-1]["next"] is not None:
        found.append(list_outputs(root, cast(Any, {"job_id": job_id, **request, "after": found[-1]["next"]})))
    return found


def kinds(root: Root, job_id: str = "job", **request: Any) -> dict[str, str]:
    return {one["path"]: one["kind"] for page in pages(root, job_id, **request) for one in page["outputs"]}


def read(root: Root, path: str, job_id: str = "job", **more: Any) -> Any:
    return read_output(root, cast(Any, {"job_id": job_id, "path": path, **more}))


# -- the list ----------------------------------------------------------------------------------------------------


def test_a_list_says_what_there_is(root: Root, folder: Path) -> None:
    (folder / "sub").mkdir()
    (folder / "sub" / "model.pt").write_bytes(b"weights")
    (folder / "big").write_bytes(bytes(300_000))
    (folder / "out").symlink_to("/etc/passwd")
    (folder / "in").symlink_to("sub/model.pt")
    (folder / "gone").symlink_to("nowhere")
    os.mkfifo(folder / "pipe")
    before = tree(root.path)
    (page,) = pages(root)
    assert tree(root.path) == before
    found = {one["path"]: one for one in page["outputs"]}
    checksum = hashlib.sha256(b"weights").hexdigest()
    assert {path: one["kind"] for path, one in found.items()} == {
        "sub/model.pt": "file",
        "big": "file",
        "out": "outside",
        "in": "file",
        "gone": "broken",
        "pipe": "special",
    }
    assert (found["sub/model.pt"]["size"], found["sub/model.pt"]["sha256"]) == (7, checksum)
    assert found["in"]["target"] == "sub/model.pt"
    assert "sha256" not in found["big"]
    assert found["big"]["modified_at"].endswith("+00:00")
    assert page["totals"] == {"files": 3, "bytes": 300_014, "is_whole": True}


def test_pages_meet_everything_once(root: Root, folder: Path) -> None:
    names = sorted(["x" * 200, "new\nline", "rtl\u202etxt.exe", os.fsdecode(b"\xff\xfe"), *map(str, range(20))])
    for name in names:
        (folder / name).touch()
    found = pages(root, limit=7)
    assert [one["path"] for page in found for one in page["outputs"]] == names
    assert [len(page["outputs"]) for page in found] == [7, 7, 7, 3]
    assert [page.get("totals", {}).get("files") for page in found] == [24, None, None, None]
    json.dumps(found).encode("ascii")


def test_a_filter_and_a_page_that_takes_too_long(root: Root, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(30):
        (folder / f"Part-{number:02}").touch()
    assert list(kinds(root, contains="PART-1")) == [f"Part-{number}" for number in range(10, 20)]
    monkeypatch.setattr(output_list, "_PAGE_S", -1.0)
    monkeypatch.setattr(output_list, "_COUNT_S", -1.0)
    found = pages(root, contains="part-1")
    assert len(found) == 30
    assert [one["path"] for page in found for one in page["outputs"]] == [f"Part-{number}" for number in range(10, 20)]
    assert found[0]["totals"]["is_whole"] is False


def test_long_paths_make_short_pages(root: Root, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output_list, "_MOST_CHARACTERS", 1000)
    for number in range(20):
        (folder / f"{number:0200}").touch()
    assert [len(page["outputs"]) for page in pages(root)] == [5, 5, 5, 5]


def test_the_outputs_of_an_array_are_those_of_its_elements(root: Root) -> None:
    array = root.job("array")
    array.create()
    arrays.keep_elements(array, [f"array_{index}" for index in range(12)])
    for index in (0, 2, 10, 11):
        element = root.job(f"array_{index}")
        element.create()
        Path(element.at("outputs", "metrics.json")).write_text(f"{index}")
    found = pages(root, "array", limit=1)
    assert [one["path"] for page in found for one in page["outputs"]] == [
        f"{index}/metrics.json" for index in (0, 2, 10, 11)
    ]
    assert found[0]["is_array"] is True
    assert found[0]["totals"] == {"files": 4, "bytes": 6, "is_whole": True}
    assert base64.b64decode(read(root, "11/metrics.json", "array")["data"]) == b"11"
    for path in ("metrics.json", "12/metrics.json", "99999999/x", "-1/x", "1/metrics.json", ""):
        with pytest.raises(Refused):
            read(root, path, "array")


def test_without_its_masks_nothing_of_a_job_is_told(root: Root, folder: Path) -> None:
    (folder / SECRET).touch()
    (folder / "metrics.json").write_text("{}")
    attempt = root.job("job").attempts()[-1]
    Path(attempt.at("request.json")).write_text("[]")
    for look in (
        lambda: pages(root),
        lambda: read(root, SECRET, as_text=True),
        lambda: final_metrics(root, root.job("job")),
    ):
        with pytest.raises(Refused, match="which secrets job job has is unknown"):
            look()
    array = root.job("array")
    array.create()
    arrays.keep_elements(array, ["job", "other"])
    root.job("other").create()
    Path(root.job("other").at("outputs", "x")).touch()
    assert kinds(root, "array", limit=1) == {"0/": "unknown", "1/x": "file"}


def test_a_name_with_a_secret_is_not_told(root: Root, folder: Path) -> None:
    for name in ("a", f"key-{SECRET}.txt", "z"):
        (folder / name).touch()
    (folder / "link").symlink_to(f"/home/{SECRET}")
    for limit in (1, 2, 3, 9):
        assert kinds(root, limit=limit) == {"a": "file", "key-***.txt": "secret", "link": "outside", "z": "file"}
        assert SECRET not in json.dumps(pages(root, limit=limit))


@pytest.mark.parametrize("job_id", ["nope", "array"])
def test_no_such_job(root: Root, job_id: str) -> None:
    for look in (list_outputs, read_output, lambda root, request: final_metrics(root, root.job(request["job_id"]))):
        with pytest.raises(Refused) as caught:
            look(root, cast(Any, {"job_id": job_id, "path": "x"}))
        assert caught.value.code == protocol.NO_SUCH_JOB


# -- an output ---------------------------------------------------------------------------------------------------


def test_a_file_in_parts(root: Root, folder: Path) -> None:
    content = os.urandom(2 * SLICE_BYTES + 7)
    (folder / "model").write_bytes(content)
    first = read(root, "model", size=1 << 40, checksum=True)
    data = base64.b64decode(first["data"])
    while len(data) < first["size"]:
        data += base64.b64decode(read(root, "model", offset=len(data), stamp=first["stamp"])["data"])
    assert data == content
    assert first["sha256"] == hashlib.sha256(content).hexdigest()
    (folder / "model").write_bytes(content[:-1])
    with pytest.raises(Refused, match="'model' of job has changed"):
        read(root, "model", offset=5, stamp=first["stamp"])
    assert "data" not in read(root, "model", size=0)


@pytest.mark.parametrize(
    "path", ["../../../etc/passwd", "/etc/passwd", "", "a\0b", "out", "pipe", "sub", "gone", "x" * 5000]
)
def test_what_is_no_output_is_refused(root: Root, folder: Path, path: str) -> None:
    (folder / "out").symlink_to("/etc/passwd")
    (folder / "sub").mkdir()
    os.mkfifo(folder / "pipe")
    for look in (lambda: read(root, path), lambda: answer_send(root, {"job_id": "job", "path": path})):
        with pytest.raises(Refused) as caught:
            look()
        assert caught.value.code == protocol.UNSAFE_OUTPUT


@pytest.mark.parametrize("size", [1, 7, 64, 1000])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_a_text_in_parts_has_whole_characters_and_no_secret(root: Root, folder: Path, size: int, encoding: str) -> None:
    text = f"größe 🚀 {SECRET}\nend {SECRET}{SECRET} x\n"
    (folder / "notes").write_bytes(text.encode(encoding))
    parts = []
    end = 0
    while end < (folder / "notes").stat().st_size:
        part = read(root, "notes", as_text=True, offset=end, size=max(size, 8))
        assert part["end"] > end
        assert SECRET not in part["text"]
        assert "data" not in part
        parts.append(part["text"])
        end = part["end"]
    shown = "".join(parts)
    assert shown.startswith("größe 🚀 ***")
    assert shown.endswith(" x\n")
    assert not set(shown) & set("�\ufeff")
    for length in range(5, len(SECRET)):
        assert SECRET[:length] not in shown


def test_a_part_does_not_tell_the_beginning_of_a_secret(root: Root, folder: Path) -> None:
    (folder / "notes").write_text(f"0123{SECRET}789")
    for size in range(1, 30):
        text = read(root, "notes", as_text=True, size=size)["text"]
        assert (
            text == "0123"[:size] + ("***" if size >= 4 + len(SECRET) else "") + "789"[: max(0, size - 4 - len(SECRET))]
        )


def test_what_is_no_text(root: Root, folder: Path) -> None:
    (folder / "model").write_bytes(b"\x89PNG\r\n\x1a\n\0\0" + bytes(100))
    found = read(root, "model", as_text=True)
    assert "text" not in found
    assert base64.b64decode(found["head"]).startswith(b"\x89PNG")
    (folder / "latin").write_bytes("größe".encode("latin-1"))
    assert read(root, "latin", as_text=True)["text"] == "gr��e"


def test_a_file_is_sent_whole_or_its_checksum(root: Root, folder: Path) -> None:
    content = os.urandom(3 << 20)
    (folder / "model").write_bytes(content)
    reply = answer_send(root, {"job_id": "job", "path": "model"})
    assert reply.value["size"] == len(content)
    out = io.BytesIO()
    assert reply.body is not None
    reply.body(out)
    lines = out.getvalue()
    assert lines.startswith(b'{"file": 0, "size": 3145728')
    assert lines.endswith(b'{"sha256": "%s"}\n{"end": 1}\n' % hashlib.sha256(content).hexdigest().encode())
    out = io.BytesIO()
    reply = answer_send(root, {"job_id": "job", "path": "model", "only_checksum": True})
    assert reply.body is not None
    reply.body(out)
    assert json.loads(out.getvalue()) == {"sha256": hashlib.sha256(content).hexdigest()}


# -- metrics -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "metrics"),
    [
        (
            '{"loss": 0.5, "test": {"acc": 1, "by": {"x": true}}, "curve": [1, 2]}',
            {"loss": 0.5, "test.acc": 1, "test.by.x": True},
        ),
        ('{"a": NaN, "b": -Infinity, "c": 1e999}', {"a": "NaN", "b": "-Infinity", "c": "Infinity"}),
        ('{"n": 123456789012345678901234567890, "note": null}', {"n": 1.2345678901234568e29}),
        (json.dumps({"key": SECRET, SECRET: 1}), {"key": "***", "***": 1}),
        ("{}", {}),
    ],
)
def test_final_metrics(root: Root, folder: Path, content: str, metrics: dict[str, Any]) -> None:
    (folder / "metrics.json").write_text(content)
    assert final_metrics(root, root.job("job")) == {"metrics": metrics, "count": len(metrics)}


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"[1]", "holds no JSON object"),
        (b"{", "is not JSON"),
        (b"[" * 100_000, "nested too deeply|not JSON"),
        (b"\xff", "is not JSON"),
        (b"9" * 5000, "is not JSON"),
        (b" " * (1 << 20) + b"{}", "more than 1,048,576"),
    ],
    ids=lambda value: repr(value)[:20],
)
def test_what_is_no_metrics(root: Root, folder: Path, content: bytes, problem: str) -> None:
    (folder / "metrics.json").write_bytes(content)
    assert re.search(problem, final_metrics(root, root.job("job"))["problem"])


def test_many_metrics_and_none(root: Root, folder: Path) -> None:
    assert final_metrics(root, root.job("job")) == {}
    (folder / "metrics.json").symlink_to("/etc/passwd")
    assert "metrics.json" in final_metrics(root, root.job("job"))["problem"]
    (folder / "metrics.json").unlink()
    (folder / "metrics.json").write_text(json.dumps({f"m{number}": number for number in range(10_000)}))
    found = final_metrics(root, root.job("job"))
    assert (len(found["metrics"]), found["count"]) == (MOST_METRICS, 10_000)
