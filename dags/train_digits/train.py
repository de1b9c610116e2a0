"""
Train a small neural network on images of handwritten digits.

It works like any training script: it reads its data from $DATA_DIR, appends a line of JSON to $PROGRESS_FILE for
each epoch, keeps a checkpoint in $CHECKPOINT_DIR that it continues from when it is started again, and leaves the
model and metrics.json in --output_dir. When it is warned of its end or asked to end, it ends after the epoch with exit
code 85: saved, start me again.
"""

import argparse
import json
import os
import pickle
import signal
import sys
import time
from pathlib import Path

import numpy as np
from sklearn.metrics import confusion_matrix, log_loss
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier

DIGITS = np.arange(10)
BRIGHTEST = 16
START_ME_AGAIN = 85


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--batch_size", type=int, default=64)
    parser.add_argument("--hidden", type=int, default=64, help="units of the hidden layer")
    parser.add_argument("--learning_rate", type=float, default=0.002)
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("DATA_DIR", "data"), "digits.csv"))
    parser.add_argument("--output_dir", type=Path, required=True)
    parser.add_argument("--log_dir", type=Path, required=True)
    return parser.parse_args()


def load(path, seed):
    table = np.loadtxt(path, delimiter=",", skiprows=1)
    labels, images = table[:, 0].astype(int), table[:, 1:] / BRIGHTEST
    return train_test_split(images, labels, test_size=0.2, random_state=seed, stratify=labels)


def load_checkpoint(path, settings):
    """Return the model and history of an earlier attempt with the same settings, if there was one."""
    if path.exists():
        checkpoint = pickle.loads(path.read_bytes())
        if checkpoint["settings"] == settings:
            return checkpoint["model"], checkpoint["history"]
        print("the checkpoint belongs to other settings; starting anew")
    model = MLPClassifier(
        hidden_layer_sizes=(settings["hidden"],),
        learning_rate_init=settings["learning_rate"],
        random_state=settings["seed"],
    )
    return model, []


def save(path, value):
    """Write a file whole or not at all: a job can be stopped at any moment."""
    part = path.with_name(path.name + ".part")
    part.write_bytes(value)
    os.replace(part, path)


def signals_to_come():
    """Return a list that gets each signal by which the job is warned of its end, or asked to end."""
    came = []
    for number in (signal.SIGUSR1, signal.SIGTERM):
        signal.signal(number, lambda number, frame: came.append(number))
    return came


def train_one_epoch(model, images, labels, batch_size, order):
    for start in range(0, len(order), batch_size):
        batch = order[start : start + batch_size]
        model.partial_fit(images[batch], labels[batch], classes=DIGITS)


def main():
    arguments = parse_arguments()
    stops = signals_to_come()
    seed = int(os.environ.get("SEED", "0"))
    settings = {
        "seed": seed,
        "hidden": arguments.hidden,
        "learning_rate": arguments.learning_rate,
        "batch_size": arguments.batch_size,
    }
    checkpoints = Path(os.environ.get("CHECKPOINT_DIR", arguments.output_dir / "checkpoints"))
    progress = Path(os.environ.get("PROGRESS_FILE", arguments.log_dir / "progress.jsonl"))
    for folder in (arguments.output_dir, arguments.log_dir, checkpoints):
        folder.mkdir(parents=True, exist_ok=True)

    images, test_images, labels, test_labels = load(arguments.data, seed)
    print(f"{len(labels)} images to train with, {len(test_labels)} to test with, from {arguments.data.name}")
    print(f"GPUs leased: {os.environ.get('CUDA_VISIBLE_DEVICES', 'none')}")

    checkpoint = checkpoints / "last.pkl"
    model, history = load_checkpoint(checkpoint, settings)
    if history:
        print(f"continuing after epoch {len(history)}")

    started = time.monotonic()
    for epoch in range(len(history) + 1, arguments.epochs + 1):
        order = np.random.default_rng([seed, epoch]).permutation(len(labels))
        train_one_epoch(model, images, labels, arguments.batch_size, order)
        loss = float(log_loss(test_labels, model.predict_proba(test_images), labels=DIGITS))
        accuracy = float(model.score(test_images, test_labels))
        history.append({"epoch": epoch, "loss": round(loss, 4), "accuracy": round(accuracy, 4)})
        print(f"epoch {epoch:3d} of {arguments.epochs}   loss {loss:.4f}   accuracy {accuracy:.1%}")
        with progress.open("a") as file:
            line = {
                "step": epoch,
                "total": arguments.epochs,
                "loss": round(loss, 4),
                "accuracy": round(accuracy, 4),
            }
            file.write(json.dumps(line) + "\n")
        save(checkpoint, pickle.dumps({"settings": settings, "model": model, "history": history}))
        if stops and epoch < arguments.epochs:
            print(f"saved after epoch {epoch}, to be started again")
            sys.exit(START_ME_AGAIN)

    predicted = model.predict(test_images)
    metrics = {
        "accuracy": float((predicted == test_labels).mean()),
        "loss": history[-1]["loss"],
        "epochs": len(history),
        "test_images": len(test_labels),
        "train_seconds": round(time.monotonic() - started, 2),
        **settings,
    }
    save(arguments.output_dir / "model.pkl", pickle.dumps(model))
    save(arguments.output_dir / "metrics.json", json.dumps(metrics, indent=2).encode())
    save(arguments.output_dir / "history.json", json.dumps(history).encode())
    table = {"labels": DIGITS.tolist(), "counts": confusion_matrix(test_labels, predicted).tolist()}
    save(arguments.output_dir / "confusion_matrix.json", json.dumps(table).encode())
    print(f"done: {metrics['accuracy']:.1%} of {len(test_labels)} test images read correctly")


if __name__ == "__main__":
    main()
