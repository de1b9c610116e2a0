"""Two jobs of one DAG run never write the same file of a destination."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any, ClassVar

import pytest
from airflow.sdk.io import attach
from fsspec.implementations.memory import MemoryFileSystem

from airflow_provider_gpu_cluster.exceptions import InvalidJobError
from airflow_provider_gpu_cluster.gpu_run.protocol.outputs import Writer
from airflow_provider_gpu_cluster.sinks import LocalSink, ObjectStorageSink, open_sink
from airflow_provider_gpu_cluster.sinks.claims import FOLDER, FilesClaim, claim

AnySink = LocalSink | ObjectStorageSink


class ForgetfulFileSystem(MemoryFileSystem):  # type: ignore[misc]
    """A store that may not be listed."""

    protocol = "memory"
    store: ClassVar[dict[str, Any]] = {}

    def ls(self, path: str, detail: bool = True, **how: Any) -> list[Any]:
        raise PermissionError("AccessDenied")


@pytest.fixture(params=["local", "memory"])
def sink(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AnySink:
    monkeypatch.setattr("airflow.sdk.io.store._STORE_CACHE", {})
    attach(protocol="memory", fs=MemoryFileSystem())
    return open_sink(str(tmp_path) if request.param == "local" else f"memory://{tmp_path.name}/x")


def of(job_id: str, *paths: str, **who: Any) -> FilesClaim:
    writer: Writer = {"dag_id": "dag", "run_id": "run", "task_id": "train", "map_index": -1, "generation": "0"}
    made = FilesClaim.of(job_id, {**writer, **who}, paths or ("metrics.json", "model.pth"))  # type: ignore[typeddict-item]
    assert made is not None
    return made


@pytest.mark.parametrize(
    "other",
    [
        {"map_index": 1},
        {"task_id": "train_b"},
        {},  # two jobs that one task has launched with ids of its own
    ],
    ids=["mapped", "another task", "same task"],
)
def test_second_job_of_a_run_is_refused_before_it_writes(sink: AnySink, other: dict[str, Any]) -> None:
    claim(sink, of("a", map_index=0) if "map_index" in other else of("a"))
    with pytest.raises(InvalidJobError) as caught:
        claim(sink, of("b", "model.pth", "more", **other))
    said = str(caught.value)
    for words in (f"{sink}/model.pth", "job a (task train", "{{ ti.map_index }}"):
        assert words in said
    # What was refused claims nothing.
    claim(sink, of("c", "more", task_id="c"))


def test_what_two_jobs_name_differently_may_lie_side_by_side(sink: AnySink) -> None:
    claim(sink, of("a", "a.pth", map_index=0))
    claim(sink, of("b", "b.pth", map_index=1))


def test_retry_clear_and_next_run_replace_what_is_there(sink: AnySink, caplog: pytest.LogCaptureFixture) -> None:
    claim(sink, of("a"))
    claim(sink, of("a"))
    claim(sink, of("a-cleared", generation="1"))
    with caplog.at_level("INFO"):
        claim(sink, of("tonight", run_id="tonight"))
    assert "outputs of job a-cleared (run run) are replaced" in caplog.text
    # Every night's claim takes the place of the last one's.
    assert len(sink.listed(FOLDER)) == 1


def test_parts_of_one_job_add_up(sink: AnySink) -> None:
    claim(sink, of("a", "one"))
    claim(sink, of("a", "two"))
    for path in ("one", "two"):
        with pytest.raises(InvalidJobError):
            claim(sink, of("b", path, map_index=1))


def test_job_without_a_run_claims_nothing() -> None:
    assert FilesClaim.of("a", {}, ["x"]) is None


@pytest.mark.parametrize("garbage", [b"", b"[]", b'{"paths": 1}', b"\xff", b"[" * 100_000])
def test_what_is_no_claim_is_left_alone(sink: AnySink, garbage: bytes) -> None:
    sink.put(f"{FOLDER}/x.json", memoryview(garbage), 0o644)
    claim(sink, of("a"))


def test_where_nothing_can_be_listed_files_still_arrive(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("airflow.sdk.io.store._STORE_CACHE", {})
    attach(protocol="memory", fs=ForgetfulFileSystem())
    claim(open_sink("memory://bucket/x"), of("a"))
    assert "cannot see which other jobs write there" in caplog.text


def test_of_many_at_once_one_wins_in_a_folder(tmp_path: Path) -> None:
    refused: list[str] = []
    start = threading.Barrier(8)

    def try_to_claim(index: int) -> None:
        start.wait()
        try:
            claim(open_sink(str(tmp_path)), of(f"job-{index}", map_index=index))
        except InvalidJobError as error:
            refused.append(str(error))

    threads = [threading.Thread(target=try_to_claim, args=(index,)) for index in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(refused) == 7
    assert len(open_sink(str(tmp_path)).listed(FOLDER)) == 1


class _SlowToSee(ObjectStorageSink):
    """Lets another write its claim between this one's first look and its own write."""

    meanwhile: FilesClaim | None = None

    def put(self, path: str, content: memoryview, mode: int) -> None:
        other, self.meanwhile = self.meanwhile, None
        if other is not None:
            super().put(other.path, memoryview(other.to_bytes()), mode)
        super().put(path, content, mode)


def test_in_an_object_store_one_of_two_at_once_finds_the_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("airflow.sdk.io.store._STORE_CACHE", {})
    attach(protocol="memory", fs=MemoryFileSystem())
    plain = open_sink(f"memory://{tmp_path.name}/x")
    assert isinstance(plain, ObjectStorageSink)
    sink = _SlowToSee(plain.destination, plain.destination.fs)
    sink.meanwhile = of("b", map_index=1)
    with pytest.raises(InvalidJobError):
        claim(sink, of("a", map_index=0))
    assert [FilesClaim.from_bytes(sink.read(path)) for path in sink.listed(FOLDER)] == [of("b", map_index=1)]
