"""Train the miniature's teachers again, from easy-VQA alone: tokenizer, CLIP and BART, with a record of the run."""

import json
import platform
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import torch
import transformers
from huggingface_hub import ModelCard, ModelCardData

from modeling_vlkd.publishing.provenance import CARD_NAME

from .bart_teacher import save_bart, score_bart, train_bart
from .card import OWN_LICENSE
from .clip_teacher import TEXT_LENGTH, clip_processor, save_clip, train_clip, zero_shot_accuracy
from .corpus import tokenizer_texts
from .tokenizer import clip_tokenizer, train_tokenizer
from .world import load_train_and_validation


COMMAND = "vlkd demo --from-scratch"


def make_teachers(folder: Path, seed: int = 0):
    """Train both teachers, each in its own process, and save them in `folder/clip` and `folder/bart`."""
    folder.mkdir(parents=True, exist_ok=True)
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        for each in [pool.submit(make_clip, folder / "clip", seed), pool.submit(make_bart, folder / "bart", seed)]:
            each.result()


def make_clip(folder: Path, seed: int):
    """Train and save the CLIP and its tokenizer."""
    torch.set_num_threads(1)
    started = time.perf_counter()
    train, validation = load_train_and_validation()
    tokenizer = clip_tokenizer(train_tokenizer(tokenizer_texts()), TEXT_LENGTH)
    model = train_clip(tokenizer, train, seed)
    processor = clip_processor(tokenizer)
    scores = {"zero_shot_24_classes": zero_shot_accuracy(model, processor, validation)}
    save_clip(model, processor, folder)
    write_provenance(folder, model, seed, started, scores, "3,600 training pictures of easy-VQA 1.0 (MIT)")


def make_bart(folder: Path, seed: int):
    """Train and save the BART and its tokenizer."""
    torch.set_num_threads(1)
    started = time.perf_counter()
    tokenizer = train_tokenizer(tokenizer_texts())
    model = train_bart(tokenizer, seed)
    scores = score_bart(model, tokenizer)
    save_bart(model, tokenizer, folder)
    write_provenance(folder, model, seed, started, scores, "text drawn by modeling_vlkd.miniature.corpus")


def write_provenance(
    folder: Path, model: torch.nn.Module, seed: int, started: float, scores: dict[str, float], data: str
):
    """Write a record of the run beside the weights, and a card with their license, from which other cards take it."""
    record = {
        "command": COMMAND,
        "data": data,
        "seed": seed,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "validation": {name: round(score, 4) for name, score in scores.items()},
        "seconds": round(time.perf_counter() - started),
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
        },
    }
    (folder / "provenance.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    metadata = ModelCardData(license=OWN_LICENSE, language="en", library_name="transformers")
    text = f"# Miniature {folder.name.upper()}\n\nTrained by `{COMMAND}` on {data}; see `provenance.json`."
    ModelCard(f"---\n{metadata.to_yaml()}\n---\n\n{text}\n").save(folder / CARD_NAME)
