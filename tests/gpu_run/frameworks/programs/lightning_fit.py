"""PyTorch Lightning with a callback that saves at the warning."""

import os
import signal
import sys
import time
from pathlib import Path

import lightning
import torch
from torch.utils.data import DataLoader, TensorDataset

STEPS = 400
CHECKPOINT = Path(os.environ["CHECKPOINT_DIR"], "last.ckpt")


class SaveAtWarning(lightning.Callback):
    """Saves after the step during which the warning came, and ends the fit."""

    def __init__(self):
        self.is_warned = False

    def on_train_start(self, trainer, module):
        signal.signal(signal.SIGUSR1, self._note)
        print(f"begins at step {trainer.global_step} after {os.environ['RESUMED_FROM'] or 'nothing'}", flush=True)

    def _note(self, number, frame):
        self.is_warned = True

    def on_train_batch_end(self, trainer, module, *_):
        if self.is_warned:
            trainer.save_checkpoint(CHECKPOINT)
            print(f"saved at step {trainer.global_step}", flush=True)
            trainer.should_stop = True


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
    warning = SaveAtWarning()
    trainer = lightning.Trainer(
        accelerator="cpu",
        max_steps=STEPS,
        callbacks=[warning],
        default_root_dir=os.environ["CHECKPOINT_DIR"],
        enable_checkpointing=False,
        enable_progress_bar=False,
        logger=False,
    )
    data = DataLoader(TensorDataset(torch.randn(4096, 4), torch.randn(4096, 1)), batch_size=8, num_workers=2)
    trainer.fit(Module(), data, ckpt_path=CHECKPOINT if CHECKPOINT.exists() else None)
    return 85 if warning.is_warned else 0


if __name__ == "__main__":
    sys.exit(main())
