"""Learns nothing, and looks as if it did: progress, a colourful log, and files of many kinds."""

import argparse
import json
import math
import os
import random
import struct
import time
import zlib

parser = argparse.ArgumentParser()
parser.add_argument("--steps", type=int)
parser.add_argument("--pause", type=float)
parser.add_argument("--rate", type=float, default=0.003)
parser.add_argument("--width", type=int, default=128)
options = parser.parse_args()
random.seed(f"{options.rate} {options.width}")
out = os.environ["OUTPUT_DIR"]


def png(width, height):
    """Return a picture of waves."""
    rows = [bytes(int(127 + 127 * math.sin(x * y / 900)) for x in range(width)) for y in range(height)]

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    pixels = zlib.compress(b"".join(b"\0" + row for row in rows))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def say(step, loss, accuracy):
    colours = f"\33[36mstep {step:4}/{options.steps}\33[0m", f"\33[33m{loss:.4f}\33[0m", f"\33[32m{accuracy:.3f}\33[0m"
    print("{} loss {} accuracy {}".format(*colours), flush=True)


print(f"\33[1mresnet-{options.width}\33[0m on {os.environ['GPU_COUNT']} GPUs, learning rate {options.rate}", flush=True)
floor = 0.08 + abs(math.log10(options.rate) + 2.5) * 0.15 + 8 / options.width
with open(os.environ["PROGRESS_FILE"], "a") as progress, open(f"{out}/history.csv", "w") as history:
    history.write("step,loss,accuracy\n")
    for step in range(1, options.steps + 1):
        loss = floor + 2.2 * math.exp(-4 * step / options.steps) + random.gauss(0, 0.02)
        accuracy = 1 - loss / 2.6
        line = {"step": step, "total": options.steps, "loss": round(loss, 4), "accuracy": round(accuracy, 4)}
        line["learning_rate"] = options.rate * (1 + math.cos(math.pi * step / options.steps)) / 2
        progress.write(json.dumps(line) + "\n")
        progress.flush()
        history.write(f"{step},{loss:.4f},{accuracy:.4f}\n")
        if step % 10 == 0:
            say(step, loss, accuracy)
        time.sleep(options.pause)

with open(f"{out}/metrics.json", "w") as file:
    json.dump({"loss": round(loss, 4), "accuracy": round(accuracy, 4), "model": {"width": options.width}}, file)
with open(f"{out}/attention.png", "wb") as file:
    file.write(png(240, 160))
with open(f"{out}/model.pth", "wb") as file:
    file.write(bytes(random.getrandbits(8) for _ in range(200_000)))
print("\33[32msaved model.pth\33[0m")
