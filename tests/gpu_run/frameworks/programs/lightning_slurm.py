"""
PyTorch Lightning's own way with Slurm: at USR1 it saves, asks Slurm to requeue the job, and trains on until the TERM.

The next run finds by itself what was saved.
"""

import os
import signal
import time

import lightning
import torch
from lightning.pytorch.plugins.environments import SLURMEnvironment
from torch.utils.data import DataLoader, TensorDataset

STEPS = 400
# What srun sets; on a host without Slurm, this stands for it.
for name, value in {
    "JOB_ID": "1",
    "JOB_NAME": "train",
    "NTASKS": "1",
    "PROCID": "0",
    "LOCALID": "0",
    "NODEID": "0",
}.items():
    os.environ.setdefault(f"SLURM_{name}", value)


class Told(lightning.Callback):
    def on_train_start(self, trainer, module):
        print(f"begins at step {trainer.global_step} after {os.environ['RESUMED_FROM'] or 'nothing'}", flush=True)

    def on_save_checkpoint(self, trainer, module, checkpoint):
        print(f"saved at step {checkpoint['global_step']}", flush=True)


class Module(lightning.LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(4, 1)

    def training_step(self, batch, _):
        time.sleep(0.02)
        inputs, targets = batch
        return torch.nn.functional.mse_loss(self.layer(inputs), targets)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.01)


def main():
    trainer = lightning.Trainer(
        accelerator="cpu",
        devices=1,
        max_steps=STEPS,
        callbacks=[Told()],
        plugins=[SLURMEnvironment(auto_requeue=True, requeue_signal=signal.SIGUSR1)],
        default_root_dir=os.environ["CHECKPOINT_DIR"],
        enable_checkpointing=False,
        enable_progress_bar=False,
        logger=False,
    )
    data = DataLoader(TensorDataset(torch.randn(4096, 4), torch.randn(4096, 1)), batch_size=8, num_workers=2)
    trainer.fit(Module(), data)


if __name__ == "__main__":
    main()
