"""Scripts that refuse the options that entry scripts are given by default."""

from __future__ import annotations

import subprocess
import sys

import pytest

from airflow_provider_gpu_cluster.gpu_run.verdict.judge import Evidence, Verdict, judge
from airflow_provider_gpu_cluster.jobs.script import render_run_script
from airflow_provider_gpu_cluster.jobs.spec import JobSpec

GIVEN = render_run_script(JobSpec(entry_script="train.py"))


def verdict(words: str, run_script: str = GIVEN) -> Verdict:
    found = judge(Evidence(2, None, words, run_script=run_script))
    assert found.reason == "user_error"
    return found


# Typed in after the messages of argparse, click, typer, absl, fire, tyro, transformers, jsonargparse, getopt, R and Go.
@pytest.mark.parametrize(
    ("words", "option"),
    [
        ("train.py: error: unrecognized arguments: --output_dir /jobs/a/outputs --log_dir /jobs/a/logs", "output_dir"),
        ("train.py: error: unrecognized arguments: --log_dir /jobs/a/logs", "log_dir"),
        ("Error: No such option: --output_dir (Possible options: --output-dir)", "output_dir"),
        ("│ No such option: --output_dir                        │", "output_dir"),
        ("FATAL Flags parsing error:\n  Unknown command line flag 'output_dir'. Did you mean: out ?", "output_dir"),
        ("ERROR: Could not consume arg: --output_dir", "output_dir"),
        ("│ Unrecognized options: --output_dir                  │", "output_dir"),
        (
            "ValueError: Some specified arguments are not used by the HfArgumentParser: ['--log_dir', '/jobs/a/logs']",
            "log_dir",
        ),
        ("train.py: error: Unrecognized arguments: --output_dir", "output_dir"),
        ("getopt.GetoptError: option --output_dir not recognized", "output_dir"),
        ("tool: unrecognized option '--output_dir'", "output_dir"),
        ('Error in getopt(spec = spec, opt = args) : long flag "output_dir" is invalid', "output_dir"),
        ("flag provided but not defined: -output_dir", "output_dir"),
        ("error: unexpected argument '--output_dir' found", "output_dir"),
    ],
)
def test_every_parsers_words(words: str, option: str) -> None:
    found = verdict(f"usage: train.py [-h]\n{words}\n")
    assert found.kind == "bad_arguments"
    assert found.message == f"it refuses --{option}, which entry scripts are given by default (exit code 2)"
    assert found.remedy.startswith("Set pass_output_dirs=False")


def test_a_real_parser() -> None:
    script = "import argparse; argparse.ArgumentParser().parse_args()"
    done = subprocess.run([sys.executable, "-c", script, "--output_dir", "/x"], capture_output=True, text=True)
    assert done.returncode == 2
    assert verdict(done.stderr) == (
        "user_error",
        "bad_arguments",
        "it refuses --output_dir, which entry scripts are given by default (exit code 2)",
        "Set pass_output_dirs=False, and have the script read OUTPUT_DIR and LOG_DIR from its environment.",
    )


@pytest.mark.parametrize(
    "words",
    [
        "usage: train.py [--output_dir OUTPUT_DIR]\ntrain.py: error: unrecognized arguments: --epoch 3",
        "FileNotFoundError: unknown folder output_dir",
        "TypeError: TrainingArguments() got an unexpected keyword argument 'output_dir'",
        "--output_dir=/jobs/a/outputs",
        "",
    ],
)
def test_other_complaints_are_the_scripts_own(words: str) -> None:
    assert "pass_output_dirs" not in verdict(words).remedy


def test_a_script_that_was_not_given_them_is_not_told_so() -> None:
    words = "train.py: error: unrecognized arguments: --output_dir x"
    scripts = [
        render_run_script(JobSpec(entry_script="train.py", script_args=("--output_dir", "x")), pass_output_dirs=False),
        render_run_script(JobSpec(command="python train.py --output_dir x")),
        "",
    ]
    for script in scripts:
        found = verdict(words, script)
        assert (found.kind, "pass_output_dirs" in found.remedy) == ("bad_arguments", False)
