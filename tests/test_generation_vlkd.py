from pathlib import Path

import pytest
import torch

from modeling_vlkd import VLKDForConditionalGeneration, VLKDProcessor
from modeling_vlkd.generation_vlkd import batches_of_equal_prefix, generate_answers, generate_captions, generate_texts


QUESTIONS = ["what is it?", "what color is the shape in the image?", "why?", "is there a circle in the image or not?"]


@pytest.fixture(scope="module")
def model(tiny_checkpoint: Path) -> VLKDForConditionalGeneration:
    return VLKDForConditionalGeneration.from_pretrained(tiny_checkpoint)


@pytest.fixture(scope="module")
def rows(model: VLKDForConditionalGeneration) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(len(QUESTIONS), 1, model.config.projection_dim, generator=generator)


def texts_of(results: list[list[dict]], name: str) -> list[list[str]]:
    return [[each[name] for each in result] for result in results]


@pytest.mark.parametrize("num_beams", [1, 3])
@pytest.mark.parametrize("force_prefix", [True, False])
def test_mixed_lengths_in_a_batch_answer_as_one_by_one(model, processor, rows, num_beams: int, force_prefix: bool):
    asker = VLKDProcessor(processor.image_processor, processor.tokenizer, force_prefix=force_prefix)
    together = generate_answers(model, asker, QUESTIONS, rows, num_beams=num_beams)
    for place, question in enumerate(QUESTIONS):
        [alone] = generate_answers(model, asker, [question], rows[place : place + 1], num_beams=num_beams)
        assert [each["answer"] for each in together[place]] == [each["answer"] for each in alone]
        assert together[place][0]["score"] == pytest.approx(alone[0]["score"], rel=1e-4)


def test_many_questions_share_one_image(model, processor, rows):
    shared = generate_answers(model, processor, QUESTIONS, rows[:1], image_index=[0] * len(QUESTIONS))
    copied = generate_answers(model, processor, QUESTIONS, rows[:1].expand(len(QUESTIONS), -1, -1))
    assert texts_of(shared, "answer") == texts_of(copied, "answer")


@pytest.mark.parametrize("num_beams", [1, 3])
def test_score_is_the_probability_of_the_answer(model, processor, rows, num_beams: int):
    """Recomputed by teacher forcing: the product of the probabilities of the tokens after the prefix."""
    settings = {"num_beams": num_beams, "max_new_tokens": 5, "forced_eos_token_id": None}
    prompts, prefixes = processor.question_prompts(QUESTIONS[:1]), processor.question_prefixes(QUESTIONS[:1])
    [[(_, score)]] = generate_texts(model, processor, prompts, prefixes, rows[:1], 1, 8, **settings)
    start = [model.config.text_config.decoder_start_token_id, model.config.text_config.bos_token_id]
    prefix = torch.tensor([start + processor.tokenizer(prefixes[0], add_special_tokens=False)["input_ids"]])
    inputs = processor(text=prompts, return_tensors="pt")
    tokens = model.generate(**inputs, image_embeds=rows[:1], decoder_input_ids=prefix, **settings)
    with torch.no_grad():
        logits = model(**inputs, image_embeds=rows[:1], decoder_input_ids=tokens[:, :-1]).logits
    chosen = logits.log_softmax(-1).gather(-1, tokens[:, 1:, None])[0, prefix.shape[1] - 1 :, 0]
    assert score == pytest.approx(chosen.sum().exp().item(), rel=1e-4)


def test_top_k_are_different_and_come_best_first(model, processor, rows):
    few, many = (generate_answers(model, processor, QUESTIONS, rows, top_k=top_k) for top_k in (3, 8))
    for each in many:
        scores = [answer["score"] for answer in each]
        assert scores == sorted(scores, reverse=True)
        assert 1 < len({answer["answer"] for answer in each}) == len(each) <= 8
    for three, eight in zip(few, many):  # an answer's score does not depend on how many were asked for
        known = {answer["answer"]: answer["score"] for answer in eight}
        shared = [answer for answer in three if answer["answer"] in known]
        assert shared
        assert [known[answer["answer"]] for answer in shared] == pytest.approx([a["score"] for a in shared], rel=1e-3)


@pytest.mark.parametrize("top_k", [0, 100_000])
def test_senseless_top_k_is_refused(model, processor, rows, top_k: int):
    with pytest.raises(ValueError, match=f"top_k={top_k}: ask for at least one text, and for at most"):
        generate_answers(model, processor, QUESTIONS, rows, top_k=top_k)


def test_captions_are_for_each_image(model, processor, rows):
    together = generate_captions(model, processor, rows, batch_size=3)
    alone = [generate_captions(model, processor, rows[place : place + 1])[0] for place in range(len(rows))]
    assert texts_of(together, "caption") == texts_of(alone, "caption")


def test_text_alone_answers_too(model, processor):
    assert len(generate_answers(model, processor, QUESTIONS)) == len(QUESTIONS)


def test_batches_have_one_length_and_miss_nothing():
    prefixes = [[0] * length for length in (3, 5, 3, 3, 1, 5)]
    batches = list(batches_of_equal_prefix(prefixes, batch_size=2))
    assert sorted(position for batch in batches for position in batch) == list(range(6))
    assert all(len({len(prefixes[position]) for position in batch}) == 1 for batch in batches)
    assert max(map(len, batches)) == 2


def test_unequal_counts_are_refused(model, processor, rows):
    with pytest.raises(ValueError, match="4 images and 2 questions"):
        generate_answers(model, processor, QUESTIONS[:2], rows)
