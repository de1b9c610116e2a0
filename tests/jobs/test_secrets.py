"""What Airflow masks of what a job gets is found, and nothing else is."""

from __future__ import annotations

from pathlib import Path

import pytest
from airflow.sdk._shared.secrets_masker import secrets_masker
from airflow.sdk.log import mask_secret

from airflow_provider_gpu_cluster.gpu_run.protocol.masks import hidden
from airflow_provider_gpu_cluster.jobs.identity import JobIdentity
from airflow_provider_gpu_cluster.jobs.request import JobRequest

KEY = "-----BEGIN KEY-----\nMIIEvQIBADANBgkq\nhkiG9w0BAQEFAASC\n-----END KEY-----\n"


@pytest.fixture(autouse=True)
def masker(monkeypatch: pytest.MonkeyPatch) -> None:
    masker = secrets_masker._secrets_masker()
    monkeypatch.setattr(masker, "patterns", set())
    monkeypatch.setattr(masker, "replacer", None)
    monkeypatch.setattr(masker, "sensitive_variables_fields", ["token", "api_key", "private_key", "password"])
    return


def test_only_what_airflow_masks_is_a_secret() -> None:
    request = JobRequest(command="true", env={"WANDB_API_KEY": "wandb-1", "SEED": "seed-1", "A_TOKEN": "1234"})
    assert request.secrets() == ["wandb-1"]


def test_part_of_a_value_is_a_secret_wherever_a_connection_brought_it() -> None:
    mask_secret("conn-passw0rd")
    mask_secret("of another system")
    url = "postgres://me:conn-passw0rd@db/x"
    for request in (
        JobRequest(command="true", env={"DATABASE_URL": url}),
        JobRequest(command=f"psql {url}"),
        JobRequest(entry_script="x.py", script_args=["--url", url]),
        JobRequest(command="true", setup=["true", f"export URL={url}"]),
        JobRequest(command="true", array=[["--url", url], []]),
        JobRequest(command="true", array=[{"URL": url}]),
    ):
        assert request.secrets() == ["conn-passw0rd"]


def test_each_line_of_a_secret_is_one() -> None:
    found = JobRequest(command="true", env={"PRIVATE_KEY": KEY}).secrets()
    assert {KEY, "hkiG9w0BAQEFAASC"} <= set(found)


def test_launch_carries_masks_and_each_element_its_own() -> None:
    array = [{"A_TOKEN": "first-secret"}, {"A_TOKEN": "second-secret"}]
    request = JobRequest(command="true", env={"WANDB_API_KEY": "wandb-1"}, array=array)
    asked = request.launch_arguments(JobIdentity("job", "key", "0", {}), base_dir=Path(), staged=False)
    text = "wandb-1 first-secret second-secret"
    assert hidden(text, asked["masks"]) == "*** first-secret second-secret"
    shown = [hidden(text, element.masks) for element in asked["elements"]]
    assert shown == ["*** *** second-secret", "*** first-secret ***"]
