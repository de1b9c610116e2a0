"""The environment variables that a user gives a job. All values are treated as secrets."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from airflow.sdk import XComArg
from airflow.sdk.definitions._internal.mixins import ResolveMixin

from airflow_provider_gpu_cluster.exceptions import InvalidJobError

if TYPE_CHECKING:
    from airflow.sdk import Context
    from airflow.sdk.types import Operator

HIDDEN = "***"


def is_no_template(content: Any) -> bool:
    """Return whether something is text without a template, which Airflow's native templates would change."""
    return isinstance(content, str) and not any(mark in content for mark in ("{{", "{%", "{#"))


class HiddenEnv(ResolveMixin):
    """
    Environment variables whose values appear only in the job.

    Airflow writes template fields into the serialized DAG and into the rendered view of the UI. It calls
    ``serialize()`` if the object has it, else ``str()``: here both show only names. Airflow resolves XComs and
    templates in the values, as in a plain dict.

    :param values: the variables, or the output of another task that returns them.
    """

    def __init__(self, values: Mapping[str, Any] | XComArg | HiddenEnv | str | None = None) -> None:
        self.values: Any = values.values if isinstance(values, HiddenEnv) else values or {}
        # Text may be a template of a dict, or what has become of one; it is checked when the job is launched.
        if not isinstance(self.values, (Mapping, ResolveMixin, str)):
            raise InvalidJobError(
                f"env is a {type(self.values).__name__}; it must be a dict of names and values, such as {{'SEED': '7'}}"
            )

    def iter_references(self) -> Iterable[tuple[Operator, str]]:
        """Return the tasks whose output the values need; Airflow sets them upstream."""
        return XComArg.iter_xcom_references(self.values)

    def resolve(self, context: Context) -> HiddenEnv:
        """Return the environment with its templates and XComs filled in."""
        return HiddenEnv(context["task"].render_template(self.values, context))

    def serialize(self) -> dict[str, str] | str:
        """Return what may be shown: the names."""
        if isinstance(self.values, Mapping):
            return {str(name): HIDDEN for name in self.values}
        return self.values if isinstance(self.values, str) and "{{" in self.values else HIDDEN

    def __str__(self) -> str:
        return str(self.serialize())

    def __repr__(self) -> str:
        return f"HiddenEnv({self})"

    def __bool__(self) -> bool:
        return not isinstance(self.values, Mapping) or bool(self.values)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, HiddenEnv) and bool(self.values == other.values)


class HiddenArray(ResolveMixin):
    """
    The elements of an array. Their environment variables are hidden as in :class:`HiddenEnv`; their arguments are not.

    :param values: the list, the output of another task that returns it, or a template of either.
    """

    def __init__(self, values: Sequence[Any] | XComArg | str | HiddenArray) -> None:
        self.values: Any = values.values if isinstance(values, HiddenArray) else values

    def iter_references(self) -> Iterable[tuple[Operator, str]]:
        """Return the tasks whose output the elements need; Airflow sets them upstream."""
        return XComArg.iter_xcom_references(self.values)

    def resolve(self, context: Context) -> HiddenArray:
        """Return the array with its templates and XComs filled in."""
        return HiddenArray(context["task"].render_template(self.values, context))

    def serialize(self) -> list[Any] | str:
        """Return what may be shown."""
        if isinstance(self.values, str):
            return self.values if "{{" in self.values else HIDDEN
        if isinstance(self.values, ResolveMixin) or not isinstance(self.values, Iterable):
            return HIDDEN
        return [_visible(element) for element in self.values]

    def __str__(self) -> str:
        return str(self.serialize())

    def __repr__(self) -> str:
        return f"HiddenArray({self})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, HiddenArray) and bool(self.values == other.values)


def _visible(element: Any) -> Any:
    if isinstance(element, Mapping):
        return {str(name): HIDDEN for name in element}
    if isinstance(element, (list, tuple)):
        return [str(item) for item in element]
    return str(element)
