"""The demo: distill the miniature twice, measure it on the official test split, and show the results."""

import json
import platform
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import transformers
from PIL import Image
from rich.console import Console

from modeling_vlkd import __version__
from modeling_vlkd.publishing.cards import count_parameters, write_card

from .card import demo_card
from .clip_teacher import embed_images
from .distilling import WEIGHTS, Teachers, assemble, distill, recorded_recipe
from .from_scratch import make_teachers
from .report import RUNS, score_table, write_page, write_picture
from .scoring import Predictions, score_baselines, score_model, score_reading
from .world import load_split, load_train_and_validation


EXAMPLES = 8  # test pictures that are left beside the checkpoint
Scores = dict[str, float]


@dataclass
class DemoResult:
    """The results that `--json` writes."""

    runs: dict[str, Scores]
    each_seed: dict[str, list[Scores]]
    baselines: Scores
    recipe: dict[str, float]
    parameters: dict[str, int]
    checkpoint: Path
    seeds: list[int]
    seconds: float

    def as_dict(self) -> dict:
        versions = {"modeling_vlkd": __version__, "torch": torch.__version__, "transformers": transformers.__version__}
        return {
            "runs": self.runs,
            "each_seed": self.each_seed,
            "baselines": self.baselines,
            "recipe": self.recipe,
            "parameters": self.parameters,
            "checkpoint": str(self.checkpoint),
            "seeds": self.seeds,
            "versions": {"python": platform.python_version(), **versions},
            "seconds": self.seconds,
        }


def run_demo(
    output: Path = Path("vlkd-demo"),
    seeds: int = 1,
    seed: int = 0,
    from_scratch: bool = False,
    json_file: Path | None = None,
    report: Path | None = None,
) -> DemoResult:
    """Distill with the paper's losses alone and with text replay, for each seed; score, print, and write the report.

    Args:
        output: the folder of the checkpoint with replay and the first seed. The other runs go into subfolders.
        seeds: the number of seeds.
        seed: the first seed.
        from_scratch: also train CLIP and BART, instead of using those that come with the package.
        json_file: a file for the scores, or None.
        report: the page to write; `report.html` in `output` by default.
    """
    started, console = time.perf_counter(), Console()
    transformers.logging.disable_progress_bar()
    folder = WEIGHTS
    if from_scratch:
        folder = output / "teachers"
        make_teachers(folder, seed)
    teachers = Teachers.load(folder)
    train, _ = load_train_and_validation()
    test = load_split("test")
    rows = embed_images(teachers.clip, teachers.clip_processor, test.images)[:, None]  # (pictures, 1, dim)
    baselines = score_baselines(train, test, teachers.clip, teachers.clip_processor)
    text_before = score_reading(*assemble(teachers))

    each_seed: dict[str, list[Scores]] = {"paper": [], "replay": []}
    shown: list[Predictions] = []  # of the one checkpoint in `output`
    all_seeds = list(range(seed, seed + seeds))
    for number in all_seeds:
        for name, scores in each_seed.items():
            first = name == "replay" and number == seed
            place = output if first else output / f"{name}-{number}"
            begun = time.perf_counter()
            console.print(f"Distilling, {RUNS[name]}, seed {number}")
            model, processor = distill(teachers, train, place, replay=name == "replay", seed=number)
            measured, predictions = score_model(model, processor, test, rows)
            scores.append({**measured, "text_before": text_before, "seconds": time.perf_counter() - begun})
            if first:
                shown.append(predictions)

    runs = {name: mean_and_spread(scores) for name, scores in each_seed.items()}
    seconds = time.perf_counter() - started
    recipe = recorded_recipe()
    if from_scratch:
        recipe["from_scratch"] = True
    result = DemoResult(runs, each_seed, baselines, recipe, count_parameters(model), output, all_seeds, seconds)
    console.print(score_table(runs, baselines))
    if json_file is not None:
        json_file.write_text(json.dumps(result.as_dict(), indent=2) + "\n", encoding="utf-8")
    page = report or output / "report.html"
    write_page(page, test, shown[0], runs, baselines)
    write_picture(output / "demo.png", test, shown[0])
    save_pictures(output / "pictures", test.images[:EXAMPLES])
    write_card(demo_card(result.as_dict()), output)
    console.print(f"Checkpoint: {output.resolve()}\nReport:     {page.resolve()}", soft_wrap=True)
    return result


def save_pictures(folder: Path, images: np.ndarray):
    """Save some test pictures as files, for trying the checkpoint."""
    folder.mkdir(exist_ok=True)
    for number, image in enumerate(images):
        Image.fromarray(image).save(folder / f"{number}.png")


def mean_and_spread(scores: list[Scores]) -> Scores:
    """Return the scores of one seed, or for several the mean of each score and its standard deviation as `..._std`."""
    names = list(scores[0])
    values = {name: [each[name] for each in scores] for name in names}
    mean = {name: float(np.mean(values[name])) for name in names}
    if len(scores) == 1:
        return mean
    return mean | {f"{name}_std": float(np.std(values[name], ddof=1)) for name in names}
