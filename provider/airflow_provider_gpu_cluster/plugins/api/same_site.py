"""
Keeps other sites from acting in the name of who is logged in here.

A browser sends its cookie along with a request that another site makes it send. So what changes something is done only
for a request that says where it comes from. A script that sends a token knows the token, and needs to say nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated
from urllib.parse import urlsplit

from airflow.api_fastapi.app import get_auth_manager
from airflow.api_fastapi.auth.managers.simple.simple_auth_manager import SimpleAuthManager
from airflow.sdk.configuration import conf
from fastapi import Depends, Header, HTTPException, Request


def why_foreign(headers: Mapping[str, str]) -> str | None:
    """
    Return why a request may come from another site; None if it does not.

    :param headers: of the request, or of the one that opens a socket.
    """
    site, origin = headers.get("sec-fetch-site"), headers.get("origin")
    has_token = headers.get("authorization", "").lower().startswith("bearer ")
    # Where nobody needs to log in, Airflow gives a token to requests that browsers send as well.
    if has_token and (site is origin is None or not lets_everybody_in()):
        return None
    if site is not None:
        # A browser says it only over connections that nobody can listen to.
        return None if site == "same-origin" else "it comes from another site"
    if origin is None:
        return "it has no token, and does not say where it comes from"
    own = (headers.get("host"), urlsplit(conf.get("api", "base_url", fallback="") or "").netloc)
    return None if urlsplit(origin).netloc in filter(None, own) else "it comes from another site"


def lets_everybody_in() -> bool:
    """Return whether nobody needs to log in to this Airflow."""
    is_simple = isinstance(get_auth_manager(), SimpleAuthManager)
    return is_simple and conf.getboolean("core", "simple_auth_manager_all_admins", fallback=False)


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
