"""Writes what a training writes: metrics, an image, a table, and a file whose name is a trap."""

from __future__ import annotations

import json
import os
import struct
import sys
import zlib
from pathlib import Path

rate, depth = (float(sys.argv[sys.argv.index(name) + 1]) for name in ("--rate", "--depth"))
out = Path(os.environ["OUTPUT_DIR"])


def png(width: int, height: int) -> bytes:
    """Return an image whose colours go from one side to the other."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"".join(b"\0" + b"".join(bytes((4 * x, 8 * y, 99)) for x in range(width)) for y in range(height))
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


with open(os.environ["PROGRESS_FILE"], "a") as progress:
    progress.write(json.dumps({"step": 1, "total": 1, "loss": rate}) + "\n")
if depth == 3 and rate > 0.02:
    sys.exit("the loss is not a number")
loss = round(abs(rate - 0.01) * 9 + depth / 100, 4)
(out / "metrics.json").write_text(json.dumps({"loss": loss, "test": {"accuracy": 1 - loss}, "worst": float("nan")}))
(out / "plots").mkdir(exist_ok=True)
(out / "plots" / "curve.png").write_bytes(png(64, 32))
lines = ["epoch,loss,note", *(f'{epoch},{loss / epoch},"a, ""b"""' for epoch in range(1, 300))]
(out / "history.csv").write_text("\n".join(lines))
(out / "<b>\u202egnp.exe").write_text("<script>alert(1)</script>")
(out / "model.bin").write_bytes(os.urandom(300_000))
