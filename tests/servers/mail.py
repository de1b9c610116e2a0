"""An SMTP server on loopback that keeps what it receives."""

from __future__ import annotations

import email.message
import email.policy
import json
from typing import Any

from aiosmtpd.controller import Controller


class _OnAnyPort(Controller):
    def _trigger_server(self) -> None:
        # It first connects to itself, for which it has to know the port that it got.
        server: Any = self.server
        self.port = server.sockets[0].getsockname()[1]
        super()._trigger_server()  # type: ignore[no-untyped-call]


class MailServer:
    """
    A real SMTP server, without TLS.

    :ivar mails: what has arrived.
    """

    def __init__(self) -> None:
        self.mails: list[email.message.EmailMessage] = []
        self._controller = _OnAnyPort(self, hostname="127.0.0.1", port=0)
        self._controller.start()
        self._is_closed = False

    @property
    def connection(self) -> str:
        """Airflow's connection to it, as JSON."""
        extra = {"disable_ssl": True, "disable_tls": True, "from_email": "airflow@example.org", "retry_limit": 0}
        return json.dumps({"conn_type": "smtp", "host": "127.0.0.1", "port": self._controller.port, "extra": extra})

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        mail = email.message_from_bytes(envelope.content, policy=email.policy.default)
        assert isinstance(mail, email.message.EmailMessage)
        self.mails.append(mail)
        return "250 OK"

    def close(self) -> None:
        if not self._is_closed:
            self._controller.stop()
        self._is_closed = True


def html_of(mail: email.message.EmailMessage) -> str:
    """Return the HTML part of a mail."""
    part = mail.get_body(("html",))
    assert part is not None
    return str(part.get_content())
