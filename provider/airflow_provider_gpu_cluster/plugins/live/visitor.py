"""Who looks at a page that stays open: asked again and again whether they still may."""

from __future__ import annotations

from collections.abc import Mapping

from airflow.api_fastapi.app import get_auth_manager
from airflow.api_fastapi.auth.managers.base_auth_manager import COOKIE_NAME_JWT_TOKEN
from airflow.api_fastapi.auth.managers.models.base_user import BaseUser
from airflow.api_fastapi.auth.managers.models.resource_details import DagAccessEntity, DagDetails
from airflow.api_fastapi.auth.managers.simple.services.login import SimpleAuthManagerLogin
from airflow.api_fastapi.core_api.security import resolve_user_from_token
from airflow.models.dag import DagModel
from fastapi import HTTPException
from fastapi.concurrency import run_in_threadpool
from starlette.requests import HTTPConnection

from airflow_provider_gpu_cluster.plugins.api.rights import rights_of
from airflow_provider_gpu_cluster.plugins.api.same_site import lets_everybody_in, why_foreign
from airflow_provider_gpu_cluster.plugins.job_detail import Rights


class Visitor:
    """
    A user of Airflow, and the token by which they are known.

    :param user: as the token says; it is asked again, since tokens expire and are revoked.
    :param token: None for one who is known otherwise, as the user of a public role.
    """

    def __init__(self, user: BaseUser, token: str | None) -> None:
        self.user = user
        self._token = token

    @property
    def name(self) -> str:
        """By which their open pages are counted."""
        return str(self.user.get_id())

    async def check(self) -> None:
        """
        See whether they are still logged in.

        :raises HTTPException: 401, 403.
        """
        if self._token is not None:
            self.user = await resolve_user_from_token(self._token)
        else:
            # It has the rights that its role had when it was made.
            self.user = await _public_user() or self.user

    async def rights(self, dag_id: str) -> Rights:
        """
        Return what they may do with the jobs of a DAG.

        :raises HTTPException: 403: they may not even see them.
        """

        def look() -> Rights:
            details = DagDetails(id=dag_id, team_name=DagModel.get_team_name(dag_id))
            may_see = get_auth_manager().is_authorized_dag(
                method="GET", access_entity=DagAccessEntity.TASK_INSTANCE, details=details, user=self.user
            )
            if not may_see:
                raise HTTPException(403, "Forbidden")
            return rights_of(self.user, dag_id)

        return await run_in_threadpool(look)


async def visitor_of(connection: HTTPConnection) -> Visitor:
    """
    Return who opens a page, by the token or the session cookie that comes with the request.

    No rule of browsers keeps another site from opening a socket and reading from it, and the cookie goes along. So a
    browser has to say where a socket is opened. An answer to ``GET`` it lets no other site read in any case.

    :raises HTTPException: 401, 403: nobody is logged in; or another site opens it in the name of who is.
    """
    token = _bearer(connection.headers)
    if token is None:
        token = connection.cookies.get(COOKIE_NAME_JWT_TOKEN) or _token_of_everybody()
        says_where = {"origin", "sec-fetch-site"} & set(connection.headers)
        why = why_foreign(connection.headers) if says_where or connection.scope["type"] == "websocket" else None
        if why is not None:
            raise HTTPException(403, f"This is not opened, as {why}.")
        public = None if token is not None else await _public_user()
        if public is not None:
            return Visitor(public, None)
    return Visitor(await resolve_user_from_token(token), token)


def _token_of_everybody() -> str | None:
    """Return a token where nobody needs to log in; Airflow's middleware that adds it does not see sockets."""
    return str(SimpleAuthManagerLogin.create_token_all_admins()) if lets_everybody_in() else None


async def _public_user() -> BaseUser | None:
    """Return who everybody is that has not logged in, if the FAB auth manager has a role for that; as above."""
    build = getattr(get_auth_manager(), "build_public_user", None)
    return None if build is None else await run_in_threadpool(build)


def _bearer(headers: Mapping[str, str]) -> str | None:
    kind, _, token = headers.get("authorization", "").partition(" ")
    return token.strip() if kind.lower() == "bearer" else None
