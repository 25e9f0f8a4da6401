import math

import pytest
import torch
from tiny_training import tiny_model, tiny_processor
from torch import Tensor

from modeling_vlkd.evaluation.continuations import known_beginning, score_continuations
from modeling_vlkd.generation_vlkd import generate_answers


PROMPTS = ["is there a circle?", "what color is the shape in the image?", "what is it?", "is there a circle?"]
CONTINUATIONS = [" no", " red circle", " a blue circle", " yes"]


@pytest.fixture(scope="module")
def processor():
    return tiny_processor()


@pytest.fixture(scope="module")
def model(processor):
    return tiny_model(processor, dropout=0.5).train()  # scored without dropout all the same


@pytest.fixture(scope="module")
def tokens(processor) -> tuple[list[list[int]], list[list[int]]]:
    prompts = processor.tokenizer(processor.question_prompts(PROMPTS))["input_ids"]
    return prompts, processor.tokenizer(CONTINUATIONS, add_special_tokens=False)["input_ids"]


def straight_line(model, processor, question: str, continuation: list[int], image_embeds: Tensor | None):
    """One text at a time, token by token, each by a forward pass of its own."""
    inputs = processor(text=processor.question_prompts([question]), return_tensors="pt")
    written = [model.config.text_config.decoder_start_token_id]
    written += processor.tokenizer(f"{question} Answer:")["input_ids"][:-1]  # with <s>, without </s>
    score, greedy = 0.0, True
    model.eval()
    for token in continuation:
        with torch.no_grad():
            logits = model(**inputs, image_embeds=image_embeds, decoder_input_ids=torch.tensor([written])).logits
        probabilities = logits[0, -1].softmax(dim=-1)
        score += math.log(probabilities[token])
        greedy &= int(probabilities.argmax()) == token
        written.append(token)
    model.train()
    return score, greedy


@pytest.mark.parametrize("batch_size", [1, 3])
@pytest.mark.parametrize("seeing", [False, True])
def test_scores_are_those_of_each_text_alone(model, processor, tokens, batch_size: int, seeing: bool):
    rows = (
        torch.randn(2, 1, model.config.projection_dim, generator=torch.Generator().manual_seed(0)) if seeing else None
    )
    index = [1, 0, 1, 1] if seeing else None
    mask = processor.tokenizer.mask_token_id
    found = score_continuations(model, *tokens, mask, rows, index, batch_size)
    assert model.training
    for place, (score, greedy) in enumerate(found):
        about = None if rows is None else rows[[index[place]]]
        expected = straight_line(model, processor, PROMPTS[place], tokens[1][place], about)
        assert score == pytest.approx(expected[0], abs=1e-4)
        assert greedy == expected[1]


def test_what_greedy_search_writes_is_greedy_and_as_likely_as_it_says(processor):
    model = tiny_model(processor)
    model.final_logits_bias[:, processor.tokenizer.pad_token_id] = -1e4  # it writes no padding, as a trained one
    mask = processor.tokenizer.mask_token_id
    rows = torch.randn(1, 1, model.config.projection_dim, generator=torch.Generator().manual_seed(0))
    model.generation_config.forced_eos_token_id = None  # a forced token has no probability of its own
    settings = {"num_beams": 1, "max_new_tokens": 4, "force_prefix": True}
    [[best]] = generate_answers(model, processor, ["what is it?"], rows, **settings)
    inputs = processor(text=processor.question_prompts(["what is it?"]), return_tensors="pt")
    written = model.generate(**inputs, image_embeds=rows, mask_token_id=mask, **settings)
    [prompt] = inputs["input_ids"].tolist()
    new = written[0, 1 + len(known_beginning(prompt, mask)) :].tolist()
    [(score, greedy)] = score_continuations(model, [prompt], [new], mask, rows, [0])
    assert greedy
    assert math.exp(score) == pytest.approx(best["score"], rel=1e-4)


def test_one_token_is_greedy_and_all_are_one(model, processor, tokens):
    prompt, mask = tokens[0][0], processor.tokenizer.mask_token_id
    vocabulary = model.config.text_config.vocab_size
    every = [[token] for token in range(vocabulary)]
    found = score_continuations(model, [prompt] * vocabulary, every, mask, batch_size=64)
    assert sum(greedy for _, greedy in found) == 1
    assert sum(math.exp(score) for score, _ in found) == pytest.approx(1.0, abs=1e-3)


def test_what_cannot_be_scored_is_refused(model, processor, tokens):
    mask = processor.tokenizer.mask_token_id
    with pytest.raises(ValueError, match="got 4 prompts and the lengths"):
        score_continuations(model, tokens[0], tokens[1][:3], mask)
    with pytest.raises(ValueError, match="at least one token"):
        score_continuations(model, tokens[0][:1], [[]], mask)
    with pytest.raises(ValueError, match="Expected a prompt with a mask"):
        score_continuations(model, [[0, 5, 2]], [[7]], mask)
    assert score_continuations(model, [], [], mask) == []
