from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from airflow_provider_gpu_cluster.exceptions import InvalidJobError
from airflow_provider_gpu_cluster.jobs.script import render_run_script
from airflow_provider_gpu_cluster.jobs.spec import JobSpec, make_spec

SHOW = """import json, os, sys
json.dump(sys.argv[1:], open(os.environ["OUTPUT_DIR"] + "/argv.json", "w"))
"""


class Job:
    """A job's directory, and bash that runs its run.sh as the supervisor does."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.code = path / "code"
        self.outputs = path / "outputs"
        for folder in (self.code, self.outputs):
            folder.mkdir(parents=True)
        self.env = {
            "PATH": os.environ["PATH"],
            "PYTHON": sys.executable,
            "JOB_DIR": str(path),
            "OUTPUT_DIR": str(self.outputs),
            "LOG_DIR": str(path / "logs"),
        }

    def run(self, script: str) -> subprocess.CompletedProcess[str]:
        (self.path / "run.sh").write_text(script)
        return subprocess.run(
            ["bash", str(self.path / "run.sh")], cwd=self.code, env=self.env, capture_output=True, text=True
        )

    @property
    def argv(self) -> list[str]:
        found: list[str] = json.loads((self.outputs / "argv.json").read_text())
        return found


@pytest.fixture
def job(tmp_path: Path) -> Job:
    return Job(tmp_path / "job $(touch x) 'y'")


def test_python_script_gets_its_arguments_and_folders(job: Job) -> None:
    (job.code / "train.py").write_text(SHOW)
    spec = make_spec(entry_script="train.py", script_args=["--epochs", 2])
    done = job.run(render_run_script(spec, job_id="d-t-20260101T000000-0123abcd"))
    assert (done.returncode, done.stderr) == (0, "")
    assert job.argv == ["--epochs", "2", "--output_dir", str(job.outputs), "--log_dir", job.env["LOG_DIR"]]


def test_the_folders_can_be_left_out(job: Job) -> None:
    (job.code / "train.py").write_text(SHOW)
    assert job.run(render_run_script(JobSpec(entry_script="train.py"), pass_output_dirs=False)).returncode == 0
    assert job.argv == []


HOSTILE = [
    "$(touch x)",
    "`touch x`",
    "'; touch x; '",
    '"',
    "a\nb",
    "\\",
    "*",
    "~",
    "!",
    "",
    " ",
    "-x",
    "ü",
    "$HOME",
    "#",
]


def test_no_argument_is_taken_for_shell(job: Job) -> None:
    (job.code / "train.py").write_text(SHOW)
    spec = make_spec(entry_script="train.py", script_args=HOSTILE)
    assert job.run(render_run_script(spec, pass_output_dirs=False)).returncode == 0
    assert job.argv == HOSTILE
    assert sorted(path.name for path in job.code.iterdir()) == ["train.py"]


@settings(
    max_examples=25,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))))
def test_any_text_arrives_as_it_was_given(job: Job, arguments: list[str]) -> None:
    (job.code / "show.sh").write_text('printf "%s\\0" "$@"')
    spec = make_spec(entry_script="show.sh", script_args=[*arguments, "end"])
    (job.path / "run.sh").write_bytes(render_run_script(spec, pass_output_dirs=False).encode())
    done = subprocess.run(["bash", str(job.path / "run.sh")], cwd=job.code, env=job.env, stdout=subprocess.PIPE)
    assert done.stdout.decode().split("\0")[:-1] == [*arguments, "end"]


@pytest.mark.parametrize("name", ["$(touch x).py", "a b.py", "-c.py", "it's.py", "new\nline.py", "sub/x;y.py"])
def test_no_script_name_is_taken_for_shell(job: Job, name: str) -> None:
    (job.code / name).parent.mkdir(exist_ok=True)
    (job.code / name).write_text(SHOW)
    assert job.run(render_run_script(make_spec(entry_script=name, script_args=["1"]))).returncode == 0
    assert job.argv[0] == "1"
    assert not (job.code / "x").exists()


@pytest.mark.parametrize("job_id", ["x\ntouch $OUTPUT_DIR/x\n", "x\rtouch", "a\u2028b", ""])
def test_a_job_id_cannot_leave_the_header(job: Job, job_id: str) -> None:
    script = render_run_script(make_spec(command="true"), job_id=job_id)
    assert script.split("\n")[1].startswith("# run.sh")
    assert job.run(script).returncode == 0
    assert list(job.outputs.iterdir()) == []


@pytest.mark.parametrize("code", [0, 1, 3, 130])
@pytest.mark.parametrize("name", ["x.py", "x.sh", "x.bash", "x"])
def test_the_exit_code_is_the_scripts(job: Job, name: str, code: int) -> None:
    (job.code / name).write_text(
        f"raise SystemExit({code})" if name == "x.py" else f"#!/usr/bin/env bash\nexit {code}\n"
    )
    assert job.run(render_run_script(JobSpec(entry_script=name))).returncode == code


def test_the_script_replaces_the_shell(job: Job) -> None:
    (job.code / "x.py").write_text("import os, signal; os.kill(os.getpid(), signal.SIGKILL)")
    assert job.run(render_run_script(JobSpec(entry_script="x.py"))).returncode == -9


def test_a_script_of_another_kind_is_run_directly(job: Job) -> None:
    (job.code / "tool").write_text(f"#!{sys.executable}\n{SHOW}")
    (job.code / "tool").chmod(0o644)
    assert job.run(render_run_script(JobSpec(entry_script="tool"), pass_output_dirs=False)).returncode == 0
    assert job.argv == []


def test_r_scripts_go_to_rscript(job: Job) -> None:
    assert 'exec Rscript "$script"' in render_run_script(JobSpec(entry_script="fit.R"))


def test_a_script_that_is_missing(job: Job) -> None:
    done = job.run(render_run_script(JobSpec(entry_script="nowhere.py")))
    assert done.returncode != 0
    assert "nowhere.py" in done.stderr


def test_a_command_fails_with_the_first_part_of_its_pipe(job: Job) -> None:
    done = job.run(render_run_script(JobSpec(command="python3 -c 'raise SystemExit(5)' | tee out.txt")))
    assert done.returncode == 5


def test_a_command_stops_at_the_first_line_that_fails(job: Job) -> None:
    done = job.run(render_run_script(JobSpec(command="false\necho not reached")))
    assert (done.returncode, done.stdout) == (1, "")


def test_a_command_is_shell_text_kept_as_it_is(job: Job) -> None:
    loop = 'for i in 1 2; do\n  echo "$i {{ not jinja }} $OUTPUT_DIR"\ndone\n'
    command = f"{loop}cat <<'END'\n# {{% raw %}}\nEND\nexit 4"
    script = render_run_script(JobSpec(command=command))
    assert command in script
    assert "--output_dir" not in script
    done = job.run(script)
    assert done.returncode == 4
    lines = [f"{i} {{{{ not jinja }}}} {job.outputs}" for i in (1, 2)]
    assert done.stdout.splitlines() == [*lines, "# {% raw %}"]


def test_a_command_knows_the_interpreter(job: Job) -> None:
    done = job.run(render_run_script(JobSpec(command='"$PYTHON" -c "print(1)"')))
    assert done.stdout == "1\n"


def test_python3_of_the_path_is_the_default(job: Job) -> None:
    del job.env["PYTHON"]
    done = job.run(render_run_script(JobSpec(command='echo "$PYTHON"')))
    assert done.stdout == "python3\n"


def test_an_interpreter_with_a_blank_in_its_path(job: Job) -> None:
    (job.code / "train.py").write_text(SHOW)
    (job.path / "my python").write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    (job.path / "my python").chmod(0o755)
    job.env["PYTHON"] = str(job.path / "my python")
    assert job.run(render_run_script(JobSpec(entry_script="train.py"))).returncode == 0


def test_the_built_environment_comes_before_what_setup_puts_in_the_path(job: Job) -> None:
    venv = job.path / "venv"
    (venv / "bin").mkdir(parents=True)
    shutil.copy("/bin/sh", venv / "bin" / "python3")
    job.env["VIRTUAL_ENV"] = str(venv)
    spec = make_spec(command='command -v python3; echo "$PYTHON"', setup='export PATH="/elsewhere:$PATH"')
    done = job.run(render_run_script(spec))
    assert done.stdout.splitlines() == [f"{venv}/bin/python3"] * 2


def test_setup_runs_first_and_may_change_the_shell(job: Job) -> None:
    (job.code / "train.sh").write_text('echo "$GREETING from $(basename "$PWD")"')
    spec = make_spec(entry_script="train.sh", setup=["export GREETING='hello there'", "mkdir sub", "cd sub"])
    assert job.run(render_run_script(spec)).stdout == "hello there from sub\n"


def test_setup_that_fails_fails_the_job(job: Job) -> None:
    done = job.run(render_run_script(make_spec(command="echo not reached", setup="echo one\nfalse\necho two")))
    assert (done.returncode, done.stdout) == (1, "one\n")


def test_module_that_is_not_there_fails_the_job(job: Job) -> None:
    done = job.run(render_run_script(make_spec(command="echo not reached", setup="nomodule load cuda")))
    assert done.returncode == 127
    assert "nomodule: command not found" in done.stderr


@pytest.mark.parametrize("setup", ["cat <<END", "echo 'open", "if true; then", "echo \\", "# only a comment", "(("])
def test_unfinished_setup_cannot_swallow_the_job(job: Job, setup: str) -> None:
    done = job.run(render_run_script(make_spec(command="echo reached", setup=setup)))
    assert "reached" in done.stdout or done.returncode != 0


def test_what_is_rendered_is_a_script_for_people() -> None:
    spec = make_spec(entry_script="train.py", script_args=["--epochs", "20"])
    script = render_run_script(spec, job_id="digits-train-20260101T000000-0123abcd")
    lines = script.split("\n")
    assert lines[0] == "#!/usr/bin/env bash"
    assert lines[1].startswith("# run.sh of job digits-train-20260101T000000-0123abcd: ")
    assert 'exec "$PYTHON" "$script" --epochs 20 --output_dir "$OUTPUT_DIR" --log_dir "$LOG_DIR"' in lines
    assert script.endswith("\n")
    assert "\n\n\n" not in script


def test_a_template_of_the_users_own(tmp_path: Path, job: Job) -> None:
    text = "# {{ job_id | comment }}\nexec echo {{ spec.script_args[0] | quote }}"
    path = tmp_path / "mine.j2"
    path.write_text(text)
    spec = make_spec(entry_script="x.py", script_args=["$(id)"])
    for template in (text, path, str(path)):
        assert job.run(render_run_script(spec, template=template, job_id="j")).stdout == "$(id)\n"


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("\n{{ spec.no_such }}", "no attribute 'no_such'"),
        ("\n{{ unknown }}", "'unknown' is undefined"),
        ("\n{% if %}", "line 2"),
        ("\n{{ 1 / 0 }}", "division by zero"),
        ("/no/such/template.j2", "cannot be read from '/no/such/template.j2'"),
    ],
)
def test_a_template_that_is_wrong(template: str, message: str) -> None:
    with pytest.raises(InvalidJobError, match=r"the template of run\.sh") as caught:
        render_run_script(JobSpec(command="true"), template=template)
    assert message in str(caught.value)
