"""The main job, end to end: a DAG in a real Airflow trains on a sandbox cluster and brings the model home."""

from __future__ import annotations

import argparse
import contextlib
import json
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

from whole_airflow import AirflowFailed, WholeAirflow

from airflow_provider_gpu_cluster.sandbox import Sandbox

REPOSITORY = Path(__file__).resolve().parent.parent
FOLDER = REPOSITORY / ".demo"
LOG = FOLDER / "airflow.log"
DAG_ID = "gpu_train_digits"
PATIENCE_S = 900
"""Without a change of any task and without a line in any log, on a machine that may be busy with something else."""
REMINDER_S = 30
# Keys of a log entry that every line has, or that are shown in another way.
_NOT_SHOWN = {
    *("timestamp", "level", "event", "logger", "filename", "lineno", "error_detail"),
    *("dag_id", "run_id", "task_id", "ti_id", "map_index", "try_number"),
}


def main() -> int:
    """Run the demo; the exit code says whether the run succeeded."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ui", action="store_true", help="leave Airflow's web page up at the end")
    arguments = parser.parse_args()
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    try:
        return run(ui=arguments.ui)
    except KeyboardInterrupt:
        say("stopped")
        return 130
    except AirflowFailed as error:
        say(f"FAILED: {error}")
        say(f"what Airflow itself printed is in {LOG}")
        return 1


def run(*, ui: bool) -> int:
    """Start a cluster and an Airflow, run the DAG, show what happens, and end them."""
    models = FOLDER / "models"
    models.mkdir(parents=True, exist_ok=True)
    run_id = f"demo_{datetime.now():%Y%m%d_%H%M%S}"
    with Sandbox(gpus=4) as sandbox:
        say(f"a sandbox cluster with {sandbox.gpus} virtual GPUs listens on {sandbox.host}:{sandbox.port}")
        say("starting Airflow: API server, scheduler, DAG processor, triggerer (half a minute)")
        environ = {**sandbox.environ(), "MODELS_DIR": str(models)}
        with WholeAirflow(REPOSITORY / "dags", environ, LOG) as airflow:
            code = try_dag(airflow, models, run_id)
            if ui:
                say(f"Airflow stays up: {airflow.url}/dags/{DAG_ID}   (Ctrl-C ends it)")
                with contextlib.suppress(KeyboardInterrupt):
                    while True:
                        # Where another thread took the signal, pause() would go on for ever.
                        time.sleep(0.5)
            say("ending Airflow and the cluster")
    if code == 0:
        say_what_next()
    return code


def try_dag(airflow: WholeAirflow, models: Path, run_id: str) -> int:
    """Run the DAG and tell how it went; return the exit code. Airflow stays up, whatever becomes of the run."""
    try:
        airflow.trigger(DAG_ID, run_id)
        say(f"running the DAG {DAG_ID}: {airflow.url}/dags/{DAG_ID}/runs/{run_id}")
        state = follow(airflow, run_id)
        return report(airflow, state, models / DAG_ID / run_id, run_id)
    except AirflowFailed as error:
        say(f"FAILED: {error}")
        say_where_logs_are(airflow)
        return 1


def follow(airflow: WholeAirflow, run_id: str) -> str:
    """
    Show the task logs as they grow, until the run has ended; return its state.

    :raises AirflowFailed: nothing happens any more.
    """
    logs = TaskLogs(airflow.logs / f"dag_id={DAG_ID}" / f"run_id={run_id}")
    states: list[str] = []
    changed = reminded = time.monotonic()
    while (state := airflow.state(DAG_ID, run_id)) not in ("success", "failed"):
        before, states = states, task_states(airflow, run_id)
        now = time.monotonic()
        if logs.show() or states != before:
            changed = reminded = now
        elif now - changed > PATIENCE_S:
            raise AirflowFailed(f"nothing has happened for {PATIENCE_S} s ({', '.join(states)})")
        elif now - reminded > REMINDER_S:
            reminded = now
            say(f"waiting since {now - changed:.0f} s ({', '.join(states)})")
        airflow.check()
        time.sleep(0.5)
    while logs.show():  # the last task's last lines
        time.sleep(0.5)
    return state


def task_states(airflow: WholeAirflow, run_id: str) -> list[str]:
    """Return the tasks of a run with their states, in words."""
    return [f"{task['task_id']} {task['state'] or 'not yet due'}" for task in airflow.tasks(DAG_ID, run_id)]


class TaskLogs:
    """
    The logs of a DAG run's tasks, printed as they grow; what all lines have in common is printed once.

    :param folder: the run's folder of logs.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._read: dict[Path, int] = {}
        self._folded: set[Path] = set()
        self._known: set[str] = set()

    def show(self) -> bool:
        """Print what has come since the last call, and say whether anything has."""
        grown = False
        new = [log for log in self.folder.glob("task_id=*/attempt=*.log") if log not in self._read]
        self._read.update(dict.fromkeys(sorted(new, key=lambda log: log.stat().st_mtime), 0))
        for log in self._read:
            data = log.read_bytes()[self._read[log] :]
            whole = data[: data.rfind(b"\n") + 1]
            self._read[log] += len(whole)
            grown = grown or bool(whole)
            for line in whole.decode(errors="replace").splitlines():
                for text in self._readable(log, line):
                    print(f"{log.parent.name.removeprefix('task_id='):>12} | {text}", flush=True)
        return grown

    def _readable(self, log: Path, line: str) -> Iterator[str]:
        """Turn a line of a task log, which is JSON, into lines for a person."""
        entry: dict[str, Any] = json.loads(line)
        event, level = str(entry["event"]), entry["level"]
        if event.startswith("::group::"):
            self._folded.add(log)  # Airflow's page folds these away as well
        elif event == "::endgroup::":
            self._folded.discard(log)
        elif _is_important(entry) or not (log in self._folded or _is_chatter(entry)):
            facts = [f"{name}={value}" for name, value in entry.items() if name not in _NOT_SHOWN]
            facts = [fact for fact in facts if fact not in self._known]
            self._known.update(facts)
            mark = "" if level == "info" else f"{level.upper()}: "
            yield from "  ".join([mark + event, *facts]).splitlines()
            for error in entry.get("error_detail") or []:
                yield from f"{error['exc_type']}: {error['exc_value']}".splitlines()


def _is_important(entry: dict[str, Any]) -> bool:
    # What a task prints comes by another way than what it logs, and can arrive within a later fold.
    return entry["level"] in ("warning", "error", "critical") or str(entry.get("logger")).startswith("task.std")


def _is_chatter(entry: dict[str, Any]) -> bool:
    quiet = ("Done. Returned value was", "Success criteria met")
    logger = str(entry.get("logger"))
    return entry["level"] == "debug" or logger.startswith("paramiko") or entry["event"].startswith(quiet)


def report(airflow: WholeAirflow, state: str, folder: Path, run_id: str) -> int:
    """Say how it went, and return the exit code."""
    if state != "success":
        say(f"FAILED: the run ended as {state} ({', '.join(task_states(airflow, run_id))})")
        say_where_logs_are(airflow)
        return 1
    metrics = json.loads((folder / "metrics.json").read_text())
    say("the run succeeded; its metrics:")
    for name, value in metrics.items():
        print(f"    {name:15} {value}")
    say(f"the model: {folder / 'model.pkl'}")
    return 0


def say_where_logs_are(airflow: WholeAirflow) -> None:
    """Keep the tasks' logs, which would go with Airflow, and say where they are."""
    kept = FOLDER / "logs"
    shutil.rmtree(kept, ignore_errors=True)
    if airflow.logs.is_dir():
        shutil.copytree(airflow.logs, kept)
        say(f"the tasks' whole logs are in {kept}")
    say(f"what Airflow itself printed is in {airflow.log}")


def say_what_next() -> None:
    """Name the next steps of somebody who has seen the demo succeed."""
    say("what next:")
    print("    make demo UI=1            the same, and look at it in Airflow's web page")
    print("    dags/gpu_train_digits.py  the DAG that ran; a sweep, a nightly training and more are beside it")
    print('    README.md, "Use it"       a connection to your own cluster', flush=True)


def say(text: str) -> None:
    """Print a line of the demo's own."""
    print(f"\n==> {text}" if text.startswith(("the run", "FAILED")) else f"==> {text}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
