"""Whether a script has refused an option that it was given besides its own arguments."""

from __future__ import annotations

import re

# What run.sh appends to an entry script's arguments, see templates/run.sh.j2.
_PASSED = '--output_dir "$OUTPUT_DIR"'
_OPTION = r"(?<![\w-])--?(output_dir|log_dir)\b|\b(?:flag|option) ['\"]?(output_dir|log_dir)\b"
# The words of argparse, Hydra, click, typer, absl, fire, tyro, transformers, jsonargparse, getopt, R, Go and Rust.
_REFUSAL = re.compile(
    r"unrecogni[sz]ed|not recogni[sz]ed|no such option|unknown|unexpected (?:argument|option)|could not consume"
    r"|not used by|not defined|not accepted|invalid|illegal option",
    re.IGNORECASE,
)
ADVICE = (
    "it refuses --{}, which entry scripts are given by default ({})",
    "Set pass_output_dirs=False, and have the script read OUTPUT_DIR and LOG_DIR from its environment.",
)


def refused_option(run_script: str, words: str) -> str | None:
    """
    Return the option, if the script was given ``--output_dir`` and ``--log_dir`` and has complained about one.

    :param run_script: text of ``run.sh``.
    :param words: the end of the output.
    """
    if _PASSED not in run_script:
        return None
    for line in words.splitlines():
        option = re.search(_OPTION, line)
        if option and _REFUSAL.search(line):
            return option.group(1) or option.group(2)
    return None
