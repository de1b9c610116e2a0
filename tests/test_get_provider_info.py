"""The provider's description: valid, importable, and true."""

from __future__ import annotations

import ast
import itertools
import json
import re
from importlib import import_module
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from airflow_provider_gpu_cluster import get_provider_info as module

info = module.get_provider_info()
connection_type: dict[str, Any]
pool_type: dict[str, Any]
connection_type, pool_type = info["connection-types"]


def test_it_fits_airflows_schema() -> None:
    assert version("apache-airflow-core")
    schema = json.loads(files("airflow").joinpath("provider_info.schema.json").read_text())
    jsonschema.validate(info, schema)


def test_it_imports_nothing_of_airflow() -> None:
    assert module.__file__ is not None
    tree = ast.parse(Path(module.__file__).read_text())
    names = [node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    assert not [name for name in names if name.split(".")[0] == "airflow"]


def test_every_class_and_module_exists() -> None:
    for kind in ("hooks", "operators", "sensors"):
        for entry in info[kind]:
            for name in entry["python-modules"]:
                import_module(name)
    for path in [*info["extra-links"], connection_type["hook-class-name"], pool_type["hook-class-name"]]:
        name, _, attribute = path.rpartition(".")
        assert hasattr(import_module(name), attribute)


def test_connection_type_is_the_hooks() -> None:
    from airflow_provider_gpu_cluster.hooks.gpu_cluster import GpuClusterHook
    from airflow_provider_gpu_cluster.hooks.gpu_cluster_pool import GpuClusterPoolHook

    assert connection_type["connection-type"] == GpuClusterHook.conn_type
    assert connection_type["hook-name"] == GpuClusterHook.hook_name
    assert pool_type["connection-type"] == GpuClusterPoolHook.conn_type
    assert pool_type["hook-name"] == GpuClusterPoolHook.hook_name


@pytest.mark.parametrize("field", [*connection_type["conn-fields"], *pool_type["conn-fields"]])
def test_every_field_of_the_form_is_read(field: str) -> None:
    from airflow_provider_gpu_cluster import hooks

    sources = [path.read_text() for path in Path(hooks.__path__[0]).glob("*.py") if path.stem != "fields"]
    assert any(f'"{field}"' in source for source in sources)


def test_defaults_of_the_form_are_those_of_the_hook() -> None:
    from airflow_provider_gpu_cluster.connection.settings import TRANSFERS, ClusterSettings
    from airflow_provider_gpu_cluster.gpu_run.engines.slurm.engine import INTERVAL_S
    from airflow_provider_gpu_cluster.hooks.settings import ENGINES
    from airflow_provider_gpu_cluster.hooks.ssh import CONNECT_TIMEOUT_S
    from airflow_provider_gpu_cluster.pools.pool import POLICIES, SOONEST

    schemas = {name: field["schema"] for name, field in connection_type["conn-fields"].items()}
    assert schemas["root_dir"]["default"] == ClusterSettings.root_dir
    assert schemas["engine"]["default"] == ClusterSettings.engine
    assert tuple(schemas["engine"]["enum"]) == ENGINES
    assert schemas["slurm_interval"]["default"] == INTERVAL_S
    assert schemas["transfer"]["default"] == ClusterSettings.transfer
    assert tuple(schemas["transfer"]["enum"]) == TRANSFERS
    assert schemas["conn_timeout"]["default"] == CONNECT_TIMEOUT_S
    assert schemas["weight"]["default"] == ClusterSettings.weight
    policy = pool_type["conn-fields"]["policy"]["schema"]
    assert (tuple(policy["enum"]), policy["default"]) == (POLICIES, SOONEST)


def test_every_option_of_airflows_configuration_is_declared_and_read_in_one_place() -> None:
    from airflow.configuration import conf

    from airflow_provider_gpu_cluster import options

    declared = info["config"]["gpu_cluster"]["options"]
    package = Path(module.__file__).parent
    read = {
        (path.name, name)
        for path in package.rglob("*.py")
        for name in re.findall(r"""conf\.get\w*\(\s*(?:SECTION|"gpu_cluster"),\s*"(\w+)\"""", path.read_text())
    }
    assert read == {("options.py", name) for name in declared}
    assert options.SECTION in info["config"]
    # As `airflow config` shows it.
    shown = conf.configuration_description["gpu_cluster"]["options"]
    assert set(shown) == set(declared)
    assert ("gpu_cluster", "metrics_token") in conf.sensitive_config_values


def test_the_form_groups_its_fields_and_the_docs_list_them_as_it_does() -> None:
    form = connection_type["conn-fields"]
    sections = [field["schema"]["section"] for field in form.values()]
    assert [key for key, _ in itertools.groupby(sections)] == list(dict.fromkeys(sections)), (
        "a section is in two places"
    )
    for field in form.values():
        # Whoever hears a label alone knows what it belongs to.
        assert field["label"].partition(": ")[0] == field["schema"]["section"].partition(": ")[0]
    told, section = [], ""
    text = Path("docs/connections.md").read_text().partition("\n## Fields\n")[2].partition("\n## ")[0]
    for line in text.splitlines():
        section = line[4:] if line.startswith("### ") else section
        row = re.fullmatch(r"\| (\w+: .+?) \| `(\w+)` \| (.+) \|", line)
        if row:
            told.append((section, row[1], row[2]))
    assert told == [(field["schema"]["section"], field["label"], name) for name, field in form.items()]
    pool = Path("docs/connections.md").read_text().partition("\n## A pool of clusters\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (\w+: .+?) \| `(\w+)` \| .+ \|$", pool, re.MULTILINE)
    assert rows == [(field["label"], name) for name, field in pool_type["conn-fields"].items()]


@pytest.mark.parametrize("name", [*connection_type["conn-fields"], *pool_type["conn-fields"]])
def test_a_field_of_the_form_says_what_happens_when_it_is_empty(name: str) -> None:
    field = {**connection_type["conn-fields"], **pool_type["conn-fields"]}[name]
    assert "default" in field["schema"] or re.search(r"Empty: |Only if|Never together|Required", field["description"])


def test_airflows_form_has_the_same_order_and_its_list_of_providers_leads_to_the_docs() -> None:
    from airflow.api_fastapi.core_api.services.public.providers import _provider_mapper
    from airflow.api_fastapi.core_api.services.ui.connections import HookMetaService
    from airflow.providers_manager import ProvidersManager

    shown = next(meta for meta in HookMetaService.hook_meta_data() if meta.connection_type == "gpu_cluster")
    assert shown.extra_fields is not None
    assert list(shown.extra_fields) == list(connection_type["conn-fields"])
    assert shown.extra_fields["partition"]["schema"]["section"] == "Slurm: only for the engine slurm"
    pool = next(meta for meta in HookMetaService.hook_meta_data() if meta.connection_type == "gpu_cluster_pool")
    assert pool.extra_fields is not None
    assert list(pool.extra_fields) == list(pool_type["conn-fields"])
    assert pool.standard_fields is not None
    assert pool.standard_fields.host is not None
    assert pool.standard_fields.host.hidden
    provider = _provider_mapper(ProvidersManager().providers[info["package-name"]])  # type: ignore[no-untyped-call]
    assert provider.documentation_url
    assert provider.documentation_url.endswith("/docs/index.md")
