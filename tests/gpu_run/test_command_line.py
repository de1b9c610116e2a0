"""The table of verbs: each names work that is there, and that takes what the verb says it needs."""

from __future__ import annotations

import inspect

import pytest

from airflow_provider_gpu_cluster.gpu_run import command_line, protocol
from airflow_provider_gpu_cluster.gpu_run.command_line import VERBS, Verb

TYPES = {
    "root": "Root",
    "engine": "Engine",
    "program": "str",
    "umask": "int",
    "stream": "BinaryIO",
}
CLI = {"gc, by a person": command_line._CLI_GC, "a script": command_line._CLI_RUN}


def test_the_airflow_side_asks_for_the_verbs_of_the_protocol() -> None:
    assert {name for name, verb in VERBS.items() if verb.is_asked} == set(protocol.VERBS)


@pytest.mark.parametrize("verb", [pytest.param(verb, id=name) for name, verb in {**VERBS, **CLI}.items()])
def test_a_verb_names_work_that_takes_what_it_needs(verb: Verb) -> None:
    work = inspect.signature(verb.work())
    assert work.return_annotation == ("Reply" if verb.is_asked else "int")
    words = [one for one in work.parameters.values() if one.name not in verb.needs]
    if verb.is_asked:
        assert words == []
    assert {one.annotation for one in words} <= {"str"}
    assert {one.name for one in work.parameters.values()} >= set(verb.needs)
    for need in verb.needs:
        # Of a request, each verb knows its own form.
        assert need == "request" or work.parameters[need].annotation == TYPES[need]
