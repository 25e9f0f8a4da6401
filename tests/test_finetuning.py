"""Finetuning from `labels` with transformers' own trainers."""

import numpy as np
import pytest
import torch
from tiny_training import CAPTIONS, COLORS, DIM, SHAPES, tiny_model, tiny_processor
from transformers import (
    AutoModelForSeq2SeqLM,
    DataCollatorForSeq2Seq,
    DataCollatorWithPadding,
    Seq2SeqTrainer,
    Seq2SeqTrainingArguments,
    Trainer,
    TrainingArguments,
)

from modeling_vlkd import VLKDConfig, VLKDForSequenceClassification
from modeling_vlkd.evaluation.metrics import exact_match
from modeling_vlkd.trainers import QuestionSet, VLKDDataCollator, answer_accuracy


@pytest.fixture(scope="module")
def processor():
    return tiny_processor()


@pytest.fixture(scope="module")
def examples():
    """Twelve pictures, two questions about each; only the picture tells the answer."""
    scenes = [(color, shape) for color in COLORS for shape in SHAPES]
    rows = torch.zeros(12, 1, DIM)
    for row, (color, shape) in zip(rows, scenes):
        row[0, COLORS.index(color)] = row[0, len(COLORS) + SHAPES.index(shape)] = 3.0
    asked = [("what color is the shape?", 0), ("what shape is it?", 1)]
    return [
        {"image_embeds": row, "question": question, "answer": scene[place]}
        for row, scene in zip(rows, scenes)
        for question, place in asked
    ]


SETTINGS = {"report_to": "none", "disable_tqdm": True, "use_cpu": True, "save_strategy": "no", "seed": 0}
SETTINGS |= {"remove_unused_columns": False, "per_device_train_batch_size": 8, "learning_rate": 1e-2}


def test_seq2seq_trainer_learns_answers_and_generates_them(processor, examples, tmp_path):
    model = tiny_model(processor)
    before = {name: tensor.clone() for name, tensor in model.model.vision_tower.state_dict().items()}

    def accuracy(prediction):
        texts = [
            processor.extract_answers(processor.batch_decode(ids.clip(0), skip_special_tokens=True))
            for ids in (prediction.predictions, prediction.label_ids)
        ]
        return {"accuracy": exact_match(*texts)}

    trainer = Seq2SeqTrainer(
        model,
        Seq2SeqTrainingArguments(tmp_path, max_steps=250, predict_with_generate=True, logging_steps=125, **SETTINGS),
        data_collator=VLKDDataCollator(processor, model),
        train_dataset=examples,
        eval_dataset=examples,
        compute_metrics=accuracy,
    )
    assert trainer.evaluate()["eval_accuracy"] < 0.3
    trainer.train()
    assert trainer.evaluate()["eval_accuracy"] == 1.0
    after = model.model.vision_tower.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)

    questions = QuestionSet(
        [example["question"] for example in examples],
        [example["answer"].upper() for example in examples],
        torch.stack([example["image_embeds"] for example in examples]),
    )
    assert answer_accuracy(model, processor, questions) == 1.0
    shuffled = QuestionSet(questions.questions, questions.answers, questions.image_embeds.roll(6, dims=0))
    assert answer_accuracy(model, processor, shuffled) < 0.6


def test_plain_trainer_divides_by_the_tokens_of_the_whole_update(processor, examples, tmp_path):
    after = []
    for size, accumulate in ((8, 1), (1, 8)):
        model = tiny_model(processor)
        settings = SETTINGS | {"per_device_train_batch_size": size, "gradient_accumulation_steps": accumulate}
        trainer = Trainer(
            model,
            TrainingArguments(tmp_path, max_steps=2, optim="sgd", logging_steps=1, **settings),
            data_collator=VLKDDataCollator(processor),
            train_dataset=examples,
        )
        trainer.train()
        after.append((model.state_dict(), [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]))
    assert after[0][1] == pytest.approx(after[1][1], rel=1e-5)
    for name, tensor in after[0][0].items():
        torch.testing.assert_close(tensor, after[1][0][name], rtol=1e-4, atol=1e-6)


def test_label_smoothing_reads_the_shifted_labels(processor, examples, tmp_path):
    model = tiny_model(processor)
    smoothed, plain = (
        Trainer(
            model,
            TrainingArguments(tmp_path, label_smoothing_factor=smoothing, **SETTINGS),
            data_collator=VLKDDataCollator(processor, model),
            eval_dataset=examples,
        ).evaluate()["eval_loss"]
        for smoothing in (1e-6, 0.0)
    )
    assert smoothed == pytest.approx(plain, rel=1e-4)


def test_text_pairs_are_learnt_as_with_any_seq2seq_model(processor, tmp_path):
    """Without a picture, with transformers' own collator and `AutoModelForSeq2SeqLM`."""
    tiny_model(processor).save_pretrained(tmp_path / "checkpoint")
    model = AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "checkpoint")
    tokenizer = processor.tokenizer
    pairs = {f"a {color} {shape}": f"{shape}, {color}" for color in COLORS for shape in SHAPES}
    examples = [{**tokenizer(source), "labels": tokenizer(target)["input_ids"]} for source, target in pairs.items()]
    trainer = Seq2SeqTrainer(
        model,
        Seq2SeqTrainingArguments(tmp_path, max_steps=150, predict_with_generate=True, **SETTINGS),
        data_collator=DataCollatorForSeq2Seq(tokenizer, model),
        train_dataset=examples,
        processing_class=tokenizer,
    )
    trainer.train()
    written = trainer.predict(examples).predictions
    texts = tokenizer.batch_decode(np.where(written < 0, tokenizer.pad_token_id, written), skip_special_tokens=True)
    assert texts == list(pairs.values())


@pytest.mark.parametrize("problem", ["single_label_classification", "regression", "multi_label_classification"])
def test_a_classifier_learns_alike_from_eight_steps_of_one_and_one_of_eight(processor, tmp_path, problem):
    targets = {
        "single_label_classification": lambda place: place % 3,
        "regression": lambda place: place / 10,
        "multi_label_classification": lambda place: [float(place % 2), float(place % 3 == 0), 1.0],
    }
    examples = [
        {**processor.tokenizer(caption), "labels": targets[problem](place)} for place, caption in enumerate(CAPTIONS)
    ]
    config = VLKDConfig(**tiny_model(processor).config.to_dict())
    config.num_labels, config.problem_type = 1 if problem == "regression" else 3, problem
    after = []
    for size, accumulate in ((8, 1), (1, 8)):
        torch.manual_seed(0)
        model = VLKDForSequenceClassification(config)
        settings = SETTINGS | {"per_device_train_batch_size": size, "gradient_accumulation_steps": accumulate}
        trainer = Trainer(
            model,
            TrainingArguments(tmp_path, max_steps=1, optim="sgd", logging_steps=1, **settings),
            data_collator=DataCollatorWithPadding(processor.tokenizer),
            train_dataset=examples,
        )
        trainer.train()
        after.append((model.state_dict(), trainer.state.log_history[0]["loss"]))
    assert after[0][1] == pytest.approx(after[1][1], rel=1e-5)
    for name, tensor in after[0][0].items():
        torch.testing.assert_close(tensor, after[1][0][name], rtol=1e-4, atol=1e-6)
