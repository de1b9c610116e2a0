"""
The same with ``torchrun`` and several ranks, which agree on the step after which they save.

They train on after that, until they are stopped: what ``torchrun`` ends with is not the exit code of a rank.
"""

import os
import signal
import time
from pathlib import Path

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

STEPS = 400
CHECKPOINT = Path(os.environ["CHECKPOINT_DIR"], "last.pt")

warnings = []
signal.signal(signal.SIGUSR1, lambda number, frame: warnings.append(number))


def is_warned():
    """Return whether any rank has been warned: the warning may reach them during different steps."""
    flag = torch.tensor(len(warnings))
    dist.all_reduce(flag)
    return bool(flag)


def main():
    dist.init_process_group("gloo")
    torch.manual_seed(0)
    model = DistributedDataParallel(torch.nn.Linear(4, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    step = 0
    if CHECKPOINT.exists():
        state = torch.load(CHECKPOINT)
        step = state["step"]
        model.module.load_state_dict(state["model"])
    if dist.get_rank() == 0:
        print(f"begins at step {step} after {os.environ['RESUMED_FROM'] or 'nothing'}", flush=True)
    while step < STEPS:
        optimizer.zero_grad()
        model(torch.randn(8, 4)).square().mean().backward()
        optimizer.step()
        step += 1
        time.sleep(0.02)
        if is_warned() or step == STEPS:
            warnings.clear()
            if dist.get_rank() == 0:
                save(step, model.module)
            # Nobody ends before the checkpoint is there.
            dist.barrier()
    dist.destroy_process_group()


def save(step, model):
    half = CHECKPOINT.with_suffix(".half")
    torch.save({"step": step, "model": model.state_dict()}, half)
    half.rename(CHECKPOINT)
    print(f"saved at step {step}", flush=True)


if __name__ == "__main__":
    main()
