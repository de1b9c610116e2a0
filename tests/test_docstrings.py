"""References in docstrings lead somewhere, so that they move along when modules do."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import airflow_provider_gpu_cluster

PACKAGE = Path(airflow_provider_gpu_cluster.__file__).parent
# What Airflow and others name is theirs to keep.
_FOREIGN = ("airflow.", "paramiko.", "asyncio.", "subprocess.")


def test_every_reference_leads_somewhere() -> None:
    known = set(_names())
    stale = [
        f"{path.relative_to(PACKAGE)}: {role}`{target}`"
        for path in PACKAGE.rglob("*.py")
        for role, target in re.findall(r"(:(?:mod|func|class|meth|data|attr):)`~?([\w.]+)`", path.read_text())
        if not target.startswith(_FOREIGN) and f".{target.lstrip('.')}" not in known
    ]
    assert not stale


def _names() -> Iterator[str]:
    """Yield every way to write the name of a module or a definition: with all before it, or less and less of that."""
    for path in PACKAGE.rglob("*.py"):
        parts = (PACKAGE.name, *path.relative_to(PACKAGE).with_suffix("").parts)
        module = ".".join(part for part in parts if part != "__init__")
        for name in (module, *(f"{module}.{name}" for name in _definitions(ast.parse(path.read_text())))):
            pieces = name.split(".")
            yield from ("." + ".".join(pieces[at:]) for at in range(len(pieces)))


def _definitions(tree: ast.Module | ast.ClassDef) -> Iterator[str]:
    for node in tree.body:
        if isinstance(node, ast.ClassDef):
            yield node.name
            yield from (f"{node.name}.{name}" for name in _definitions(node))
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name
            # Attributes that a method sets.
            for part in ast.walk(node):
                if isinstance(part, ast.Attribute) and isinstance(part.ctx, ast.Store):
                    yield part.attr
        elif isinstance(node, ast.Assign):
            yield from (target.id for target in node.targets if isinstance(target, ast.Name))
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            yield node.target.id
