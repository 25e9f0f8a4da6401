"""Refuse numbers with which a run would fail late or ruin the model."""

import pytest
from transformers import Seq2SeqTrainingArguments

from modeling_vlkd.commands.number_checks import refuse_odd_numbers
from modeling_vlkd.trainers import VLKDDistillationConfig


BAD = [
    ({"per_device_train_batch_size": 0}, "--per_device_train_batch_size 0: give 1 or more"),
    ({"per_device_train_batch_size": -1}, "--per_device_train_batch_size -1: give 1 or more"),
    ({"per_device_eval_batch_size": 0}, "--per_device_eval_batch_size 0: give 1 or more"),
    ({"gradient_accumulation_steps": 0}, "--gradient_accumulation_steps 0: give 1 or more"),
    ({"learning_rate": -1.0}, "--learning_rate -1.0: give 0 or more"),
    ({"learning_rate": float("nan")}, "--learning_rate nan: give 0 or more"),
    ({"projection_learning_rate": -1.0}, "--projection_learning_rate -1.0: give 0 or more"),
    ({"max_grad_norm": -1.0}, "--max_grad_norm -1.0: give 0 or more"),
    ({"dataloader_num_workers": -1}, "--dataloader_num_workers -1: give 0 or more"),
    ({"max_steps": 0}, "--max_steps 0: give 1 or more, or leave it out"),
    ({"max_steps": -5}, "--max_steps -5: give 1 or more, or leave it out"),
    ({"num_train_epochs": 0.0}, "--num_train_epochs 0.0: give a number above 0"),
    ({"lr_scheduler_kwargs": "x"}, "--lr_scheduler_kwargs x: give a JSON object"),
]


@pytest.mark.parametrize(("given", "message"), BAD, ids=str)
def test_a_number_that_makes_no_sense_is_refused(given, message, tmp_path):
    with pytest.raises(ValueError) as caught:
        refuse_odd_numbers(VLKDDistillationConfig(str(tmp_path), use_cpu=True, **given))
    assert message in str(caught.value)


@pytest.mark.parametrize(
    "given",
    [{}, {"learning_rate": 0.0}, {"max_steps": 3, "num_train_epochs": 0.0}, {"lr_scheduler_kwargs": "{}"}],
    ids=str,
)
def test_others_pass(given, tmp_path):
    refuse_odd_numbers(VLKDDistillationConfig(str(tmp_path), use_cpu=True, **given))
    refuse_odd_numbers(Seq2SeqTrainingArguments(str(tmp_path), use_cpu=True, **given))


def test_a_length_of_nothing_is_refused(tmp_path):
    with pytest.raises(ValueError, match="--generation_max_length 0: give 1 or more"):
        refuse_odd_numbers(Seq2SeqTrainingArguments(str(tmp_path), use_cpu=True, generation_max_length=0))
