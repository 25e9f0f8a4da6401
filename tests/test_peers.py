"""Each adapter writes, in batches, what the model writes for one picture alone, used as its documentation shows."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_peers import PEERS, make_peer
from torch.nn.functional import normalize
from transformers import PreTrainedModel, ProcessorMixin

from modeling_vlkd.evaluation import peer_adapters
from modeling_vlkd.evaluation.errors import EvaluationError
from modeling_vlkd.evaluation.peers import adapt


LENGTH = 6
SHAPES = [(20, 30), (40, 25), (16, 16), (50, 20)]
QUESTIONS = [
    "is there a circle?",
    "what color is the shape?",
    "is there a red box in the image?",
    "what shape is it?",
    "what?",
    "is there a circle?",
]
INDEX = [0, 1, 2, 3, 3, 1]
ENCODERS = ["clip", "siglip", "blip-itm"]


@pytest.fixture(scope="module")
def peer() -> Callable[[str], tuple[PreTrainedModel, ProcessorMixin]]:
    """Makes each model once; not to be changed."""
    return cache(make_peer)


@pytest.fixture(scope="module")
def pictures() -> list[Image.Image]:
    generator = np.random.default_rng(0)
    coarse = [Image.fromarray(generator.integers(0, 255, (4, 4, 3), dtype=np.uint8)) for _ in SHAPES]
    return [picture.resize(shape) for picture, shape in zip(coarse, SHAPES)]


# The straight-line uses: `(model, processor, picture, prompt) -> text`.


def continued(model, processor, picture, prompt) -> str:
    """BLIP-2 and InstructBLIP on a decoder: the prompt comes back first."""
    inputs = processor(images=picture, text=prompt, return_tensors="pt")
    [ids] = model.generate(**inputs, max_new_tokens=LENGTH)
    text = processor.decode(ids, skip_special_tokens=True).strip()
    assert text.startswith(prompt)
    return text.removeprefix(prompt).strip()


def begun(model, processor, picture, prompt) -> str:
    """BLIP with the beginning of a caption, which comes back without the end of text."""
    inputs = processor(picture, prompt, return_tensors="pt")
    [ids] = model.generate(**inputs, max_new_tokens=LENGTH)
    assert processor.decode(ids, skip_special_tokens=True).startswith(prompt)
    words = len(prompt.split())
    return processor.decode(ids[1 + words :], skip_special_tokens=True).strip()


def answered(model, processor, picture, prompt) -> str:
    """BLIP's answers, and those of BLIP-2 and InstructBLIP on an encoder-decoder."""
    inputs = processor(images=picture, text=prompt, return_tensors="pt")
    [ids] = model.generate(**inputs, max_new_tokens=LENGTH)
    return processor.decode(ids, skip_special_tokens=True).strip()


def unconditional(model, processor, picture, prompt) -> str:
    """BLIP's and GIT's captions."""
    assert prompt == ""
    inputs = processor(images=picture, return_tensors="pt")
    return processor.batch_decode(
        model.generate(pixel_values=inputs.pixel_values, max_new_tokens=LENGTH), skip_special_tokens=True
    )[0].strip()


def florence2(model, processor, picture, prompt) -> str:
    inputs = processor(text=prompt, images=picture, return_tensors="pt")
    ids = model.generate(**inputs, max_new_tokens=LENGTH)
    text = processor.batch_decode(ids, skip_special_tokens=False)[0]
    found = processor.post_process_generation(text, task="<CAPTION>", image_size=picture.size)
    return found["<CAPTION>"].strip()


def git(model, processor, picture, prompt) -> str:
    pixel_values = processor(images=picture, return_tensors="pt").pixel_values
    input_ids = processor(text=prompt, add_special_tokens=False).input_ids
    input_ids = torch.tensor([processor.tokenizer.cls_token_id, *input_ids]).unsqueeze(0)
    ids = model.generate(pixel_values=pixel_values, input_ids=input_ids, max_new_tokens=LENGTH)
    [text] = processor.batch_decode(ids, skip_special_tokens=True)
    assert text.startswith(processor.decode(input_ids[0], skip_special_tokens=True))
    return processor.decode(ids[0, input_ids.shape[1] :], skip_special_tokens=True).strip()


def kosmos2(model, processor, picture, prompt) -> str:
    inputs = processor(text=prompt, images=picture, return_tensors="pt")
    ids = model.generate(
        pixel_values=inputs["pixel_values"],
        input_ids=inputs["input_ids"],
        attention_mask=inputs["attention_mask"],
        image_embeds_position_mask=inputs["image_embeds_position_mask"],
        max_new_tokens=LENGTH,
    )
    text, _ = processor.post_process_generation(processor.batch_decode(ids, skip_special_tokens=True)[0])
    assert text.startswith(prompt)
    return text.removeprefix(prompt).strip()


def chat(model, processor, picture, prompt) -> str:
    """Chat models, with the turn written by hand."""
    inputs = processor(
        images=picture, text=f"user: {IMAGES[model.config.model_type]}{prompt}\nassistant:", return_tensors="pt"
    )
    [ids] = model.generate(**inputs, max_new_tokens=LENGTH)
    return processor.decode(ids[inputs["input_ids"].shape[1] :], skip_special_tokens=True).strip()


# For each peer, how it captions and how it answers, and with which prompts.
SHORT_CAPTION, SHORT_ANSWER = "A short image description:", "Question: {question} Short answer:"
BLIP_2_CAPTION, BLIP_2_ANSWER = "a photo of", "Question: {question} Answer:"
CHAT_CAPTION = "Provide a one-sentence caption for the provided image."
IMAGES = {"llava": "<image>", "idefics3": "<image>", "qwen2_vl": "<|vision_start|><|image_pad|><|vision_end|>"}
CHAT_ANSWER = "{question}\nAnswer the question using a single word or phrase."
WRITERS: dict[str, tuple[tuple[Callable[..., str], str] | None, tuple[Callable[..., str], str] | None]] = {
    "blip-caption": ((unconditional, ""), None),
    "blip-vqa": (None, (answered, "{question}")),
    "blip-2-opt": ((continued, BLIP_2_CAPTION), (continued, BLIP_2_ANSWER)),
    "blip-2-t5": ((answered, BLIP_2_CAPTION), (answered, SHORT_ANSWER)),
    "instructblip-llama": ((continued, SHORT_CAPTION), (continued, SHORT_ANSWER)),
    "instructblip-t5": ((answered, SHORT_CAPTION), (answered, SHORT_ANSWER)),
    "florence2": ((florence2, "<CAPTION>"), None),
    "git": ((unconditional, ""), (git, "{question}")),
    "kosmos-2": ((kosmos2, "An image of"), (kosmos2, BLIP_2_ANSWER)),
    "llava": ((chat, CHAT_CAPTION), (chat, CHAT_ANSWER)),
    "idefics3": ((chat, CHAT_CAPTION), (chat, CHAT_ANSWER)),
    "qwen2_vl": ((chat, CHAT_CAPTION), (chat, CHAT_ANSWER)),
}


def test_every_peer_is_tested():
    assert {*WRITERS, *ENCODERS} == set(PEERS)


@pytest.mark.parametrize("name", WRITERS)
def test_captions_of_a_batch_are_those_of_its_pictures_alone(name, peer, pictures):
    caption, _ = WRITERS[name]
    model, processor = peer(name)
    adapter = adapt(model, processor, batch_size=3, max_new_tokens=LENGTH)
    if caption is None:
        with pytest.raises(EvaluationError, match=r"was not made to caption pictures.*; it can answer questions"):
            adapter.caption(pictures)
        return
    reference, prompt = caption
    expected = [reference(model, processor, picture, prompt) for picture in pictures]
    assert len(set(expected)) > 1, "the pictures make no difference"
    assert [each.text for each in adapter.caption(pictures)] == expected


@pytest.mark.parametrize("name", WRITERS)
def test_answers_of_a_batch_are_those_of_its_questions_alone(name, peer, pictures):
    _, answer = WRITERS[name]
    model, processor = peer(name)
    adapter = adapt(model, processor, batch_size=4, max_new_tokens=LENGTH)
    if answer is None:
        with pytest.raises(EvaluationError, match=r"was not made to answer questions.*; it can caption pictures"):
            adapter.answer(pictures, QUESTIONS, INDEX)
        return
    reference, prompt = answer
    prompts = [prompt.replace("{question}", question) for question in QUESTIONS]
    expected = [reference(model, processor, pictures[image], asked) for asked, image in zip(prompts, INDEX)]
    assert len(set(expected)) > 2, "neither pictures nor questions make a difference"
    answers = adapter.answer(adapter.look(iter(pictures)), QUESTIONS, INDEX)
    assert [each.text for each in answers] == expected
    assert [each.score for each in answers] == [None] * len(QUESTIONS)


@pytest.mark.parametrize("name", WRITERS)
def test_models_that_write_embed_nothing(name, peer, pictures):
    adapter = adapt(*peer(name), name="my/model")
    with pytest.raises(
        EvaluationError, match=r"my/model \(\w+\) has no embeddings of pictures .*it can (caption|ans)"
    ):
        adapter.embed_images(pictures)
    with pytest.raises(EvaluationError, match=r"my/model \(\w+\) has no embeddings of texts"):
        adapter.embed_texts(QUESTIONS)


def test_a_prompt_of_the_user_makes_a_model_do_what_it_was_not_made_for(peer, pictures):
    model, processor = peer("florence2")
    prompt = "What is it? {question}"
    adapter = adapt(model, processor, question_prompt=prompt, max_new_tokens=LENGTH)
    expected = [answered(model, processor, picture, "What is it? what?") for picture in pictures]
    assert [each.text for each in adapter.answer(pictures, ["what?"] * 4)] == expected
    adapter = adapt(*peer("blip-caption"), caption_prompt="a picture of a", max_new_tokens=LENGTH)
    expected = [begun(*peer("blip-caption"), picture, "a picture of a") for picture in pictures]
    assert [each.text for each in adapter.caption(pictures)] == expected
    with pytest.raises(EvaluationError, match=r"question prompt 'What\?' has no \{question\}"):
        adapt(model, processor, question_prompt="What?")


def test_what_kosmos_2_says_of_places_is_taken_out(peer):
    model, processor = peer("kosmos-2")
    said = "An image of<phrase> a box</phrase><object><patch_index_0044><patch_index_0863></object> and a circle."
    sequences = torch.tensor([processor.tokenizer(said, add_special_tokens=False)["input_ids"]])
    prompt = torch.tensor([processor.tokenizer("An image of", add_special_tokens=False)["input_ids"]])
    assert adapt(model, processor).decode(sequences, {"input_ids": prompt}) == ["a box and a circle."]


@pytest.mark.parametrize("name", ["blip-vqa", "blip-2-opt", "git", "kosmos-2"])
def test_without_a_picture_most_cannot_answer(name, peer):
    with pytest.raises(EvaluationError, match=r"me \(\w+\) cannot answer without a picture"):
        adapt(*peer(name), name="me").answer(None, QUESTIONS)


def test_without_a_picture_a_chat_model_answers_the_text(peer):
    model, processor = peer("llava")
    found = adapt(model, processor, batch_size=4, max_new_tokens=LENGTH).answer(None, QUESTIONS)
    for question, answer in zip(QUESTIONS, found):
        text = f"user: {CHAT_ANSWER.replace('{question}', question)}\nassistant:"
        inputs = processor(text=text, return_tensors="pt")
        [ids] = model.generate(**inputs, max_new_tokens=LENGTH)
        assert answer.text == processor.decode(ids[inputs["input_ids"].shape[1] :], skip_special_tokens=True).strip()


def test_a_chat_model_needs_a_template(peer):
    model, processor = make_peer("llava")
    processor.chat_template = None
    with pytest.raises(EvaluationError, match=r"it \(LlavaForConditionalGeneration\) has no chat template"):
        adapt(model, processor, name="it")


def test_questions_need_their_pictures(peer, pictures):
    with pytest.raises(EvaluationError, match="one picture per question, got 4 for 6 questions; give image_index"):
        adapt(*peer("blip-vqa")).answer(pictures, QUESTIONS)


def test_nothing_at_all_is_answered_by_nothing(peer):
    adapter = adapt(*peer("blip-2-opt"))
    assert adapter.caption([]) == adapter.answer([], []) == []
    encoder = adapt(*peer("clip"))
    assert len(encoder.embed_images([])) == len(encoder.embed_texts([])) == 0


def test_settings_reach_generate_and_nothing_is_drawn(peer, pictures, monkeypatch):
    model, processor = make_peer("blip-2-opt")
    model.language_model.generation_config.do_sample = True
    given: list[dict[str, Any]] = []
    generate = model.generate
    monkeypatch.setattr(model, "generate", lambda **kwargs: given.append(kwargs) or generate(**kwargs))
    adapter = adapt(model, processor, batch_size=2, num_beams=2)
    assert adapter.caption(pictures[:2]) == adapter.caption(pictures[:2])
    adapter.answer(pictures[:2], QUESTIONS[:2])
    assert [each["max_new_tokens"] for each in given] == [30, 30, 10]
    assert {each["num_beams"] for each in given} == {2}


def test_a_picture_is_opened_once_for_its_questions(peer, pictures, tmp_path: Path, monkeypatch):
    paths = [tmp_path / f"{place}.png" for place in range(2)]
    for path, picture in zip(paths, pictures):
        picture.save(path)
    opened: list[Path] = []
    open_image = peer_adapters.open_image
    monkeypatch.setattr(peer_adapters, "open_image", lambda path: opened.append(path) or open_image(path))
    adapter = adapt(*peer("blip-2-opt"), batch_size=4, max_new_tokens=LENGTH)
    asked = ["what?"] * 8
    answers = adapter.answer(paths, asked, [0, 1] * 4)
    assert opened == paths  # four questions about the one, then four about the other
    assert answers == adapter.answer(pictures, asked, [0, 1] * 4)


@pytest.mark.parametrize("name", ENCODERS)
def test_embeddings_give_the_scores_of_the_model(name, peer, pictures):
    model, processor = peer(name)
    adapter = adapt(model, processor, batch_size=3)
    padding = "max_length" if name == "siglip" else True
    inputs = processor(images=pictures, text=QUESTIONS, padding=padding, return_tensors="pt")
    found = normalize(adapter.embed_images(iter(pictures))) @ normalize(adapter.embed_texts(QUESTIONS)).T
    with torch.no_grad():
        if name == "blip-itm":
            expected = model(**inputs, use_itm_head=False).itm_score
        else:
            expected = model(**inputs).logits_per_image
            bias = model.logit_bias if name == "siglip" else 0
            found = found * model.logit_scale.exp() + bias
    torch.testing.assert_close(found, expected)


def test_a_text_that_is_too_long_is_cut(peer):
    long = "circle " * 60
    for name in ("clip", "siglip"):
        model, processor = peer(name)
        read = processor.tokenizer.model_max_length
        assert len(processor.tokenizer(long, verbose=False)["input_ids"]) > read
        assert torch.equal(
            adapt(model, processor).embed_texts([long]), adapt(model, processor).embed_texts([long * 2])
        )


@pytest.mark.parametrize("name", ENCODERS)
def test_dual_encoders_write_nothing(name, peer, pictures):
    adapter = adapt(*peer(name), name="me")
    with pytest.raises(EvaluationError, match=r"me \(\w+\) answers no questions; it can embed pictures and texts"):
        adapter.answer(pictures, QUESTIONS, INDEX)
    with pytest.raises(EvaluationError, match=r"me \(\w+\) captions no pictures"):
        adapter.caption(pictures)
    with pytest.raises(EvaluationError, match=r"me \(\w+\) writes no texts, so it has no num_beams"):
        adapt(*peer(name), name="me", num_beams=3)
