"""The job's ``run.sh``, rendered from a template."""

from __future__ import annotations

import posixpath
import shlex
from functools import lru_cache
from pathlib import Path

import jinja2

from airflow_provider_gpu_cluster.exceptions import InvalidJobError
from airflow_provider_gpu_cluster.jobs.spec import JobSpec
from airflow_provider_gpu_cluster.sources.zipped import read_text

TEMPLATE = Path(__file__).parents[1] / "templates" / "run.sh.j2"

# The command that runs an entry script, by its suffix. Any other script is run directly.
LAUNCHERS = {
    ".py": '"$PYTHON"',
    ".sh": "bash",
    ".bash": "bash",
    ".R": "Rscript",
    ".r": "Rscript",
}


def render_run_script(
    spec: JobSpec,
    *,
    pass_output_dirs: bool = True,
    template: str | Path | None = None,
    job_id: str = "",
) -> str:
    """
    Render the script that the supervisor runs on the cluster.

    The template sees ``spec`` (:class:`JobSpec`), ``job_id``, ``pass_output_dirs`` and ``launcher`` (shell
    text that runs the entry script; empty if the script runs directly), and two filters: ``quote`` turns any text
    into one shell word, ``comment`` makes it safe in a ``#`` line.

    :param pass_output_dirs: give the entry script ``--output_dir "$OUTPUT_DIR" --log_dir "$LOG_DIR"`` after
        its own arguments. A ``command`` never gets them.
    :param template: a template to use instead of the built-in one: its path, or its text if that has more than
        one line.
    :param job_id: the job the script is for; shown in its header.
    :raises InvalidJobError: the template cannot be read or rendered.
    """
    text, where = _read(template)
    try:
        script = _compiled(text).render(
            spec=spec,
            job_id=job_id,
            pass_output_dirs=pass_output_dirs,
            launcher=LAUNCHERS.get(posixpath.splitext(spec.entry_script or "")[1], ""),
        )
    except jinja2.TemplateSyntaxError as error:
        raise InvalidJobError(f"the template of run.sh ({where}), line {error.lineno}: {error.message}") from error
    except Exception as error:
        raise InvalidJobError(
            f"the template of run.sh ({where}) cannot be rendered: {type(error).__name__}: {error}; "
            "it may use spec, job_id, pass_output_dirs and launcher"
        ) from error
    return script if script.endswith("\n") else f"{script}\n"


# All scripts of an array come from one template.
@lru_cache(maxsize=1)
def _compiled(text: str) -> jinja2.Template:
    environment = jinja2.Environment(
        undefined=jinja2.StrictUndefined, keep_trailing_newline=True, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(quote=_quote, comment=_comment)
    return environment.from_string(text)


def _read(template: str | Path | None) -> tuple[str, str]:
    """Return the text of a template and, for messages, where it comes from."""
    if isinstance(template, str) and "\n" in template:
        return template, "given as text"
    path = TEMPLATE if template is None else Path(template).expanduser()
    try:
        return read_text(path), str(path)
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidJobError(
            f"the template of run.sh cannot be read from {str(path)!r}: {error}; give the path of a text file"
        ) from error


def _quote(value: object) -> str:
    return shlex.quote(str(value))


def _comment(value: object) -> str:
    return "".join(character if character.isprintable() else "?" for character in str(value))
