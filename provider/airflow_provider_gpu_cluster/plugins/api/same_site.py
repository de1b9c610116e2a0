"""
Keeps other sites from acting in the name of who is logged in here.

A browser sends its cookie along with a request that another site makes it send. So what changes something is done only
for a request that says where it comes from. A script that sends a token knows the token, and needs to say nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated
from urllib.parse import urlsplit

from airflow.sdk.configuration import conf
from fastapi import Depends, Header, HTTPException, Request


def why_foreign(headers: Mapping[str, str]) -> str | None:
    """
    Return why a request may come from another site; None if it does not.

    :param headers: of the request, or of the one that opens a socket.
    """
    if headers.get("authorization", "").lower().startswith("bearer "):
        return None
    site = headers.get("sec-fetch-site")
    if site is not None:
        # A browser says it only over connections that nobody can listen to.
        return None if site == "same-origin" else "it comes from another site"
    origin = headers.get("origin")
    if origin is None:
        return "it has no token, and does not say where it comes from"
    own = (headers.get("host"), urlsplit(conf.get("api", "base_url", fallback="") or "").netloc)
    return None if urlsplit(origin).netloc in filter(None, own) else "it comes from another site"


def of_this_site(request: Request, content_type: Annotated[str, Header(include_in_schema=False)] = "") -> None:
    """
    Let only such requests pass, and only with JSON, which a form of another site cannot send.

    :raises HTTPException: 403, 415.
    """
    why = why_foreign(request.headers)
    if why is not None:
        raise HTTPException(403, f"This request is not carried out, as {why}.")
    if content_type.partition(";")[0].strip().lower() != "application/json":
        raise HTTPException(415, "Send the arguments as JSON, with 'Content-Type: application/json'.")


OfThisSite = Depends(of_this_site)
