"""The one table of a job's parameters. All code that takes, checks or explains a parameter uses this table."""

# No `from __future__ import annotations` here: the table is made from the annotations. Types whose import takes long
# are quoted, because Airflow parses DAG files again and again.

import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any, ForwardRef, NamedTuple, TypedDict, TypeVar

from airflow_provider_gpu_cluster.jobs import parameter_checks as checks

if TYPE_CHECKING:
    from airflow.sdk import XComArg

    from airflow_provider_gpu_cluster.sources.parse import Written

_Taker = TypeVar("_Taker", bound=Callable[..., Any])


class Parameter(NamedTuple):
    """
    A parameter of a job.

    :param doc: what it means, in the words of every docstring and page that names it.
    :param default: its value if none is given.
    :param check: checks the user's value, and returns the value for the :class:`.JobSpec`; None if the spec does not
        hold it.
    :param spec_name: its name in the spec; by default its own.
    :param templated: Airflow fills in templates and outputs of other tasks.
    :param renderer: how Airflow's UI shows the filled-in value.
    :param secret: whether it is left out of every ``repr()``.
    :param page: page of the documentation that says more.
    :param name: its key in :class:`JobParameters`.
    :param type: its type there, as text.
    """

    doc: str
    default: Any = None
    check: checks.Check | None = None
    spec_name: str = ""
    templated: bool = True
    renderer: str | None = None
    secret: bool = False
    page: str = ""
    name: str = ""
    type: str = ""

    def in_signature(self) -> inspect.Parameter:
        """Return it as a keyword argument."""
        return inspect.Parameter(self.name, inspect.Parameter.KEYWORD_ONLY, default=self.default, annotation=self.type)

    def explanation(self, *, by_airflow: bool) -> str:
        """
        Return its entry in a docstring.

        :param by_airflow: of something whose templates Airflow fills in.
        """
        mark = " (templated)" if by_airflow and self.templated else ""
        return f":param {self.name}: {self.doc}.{mark}"


class JobParameters(TypedDict, total=False):
    """
    Every parameter of a job, in the order in which they are shown.

    A new one is an entry here. ``scripts/write_parameters.py`` brings it into those texts that editors and people read:
    the signature of the operator, docstrings, and the table in ``docs/operators.md``.
    """

    code: Annotated[
        "Written | None",
        Parameter(
            "source of the code: a local file or folder relative to the DAG file's folder, ``git+...``, "
            "``cluster:...``, or a URL of an object store. A folder's content becomes the job's ``code/``, where it "
            "runs",
            page="sources.md",
        ),
    ]
    entry_script: Annotated[
        str | None,
        Parameter("script to run, relative to the code. Either this or ``command``", check=checks.entry_script),
    ]
    script_args: Annotated[
        Sequence[Any] | None, Parameter("arguments of the entry script, as a list", check=checks.script_args)
    ]
    command: Annotated[
        str | None,
        Parameter("shell text to run instead of an entry script", check=checks.command, renderer="bash"),
    ]
    data: Annotated[
        "Written | Sequence[Written] | None",
        Parameter("one or more sources for the job's ``data/``", page="sources.md"),
    ]
    models: Annotated[
        "Written | Sequence[Written] | None",
        Parameter("one or more sources for the job's ``models/``", page="sources.md"),
    ]
    gpus: Annotated[int | str, Parameter("number of whole GPUs", default=1, check=checks.count)]
    gpu_type: Annotated[
        str | None,
        Parameter(
            'only GPUs whose name contains this text, such as ``"A100"``; None for any',
            check=checks.optional(checks.gpu_type),
        ),
    ]
    cpus: Annotated[
        int | str | None,
        Parameter(
            "CPU cores; None leaves it to the cluster",
            check=checks.optional(checks.count),
            page="jobs.md#limits",
        ),
    ]
    memory: Annotated[
        int | str | None,
        Parameter(
            'limit on host memory, in bytes or as text such as ``"32G"``; None for no limit',
            check=checks.optional(checks.memory_bytes),
            spec_name="memory_bytes",
            page="jobs.md#limits",
        ),
    ]
    time_limit: Annotated[
        float | str | timedelta | None,
        Parameter(
            "limit on the job's run time, in seconds, as a timedelta, or as its text ``1:00:00``; None for no limit",
            check=checks.optional(checks.time_limit_s),
            spec_name="time_limit_s",
            page="jobs.md#limits",
        ),
    ]
    stop_signal: Annotated[
        str,
        Parameter(
            "the signal that asks the job's main process to end: at its time limit, a cancel, or a preemption",
            default="TERM",
            check=checks.signal_name,
            page="jobs.md#how-a-job-is-stopped",
        ),
    ]
    stop_signal_to: Annotated[
        str,
        Parameter(
            "``main``: that signal goes to the main process alone; ``all``: to every process of the job",
            default="main",
            check=checks.one_of("main", "all"),
            page="jobs.md#how-a-job-is-stopped",
        ),
    ]
    grace: Annotated[
        float | str | timedelta | None,
        Parameter(
            "how long the job may take to end after that signal, in seconds, as a timedelta, or as its text, before "
            "all of its processes are killed; None for the connection's, which is 30 s",
            check=checks.optional(checks.grace_s),
            spec_name="grace_s",
            page="jobs.md#how-a-job-is-stopped",
        ),
    ]
    warn_before: Annotated[
        float | str | timedelta | None,
        Parameter(
            "how long before its time limit the job gets ``warn_signal``, in seconds, as a timedelta, or as its text. "
            "It also gets it at once when it is cancelled or preempted. None for no warning",
            check=checks.optional(checks.time_limit_s),
            spec_name="warn_before_s",
            page="jobs.md#how-a-job-is-stopped",
        ),
    ]
    warn_signal: Annotated[
        str,
        Parameter(
            "the signal of that warning",
            default="USR1",
            check=checks.signal_name,
            page="jobs.md#how-a-job-is-stopped",
        ),
    ]
    recover: Annotated[
        "Mapping[str, Any] | bool | str | None",
        Parameter(
            "how often the job goes on in a next attempt by itself, by the reason of its end, within one try of its "
            "task. What a mapping names replaces the default of ``{'preempted': 20, 'node_failure': 3, 'lost': 2, "
            "'checkpointed': 1000}``; False for never",
            check=checks.recover,
            renderer="json",
            page="recovery.md",
        ),
    ]
    checkpoint_exit_code: Annotated[
        int | str,
        Parameter(
            'the exit code by which the job says "saved, start me again"',
            default=85,
            check=checks.exit_code,
            page="recovery.md",
        ),
    ]
    hang_timeout: Annotated[
        float | str | timedelta | None,
        Parameter(
            "end the job when it has printed nothing, saved nothing and used no processor time for that long, in "
            "seconds, as a timedelta, or as its text; None for never",
            check=checks.optional(checks.time_limit_s),
            spec_name="hang_timeout_s",
            page="jobs.md#limits",
        ),
    ]
    orphan_timeout: Annotated[
        float | str | timedelta | None,
        Parameter(
            "end the job when nobody has asked about it for that long, in seconds, as a timedelta, or as its text; "
            "None for the connection's, which is never",
            check=checks.optional(checks.time_limit_s),
            spec_name="orphan_timeout_s",
            page="orphans.md",
        ),
    ]
    min_gpu_utilization: Annotated[
        float | str | None,
        Parameter(
            "use of its GPUs in percent, in the mean over the window, below which the job is idle; 0 for never; None "
            "for the connection's, which is 5",
            check=checks.optional(checks.percent),
            page="idle.md",
        ),
    ]
    utilization_window: Annotated[
        float | str | timedelta | None,
        Parameter(
            "over how long that is looked at, in seconds, as a timedelta, or as its text; None for the connection's, "
            "which is half an hour",
            check=checks.optional(checks.time_limit_s),
            spec_name="utilization_window_s",
            page="idle.md",
        ),
    ]
    on_idle: Annotated[
        str | None,
        Parameter(
            "what is done about an idle job: ``warn`` says so in the task's log, ``cancel`` also ends it after the "
            "whole window; None for the connection's, which is ``warn``",
            check=checks.optional(checks.one_of("warn", "cancel")),
            page="idle.md",
        ),
    ]
    env: Annotated[
        "Mapping[str, Any] | XComArg | str | None",
        Parameter(
            "environment variables of the job. The values are never shown in Airflow, are sent separately, and are "
            "not in the job's records on the cluster",
            renderer="json",
            secret=True,
        ),
    ]
    array: Annotated[
        "Sequence[Any] | XComArg | str | None",
        Parameter(
            "makes an array of jobs: a list, or the output of a task that returns one, of what differs in each job. An "
            "element is a dict of environment variables, merged over ``env`` and hidden like it; or arguments, as a "
            "list or as text that is split as by a shell, which follow ``script_args`` or are appended to ``command``",
            renderer="json",
            secret=True,
            page="arrays.md",
        ),
    ]
    priority: Annotated[
        str,
        Parameter(
            "``high``, ``normal`` or ``low``: waiting jobs are served in this order",
            default="normal",
            check=checks.priority,
        ),
    ]
    nodes: Annotated[
        int | str,
        Parameter(
            "number of nodes, with ``gpus``, ``cpus`` and ``memory`` on each; more than one requires Slurm",
            default=1,
            check=checks.count,
            page="slurm.md#several-nodes",
        ),
    ]
    partition: Annotated[
        str | None,
        Parameter(
            "Slurm partition; None for the connection's. Clusters without Slurm ignore this and the next four "
            "parameters",
            check=checks.optional(checks.word("gpu")),
            page="slurm.md#what-a-job-asks-slurm-for",
        ),
    ]
    account: Annotated[
        str | None,
        Parameter("Slurm account; None for the connection's", check=checks.optional(checks.word("research"))),
    ]
    qos: Annotated[
        str | None, Parameter("Slurm QOS; None for the connection's", check=checks.optional(checks.word("long")))
    ]
    constraint: Annotated[
        str | None,
        Parameter(
            "features that Slurm's nodes must have; None for the connection's",
            check=checks.optional(checks.word("a100&nvlink")),
        ),
    ]
    sbatch_options: Annotated[
        str | Sequence[str] | None,
        Parameter(
            "further options of Slurm's ``sbatch``, as a list or one text, after the connection's",
            check=checks.sbatch_options,
        ),
    ]
    requirements: Annotated[
        str | Sequence[str] | None,
        Parameter(
            "Python packages, as a list or as the text of a requirements file; None takes ``requirements.txt`` from "
            "the code if it is there",
            check=checks.requirements,
        ),
    ]
    setup: Annotated[
        str | Sequence[str] | None,
        Parameter(
            'shell lines to run first, such as ``["module load cuda/12.4"]``', check=checks.setup, renderer="bash"
        ),
    ]
    pass_output_dirs: Annotated[
        bool,
        Parameter("pass ``--output_dir`` and ``--log_dir`` to the entry script", default=True, templated=False),
    ]
    run_script_template: Annotated[
        str | None,
        Parameter(
            "path of a Jinja2 template to use instead of the package's ``run.sh.j2``, relative to the DAG file's "
            "folder",
            templated=False,
            page="jobs.md#a-template-of-your-own",
        ),
    ]


def _table(keys: type) -> Mapping[str, Parameter]:
    annotations = inspect.get_annotations(keys)
    return MappingProxyType({name: _named(name, annotation) for name, annotation in annotations.items()})


def _named(name: str, annotation: Any) -> Parameter:
    parameter: Parameter = annotation.__metadata__[0]
    return parameter._replace(name=name, spec_name=parameter.spec_name or name, type=_text(annotation.__origin__))


def _text(written: Any) -> str:
    """Return a type as it is written in source code."""
    if isinstance(written, ForwardRef):
        return written.__forward_arg__
    return written.__name__ if isinstance(written, type) else re.sub(r"(\w+\.)+", "", str(written))


PARAMETERS = _table(JobParameters)
"""Every parameter of a job, by its name."""

SPEC_PARAMETERS = tuple(parameter for parameter in PARAMETERS.values() if parameter.check)
"""Those of which the :class:`.JobSpec` says something."""


def spelled_out(taker: _Taker) -> _Taker:
    """
    Show every parameter of a job in the signature and the docstring of what takes them as ``**keywords``.

    That is for ``help()``, notebooks and pages of documentation. Type checkers and editors have them from
    ``**keywords: Unpack[JobParameters]``; with another type, ``keywords`` are more than these, and are shown as well.

    :param taker: a function, or a class whose ``__init__`` takes them and whose docstring explains them.
    """
    function: Any = taker.__init__ if isinstance(taker, type) else taker  # type: ignore[misc]
    signature = inspect.signature(function)
    *own, keywords = signature.parameters.values()
    more = [] if keywords.annotation == "Unpack[JobParameters]" else [keywords]
    ours = [parameter for name, parameter in PARAMETERS.items() if name not in signature.parameters]
    in_signature = [parameter.in_signature() for parameter in ours]
    function.__signature__ = signature.replace(parameters=[*own, *in_signature, *more])

    def explain(entry: re.Match[str]) -> str:
        lines = [f"{entry[1]}{parameter.explanation(by_airflow=isinstance(taker, type))}" for parameter in ours]
        return "\n".join([*lines, entry[0]] if more else lines)

    if taker.__doc__:
        entry = rf"^( *):param {keywords.name}: .*(?:\n\1    .*)*"
        taker.__doc__ = re.sub(entry, explain, taker.__doc__, flags=re.MULTILINE)
    return taker
