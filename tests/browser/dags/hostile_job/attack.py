"""Writes all that may harm a page, and then fails with more of it."""

import json
import os
import sys

MARKUP = "<script>pwned=1</script><img src=x onerror='pwned=1'><a href='javascript:pwned=1'>click</a>"
UNICODE = "\u202egnp.exe\u202c \u2066isolated \u200bzero\ufeff \U0001f4a9 e" + "\u0301" * 500 + " \ud83d"
ESCAPES = (
    "\33]0;pwned\7 \33]8;;javascript:pwned=1\7link\33]8;;\7 \33[2J\33[H\33[1000D\33[?1049h\33[38;5;999m \33[31mred"
)
OUT = os.environ["OUTPUT_DIR"]


def write(name, data):
    with open(os.path.join(OUT.encode(), name), "wb") as file:
        file.write(data)


log = sys.stdout.buffer
for text in (MARKUP, ESCAPES, UNICODE):
    log.write(text.encode(errors="surrogatepass") + b"\n")
log.write(b"\0\1\2 \xff\xfe \r overwritten \b\b\n")
for _ in range(200):
    log.write(b"x" * (1 << 20))
log.write(b"\nafter the long line\n" + b"\33[31m" * 100_000 + b"\n")
log.flush()

with open(os.environ["PROGRESS_FILE"], "ab") as progress:
    names = {f"metric-{number} {MARKUP}": number for number in range(10_000)}
    for step in range(30):
        values = {"step": step, "total": float("nan"), "loss": float("inf"), MARKUP: step, UNICODE[:20]: -step}
        progress.write(json.dumps({**values, "__proto__": step, "constructor": step}).encode() + b"\n")
    progress.write(b'{"step": 1e999, "total": -1, "loss": ' + b"9" * 400 + b"}\n" + b"[" * 10_000 + b"\n\xff\xff\n")
    progress.write(json.dumps(names).encode() + b"\n")

write(b"metrics.json", json.dumps({**names, "loss": float("nan"), "__proto__": {"polluted": 1}}).encode())
write(b"page.html", MARKUP.encode())
write(b"image.svg", f'<svg xmlns="http://www.w3.org/2000/svg" onload="pwned=1">{MARKUP}</svg>'.encode())
write(b"not-a.png", MARKUP.encode())
write(b"rows.csv", b"=cmd|' /C calc'!A0,<script>\n" * 1000 + b"," * 100_000)
write(b"deep.json", b"[" * 100_000)
write(b"<img src=x onerror=pwned=1>.txt", b"1")
write("\u202egnp.exe".encode(), b"1")
write(b"new\nline\t\xff.bin", b"1")

raise ValueError(MARKUP + UNICODE[:100] + ESCAPES)
