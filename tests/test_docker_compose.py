"""The Compose file, as far as it can be checked without a Docker engine."""

from __future__ import annotations

import json
import os
import re
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from airflow.configuration import conf

from airflow_provider_gpu_cluster.get_provider_info import get_provider_info

ROOT = Path(__file__).resolve().parent.parent
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
ENVIRONMENT: dict[str, str] = SERVICES["scheduler"]["environment"]
AIRFLOW_SERVICES = ("api-server", "scheduler", "dag-processor", "triggerer")
MONITORING = ("prometheus", "grafana")
SCRIPTS = ("docker/airflow/init.sh", "docker/gpu-node/entrypoint.sh")


def test_it_follows_the_compose_specification() -> None:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec"]
    result = subprocess.run([*command, ROOT / "docker-compose.yml"], capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr


def test_all_of_airflow_is_there_with_a_database_and_a_gpu_node() -> None:
    started = {name for name, service in SERVICES.items() if "profiles" not in service}
    assert started == {"postgres", "init", "gpu-node", *AIRFLOW_SERVICES}
    for name in AIRFLOW_SERVICES:
        assert SERVICES[name]["command"] == name
        assert SERVICES[name]["environment"] == ENVIRONMENT


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_names_only_what_there_is(name: str) -> None:
    service = SERVICES[name]
    for volume in service.get("volumes", ()):
        source = volume.split(":")[0]
        assert (ROOT / source).exists() if source.startswith("./") else source in COMPOSE["volumes"]
    build = service.get("build", {})
    if isinstance(build, str):
        build = {"context": build}
    if build:
        assert (ROOT / build["context"] / build.get("dockerfile", "Dockerfile")).is_file()
    for needed, wanted in service.get("depends_on", {}).items():
        if wanted["condition"] == "service_healthy":
            assert "healthcheck" in SERVICES[needed]
        else:
            assert SERVICES[needed]["restart"] == "no"


@pytest.mark.parametrize("name", [name for name in SERVICES if name != "init"])
def test_a_service_that_stays_comes_back_and_says_whether_it_is_well(name: str) -> None:
    assert SERVICES[name]["restart"] == "unless-stopped"
    assert "healthcheck" in SERVICES[name]


def test_monitoring_is_there_for_who_asks_for_it() -> None:
    asked = {name for name, service in SERVICES.items() if service.get("profiles") == ["monitoring"]}
    assert asked == set(MONITORING)
    # It reads its two secrets, and changes nothing; Airflow's own secrets are out of its reach.
    for name in MONITORING:
        volumes = dict(volume.split(":", 1) for volume in SERVICES[name]["volumes"])
        assert volumes["monitoring"] == "/monitoring:ro"
        assert "secrets" not in volumes
    (scrape,) = yaml.safe_load((ROOT / "docs/monitoring/prometheus.yml").read_text())["scrape_configs"]
    assert scrape["authorization"]["credentials_file"] == "/monitoring/metrics_token"
    assert ENVIRONMENT["AIRFLOW__GPU_CLUSTER__METRICS_TOKEN_CMD"].endswith("/opt/airflow/monitoring/metrics_token")
    assert SERVICES["grafana"]["environment"]["GF_SECURITY_ADMIN_PASSWORD__FILE"] == "/monitoring/grafana_password"
    (source,) = yaml.safe_load((ROOT / "docs/monitoring/grafana/datasources.yml").read_text())["datasources"]
    assert source["url"] == "http://prometheus:9090"
    (provider,) = yaml.safe_load((ROOT / "docs/monitoring/grafana/dashboards.yml").read_text())["providers"]
    assert (
        f"./docs/monitoring/gpu-cluster.json:{provider['options']['path']}/gpu-cluster.json:ro"
        in (SERVICES["grafana"]["volumes"])
    )


def test_only_the_login_pages_can_be_reached_and_only_from_this_machine() -> None:
    published = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert published == {
        "api-server": ["127.0.0.1:${AIRFLOW_PORT:-8080}:8080"],
        "grafana": ["127.0.0.1:${GRAFANA_PORT:-3000}:3000"],
    }


def test_every_setting_is_one_that_airflow_has() -> None:
    for variable in ENVIRONMENT:
        match = re.fullmatch(r"AIRFLOW__([A-Z_]+?)__([A-Z_]+?)(_CMD)?", variable)
        if match is None:
            assert variable in ("AIRFLOW_CONN_GPU_CLUSTER_DEFAULT", "MODELS_DIR")
            continue
        section, key, command = match.groups()
        assert conf.configuration_description[section.lower()]["options"].get(key.lower()), variable
        if command:
            assert (section.lower(), key.lower()) in conf.sensitive_config_values


def test_the_connection_has_only_fields_that_are_known() -> None:
    connection = json.loads(ENVIRONMENT["AIRFLOW_CONN_GPU_CLUSTER_DEFAULT"])
    types = {one["connection-type"]: one for one in get_provider_info()["connection-types"]}
    known = types[connection["conn_type"]]
    assert connection["host"] in SERVICES
    assert set(connection["extra"]) <= set(known["conn-fields"])


def test_no_secret_is_written_down() -> None:
    # The database's password is the exception: nothing outside the network of these services can reach it.
    for variable, value in ENVIRONMENT.items():
        if re.search("SECRET|FERNET|KEY|TOKEN", variable):
            assert re.match("cat /opt/airflow/(secrets|monitoring)/", value), variable
    for file in (ROOT / "docker").rglob("*"):
        assert not file.is_file() or "PRIVATE KEY" not in file.read_text()


@pytest.mark.parametrize("script", SCRIPTS)
def test_scripts_are_shell_and_can_be_run(script: str) -> None:
    assert os.access(ROOT / script, os.X_OK)
    subprocess.run(["bash", "-n", ROOT / script], check=True)


def run_init(folder: Path) -> str:
    """Run the init script with a stand-in for ``airflow``; return what it printed."""
    for name in ("bin", "secrets", "ssh-public", "monitoring"):
        (folder / name).mkdir(exist_ok=True)
    stand_in = folder / "bin" / "airflow"
    stand_in.write_text('#!/bin/sh\necho "airflow $*"\n')
    stand_in.chmod(0o755)
    result = subprocess.run(
        ["bash", ROOT / SCRIPTS[0]],
        env={
            **os.environ,
            "PATH": f"{stand_in.parent}:{os.environ['PATH']}",
            "SECRETS_DIR": str(folder / "secrets"),
            "SSH_PUBLIC_DIR": str(folder / "ssh-public"),
            "MONITORING_DIR": str(folder / "monitoring"),
        },
        capture_output=True,
        text=True,
        check=True,
    )
    return result.stdout


def test_secrets_are_made_once_and_stay(tmp_path: Path) -> None:
    printed = run_init(tmp_path)
    assert "airflow db migrate" in printed
    secrets = {file.name: file.read_bytes() for file in (tmp_path / "secrets").iterdir()}
    assert set(secrets) == {
        "jwt_secret",
        "api_secret_key",
        "fernet_key",
        "passwords.json",
        "metrics_token",
        "grafana_password",
        "gpu_node_key",
        "gpu_node_key.pub",
    }
    for file in (tmp_path / "secrets").iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o600 or file.suffix == ".pub"
    assert json.loads(secrets["passwords.json"])["admin"] in printed
    assert [file.name for file in (tmp_path / "ssh-public").iterdir()] == ["authorized_keys"]
    for name in ("metrics_token", "grafana_password"):
        file = tmp_path / "monitoring" / name
        assert file.read_bytes() == secrets[name]
        assert stat.S_IMODE(file.stat().st_mode) == 0o644
    assert secrets["grafana_password"].decode() in printed

    run_init(tmp_path)
    assert {file.name: file.read_bytes() for file in (tmp_path / "secrets").iterdir()} == secrets
