"""The search over jobs: every word must occur, in any case, in what names a job."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from sqlalchemy import ColumnElement

from airflow_provider_gpu_cluster.job_table.tables import jobs

NAMES = ("job_id", "dag_id", "run_id", "task_id", "user_name", "host")
_MOST_OF_MESSAGE = 300
_MOST_WORDS = 10


def search_text(names: Iterable[str | None], message: str | None) -> str:
    """Return the text in which a job is found."""
    return "\n".join(filter(None, (*names, (message or "")[:_MOST_OF_MESSAGE]))).lower()


def has_words(words: str) -> Iterator[ColumnElement[bool]]:
    """Yield the conditions for jobs in which all of these words occur."""
    for word in words.lower().replace("\x00", "").split()[:_MOST_WORDS]:
        yield jobs.c.search_text.contains(word, autoescape=True, escape="/")
