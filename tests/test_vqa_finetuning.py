"""Finetuning on questions with several answers each: the weighted loss, its batches and its count of questions."""

import pytest
import torch
from tiny_training import COLORS, DIM, tiny_model, tiny_processor
from torch import Tensor
from transformers import Seq2SeqTrainingArguments

from modeling_vlkd.trainers.objectives import weighted_answer_loss
from modeling_vlkd.trainers.vqa_finetuning import VQAFinetuningTrainer, WeightedAnswersCollator


def written_out(logits: list[Tensor], labels: list[list[int]], counts: list[list[int]], smoothing: float) -> Tensor:
    """Go through questions, answers, tokens and the vocabulary, as the formula is read aloud."""
    total, answer = torch.zeros((), dtype=torch.float64), 0
    for people in counts:
        for count in people:
            of_answer = torch.zeros((), dtype=torch.float64)
            for row, label in zip(logits[answer], labels[answer]):
                if label == -100:
                    continue
                log_probabilities = row - row.exp().sum().log()
                target = -(1 - smoothing) * log_probabilities[label]
                for each in log_probabilities:
                    target = target - smoothing / len(row) * each
                of_answer = of_answer + target
            total = total + count / sum(people) * of_answer
            answer += 1
    return total / len(counts)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_loss_is_the_formula(smoothing: float):
    torch.manual_seed(0)
    counts = [[7, 2, 1], [10], [5, 5]]  # what ten people said to each of three questions
    logits = torch.randn(6, 4, 11, dtype=torch.float64, requires_grad=True)
    labels = torch.randint(0, 11, (6, 4))
    labels[[0, 2, 5], -1] = labels[2, -2] = -100
    weights = torch.tensor([count / sum(people) for people in counts for count in people], dtype=torch.float64)
    loss = weighted_answer_loss(logits, labels, weights, len(counts), smoothing)
    expected = written_out(list(logits), labels.tolist(), counts, smoothing)
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=1e-12)
    for found, known in zip(torch.autograd.grad(loss, logits), torch.autograd.grad(expected, logits)):
        torch.testing.assert_close(found, known, rtol=1e-10, atol=1e-12)


def test_a_weight_for_each_answer_is_asked_for():
    with pytest.raises(ValueError, match=r"got \(2,\) weights and \(3, 4\) labels"):
        weighted_answer_loss(torch.zeros(3, 4, 5), torch.zeros(3, 4, dtype=torch.long), torch.ones(2), 2)


@pytest.fixture(scope="module")
def processor():
    return tiny_processor()


@pytest.fixture(scope="module")
def examples() -> list[dict]:
    """Eight questions, on the first of each pair of which people agreed, and not on the second."""
    rows = torch.randn(8, 1, DIM, generator=torch.Generator().manual_seed(0))
    agreed, not_agreed = [{color: 1.0} for color in COLORS], [{"red": 0.7, "blue": 0.2, "a box": 0.1}] * 4
    answers = [each for pair in zip(agreed, not_agreed) for each in pair]
    return [{"image_embeds": row, "question": "what is it?", "answers": each} for row, each in zip(rows, answers)]


def test_a_batch_has_a_row_for_each_answer(processor, examples):
    model = tiny_model(processor)
    batch = WeightedAnswersCollator(processor, model)(examples[:2])
    assert batch["answers_each"].tolist() == [1, 3]
    torch.testing.assert_close(batch["answer_weights"], torch.tensor([1.0, 0.7, 0.2, 0.1]))
    texts = processor.batch_decode(batch["labels"].clamp(min=0), skip_special_tokens=True)
    said = ["red", "red", "blue", "a box"]
    assert texts == [f"what is it? Answer: {answer}." for answer in said]
    assert torch.equal(
        batch["image_embeds"][:, 0, 0], torch.stack([examples[n]["image_embeds"][0, 0] for n in (0, 1, 1, 1)])
    )


SETTINGS = {"report_to": "none", "disable_tqdm": True, "use_cpu": True, "save_strategy": "no", "seed": 0}
SETTINGS |= {"remove_unused_columns": False, "learning_rate": 1e-2, "label_smoothing_factor": 0.1}


def trainer_of(processor, examples, folder, **settings) -> VQAFinetuningTrainer:
    model = tiny_model(processor)
    return VQAFinetuningTrainer(
        model,
        Seq2SeqTrainingArguments(folder, max_steps=2, optim="sgd", logging_steps=1, **SETTINGS, **settings),
        data_collator=WeightedAnswersCollator(processor, model),
        train_dataset=examples,
        eval_dataset=examples,
        processing_class=processor,
    )


def test_eight_steps_of_one_question_are_one_of_eight(processor, examples, tmp_path):
    """Though there are one or three answers in each: the loss is divided by questions."""
    after = []
    for size, accumulate in ((8, 1), (1, 8)):
        trainer = trainer_of(
            processor, examples, tmp_path, per_device_train_batch_size=size, gradient_accumulation_steps=accumulate
        )
        trainer.train()
        after.append((trainer.model.state_dict(), [e["loss"] for e in trainer.state.log_history if "loss" in e]))
    assert after[0][1] == pytest.approx(after[1][1], rel=1e-5)
    for name, tensor in after[0][0].items():
        torch.testing.assert_close(tensor, after[1][0][name], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("batch_size", [8, 1])  # batches of 1 have one or three answers
def test_the_loss_of_an_evaluation_is_the_mean_over_questions(processor, examples, tmp_path, batch_size: int):
    trainer = trainer_of(processor, examples, tmp_path, per_device_eval_batch_size=batch_size)
    losses = []
    for example in examples:
        batch = WeightedAnswersCollator(processor, trainer.model)([example])
        counts, weights = batch.pop("answers_each"), batch.pop("answer_weights")
        with torch.no_grad():
            logits = trainer.model.eval()(**batch).logits
        losses.append(weighted_answer_loss(logits, batch["labels"], weights, len(counts)).item())
    assert trainer.evaluate()["eval_loss"] == pytest.approx(sum(losses) / 8, rel=1e-5)
