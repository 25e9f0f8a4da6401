"""Judge how a training run ended: whether its model is of use, and which command to type next."""

import math
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformers import Trainer

from modeling_vlkd.trainers.card_trainer import NO_LOSS, CardTrainer

from .pictures import is_picture


def diverged(trainer: Trainer) -> str | None:
    """Describe what became NaN or infinite: a loss of the last log entry, or the weights. Return None if nothing did.

    The weights are checked too, because transformers does not log a loss that is NaN (`logging_nan_inf_filter`).
    """
    losses = loss_entries(trainer.state.log_history)
    if trainer.args.load_best_model_at_end and trainer.state.best_model_checkpoint:
        losses = []  # the weights are now those of an earlier step, to which the last loss does not belong
    for name, value in (losses[-1] if losses else {}).items():
        if name not in NO_LOSS and not math.isfinite(value):
            return f"{name} was {value} at step {losses[-1]['step']}"
    if not all(bool(weights.isfinite().all()) for weights in trainer.model.parameters()):
        return "weights are NaN or infinite"
    return None


def refuse_diverged(fault: str | None, output_dir: str, learning_rate: float):
    """Raise an error if the run diverged. Called after everything is saved.

    Args:
        fault: as `diverged` returns it.

    Raises:
        ValueError: `fault` is not None.
    """
    if fault is not None:
        raise ValueError(
            f"The training diverged: {fault}. The model in {output_dir} is of no use; begin again with a "
            f"--learning_rate below {learning_rate:g}, or go on from a checkpoint before that."
        )


def warn_of_rise(command: str, log: Sequence[dict[str, Any]]):
    """Print a warning if the last logged loss is above the first one, but not where a reward says how it goes."""
    losses = [entry["loss"] for entry in loss_entries(log) if "reward" not in entry]
    if losses and losses[-1] > losses[0]:
        print(
            f"{command}: warning: the loss rose from {losses[0]:.4g} to {losses[-1]:.4g}; train longer, or with a "
            "lower --learning_rate.",
            file=sys.stderr,
        )


def finish(command: str, trainer: CardTrainer, fault: str | None, how: str, example: str):
    """Save the model and its card, refuse it if it diverged, warn if the loss rose, and say what to try.

    Args:
        command: for warnings: "vlkd distill".
        fault: as `diverged` returns it.
        how: it was made: "distilled" or "finetuned".
        example: a command to try.

    Raises:
        ValueError: the run diverged.
    """
    trainer.save_model()
    trainer.save_state()
    trainer.create_model_card()
    refuse_diverged(fault, trainer.args.output_dir, trainer.args.learning_rate)
    warn_of_rise(command, trainer.state.log_history)
    print(f"The {how} model is in {trainer.args.output_dir}; try\n  {example}")


def loss_entries(log: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Select the log entries that have a training loss."""
    return [entry for entry in log if "loss" in entry]


def example_command(output_dir: str, pictures: str | Path, question: str = "what is in the picture?") -> str:
    """Return a command that asks the model a question about one of the user's pictures, if one is found.

    Args:
        pictures: a picture, or a folder that may contain pictures.
    """
    path = Path(pictures)
    found = path.rglob("*") if path.is_dir() else iter([path])
    picture = next((str(each) for each in found if is_picture(each)), "YOUR_PICTURE.jpg")
    return shlex.join(["vlkd", "answer", picture, question, "--checkpoint", output_dir])
