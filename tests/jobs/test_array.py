"""What may be written as an array, and what its elements are made of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from airflow_provider_gpu_cluster.exceptions import InvalidJobError
from airflow_provider_gpu_cluster.jobs.handle import JobHandle
from airflow_provider_gpu_cluster.jobs.request import JobRequest

SCRIPT: dict[str, Any] = {"entry_script": "train.py", "script_args": ["--epochs", 3]}


def arguments(written: Any) -> tuple[str, ...]:
    (element,) = JobRequest(**SCRIPT, array=[written]).elements()
    given: tuple[str, ...] = element.spec().script_args
    return given


@pytest.mark.parametrize(
    ("written", "own"),
    [
        (["--lr", 0.1], ("--lr", "0.1")),
        (("a b",), ("a b",)),
        ("--lr 0.1 --name 'a b'", ("--lr", "0.1", "--name", "a b")),
        (7, ("7",)),
        ([], ()),
        ("", ()),
        ({"SEED": 7}, ()),
    ],
)
def test_arguments_come_after_those_of_all(written: Any, own: tuple[str, ...]) -> None:
    assert arguments(written) == ("--epochs", "3", *own)


def test_arguments_of_a_command_are_quoted() -> None:
    (element,) = JobRequest(command="python train.py\n", array=[["--name", "$(id) 'x'"]]).elements()
    assert element.spec().command == """python train.py --name '$(id) '"'"'x'"'"''"""


def test_environments_are_each_elements_own() -> None:
    request = JobRequest(**SCRIPT, env={"A": "1"}, array=[{"SEED": 7}, {"SEED": 8, "A": 2}])
    assert [element.variables() for element in request.elements()] == [{"SEED": "7"}, {"SEED": "8", "A": "2"}]
    assert request.variables() == {"A": "1"}


def test_a_list_may_have_gone_through_a_template() -> None:
    request = JobRequest(**SCRIPT, array="[{'SEED': 7}, ['--lr', '0.1']]")
    assert [element.env for element in request.elements()] == [{"SEED": 7}, {}]


@pytest.mark.parametrize(
    ("array", "message"),
    [
        ([], "array has 0 elements; valid is a list of 1 to 1,000 elements"),
        ([1] * 1001, "array has 1,001 elements"),
        ({"SEED": 7}, "array is a dict"),
        (7, "array is a int"),
        ("seed", "array is a str"),
        ([{"A": 1}, None], r"array\[1\]: it is a NoneType"),
        ([["x"], ["y", None]], r"array\[1\]: script_args\[3\]=None is not valid"),
        (["--name 'x"], r"array\[0\]: .* cannot be split into arguments"),
        ([{"A": 1}, {"JOB_ID": 1}], r"array\[1\]: env sets JOB_ID"),
        ([{"ARRAY_INDEX": 1}], r"array\[0\]: env sets ARRAY_INDEX"),
    ],
)
def test_what_is_wrong_is_said_with_the_index(array: Any, message: str) -> None:
    with pytest.raises(InvalidJobError, match=message):
        JobRequest(**SCRIPT, array=array).check()


def test_a_value_of_an_environment_is_in_no_message() -> None:
    with pytest.raises(InvalidJobError, match=r"array\[0\]") as raised:
        JobRequest(**SCRIPT, array=[{"TOKEN": "s3cret\0"}]).check()
    assert "s3cret" not in str(raised.value)


def test_variables_of_arrays_are_reserved_in_arrays_only() -> None:
    JobRequest(**SCRIPT, env={"ARRAY_INDEX": "1"}).check()
    with pytest.raises(InvalidJobError, match="env sets ARRAY_INDEX"):
        JobRequest(**SCRIPT, env={"ARRAY_INDEX": "1"}, array=[["x"]]).check()


def refusals(requests: list[JobRequest]) -> list[str]:
    """Return what the check has against each of them."""
    found = []
    for request in requests:
        try:
            request.check()
        except InvalidJobError as error:
            found.append(str(error))
    return found


def test_what_is_known_only_later_is_not_checked_before() -> None:
    requests = [
        JobRequest(**SCRIPT, array="{{ ti.xcom_pull('choose') }}"),
        JobRequest(**SCRIPT, array=[{"SEED": "{{ params.seed }}"}]),
        JobRequest(command="{{ params.command }}", array=[["--lr", "0.1"]]),
    ]
    assert refusals(requests) == []


def test_a_thousand_scripts_come_from_one_template(tmp_path: Path) -> None:
    elements = JobRequest(**SCRIPT, array=list(range(1000))).elements()
    scripts = [element.run_script(f"a_{index}", base_dir=tmp_path) for index, element in enumerate(elements)]
    assert "of job a_999" in scripts[999]
    assert " 999 --output_dir" in scripts[999]


def test_a_handle_names_its_elements() -> None:
    handle = JobHandle("a", "gpu_cluster_default", "/jobs/a", "host", "2026-01-01T00:00:00+00:00", 1, array_size=2)
    assert JobHandle.from_json(handle.to_json()) == handle
    assert [(one.job_id, one.job_dir, one.array_size) for one in handle.elements] == [
        ("a_0", "/jobs/a_0", None),
        ("a_1", "/jobs/a_1", None),
    ]
    assert "array_size" not in handle.element(0).to_json()
