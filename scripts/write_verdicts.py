"""
Write the table of kinds, from ``gpu_run/verdict/kinds.py``, into ``docs/verdicts.md``.

``python scripts/write_verdicts.py`` does so; a test says when it has to be done again.
"""

from __future__ import annotations

from pathlib import Path

from airflow_provider_gpu_cluster.gpu_run import protocol
from airflow_provider_gpu_cluster.gpu_run.verdict.kinds import KINDS, OTHER_KINDS

PAGE = Path(__file__).resolve().parent.parent / "docs" / "verdicts.md"
BEGIN = "<!-- Written by scripts/write_verdicts.py from gpu_run/verdict/kinds.py: begin -->\n"
END = "<!-- end -->\n"


def main() -> None:
    """Write the page if it is not as it should be."""
    text = page()
    if text != PAGE.read_text(encoding="utf-8"):
        PAGE.write_text(text, encoding="utf-8")
        print(f"wrote docs/{PAGE.name}")


def page() -> str:
    """Return the page as it should be."""
    text = PAGE.read_text(encoding="utf-8")
    before, rest = text.split(BEGIN)
    return before + BEGIN + table() + END + rest.split(END, 1)[1]


def table() -> str:
    """Return the table, a row for each cause."""
    lines = ["| Kind | Reason | What happened | What to do |", "|---|---|---|---|"]
    rows = [(kind.name, kind.reason, kind.cause, kind.remedy) for kind in KINDS]
    order = list(dict.fromkeys(name for name, *_ in rows))
    rows.sort(key=lambda row: order.index(row[0]))
    for name, (cause, remedy) in OTHER_KINDS.items():
        rows.append((name, name if name in protocol.REASONS else protocol.USER_ERROR, cause, remedy))
    seen = set()
    for name, reason, cause, remedy in rows:
        if (name, cause) not in seen:
            seen.add((name, cause))
            cells = (f"`{name}`", f"`{reason}`", cause, remedy)
            lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
