"""
Write the parameters of a job, from their one list in ``jobs/parameters.py``, into the texts that editors and people
read.

``python scripts/write_parameters.py`` does so; a test says when it has to be done again. The operator's signature is
among them because a shorter one, ``**kwargs: Unpack[JobParameters]``, would forbid the arguments of Airflow's own
``BaseOperator`` to a type checker. PEP 728 will allow them, once mypy and editors all know it.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable
from pathlib import Path

from airflow_provider_gpu_cluster.jobs.parameters import PARAMETERS, Parameter

REPOSITORY = Path(__file__).resolve().parent.parent
PACKAGE = REPOSITORY / "provider" / "airflow_provider_gpu_cluster"
OPERATOR = PACKAGE / "operators" / "submit.py"
PAGE = REPOSITORY / "docs" / "operators.md"
# Docstrings that explain some of them.
EXPLAIN_SOME = (
    PACKAGE / "operators" / "stage.py",
    PACKAGE / "task_groups" / "gpu_job.py",
    PACKAGE / "hooks" / "gpu_cluster.py",
)
BEGIN = "<!-- Written by scripts/write_parameters.py from jobs/parameters.py: begin -->\n"
END = "<!-- end -->\n"

_NAMES = "|".join(PARAMETERS)


def main() -> None:
    """Write what is not as it should be."""
    for path, text in outdated().items():
        path.write_text(text, encoding="utf-8")
        print(f"wrote {path.relative_to(REPOSITORY)}")


def outdated() -> dict[Path, str]:
    """Return the files that are not as they should be, each with the text it should have."""
    texts = {OPERATOR: _operator(_read(OPERATOR)), PAGE: _page(_read(PAGE))}
    texts.update({path: _explained(_read(path), by_airflow="hooks" not in path.parts) for path in EXPLAIN_SOME})
    return {path: text for path, text in texts.items() if text != _read(path)}


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def _operator(text: str) -> str:
    parameters = PARAMETERS.values()
    in_signature = (f"        {one.name}: {one.type} = {_literal(one.default)},\n" for one in parameters)
    # What is secret is wrapped, by hand.
    assignments = (f"        self.{one.name} = {one.name}\n" for one in parameters if not one.secret)
    text = _replaced(text, rf"^        (?:{_NAMES}): .* = .*,\n", in_signature)
    text = _replaced(text, rf"^        self\.({_NAMES}) = \1\n", assignments)
    return _replaced(
        text, rf"^    :param (?:{_NAMES}): .*\n(?:        .*\n)*", (_entry(one, by_airflow=True) for one in parameters)
    )


def _replaced(text: str, pattern: str, lines: Iterable[str]) -> str:
    """Put lines in the place of all from the first that matches to the last."""
    found = list(re.finditer(pattern, text, re.MULTILINE))
    return text[: found[0].start()] + "".join(lines) + text[found[-1].end() :]


def _explained(text: str, *, by_airflow: bool) -> str:
    """Put the explanations of the list in the place of those that are there."""

    def entry(found: re.Match[str]) -> str:
        indent, name = found.groups()
        return _entry(PARAMETERS[name], by_airflow=by_airflow, indent=indent)

    return re.sub(rf"^( +):param ({_NAMES}): .*\n(?:\1    .*\n)*", entry, text, flags=re.MULTILINE)


def _entry(parameter: Parameter, *, by_airflow: bool, indent: str = "    ") -> str:
    """Return the entry of a docstring."""
    lines = textwrap.wrap(
        parameter.explanation(by_airflow=by_airflow),
        width=120,
        initial_indent=indent,
        subsequent_indent=f"{indent}    ",
        break_long_words=False,
        break_on_hyphens=False,
    )
    return "".join(f"{line}\n" for line in lines)


def _page(text: str) -> str:
    before, rest = text.split(BEGIN)
    after = rest.split(END, 1)[1]
    rows = "".join(_row(parameter) for parameter in PARAMETERS.values())
    return f"{before}{BEGIN}\n| Parameter | Default | Meaning |\n|---|---|---|\n{rows}\n{END}{after}"


def _row(parameter: Parameter) -> str:
    mark = " *" if parameter.templated else ""
    default = "" if parameter.default is None else f"`{_literal(parameter.default)}`"
    more = f" ([more]({parameter.page}))" if parameter.page else ""
    meaning = parameter.doc.replace("``", "`").replace("|", r"\|")
    return f"| `{parameter.name}`{mark} | {default} | {meaning}{more} |\n"


def _literal(value: object) -> str:
    return f'"{value}"' if isinstance(value, str) else repr(value)


if __name__ == "__main__":
    main()
