"""A Trainer that may be killed at any moment: checkpoints are whole or not there, and tell what they learned from."""

import os
import shutil
import signal
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import reduce
from torch import nn
from transformers import Trainer, TrainerCallback, TrainerState
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, has_length, rotate_checkpoints

from .trained_on import TrainedOn
from .whole_checkpoints import (
    UNFINISHED,
    CheckpointError,
    check_named,
    clear_for_resuming,
    find_whole_checkpoint,
    give_name,
    move_model,
)


class ResumableTrainer(Trainer):
    """Writes checkpoints and models beside their place, and puts them there when they are whole."""

    is_writing = False

    @property
    def trained_on(self) -> TrainedOn:
        """Describe what the run learns from, as far as the data tell."""
        return TrainedOn(len(self.train_dataset) if has_length(self.train_dataset) else None)

    def train(self, resume_from_checkpoint: str | bool | None = None, **kwargs: Any):
        """Train, and go on from a checkpoint if one is given, or from the last whole one with True.

        Raises:
            CheckpointError: there is none, or it is not whole.
            OtherDataError: it was trained on other data.
        """
        if resume_from_checkpoint:
            run_dir = Path(self.args.output_dir)
            if resume_from_checkpoint is True:
                checkpoint = find_whole_checkpoint(run_dir)
                if checkpoint is None:
                    raise CheckpointError(f"{run_dir} holds no checkpoint to resume from.")
            else:
                checkpoint = check_named(resume_from_checkpoint)
            self.trained_on.refuse_other(checkpoint)
            self.accelerator.wait_for_everyone()  # all processes have found the same
            if self.args.should_save and run_dir.resolve() == checkpoint.parent.resolve():
                clear_for_resuming(run_dir, checkpoint)
            self.accelerator.wait_for_everyone()
            resume_from_checkpoint = str(checkpoint)
        return super().train(resume_from_checkpoint=resume_from_checkpoint, **kwargs)

    def get_decay_parameter_names(self, model: nn.Module) -> list[str]:
        """Leave the temperature out: finetuning does not use it, and weight decay would shrink it."""
        return [name for name in super().get_decay_parameter_names(model) if not name.endswith("logit_scale")]

    def _issue_warnings_after_load(self, load_result: Any):
        """Warn of weights that a checkpoint lacks, but not of tied ones, which are saved once, under another name."""
        tied = set(self.accelerator.unwrap_model(self.model).all_tied_weights_keys)
        load_result.missing_keys[:] = [name for name in load_result.missing_keys if name not in tied]
        super()._issue_warnings_after_load(load_result)

    def _init_training_state(
        self,
        max_steps: int,
        num_update_steps_per_epoch: int,
        num_train_epochs: int,
        resume_from_checkpoint: Any,
        trial: Any,
    ) -> tuple[int, int]:
        """Find the pass and the batch to go on from in a stream without a length, which transformers counts as one."""
        place = super()._init_training_state(
            max_steps, num_update_steps_per_epoch, num_train_epochs, resume_from_checkpoint, trial
        )
        if resume_from_checkpoint is None or has_length(self.train_dataset):
            return place
        saved = TrainerState.load_from_json(Path(resume_from_checkpoint, TRAINER_STATE_NAME))
        passes, share = divmod(saved.epoch, 1)  # the share of all steps of that run that were made in this pass
        batches = round(share * saved.max_steps * self.args.gradient_accumulation_steps)
        return int(passes), 0 if self.args.ignore_data_skip else batches

    def _run_epoch(self, **kwargs: Any):
        if self.state.global_step < self.state.max_steps:
            super()._run_epoch(**kwargs)
        else:  # resumed when only the model was still to be saved; transformers would add a step
            self.control.should_training_stop = True

    def _get_output_dir(self, trial: Any) -> str:
        run_dir = super()._get_output_dir(trial)
        return os.path.join(run_dir, UNFINISHED) if self.is_writing else run_dir

    def _save_checkpoint(self, model: torch.nn.Module, trial: Any):
        run_dir = Path(self._get_output_dir(trial))
        checkpoint = run_dir / f"{PREFIX_CHECKPOINT_DIR}-{self.state.global_step}"
        written = run_dir / UNFINISHED / checkpoint.name
        if self.args.should_save:
            shutil.rmtree(written.parent, ignore_errors=True)  # what a killed run has left
        self.accelerator.wait_for_everyone()
        self.is_writing = True  # in that folder, transformers finds no older checkpoint to delete
        try:
            super()._save_checkpoint(model, trial)
        finally:
            self.is_writing = False
        best = run_dir / f"{PREFIX_CHECKPOINT_DIR}-{self.state.best_global_step}"
        if best == checkpoint or best.is_dir():
            self.state.best_model_checkpoint = str(best)
        self.accelerator.wait_for_everyone()  # each process has written its random state
        if self.args.should_save:
            self.trained_on.save(written)
            self.state.save_to_json(str(written / TRAINER_STATE_NAME))  # with the best one's place
            give_name(written, checkpoint)
        self.accelerator.wait_for_everyone()
        if self.args.push_to_hub:
            self._push_from_checkpoint(str(checkpoint))
        if self.args.should_save:
            rotate_checkpoints(
                output_dir=str(run_dir),
                save_total_limit=self.args.save_total_limit,
                best_model_checkpoint=self.state.best_model_checkpoint,
                use_mtime=True,
            )

    def _push_from_checkpoint(self, checkpoint_folder: str):
        if not self.is_writing:  # it is pushed when it has its name
            super()._push_from_checkpoint(checkpoint_folder)

    def _save(self, output_dir: str | None = None, state_dict: dict | None = None):
        folder = Path(self.args.output_dir if output_dir is None else output_dir)
        if self.is_writing:  # as part of a checkpoint
            self._write_model(str(folder), state_dict)
            return
        written = folder / UNFINISHED / "model"
        if self.args.should_save:
            shutil.rmtree(written.parent, ignore_errors=True)
        self._write_model(str(written), state_dict)
        if self.args.should_save:
            move_model(written, folder)

    def _write_model(self, folder: str, state_dict: dict | None):
        """Write what makes up a model into a folder that nobody reads yet."""
        super()._save(folder, state_dict)


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
        if args.world_size > 1:  # the signal may reach one a step before another; they save together
            self.interrupted = bool(reduce(torch.tensor(int(self.interrupted), device=args.device), reduction="sum"))
        if self.interrupted:
            control.should_save = control.should_training_stop = True

    def on_train_end(self, args, state, control, **kwargs):
        signal.signal(signal.SIGINT, self.previous)

    def raise_if_interrupted(self, step: int):
        """Stop after `step`, the last one, with a ValueError that says how to go on."""
        if self.interrupted:
            raise ValueError(
                f"Interrupted after step {step}; the same command with `--resume_from_checkpoint true` goes on."
            )
