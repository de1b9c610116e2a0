from __future__ import annotations

import inspect
from datetime import timedelta
from pathlib import PurePosixPath
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from airflow_provider_gpu_cluster.exceptions import InvalidJobError
from airflow_provider_gpu_cluster.jobs.parameter_checks import RESERVED_ENV, check_env
from airflow_provider_gpu_cluster.jobs.spec import JobSpec, make_spec


def spec(**parameters: Any) -> JobSpec:
    return make_spec(**{"entry_script": "train.py", **parameters})


def test_defaults() -> None:
    assert spec() == JobSpec(entry_script="train.py")


def test_everything_at_once() -> None:
    assert spec(
        script_args=["--epochs", 20, 0.5, True, PurePosixPath("a/b")],
        gpus="2",
        gpu_type=" A100 ",
        cpus="4",
        memory="32G",
        time_limit="3600",
        priority="high",
        nodes="2",
        partition="gpu",
        account=" vision ",
        qos="long",
        constraint="a100&nvlink",
        sbatch_options="--exclude=gpu7 --mail-type END",
        requirements=["numpy>=2", "torch"],
        setup=["module load cuda", "export X=1"],
        stop_signal="sigint",
        stop_signal_to="all",
        grace="3",
        warn_before="0:05:00",
        warn_signal="12",
        recover={"time_limit": "progress", "lost": 0, "out_of_memory": (2, 1.5)},
        checkpoint_exit_code="99",
        hang_timeout=timedelta(hours=1),
        orphan_timeout=7200,
    ) == JobSpec(
        entry_script="train.py",
        script_args=("--epochs", "20", "0.5", "True", "a/b"),
        gpus=2,
        gpu_type="A100",
        cpus=4,
        memory_bytes=32 << 30,
        time_limit_s=3600.0,
        priority="high",
        nodes=2,
        partition="gpu",
        account="vision",
        qos="long",
        constraint="a100&nvlink",
        sbatch_options=("--exclude=gpu7", "--mail-type", "END"),
        requirements="numpy>=2\ntorch\n",
        setup="module load cuda\nexport X=1",
        stop_signal="INT",
        stop_signal_to="all",
        grace_s=3.0,
        warn_before_s=300.0,
        warn_signal="USR2",
        recover={
            "preempted": 20,
            "node_failure": 3,
            "checkpointed": 1000,
            "time_limit": "progress",
            "out_of_memory": [2, 1.5],
        },
        checkpoint_exit_code=99,
        hang_timeout_s=3600.0,
        orphan_timeout_s=7200.0,
    )


@pytest.mark.parametrize("value", [None, "", "None", " none ".title()])
def test_a_template_that_renders_none_leaves_a_resource_open(value: Any) -> None:
    assert spec(cpus=value, memory=value, time_limit=value, gpu_type=value) == spec()
    assert spec(partition=value, account=value, qos=value, constraint=value) == spec()


@pytest.mark.parametrize(
    ("written", "size"),
    [
        (1 << 30, 1 << 30),
        ("1073741824", 1 << 30),
        ("512M", 512 << 20),
        ("32G", 32 << 30),
        ("32g", 32 << 30),
        ("32GB", 32 << 30),
        ("32GiB", 32 << 30),
        ("32Gi", 32 << 30),
        (" 32 GiB ", 32 << 30),
        ("1.5T", 3 << 39),
        ("2048K", 2 << 20),
        ("1P", 1 << 50),
        ("0.1G", 107374182),
    ],
)
def test_memory(written: Any, size: int) -> None:
    assert spec(memory=written).memory_bytes == size


@pytest.mark.parametrize(
    "written",
    [
        *("32GG", "-1G", "0", "0G", "G", "1e3G", "32X", "1.G", ".5G", "32G 1", "32\nG1", "٣٢G", "9" * 30, "8E"),
        *(-1, 0, 1.5, True, [1], 1 << 63),
    ],
)
def test_memory_that_is_none(written: Any) -> None:
    with pytest.raises(InvalidJobError, match=r"^memory=.* valid is bytes, or a number with a unit"):
        spec(memory=written)


def test_memory_without_its_unit_is_found_out() -> None:
    with pytest.raises(InvalidJobError, match="it is 32 bytes, and no job starts with less than 1M"):
        spec(memory=32)


@pytest.mark.parametrize(
    ("written", "seconds"),
    [(60, 60.0), (0.5, 0.5), ("60", 60.0), (" 1.5 ", 1.5), (timedelta(hours=1), 3600.0), ("1e3", 1000.0)],
)
def test_time_limit(written: Any, seconds: float) -> None:
    assert spec(time_limit=written).time_limit_s == seconds


@pytest.mark.parametrize(
    "written",
    [0, "0", -1, timedelta(0), timedelta(seconds=-1), "1h", True, "nan", float("inf"), 10**400, [60]],
)
def test_time_limit_that_is_none(written: Any) -> None:
    with pytest.raises(InvalidJobError, match=r"^time_limit=.* valid is seconds above 0"):
        spec(time_limit=written)


@pytest.mark.parametrize("parameter", ["gpus", "cpus"])
@pytest.mark.parametrize("written", [0, -1, 1.5, True, "two", "0", "-1", "1.5", [2], "٢", "1\n2", "+2"])
def test_counts_that_are_none(parameter: str, written: Any) -> None:
    with pytest.raises(InvalidJobError, match=rf"^{parameter}=.* valid is a whole number from 1 up"):
        spec(**{parameter: written})


def test_gpus_cannot_be_left_open() -> None:
    with pytest.raises(InvalidJobError, match=r"^gpus=None"):
        spec(gpus=None)


@pytest.mark.parametrize("written", ["urgent", "HIGH", "", None, 1])
def test_priority(written: Any) -> None:
    with pytest.raises(InvalidJobError, match=r"^priority=.* one of 'high', 'normal', 'low'"):
        spec(priority=written)


def test_exactly_one_of_entry_script_and_command() -> None:
    with pytest.raises(InvalidJobError, match="neither was given"):
        make_spec()
    with pytest.raises(InvalidJobError, match="neither was given"):
        make_spec(entry_script="", command="")
    with pytest.raises(InvalidJobError, match=r"both \('train.py' and a command\) were given"):
        make_spec(entry_script="train.py", command="python train.py")


@pytest.mark.parametrize(
    ("written", "path"),
    [
        ("train.py", "train.py"),
        ("./src//train.py", "src/train.py"),
        ("a/../b.py", "b.py"),
        (PurePosixPath("src/x.sh"), "src/x.sh"),
        ("-x $(y) 'z'\n.py", "-x $(y) 'z'\n.py"),
    ],
)
def test_entry_script(written: Any, path: str) -> None:
    assert make_spec(entry_script=written).entry_script == path


@pytest.mark.parametrize("written", ["/abs.py", "../x.py", "a/../../x.py", "..", ".", "src/", " ", "a\0b", True, b"x"])
def test_entry_script_outside_the_code(written: Any) -> None:
    with pytest.raises(InvalidJobError, match=r"^entry_script=.* relative to it"):
        make_spec(entry_script=written)


def test_command_is_kept_as_it_is() -> None:
    assert make_spec(command=" a | b\n  c\r\n").command == " a | b\n  c\n"


@pytest.mark.parametrize("written", ["  \n", ["python", "train.py"], "a\0b", "\ud800"])
def test_command_that_is_none(written: Any) -> None:
    with pytest.raises(InvalidJobError, match=r"^command="):
        make_spec(command=written)


@pytest.mark.parametrize("written", ["--epochs 20", {"epochs": 20}, {"--epochs"}, 7])
def test_script_args_must_be_a_list(written: Any) -> None:
    with pytest.raises(InvalidJobError, match=r"^script_args=.* a list with one item per argument"):
        spec(script_args=written)


@pytest.mark.parametrize("item", [None, ["x"], "a\0b", "\udcff", "x" * 131_072])
def test_a_bad_script_argument_is_named_by_its_place(item: Any) -> None:
    with pytest.raises(InvalidJobError, match=r"^script_args\[1\]="):
        spec(script_args=["ok", item])


def test_errors_do_not_repeat_endless_values() -> None:
    with pytest.raises(InvalidJobError) as caught:
        spec(script_args=["x" * 200_000])
    assert len(str(caught.value)) < 500


def test_script_args_need_an_entry_script() -> None:
    with pytest.raises(InvalidJobError, match="script_args are for an entry_script"):
        make_spec(command="true", script_args=["x"])


@pytest.mark.parametrize(
    ("written", "text"),
    [(None, None), ("", ""), ([], ""), ("numpy", "numpy\n"), ("a\r\nb\n", "a\nb\n"), (["a", "b"], "a\nb\n")],
)
def test_requirements(written: Any, text: str | None) -> None:
    assert spec(requirements=written).requirements == text


@pytest.mark.parametrize("written", ["requirements.txt", ["envs/gpu.txt"], 7, ["a", 7], "a\0b"])
def test_requirements_that_are_none(written: Any) -> None:
    with pytest.raises(InvalidJobError, match=r"^requirements=.* valid is requirement lines"):
        spec(requirements=written)


@pytest.mark.parametrize("written", [7, ["a", 7], "a\0b", {"a": 1}])
def test_setup_that_is_none(written: Any) -> None:
    with pytest.raises(InvalidJobError, match=r"^setup=.* valid is shell lines"):
        spec(setup=written)


@pytest.mark.parametrize("written", ["A100\nx", True])
def test_gpu_type_that_is_none(written: Any) -> None:
    with pytest.raises(InvalidJobError, match=r"^gpu_type="):
        spec(gpu_type=written)


def test_grace() -> None:
    assert spec().grace_s is None
    assert spec(grace="0").grace_s == 0.0
    with pytest.raises(InvalidJobError, match=r"^grace=-1"):
        spec(grace=-1)


@pytest.mark.parametrize("value", ["KILL", 9, "nonsense", True, "", 4711])
def test_signals_that_cannot_be_caught_are_none(value: Any) -> None:
    with pytest.raises(InvalidJobError, match=r"^stop_signal=.* is not valid"):
        spec(stop_signal=value)


@pytest.mark.parametrize("value", [None, "None", True, "true", {}, "{}"])
def test_a_job_recovers_unless_its_user_says_otherwise(value: Any) -> None:
    assert spec(recover=value).recover == {"preempted": 20, "node_failure": 3, "lost": 2, "checkpointed": 1000}


@pytest.mark.parametrize("value", [False, "False"])
def test_a_job_that_never_recovers(value: Any) -> None:
    assert spec(recover=value).recover == {}


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ({"preemption": 3}, r"did you mean 'preempted'\?"),
        ({"Time-Limit": 3}, r"did you mean 'time_limit'\?"),
        ({"cancelled": 3}, "valid are the reasons preempted, "),
        ({7: 3}, "has the key 7; valid are"),
        ({"x" * 10_000: 3}, "valid are the reasons"),
        ({"lost": -1}, r"recover\['lost'\]=-1 \(int\) is not valid; valid is how often"),
        ({"lost": 1.5}, r"recover\['lost'\]=1\.5 \(float\)"),
        ({"lost": True}, r"recover\['lost'\]=True \(bool\)"),
        ({"lost": None}, r"recover\['lost'\]=None is"),
        ({"lost": "twice"}, r"recover\['lost'\]='twice'"),
        ({"lost": float("nan")}, r"recover\['lost'\]=nan"),
        ({"lost": "progress"}, r"recover\['lost'\].* \('progress' is for time_limit alone\)"),
        ({"time_limit": "checkpoints"}, "or 'progress': as long as"),
        ({"time_limit": True}, "or 'progress': as long as"),
        ({"lost": (2, 1.5)}, r"recover\['lost'\].* \(a factor is for out_of_memory alone\)"),
        ({"out_of_memory": (2, 1)}, r"or such as \(2, 1\.5\)"),
        ({"out_of_memory": (2, 0.5)}, r"or such as \(2, 1\.5\)"),
        ({"out_of_memory": (2, 101)}, "above 1, up to 100"),
        ({"out_of_memory": (2, True)}, r"or such as \(2, 1\.5\)"),
        ({"out_of_memory": (2, float("inf"))}, r"or such as \(2, 1\.5\)"),
        ({"out_of_memory": (-2, 1.5)}, r"or such as \(2, 1\.5\)"),
        ({"out_of_memory": (1.5, 2)}, r"or such as \(2, 1\.5\)"),
        ({"out_of_memory": (2, 1.5, 3)}, r"or such as \(2, 1\.5\)"),
        ({"out_of_memory": {2, 1.5}}, r"or such as \(2, 1\.5\)"),
        (0, r"recover=0 \(int\) is not valid; valid is None \(the default\), False \(never\), or a dict"),
        (7, "False .never., or a dict"),
        ("often", "False .never., or a dict"),
        ("{'lost': }", "False .never., or a dict"),
        (["preempted"], "False .never., or a dict"),
    ],
)
def test_budgets_that_mean_nothing(value: Any, words: str) -> None:
    with pytest.raises(InvalidJobError, match=words) as error:
        spec(recover=value)
    assert len(str(error.value)) < 500


@pytest.mark.parametrize(
    ("value", "changed"),
    [
        ("{'preempted': 5}", {"preempted": 5}),
        ('{"time_limit": " progress "}', {"time_limit": "progress"}),
        ({"preempted": "5", "lost": 4.0, "hang": "1.0"}, {"preempted": 5, "lost": 4, "hang": 1}),
        ({"out_of_memory": "(2, 1.5)"}, {"out_of_memory": [2, 1.5]}),
        ({"out_of_memory": ["2", "1.5"]}, {"out_of_memory": [2, 1.5]}),
        ({"out_of_memory": 3, "disk_full": 0}, {"out_of_memory": 3}),
        ({"user_error": 1, "gpu_out_of_memory": 2}, {"user_error": 1, "gpu_out_of_memory": 2}),
    ],
)
def test_budgets_change_the_default(value: Any, changed: dict[str, Any]) -> None:
    default = {"preempted": 20, "node_failure": 3, "lost": 2, "checkpointed": 1000}
    assert spec(recover=value).recover == {**default, **changed}


def test_budgets_of_zero_are_none() -> None:
    assert spec(recover={"preempted": 0, "node_failure": "0", "lost": 0.0, "checkpointed": 0}).recover == {}
    assert "out_of_memory" not in spec(recover={"out_of_memory": (0, 1.5)}).recover


def test_env() -> None:
    assert check_env(None) == {}
    assert check_env({"SEED": 7, "RATE": 0.5, "_x1": "a\nb", "ON": True}) == {
        "SEED": "7",
        "RATE": "0.5",
        "_x1": "a\nb",
        "ON": "True",
    }


@pytest.mark.parametrize("name", ["1A", "A-B", "", "A B", "A=B", "Ä", "A\n", 7, None])
def test_env_names(name: Any) -> None:
    with pytest.raises(InvalidJobError, match="env has the name") as caught:
        check_env({name: "s3cret"})
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize("name", RESERVED_ENV)
def test_reserved_env_names(name: str) -> None:
    with pytest.raises(InvalidJobError, match=f"env sets {name}, which every job gets"):
        check_env({name: "s3cret"})


@pytest.mark.parametrize("value", [None, ["s3cret"], {"s3cret": 1}, "s3cret\0", b"s3cret", "s3cret\ud800"])
def test_env_values_are_never_shown(value: Any) -> None:
    with pytest.raises(InvalidJobError, match=r"env\['TOKEN'\]") as caught:
        check_env({"TOKEN": value})
    assert "s3cret" not in str(caught.value)


def test_env_value_that_linux_would_refuse() -> None:
    assert check_env({"X": "y" * (131_071 - 2)})
    with pytest.raises(InvalidJobError, match="has 131072 bytes with its name"):
        check_env({"X": "y" * (131_072 - 2)})


@pytest.mark.parametrize("env", ["A=1", ["A=1"]])
def test_env_that_is_no_dict(env: Any) -> None:
    with pytest.raises(InvalidJobError, match="valid is a dict"):
        check_env(env)


anything = st.one_of(
    st.none(),
    st.text(),
    st.integers(),
    st.floats(),
    st.booleans(),
    st.binary(),
    st.lists(st.text()),
    st.timedeltas(),
)


@settings(deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(st.sampled_from(sorted(inspect.signature(make_spec).parameters)), anything))
def test_whatever_is_written_gives_a_spec_or_one_kind_of_error(parameters: dict[str, Any]) -> None:
    try:
        found = make_spec(**parameters)
    except InvalidJobError:
        return
    assert found.gpus >= 1
    assert (found.entry_script is None) != (found.command is None)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--job-name=mine"], "--job-name is an option that gpu-run sets itself"),
        (["-omine.txt"], "is an option that gpu-run sets itself"),
        ("--reservation=x --wrap", "--wrap is an option that gpu-run sets itself"),
        (["train.sh"], "'train.sh' is no option"),
        (["--x=\n"], "is not printable"),
        ("--comment='", "No closing quotation"),
        (7, "valid is options of sbatch"),
        ([True], "valid is options of sbatch"),
    ],
)
def test_sbatch_options_that_cannot_be_given(options: Any, said: str) -> None:
    with pytest.raises(InvalidJobError, match=r"^sbatch_options=") as raised:
        spec(sbatch_options=options)
    assert said in str(raised.value)


@pytest.mark.parametrize("value", [True, "a\nb", ["gpu"]])
def test_slurm_s_words(value: Any) -> None:
    with pytest.raises(InvalidJobError, match=r"^partition=.* one line of text, such as 'gpu'"):
        spec(partition=value)


@pytest.mark.parametrize("value", [0, -1, 1.5, "two", True])
def test_nodes(value: Any) -> None:
    with pytest.raises(InvalidJobError, match=r"^nodes=.* a whole number from 1 up"):
        spec(nodes=value)
