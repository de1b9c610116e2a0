"""Mapped GPU jobs, whose environment variables stay hidden."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from airflow.sdk.definitions.mappedoperator import MappedOperator, OperatorPartial

from airflow_provider_gpu_cluster.exceptions import InvalidJobError
from airflow_provider_gpu_cluster.jobs.notify import notify_when, written_notifier
from airflow_provider_gpu_cluster.tasks.arguments import naming_arguments
from airflow_provider_gpu_cluster.tasks.hidden_env import HiddenArray, HiddenEnv


class JobPartial(OperatorPartial):
    """
    What ``SubmitGpuJobOperator.partial()`` returns.

    Airflow writes the arguments of a mapped task into the serialized DAG before it makes an operator from them,
    so this class already wraps each ``env`` among them, and writes a ``notifier`` as plain values.
    """

    @classmethod
    def of(cls, partial: Callable[..., OperatorPartial], **kwargs: Any) -> JobPartial:
        """Call an operator class's ``partial``, and return its result as this class."""
        made = partial(**_hidden(kwargs))
        made._expand_called = True  # else Airflow warns that this one was never expanded
        return cls(operator_class=made.operator_class, kwargs=made.kwargs, params=made.params)

    def expand(self, **mapped_kwargs: Any) -> MappedOperator:
        """Map over lists of arguments; see Airflow's documentation of dynamic task mapping."""
        envs = mapped_kwargs.get("env")
        if isinstance(envs, Mapping):
            raise InvalidJobError("expand(env=...) takes a list of dicts, one for each job")
        if isinstance(envs, Sequence):
            mapped_kwargs["env"] = [HiddenEnv(env) for env in envs]
        arrays = mapped_kwargs.get("array")
        if isinstance(arrays, Sequence) and not isinstance(arrays, str):
            mapped_kwargs["array"] = [HiddenArray(array) for array in arrays]
        try:
            with naming_arguments(self.operator_class, mapped_kwargs):
                return super().expand(**mapped_kwargs)
        except TypeError:
            self._expand_called = True  # an error is enough; no warning that it was never expanded
            raise

    def expand_kwargs(self, kwargs: Any, *, strict: bool = True) -> MappedOperator:
        """Map over a list of dicts of arguments; see Airflow's documentation of dynamic task mapping."""
        if isinstance(kwargs, Sequence):
            kwargs = [_hidden(item) if isinstance(item, Mapping) else item for item in kwargs]
        return super().expand_kwargs(kwargs, strict=strict)


def _hidden(kwargs: Mapping[str, Any]) -> dict[str, Any]:
    hidden = dict(kwargs)
    if "env" in kwargs:
        hidden["env"] = HiddenEnv(kwargs["env"])
    if kwargs.get("array") is not None:
        hidden["array"] = HiddenArray(kwargs["array"])
    if kwargs.get("notify") is not None:
        hidden["notify"] = notify_when(kwargs["notify"])
    if kwargs.get("notifier") is not None:
        hidden["notifier"] = written_notifier(kwargs["notifier"])
    return hidden
