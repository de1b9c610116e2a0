"""Real databases that Airflow can keep its tables in, each on a socket in a folder of its own."""

from __future__ import annotations

import contextlib
import getpass
import glob
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import sqlalchemy

from tests.harness.patience import PATIENCE_S

HOW_TO_INSTALL = (
    "The tests need PostgreSQL and MariaDB, and {} is not here. `make test` installs it; by hand, on Debian and "
    "Ubuntu: sudo apt-get install postgresql mariadb-server"
)
_PATH = os.pathsep.join(
    [os.environ.get("PATH", ""), "/usr/sbin", "/sbin", *sorted(glob.glob("/usr/lib/postgresql/*/bin"), reverse=True)]
)


def program(name: str) -> str:
    """Return the path of a program of a database; one that is missing fails the test, and never skips it."""
    found = shutil.which(name, path=_PATH)
    assert found, HOW_TO_INSTALL.format(name)
    return found


@contextlib.contextmanager
def postgresql(folder: Path) -> Iterator[str]:
    """Run a PostgreSQL server, and yield the URL of an empty database."""
    data = folder / "data"
    # It refuses to run as root.
    user = "postgres" if os.geteuid() == 0 else getpass.getuser()
    as_user = ["runuser", "-u", user, "--"] if os.geteuid() == 0 else []
    if as_user:
        shutil.chown(folder, user)
        for parent in folder.parents:
            if parent.stat().st_mode & 0o001 == 0 and parent.owner() != user:
                parent.chmod(parent.stat().st_mode | 0o001)
    subprocess.run(
        [*as_user, program("initdb"), "-D", data, "-U", "airflow", "-A", "trust", "-E", "UTF8", "--locale=C", "-N"],
        check=True,
        capture_output=True,
    )
    options = [
        "-c",
        "listen_addresses=",
        "-k",
        str(folder),
        "-c",
        "fsync=off",
        "-c",
        "timezone=Asia/Tokyo",
        "-c",
        "lock_timeout=10s",
    ]
    url = f"postgresql+psycopg2://airflow@/postgres?host={folder}"
    server: list[str | Path] = [*as_user, program("postgres"), "-D", str(data), *options]
    with _running(server, folder, lambda: _answers(url)):
        yield url


@contextlib.contextmanager
def mariadb(folder: Path) -> Iterator[str]:
    """Run a MariaDB server, and yield the URL of an empty database."""
    user, socket, temporary = getpass.getuser(), folder / "socket", folder / "tmp"
    temporary.mkdir()
    common = ["--no-defaults", f"--datadir={folder / 'data'}", f"--user={user}", f"--tmpdir={temporary}"]
    install = [program("mariadb-install-db"), *common, "--auth-root-authentication-method=normal", "--skip-test-db"]
    subprocess.run(install, check=True, capture_output=True)
    server = [
        *(program("mariadbd"), *common, f"--socket={socket}", f"--pid-file={folder}/pid", "--skip-networking"),
        *("--innodb-flush-log-at-trx-commit=0", "--default-time-zone=+09:00", "--lock-wait-timeout=10"),
    ]
    url = f"mysql+pymysql://root@localhost/{{}}?unix_socket={socket}&charset=utf8mb4"
    # Its driver leaves a socket open when there is nobody yet who answers.
    with _running(server, folder, lambda: socket.exists() and _answers(url.format("mysql"))):
        engine = sqlalchemy.create_engine(url.format("mysql"))
        with engine.begin() as connection:
            # As an administrator leaves it who thinks of nothing.
            connection.exec_driver_sql("create database airflow character set latin1")
        engine.dispose()
        yield url.format("airflow")


@contextlib.contextmanager
def _running(command: Sequence[str | Path], folder: Path, is_up: Callable[[], bool]) -> Iterator[None]:
    with (folder / "server.log").open("wb") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + PATIENCE_S
        while not is_up():
            has_time = time.monotonic() < deadline and server.poll() is None
            assert has_time, (folder / "server.log").read_text(errors="replace")[-2000:]
            time.sleep(0.05)
        yield
    finally:
        server.terminate()
        server.wait(PATIENCE_S)


def _answers(url: str) -> bool:
    engine = sqlalchemy.create_engine(url)
    try:
        with engine.connect():
            return True
    except sqlalchemy.exc.OperationalError:
        return False
    finally:
        engine.dispose()
