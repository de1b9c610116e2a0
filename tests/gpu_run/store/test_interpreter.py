"""One Python for the program and its jobs, whatever is first in PATH, unless setup chooses another."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_gpu_cluster.gpu_run.store.directories import Root
from airflow_provider_gpu_cluster.gpu_run.store.interpreter import with_interpreter
from airflow_provider_gpu_cluster.jobs.script import render_run_script
from airflow_provider_gpu_cluster.jobs.spec import JobSpec
from tests.gpu_run.host import Host

# What every Python in these tests can say about itself.
SAY = "import os, sys; print(os.environ.get('SAYS', ''), sys.prefix)"
WHICH = """for name in python3 python "$PYTHON"; do "$name" -c "import sys; print(sys.prefix)"; done"""
# A Python of a distribution of 2018: it runs this program's first file, and nothing else.
OLD = """\
#!{python}
import runpy, sys
sys.version_info = (3, 6, 8, "final", 0)
words = [word for word in sys.argv[1:] if word not in ("-I", "-S")]
if not words or not words[0].endswith(".pyz"):
    sys.exit("python 3.6 cannot do this")
sys.argv = words
runpy.run_path(words[0], run_name="__main__")
"""


def program(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path


@pytest.fixture(scope="module")
def envs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Return two virtual environments: one for the connection, one of a user."""
    folder = tmp_path_factory.mktemp("envs")
    for name in ("site", "mine"):
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder / name], check=True)
    return {name: folder / name for name in ("site", "mine")}


def answer(host: Host, verb: str, python: str, path: str, **request: Any) -> Any:
    """Ask the program, started as a login with that PATH starts it."""
    command = [python, "-I", "-S", host.program, verb]
    line = json.dumps({**request, "settings": host.settings}).encode() + b"\n"
    env = {"PATH": path, "HOME": host.root.path}
    done = subprocess.run(command, input=line, env=env, capture_output=True, check=True)
    reply = json.loads(done.stdout.splitlines()[-1])
    assert "ok" in reply, reply
    return reply["ok"]


def prefixes(host: Host, python: str, path: str, setup: str = "", command: str = WHICH) -> list[str]:
    """Return the prefixes of the Pythons that a job finds as python3, as python and as $PYTHON."""
    script = render_run_script(JobSpec(command=command, setup=setup))
    request: Any = host.request("", setup=setup)
    request.update(run_script=script)
    job = host.job(request["job_id"])
    job.create()
    for key in ("settings", "program", "umask"):
        del request[key]
    answer(host, "submit", python, path, **request)
    assert host.wait(job.job_id)["state"] == "SUCCEEDED", host.log(job.job_id)
    return host.log(job.job_id).split("\n")[:-1]


def test_the_python_that_is_said_is_the_one_of_the_job(host: Host, tmp_path: Path, envs: dict[str, Path]) -> None:
    old = program(tmp_path / "bin" / "python3", OLD.format(python=sys.executable))
    (old.parent / "python").symlink_to(old)
    program(old.parent / "python3.11", f'#!/bin/sh\nexec {envs["site"]}/bin/python3 "$@"\n')
    path = f"{old.parent}:/usr/bin:/bin"
    said = answer(host, "install-check", str(old), path)["python"]
    assert said["executable"] == f"{envs['site']}/bin/python3"
    assert prefixes(host, str(old), path) == [str(envs["site"])] * 3


CONDA = """
conda() {{ [ "$1 $2" = "activate mine" ] && export CONDA_PREFIX={mine} PATH="{mine}/bin:$PATH"; }}
conda activate mine
"""


@pytest.mark.parametrize(
    ("setup", "found"),
    [
        pytest.param("", "site", id="nothing"),
        pytest.param("export X=1 PATH=$PATH:{mine}/bin", "site", id="something else"),
        pytest.param("source {mine}/bin/activate", "mine", id="a virtual environment"),
        pytest.param(CONDA, "mine", id="conda activate"),
        pytest.param('export PATH="{mine}/bin:$PATH"', "mine", id="module load"),
    ],
)
def test_what_setup_puts_first_comes_first(host: Host, setup: str, found: str, envs: dict[str, Path]) -> None:
    """The shell function conda stands for conda's own, which also sets variables and changes PATH."""
    python = str(envs["site"] / "bin" / "python3")
    setup = setup.format(mine=envs["mine"])
    assert prefixes(host, python, "/usr/bin:/bin", setup=setup) == [str(envs[found])] * 3


def test_setup_may_name_it(host: Host, envs: dict[str, Path]) -> None:
    setup = f"export PYTHON={envs['mine']}/bin/python"
    found = prefixes(host, str(envs["site"] / "bin" / "python3"), "/usr/bin:/bin", setup=setup)
    assert found == [str(envs[name]) for name in ("site", "site", "mine")]


def test_path_stays_as_it_is_where_it_leads_to_that_python(tmp_path: Path, envs: dict[str, Path]) -> None:
    root = Root(str(tmp_path))
    path = f"{envs['site']}/bin:/usr/bin"
    assert with_interpreter(root, str(envs["site"] / "bin" / "python3"), path) == path
    first = with_interpreter(root, str(envs["mine"] / "bin" / "python3"), path)
    assert first.endswith(":" + path)
    assert first == with_interpreter(root, str(envs["mine"] / "bin" / "python3"), path)
