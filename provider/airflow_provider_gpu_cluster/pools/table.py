"""The table that tells in a task's log what the clusters of a pool have offered, and which was chosen."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from airflow_provider_gpu_cluster.pools.choice import BUILD_S, Choice, long_text, sending_s, start_s
from airflow_provider_gpu_cluster.pools.offer import Offer

_HEAD = ("cluster", "fits", "free GPUs", "expected start", "to be sent", "price", "chosen")
_WIDTH = 100
_MOST_OF_NAME = 30
_UNITS = ("bytes", "kB", "MB", "GB", "TB", "PB")


def table_of(choice: Choice) -> str:
    """Return the table, and below it why some do not fit and why one was chosen, in lines of about 100 characters."""
    rows = [_HEAD, *(_row(offer, is_chosen=offer.conn_id == choice.offer.conn_id) for offer in choice.offers)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    for sentence in _sentences(choice):
        lines += textwrap.wrap(sentence, _WIDTH, subsequent_indent="  ", break_on_hyphens=False, break_long_words=False)
    return "\n".join(lines)


def _row(offer: Offer, *, is_chosen: bool) -> tuple[str, ...]:
    chosen = "yes" if is_chosen else ""
    price = "" if offer.price_per_gpu_hour is None else _price(offer.price_per_gpu_hour)
    name = shortened(offer.conn_id)
    if not offer.answered:
        return name, "no answer", "", "", "", price, chosen
    if not offer.fits:
        return name, "not now" if offer.is_passing else "no", _gpus(offer), "", "", price, chosen
    return name, "yes", _gpus(offer), _start(offer), _sent(offer), price, chosen


def shortened(conn_id: str) -> str:
    """Return an id that fits into a column."""
    # Names of many clusters often differ at their end.
    kept = (_MOST_OF_NAME - 1) // 2
    return conn_id if len(conn_id) <= _MOST_OF_NAME else f"{conn_id[: _MOST_OF_NAME - 1 - kept]}…{conn_id[-kept:]}"


def _gpus(offer: Offer) -> str:
    free = "?" if offer.free_gpus is None else str(offer.free_gpus)
    return free if offer.gpus is None else f"{free} of {offer.gpus}"


def _start(offer: Offer) -> str:
    if offer.starts_in_s is None:
        return f"unknown ({_in(start_s(offer))}?)"
    return _in(offer.starts_in_s)


def _in(seconds: float) -> str:
    return "now" if seconds < 1 else f"in {long_text(seconds)}"


def _sent(offer: Offer) -> str:
    if offer.missing_bytes is None:
        return "?"
    if offer.missing_bytes == 0:
        return "nothing"
    seconds = sending_s(offer)
    return f"{size_text(offer.missing_bytes)}, {long_text(seconds)}" if seconds >= 1 else size_text(offer.missing_bytes)


def size_text(count: int) -> str:
    """Return a number of bytes in the unit that suits it, such as ``1.2 GB``."""
    value, unit = float(count), _UNITS[0]
    for unit in _UNITS:
        # 999.96 would be shown as 1000.0.
        if value < 999.95 or unit == _UNITS[-1]:
            break
        value /= 1000
    return f"{value:,.0f} {unit}" if unit == _UNITS[0] else f"{value:,.1f} {unit}"


def _price(price: float) -> str:
    return f"{price:,.2f}/h" if price == 0 or price >= 0.01 else f"{price:.2g}/h"


def _sentences(choice: Choice) -> list[str]:
    return [*_reasons(choice.offers), f"{choice.offer.conn_id} is chosen: {choice.why}."]


def _reasons(offers: Sequence[Offer]) -> list[str]:
    sentences = []
    for offer in offers:
        if not offer.answered:
            sentences.append(f"{offer.conn_id} has not answered: {offer.why_not}")
        elif not offer.fits:
            words = "cannot run it now" if offer.is_passing else "does not fit"
            sentences.append(f"{offer.conn_id} {words}: {offer.why_not}")
        elif offer.remark:
            sentences.append(f"{offer.conn_id}: {offer.remark}")
        if offer.fits and offer.is_environment_built is False:
            sentences.append(f"{offer.conn_id} has to build the Python environment first, {long_text(BUILD_S)} or so.")
    return sentences
