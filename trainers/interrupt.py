"""Ctrl-C in a training run: finish the step, write a checkpoint, stop."""

import signal
from typing import Any

import torch
from accelerate.utils import reduce
from transformers import TrainerCallback


class SaveOnInterrupt(TrainerCallback):
    """Makes the first Ctrl-C end a run with a checkpoint to resume from; a second one ends it at once.

    `raise_if_interrupted` says afterwards whether that happened.
    """

    def __init__(self):
        self.interrupted = False
        self.previous: Any = None

    def on_train_begin(self, args, state, control, **kwargs):
        self.previous = signal.signal(signal.SIGINT, self.note)

    def note(self, *_: Any):
        self.interrupted = True
        signal.signal(signal.SIGINT, self.previous)

    def on_step_end(self, args, state, control, **kwargs):
        if args.world_size > 1:  # it may have reached one process a step earlier; they write a checkpoint together
            self.interrupted = bool(reduce(torch.tensor(int(self.interrupted), device=args.device), reduction="sum"))
        if self.interrupted:
            control.should_save = control.should_training_stop = True

    def on_train_end(self, args, state, control, **kwargs):
        signal.signal(signal.SIGINT, self.previous)

    def raise_if_interrupted(self, step: int):
        """Raises a ValueError that says how to go on after `step`, the last one."""
        if self.interrupted:
            raise ValueError(
                f"Interrupted after step {step}; the same command with `--resume_from_checkpoint true` goes on."
            )
