"""A real Prometheus on loopback, and its ``promtool``."""

from __future__ import annotations

import json
import shutil
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Any

import yaml

from tests.conftest import REPOSITORY
from tests.harness.patience import PATIENCE_S
from tests.harness.ports import free_port

MONITORING = REPOSITORY / "docs/monitoring"
HOW_TO_INSTALL = "The tests need Prometheus: apt-get install prometheus, which `make test` does."


def promtool(*arguments: str | Path, stdin: str = "") -> str:
    """Run promtool; return what it says."""
    command = ["promtool", *map(str, arguments)]
    assert shutil.which("promtool"), HOW_TO_INSTALL
    done = subprocess.run(command, input=stdin, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


class Prometheus:
    """
    A Prometheus that scrapes often, with the configuration and the rules of the docs.

    :param target: host and port of the API server of Airflow.
    :param token: with which it may scrape.
    """

    def __init__(self, folder: Path, target: str, token: str) -> None:
        assert shutil.which("prometheus"), HOW_TO_INSTALL
        config: dict[str, Any] = yaml.safe_load((MONITORING / "prometheus.yml").read_text())
        config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
        config["rule_files"] = [str(MONITORING / "rules.yml")]
        (scrape,) = config["scrape_configs"]
        (folder / "token").write_text(token + "\n")
        scrape["authorization"]["credentials_file"] = str(folder / "token")
        scrape["static_configs"] = [{"targets": [target]}]
        (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
        self._address = f"127.0.0.1:{free_port()}"
        self._folder = folder
        self._log = (folder / "prometheus.log").open("wb")

    def __enter__(self) -> Prometheus:
        options = {
            "config.file": self._folder / "prometheus.yml",
            "storage.tsdb.path": self._folder / "data",
            "web.listen-address": self._address,
        }
        command = ["prometheus", *(f"--{name}={value}" for name, value in options.items())]
        self._process = subprocess.Popen(command, stdout=self._log, stderr=self._log)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._process.terminate()
        self._process.wait(PATIENCE_S)
        self._log.close()

    def get(self, path: str, **query: str) -> Any:
        """Ask its API; return None while it does not listen yet."""
        assert self._process.poll() is None, (self._folder / "prometheus.log").read_text()
        url = f"http://{self._address}/api/v1/{path}?{urllib.parse.urlencode(query)}"
        try:
            with urllib.request.urlopen(url, timeout=PATIENCE_S) as response:
                return json.load(response)["data"]
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{path} {query}: {error.read().decode()}") from error
        except OSError:
            return None

    def value(self, expression: str) -> float | None:
        """Return the value of an expression that has one series; None while it has none."""
        found = self.get("query", query=expression)
        assert found is None or len(found["result"]) <= 1, found
        return float(found["result"][0]["value"][1]) if found and found["result"] else None
