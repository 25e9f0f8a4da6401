"""The miniature's texts: they contain no held-out question, and no wording reveals the answer."""

import random
from collections import Counter

import pytest
import torch
from transformers import AutoTokenizer, CLIPModel

from modeling_vlkd.miniature.clip_teacher import TEXT_LENGTH, clip_config, clip_processor, move_shape, normalize
from modeling_vlkd.miniature.corpus import (
    OTHER_WORDINGS,
    draw_asked,
    infilling_prompt,
    reading_probe,
    tokenizer_texts,
    wordings,
    write_replay_corpus,
)
from modeling_vlkd.miniature.tokenizer import clip_tokenizer, train_tokenizer
from modeling_vlkd.miniature.world import (
    COLORS,
    HELD_OUT,
    QUESTION_TEMPLATES,
    SHAPES,
    fill,
    load_split,
    measure_scene,
)
from modeling_vlkd.trainers.replay import parse_replay_line


@pytest.fixture(scope="module")
def images():
    return load_split("test").images[:50]


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(tokenizer_texts())


def all_forms(template: str) -> set[str]:
    return {fill(template, color, shape) for color in COLORS for shape in SHAPES}


def test_held_out_questions_are_in_no_text(tmp_path):
    write_replay_corpus(tmp_path / "replay.txt", 4000, num_masks=2)
    texts = "\n".join([*tokenizer_texts(), (tmp_path / "replay.txt").read_text(), *reading_probe()[0]])
    assert not [form for template in HELD_OUT for form in all_forms(template) if form in texts]
    assert all(form in texts for form in all_forms("is a {shape} present?"))


def test_other_wordings_are_none_of_the_24():
    official = {form for templates in QUESTION_TEMPLATES.values() for t in templates for form in all_forms(t)}
    assert not official & {form for templates in OTHER_WORDINGS.values() for t in templates for form in all_forms(t)}
    assert all(len(wordings(kind)) == 3 + len(OTHER_WORDINGS[kind]) for kind in QUESTION_TEMPLATES)


def test_yes_and_no_are_balanced_and_questions_alone_tell_nothing():
    rng = random.Random(0)
    counts = Counter((each.question, each.answer) for each in (draw_asked(rng) for _ in range(10_000)))
    for question in ("is a red shape present?", "is no red shape present?", "is a circle present?"):
        yes, no = counts[question, "yes"], counts[question, "no"]
        assert 0.3 < yes / (yes + no) < 0.7
    assert len([answer for question, answer in counts if question == "what is the color of the circle?"]) == 8


def test_replay_lines_are_read_by_the_trainer(tmp_path):
    write_replay_corpus(tmp_path / "replay.txt", 200, num_masks=2)
    lines = [parse_replay_line(line) for line in (tmp_path / "replay.txt").read_text().splitlines()]
    assert {context is None for context, _, _ in lines} == {True, False}
    for _, source, target in lines:
        known, answer = target.split("Answer: ")
        assert source == f"{known}Answer:<mask><mask>."
        assert answer.endswith(".")


def test_infilling_prompt_masks_what_the_processor_masks():
    assert infilling_prompt("is it? Answer: yes.", 2) == "is it? Answer:<mask><mask>."
    assert infilling_prompt("A picture of a red circle.", 3) == "A picture of<mask><mask><mask>."


def test_tokenizer_behaves_like_barts(tokenizer, tmp_path):
    tokenizer.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    ids = [loaded.bos_token_id, loaded.pad_token_id, loaded.eos_token_id, loaded.unk_token_id]
    assert [*ids, loaded.mask_token_id] == [0, 1, 2, 3, 4]
    assert loaded("Answer: <mask>.").input_ids == loaded("Answer:<mask>.").input_ids  # the mask takes the space before
    text = "is there a teal rectangle? Zürich!"
    assert loaded.decode(loaded(text).input_ids, skip_special_tokens=True) == text


def test_clip_pools_its_end_token_whatever_follows(tokenizer):
    tokenizer = clip_tokenizer(tokenizer, TEXT_LENGTH)
    torch.manual_seed(0)
    model = CLIPModel(clip_config(tokenizer)).eval()
    alone = tokenizer(["a red circle."], return_tensors="pt")
    padded = tokenizer(["a red circle.", "There is a small teal triangle here."], padding=True, return_tensors="pt")
    torch.testing.assert_close(
        model.get_text_features(**padded).pooler_output[:1], model.get_text_features(**alone).pooler_output
    )


def test_pictures_are_prepared_as_the_processor_does(tokenizer, images):
    processor = clip_processor(clip_tokenizer(tokenizer, TEXT_LENGTH))
    expected = processor(images=list(images[:3]), return_tensors="pt").pixel_values
    torch.testing.assert_close(normalize(images[:3], processor), expected, atol=1e-5, rtol=1e-5)


def test_moving_a_shape_keeps_what_it_is(images):
    rng = random.Random(0)
    for image in images:
        assert measure_scene(move_shape(image, rng)) == measure_scene(image)
