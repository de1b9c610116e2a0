"""A message as plain text."""

from __future__ import annotations

import textwrap

from airflow_provider_gpu_cluster.messages.story import Story, count_text

_WIDTH = 78
_FACTS_IN_CHATS = ("GPUs", "GPU-hours", "GPU use", "Progress", "Exit code")
_MOST_IN_CHATS = 400
_MOST_LINES_IN_CHATS = 4
_MOST_OF_A_LINE_IN_CHATS = 100


def plain_text(story: Story) -> str:
    """Return a message as plain text, in blocks with an empty line between them."""
    blocks = [
        _wrapped(story.headline),
        _wrapped(story.cause),
        _wrapped(story.remedy, "What to do: "),
        _table(story.facts),
        _titled("Metrics", _table(story.metrics, indent="  ")),
        _titled("Earlier attempts", _attempts(story)),
        _titled("Its last lines", "\n".join(f"  {line}".rstrip() for line in story.last_lines)),
        "\n".join(f"{text}: {address}" for text, address in story.links),
    ]
    return "\n\n".join(block for block in blocks if block) + "\n"


def chat_text(story: Story) -> str:
    """Return a message for a chat: what matters most, in lines that the chat itself breaks, and the links."""
    facts = dict(story.facts)
    known = [f"{label}: {facts[label]}" for label in _FACTS_IN_CHATS if label in facts]
    lines = [f"  {line[:_MOST_OF_A_LINE_IN_CHATS]}".rstrip() for line in story.last_lines[-_MOST_LINES_IN_CHATS:]]
    blocks = [
        story.headline,
        _cut(story.cause),
        _cut(f"What to do: {story.remedy}") if story.remedy else "",
        "\n".join(known),
        _titled("Its last lines", "\n".join(lines)),
        "\n".join(f"{text}: {address}" for text, address in story.links),
    ]
    return "\n\n".join(block for block in blocks if block)


def _cut(text: str) -> str:
    return text if len(text) <= _MOST_IN_CHATS else text[: _MOST_IN_CHATS - 1].rstrip() + "…"


def _wrapped(text: str, label: str = "") -> str:
    # A long word, such as a path or an address, stays whole.
    return textwrap.fill(f"{label}{text}", _WIDTH, break_long_words=False, break_on_hyphens=False) if text else ""


def _titled(title: str, block: str) -> str:
    return f"{title}:\n{block}" if block else ""


def _table(rows: tuple[tuple[str, str], ...], indent: str = "") -> str:
    width = max((len(label) for label, _ in rows), default=0)
    return "\n".join(f"{indent}{label + ':':<{width + 1}} {text}" for label, text in rows)


def _attempts(story: Story) -> str:
    lines = [f"  {count_text(story.earlier, 'attempt')} before these"] if story.earlier else []
    for number, how, ran, where in story.attempts:
        after = f" after {ran}" if ran else ""
        on = f" on {where}" if where else ""
        lines.append(f"  {number}: {how}{after}{on}")
    return "\n".join(lines)
