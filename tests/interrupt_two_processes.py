"""Distills a tiny model, and in one of two processes presses Ctrl-C at a step; started by `accelerate launch`."""

import os
import signal
import sys

import torch
from test_resumable_trainer import make_trainer
from transformers import TrainerCallback
from transformers.trainer_utils import get_last_checkpoint

from modeling_vlkd.trainers.resumable_trainer import SaveOnInterrupt


class PressCtrlC(TrainerCallback):
    def __init__(self, step: int):
        self.step = step

    def on_step_begin(self, args, state, control, **kwargs):
        if args.process_index == 1 and state.global_step == self.step - 1:
            signal.raise_signal(signal.SIGINT)


def main(folder: str, step: int):
    torch.set_num_threads(1)
    trainer = make_trainer(folder, per_device_train_batch_size=2, save_steps=4)
    interrupt = SaveOnInterrupt()
    trainer.add_callback(interrupt)
    trainer.add_callback(PressCtrlC(step))
    trainer.train(resume_from_checkpoint=os.path.isdir(folder) and get_last_checkpoint(folder) is not None)
    assert interrupt.interrupted == (step > 0)
    if not interrupt.interrupted:
        trainer.save_model()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
