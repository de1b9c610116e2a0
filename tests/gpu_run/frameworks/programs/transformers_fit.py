"""A Trainer of Hugging Face Transformers, with a callback that saves at the warning; its model is made on the spot."""

import os
import signal
import sys
import time

import torch
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_utils import get_last_checkpoint

STEPS = 400
FOLDER = os.environ["CHECKPOINT_DIR"]


class SaveAtWarning(TrainerCallback):
    """Saves after the step during which the warning came, and ends the training."""

    def __init__(self):
        self.is_warned = False
        signal.signal(signal.SIGUSR1, self._note)

    def _note(self, number, frame):
        self.is_warned = True

    def on_train_begin(self, args, state, control, **_):
        print(f"begins at step {state.global_step} after {os.environ['RESUMED_FROM'] or 'nothing'}", flush=True)

    def on_step_end(self, args, state, control, **_):
        time.sleep(0.02)
        if self.is_warned:
            control.should_save = control.should_training_stop = True

    def on_save(self, args, state, control, **_):
        print(f"saved at step {state.global_step}", flush=True)


class Texts(torch.utils.data.Dataset):
    def __len__(self):
        return 4096

    def __getitem__(self, index):
        words = torch.full((8,), index % 16)
        return {"input_ids": words, "labels": words}


def main():
    warning = SaveAtWarning()
    model = GPT2LMHeadModel(GPT2Config(vocab_size=16, n_positions=8, n_embd=8, n_layer=1, n_head=1))
    arguments = TrainingArguments(
        output_dir=FOLDER,
        max_steps=STEPS,
        save_strategy="no",
        report_to=[],
        use_cpu=True,
        dataloader_num_workers=2,
        disable_tqdm=True,
    )
    trainer = Trainer(model=model, args=arguments, train_dataset=Texts(), callbacks=[warning])
    trainer.train(resume_from_checkpoint=get_last_checkpoint(FOLDER))
    return 85 if warning.is_warned else 0


if __name__ == "__main__":
    sys.exit(main())
