"""A name stands for one thing: no two classes of the package have the same."""

from __future__ import annotations

import ast
from pathlib import Path

import airflow_provider_gpu_cluster


def test_no_class_name_stands_twice() -> None:
    places: dict[str, list[str]] = {}
    folder = Path(airflow_provider_gpu_cluster.__file__).parent
    for path in sorted(folder.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef):
                places.setdefault(node.name, []).append(f"{path.relative_to(folder)}:{node.lineno}")
    assert {name: found for name, found in places.items() if len(found) > 1} == {}
