"""Twenty mapped tasks that only wait, or do the least over SSH before: what Airflow and paramiko take for as many."""

from __future__ import annotations

import base64
import io
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.providers.standard.triggers.temporal import DateTimeTrigger
from airflow.sdk import DAG, BaseHook, BaseOperator, timezone

if TYPE_CHECKING:
    from airflow.sdk import Context


class Sleep(BaseOperator):
    """Defer for some seconds, and end from the trigger: what a deferrable operator takes that does nothing else."""

    def __init__(self, *, seconds: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.seconds = seconds

    def execute(self, context: Context) -> None:
        """Defer."""
        self.start()
        until = timezone.utcnow() + timedelta(seconds=self.seconds)
        self.defer(trigger=DateTimeTrigger(moment=until, end_from_trigger=True), method_name="execute_complete")

    def start(self) -> None:
        """Start what is waited for: nothing."""


class SshSleep(Sleep):
    """
    The same, and before it one command over SSH, which nobody hears of again.

    It is the least that an operator can do whose worker starts something by paramiko: an Airflow connection, one login,
    one ``exec``. Nothing is recorded, no GPU is leased, and a retry would start it twice.
    """

    def start(self) -> None:
        """Start a process on the cluster that sleeps as long as this waits."""
        import paramiko

        connection = BaseHook.get_connection("bench_ssh")
        assert connection.host
        assert connection.port
        kind, host_key = connection.extra_dejson["host_key"].split()
        with paramiko.SSHClient() as client:
            client.get_host_keys().add(
                f"[{connection.host}]:{connection.port}",
                kind,
                paramiko.PKey.from_type_string(kind, base64.b64decode(host_key)),
            )
            client.connect(
                connection.host,
                connection.port,
                connection.login,
                pkey=paramiko.Ed25519Key.from_private_key(io.StringIO(connection.extra_dejson["private_key"])),
                allow_agent=False,
                look_for_keys=False,
            )
            _, stdout, _ = client.exec_command(f"setsid sleep {self.seconds} > /dev/null 2>&1 < /dev/null & echo $!")
            int(stdout.read())


with DAG("bench_mapped_sleep", schedule=None):
    Sleep.partial(task_id="sleep").expand(seconds=[20] * 20)

with DAG("bench_mapped_ssh_sleep", schedule=None):
    SshSleep.partial(task_id="sleep").expand(seconds=[20] * 20)
