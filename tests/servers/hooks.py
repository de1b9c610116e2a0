"""An HTTP server on loopback that receives webhooks."""

from __future__ import annotations

import http.server
import ssl
import threading
import time
from typing import Any


class Hooks:
    """
    A server that answers each request with the next of its answers, the last one again and again.

    An answer is a status, headers, and whether to answer at all.
    """

    def __init__(self, *, tls: ssl.SSLContext | None = None) -> None:
        self.answers: list[tuple[int | None, dict[str, str]]] = [(200, {})]
        self.requests: list[tuple[str, dict[str, str], bytes, float]] = []
        self.is_over = threading.Event()
        hooks = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                headers = {name.lower(): value for name, value in self.headers.items()}
                hooks.requests.append((self.path, headers, body, time.monotonic()))
                code, reply = hooks.answers.pop(0) if len(hooks.answers) > 1 else hooks.answers[0]
                if code is None:
                    hooks.is_over.wait(30)
                    return
                self.send_response(code)
                for name, value in reply.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *args: Any) -> None: ...

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        scheme = "http"
        if tls is not None:
            scheme = "https"
            self.server.socket = tls.wrap_socket(self.server.socket, server_side=True)
        self.origin = f"{scheme}://127.0.0.1:{self.server.server_port}"
        self.url = f"{self.origin}/hooks/gpu?team=ml"
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def close(self) -> None:
        self.is_over.set()
        self.server.shutdown()
        self.server.server_close()
