"""The Python environments that a dispatcher builds for its waiting jobs, with one process for each build."""

from __future__ import annotations

import json
import subprocess
import time
from typing import TYPE_CHECKING

from ..linux.detached import own_command
from ..store.directories import Attempt, Root
from .python_environment import BuildFailed, build, group, is_built, use

if TYPE_CHECKING:
    from ..protocol.notes import BuildFault
    from ..protocol.records import AttemptRequest, Environment, EnvironmentParts

_AT_ONCE = 2
_TRIES = 2


def build_and_print(path: str, *, root: Root) -> int:
    """
    Build the environment of an attempt, and print it as JSON, or print why that failed.

    :param path: the attempt's folder.
    """
    attempt = Attempt.at_path(path)
    parts = attempt.request()["environment"]
    assert parts is not None, "it needs no environment"
    result: Environment | BuildFault
    try:
        result = build(root, parts, attempt.job.at("code"))
    except (BuildFailed, OSError) as error:
        result = {"error": str(error)}
    print(json.dumps(result))
    return 0


class Builds:
    """Builds the environments of waiting jobs, once for all that need the same one."""

    def __init__(self) -> None:
        self._built: dict[str, Environment] = {}
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._killed: dict[str, int] = {}
        self._failed: dict[str, tuple[str, float]] = {}

    def is_ready(self, attempt: Attempt, request: AttemptRequest, parts: EnvironmentParts) -> bool:
        """
        Return whether the environment of a job is there; start to build it if not.

        :param parts: what it is made of.
        :raises BuildFailed: it could not be built. Every job that was submitted before the failure gets this; a later
            one gets another try.
        :raises OSError: no build can be started now.
        """
        key = group(parts)
        if key in self._built:
            if is_built(self._built[key]):
                return True
            del self._built[key]
        if key in self._running:
            if self._running[key].poll() is not None:
                self._end(key, self._running.pop(key))
        elif key in self._failed and request["submitted"] <= self._failed[key][1]:
            raise BuildFailed(self._failed[key][0])
        elif len(self._running) < _AT_ONCE:
            attempt.event("environment_building")
            self._running[key] = subprocess.Popen(
                own_command(request["program"], "build-environment", attempt.path),
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
            )
        return False

    def environment(self, parts: EnvironmentParts) -> Environment:
        """
        Return an environment that is ready.

        :raises OSError: another process has just removed it.
        """
        key = group(parts)
        built = self._built.get(key)
        if built is None:
            raise FileNotFoundError("the Python environment was removed just now")
        use(built)
        # Only the first job counts the time of the build.
        self._built[key] = {**built, "reused": True, "seconds": 0.0}
        return built

    def _end(self, key: str, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None
        with process.stdout:
            output = process.stdout.read().decode("utf-8", "replace")
        try:
            result: Environment | BuildFault = json.loads(output)
        except ValueError:
            self._killed[key] = self._killed.get(key, 0) + 1
            if self._killed[key] < _TRIES:
                # The build tool reported no error, so the next try may succeed.
                return
            result = {"error": f"building it ended {_TRIES} times with exit code {process.returncode} and no message"}
        self._killed.pop(key, None)
        if "error" in result:
            self._failed[key] = (result["error"], time.time())
        else:
            self._built[key] = result
