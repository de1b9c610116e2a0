"""
Airflow's FAB auth manager in front of this package's part of the API server; it takes a process of its own.

Prints, as JSON, the status with which each user is answered on each route: ``{user: {"GET /path": status}}``. Sockets
are there twice: as ``SOCKET``, opened from Airflow's own pages, and as ``FOREIGN``, opened from those of another site.
The user ``""`` has not logged in, and ``public`` has not either, where FAB has a public role.
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
    "public": ["DAG:mine.can_read", *_TASKS],
}
PUBLIC_ROLE = "AIRFLOW__FAB__AUTH_ROLE_PUBLIC"
ORIGINS = {"SOCKET": "http://testserver", "FOREIGN": "https://evil.example"}


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
        # FAB's part that knows nobody by it is there only if it is set at the start.
        **{PUBLIC_ROLE: "public"},
    )
    from airflow.api_fastapi.app import get_auth_manager, init_auth_manager
    from airflow.api_fastapi.core_api.app import init_middlewares
    from airflow.utils.db import initdb
    from fastapi import FastAPI
    from fastapi.testclient import TestClient

    from airflow_provider_gpu_cluster.plugins.gpu_cluster import GpuClusterPlugin
    from tests.harness.routes import address, ask, closed, open_socket

    initdb()
    app = FastAPI()
    for plugin in GpuClusterPlugin.fastapi_apps:
        app.mount(plugin["url_prefix"], plugin["app"])
    init_auth_manager(app)
    init_middlewares(app)
    manager: Any = get_auth_manager()
    found: dict[str, dict[str, int]] = {}
    with TestClient(app) as client:
        users = _add_users(manager)
        tokens = {name: manager.generate_jwt(user) for name, user in users.items() if name != "public"}
        for user, token in {"public": None, "": None, **tokens}.items():
            os.environ[PUBLIC_ROLE] = "public" if user == "public" else ""
            client.cookies.clear()
            if token is not None:
                client.cookies.set("_token", token)
            found[user] = {f"{method} {path}": ask(client, method, path) for method, path in closed(sockets=False)}
            for kind, origin in ORIGINS.items():
                for _, path in closed(sockets=True):
                    found[user][f"{kind} {path}"] = open_socket(client, address(path), {"origin": origin})
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
