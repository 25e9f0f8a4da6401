"""Measure how well a model continues after the known beginning of its prompt, and whether to force that beginning.

    python benchmarks/decoding.py --seeds 3

The captions of a user's own pictures do not begin with `A picture of`, as the caption prompt does. So the miniature is
trained on 250 training pictures of easy-VQA whose captions are written in six other ways. Then it is asked about 300
pictures that it has not seen, once with the known beginning forced and once without. This is repeated for several
values of `--whole_text_share`, the share of captions that training writes as filled prompts. Three seeds take half an
hour on two cores.
"""

import argparse
import json
import random
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
import transformers
from rich.console import Console
from rich.table import Table

from modeling_vlkd.generation_vlkd import generate_answers, generate_captions
from modeling_vlkd.miniature.clip_teacher import embed_images, embed_texts
from modeling_vlkd.miniature.distilling import WEIGHTS, Teachers, assemble
from modeling_vlkd.miniature.world import Scene, Split, load_train_and_validation
from modeling_vlkd.trainers import VLKDDistillationConfig, VLKDDistillationTrainer, align_text_projection


TEMPLATES = (
    "{color} {shape}",
    "some {shape} in {color}",
    "a {shape}, {color}",
    "we see one {color} {shape} on a wall",
    "{color} is the {shape} in this one",
    "the {shape} here is {color}",
)
TRAINED, ASKED, EPOCHS, BATCH_SIZE = 250, 300, 30, 32


def caption_of(scene: Scene, rng: random.Random) -> str:
    """Write a caption of a scene in one of the six ways."""
    return rng.choice(TEMPLATES).format(color=scene.color, shape=scene.shape)


def measure(teachers: Teachers, train: Split, test: Split, share: float, seed: int, align: bool) -> dict[str, float]:
    """Distill once, ask both ways, and return the share of right answers and that of captions which name the scene."""
    torch.manual_seed(seed)
    rng = random.Random(seed)
    rows = embed_images(teachers.clip, teachers.clip_processor, train.images[:TRAINED])[:, None]  # (pictures, 1, dim)
    captions = [caption_of(scene, rng) for scene in train.scenes[:TRAINED]]
    embeds = embed_texts(teachers.clip, teachers.clip_processor.tokenizer, captions)
    model, processor = assemble(teachers)
    if align:
        align_text_projection(model, processor, captions, embeds)
    pairs = [
        {"image_embeds": row, "caption": caption, "text_teacher_embeds": embed}
        for row, caption, embed in zip(rows, captions, embeds)
    ]
    with TemporaryDirectory() as folder:
        args = VLKDDistillationConfig(
            folder,
            num_train_epochs=EPOCHS,
            per_device_train_batch_size=BATCH_SIZE,
            learning_rate=5e-4,
            projection_learning_rate=2e-3,
            whole_text_share=share,
            seed=seed,
            use_cpu=True,
            save_strategy="no",
            logging_strategy="no",
            report_to="none",
            disable_tqdm=True,
        )
        VLKDDistillationTrainer(model, args, train_dataset=pairs, processing_class=processor).train()
    model.eval()
    seen = embed_images(teachers.clip, teachers.clip_processor, test.images[:ASKED])[:, None]
    asked = [place for place, picture in enumerate(test.image_index) if picture < ASKED]
    questions, index = [test.questions[place] for place in asked], [test.image_index[place] for place in asked]
    found = {}
    for name, force_prefix in (("forced", True), ("free", False)):
        settings = {"batch_size": 256, "force_prefix": force_prefix}
        captioned = [best["caption"] for [best] in generate_captions(model, processor, seen, **settings)]
        named = [scene.color in caption and scene.shape in caption for scene, caption in zip(test.scenes, captioned)]
        answered = [
            best["answer"] for [best] in generate_answers(model, processor, questions, seen, index, **settings)
        ]
        right = [answer == test.answers[place] for answer, place in zip(answered, asked)]
        found |= {f"captions {name}": float(np.mean(named)), f"questions {name}": float(np.mean(right))}
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--shares", type=float, nargs="+", default=[0.0, 0.1, 0.3])
    parser.add_argument(
        "--align", action="store_true", help="start W_e aligned, as `--align_text_projection true` does"
    )
    parser.add_argument("--json", type=Path, metavar="FILE")
    args = parser.parse_args()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    teachers, (train, test) = Teachers.load(WEIGHTS), load_train_and_validation()
    results: dict[str, list[dict[str, float]]] = {}
    for share in args.shares:
        results[str(share)] = [measure(teachers, train, test, share, seed, args.align) for seed in range(args.seeds)]
    table = Table("written as prompts")
    for name in next(iter(results.values()))[0]:
        table.add_column(name, justify="right")
    for share, runs in results.items():
        values = {name: [run[name] for run in runs] for name in runs[0]}
        table.add_row(
            share, *(f"{np.mean(each):.3f} ± {np.std(each, ddof=len(each) > 1):.3f}" for each in values.values())
        )
    Console().print(table)
    if args.json is not None:
        args.json.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
