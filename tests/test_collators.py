import doctest
import math
import re

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_training import CAPTIONS, DIM, IMAGE_SIZE, tiny_model, tiny_pairs, tiny_processor

from modeling_vlkd.trainers import VLKDDataCollator, VLKDDistillationCollator


@pytest.fixture(scope="module")
def processor():
    return tiny_processor()


def decode(processor, ids):
    ids = ids.masked_fill(ids == -100, processor.tokenizer.pad_token_id)
    return [text.replace("<pad>", "") for text in processor.tokenizer.batch_decode(ids)]


def test_distillation_batch_has_clean_and_corrupted_captions(processor):
    batch = VLKDDistillationCollator(processor)(tiny_pairs(4))
    clean = [f"<s>{caption}</s>" for caption in CAPTIONS[:4]]
    assert decode(processor, batch["clean_input_ids"]) == decode(processor, batch["labels"]) == clean
    assert all("<mask>" in text for text in decode(processor, batch["input_ids"]))
    assert batch["image_embeds"].shape == (4, 1, DIM)
    assert batch["text_teacher_embeds"].shape == (4, DIM)
    for ids, mask in (("input_ids", "attention_mask"), ("clean_input_ids", "clean_attention_mask")):
        assert (batch[mask] == (batch[ids] != processor.tokenizer.pad_token_id)).all()


def test_captions_may_come_as_token_ids_and_are_cut_to_length(processor):
    ids = processor.tokenizer(CAPTIONS[0]).input_ids
    batch = VLKDDistillationCollator(processor)([{"image_embeds": torch.ones(1, DIM), "input_ids": ids}])
    assert batch["clean_input_ids"].tolist() == [ids]
    assert "text_teacher_embeds" not in batch
    short = VLKDDistillationCollator(processor, max_text_length=4)(tiny_pairs(1))
    assert short["clean_input_ids"].shape == (1, 4)


def test_masks_follow_the_draw_and_else_the_seed_and_the_example(processor):
    pairs = [{**pair, "draw": draw} for draw, pair in enumerate(tiny_pairs(6))]
    collate = VLKDDistillationCollator(processor)
    first = decode(processor, collate(pairs)["input_ids"])
    backwards = decode(processor, collate(pairs[::-1])["input_ids"])
    assert backwards == first[::-1]

    again, other = VLKDDistillationCollator(processor, seed=3), VLKDDistillationCollator(processor, seed=4)
    batches = [again(tiny_pairs()), again(tiny_pairs()[::-1]), other(tiny_pairs())]
    first, backwards, others = [decode(processor, batch["input_ids"]) for batch in batches]
    assert backwards == first[::-1]  # whatever came before
    assert others != first
    images = [torch.full((1, DIM), float(index)) for index in range(20)]
    alike = [{"image_embeds": image, "caption": CAPTIONS[0]} for image in images]
    assert len(set(decode(processor, again(alike)["input_ids"]))) > 1  # other pictures of a caption, other masks


def test_a_view_of_each_image_is_drawn(processor):
    views = torch.arange(2.0)[:, None, None].expand(2, 1, DIM)
    pairs = [{"image_embeds": views, "caption": CAPTIONS[0], "draw": draw} for draw in range(400)]
    embeds = VLKDDistillationCollator(processor)(pairs)["image_embeds"]
    assert embeds.shape == (400, 1, DIM)
    assert embeds[:, 0, 0].mean() == pytest.approx(0.5, abs=0.1)


def test_a_share_of_the_captions_is_asked_for_as_users_will_ask(processor):
    """The prompt and its filling; what the losses on embeddings read stays the caption itself."""
    captions = ["a red circle", "A picture of a teal box.", "blue box!"]
    pairs = [{**tiny_pairs(1)[0], "caption": captions[draw % 3], "draw": draw} for draw in range(600)]
    batch = VLKDDistillationCollator(processor, whole_text_share=0.5)(pairs)
    prompt = re.compile(r"<s>A picture of((?:<mask>)+)\.</s>")
    asked = [place for place, text in enumerate(decode(processor, batch["input_ids"])) if prompt.fullmatch(text)]
    assert len(asked) / 600 == pytest.approx(0.5, abs=0.07)
    filled = ["A picture of a red circle.", "A picture of a teal box.", "A picture of blue box!"]
    written = decode(processor, batch["labels"])
    clean = decode(processor, batch["clean_input_ids"])
    for place in range(600):
        assert written[place] == f"<s>{filled[place % 3] if place in asked else captions[place % 3]}</s>"
        assert clean[place] == f"<s>{captions[place % 3]}</s>"


def test_prompts_have_a_quarter_of_to_twice_as_many_masks_as_there_are_tokens_to_guess(processor):
    pairs = [{**tiny_pairs(1)[0], "caption": "a red circle", "draw": draw} for draw in range(400)]
    batch = VLKDDistillationCollator(processor, whole_text_share=1.0)(pairs)
    masks = (batch["input_ids"] == processor.tokenizer.mask_token_id).sum(dim=1)
    tokens = len(processor.tokenizer(" a red circle.", add_special_tokens=False).input_ids)
    assert math.ceil(tokens / 4) <= masks.min() <= math.ceil(tokens / 4) + 1
    assert 2 * tokens - 1 <= masks.max() <= 2 * tokens
    assert masks.float().mean() == pytest.approx(tokens * 1.75 / math.log(8) + 0.5, rel=0.1)  # log-uniform, rounded up


def test_pixels_are_mirrored_where_the_mirror_image_of_rows_would_be_drawn(processor):
    pixels = torch.arange(4.0).expand(3, 4, 4)
    views = torch.arange(2.0)[:, None, None].expand(2, 1, DIM)
    fields = {"caption": CAPTIONS[0]}
    kept = [{"pixel_values": pixels, "flip": True, "draw": draw, **fields} for draw in range(100)]
    rows = [{"image_embeds": views, "draw": draw, **fields} for draw in range(100)]
    collate = VLKDDistillationCollator(processor)
    mirrored = collate(rows)["image_embeds"][:, 0, 0] == 1
    assert 0 < mirrored.sum() < 100
    for shown, other_way in zip(collate(kept)["pixel_values"], mirrored):
        assert torch.equal(shown, pixels.flip(-1) if other_way else pixels)
    for pair in kept:
        del pair["flip"]
    assert torch.equal(collate(kept)["pixel_values"], pixels.expand(100, 3, 4, 4))


def test_pictures_become_pixels(processor):
    picture = Image.new("RGB", (20, 30), "teal")
    batch = VLKDDistillationCollator(processor)([{"image": picture, "caption": CAPTIONS[0]}] * 2)
    assert batch["pixel_values"].shape == (2, 3, IMAGE_SIZE, IMAGE_SIZE)


def test_a_batch_of_some_with_and_some_without_an_image_is_refused(processor):
    pairs = tiny_pairs(2)
    del pairs[1]["image_embeds"]
    with pytest.raises(ValueError, match="example 1 of 2 has none"):
        VLKDDistillationCollator(processor)(pairs)


def test_an_example_without_a_caption_is_refused(processor):
    with pytest.raises(ValueError, match="'caption' or 'input_ids'"):
        VLKDDistillationCollator(processor)([{"image_embeds": torch.ones(1, DIM), "text": "a red box"}])


def test_questions_become_prompts_and_answers_become_labels(processor):
    questions = [("what color is the shape?", "red"), ("is there a circle?", "yes")]
    examples = [{"question": q, "answer": a, "image_embeds": np.ones((1, DIM))} for q, a in questions]
    batch = VLKDDataCollator(processor)(examples)
    assert decode(processor, batch["input_ids"])[0] == "<s>what color is the shape? Answer:<mask>.</s>"
    assert decode(processor, batch["labels"])[1] == "<s>is there a circle? Answer: yes.</s>"
    padding = batch["labels"] == -100
    assert padding.any()
    assert not (batch["labels"] == processor.tokenizer.pad_token_id).any()


def test_text_and_target_are_taken_as_they_are_and_the_decoder_input_is_the_labels_shifted(processor):
    model = tiny_model(processor)
    batch = VLKDDataCollator(processor, model)([{"text": "a red<mask>.", "target": "a red box."}])
    start = model.config.text_config.decoder_start_token_id
    assert batch["decoder_input_ids"].tolist() == [[start, *batch["labels"][0, :-1].tolist()]]
    assert "pixel_values" not in batch
    assert "image_embeds" not in batch


def test_examples_without_a_target_are_refused(processor):
    with pytest.raises(ValueError, match="'text' and 'target'"):
        VLKDDataCollator(processor)([{"text": "a red box"}])


@pytest.mark.parametrize("collator", [VLKDDistillationCollator, VLKDDataCollator])
def test_the_examples_in_docstrings_are_true(collator, processor):
    names = {
        "processor": processor,
        "rows": torch.ones(1, DIM),
        "teacher": torch.ones(DIM),
        collator.__name__: collator,
    }
    [example] = doctest.DocTestFinder(recurse=False).find(collator, collator.__name__, globs=names)
    assert example.examples
    assert not doctest.DocTestRunner().run(example).failed
