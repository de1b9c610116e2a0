"""The parameters of a job: one list, and all who have them from there."""

from __future__ import annotations

import inspect
import re
import sys
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk import DAG
from mypy import api as mypy

from airflow_provider_gpu_cluster.hooks.gpu_cluster import GpuClusterHook
from airflow_provider_gpu_cluster.jobs.parameters import PARAMETERS, SPEC_PARAMETERS, Parameter
from airflow_provider_gpu_cluster.jobs.request import JobRequest
from airflow_provider_gpu_cluster.jobs.spec import JobSpec, make_spec
from airflow_provider_gpu_cluster.operators.gpu_job import SubmitGpuJobOperator
from airflow_provider_gpu_cluster.task_groups.gpu_job import GpuJobTaskGroup

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY / "scripts"))
TAKERS = {
    "operator": SubmitGpuJobOperator,
    "task group": GpuJobTaskGroup,
    "hook": GpuClusterHook.submit,
    "request": JobRequest,
}
each = pytest.mark.parametrize("parameter", PARAMETERS.values(), ids=PARAMETERS)


@each
@pytest.mark.parametrize("taker", TAKERS.values(), ids=TAKERS)
def test_all_take_each_by_keyword_with_its_default(taker: Any, parameter: Parameter) -> None:
    taken = inspect.signature(taker).parameters[parameter.name]
    assert taken.kind is inspect.Parameter.KEYWORD_ONLY
    assert taken.default == parameter.default
    if taker is not JobRequest:
        assert taken.annotation == parameter.type


@each
@pytest.mark.parametrize("taker", [taker for taker in TAKERS.values() if taker is not JobRequest])
def test_docstrings_explain_each_in_the_same_words(taker: Any, parameter: Parameter) -> None:
    words = " ".join(taker.__doc__.split())
    assert words.count(f":param {parameter.name}: {parameter.doc}.") == 1


@each
def test_airflow_fills_in_what_is_templated(parameter: Parameter) -> None:
    assert (parameter.name in SubmitGpuJobOperator.template_fields) == parameter.templated
    assert SubmitGpuJobOperator.template_fields_renderers.get(parameter.name) == parameter.renderer


def test_template_fields_keep_their_order() -> None:
    templated = [name for name, parameter in PARAMETERS.items() if parameter.templated]
    assert list(SubmitGpuJobOperator.template_fields) == [
        "job",
        *templated,
        "gpu_cluster_conn_id",
        "policy",
        "failover_after",
    ]


@each
def test_what_is_given_to_the_operator_is_in_the_request(parameter: Parameter) -> None:
    others: dict[str, Any] = {} if parameter.name in ("entry_script", "command") else {"entry_script": "train.py"}
    value: Any = {"env": {"SEED": "7"}, "pass_output_dirs": False}.get(parameter.name, "{{ params.x }}")
    operator = SubmitGpuJobOperator(task_id="train", **others, **{parameter.name: value})
    assert getattr(operator._request(), parameter.name) == value


def test_the_spec_has_what_is_checked() -> None:
    assert make_spec(command="true") == JobSpec(command="true")
    names = [parameter.spec_name for parameter in SPEC_PARAMETERS]
    assert list(JobSpec().to_json()) == names


def test_what_is_secret_is_not_shown() -> None:
    shown = repr(JobRequest(command="true", env={"TOKEN": "s3cret"}, array=[{"TOKEN": "s3cret"}]))
    assert "command='true'" in shown
    assert "s3cret" not in shown


def test_default_args_give_them() -> None:
    with DAG("defaults", schedule=None, default_args={"gpus": 2, "priority": "high", "retries": 3}):
        operator = SubmitGpuJobOperator(task_id="train", command="true", priority="low")
    assert (operator.gpus, operator.priority, operator.retries) == (2, "low", 3)


def test_default_args_of_a_group_give_them() -> None:
    with DAG("defaults", schedule=None):
        group = GpuJobTaskGroup("train", command="true", destination="/models", default_args={"gpus": 2})
    assert group.submit.gpus == 2


def test_mapped_tasks_take_them() -> None:
    with DAG("mapped", schedule=None):
        mapped = SubmitGpuJobOperator.partial(task_id="train", gpus=2, retries=1).expand(command=["true", "false"])
    assert mapped.partial_kwargs["gpus"] == 2


def test_a_name_that_there_is_not_is_refused() -> None:
    with DAG("mistaken", schedule=None):
        with pytest.raises(TypeError, match="got an unexpected keyword argument 'gpu'"):
            SubmitGpuJobOperator.partial(task_id="train", gpu=2).expand(command=["true"])
        with pytest.raises(TypeError, match=r"\*\*kwargs: gpu\ngpu: did you mean gpus"):
            SubmitGpuJobOperator(task_id="one", command="true", gpu=2)
        with pytest.raises(TypeError, match=r"\*\*kwargs: gpu\ngpu: did you mean gpus"):
            GpuJobTaskGroup("group", command="true", destination="/models", gpu=2)
    with pytest.raises(TypeError, match="unexpected keyword argument 'gpu'"):
        GpuClusterHook().submit(job_id="x", command="true", gpu=2)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="unexpected keyword argument 'gpu'"):
        make_spec(command="true", gpu=2)  # type: ignore[call-arg]


def test_texts_are_as_the_list_says() -> None:
    from write_parameters import outdated

    assert not [str(path) for path in outdated()], "run: python scripts/write_parameters.py"


WRITTEN = """
from airflow_provider_gpu_cluster.hooks.gpu_cluster import GpuClusterHook
from airflow_provider_gpu_cluster.operators.submit import SubmitGpuJobOperator
from airflow_provider_gpu_cluster.jobs.request import JobRequest

SubmitGpuJobOperator(task_id="x", retries=2, gpus="{{ params.gpus }}", command="true")
GpuClusterHook().submit(gpus=2, command="true")
JobRequest(gpus=2, command="true")
reveal_type(SubmitGpuJobOperator(task_id="x", command="true").gpus)

SubmitGpuJobOperator(task_id="x", gpus=[2])
GpuClusterHook().submit(gpus=[2])
GpuClusterHook().submit(gpu=2)
JobRequest(gpu=2)
"""


def test_type_checkers_know_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dag = tmp_path / "dag.py"
    dag.write_text(WRITTEN)
    package = Path(inspect.getfile(JobRequest)).parents[1]
    monkeypatch.setenv("MYPYPATH", str(package.parent))
    # The files that have to do with it, and no others: all that they import takes minutes to read.
    names = ("operators/submit.py", "hooks/gpu_cluster.py", "jobs/request.py", "jobs/parameters.py")
    files = [str(dag), *(str(package / name) for name in names)]
    options = ["--config-file=", "--cache-dir=/dev/null", "--follow-imports=skip", "--namespace-packages"]
    said, _, _ = mypy.run([*options, "--explicit-package-bases", *files])
    found = [re.sub(r".*dag\.py:(\d+): (\w+): ", r"\1 ", line) for line in said.splitlines() if "dag.py:" in line]
    assert [line for line in found if "defined in" not in line] == [
        '9 Revealed type is "int | str"',
        '11 Argument "gpus" to "SubmitGpuJobOperator" has incompatible type "list[int]"; expected "int | str"  '
        "[arg-type]",
        '12 Argument "gpus" to "submit" of "GpuClusterHook" has incompatible type "list[int]"; expected "int | str"  '
        "[arg-type]",
        '13 Unexpected keyword argument "gpu" for "submit" of "GpuClusterHook"; did you mean "gpus"?  [call-arg]',
        '14 Unexpected keyword argument "gpu" for "JobRequest"; did you mean "gpus"?  [call-arg]',
    ]
