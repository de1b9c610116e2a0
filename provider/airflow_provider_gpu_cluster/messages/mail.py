"""A message as an HTML document for a mail: it loads and runs nothing, and reads well in the dark and on a phone."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import jinja2

from airflow_provider_gpu_cluster.messages.story import Story, count_text


def html_mail(story: Story) -> str:
    """Return a message as an HTML document, in which all texts are escaped."""
    before = f"{count_text(story.earlier, 'attempt')} before these" if story.earlier else ""
    return _template().render(story=story, before=before)


@cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    return environment.get_template("mail.html.j2")
