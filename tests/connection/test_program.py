"""The program as one file: the same bytes for the same sources, and it runs wherever it is put."""

from __future__ import annotations

import ast
import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_gpu_cluster import gpu_run
from airflow_provider_gpu_cluster.connection.program import Program, build_program
from airflow_provider_gpu_cluster.gpu_run import protocol
from tests.harness.leftovers import kill_everything_under
from tests.harness.patience import PATIENCE_S
from tests.harness.small_disk import fill, make_read_only, small_disk

PYTHON = os.path.realpath(sys.executable)


def put(root: Path) -> Path:
    """Install the program below a root, as if it had been uploaded."""
    program = build_program()
    path = root / ".gpu-run" / program.name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(program.content)
    return path


def start(path: Path, verb: str = "capacity", python: str = PYTHON, **environment: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [python, "-I", "-S", str(path), verb],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={"PATH": os.environ["PATH"], **environment},
    )


def answer(process: subprocess.Popen[bytes], leases: Path) -> dict[str, Any]:
    settings = {"virtual_gpus": 2, "lease_dir": str(leases), "python": None}
    out, err = process.communicate(json.dumps({"settings": settings}).encode() + b"\n", timeout=PATIENCE_S)
    mark, _, reply = out.partition(protocol.REPLY_MARK + b"\n")
    assert reply, err.decode()
    assert mark.strip() == b""
    value: dict[str, Any] = json.loads(reply)
    return value


def test_the_same_sources_make_the_same_bytes() -> None:
    first = build_program()
    build_program.cache_clear()
    second = build_program()
    assert first is not second
    assert (first.name, first.content) == (second.name, second.content)


@pytest.mark.parametrize(
    "other", [{"a.py": b"12"}, {"b.py": b"1", "c.py": b"2"}, {"a.py": b"", "c.py": b"12"}, {"a.py": b"1"}, {}]
)
def test_other_sources_make_another_name(other: dict[str, bytes]) -> None:
    names = {Program({"a.py": b"1", "c.py": b"2"}).name, Program(other).name}
    assert len(names) == 2
    assert all(re.fullmatch(r"[0-9a-f]{64}\.pyz", name) for name in names)


def test_another_process_makes_the_same_bytes_whatever_its_locale_and_clock(tmp_path: Path) -> None:
    code = (
        "import hashlib; from airflow_provider_gpu_cluster.connection.program import build_program as build; "
        "print(build().name, hashlib.sha256(build().content).hexdigest())"
    )
    env = {**os.environ, "LC_ALL": "C", "TZ": "Pacific/Chatham", "PYTHONHASHSEED": "7"}
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], cwd=tmp_path, env=env, capture_output=True)
    content = hashlib.sha256(build_program().content).hexdigest()
    assert done.stdout.decode().split()[-2:] == [build_program().name, content]


def test_it_holds_the_package_and_nothing_else() -> None:
    with zipfile.ZipFile(io.BytesIO(build_program().content)) as archive:
        names = archive.namelist()
        assert archive.testzip() is None
    package = Path(gpu_run.__file__).parent
    expected = {f"gpu_run/{path.relative_to(package)}" for path in package.rglob("*.py")}
    assert set(names) == expected | {"__main__.py"}
    assert len(names) == len(set(names))


def test_it_imports_nothing_but_itself_and_the_standard_library() -> None:
    found = {name for path in Path(gpu_run.__file__).parent.rglob("*.py") for name in _imported(path)}
    assert {"json", "subprocess"} <= found
    assert found - set(sys.stdlib_module_names) - {"gpu_run"} == set()


def _imported(path: Path) -> Iterator[str]:
    """Yield the packages that a module imports when it runs, wherever in it."""
    todo: list[ast.AST] = [ast.parse(path.read_text())]
    while todo:
        node = todo.pop()
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.partition(".")[0]
        # What only type checkers read is there where they run, and nowhere else.
        is_for_types = isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        todo += node.orelse if isinstance(node, ast.If) and is_for_types else ast.iter_child_nodes(node)


def test_it_runs_alone(tmp_path: Path) -> None:
    path = put(tmp_path / "ro ot'\"$x")
    reply = answer(start(path), tmp_path / "leases")
    assert reply["ok"]["free_gpus"] == 2
    assert sorted(entry.name for entry in path.parent.iterdir() if not entry.is_dir()) == [path.name]


def _interpreters() -> list[str]:
    found = {}
    folders = [*os.environ["PATH"].split(os.pathsep), *map(str, Path.home().glob(".pyenv/versions/*/bin"))]
    for minor in range(8, 16):
        for folder in folders:
            path = f"{folder}/python3.{minor}"
            if "shims" not in folder and os.access(path, os.X_OK):
                found[minor] = path
    return list(found.values())


@pytest.mark.parametrize("python", _interpreters(), ids=os.path.basename)
def test_it_runs_in_every_python_that_is_here(tmp_path: Path, python: str) -> None:
    assert answer(start(put(tmp_path), python=python), tmp_path / "leases")["ok"]["free_gpus"] == 2


def test_it_is_unpacked_once_however_many_start_at_once(tmp_path: Path) -> None:
    path = put(tmp_path)
    for process in [start(path) for _ in range(10)]:
        assert answer(process, tmp_path / "leases")["ok"]
    assert sorted(entry.name for entry in path.parent.iterdir()) == sorted([path.stem, path.name])
    unpacked = {str(file.relative_to(path.parent / path.stem)) for file in (path.parent / path.stem).rglob("*.py")}
    with zipfile.ZipFile(path) as archive:
        assert unpacked == set(archive.namelist())


def test_where_it_cannot_be_unpacked_it_says_what_is_wrong(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 1024) as disk:
        path = put(disk)
        fill(disk)
        settings = {"virtual_gpus": 2, "lease_dir": str(tmp_path / "leases"), "python": None}
        out, err = start(path, "install-check").communicate(json.dumps({"settings": settings}).encode() + b"\n")
        assert json.loads(out.split(b"\n")[1])["error"]["code"] == protocol.NO_SPACE, err
        assert [entry.name for entry in path.parent.iterdir()] == [path.name]
        (disk / "filler").unlink()
        make_read_only(disk)
        out, err = start(path, "install-check").communicate(json.dumps({"settings": settings}).encode() + b"\n")
        assert json.loads(out.split(b"\n")[1])["error"]["code"] == protocol.ROOT_NOT_WRITABLE, err


# -- an interpreter that is too old ------------------------------------------------------------------------------

OLD = """\
#!/bin/sh
# An interpreter that says it is Python 3.6.
shift 2
exec {python} -I -S -c '
import runpy, sys
sys.version_info = (3, 6, 9, "final", 0)
sys.argv = sys.argv[1:]
sys.executable = "/usr/bin/python3.6"
runpy.run_path(sys.argv[0], run_name="__main__")
' "$@"
"""


@pytest.fixture
def old_python(tmp_path: Path) -> str:
    path = tmp_path / "bin" / "python3"
    path.parent.mkdir()
    path.write_text(OLD.format(python=PYTHON))
    path.chmod(0o755)
    return str(path)


def test_an_old_python_gives_way_to_a_newer_one(tmp_path: Path, old_python: str) -> None:
    newer = tmp_path / "newer"
    newer.mkdir()
    (newer / "python3.9").symlink_to(PYTHON)
    process = start(put(tmp_path), python=old_python, PATH=f"/nonexistent:{newer}:/usr/bin:/bin")
    assert answer(process, tmp_path / "leases")["ok"]["free_gpus"] == 2


def test_a_newer_one_that_does_not_run_is_passed_over(tmp_path: Path, old_python: str) -> None:
    """pyenv puts a python3.13 into the PATH that only says that it is not there."""
    shims = tmp_path / "shims"
    shims.mkdir()
    (shims / "python3.13").write_text("#!/bin/sh\necho 'pyenv: python3.13: command not found' >&2\nexit 127\n")
    (shims / "python3.13").chmod(0o755)
    (shims / "python3.9").symlink_to(PYTHON)
    process = start(put(tmp_path), python=old_python, PATH=f"{shims}:/usr/bin:/bin")
    assert answer(process, tmp_path / "leases")["ok"]["free_gpus"] == 2


def test_an_old_python_alone_says_so(tmp_path: Path, old_python: str) -> None:
    # No folder in the PATH has any python3.x, but sh and what the script itself needs are there.
    bare = tmp_path / "bare"
    bare.mkdir()
    for name in ("sh", "env"):
        (bare / name).symlink_to(str(shutil.which(name)))
    reply = answer(start(put(tmp_path), python=old_python, PATH=str(bare)), tmp_path / "leases")
    assert reply["error"]["code"] == protocol.PYTHON_TOO_OLD
    assert reply["error"]["message"] == (
        "Python 3.6 on the cluster is too old: /usr/bin/python3.6. gpu-run needs 3.8 or newer; set 'python' in the "
        "connection to the path of a newer interpreter on the cluster."
    )


def test_real_old_pythons_say_so_as_well(tmp_path: Path) -> None:
    """Those that happen to be here; the one that only says that it is old is tested above in any case."""
    bare = tmp_path / "bare"
    bare.mkdir()
    path = put(tmp_path)
    for python in Path.home().glob(".pyenv/versions/*/bin/python[23].[0-7]"):
        options = [] if python.name.startswith("python2") else ["-I", "-S"]
        command = [str(python), *options, str(path), "capacity"]
        out = subprocess.run(command, input=b"{}\n", capture_output=True, env={"PATH": str(bare)}).stdout
        assert json.loads(out.split(b"\n")[1])["error"]["code"] == protocol.PYTHON_TOO_OLD, python


def test_a_request_that_is_cut_is_not_carried_out(tmp_path: Path) -> None:
    process = start(put(tmp_path), "submit")
    out, _ = process.communicate(b'{"job_id": "j", "spec": {', timeout=PATIENCE_S)
    assert out.strip() == b""
    assert process.returncode == protocol.EXIT_REQUEST_CUT
    kill_everything_under(tmp_path)
