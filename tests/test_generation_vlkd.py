from pathlib import Path

import pytest
import torch
from transformers import GenerationConfig
from transformers.utils import ModelOutput

from modeling_vlkd import VLKDForConditionalGeneration
from modeling_vlkd.generation_vlkd import (
    batches_of_equal_length,
    generate_answers,
    generate_captions,
    generate_texts,
    name_texts,
    sequence_probabilities,
)


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
    settings = {"num_beams": num_beams, "force_prefix": force_prefix}
    together = generate_answers(model, processor, QUESTIONS, rows, **settings)
    for place, question in enumerate(QUESTIONS):
        [alone] = generate_answers(model, processor, [question], rows[place : place + 1], **settings)
        assert [each["answer"] for each in together[place]] == [each["answer"] for each in alone]
        assert together[place][0]["score"] == pytest.approx(alone[0]["score"], rel=1e-4)


def test_many_questions_share_one_image(model, processor, rows):
    shared = generate_answers(model, processor, QUESTIONS, rows[:1], image_index=[0] * len(QUESTIONS))
    copied = generate_answers(model, processor, QUESTIONS, rows[:1].expand(len(QUESTIONS), -1, -1))
    assert texts_of(shared, "answer") == texts_of(copied, "answer")


@pytest.mark.parametrize("num_beams", [1, 3])
def test_score_is_the_probability_of_the_answer(model, processor, rows, num_beams: int):
    """Recompute the score by teacher forcing: the product of the probabilities of the tokens after the prefix."""
    settings = {"num_beams": num_beams, "max_new_tokens": 5, "forced_eos_token_id": None}
    prompts, prefixes = processor.question_prompts(QUESTIONS[:1]), processor.question_prefixes(QUESTIONS[:1])
    [[(_, score)]] = generate_texts(model, processor, prompts, rows[:1], torch.zeros(1).long(), 1, 8, **settings)
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


def test_no_answer_is_empty_if_another_says_something(processor):
    scored = [
        ("why? Answer: .", 0.5),
        ("why? Answer: red.", 0.2),
        ("why? Answer: red", 0.3),
        ("why? Answer: no.", 0.1),
    ]
    answers = name_texts("answer", processor.extract_answers, scored, top_k=2)
    assert answers == [{"answer": "red", "score": 0.3}, {"answer": "no", "score": 0.1}]
    assert name_texts("answer", processor.extract_answers, scored[:1], 2)[0]["answer"] == ""


def test_returned_sequences_stay_with_their_question(model, processor, rows):
    """There are as many as were asked for, and each belongs to its own question."""
    settings = {"num_beams": 4, "num_return_sequences": 3}
    together = generate_answers(model, processor, QUESTIONS[:1] * 4, rows, **settings)  # of one length, so one batch
    assert len({str(each) for each in together}) == 4
    for place in range(4):
        [alone] = generate_answers(model, processor, QUESTIONS[:1], rows[place : place + 1], **settings)
        assert [each["answer"] for each in together[place]] == [each["answer"] for each in alone]
        assert len(alone) == 3
    with pytest.raises(ValueError, match="top_k and num_return_sequences: give top_k for different texts, or"):
        generate_answers(model, processor, QUESTIONS, rows, top_k=2, num_return_sequences=2)


def test_sampling_samples(model, processor, rows):
    torch.manual_seed(0)
    texts = [
        each["caption"]
        for each in generate_captions(model, processor, rows[:1], do_sample=True, num_return_sequences=8)[0]
    ]
    assert len(texts) == 8
    assert len(set(texts)) > 4  # of the beams of a beam search, samples or not, most would begin alike


def test_probability_counts_every_token_but_padding(model):
    """Compute two steps by hand: a text of two tokens, and a text of one token and padding, which does not count."""
    logits = torch.randn(2, model.config.text_config.vocab_size, generator=torch.Generator().manual_seed(0))
    output = ModelOutput(sequences=torch.tensor([[0, 2, 3], [0, 2, 1]]), scores=(logits, logits))
    found = sequence_probabilities(model, output, pad_token_id=1)
    shares = logits.softmax(-1)
    torch.testing.assert_close(found, torch.stack([shares[0, 2] * shares[0, 3], shares[1, 2]]))


def test_several_answers_are_ranked_by_probability_alone(tiny_checkpoint, processor, rows):
    """The checkpoint's length penalty has no effect on them: it is meant for the one best text."""
    model = VLKDForConditionalGeneration.from_pretrained(tiny_checkpoint)
    model.final_logits_bias[0, model.config.text_config.eos_token_id] = 4.0  # so that answers differ in length
    few = generate_answers(model, processor, QUESTIONS, rows, top_k=3)
    model.generation_config.length_penalty = 5.0
    assert generate_answers(model, processor, QUESTIONS, rows, top_k=3) == few
    assert generate_answers(model, processor, QUESTIONS, rows, top_k=3, length_penalty=5.0) != few


def test_no_gradient_is_kept(model, processor, rows):
    wanted = rows.clone().requires_grad_()
    with torch.enable_grad():
        seen = []
        hook = model.model.image_to_decoder.register_forward_hook(lambda *_: seen.append(torch.is_grad_enabled()))
        generate_answers(model, processor, QUESTIONS, wanted)
        hook.remove()
    assert seen
    assert not any(seen)


def test_rows_are_gathered_batch_by_batch(model, processor, rows, monkeypatch):
    """Gathered at once, the rows of a picture would be copied for each question about it."""
    sizes = []
    generate = model.generate
    monkeypatch.setattr(
        model, "generate", lambda **inputs: sizes.append(inputs["image_embeds"].shape[0]) or generate(**inputs)
    )
    generate_answers(model, processor, QUESTIONS * 5, rows, image_index=[0, 1, 2, 3] * 5, batch_size=2)
    assert sum(sizes) == 20
    assert max(sizes) == 2


@pytest.mark.parametrize("force_prefix", [True, False])
@pytest.mark.parametrize("num_beams", [1, 3])
def test_generate_writes_what_the_pipelines_write(model, processor, rows, num_beams: int, force_prefix: bool):
    """Decoding is the same everywhere, also for questions of different lengths in one batch."""
    settings = {"num_beams": num_beams, "force_prefix": force_prefix}
    expected = [best["answer"] for [best] in generate_answers(model, processor, QUESTIONS, rows, **settings)]
    inputs = processor(text=processor.question_prompts(QUESTIONS), return_tensors="pt")
    texts = processor.batch_decode(model.generate(**inputs, image_embeds=rows, **settings), skip_special_tokens=True)
    assert processor.extract_answers(texts) == expected
    if force_prefix:
        assert all(text.startswith(f"{question} Answer:") for text, question in zip(texts, QUESTIONS))


def test_a_config_of_ones_own_leaves_the_checkpoints_decoding(tiny_checkpoint, processor, rows):
    """Settings that it does not have are the checkpoint's, as in `generate()`."""
    model = VLKDForConditionalGeneration.from_pretrained(tiny_checkpoint)
    model.generation_config.force_prefix = False
    own = GenerationConfig(max_new_tokens=6, num_beams=1)
    inputs = processor(text=processor.caption_prompts(4), return_tensors="pt")
    written = model.generate(**inputs, image_embeds=rows, generation_config=own)
    expected = processor.extract_captions(processor.batch_decode(written, skip_special_tokens=True))
    found = generate_captions(model, processor, rows, generation_config=own)
    assert [best["caption"] for [best] in found] == expected
    model.generation_config.num_beams = model.generation_config.num_return_sequences = 2
    found = generate_captions(model, processor, rows)
    alone = [generate_captions(model, processor, rows[place : place + 1])[0] for place in range(4)]
    assert texts_of(found, "caption") == texts_of(alone, "caption")
    assert found == generate_captions(model, processor, rows, generation_config=None)


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
    lengths = [3, 5, 3, 3, 1, 5]
    batches = list(batches_of_equal_length(lengths, batch_size=2))
    assert sorted(position for batch in batches for position in batch) == list(range(6))
    assert all(len({lengths[position] for position in batch}) == 1 for batch in batches)
    assert max(map(len, batches)) == 2


def test_unequal_counts_are_refused(model, processor, rows):
    with pytest.raises(ValueError, match="4 images and 2 questions"):
        generate_answers(model, processor, QUESTIONS[:2], rows)
