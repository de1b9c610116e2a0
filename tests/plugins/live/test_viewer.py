"""What a page is to be told, however slow it is."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from airflow_provider_gpu_cluster.plugins.live.viewer import MOST_WAITING_BYTES, Message, OpenPage


def told(viewer: OpenPage) -> list[dict[str, Any]]:
    return [json.loads(text) for text in asyncio.run(viewer.next())]


def test_of_how_a_job_stands_only_the_newest_is_told() -> None:
    viewer = OpenPage()
    for step in range(3):
        viewer.tell(Message.of("job", job={"step": step}))
        viewer.tell(Message.of("progress", points=[{"step": step}], skipped=0))
    kinds = [message["type"] for message in told(viewer)]
    assert kinds == ["progress", "progress", "job", "progress"]


def test_a_page_that_takes_nothing_costs_no_more_than_a_little() -> None:
    viewer = OpenPage()
    viewer.tell(Message.of("outage", error="x", since="y"))
    for number in range(1000):
        viewer.tell(Message.of("log", offset=number, lines=["x" * 10_000]))
        viewer.tell(Message.of("progress", points=[{"a": 1}, {"a": 2}], skipped=0))
        assert sum(len(one.text) for one in viewer._waiting) <= MOST_WAITING_BYTES + 20_000
    messages = told(viewer)
    assert messages[0]["type"] == "outage"
    # The offset shows where something is missing; of points, the number is told.
    points = [message for message in messages if message["type"] == "progress"]
    assert sum(message["skipped"] + len(message["points"]) for message in points) == 2000


def test_the_last_words_are_told_before_the_end() -> None:
    viewer = OpenPage()
    viewer.end(Message.of("gone", sentence="bye"))
    assert [message["type"] for message in told(viewer)] == ["gone"]
    assert told(viewer) == []
