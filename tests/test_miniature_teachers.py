"""Two steps of each teacher's training are reproducible, and transformers loads what is saved."""

import json
import random
import time

import pytest
import torch
from transformers import AutoTokenizer, BartForConditionalGeneration, CLIPModel, CLIPProcessor

from modeling_vlkd.miniature.bart_teacher import batch_loss, save_bart, score_bart, train_bart
from modeling_vlkd.miniature.clip_teacher import TEXT_LENGTH, clip_processor, embed_texts, save_clip, train_clip
from modeling_vlkd.miniature.corpus import KIND_WEIGHTS, tokenizer_texts
from modeling_vlkd.miniature.from_scratch import write_provenance
from modeling_vlkd.miniature.tokenizer import clip_tokenizer, train_tokenizer
from modeling_vlkd.miniature.world import load_train_and_validation
from modeling_vlkd.publishing.provenance import Source


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(tokenizer_texts())


def test_clip_trains_alike_from_a_seed_and_loads(tokenizer, tmp_path):
    tokenizer = clip_tokenizer(tokenizer, TEXT_LENGTH)
    train, _ = load_train_and_validation()
    train = train.part(list(range(130)))
    model, again, other = (train_clip(tokenizer, train, seed, steps=2) for seed in (0, 0, 1))
    torch.testing.assert_close(dict(model.named_parameters()), dict(again.named_parameters()))
    assert not torch.equal(model.text_projection.weight, other.text_projection.weight)
    save_clip(model, clip_processor(tokenizer), tmp_path)
    loaded, processor = CLIPModel.from_pretrained(tmp_path).eval(), CLIPProcessor.from_pretrained(tmp_path)
    texts = ["A red circle.", "There is a small teal triangle in the picture."]
    torch.testing.assert_close(embed_texts(loaded, processor.tokenizer, texts), embed_texts(model, tokenizer, texts))


def test_bart_trains_alike_from_a_seed_and_loads(tokenizer, tmp_path):
    model, again = (train_bart(tokenizer, seed=0, steps=2) for _ in range(2))
    torch.testing.assert_close(dict(model.named_parameters()), dict(again.named_parameters()))
    save_bart(model, tokenizer, tmp_path)
    loaded = BartForConditionalGeneration.from_pretrained(tmp_path).eval()
    losses = [
        batch_loss(each, AutoTokenizer.from_pretrained(tmp_path), random.Random(0), tuple(KIND_WEIGHTS))
        for each in (model, loaded)
    ]
    torch.testing.assert_close(*losses)


def test_an_untrained_bart_answers_nothing(tokenizer):
    scores = score_bart(train_bart(tokenizer, steps=2), tokenizer, count=40)
    assert set(scores) == {"passage_as_sentence", "passage_within_text"}
    assert all(score < 0.3 for score in scores.values())


def test_provenance_tells_what_made_the_weights(tmp_path):
    write_provenance(tmp_path, torch.nn.Linear(2, 3), 7, time.perf_counter(), {"accuracy": 0.98765}, "some data")
    record = json.loads((tmp_path / "provenance.json").read_text())
    assert (record["seed"], record["parameters"], record["validation"]) == (7, 9, {"accuracy": 0.9877})
    assert record["versions"]["torch"] == torch.__version__
    assert Source.find("vision tower", tmp_path).license == "apache-2.0"
    assert "`vlkd demo --from-scratch` on some data" in (tmp_path / "README.md").read_text()
