"""Carries out verbs that only look in this process, instead of over SSH, which other tests go."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from airflow_provider_gpu_cluster.connection import reply
from airflow_provider_gpu_cluster.connection.wire_types import checked
from airflow_provider_gpu_cluster.exceptions import REPLY_ERRORS, GpuClusterError
from airflow_provider_gpu_cluster.gpu_run.command_line import VERBS
from airflow_provider_gpu_cluster.gpu_run.errors import Refused
from airflow_provider_gpu_cluster.gpu_run.store.directories import Root


class VerbsHere:
    """
    Stands for :func:`.live.asking.ask`.

    :param root: of the cluster that is asked.
    """

    def __init__(self, root: Root) -> None:
        self.root = root
        self.asked: list[str] = []

    async def __call__(self, conn_id: str, verb: str, request: Mapping[str, Any], **_: Any) -> Any:
        self.asked.append(verb)
        sent = json.loads(json.dumps(dict(request)))
        try:
            answer = VERBS[verb].work()(root=self.root, request=sent)
        except Refused as refusal:
            error = REPLY_ERRORS.get(refusal.code, GpuClusterError)(refusal.message)
            error.code = refusal.code
            raise error from None
        return checked(json.loads(json.dumps(answer.value)), reply._REPLIES[verb])
