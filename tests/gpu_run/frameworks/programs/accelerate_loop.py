"""
A loop with Accelerate, for ``accelerate launch``. It saves at the warning, and trains on until it is stopped: the exit
code of ``accelerate launch`` is not its own.
"""

import os
import signal
import time
from pathlib import Path

import torch
from accelerate import Accelerator
from torch.utils.data import DataLoader, TensorDataset

STEPS = 400
CHECKPOINT = Path(os.environ["CHECKPOINT_DIR"], "last")

warnings = []
signal.signal(signal.SIGUSR1, lambda number, frame: warnings.append(number))


class Progress:
    """What Accelerate saves beside the model."""

    step = 0

    def state_dict(self):
        return {"step": self.step}

    def load_state_dict(self, state):
        self.step = state["step"]


def main():
    accelerator = Accelerator(cpu=True)
    model = torch.nn.Linear(4, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    data = DataLoader(TensorDataset(torch.randn(4096, 4), torch.randn(4096, 1)), batch_size=8, num_workers=2)
    model, optimizer, data = accelerator.prepare(model, optimizer, data)
    progress = Progress()
    accelerator.register_for_checkpointing(progress)
    if CHECKPOINT.exists():
        accelerator.load_state(str(CHECKPOINT))
    print(f"begins at step {progress.step} after {os.environ['RESUMED_FROM'] or 'nothing'}", flush=True)
    while progress.step < STEPS:
        for inputs, targets in data:
            optimizer.zero_grad()
            accelerator.backward(torch.nn.functional.mse_loss(model(inputs), targets))
            optimizer.step()
            progress.step += 1
            time.sleep(0.02)
            # Any of several processes may be the one that was warned.
            flag = torch.tensor(len(warnings), device=accelerator.device)
            is_warned = bool(accelerator.reduce(flag))
            if is_warned or progress.step == STEPS:
                accelerator.save_state(str(CHECKPOINT))
                print(f"saved at step {progress.step}", flush=True)
                warnings.clear()
            if progress.step == STEPS:
                break


if __name__ == "__main__":
    main()
