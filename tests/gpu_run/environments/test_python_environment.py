"""Python environments: what makes two of them one, how they are built, and what a job sees of the system's packages."""

from __future__ import annotations

import base64
import fcntl
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_gpu_cluster.gpu_run.environments import python_environment
from airflow_provider_gpu_cluster.gpu_run.environments.python_environment import (
    BuildFailed,
    build,
    find_uv,
    group,
    wanted,
)
from airflow_provider_gpu_cluster.gpu_run.protocol.records import Environment, EnvironmentParts
from airflow_provider_gpu_cluster.gpu_run.store.directories import Root
from tests.gpu_run.host import Host, processes_with
from tests.harness.patience import PATIENCE_S

# To make the interpreter of the "system" takes seconds, so they belong into one process.
BESIDE_THE_SYSTEM = pytest.mark.xdist_group("system")

# Airflow brings uv along, beside the interpreter of its environment.
UV = find_uv() or shutil.which("uv", path=os.path.dirname(sys.executable))


def wheel(folder: Path, name: str, version: str = "1.0", requires: str = "") -> None:
    """Make a tiny package by hand: a module of that name whose VERSION is its version."""
    folder.mkdir(parents=True, exist_ok=True)
    files = {
        f"{name}.py": f"VERSION = {version!r}\n",
        f"{name}-{version}.dist-info/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        + (f"Requires-Dist: {requires}\n" if requires else ""),
        f"{name}-{version}.dist-info/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = f"{name}-{version}.dist-info/RECORD"
    lines = []
    for path, text in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
        lines.append(f"{path},sha256={digest},{len(text)}\n")
    files[record] = "".join([*lines, f"{record},,\n"])
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as archive:
        for path, text in files.items():
            archive.writestr(path, text)


@pytest.fixture(scope="session")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheels")
    wheel(folder, "tinypkg")
    wheel(folder, "tinypkg", "2.0")
    wheel(folder, "needy", requires="tinypkg")
    return folder


@pytest.fixture
def code(tmp_path: Path) -> Path:
    folder = tmp_path / "code"
    folder.mkdir()
    return folder


@pytest.fixture
def root(tmp_path: Path) -> Root:
    return Root(str(tmp_path / "root"))


@pytest.fixture(scope="session")
def system(tmp_path_factory: pytest.TempPathFactory, wheels: Path) -> Path:
    """An interpreter of a "system" that has pip and tinypkg 1.0: an environment of its own, and a parent of others."""
    folder = tmp_path_factory.mktemp("system")
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    (packages,) = folder.glob("lib/*/site-packages")
    with zipfile.ZipFile(wheels / "tinypkg-1.0-py3-none-any.whl") as archive:
        archive.extractall(packages)
    return folder / "bin/python3"


def needs(requirements: str, wheels: Path) -> str:
    return f"--no-index\n--find-links {wheels}\n{requirements}\n"


def parts(
    requirements: str | None, code: Path, *, setup: str = "", python: str | None = sys.executable
) -> EnvironmentParts:
    found = wanted(requirements, setup, python, str(code))
    assert found is not None
    return found


def ask(built: Environment, expression: str, *modules: str) -> str:
    """Return what an expression is in an environment."""
    text = "".join(f"import {module}\n" for module in modules) + f"print({expression})"
    command = [os.path.join(built["path"], "bin", "python3"), "-c", text]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


# -- which environment -----------------------------------------------------------------------------------------------


def test_no_requirements_no_environment(code: Path) -> None:
    assert wanted(None, "", None, str(code)) is None
    assert wanted("\n  # nothing\n", "", None, str(code)) is None
    (code / "requirements.txt").write_text("\n")
    assert wanted(None, "", None, str(code)) is None


def test_requirements_come_from_the_code_unless_given(code: Path) -> None:
    (code / "requirements.txt").write_text("numpy\n")
    assert parts(None, code)["requirements"] == "numpy\n"
    assert parts("scipy", code)["requirements"] == "scipy"


def test_what_changes_an_environment(code: Path, tmp_path: Path) -> None:
    other = tmp_path / "other code"
    shutil.copytree(code, other)
    base = group(parts("a", code))
    assert group(parts("a", other)) == base
    assert group(parts("b", code)) != base
    assert group(parts("a", code, setup="module load x")) != base
    assert group(parts("a", code, python="python3.9")) != base


def test_included_files_count_with_what_they_include(code: Path) -> None:
    (code / "sub").mkdir()
    (code / "base.txt").write_text("-c sub/pins.txt\nnumpy\n")
    (code / "sub/pins.txt").write_text("numpy==1.0\n")
    text = "-r base.txt\n--constraint=sub/pins.txt\n-r missing.txt\n-r base.txt\n"
    before = group(parts(text, code))
    (code / "sub/pins.txt").write_text("numpy==2.0\n")
    assert group(parts(text, code)) != before


@pytest.mark.parametrize("line", ["-e .", "./package", "x @ file:///x", "--find-links wheels", "-r more.txt"])
def test_requirements_in_the_code_change_with_it(code: Path, tmp_path: Path, line: str) -> None:
    (code / "more.txt").write_text(".\n")
    before = group(parts(line, code))
    assert group(parts(line, code)) == before
    (code / "module.py").write_text("x = 1\n")
    assert group(parts(line, code)) != before
    assert group(parts("numpy", code)) == group(parts("numpy", tmp_path))


@BESIDE_THE_SYSTEM
def test_the_interpreter_counts(root: Root, code: Path, wheels: Path, system: Path) -> None:
    mine = build(root, parts(needs("tinypkg", wheels), code, python=sys.executable), str(code))
    other = build(root, parts(needs("tinypkg", wheels), code, python=str(system)), str(code))
    assert mine["path"] != other["path"]


# -- building --------------------------------------------------------------------------------------------------------


@pytest.fixture(params=["uv", "pip"])
def tool(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "uv" and UV is None:
        pytest.fail("there is no uv here") if os.environ.get("CI") == "true" else pytest.skip("there is no uv here")
    monkeypatch.setattr(python_environment, "find_uv", lambda: UV if request.param == "uv" else None)
    return str(request.param)


def test_requirements_are_installed_and_the_second_time_found(root: Root, code: Path, wheels: Path, tool: str) -> None:
    wanted_parts = parts(needs("needy", wheels), code)
    built = build(root, wanted_parts, str(code))
    assert (built["tool"], built["reused"]) == (tool, False)
    assert ask(built, "tinypkg.VERSION", "tinypkg", "needy") == "2.0"
    again = build(root, wanted_parts, str(code))
    assert (again["path"], again["reused"]) == (built["path"], True)
    assert again["seconds"] < 5


@BESIDE_THE_SYSTEM
def test_what_the_system_has_is_seen_and_not_installed_again(
    root: Root, code: Path, wheels: Path, system: Path, tool: str
) -> None:
    built = build(root, parts(needs("needy", wheels), code, python=str(system)), str(code))
    # uv alone would bring tinypkg 2.0, for it does not look at the system's packages.
    assert built["tool"] == "pip"
    assert ask(built, "tinypkg.VERSION", "tinypkg", "needy") == "1.0"
    assert not list(Path(built["path"]).glob("lib/*/site-packages/tinypkg*"))


@BESIDE_THE_SYSTEM
def test_a_requirement_that_the_system_does_not_meet_is_installed_over_it(
    root: Root, code: Path, wheels: Path, system: Path, tool: str
) -> None:
    built = build(root, parts(needs("tinypkg>=2", wheels), code, python=str(system)), str(code))
    assert ask(built, "tinypkg.VERSION", "tinypkg") == "2.0"
    command = [str(system), "-c", "import tinypkg; print(tinypkg.VERSION)"]
    assert subprocess.run(command, check=True, capture_output=True, text=True).stdout == "1.0\n"


def test_files_of_the_code_that_have_the_names_of_pythons_own(root: Root, code: Path, wheels: Path, tool: str) -> None:
    for name in ("json.py", "random.py", "venv.py", "runpy.py", "logging.py", "site.py", "pip.py"):
        (code / name).write_text("raise SystemExit('this is the job\\'s own module')\n")
    built = build(root, parts(needs("needy", wheels), code), str(code))
    assert ask(built, "needy.VERSION", "needy") == "1.0"


def test_relative_paths_are_meant_from_the_code(root: Root, code: Path, wheels: Path, tool: str) -> None:
    shutil.copytree(wheels, code / "wheels")
    (code / "base.txt").write_text("needy\n")
    built = build(
        root, parts("--no-index\n-f wheels\n-r base.txt\n./wheels/tinypkg-1.0-py3-none-any.whl", code), str(code)
    )
    assert ask(built, "tinypkg.VERSION", "tinypkg", "needy") == "1.0"


@BESIDE_THE_SYSTEM
def test_without_ensurepip_the_systems_pip_does(
    root: Root, code: Path, wheels: Path, system: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on Debian without python3-venv."""
    monkeypatch.setattr(python_environment, "find_uv", lambda: None)
    setup = without("ensurepip", code)
    built = build(root, parts(needs("needy", wheels), code, python=str(system), setup=setup), str(code))
    assert ask(built, "needy.VERSION", "needy") == "1.0"


def without(module: str, code: Path) -> str:
    """Return setup lines that take a module away."""
    (code / "no").mkdir(exist_ok=True)
    (code / "no" / f"{module}.py").write_text(f"raise ImportError('there is no {module} here')\n")
    return f"export PYTHONPATH={code}/no"


@BESIDE_THE_SYSTEM
def test_without_pip_uv_does_all(root: Root, code: Path, wheels: Path, system: Path, tool: str) -> None:
    without("ensurepip", code)
    wanted_parts = parts(needs("tinypkg", wheels), code, python=str(system), setup=without("pip", code))
    if tool == "uv":
        assert build(root, wanted_parts, str(code))["tool"] == "uv"
    else:
        with pytest.raises(BuildFailed, match=f"neither uv nor pip for {system}; install one of them"):
            build(root, wanted_parts, str(code))


@BESIDE_THE_SYSTEM
def test_setup_lines_choose_the_interpreter_and_may_be_noisy(
    root: Root, code: Path, wheels: Path, system: Path
) -> None:
    setup = (
        f"""export PATH={system.parent}:$PATH; echo 'Loading python/3'; echo '{{"not": "this"}}'; echo "it's quoted" """
    )
    built = build(root, parts(needs("needy", wheels), code, setup=setup, python=None), str(code))
    assert built["python"] == str(system)


@pytest.mark.parametrize(
    ("setup", "python", "message"),
    [
        ("echo no such module >&2; false", None, "asking python3 for its version failed:.*no such module"),
        ("if", None, "asking python3 for its version failed:.*syntax error"),
        ("", "/nowhere/python3", "/nowhere/python3: No such file"),
        ("", "/bin/echo", "asking /bin/echo for its version gave no valid answer"),
    ],
)
def test_what_is_wrong_with_the_interpreter_is_said(
    root: Root, code: Path, setup: str, python: str | None, message: str
) -> None:
    with pytest.raises(BuildFailed, match=f"(?s){message}"):
        build(root, parts("x", code, setup=setup, python=python), str(code))


def test_a_failed_build_shows_the_tools_last_words_and_leaves_nothing(
    root: Root, code: Path, wheels: Path, tool: str
) -> None:
    with pytest.raises(BuildFailed, match=r"(?s)installing the requirements with pip failed:.*no-such-package"):
        build(root, parts(needs("no-such-package", wheels), code), str(code))
    folder = Path(root.cache, "environments")
    assert [path.suffix for path in folder.iterdir()] == [".lock"]


def test_last_words_have_a_limit(root: Root, code: Path) -> None:
    with pytest.raises(BuildFailed) as error:
        build(root, parts("x", code, setup="head -c 1000000 /dev/zero | tr '\\0' x; false"), str(code))
    assert len(str(error.value)) < 9000


# -- jobs ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def host(cluster_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    """A host that has uv, if there is one."""
    if UV is not None:
        (cluster_folder / "bin").mkdir()
        (cluster_folder / "bin" / "uv").symlink_to(UV)
        monkeypatch.setenv("PATH", f"{cluster_folder / 'bin'}:{os.environ['PATH']}")
    return Host(cluster_folder, virtual_gpus=8, python=sys.executable)


SHOW = 'PATH="$VIRTUAL_ENV/bin:$PATH"; python3 -c "import needy, tinypkg; print(tinypkg.VERSION)"'


def test_ten_jobs_at_once_are_one_build_and_the_next_pays_nothing(host: Host, wheels: Path) -> None:
    text = needs("needy", wheels)
    jobs = [host.submit(SHOW, requirements=text) for _ in range(10)]
    host.wait(*jobs, timeout_s=60)
    assert {host.log(job) for job in jobs} == {"2.0\n"}
    ready = [event(host, job, "environment_ready") for job in jobs]
    assert {item["path"] for item in ready} == {ready[0]["path"]}
    assert sum(event(host, job, "environment_building") is not None for job in jobs) == 1
    assert sum(not item["reused"] for item in ready) == 1
    # Nothing is built while GPUs are held.
    built_at = next(item["built_at"] for item in ready)
    assert all(host.status(job)["leased_at"] >= built_at for job in jobs)
    job = host.submit(SHOW, requirements=text)
    host.wait(job)
    assert event(host, job, "environment_ready")["reused"]
    assert event(host, job, "environment_ready")["seconds"] < 5


def event(host: Host, job_id: str, name: str) -> Any:
    lines = Path(host.attempt(job_id).at("events.jsonl")).read_text().splitlines()
    return next((value for value in map(json.loads, lines) if value["event"] == name), None)


def test_all_jobs_that_waited_for_a_build_hear_of_its_failure(host: Host, wheels: Path) -> None:
    text = needs("no-such-package", wheels)
    jobs = [host.submit("true", requirements=text) for _ in range(3)]
    for job in jobs:
        status = host.wait(job, timeout_s=60)
        assert (status["state"], status["reason"]) == ("FAILED", "launch_failed")
        assert "its Python environment could not be built: installing the requirements" in status["message"]
        assert "no-such-package" in status["message"]
        assert "no-such-package" in host.log(job, "environment.log")
        assert status["gpu_seconds"] == 0


def test_a_job_that_waits_for_its_environment_says_so_and_holds_up_nobody(
    host: Host, wheels: Path, eventually: Callable[..., Any]
) -> None:
    slow = host.submit("true", requirements=needs("needy", wheels), setup="sleep 0.7", gpus=8)
    eventually(lambda: host.status(slow)["message"] == "its Python environment is being built")
    assert host.run("true", gpus=8)["state"] == "SUCCEEDED"
    assert host.wait(slow)["state"] == "SUCCEEDED"


def test_an_interrupted_build_is_built_again(host: Host, wheels: Path, eventually: Callable[..., Any]) -> None:
    marks = host.job("marks").path
    os.makedirs(marks)
    # The installer of the first build hangs until it is killed.
    setup = f'case "$*" in *"-r "*) [ -e {marks}/second ] || {{ touch {marks}/second; sleep 1000; }} ;; esac'
    job = host.submit(SHOW, requirements=needs("needy", wheels), setup=setup)
    eventually(lambda: os.path.exists(f"{marks}/second"))
    (builder,) = processes_with(host.program, "build-environment")
    os.kill(builder, signal.SIGKILL)
    assert host.wait(job, timeout_s=PATIENCE_S)["state"] == "SUCCEEDED"
    assert host.log(job) == "2.0\n"
    # Nothing of the first build goes on.
    assert not [pid for pid in processes_with("bash", "-c") if marks in _command(pid)]


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return ""


def test_an_environment_that_was_deleted_is_built_again(host: Host, wheels: Path) -> None:
    text = needs("needy", wheels)
    first = host.submit(SHOW, requirements=text)
    assert host.wait(first)["state"] == "SUCCEEDED"
    shutil.rmtree(event(host, first, "environment_ready")["path"])
    second = host.submit(SHOW, requirements=text)
    assert host.wait(second)["state"] == "SUCCEEDED"
    assert not event(host, second, "environment_ready")["reused"]


def test_use_is_noted_where_it_is_not_cleared_away(host: Host, wheels: Path) -> None:
    text = needs("needy", wheels)
    first = host.submit(SHOW, requirements=text)
    assert host.wait(first)["state"] == "SUCCEEDED"
    built = event(host, first, "environment_ready")
    mark = Path(python_environment.mark_of(built["path"]))
    os.utime(mark, (0, 0))
    second = host.submit(SHOW, requirements=text)
    assert host.wait(second)["state"] == "SUCCEEDED"
    assert mark.stat().st_mtime > 0
    os.utime(mark, (0, 0))
    python_environment.use(built)
    assert mark.stat().st_mtime > 0
    with open(built["path"] + ".lock") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(BlockingIOError):
            python_environment.use(built)
    shutil.rmtree(built["path"])
    with pytest.raises(FileNotFoundError):
        python_environment.use(built)


def test_uv_says_that_it_does_not_look_at_the_systems_packages() -> None:
    """The reason why pip has to help. Should uv learn it, this is where it shows."""
    if UV is None:
        pytest.skip("there is no uv here")
    said = subprocess.run([UV, "help", "venv"], check=True, capture_output=True, text=True).stdout
    assert "will _not_ take system site packages into account" in " ".join(said.split())
