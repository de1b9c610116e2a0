"""How many connections a transfer uses; each is one stream."""

from __future__ import annotations

import math

# OpenSSH lets so much of a channel be on its way, and the kernel about as much of a connection. From a round trip of
# that length on, more of both are faster.
_WINDOW_BYTES = 2 << 20
_LONG_ROUND_TRIP_S = 0.02
_WANTED_BYTES_PER_S = 400e6
# A stock sshd begins to turn away when ten connections are at it at once (MaxStartups).
_MOST_STREAMS = 8
_STREAM_BYTES = 4 << 20


def streams_for(round_trip_s: float, size: int) -> int:
    """
    Return over how many connections to move so many bytes.

    :param round_trip_s: how long the other side takes to answer.
    """
    if round_trip_s < _LONG_ROUND_TRIP_S:
        return 1
    wanted = math.ceil(round_trip_s * _WANTED_BYTES_PER_S / _WINDOW_BYTES)
    return max(1, min(wanted, size // _STREAM_BYTES, _MOST_STREAMS))
