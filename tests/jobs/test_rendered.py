"""Parameters take what templates make of them, as text and as native values."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import jinja2
import jinja2.nativetypes
import pytest

from airflow_provider_gpu_cluster.exceptions import InvalidJobError
from airflow_provider_gpu_cluster.jobs.identity import JobIdentity
from airflow_provider_gpu_cluster.jobs.parameter_checks import check_env, connection_ids, patterns, source, sources
from airflow_provider_gpu_cluster.jobs.request import JobRequest
from airflow_provider_gpu_cluster.jobs.spec import make_spec

UNDEFINED = jinja2.nativetypes.NativeEnvironment(undefined=jinja2.StrictUndefined).from_string("{{ missing }}").render()


@pytest.mark.parametrize(
    ("parameter", "rendered", "meant"),
    [
        *(("gpus", value, 2) for value in (2, "2", 2.0, "2.0", " 2 ", Decimal(2))),
        *((name, 3.0, 3) for name in ("cpus", "nodes")),
        ("gpu_type", 4090, "4090"),
        ("gpu_type", "4090", "4090"),
        ("account", 123456, "123456"),
        ("partition", 1, "1"),
        ("qos", 2.5, "2.5"),
        ("constraint", 7, "7"),
        ("memory_bytes", 34359738368.0, 34359738368),
        ("memory_bytes", "1048576.0", 1 << 20),
        ("time_limit_s", "3600", 3600.0),
        ("time_limit_s", 3600.0, 3600.0),
        ("time_limit_s", Decimal("1.5"), 1.5),
        ("time_limit_s", "01:00:00", 3600.0),
        ("time_limit_s", str(timedelta(days=2, seconds=1.5)), 172801.5),
        ("priority", " high ", "high"),
        ("script_args", ["--n", 1, 0.5, True, Decimal("2.5")], ("--n", "1", "0.5", "True", "2.5")),
        ("script_args", "['--n', 1]", ("--n", "1")),
        ("script_args", '["--n", true]', ("--n", "True")),
        ("script_args", "None", ()),
        ("script_args", "", ()),
        ("script_args", iter(["a"]), ("a",)),
        ("sbatch_options", ["--nice", 7], ("--nice", "7")),
        ("sbatch_options", "['--nice=7']", ("--nice=7",)),
        ("sbatch_options", "None", ()),
        ("requirements", "['numpy', 'torch']", "numpy\ntorch\n"),
        ("requirements", "None", None),
        ("setup", "['module load x']", "module load x"),
        ("setup", "(cd x; ls)", "(cd x; ls)"),
        ("setup", "[ -d x ] && ls", "[ -d x ] && ls"),
        ("setup", "None", ""),
        ("entry_script", 7, "7"),
    ],
)
def test_what_is_rendered_is_what_is_meant(parameter: str, rendered: Any, meant: Any) -> None:
    written = parameter.removesuffix("_bytes").removesuffix("_s")
    spec = make_spec(**{"entry_script": "train.py", written: rendered})
    assert getattr(spec, parameter) == meant


@pytest.mark.parametrize("written", ["None", "", None])
def test_command_that_renders_to_none_is_none(written: Any) -> None:
    assert make_spec(entry_script="a.py", command=written).command is None
    assert make_spec(entry_script=written, command="ls").entry_script is None


@pytest.mark.parametrize(
    ("parameter", "rendered", "kind"),
    [
        ("gpus", 1.5, "float"),
        ("gpus", True, "bool"),
        ("gpus", [2], "list"),
        ("gpu_type", False, "bool"),
        ("account", {"a": 1}, "dict"),
        ("memory", [1], "list"),
        ("time_limit", True, "bool"),
        ("priority", 1, "int"),
        ("command", ["ls"], "list"),
        ("script_args", {"--n": 1}, "dict"),
        ("pass_output_dirs", 1, "int"),
    ],
)
def test_what_cannot_be_right_is_told_with_its_value_and_type(parameter: str, rendered: Any, kind: str) -> None:
    run: dict[str, Any] = {parameter: rendered, **({} if parameter == "command" else {"entry_script": "a.py"})}
    with pytest.raises(InvalidJobError) as caught:
        JobRequest(**run).check()
    assert str(caught.value).startswith(f"{parameter}={rendered!r} ({kind}) is not valid")


@pytest.mark.parametrize("name", ["gpus", "gpu_type", "memory", "script_args", "env", "code", "data", "array", "setup"])
@pytest.mark.parametrize("nested", [False, True])
def test_undefined_names_are_named(name: str, nested: bool) -> None:
    value: Any = {"X": UNDEFINED} if nested and name == "env" else [UNDEFINED] if nested else UNDEFINED
    run: dict[str, Any] = {"command" if name != "script_args" else "entry_script": "x", name: value}
    request = JobRequest(**run)

    def launch() -> None:
        request.sources(base_dir=Path())
        request.launch_arguments(JobIdentity("job", "key", "0", {}), base_dir=Path(), staged=False)

    said = rf"^{name}.*: its template uses the name 'missing', which is not defined"
    with pytest.raises(InvalidJobError, match=said):
        launch()


@pytest.mark.parametrize("nothing", [None, "None", "", " ", [], [None], ["None", [""]], ()])
def test_sources_that_render_to_nothing_are_none(nothing: Any, tmp_path: Path) -> None:
    request = JobRequest(command="true", code=nothing, data=nothing, models=nothing)
    assert request.sources(base_dir=tmp_path) == ()
    request.check(staged=True)


def test_lists_of_sources_in_lists_are_one_list() -> None:
    assert sources("data", [["a", "b"], "c", None, ("d",), "['e', 'f']"]) == ["a", "b", "c", "d", "e", "f"]
    assert sources("data", "[odd name]") == ["[odd name]"]
    assert sources("data", 2024) == ["2024"]
    assert source("code", ["x"]) == "x"
    assert source("code", ["x", "y"]) == ["x", "y"]


@pytest.mark.parametrize("written", ['{"SEED": 7, "X": "y"}', "{'SEED': 7, 'X': 'y'}", {"SEED": 7, "X": "y"}])
def test_env_may_be_the_text_of_a_dict(written: Any) -> None:
    assert check_env(written) == {"SEED": "7", "X": "y"}


@pytest.mark.parametrize("nothing", [None, "None", ""])
def test_env_that_renders_to_nothing(nothing: Any) -> None:
    assert check_env(nothing) == {}


def test_connections_and_patterns() -> None:
    assert [connection_ids(value) for value in (4090, "lab", None, "None", "")] == ["4090", "lab", None, None, None]
    assert [connection_ids(value) for value in (["a"], [1, 2], "['a', 'b']", "a, b,")] == [
        "a",
        ["1", "2"],
        ["a", "b"],
        ["a", "b"],
    ]
    assert [connection_ids(value) for value in (" lab ", "a\nb\n", ",a")] == ["lab", ["a", "b"], "a"]
    for value in (b"lab", "[a, b]", '{"a": 2, "b": 1}', {"a", "b"}, [["a"], "b"], object()):
        with pytest.raises(InvalidJobError, match="is not valid; valid is the id of a connection, or a list of ids"):
            connection_ids(value)
    assert patterns("include", "*.pth") == ["*.pth"]
    assert patterns("include", "[ab].pth") == ["[ab].pth"]
    assert patterns("include", "None") == patterns("include", None) == []
    assert patterns("include", ["a", ["b"], 7]) == ["a", "b", "7"]


@pytest.mark.parametrize(("written", "meant"), [(True, True), ("true", True), ("False", False), (False, False)])
def test_pass_output_dirs_may_be_text(written: Any, meant: bool) -> None:
    script = JobRequest(entry_script="a.py", pass_output_dirs=written).run_script("job", base_dir=Path())
    assert ("--output_dir" in script) is meant
