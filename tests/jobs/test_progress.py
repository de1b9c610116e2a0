from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_gpu_cluster.jobs.progress import MAX_CHARACTERS, Pace, progress_text


@pytest.mark.parametrize(
    ("progress", "text"),
    [
        ({"step": 40, "total": 100, "loss": 0.31, "accuracy": 0.87}, "step 40 of 100 (40%), loss 0.31, accuracy 0.87"),
        ({"loss": 0.31, "total": 100, "step": 100}, "step 100 of 100 (100%), loss 0.31"),
        ({"step": 0, "total": 3}, "step 0 of 3 (0%)"),
        ({"step": 29, "total": 100}, "step 29 of 100 (29%)"),
        ({"step": 999, "total": 1000}, "step 999 of 1000 (99%)"),
        ({"step": 0.29, "total": 1}, "step 0.29 of 1 (29%)"),
        ({"step": 1_234_567, "total": 5_000_000.0}, "step 1234567 of 5000000 (24%)"),
        ({"step": 120, "total": 100}, "step 120 of 100"),
        ({"step": 40}, "step 40"),
        ({"step": 40, "total": 0}, "step 40"),
        ({"step": 40, "total": -1}, "step 40"),
        ({"step": 40, "total": math.nan}, "step 40"),
        ({"step": 40, "total": math.inf}, "step 40"),
        ({"step": 40, "total": "100"}, "step 40"),
        ({"step": 40, "total": True}, "step 40"),
        ({"total": 100, "loss": 1}, "loss 1"),
        ({"step": "40", "total": 100, "loss": 1}, "loss 1"),
        ({"step": -1, "loss": 1}, "loss 1"),
        ({"step": math.nan, "loss": 1}, "loss 1"),
        ({"step": True, "loss": 1}, "loss 1"),
        ({"step": None, "loss": 1}, "loss 1"),
        ({"step": 10**400, "loss": 1}, "loss 1"),
        ({"step": [1], "loss": 1}, "loss 1"),
        ({"loss": 0.123456, "lr": 1e-05, "x": 3e-4}, "loss 0.1235, lr 1e-05, x 0.0003"),
        ({"big": 12345.6, "bigger": 123456, "huge": 1.5e20}, "big 12350, bigger 123456, huge 1.5e+20"),
        ({"loss": 2.0, "change": -0.5, "none": -0.0}, "loss 2, change -0.5, none 0"),
        ({"loss": math.nan, "up": math.inf, "down": -math.inf}, "loss NaN, up Infinity, down -Infinity"),
        ({"too": 10**400, "much": 10**300}, "much 1e+300"),
        ({"done": True, "of": None, "losses": [1, 2], "nested": {"a": 1}, "epoch": 3}, "epoch 3"),
        ({"phase": "warm\tup\n\x1b[31m now", "a\nb": 1}, "phase warm up [31m now, a b 1"),
        ({"phase": " \n", "": 1, "\x00": 2}, ""),
        ({"half a character": "\ud800"}, ""),
        ({"note": "x" * 100_000}, "note " + "x" * 39 + "…"),
        ({str(n): n for n in range(500)}, "0 0, 1 1, 2 2, 3 3, 4 4, 5 5, 6 6, 7 7"),
        ({}, ""),
        ([1, 2], ""),
        ("half", ""),
        (None, ""),
    ],
)
def test_what_is_shown_of_a_progress(progress: Any, text: str) -> None:
    assert progress_text(progress) == text


def test_a_line_has_an_end() -> None:
    text = progress_text({"step": 40, **{letter * 40: 1 for letter in "abcdefgh"}, "loss": 1})
    assert text == "step 40, " + ", ".join(f"{letter * 40} 1" for letter in "abcd") + ", loss 1"


@pytest.mark.parametrize(
    ("first", "last", "after_s", "text"),
    [
        ((8, 100), (40, 100), 10, "step 40 of 100 (40%), 3.2 steps/s, 19 s left"),
        ((0, 100), (100, 100), 10, "step 100 of 100 (100%), 10 steps/s"),
        ((0, 100), (10, 100), 10, "step 10 of 100 (10%), 1 step/s, 1 min 30 s left"),
        ((0, 100), (1, 100), 12, "step 1 of 100 (1%), 12 s per step, 19 min 48 s left"),
        ((0, 10), (1, 10), 433, "step 1 of 10 (10%), 7 min 13 s per step, 1 h 5 min left"),
        ((0, 25), (1, 25), 7200, "step 1 of 25 (4%), 2 h per step, 48 h left"),
        ((0, 60), (1, 60), 1, "step 1 of 60 (1%), 1 step/s, 59 s left"),
        ((0, 61), (1, 61), 1, "step 1 of 61 (1%), 1 step/s, 1 min left"),
        ((0, 3601), (1, 3601), 0.9997, "step 1 of 3601 (0%), 1 step/s, 59 min 59 s left"),
        ((0, 10**6), (10**6 - 1, 10**6), 10, "step 999999 of 1000000 (99%), 100000 steps/s, 1 s left"),
        ((0, None), (1234, None), 10, "step 1234, 120 steps/s"),
        ((0, 100), (50, 200), 10, "step 50 of 200 (25%), 5 steps/s, 30 s left"),
        ((0, 100), (120, 100), 10, "step 120 of 100, 12 steps/s"),
        ((40, 100), (40, 100), 10, "step 40 of 100 (40%)"),
        ((8, 100), (40, 100), 0, "step 40 of 100 (40%)"),
        ((8, 100), (40, 100), -10, "step 40 of 100 (40%)"),
        ((40, 100), (8, 100), 10, "step 8 of 100 (8%)"),
        ((0, 10**14), (1, 10**14), 10, "step 1 of 100000000000000 (0%), 10 s per step"),
        ((0, 1), (1e-300, 1), 10, "step 1e-300 of 1 (0%)"),
        ((0, 1), (1, None), 1e-300, "step 1"),
    ],
)
def test_pace_and_time_left(first: Any, last: Any, after_s: float, text: str) -> None:
    pace = None
    for (step, total), now in ((first, 0), (last, after_s)):
        progress = {"step": step, "total": total}
        pace = Pace.seen(progress, pace, now)
    assert progress_text(progress, pace) == text


def test_pace_is_measured_from_the_first_step_or_the_last_new_beginning() -> None:
    pace = None
    for step, now in ((10, 100), (20, 110), (None, 115), (30, 140), ("x", 150)):
        pace = Pace.seen({"step": step}, pace, now)
    assert pace is not None
    assert pace.steps_per_s == 20 / 40
    pace = Pace.seen({"step": 5}, pace, 150)
    assert pace is not None
    assert pace.steps_per_s is None
    pace = Pace.seen({"step": 8}, pace, 160)
    assert pace is not None
    assert pace.steps_per_s == 3 / 10


NUMBERS = st.integers() | st.floats() | st.booleans() | st.integers(10**300, 10**310)
VALUES = st.recursive(
    st.none() | NUMBERS | st.text() | st.text(min_size=200),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
)
KEYS = st.sampled_from(["step", "total", "loss"]) | st.text(st.characters())
ANY = st.dictionaries(KEYS, VALUES, max_size=12) | VALUES


@given(st.lists(st.tuples(ANY, st.floats(-1e9, 4e9)), max_size=4))
def test_nothing_that_a_job_writes_is_too_much(looks: list[tuple[Any, float]]) -> None:
    pace = None
    for progress, now in looks:
        pace = Pace.seen(progress, pace, now)
        text = progress_text(progress, pace)
        assert len(text) <= MAX_CHARACTERS
        assert text.isprintable()
        text.encode()
        json.dumps([pace and vars(pace)], allow_nan=False)
