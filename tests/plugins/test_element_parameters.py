"""Arguments of a program become parameters by which elements are compared."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_gpu_cluster.plugins.element_parameters import MOST_PARAMETERS, parameters_of


@pytest.mark.parametrize(
    ("arguments", "parameters"),
    [
        ("--lr 0.1 --hidden 32", {"lr": 0.1, "hidden": 32}),
        ("--lr=1e-3 -b=64", {"lr": 0.001, "b": 64}),
        ("lr=0.1 +model.depth=3 ~drop=x", {"lr": 0.1, "+model.depth": 3, "~drop": "x"}),
        ("--flag --shift -0.5 --last", {"flag": True, "shift": -0.5, "last": True}),
        ("7 a -3", {"#1": 7, "#2": "a", "#3": -3}),
        ("--x 1 --x 2", {"x": 1, "x (2)": 2}),
        ("--name= --url=a=b", {"name": "", "url": "a=b"}),
        ("--v 1.10.2 --id 007 --n 123456789012345678901234", {"v": "1.10.2", "id": 7, "n": "123456789012345678901234"}),
        ("--a nan --b inf --c 1e999 -- -", {"a": "nan", "b": "inf", "c": "1e999", "#1": "--", "#2": "-"}),
        ("", {}),
    ],
)
def test_parameters(arguments: str, parameters: dict[str, Any]) -> None:
    found = parameters_of(arguments.split())
    assert found == parameters
    assert {name: type(value) for name, value in found.items()} == {
        name: type(value) for name, value in parameters.items()
    }


def test_only_so_many() -> None:
    assert len(parameters_of([f"--p{number}=1" for number in range(1000)])) == MOST_PARAMETERS
