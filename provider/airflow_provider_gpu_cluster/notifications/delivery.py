"""Hands a message to several receivers at once, none of which may hold up, or spoil it for, the others."""

from __future__ import annotations

import contextvars
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from airflow_provider_gpu_cluster.connection.words import words_of


def deliver(sends: Mapping[str, Callable[[], Any]], *, within_s: float) -> dict[str, str]:
    """
    Call functions that each send a message.

    :param sends: a function for each receiver's name.
    :param within_s: how long to wait for them together; what takes longer counts as failed, and is left to itself.
    :return: for each receiver that has not got the message, why.
    """
    # One that has not ended by then may still have failed or not, which is not known.
    failures = dict.fromkeys(sends, f"it was not sent within {within_s:g} s")
    lock = threading.Lock()

    def call(name: str, send: Callable[[], Any]) -> None:
        try:
            send()
            why = None
        except Exception as error:
            why = words_of(error)
        with lock:
            if why is None:
                failures.pop(name, None)
            else:
                failures[name] = why

    threads = [
        threading.Thread(target=contextvars.copy_context().run, args=(call, name, send), daemon=True)
        for name, send in sends.items()
    ]
    until = time.monotonic() + within_s
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(until - time.monotonic(), 0))
    with lock:
        return dict(failures)
