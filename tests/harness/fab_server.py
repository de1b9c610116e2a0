"""
Airflow's FAB auth manager in front of this package's part of the API server; it takes a process of its own.

Prints, as JSON, the status with which each user is answered on each route: ``{user: {"GET /path": status}}``.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from typing import Any

_TASKS = ["Task Instances.can_read", "DAG Runs.can_read"]
_LOGS = ["Task Logs.can_read"]
_EDIT = ["Task Instances.can_edit", "DAG Runs.can_edit"]
USERS = {
    "looker": ["DAGs.can_read", *_TASKS, *_LOGS],
    # Of one DAG all but the logs, all, and more.
    "clerk": ["DAG:mine.can_read", *_TASKS],
    "reader": ["DAG:mine.can_read", *_TASKS, *_LOGS],
    "owner": ["DAG:mine.can_read", "DAG:mine.can_edit", *_TASKS, *_LOGS, *_EDIT],
    # The same of another DAG.
    "stranger": ["DAG:other.can_read", "DAG:other.can_edit", *_TASKS, *_LOGS, *_EDIT],
    "nobody": [],
}


def main() -> None:
    """Start it, ask all routes as each user, and print the answers."""
    home = tempfile.mkdtemp(prefix="gpu-cluster-fab-")
    os.environ.update(
        AIRFLOW_HOME=home,
        AIRFLOW__CORE__AUTH_MANAGER="airflow.providers.fab.auth_manager.fab_auth_manager.FabAuthManager",
        AIRFLOW__CORE__LOAD_EXAMPLES="False",
        AIRFLOW__API_AUTH__JWT_SECRET="not a secret, and long enough for HS512 " * 2,
        AIRFLOW__API__SECRET_KEY="not a secret",
        AIRFLOW__FAB__UPDATE_FAB_PERMS="False",
        AIRFLOW__LOGGING__LOGGING_LEVEL="ERROR",
    )
    from airflow.api_fastapi.app import get_auth_manager, init_auth_manager
    from airflow.utils.db import initdb
    from fastapi import FastAPI
    from fastapi.testclient import TestClient

    from airflow_provider_gpu_cluster.plugins.gpu_cluster import GpuClusterPlugin
    from tests.harness.routes import ask, closed

    initdb()
    app = FastAPI()
    for plugin in GpuClusterPlugin.fastapi_apps:
        app.mount(plugin["url_prefix"], plugin["app"])
    init_auth_manager(app)
    manager: Any = get_auth_manager()
    found: dict[str, dict[str, int]] = {}
    with TestClient(app) as client:
        tokens = {name: manager.generate_jwt(user) for name, user in _add_users(manager).items()}
        for user, token in {"": None, **tokens}.items():
            client.cookies.clear()
            if token is not None:
                client.cookies.set("_token", token)
            found[user] = {f"{method} {path}": ask(client, method, path) for method, path in closed(sockets=False)}
    sys.stdout.write("\nANSWERS " + json.dumps(found) + "\n")


def _add_users(manager: Any) -> dict[str, Any]:
    """Add the users, each with a role of its own, and return them by name."""
    from airflow.providers.fab.www.app import create_app

    with create_app(enable_plugins=False).app_context():
        security = manager.security_manager
        for name, granted in USERS.items():
            role = security.add_role(name)
            for one in granted:
                resource, action = one.rsplit(".", 1)
                security.add_permission_to_role(role, security.create_permission(action, resource))
            security.add_user(name, name, name, f"{name}@example.org", role, hashed_password="-")
        return {name: security.find_user(name) for name in USERS}


if __name__ == "__main__":
    main()
