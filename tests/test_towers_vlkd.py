"""Towers: loading from a larger checkpoint, and mBART-50 in the place of BART, whose texts begin with a language."""

from pathlib import Path

import numpy as np
import pytest
import torch
from random_weights import randomize
from tiny_training import CAPTIONS, tiny_pairs
from tokenizers import SentencePieceUnigramTokenizer
from torch.testing import assert_close
from transformers import (
    CLIPVisionModelWithProjection,
    MBart50Tokenizer,
    MBartConfig,
    MBartForConditionalGeneration,
)
from transformers.utils import logging

from modeling_vlkd import VLKDForConditionalGeneration, VLKDProcessor
from modeling_vlkd.conversion.assembling import convert
from modeling_vlkd.evaluation.text_infilling import TextInfilling
from modeling_vlkd.generation_vlkd import generate_answers, generate_captions
from modeling_vlkd.towers_vlkd import load_whole
from modeling_vlkd.trainers import VLKDDistillationCollator


def test_tensors_of_the_other_tower_are_ignored_without_a_warning(clip_folder, caplog):
    caplog.set_level(logging.WARNING, logger="transformers")  # a command in an earlier test may have silenced it
    CLIPVisionModelWithProjection.from_pretrained(clip_folder)
    assert "UNEXPECTED" in caplog.text  # otherwise there would be nothing to silence
    caplog.clear()
    load_whole(CLIPVisionModelWithProjection, clip_folder)
    assert caplog.text == ""
    assert logging.get_verbosity() == logging.WARNING


@pytest.fixture(scope="module")
def mbart_folder(tmp_path_factory) -> Path:
    trained = SentencePieceUnigramTokenizer()
    specials = ["<unk>", "<s>", "</s>"]
    texts = [*CAPTIONS, "what color is the shape? Answer: red."] * 4
    trained.train_from_iterator(texts, vocab_size=80, special_tokens=specials, unk_token="<unk>", show_progress=False)
    vocab = [(trained.id_to_token(number), -1.0 - number) for number in range(trained.get_vocab_size())]
    tokenizer = MBart50Tokenizer(vocab=vocab, src_lang="en_XX", tgt_lang="en_XX", model_max_length=64)
    config = MBartConfig(
        **{"vocab_size": len(tokenizer), "d_model": 16, "max_position_embeddings": 64, "decoder_start_token_id": 2},
        **{"encoder_layers": 2, "encoder_attention_heads": 2, "encoder_ffn_dim": 24, "scale_embedding": True},
        **{"decoder_layers": 2, "decoder_attention_heads": 2, "decoder_ffn_dim": 24, "dropout": 0.0},
    )
    folder = tmp_path_factory.mktemp("mbart")
    randomize(MBartForConditionalGeneration(config)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@torch.no_grad()
def test_without_the_bridge_text_goes_through_mbart(clip_folder, mbart_folder):
    model = VLKDForConditionalGeneration.from_vision_text_pretrained(clip_folder, mbart_folder, bridge_text_only=False)
    processor = VLKDProcessor.from_vision_text_pretrained(clip_folder, mbart_folder)
    mbart = MBartForConditionalGeneration.from_pretrained(mbart_folder).eval()
    inputs = processor(text=CAPTIONS[:3], return_tensors="pt")
    labels = inputs["input_ids"].masked_fill(inputs["attention_mask"] == 0, -100)
    # mBART's own labels: the decoder starts at the end token and then reads the language
    assert_close(model(**inputs, labels=labels).logits, mbart(**inputs, labels=labels).logits)
    settings = {"max_new_tokens": 12, "num_beams": 3, "forced_eos_token_id": None}  # mBART forces it by default
    assert torch.equal(model.generate(**inputs, **settings), mbart.generate(**inputs, **settings))


def test_conversion_is_proven_and_survives_saving(clip_folder, mbart_folder, tmp_path):
    report = convert(str(clip_folder), str(mbart_folder), tmp_path / "vlkd")
    assert [part.origin for part in report.parts if part.name == "language model"] == [
        f"{mbart_folder} (transformers mbart)"
    ]
    assert all(check.passed for check in report.checks)
    assert (tmp_path / "vlkd" / "towers_vlkd.py").is_file()  # the Hub needs the code
    model = VLKDForConditionalGeneration.from_pretrained(tmp_path / "vlkd")
    assert type(model.model.language_model).__name__ == "MBartModel"
    assert model.lm_head.weight is model.model.language_model.shared.weight


def test_captions_and_answers_are_learned(clip_folder, mbart_folder, pixel_values):
    """Train on two pictures, each with a caption and an answer, until greedy decoding writes them."""
    torch.manual_seed(0)
    model = VLKDForConditionalGeneration.from_vision_text_pretrained(clip_folder, mbart_folder)
    processor = VLKDProcessor.from_vision_text_pretrained(clip_folder, mbart_folder, num_caption_masks=2)
    rows = model.get_image_rows(pixel_values[:2]).detach()
    question = "what color is the shape?"
    prompts = [*processor.caption_prompts(2), *processor.question_prompts([question] * 2)]
    texts = ["A picture of a red circle.", "A picture of a blue box."]
    texts += [f"{question} Answer: red.", f"{question} Answer: blue."]
    inputs = processor(text=prompts, return_tensors="pt")
    targets = processor(text=texts, return_tensors="pt")
    labels = targets["input_ids"].masked_fill(targets["attention_mask"] == 0, -100)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(300):
        loss = model(**inputs, image_embeds=torch.cat([rows, rows]), labels=labels).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if loss.item() < 0.01:
            break
    model.eval()
    captions = [found[0]["caption"] for found in generate_captions(model, processor, rows, num_beams=1)]
    assert captions == ["a red circle", "a blue box"]
    answers = generate_answers(model, processor, [question] * 2, rows, [0, 1], num_beams=1)
    assert [found[0]["answer"] for found in answers] == ["red", "blue"]


def test_infilling_keeps_the_language_and_masks_whole_words(mbart_folder):
    tokenizer = MBart50Tokenizer.from_pretrained(mbart_folder)
    ids = np.array(tokenizer(["a red circle on grass"] * 200)["input_ids"])
    corrupted = TextInfilling(tokenizer, mask_ratio=0.5)(ids, np.arange(200))
    assert (corrupted[:, 0] == tokenizer.convert_tokens_to_ids("en_XX")).all()
    left = {word for row in corrupted for word in tokenizer.decode(row, skip_special_tokens=True).split()}
    assert left == {"a", "red", "circle", "on", "grass"}
    assert (corrupted == tokenizer.mask_token_id).any(axis=1).mean() > 0.9


def test_distillation_reads_and_writes_the_language(clip_folder, mbart_folder):
    processor = VLKDProcessor.from_vision_text_pretrained(clip_folder, mbart_folder)
    batch = VLKDDistillationCollator(processor)(tiny_pairs(3))
    language = processor.tokenizer.convert_tokens_to_ids("en_XX")
    for name in ("input_ids", "clean_input_ids", "labels"):
        assert batch[name][:, 0].tolist() == [language] * 3
