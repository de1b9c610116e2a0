"""The search over jobs: every word must occur, in any case, in what names a job."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from sqlalchemy import Boolean, ColumnElement, literal
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

from airflow_provider_gpu_cluster.job_table.tables import jobs

_MOST_OF_MESSAGE = 300
_MOST_WORDS = 10


def search_text(names: Iterable[str | None], message: str | None) -> str:
    """Return the text in which a job is found."""
    return "\n".join(filter(None, (*names, (message or "")[:_MOST_OF_MESSAGE]))).lower()


def has_words(words: str) -> Iterator[ColumnElement[bool]]:
    """Yield the conditions for jobs in which all of these words occur."""
    plain = words.lower().replace("\x00", "").encode("utf-8", "replace").decode("utf-8")
    for word in plain.split()[:_MOST_WORDS]:
        yield Occurs(jobs.c.search_text, literal(word))


class Occurs(FunctionElement[bool]):
    """Whether a text has another in it, byte for byte. LIKE takes several times as long."""

    inherit_cache = True
    name = "occurs"
    type = Boolean()


@compiles(Occurs)
def _in_sqlite(element: Any, compiler: Any, **options: Any) -> str:
    text, word = (compiler.process(clause, **options) for clause in element.clauses)
    return f"instr({text}, {word}) > 0"


@compiles(Occurs, "postgresql")
def _in_postgresql(element: Any, compiler: Any, **options: Any) -> str:
    text, word = (compiler.process(clause, **options) for clause in element.clauses)
    return f"strpos({text}, {word}) > 0"


@compiles(Occurs, "mysql", "mariadb")
def _in_mysql(element: Any, compiler: Any, **options: Any) -> str:
    text, word = (compiler.process(clause, **options) for clause in element.clauses)
    return f"locate(cast({word} as binary), cast({text} as binary)) > 0"
