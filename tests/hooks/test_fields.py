"""The fields of a connection: unknown ones are refused with the nearest good name, and values have the right type."""

from __future__ import annotations

import json
from typing import Any

import pytest
from airflow.sdk import Connection

from airflow_provider_gpu_cluster.exceptions import GpuClusterSetupError
from airflow_provider_gpu_cluster.hooks.fields import Fields
from airflow_provider_gpu_cluster.hooks.gpu_cluster import GpuClusterHook
from airflow_provider_gpu_cluster.hooks.settings import settings_of
from airflow_provider_gpu_cluster.hooks.ssh import SshConnector


def connection(extra: Any) -> Connection:
    text = extra if isinstance(extra, str) else json.dumps(extra)
    return Connection(conn_id="gpu", conn_type="gpu_cluster", host="127.0.0.1", extra=text)


@pytest.mark.parametrize(
    ("extra", "told"),
    [
        ({"engin": "slurm"}, "a field that the provider does not know: engin (did you mean engine?)"),
        (
            {"key_flie": "x", "Partition": "gpu"},
            "key_flie (did you mean key_file?), Partition (did you mean partition?)",
        ),
        ({"login": "ml"}, "login (it is a field of the connection itself, beside the extra)"),
        (
            {"members": "a"},
            "members (of the type gpu_cluster_pool, in a URI gpu-cluster-pool; this one's is 'gpu_cluster'",
        ),
        ({"zzz": 1}, "does not know: zzz. Correct or remove it"),
        ({"extra__gpu_cluster__engin": "slurm"}, "engin (did you mean engine?)"),
    ],
)
def test_an_unknown_field_is_refused_with_the_nearest_good_name(extra: dict[str, Any], told: str) -> None:
    with pytest.raises(GpuClusterSetupError) as raised:
        settings_of(connection(extra))
    assert told in str(raised.value)
    with pytest.raises(GpuClusterSetupError):
        SshConnector(connection(extra))


def test_test_connection_says_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(
        "AIRFLOW_CONN_GPU", '{"conn_type": "gpu_cluster", "host": "127.0.0.1", "extra": {"engin": "slurm"}}'
    )
    works, message = GpuClusterHook("gpu").test_connection()
    assert not works
    assert "did you mean engine?" in message


def test_fields_of_airflows_own_ssh_connections_are_taken() -> None:
    extra = {
        "key_file": "/k",
        "private_key_passphrase": "x",
        "passphrase": "x",
        "conn_timeout": "10",
        "cmd_timeout": 10,
        "timeout": 10,
        "compress": "false",
        "host_key": "x",
        "known_hosts": "/x",
        "no_host_key_check": "true",
        "ignore_hostkey_verification": "true",
        "allow_host_key_change": "false",
        "look_for_keys": "true",
        "disabled_algorithms": {},
        "ciphers": [],
        "extra__ssh__private_key": "",
    }
    assert settings_of(connection(extra)).engine == "host"


def test_fields_of_older_forms_are_read() -> None:
    assert settings_of(connection({"extra__gpu_cluster__engine": "slurm"})).engine == "slurm"
    assert settings_of(connection({"extra__gpu_cluster__engine": "slurm", "engine": "host"})).engine == "host"


@pytest.mark.parametrize("extra", ["{bad", "[1]", '"text"', "5"])
def test_an_extra_that_is_no_object_is_refused(extra: str) -> None:
    with pytest.raises(GpuClusterSetupError, match=r"its extra (is not valid JSON|must be a JSON object)"):
        settings_of(connection(extra))


@pytest.mark.parametrize(
    ("field", "value", "read", "told"),
    [
        ("compress", "maybe", "flag", "it must be true or false"),
        ("look_for_keys", [], "flag", "it must be true or false"),
        ("conn_timeout", "soon", "seconds", "it must be a number of seconds"),
        ("conn_timeout", True, "seconds", "it must be a number of seconds"),
        ("min_gpu_utilization", "101", "percent", "it must be a number from 0 to 100"),
        ("min_gpu_utilization", True, "percent", "it must be a number from 0 to 100"),
        ("min_gpu_utilization", "nan", "percent", "it must be a number from 0 to 100"),
        ("gpu_hours_budget", '{"nightly": 4}', "gpu_hours", "it must be an object of GPU-hours a month"),
        ("gpu_hours_budget", '{"dag:nightly": -4}', "gpu_hours", "it must be an object of GPU-hours a month"),
        ("gpu_hours_budget", {"dag:": 4}, "gpu_hours", "it must be an object of GPU-hours a month"),
        ("gpu_hours_budget", "40", "gpu_hours", "it must be an object of GPU-hours a month"),
        ("ciphers", {"a": 1}, "names", "it must be a list of names"),
        ("disabled_algorithms", "x", "lists_of_names", "it must be an object of lists"),
        ("disabled_algorithms", {"kex": "x"}, "lists_of_names", "it must be an object of lists"),
        ("key_file", ["/x"], "text", "it must be one line of text"),
        ("private_key", {"k": "secret-of-mine"}, "secret_text", "is of type dict; it must be text"),
    ],
)
def test_a_value_of_the_wrong_type_is_told(field: str, value: object, read: str, told: str) -> None:
    with pytest.raises(GpuClusterSetupError, match=f"field {field} .*{told}") as raised:
        getattr(Fields(connection({field: value})), read)(field)
    assert "secret-of-mine" not in str(raised.value)


def test_lists_may_be_text_as_in_a_uri() -> None:
    fields = Fields(connection({"ciphers": "aes256-ctr, aes128-ctr", "disabled_algorithms": '{"kex": ["x"]}'}))
    assert fields.names("ciphers") == ["aes256-ctr", "aes128-ctr"]
    assert fields.lists_of_names("disabled_algorithms") == {"kex": ["x"]}
    assert Fields(connection({"compress": "True"})).flag("compress") is True


def test_what_is_said_of_idle_jobs_and_budgets_is_read() -> None:
    said = {"min_gpu_utilization": "2.5", "utilization_window": "2h", "on_idle": "cancel", "over_budget": "wait"}
    settings = settings_of(connection({**said, "gpu_hours_budget": '{"dag:nightly": 40, "user:*": 200, "all": 1e3}'}))
    assert (settings.min_gpu_utilization, settings.utilization_window_s, settings.on_idle) == (2.5, 7200, "cancel")
    assert settings.gpu_hours_budget == {"dag:nightly": 40, "user:*": 200, "all": 1000}
    assert settings.over_budget == "wait"
    with pytest.raises(GpuClusterSetupError, match="field on_idle is 'stop'; it must be one of: warn, cancel"):
        settings_of(connection({"on_idle": "stop"}))
