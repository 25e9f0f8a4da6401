"""A Trainer that may be killed at any moment: checkpoints are whole or not there, and tell what they learned from."""

import os
import shutil
from pathlib import Path
from typing import Any

import torch
from transformers import Trainer
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
        """What the run learns from, as far as the data tell."""
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
        self.is_writing = True  # where it is now, transformers finds no older checkpoint to delete
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
            super()._save(str(folder), state_dict)
            return
        written = folder / UNFINISHED / "model"
        if self.args.should_save:
            shutil.rmtree(written.parent, ignore_errors=True)
        super()._save(str(written), state_dict)
        if self.args.should_save:
            move_model(written, folder)
