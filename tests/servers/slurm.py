"""
A real Slurm on this machine: a controller, two nodes with four GPUs each (devices like /dev/null), and accounting.

Everything lies in one folder and listens on free loopback ports; nothing of the system's own Slurm, munge or database
is used. Every process dies with the one that has started it.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import signal
import socket
import stat
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.harness.leftovers import kill_everything_under
from tests.harness.ports import free_ports
from tests.servers.sshd import login

HOW_TO_INSTALL = (
    "The tests need a real Slurm, and something of it is not here: {}. `make test` installs it; by hand, on Debian and "
    "Ubuntu: sudo apt-get install slurm-wlm slurmdbd munge mariadb-server"
)
PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "slurmdbd", "mariadbd", "mariadb-install-db")
NODES = ("gpu1", "gpu2")
GPUS_PER_NODE = 4

_PATH = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])
# Four workers on two cores, and perhaps a slow disk: a database is made and filled before it answers.
_PATIENCE_S = 240.0
_PR_SET_PDEATHSIG = 1

_CONFIG = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.sock
SlurmUser={user}
SlurmdUser={user}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/%n.log
SlurmdParameters=config_overrides
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
DefMemPerCPU=100
GresTypes=gpu
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=1
JobAcctGatherParams=OverMemoryKill
SchedulerParameters=sched_interval=1,batch_sched_delay=0,bf_interval=1,sched_min_interval=1
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
KillWait=8
MinJobAge={min_job_age}
SlurmdTimeout={slurmd_timeout}
MaxArraySize={max_array_size}
MessageTimeout=5
TCPTimeout=2
ReturnToService=2
{accounting}
{nodes}
PartitionName=gpu Nodes=ALL Default=YES MaxTime=1-0 PriorityTier=10 PreemptMode=OFF
PartitionName=scavenger Nodes=ALL MaxTime=1-0 PriorityTier=1 PreemptMode=REQUEUE
PartitionName=spot Nodes=ALL MaxTime=1-0 PriorityTier=1 PreemptMode=CANCEL GraceTime=3
PartitionName=lone Nodes=gpu1 MaxTime=1-0 PriorityTier=10 PreemptMode=OFF
"""
_NODE = (
    "NodeName={name} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs=64 RealMemory=64000 Gres=gpu:{type}:{gpus}"
)
_ACCOUNTING = """\
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort={port}
AccountingStoragePass={folder}/munge.sock
AccountingStorageEnforce=associations,limits,qos
AccountingStorageTRES=gres/gpu
"""
_DATABASE = """\
AuthType=auth/munge
AuthInfo=socket={folder}/munge.sock
DbdHost=localhost
DbdAddr=127.0.0.1
DbdPort={port}
SlurmUser={user}
StorageType=accounting_storage/mysql
StorageHost=localhost
StorageUser={user}
StorageLoc=slurm
LogFile={folder}/slurmdbd.log
PidFile={folder}/slurmdbd.pid
"""


def missing_parts() -> list[str]:
    """Return the programs that are not installed."""
    return [name for name in PROGRAMS if shutil.which(name, path=_PATH) is None]


class RealSlurm:
    """
    A Slurm of the current user.

    Its partitions are ``gpu``, the default; ``scavenger`` and ``spot``, whose jobs make way for those of the default
    one: the former are requeued if they may be, the latter are cancelled after a few seconds of grace; and ``lone``,
    which has one node. With accounting there are the QOS ``single`` and ``three``, which allow each user so many jobs
    at a time, waiting or running, and ``none``, which allows none.

    :param folder: an empty folder with a short path, for all it writes.
    :param accounting: whether it has a database of jobs (slurmdbd).
    :param gpu_type: what its GPUs are called.
    :param max_array_size: as in its configuration.
    """

    def __init__(
        self, folder: Path, *, accounting: bool = True, gpu_type: str = "a100", max_array_size: int = 1001
    ) -> None:
        self.folder = folder
        self.accounting = accounting
        self._gpu_type = gpu_type
        self._max_array_size = max_array_size
        self.environment = {"SLURM_CONF": str(folder / "slurm.conf")}
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._ports = dict(zip(("controller", "database", *NODES), free_ports(2 + len(NODES)), strict=True))

    def start(self) -> None:
        """Start it, and return when its nodes are ready for jobs."""
        (self.folder / "state").mkdir()
        self.configure()
        key = self.folder / "munge.key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o400)
        self._start(
            "munged",
            "--foreground",
            "--force",
            *(f"--{name}={self.folder}/munge.{end}" for name, end in _MUNGE.items()),
        )
        self._wait((self.folder / "munge.sock").exists)
        if self.accounting:
            self._start_database()
        self.start_controller(clean=True)
        for name in NODES:
            self.start_node(name)
        self._wait(self._is_idle)

    def stop(self) -> None:
        """End it, and every job with it."""
        for name in (*NODES, "slurmctld", "slurmdbd", "mariadbd", "munged"):
            self._kill(name)
        kill_everything_under(self.folder)

    def configure(self, *, min_job_age_s: int = 300, slurmd_timeout_s: int = 300) -> None:
        """
        Write its configuration, and have it read if it runs.

        :param min_job_age_s: how long the controller remembers jobs that have ended; it forgets them up to as long
            later.
        :param slurmd_timeout_s: after how long without a sign of life a node has failed.
        """
        nodes = [
            _NODE.format(
                name=name,
                host=socket.gethostname(),
                port=self._ports[name],
                type=self._gpu_type,
                gpus=GPUS_PER_NODE,
            )
            for name in NODES
        ]
        config = _CONFIG.format(
            host=socket.gethostname(),
            controller_port=self._ports["controller"],
            folder=self.folder,
            user=login(),
            min_job_age=min_job_age_s,
            slurmd_timeout=slurmd_timeout_s,
            max_array_size=self._max_array_size,
            accounting=_ACCOUNTING.format(folder=self.folder, port=self._ports["database"]) if self.accounting else "",
            nodes="\n".join(nodes),
        )
        (self.folder / "slurm.conf").write_text(config)
        (self.folder / "cgroup.conf").touch()
        gres = []
        for name in NODES:
            (self.folder / name).mkdir(exist_ok=True)
            for number in range(GPUS_PER_NODE):
                # Of plain files, Slurm tells no job which are its own.
                with contextlib.suppress(FileExistsError):
                    os.mknod(self.folder / name / f"nvidia{number}", stat.S_IFCHR | 0o600, os.makedev(1, 3))
            devices = f"{self.folder}/{name}/nvidia[0-{GPUS_PER_NODE - 1}]"
            gres.append(f"NodeName={name} Name=gpu Type={self._gpu_type} File={devices}\n")
        (self.folder / "gres.conf").write_text("".join(gres))
        if "slurmctld" in self._processes:
            self.run("scontrol", "reconfigure", check=True)

    def end_jobs(self) -> None:
        """End every job, and return when all are gone and the nodes are free."""
        self.run("scancel", "--user", login(), check=True)
        self._wait(lambda: not self.run("squeue", "-h").stdout)
        self._wait(self._is_idle)

    def start_controller(self, *, clean: bool = False) -> None:
        """
        Start the controller.

        :param clean: forget every job.
        """
        self._start("slurmctld", "-D", "-i" if not clean else "-ci")
        self._wait(lambda: self.run("scontrol", "ping").returncode == 0)

    def stop_controller(self) -> None:
        """Stop the controller; jobs go on."""
        process = self._processes.pop("slurmctld")
        process.terminate()
        process.wait()

    def start_node(self, name: str) -> None:
        """Start the daemon of a node."""
        self._start("slurmd", "-D", "-N", name, known_as=name)

    def stop_node(self, name: str) -> None:
        """End the daemon of a node; what the node's jobs have started goes on."""
        self._kill(name)

    def run(
        self,
        *command: str,
        check: bool = False,
        standard_input: str = "",
        timeout_s: float = 60,
        env: dict[str, str] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """
        Run one of Slurm's commands.

        :param env: variables that it gets instead of this process's own.
        """
        done = subprocess.run(
            command,
            input=standard_input,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            env={**(os.environ if env is None else env), **self.environment, "PATH": _PATH},
        )
        assert not check or done.returncode == 0, f"{command} failed: {done.stdout}{done.stderr}"
        return done

    def _is_idle(self) -> bool:
        return self.run("sinfo", "-h", "-p", "gpu", "-o", "%D %T").stdout.split() == [str(len(NODES)), "idle"]

    def _start_database(self) -> None:
        data, database_socket = self.folder / "database", self.folder / "database.sock"
        temporary = self.folder / "tmp"
        temporary.mkdir()
        install = [
            "mariadb-install-db",
            "--no-defaults",
            f"--datadir={data}",
            f"--user={login()}",
            "--auth-root-authentication-method=normal",
            "--skip-test-db",
            # Two databases that are made at once would take each other's temporary tables away.
            f"--tmpdir={temporary}",
        ]
        self.run(*install, check=True)
        self._start(
            "mariadbd",
            "--no-defaults",
            f"--datadir={data}",
            f"--user={login()}",
            f"--socket={database_socket}",
            f"--pid-file={self.folder}/mariadbd.pid",
            f"--tmpdir={temporary}",
            "--skip-networking",
            "--innodb-buffer-pool-size=16M",
            "--innodb-flush-log-at-trx-commit=0",
        )
        self._wait(database_socket.exists)
        config = self.folder / "slurmdbd.conf"
        config.write_text(_DATABASE.format(folder=self.folder, port=self._ports["database"], user=login()))
        config.chmod(0o600)
        self._start("slurmdbd", "-D", MYSQL_UNIX_PORT=str(database_socket))
        self._wait(lambda: self.run("sacctmgr", "-n", "show", "qos").returncode == 0)
        for words in (
            "add cluster test",
            "add qos single MaxSubmitJobsPerUser=1",
            "add qos three MaxSubmitJobsPerUser=3",
            "add qos none MaxSubmitJobsPerUser=0",
            f"add user {login()} account=root",
            f"modify user {login()} set qos+=single,three,none defaultqos=normal",
        ):
            # What is there already is an error, and all right.
            self.run("sacctmgr", "-i", *words.split())

    # -- processes -----------------------------------------------------------------------------------------------

    def _start(self, program: str, *arguments: str, known_as: str = "", **environment: str) -> None:
        path = shutil.which(program, path=_PATH)
        assert path, HOW_TO_INSTALL.format(program)
        with (self.folder / f"{known_as or program}.out").open("ab") as out:
            self._processes[known_as or program] = subprocess.Popen(
                [path, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                env={**os.environ, **self.environment, "PATH": _PATH, **environment},
                preexec_fn=_die_with_parent,
            )

    def _kill(self, name: str) -> None:
        process = self._processes.pop(name, None)
        if process is not None:
            process.kill()
            process.wait()

    def _wait(self, check: Callable[[], bool]) -> None:
        deadline = time.monotonic() + _PATIENCE_S
        while not check():
            gone = [name for name, process in self._processes.items() if process.poll() is not None]
            if gone or time.monotonic() > deadline:
                raise RuntimeError(f"Slurm does not start ({gone} ended):\n{self._last_words()}")
            time.sleep(0.02)

    def _last_words(self) -> str:
        files: Sequence[Path] = sorted([*self.folder.glob("*.out"), *self.folder.glob("*.log")])
        words = [f"{file.name}:\n{file.read_text(errors='replace')[-1000:]}" for file in files]
        return "\n".join(words)


_MUNGE = {"socket": "sock", "key-file": "key", "pid-file": "pid", "log-file": "log", "seed-file": "seed"}


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
