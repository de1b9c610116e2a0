"""The plugin as Airflow finds it."""

from __future__ import annotations

import os
import subprocess
import sys

from airflow.plugins_manager import get_fastapi_plugins

from airflow_provider_gpu_cluster.plugins.gpu_cluster import GpuClusterPlugin
from airflow_provider_gpu_cluster.plugins.pages import PAGES
from airflow_provider_gpu_cluster.plugins.ui_files import PAGES as LOADED_LATE
from airflow_provider_gpu_cluster.plugins.ui_files import UI, fingerprint, needed
from airflow_provider_gpu_cluster.tasks.paths import URL_PREFIX


def test_airflow_finds_the_plugin_by_its_entry_point() -> None:
    apps, _ = get_fastapi_plugins()
    assert [app["url_prefix"] for app in apps] == [URL_PREFIX]
    assert apps == GpuClusterPlugin.fastapi_apps


def test_processes_without_pages_do_not_pay_for_them() -> None:
    code = (
        "import sys, airflow_provider_gpu_cluster.plugins.gpu_cluster\n"
        "print([name for name in ('fastapi', 'paramiko', 'sqlalchemy') if name in sys.modules])"
    )
    # Airflow itself may import some of them; what counts is what the plugin adds.
    without = code.replace("airflow_provider_gpu_cluster.plugins.gpu_cluster", "airflow.sdk.plugins_manager")
    loaded, loaded_without = (
        subprocess.run([sys.executable, "-W", "ignore", "-c", text], capture_output=True, text=True, check=True)
        for text in (code, without)
    )
    assert loaded.stdout.splitlines()[-1] == loaded_without.stdout.splitlines()[-1]


def test_the_files_of_the_pages_are_where_airflow_is_told() -> None:
    folder = f"gpu-cluster/ui/{fingerprint()}/"
    for page in PAGES:
        for name in ("bundle_url", "icon", "icon_dark_mode"):
            assert str(page[name]).startswith(folder)
            assert (UI / str(page[name]).removeprefix(folder)).is_file()
        assert f'globalThis["{page["name"]}"]' in (UI / "main.js").read_text()


def test_a_page_says_which_modules_it_needs() -> None:
    modules = {path.relative_to(UI).as_posix() for path in UI.rglob("*.js")}
    loaded = {os.path.normpath(module) for page in (*LOADED_LATE, "./nav_tabs.js") for module in needed(page)}
    assert loaded == modules - {"main.js"}
    text = (UI / "main.js").read_text()
    assert [page for page in LOADED_LATE if f'page("{page}"' not in text] == []
