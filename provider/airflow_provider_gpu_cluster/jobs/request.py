"""What a user asks for, as written, and the ways to turn it into what the cluster gets."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import field, make_dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_provider_gpu_cluster.exceptions import InvalidJobError
from airflow_provider_gpu_cluster.gpu_run.protocol.masks import masks_of
from airflow_provider_gpu_cluster.jobs.handle import element_id
from airflow_provider_gpu_cluster.jobs.identity import JobIdentity
from airflow_provider_gpu_cluster.jobs.parameter_checks import boolean, check_env, source, sources
from airflow_provider_gpu_cluster.jobs.parameters import PARAMETERS, JobParameters
from airflow_provider_gpu_cluster.jobs.rendered import as_dict, check_defined, is_open, is_unset
from airflow_provider_gpu_cluster.jobs.script import render_run_script
from airflow_provider_gpu_cluster.jobs.secrets import mask_variables, secrets_in
from airflow_provider_gpu_cluster.jobs.spec import JobSpec, make_spec
from airflow_provider_gpu_cluster.jobs.submission import Element, LaunchArguments

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from airflow_provider_gpu_cluster.sources import Source

# The parameters that say what a job needs of a cluster.
NEEDS = (
    "gpus",
    "gpu_type",
    "cpus",
    "memory",
    "time_limit",
    "priority",
    "nodes",
    "partition",
    "account",
    "qos",
    "constraint",
    "sbatch_options",
    "requirements",
)
# Stand-ins for values that are known only when the task runs: any that would pass the check.
_STAND_INS: dict[str, Any] = {"entry_script": "train.py", "command": "true"}


_Fields: Any = make_dataclass(
    "_Fields",
    [
        (parameter.name, Any, field(default=parameter.default, repr=not parameter.secret))
        for parameter in PARAMETERS.values()
    ],
    frozen=True,
    kw_only=True,
)


def checked_needs(needs: Any) -> dict[str, Any]:
    """
    Return what a job will need that is only staged yet, as parameters of a job.

    :raises InvalidJobError: it is no dict of them, or a value cannot be used.
    """
    if is_unset(needs):
        return {}
    check_defined("needs", needs)
    needs = as_dict(needs)
    if not isinstance(needs, Mapping):
        raise InvalidJobError(f"needs is a {type(needs).__name__}; it must be a dict such as {{'gpus': 4}}")
    for name in needs:
        if name not in NEEDS:
            near = get_close_matches(str(name).lower(), NEEDS, 1)
            hint = f" (did you mean {near[0]!r}?)" if near else ""
            raise InvalidJobError(f"needs has the key {repr(name)[:100]}{hint}; valid are {', '.join(NEEDS)}")
    JobRequest(command=_STAND_INS["command"], **needs).check()
    return dict(needs)


class JobRequest(_Fields):  # type: ignore[misc]  # its fields are those of the table
    """A job as its user describes it: a value for each of the :class:`.JobParameters`, as it is written."""

    if TYPE_CHECKING:

        def __init__(self, **parameters: Unpack[JobParameters]) -> None: ...

    def spec(self) -> JobSpec:
        """
        Check what to run and what it needs.

        :raises InvalidJobError: a value cannot be used.
        """
        return make_spec(**vars(self))

    def needs(self) -> JobSpec:
        """
        Return what a job needs whose command is not known yet.

        :raises InvalidJobError: a value cannot be used.
        """
        return replace(self, entry_script=None, command=_STAND_INS["command"], script_args=None).spec()

    def sources(self, *, base_dir: Path) -> Sequence[Source]:
        """
        Look up code, data and models.

        :param base_dir: folder that relative paths start from.
        :raises SourceError: a local source does not exist.
        """
        code, data, models = self._written_sources()
        if not (code or data or models):
            return ()
        # Imported where it is needed, as all that takes long: a file of DAGs is read by every task.
        from airflow_provider_gpu_cluster.sources import parse_sources

        return parse_sources(code=code, data=data, models=models, base_dir=base_dir)

    @property
    def has_sources(self) -> bool:
        """Whether it says what its sources are; an empty list says that there are none."""
        return not (self.code is None and self.data is None and self.models is None)

    def without_sources(self) -> JobRequest:
        """Return it for a job whose sources are staged already."""
        return replace(self, code=None, data=None, models=None)

    def _written_sources(self) -> tuple[Any, Any, Any]:
        return source("code", self.code), sources("data", self.data), sources("models", self.models)

    def variables(self) -> dict[str, str]:
        """
        Check the environment variables, and tell Airflow which of their values to mask in the task's log.

        :raises InvalidJobError: a name or a value cannot be used.
        """
        variables = check_env(self.env, is_array=self.array is not None)
        mask_variables(variables)
        return variables

    def secrets(self) -> list[str]:
        """Return what Airflow masks of what the job gets, for others who show its output."""
        return sorted(set[str]().union(*(one._own_secrets() for one in (self, *self.elements()))))

    def _own_secrets(self) -> set[str]:
        others = (value for name, value in vars(self).items() if name not in ("env", "array"))
        return secrets_in(self.variables(), *others)

    def elements(self) -> list[JobRequest]:
        """
        Return the jobs of an array, each with what is its own; none for one job.

        The variables of each are its own only.

        :raises InvalidJobError: the array cannot be used.
        """
        if self.array is None:
            return []
        from airflow_provider_gpu_cluster.jobs.array import naming, parse_array

        elements = []
        for index, element in enumerate(parse_array(self.array)):
            with naming(index):
                one = self._with_arguments(element.arguments)
                one.spec()
                check_env(element.env, is_array=True)
            elements.append(replace(one, env=element.env))
        return elements

    def launch_arguments(self, identity: JobIdentity, *, base_dir: Path, staged: bool) -> LaunchArguments:
        """
        Return what :func:`.submit_request` takes besides the inputs.

        :param staged: the job's sources are on the cluster already.
        :raises InvalidJobError: a value cannot be used.
        """
        self.check(staged=staged)
        common = self._own_secrets()
        elements = [
            Element(
                spec=element.spec(),
                env=element.variables(),
                run_script=element.run_script(element_id(identity.job_id, index), base_dir=base_dir),
                masks=masks_of(common | element._own_secrets()),
            )
            for index, element in enumerate(self.elements())
        ]
        return {
            "spec": self.spec(),
            "env": self.variables(),
            "run_script": self.run_script(identity.job_id, base_dir=base_dir),
            "request_key": identity.request_key,
            "generation": identity.generation,
            "record": identity.record,
            "elements": elements,
            "masks": masks_of(common),
        }

    def _with_arguments(self, arguments: tuple[Any, ...]) -> JobRequest:
        if not arguments:
            return self
        if not self.command:
            return replace(self, script_args=[*(self.script_args or ()), *arguments])
        # Checked as those of an entry script are.
        checked = make_spec(entry_script="x", script_args=arguments).script_args
        return replace(self, command=f"{self.command.rstrip()} {shlex.join(checked)}")

    def run_script(self, job_id: str, *, base_dir: Path) -> str:
        """Render the shell script that the job runs."""
        template = self.run_script_template
        if template is not None and "\n" not in template:
            template = str(base_dir / Path(template).expanduser())
        pass_output_dirs = boolean("pass_output_dirs", self.pass_output_dirs)
        return render_run_script(self.spec(), pass_output_dirs=pass_output_dirs, template=template, job_id=job_id)

    def check(self, *, staged: bool = False) -> None:
        """
        Check what can be checked before templates and outputs of other tasks are known.

        :param staged: the job's sources are staged already, and cannot be given again.
        :raises InvalidJobError: a value cannot be used, whatever the others will be.
        """
        known = {
            name: _STAND_INS.get(name, parameter.default)
            for name, parameter in PARAMETERS.items()
            if is_open(getattr(self, name))
        }
        stand_in = replace(self, **{**known, "env": {}, "array": None})
        is_array = self.array is not None

        def check_sources() -> None:
            if staged and any(self._written_sources()):
                raise InvalidJobError(
                    "give either job, whose code, data and models are staged already, or code, data and models"
                )

        def check_known_env() -> None:
            if isinstance(self.env, Mapping):
                known_env = {name: "" if is_open(value) else value for name, value in self.env.items()}
                check_env(known_env, is_array=is_array)
            elif isinstance(self.env, str) and not is_open(self.env):
                check_env(self.env, is_array=is_array)

        def check_array() -> None:
            if is_array and not is_open(self.array):
                replace(stand_in, array=self.array).elements()

        wrong = list(
            filter(
                None,
                (
                    _error_of(stand_in.spec),
                    _error_of(lambda: boolean("pass_output_dirs", self.pass_output_dirs)),
                    _error_of(check_sources),
                    _error_of(check_known_env),
                ),
            )
        )
        # What is wrong in all elements would be told once more.
        wrong += filter(None, [None if wrong else _error_of(check_array)])
        if wrong:
            raise InvalidJobError("\n".join(wrong))


def _error_of(check: Callable[[], object]) -> str | None:
    try:
        check()
    except InvalidJobError as error:
        return str(error)
    return None
