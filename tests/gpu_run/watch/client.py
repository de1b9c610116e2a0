"""The client's end of one ``gpu-run watch``: the real program, spoken to through pipes."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

from airflow_provider_gpu_cluster.gpu_run import protocol
from airflow_provider_gpu_cluster.gpu_run.watch.watched_job import PIECE_BYTES
from tests.gpu_run.host import Host
from tests.harness.patience import PATIENCE_S

Event = dict[str, Any]


class Client:
    """The client's end of one ``gpu-run watch``."""

    def __init__(self, host: Host, change: str = "") -> None:
        program = (
            "import sys\n"
            "from airflow_provider_gpu_cluster.gpu_run import command_line\n"
            "from airflow_provider_gpu_cluster.gpu_run.linux import inotify\n"
            "from airflow_provider_gpu_cluster.gpu_run.watch import server, watched_job\n"
            f"{change}\n"
            "sys.exit(command_line.main(sys.argv[1], ['watch']))"
        )
        pipe = subprocess.PIPE
        command = [sys.executable, "-c", program, host.program]
        self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe)
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.stdin, self.stdout = self.process.stdin, self.process.stdout
        #: All that have come, and those of them that no test has asked for yet.
        self.events: list[Event] = []
        self._left: list[Event] = []
        self.has_ended = False
        self._send({"settings": host.settings})
        while self.stdout.readline().rstrip(b"\n") != protocol.REPLY_MARK:
            pass
        assert json.loads(self.stdout.readline()) == {"ok": {}}

    def _send(self, command: Event) -> None:
        self.stdin.write(json.dumps(command).encode() + b"\n")
        self.stdin.flush()

    def do(self, do: str, **command: Any) -> None:
        self._send({"do": do, **command})

    def subscribe(self, job_id: str, *, key: int = 1, reader: str | None = None, ack: Event | None = None) -> None:
        self.do("subscribe", key=key, job_id=job_id, reader=reader, ack=ack)

    def ack(self, offset: int, *, key: int = 1, attempt: int = 1, note: Any = None) -> None:
        self.do("ack", key=key, attempt=attempt, offset=offset, note=note)

    def read(self) -> Event:
        line = self.stdout.readline()
        assert line, f"it has ended: {self.end()}"
        event: Event = json.loads(line)
        self.events.append(event)
        return event

    def until(self, name: str, *, key: int = 1, state: str | None = None) -> Event:
        """Return the next event of that name, for that key, that was not returned yet."""

        def is_wanted(event: Event) -> bool:
            found = (event["event"], event.get("key")) == (name, key)
            return found and (state is None or event["status"]["state"] == state)

        for event in self._left:
            if is_wanted(event):
                self._left.remove(event)
                return event
        while not is_wanted(event := self.read()):
            self._left.append(event)
        return event

    def read_output(self, size: int, *, key: int = 1, acks: bool = True) -> bytes:
        """Read until so many bytes of output have come; each piece must begin where the one before has ended."""
        data = b""
        end: tuple[int, int] | None = None
        while len(data) < size:
            event = self.until("output", key=key)
            piece = event["data"].encode("utf-8", "surrogateescape")
            assert end in (None, (event["attempt"], event["offset"]))
            assert len(piece) <= PIECE_BYTES
            end = (event["attempt"], event["offset"] + len(piece))
            assert event["log_bytes"] >= end[1]
            data += piece
            if acks:
                self.ack(end[1], key=key, attempt=end[0])
        return data

    def settle(self) -> list[Event]:
        """Return what comes until everything sent before has been answered."""
        before = len(self.events)
        self.subscribe("", key=-1)
        self.until("refused", key=-1)
        return self.events[before:-1]

    def end(self) -> tuple[int, str]:
        """Hang up, and return the exit code and what was said on standard error."""
        self.has_ended = True
        self.stdin.close()
        self.stdout.close()
        assert self.process.stderr is not None
        with self.process.stderr as stderr:
            said = stderr.read().decode()
        return self.process.wait(PATIENCE_S), said
