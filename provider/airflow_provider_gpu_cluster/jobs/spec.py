"""What a job runs and what it needs, as the cluster gets it."""

from __future__ import annotations

from dataclasses import asdict, field, make_dataclass
from typing import TYPE_CHECKING, Any, cast

from airflow_provider_gpu_cluster.exceptions import InvalidJobError
from airflow_provider_gpu_cluster.jobs.parameters import (
    PARAMETERS,
    SPEC_PARAMETERS,
    JobParameters,
    Parameter,
    spelled_out,
)
from airflow_provider_gpu_cluster.jobs.rendered import check_defined

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from airflow_provider_gpu_cluster.gpu_run.protocol.spec import Spec


def _checked(parameter: Parameter, written: Any) -> Any:
    assert parameter.check
    check_defined(parameter.name, written)
    return parameter.check(parameter.name, written)


def _field(parameter: Parameter) -> tuple[str, Any, Any]:
    def default() -> Any:
        return _checked(parameter, parameter.default)

    return parameter.spec_name, Any, field(default_factory=default)


_Fields: Any = make_dataclass(
    "_Fields",
    [_field(parameter) for parameter in SPEC_PARAMETERS],
    frozen=True,
)


class JobSpec(_Fields):  # type: ignore[misc]  # its fields are those of the table
    """
    What a job runs and what it needs: of each of :data:`.SPEC_PARAMETERS` what its check returns, by its ``spec_name``.
    """

    def to_json(self) -> Spec:
        """Return the spec as plain JSON values."""
        plain = {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}
        return cast("Spec", plain)


@spelled_out
def make_spec(**parameters: Unpack[JobParameters]) -> JobSpec:
    """
    Check the parameters of a job. Those of which the spec says nothing take no part.

    :param parameters: the parameters.
    :raises InvalidJobError: parameters are not valid; the message has a line for each: its value, and what is valid.
    """
    for name in parameters.keys() - PARAMETERS.keys():
        raise TypeError(f"make_spec() got an unexpected keyword argument {name!r}")

    wrong: list[str] = []

    def checked(parameter: Parameter) -> Any:
        try:
            return _checked(parameter, parameters.get(parameter.name, parameter.default))
        except InvalidJobError as error:
            wrong.append(str(error))
            return None

    script, shell = checked(PARAMETERS["entry_script"]), checked(PARAMETERS["command"])
    args = checked(PARAMETERS["script_args"])
    if not wrong and (script is None) == (shell is None):
        found = "neither was" if script is None else f"both ({script!r} and a command) were"
        wrong.append(f"give exactly one of entry_script and command; {found} given")
    if args and script is None and shell is not None:
        wrong.append("script_args are for an entry_script; write the arguments of a command into it")
    run = {"entry_script": script, "command": shell, "script_args": args}
    needs = {parameter.spec_name: checked(parameter) for parameter in SPEC_PARAMETERS if parameter.name not in run}
    if wrong:
        raise InvalidJobError("\n".join(wrong))
    return JobSpec(**run, **needs)
