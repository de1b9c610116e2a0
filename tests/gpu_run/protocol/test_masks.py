"""Secrets are recognized by their masks, which do not contain them."""

from __future__ import annotations

import json
import time

import pytest

from airflow_provider_gpu_cluster.gpu_run.protocol.masks import are_masks, hidden, hidden_in, masks_of

SECRET = "hf_0123456789abcdef"
TOKEN = "tøken-\U0001f511"
MASKS = masks_of([SECRET, TOKEN, "aaaaa"])


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("", ""),
        ("nothing here", "nothing here"),
        (SECRET, "***"),
        (f"x{SECRET}y{TOKEN}z", "x***y***z"),
        (f"{SECRET}{SECRET}\n{SECRET[:-1]}", f"***\n{SECRET[:-1]}"),
        ("aaaaaaaa b", "*** b"),
        ("\udc80" + SECRET, "\udc80***"),
        (SECRET.upper(), SECRET.upper()),
    ],
)
def test_secret_is_hidden_wherever_it_stands(text: str, shown: str) -> None:
    assert hidden(text, MASKS) == shown


@pytest.mark.parametrize(("start", "shown"), [(0, "ab***cd"), (1, "b***cd"), (2, "***cd"), (9, "***cd"), (21, "cd")])
def test_secret_that_begins_before_what_is_shown_is_hidden(start: int, shown: str) -> None:
    assert hidden(f"ab{SECRET}cd", MASKS, start) == shown


def test_values_and_names_in_json_are_hidden() -> None:
    value = {"a": [SECRET, 1, None, {f"x {TOKEN}": True}], "b": 0.5}
    assert hidden_in(value, MASKS) == {"a": ["***", 1, None, {"x ***": True}], "b": 0.5}


def test_masks_hold_no_secret_and_are_never_the_same() -> None:
    said = json.dumps(MASKS)
    assert "0123456789abcdef" not in said
    assert masks_of([SECRET]) != masks_of([SECRET])
    assert masks_of([]) is None
    assert hidden(SECRET, None) == SECRET


def test_a_lot_of_output_is_searched_in_no_time() -> None:
    text = "epoch 17 of 30: loss 0.3141, accuracy 0.9876\n" * 4000
    began = time.process_time()
    assert hidden(text, MASKS) == text
    assert time.process_time() - began < 1


@pytest.mark.parametrize(
    "garbage",
    [
        None,
        [],
        {},
        {"salt": "zz", "secrets": []},
        {"salt": "00", "secrets": [[1, 2]]},
        {"salt": "00", "secrets": 1},
        {"salt": "00", "secrets": [[-1, "a", "b"]]},
        {"salt": "00" * 65, "secrets": []},
    ],
)
def test_what_a_job_may_have_written_instead_is_told_from_masks(garbage: object) -> None:
    assert not are_masks(garbage)
    assert are_masks(MASKS)
