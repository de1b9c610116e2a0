"""The outputs of a job in a browser: whatever their names and contents are, they are data, and nothing acts."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import struct
import zlib
from pathlib import Path
from typing import Any, cast

import pytest
from fastapi.testclient import TestClient

from airflow_provider_gpu_cluster.cluster import Cluster
from airflow_provider_gpu_cluster.gpu_run.protocol.masks import masks_of
from airflow_provider_gpu_cluster.gpu_run.store.directories import Root
from airflow_provider_gpu_cluster.jobs.handle import JobHandle
from airflow_provider_gpu_cluster.plugins import output_download
from airflow_provider_gpu_cluster.plugins.api import outputs
from tests.harness import jobs
from tests.plugins.api.collected_run import job_address
from tests.plugins.api.verbs_here import VerbsHere

HANDLE = JobHandle("job", "gpu_cluster_default", "/jobs/job", "host", "2026-01-02T03:04:05+00:00", 1)
SECRET = "s3cret-of-ada"


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Root:
    """A root with a job that has a secret; the API server asks it without SSH."""
    root = Root(str(tmp_path / "root"))
    job = root.job("job")
    job.create()
    assert job.add_attempt(1, cast(Any, {"spec": {}, "by": {}, "masks": masks_of([SECRET])}), {})
    verbs = VerbsHere(root)
    monkeypatch.setattr(outputs, "ask", verbs)
    monkeypatch.setattr(output_download, "ask", verbs)
    return root


@pytest.fixture
def folder(root: Root) -> Path:
    return Path(root.job("job").at("outputs"))


def png(width: int = 3, height: int = 2) -> bytes:
    """Return an image of pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = zlib.compress(b"".join(b"\0" + bytes(3 * min(width, 9)) for _ in range(min(height, 9))))
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


NAMES = [
    "plain.txt",
    "new\nline\r\n.txt",
    "rtl\u202etxt.exe",
    'quote"; filename=evil.html',
    "semi;colon%2f..%00",
    os.fsdecode(b"\xff\xfe.bin"),
    "ünï/ çode 🚀.csv",
    "<script>alert(1)</script>.html",
    "/".join(["d" * 250] * 14),
    " ",
    "...",
]


def test_hostile_names_are_listed_and_each_leads_to_its_file(browser: TestClient, folder: Path) -> None:
    for name in NAMES:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(os.fsencode(name))
    job = job_address(HANDLE)
    found: list[dict[str, Any]] = []
    page: dict[str, Any] = {"next": ""}
    while page["next"] is not None:
        page = browser.get(f"{job}/outputs", params={"limit": 3, "after": page["next"]}).json()
        found += page["outputs"]
    contents = set()
    for output in found:
        named = {"path_base64": output["path_base64"]} if output["path_base64"] else {"path": output["path"]}
        response = browser.get(f"{job}/outputs/file", params=named)
        assert response.status_code == 200, output
        contents.add(response.content)
        checksum = hashlib.sha256(response.content)
        assert output["sha256"] == checksum.hexdigest()
        assert response.headers["Repr-Digest"] == f"sha-256=:{base64.b64encode(checksum.digest()).decode()}:"
        is_attachment(response)
    assert contents == {os.fsencode(name) for name in NAMES}


def is_attachment(response: Any) -> None:
    """Check that nothing can act, and that the name under which a browser saves it harms nobody."""
    assert response.headers["Content-Type"] == "application/octet-stream"
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert "sandbox" in response.headers["Content-Security-Policy"]
    disposition = response.headers["Content-Disposition"]
    assert disposition.isascii()
    assert disposition.isprintable()
    assert disposition.startswith('attachment; filename="')
    assert disposition.count('"') == 2
    assert disposition.count(";") == 2
    assert not set(disposition.split('"')[1]) & set("/\\:%<>")
    assert len(disposition) < 2500


@pytest.mark.parametrize(
    "query",
    [
        {"path": "../../.job/spec.json"},
        {"path": "/etc/passwd"},
        {"path": "a\0b"},
        {"path": ""},
        {"path": "x" * 9000},
        {},
        {"path_base64": "*"},
        {"path_base64": "Li4veA=="},
    ],
)
@pytest.mark.parametrize("what", ["file", "preview", "image", "checksum"])
def test_what_is_no_path_is_refused(browser: TestClient, folder: Path, what: str, query: dict[str, str]) -> None:
    response = browser.get(f"{job_address(HANDLE)}/outputs/{what}", params=query)
    assert response.status_code == 422
    assert isinstance(response.json()["detail"], str)


@pytest.mark.parametrize("path", ["gone", "out", "pipe", "sub", "x" * 300])
def test_what_is_no_file_is_not_there(browser: TestClient, folder: Path, path: str) -> None:
    (folder / "out").symlink_to("/etc/passwd")
    (folder / "sub").mkdir()
    os.mkfifo(folder / "pipe")
    job = job_address(HANDLE)
    for what in ("file", "preview", "image", "checksum"):
        response = browser.get(f"{job}/outputs/{what}", params={"path": path})
        assert response.status_code == 404
        assert path in response.json()["detail"]
    kinds = {one["path"]: one["kind"] for one in browser.get(f"{job}/outputs").json()["outputs"]}
    assert kinds == {"out": "outside", "pipe": "special"}


def test_a_preview_says_what_it_is_and_hides_secrets(browser: TestClient, folder: Path) -> None:
    job = job_address(HANDLE)
    wide = ",".join(map(str, range(10_000))) + "\n"
    files = {
        "a.json": ('{"loss": NaN}', "json"),
        "a.csv": (wide, "table"),
        "a.svg": ("<svg onload='alert(1)'/>", "text"),
        "a.html": (f"<script>{SECRET}</script>", "text"),
        "a.png": ("<script>alert(1)</script>", "text"),
    }
    for name, (text, kind) in files.items():
        (folder / name).write_text(text)
        found = browser.get(f"{job}/outputs/preview", params={"path": name}).json()
        assert (found["kind"], found["text"]) == (kind, text.replace(SECRET, "***"))
        assert found["end"] == found["size"]
    (folder / "big.txt").write_text("é" * 300_000)
    found = browser.get(f"{job}/outputs/preview", params={"path": "big.txt"}).json()
    assert len(found["text"]) == found["end"] / 2 == 131_072
    more = browser.get(f"{job}/outputs/preview", params={"path": "big.txt", "offset": found["end"]}).json()
    assert len(more["text"]) == 131_072
    (folder / "model").write_bytes(b"\0\1")
    assert browser.get(f"{job}/outputs/preview", params={"path": "model"}).json()["kind"] == "binary"


@pytest.mark.parametrize(
    ("content", "status"),
    [
        (png(), 200),
        (b"GIF89a\1\0\1\0\0\0\0;", 200),
        (b"<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'/>", 415),
        (b"<html><script>alert(1)</script>", 415),
        (b"\x89PNG\r\n\x1a\n", 415),
        (png(100_000, 100_000), 413),
        (b"\x89PNG\r\n\x1a\n" + bytes(9 << 20), 413),
    ],
    ids=["png", "gif", "svg", "html", "cut", "pixels", "bytes"],
)
def test_only_images_of_pixels_are_shown(browser: TestClient, folder: Path, content: bytes, status: int) -> None:
    (folder / "curve.png").write_bytes(content)
    response = browser.get(f"{job_address(HANDLE)}/outputs/image", params={"path": "curve.png"})
    assert response.status_code == status
    if status == 200:
        assert response.content == content
        assert response.headers["Content-Type"].startswith("image/")
        assert response.headers["Content-Security-Policy"] == "default-src 'none'; sandbox"
        assert response.headers["X-Content-Type-Options"] == "nosniff"


def test_where_outputs_were_collected_to(browser: TestClient, folder: Path) -> None:
    (folder / "model").write_bytes(bytes(1 << 20))
    os.utime(folder / "model", (0, 0))
    files = [{"path": "model", "size": 1 << 20, "sha256": "ab" * 32}]
    page = browser.get(f"{job_address(HANDLE, job_id='job', destination='/models/1', files=files)}/outputs").json()
    assert page["outputs"][0]["sha256"] == "ab" * 32
    (collected,) = page["collected"]
    assert (collected["task_id"], collected["destination"], collected["files"]) == ("collect", "/models/1", 1)
    assert browser.get(f"{job_address(HANDLE, job_id='other', destination='/x')}/outputs").json()["collected"] == []


def test_what_was_collected_is_known_without_the_cluster(browser: TestClient, root: Root) -> None:
    files = [{"path": "b", "size": 2, "sha256": "bb"}, {"path": "a.txt", "size": 1, "sha256": "aa"}]
    gone = JobHandle("gone", "gpu_cluster_default", "/jobs/gone", "host", None, 1)
    job = job_address(gone, job_id="gone", destination="/models/1", files=files)
    page = browser.get(f"{job}/outputs").json()
    assert [(one["path"], one["kind"], one["sha256"]) for one in page["outputs"]] == [
        ("a.txt", "collected", "aa"),
        ("b", "collected", "bb"),
    ]
    assert "there is no job gone under" in page["problem"]
    assert page["collected"][0]["destination"] == "/models/1"
    assert [one["path"] for one in browser.get(f"{job}/outputs?contains=TXT").json()["outputs"]] == ["a.txt"]
    response = browser.get(f"{job_address(gone)}/outputs")
    assert (response.status_code, response.json()["looks_again"]) == (404, False)


def test_final_metrics(browser: TestClient, folder: Path) -> None:
    (folder / "metrics.json").write_text(json.dumps({"loss": float("nan"), "half\ud800": SECRET}))
    found = browser.get(f"{job_address(HANDLE)}/metrics").json()
    assert found == {"metrics": {"loss": "NaN", "half\ufffd": "***"}, "count": 2, "problem": None}


def test_a_large_file_comes_over_a_connection_of_its_own(
    browser: TestClient,
    cluster: Cluster,
    gpu_cluster_conn: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    job_id = jobs.submit(
        cluster,
        "cd $OUTPUT_DIR; head -c 9000000 /dev/urandom > model; truncate -s 12M model; truncate -s 70M holes",
    ).handle.job_id
    jobs.wait(cluster, job_id)
    content = Path(cluster.settings.root_dir, job_id, "outputs", "model").read_bytes()
    job = job_address(JobHandle(job_id, "gpu_cluster_default", "/x", "host", None, 1))
    with browser.stream("GET", f"{job}/outputs/file", params={"path": "model"}) as response:
        assert response.headers["Content-Length"] == str(12 << 20)
        is_attachment(response)
        assert b"".join(response.iter_bytes()) == content
    for path, data in (("model", content), ("holes", bytes(70 << 20))):
        found = browser.get(f"{job}/outputs/checksum", params={"path": path}).json()
        assert found["sha256"] == hashlib.sha256(data).hexdigest()
    monkeypatch.setattr(output_download, "MOST_AT_ONCE", 0)
    response = browser.get(f"{job}/outputs/file", params={"path": "model"})
    assert (response.status_code, response.headers["Retry-After"]) == (503, "60")
    assert "large files are being read already" in response.json()["detail"]
