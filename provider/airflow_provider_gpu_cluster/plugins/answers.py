"""What all answers of our application have in common: headers that forbid what they do not need."""

from __future__ import annotations

from typing import Any

from starlette.datastructures import MutableHeaders

from airflow_provider_gpu_cluster.plugins.api.errors import answer_to

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'self'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
_FOR_EVER = "public, max-age=31536000, immutable"


class Answers:
    """
    ASGI middleware.

    :param app: what answers.
    :param files: path of the files that never change, which browsers may keep; nothing else may be kept.
    """

    def __init__(self, app: Any, *, files: str) -> None:
        self._app = app
        self._files = files

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer a request; whatever happens, the answer is one for a person and not a traceback."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        has_begun = False

        async def send_with_headers(message: Any) -> None:
            nonlocal has_begun
            if message["type"] == "http.response.start":
                has_begun = True
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
                is_file = f"{self._files}/" in scope["path"] and message["status"] == 200
                headers.setdefault("Cache-Control", _FOR_EVER if is_file else "no-store")
            await send(message)

        try:
            await self._app(scope, receive, send_with_headers)
        except Exception as error:
            if has_begun:
                raise
            await answer_to(error)(scope, receive, send_with_headers)
