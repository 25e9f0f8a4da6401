import re

import pytest
import torch
from tiny_training import CAPTIONS, DIM, tiny_model, tiny_pairs, tiny_processor

from modeling_vlkd.trainers import ReplayCorpus, ReplayText, VLKDDistillationCollator, VLKDTask
from modeling_vlkd.trainers.replay_task import ReplayCollator, ReplayExamples, VLKDReplayTask, join_image_rows


@pytest.fixture(scope="module")
def processor():
    return tiny_processor()


@pytest.fixture(scope="module")
def texts(processor) -> list[ReplayText]:
    """A text with its source and a context, and one without either."""
    target = processor.tokenizer("what color is the shape? Answer: red.").input_ids
    source = processor.tokenizer("what color is the shape? Answer:<mask>.").input_ids
    return [ReplayText(target, source, torch.full((DIM,), 2.0)), ReplayText(target)]


def replaying(collate: VLKDDistillationCollator) -> ReplayCollator:
    return ReplayCollator(collate, collate.infill)


def decode(processor, ids):
    ids = ids.masked_fill(ids == -100, processor.tokenizer.pad_token_id)
    return [text.replace("<pad>", "") for text in processor.tokenizer.batch_decode(ids)]


def test_replayed_texts_follow_the_captions(processor, texts):
    pairs = [{**pair, "draw": draw, "replay": []} for draw, pair in enumerate(tiny_pairs(2))]
    pairs[0]["replay"] = texts[:1]
    pairs[1]["replay"] = [texts[1], texts[1]]
    batch = replaying(VLKDDistillationCollator(processor, whole_text_share=1.0))(pairs)

    written = decode(processor, batch["input_ids"])
    for text in written[:2]:  # captions are written as prompts, replayed texts never
        assert re.fullmatch(r"<s>A picture of(<mask>)+\.</s>", text)
    assert written[2] == processor.tokenizer.decode(texts[0].source)
    for text in written[3:]:
        assert "<mask>" in text
        assert not text.startswith("<s>A picture of<mask>")
    assert decode(processor, batch["labels"])[2:] == [processor.tokenizer.decode(texts[0].target)] * 3
    assert (batch["attention_mask"] == (batch["input_ids"] != processor.tokenizer.pad_token_id)).all()
    assert len(batch["clean_input_ids"]) == len(batch["image_embeds"]) == 2
    assert batch["replay_has_context"].tolist() == [True, False, False]
    assert batch["replay_embeds"][0].tolist() == texts[0].context_embeds.tolist()
    assert not batch["replay_embeds"][1:].any()


def test_captions_are_what_they_are_without_replay(processor, texts):
    """Also where nothing is replayed, and where replayed texts are longer or shorter than all captions."""
    collate = VLKDDistillationCollator(processor)
    pairs = [{**pair, "draw": draw} for draw, pair in enumerate(tiny_pairs(3))]
    plain = collate(pairs)
    short = ReplayText([0, 5, 2])
    for replayed in ([], [texts[1]], [short]):
        batch = replaying(collate)([{**pair, "replay": replayed} for pair in pairs])
        assert decode(processor, batch["input_ids"][:3]) == decode(processor, plain["input_ids"])
        assert decode(processor, batch["labels"][:3]) == decode(processor, plain["labels"])
        assert torch.equal(batch["clean_input_ids"], plain["clean_input_ids"])
        assert len(batch["labels"]) == 3 + 3 * len(replayed)
        assert "replay_embeds" not in batch


def test_a_context_is_one_image_row_and_the_others_are_masked():
    images = torch.ones(2, 3, DIM)
    contexts = torch.stack([torch.full((DIM,), 5.0), torch.zeros(DIM)])
    embeds, mask = join_image_rows(images, 2, contexts, torch.tensor([True, False]))
    assert mask.tolist() == [[1, 1, 1], [1, 1, 1], [1, 0, 0], [0, 0, 0]]
    assert embeds.shape == (4, 3, DIM)
    assert (embeds[2, 0] == 5).all()
    assert not embeds[2:, 1:].any()


def test_replayed_texts_do_not_see_the_pairs_images(processor, texts):
    examples = ReplayExamples(tiny_pairs(4), 0, ReplayCorpus(texts), 1.0)
    batch = replaying(VLKDDistillationCollator(processor))([examples[index] for index in range(4)])
    inputs = VLKDReplayTask(tiny_model(processor)).inputs_of(batch)
    assert inputs["image_embeds"].shape == (8, 1, DIM)
    assert inputs["attention_mask"].shape[1] == batch["input_ids"].shape[1] + 1
    has_context = batch["replay_has_context"].long().tolist()
    assert inputs["attention_mask"][:, 0].tolist() == [1] * 4 + has_context


def test_terms_are_those_of_the_pairs_alone_and_of_the_texts_alone(processor, texts):
    model, collate = tiny_model(processor), VLKDDistillationCollator(processor)
    pairs = [{**pair, "draw": draw} for draw, pair in enumerate(tiny_pairs(2))]
    with_replay = [{**pairs[0], "replay": texts}, {**pairs[1], "replay": texts[:1]}]
    batch = replaying(collate)(with_replay)
    task = VLKDReplayTask(model)
    terms, alone = task({}, **batch), VLKDTask(model)({}, **collate(pairs))
    for name in alone:
        torch.testing.assert_close(terms[name], alone[name])
    losses = []
    for row, text in enumerate([*texts, texts[0]], start=2):
        seen = {} if text.context_embeds is None else {"image_embeds": text.context_embeds[None, None]}
        fed = {name: batch[name][row : row + 1] for name in ("input_ids", "attention_mask", "labels")}
        if seen:
            losses.append(model(**fed, **seen).loss)
        else:  # no image, but through the bridge as beside one
            losses.append(model(**fed).loss)
    torch.testing.assert_close(terms["replay"], torch.stack(losses).mean())  # the targets are equally long
    counts = task.counts(batch)
    assert counts["icti"] + counts["replay"] == (batch["labels"] != -100).sum()
    assert counts["icti"] == VLKDTask(model).counts(collate(pairs))["icti"]


def test_a_trained_tower_and_replay_do_not_go_together(processor):
    model = tiny_model(processor)
    model.config.freeze_vision_tower = False
    with pytest.raises(ValueError, match="Replay needs a frozen vision tower"):
        VLKDReplayTask(model)


def test_examples_bring_so_many_texts_on_average_and_others_in_each_epoch(processor):
    corpus = ReplayCorpus([ReplayText([0, token, 2]) for token in range(5, 9)])
    pairs = [{"caption": CAPTIONS[0]}] * 400
    examples = ReplayExamples(pairs, 0, corpus, 0.4)
    first = [len(example["replay"]) for example in examples]
    assert set(first) == {0, 1}
    assert sum(first) / 400 == pytest.approx(0.4, abs=0.08)
    chosen = [example["replay"] for example in examples]
    assert [example["replay"] for example in ReplayExamples(pairs, 0, corpus, 0.4)] == chosen
    examples.set_epoch(1)
    assert [example["replay"] for example in examples] != chosen
    assert {text.target[1] for replayed in chosen for text in replayed} == {5, 6, 7, 8}
