"""Measure whether texts without a picture should cross CLIP's space on their way to the decoder.

    python benchmarks/bridge_text_only.py --seeds 3 --json docs/bridge.json

With `config.bridge_text_only`, the decoder attends to `W'_e W_e E` also where there is no picture; without it, to
BART's own encoder states E. The miniature's CLIP is as wide as its BART, so that the bridge could pass everything on.
In the paper CLIP has half or three quarters of BART's width, and so here its space is first reduced to its 48 main
directions, half of BART's 96.

The miniature is distilled with the paper's losses alone, and with replayed texts, of which a fifth has no picture and
crosses the bridge. Then each model reads both ways: it answers questions about passages (`score_reading`), and it is
finetuned with LAMB on two tasks made of the miniature's texts. In the one it tells whether a question about a passage
is to be answered by yes, which takes two texts; in the other whether the words of a sentence are in order, which takes
one. Each seed is a process of its own.
"""

import argparse
import json
import platform
import random
import shlex
import sys
from concurrent.futures import ProcessPoolExecutor
from copy import deepcopy
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
import transformers
from rich.console import Console
from rich.table import Table
from torch.nn.functional import normalize
from transformers import CLIPModel, TrainingArguments

from modeling_vlkd import __version__
from modeling_vlkd.evaluation.glue_files import GlueExample
from modeling_vlkd.evaluation.glue_tasks import GlueTask
from modeling_vlkd.miniature.clip_teacher import CLASSES, embed_images, embed_texts, save_clip
from modeling_vlkd.miniature.corpus import KIND_WEIGHTS, draw_asked
from modeling_vlkd.miniature.distilling import STEPS, WEIGHTS, Teachers, assemble, distill
from modeling_vlkd.miniature.scoring import score_reading
from modeling_vlkd.miniature.world import load_train_and_validation
from modeling_vlkd.trainers.text_classification import (
    ClassificationTrainer,
    classification_examples,
    new_classifier,
)


YES_NO = tuple(kind for kind in KIND_WEIGHTS if "_" in kind)
READING = GlueTask("reading", "reading", ("passage", "question"), ("yes", "no"), ("accuracy",), "", "")
ORDER = GlueTask("order", "order", ("sentence",), ("wrong", "right"), ("matthews_correlation",), "", "")
TRAINED, ASKED, EPOCHS, BATCH_SIZE, LEARNING_RATE = 1000, 1000, 5, 32, 1e-3
WAYS = {"bridged": True, "straight": False}


def narrow_clip(teachers: Teachers, images: np.ndarray, dim: int, folder: Path) -> Teachers:
    """Reduce CLIP's space to the main directions of what it makes of pictures and captions."""
    texts = [text for scene in CLASSES for text in scene.captions()]
    embeds = torch.cat(
        [
            normalize(embed_images(teachers.clip, teachers.clip_processor, images), dim=-1),
            normalize(embed_texts(teachers.clip, teachers.clip_processor.tokenizer, texts), dim=-1),
        ]
    )
    directions = torch.linalg.svd(embeds, full_matrices=False).Vh[:dim]  # (dim, 96)
    config = deepcopy(teachers.clip.config)
    config.projection_dim = config.vision_config.projection_dim = config.text_config.projection_dim = dim
    clip, weights = CLIPModel(config), teachers.clip.state_dict()
    for name in ("visual_projection.weight", "text_projection.weight"):
        weights[name] = directions @ weights[name]
    clip.load_state_dict(weights)
    save_clip(clip.eval(), teachers.clip_processor, folder)
    return Teachers(folder, teachers.bart_folder, clip, teachers.clip_processor)


def draw_reading(rng: random.Random, count: int) -> list[GlueExample]:
    """Draw passages with yes/no questions; yes and no are equally frequent."""
    asked = [draw_asked(rng, YES_NO) for _ in range(count)]
    return [
        GlueExample(number, (each.passage, each.question), READING.labels.index(each.answer))
        for number, each in enumerate(asked)
    ]


def draw_order(rng: random.Random, count: int) -> list[GlueExample]:
    """Draw passages, in half of which two words next to each other are exchanged."""
    examples = []
    for number in range(count):
        words, right = draw_asked(rng).passage.split(), rng.random() < 0.5
        if not right:
            place = rng.randrange(len(words) - 1)
            words[place : place + 2] = words[place + 1], words[place]
        examples.append(GlueExample(number, (" ".join(words),), int(right)))
    return examples


def finetune(checkpoint: str, tokenizer, task: GlueTask, bridge: bool, seed: int) -> float:
    """Finetune a classifier, and return the metric of the task on new examples."""
    draw = draw_reading if task is READING else draw_order
    rng = random.Random(seed)
    train, test = (classification_examples(draw(rng, count), tokenizer, 64) for count in (TRAINED, ASKED))
    torch.manual_seed(seed)
    model = new_classifier(checkpoint, task, bridge)
    with TemporaryDirectory() as folder:
        args = TrainingArguments(
            folder,
            num_train_epochs=EPOCHS,
            per_device_train_batch_size=BATCH_SIZE,
            per_device_eval_batch_size=250,
            learning_rate=LEARNING_RATE,
            weight_decay=1e-4,
            warmup_steps=1 / EPOCHS,
            seed=seed,
            use_cpu=True,
            save_strategy="no",
            logging_strategy="no",
            report_to="none",
            disable_tqdm=True,
        )
        trainer = ClassificationTrainer(
            model, args, task=task, train_dataset=train, eval_dataset=test, processing_class=tokenizer
        )
        trainer.train()
        return trainer.evaluate()[f"eval_{task.metric}"]


def answer_both_ways(model, processor) -> dict[str, float]:
    found = {}
    for name, bridge in WAYS.items():
        model.config.bridge_text_only = bridge
        found[f"answers, {name}"] = score_reading(model, processor)
    return found


def classify_both_ways(checkpoint: str, processor, seed: int) -> dict[str, float]:
    return {
        f"{task.name}, {name}": finetune(checkpoint, processor.tokenizer, task, bridge, seed)
        for task in (READING, ORDER)
        for name, bridge in WAYS.items()
    }


def measure_seed(seed: int, steps: int, dim: int) -> dict[str, dict[str, float]]:
    """Distill each kind of model once, and measure it; what was assembled and not trained only answers."""
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    train, _ = load_train_and_validation()
    with TemporaryDirectory() as folder:
        teachers = narrow_clip(Teachers.load(WEIGHTS), train.images[:1000], dim, Path(folder, "clip"))
        torch.manual_seed(seed)
        found = {"not distilled": answer_both_ways(*assemble(teachers))}
        for name, replay in (("distilled", False), ("distilled with replay", True)):
            place = Path(folder, name)
            model, processor = distill(teachers, train, place, replay, seed, steps=steps)
            found[name] = answer_both_ways(model, processor) | classify_both_ways(str(place), processor, seed)
            print(f"seed {seed}, {name}: {found[name]}", flush=True)
    return found


def show(results: dict[str, list[dict[str, float]]]) -> Table:
    names = list(next(reversed(results.values()))[0])
    table = Table("model")
    for name in names:
        table.add_column(name, justify="right")
    for model, runs in results.items():
        values = [[run[name] for run in runs] if name in runs[0] else [] for name in names]
        shown = (f"{np.mean(each):.3f} ± {np.std(each, ddof=len(each) > 1):.3f}" if each else "" for each in values)
        table.add_row(model, *shown)
    return table


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=STEPS, help="of each distillation")
    parser.add_argument("--dim", type=int, default=48, help="directions of CLIP's space that are kept")
    parser.add_argument("--json", type=Path, metavar="FILE")
    args = parser.parse_args()
    with ProcessPoolExecutor(args.seeds, mp_context=get_context("spawn")) as pool:
        each_seed = list(pool.map(measure_seed, range(args.seeds), [args.steps] * args.seeds, [args.dim] * args.seeds))
    results = {name: [found[name] for found in each_seed] for name in each_seed[0]}
    Console(width=160).print(show(results))
    if args.json is not None:
        versions = {"modeling_vlkd": __version__, "torch": torch.__version__, "transformers": transformers.__version__}
        record = {
            "command": shlex.join(["python", "benchmarks/bridge_text_only.py", *sys.argv[1:]]),
            "results": results,
            "versions": {"python": platform.python_version(), **versions},
        }
        args.json.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
