"""The types of the wire have the names that the values of the Airflow side have, which become such."""

from __future__ import annotations

from dataclasses import fields

import pytest

from airflow_provider_gpu_cluster.connection.settings import COMMON_SETTINGS, ENGINE_SETTINGS, ClusterSettings
from airflow_provider_gpu_cluster.gpu_run.protocol.inputs import ClusterInput, GitInput
from airflow_provider_gpu_cluster.gpu_run.protocol.records import ExitRecord
from airflow_provider_gpu_cluster.gpu_run.protocol.replies import Handle
from airflow_provider_gpu_cluster.gpu_run.protocol.requests import Asker
from airflow_provider_gpu_cluster.gpu_run.protocol.settings import Settings
from airflow_provider_gpu_cluster.gpu_run.protocol.spec import Spec
from airflow_provider_gpu_cluster.gpu_run.protocol.status import Status
from airflow_provider_gpu_cluster.jobs.handle import JobHandle
from airflow_provider_gpu_cluster.jobs.identity import identity_of
from airflow_provider_gpu_cluster.jobs.spec import JobSpec
from airflow_provider_gpu_cluster.jobs.status import JobState, JobStatus
from airflow_provider_gpu_cluster.sources.source import ClusterSource, GitSource, Source
from tests.harness.task_context import task_context


def names(wire: type) -> set[str]:
    return set(wire.__annotations__)


def test_a_spec_has_the_names_of_its_type() -> None:
    assert set(JobSpec().to_json()) == {field.name for field in fields(JobSpec)} == names(Spec)


def test_a_status_has_names_of_its_type() -> None:
    value = JobStatus("a", JobState.RUNNING).to_json()
    assert set(value) == {field.name for field in fields(JobStatus)} - {"due", "masks"}
    # The cluster says some things that nobody here asks for.
    assert names(Status) - set(value) == {"leased_at", "released_at", "gpu_keys", "due", "masks"}
    assert not set(value) - names(Status)
    assert JobStatus.from_json(value) == JobStatus("a", JobState.RUNNING)


def test_all_that_an_exit_record_says_belongs_to_a_status() -> None:
    for_the_next_attempt = {"next", "resumed_from", "failed_nodes"}
    assert names(ExitRecord) - for_the_next_attempt < names(Status)


def test_a_handle_has_the_names_of_its_type() -> None:
    # A cluster knows nothing of the connections that lead to it, nor of others.
    assert {field.name for field in fields(JobHandle)} == {*names(Handle), "gpu_cluster_conn_id", "parts"}


def test_settings_have_the_names_of_their_type() -> None:
    told = set(COMMON_SETTINGS).union(*ENGINE_SETTINGS.values())
    assert told == names(Settings)
    assert told <= {field.name for field in fields(ClusterSettings)}


@pytest.mark.parametrize(
    ("source", "wire"),
    [
        (GitSource("code", "", "git+https://host/x.git", url="https://host/x.git"), GitInput),
        (ClusterSource("data", "x", "cluster:/x", path="/x"), ClusterInput),
    ],
)
def test_a_source_has_the_names_of_its_type(source: Source, wire: type) -> None:
    assert set(source.to_json()) == names(wire)


def test_who_asks_has_names_of_the_type() -> None:
    assert names(Asker) - set(identity_of(task_context()).record) == {"person", "folder"}
    assert not set(identity_of(task_context()).record) - names(Asker)
