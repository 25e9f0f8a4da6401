"""Refuse numbers that transformers accepts but that make no sense: the run would fail late, or ruin the model."""

from typing import Any

from transformers import TrainingArguments


LEAST = {  # the least value of each flag
    **dict.fromkeys(("per_device_train_batch_size", "per_device_eval_batch_size", "gradient_accumulation_steps"), 1),
    **dict.fromkeys(("generation_max_length", "generation_num_beams"), 1),
    **dict.fromkeys(("learning_rate", "projection_learning_rate", "weight_decay", "max_grad_norm"), 0),
    "dataloader_num_workers": 0,
}


def refuse_odd_numbers(training: TrainingArguments):
    """Stop at a number that is too small.

    Raises:
        ValueError: a number is too small; the message has its flag and the least value.
    """
    given: dict[str, Any] = vars(training)
    for name, least in LEAST.items():
        value = given.get(name)
        if value is not None and not value >= least:  # not `value < least`, which is false for NaN
            raise ValueError(f"--{name} {value}: give {least} or more.")
    if training.max_steps < 1 and training.max_steps != -1:
        raise ValueError(f"--max_steps {training.max_steps}: give 1 or more, or leave it out to count epochs.")
    if training.max_steps == -1 and not training.num_train_epochs > 0:
        raise ValueError(f"--num_train_epochs {training.num_train_epochs}: give a number above 0.")
    if isinstance(training.lr_scheduler_kwargs, str):
        raise ValueError(f"--lr_scheduler_kwargs {training.lr_scheduler_kwargs}: give a JSON object.")
