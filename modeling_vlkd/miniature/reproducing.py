"""Run the rows of a table of the paper in miniature, for several seeds, so that a kill loses one run at most.

Each training leaves a checkpoint in a folder of its own, and each row a file with its scores there. What is there
already and was made with the same settings is not made again, for whichever table it was made.
"""

import json
import platform
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
import transformers
from rich.console import Console
from torch import Tensor

from modeling_vlkd import VLKDForConditionalGeneration, VLKDProcessor, __version__
from modeling_vlkd.evaluation.json_files import write_json_file
from modeling_vlkd.evaluation.vlkd_model import VLKDAdapter

from .clip_teacher import embed_images
from .distilling import STEPS, WEIGHTS, Teachers, assemble, distill, embed_views, recorded_recipe
from .frozen_prefix import PREFIX_RECIPE, train_frozen_prefix
from .reproduction_page import draw, markdown, terminal_table, verdict_lines
from .scoring import Predictions, score_baselines, score_cider, score_model, score_probe, score_reading, score_writing
from .tables import FULL, TABLES, VARIANTS, PaperTable, Row
from .world import load_split, load_train_and_validation


Scores = dict[str, float]
SETTINGS_FILE = "settings.json"  # beside a checkpoint, written when the training is done


@dataclass(frozen=True)
class Run:
    """A row of a table, trained in one way with one seed.

    Args:
        variant: one of `VARIANTS`.
        whole_steps: the steps of a whole run.
    """

    row: Row
    variant: str
    seed: int
    whole_steps: int

    @property
    def steps(self) -> int:
        return max(1, round(self.whole_steps * self.row.step_share))

    @property
    def is_prefix(self) -> bool:
        return self.row.system == "frozen prefix"

    @property
    def arguments(self) -> dict[str, Any]:
        """Give the arguments of `distill` that differ from its defaults."""
        return {**VARIANTS[self.variant][1], **self.row.changes, "steps": self.steps}

    @property
    def settings(self) -> dict[str, Any]:
        """Give all that the training depends on."""
        if self.is_prefix:
            return {"system": self.row.system, "seed": self.seed, "steps": self.steps, "recipe": PREFIX_RECIPE}
        recipe = {**recorded_recipe(), "max_steps": self.steps}
        return {"system": self.row.system, "seed": self.seed, "recipe": recipe, "arguments": self.arguments}

    @property
    def folder_name(self) -> str:
        """Name the training; rows that differ only in their prompts share one."""
        is_full = not self.row.changes and self.row.step_share == 1 and not self.is_prefix
        name = FULL if is_full else self.row.name
        variant = "" if self.is_prefix else f"{self.variant}_"
        return f"{variant}{name}_{self.whole_steps}-steps_seed-{self.seed}"


class Laboratory:
    """Teachers, pictures and their features, each made when it is first needed and then kept for all runs."""

    def __init__(self):
        self.teachers = Teachers.load(WEIGHTS)
        self.train, _ = load_train_and_validation()
        self.test = load_split("test")

    @cached_property
    def train_rows(self) -> Tensor:
        return embed_views(self.teachers, self.train)

    @cached_property
    def test_rows(self) -> Tensor:
        return embed_images(self.teachers.clip, self.teachers.clip_processor, self.test.images)[:, None]

    @cached_property
    def baselines(self) -> Scores:
        """Score what needs no training, and BART's reading before any."""
        scores = score_baselines(self.train, self.test, self.teachers.clip, self.teachers.clip_processor)
        return scores | {"text_before": score_reading(*assemble(self.teachers))}

    def trained(self, run: Run, folder: Path) -> tuple[VLKDForConditionalGeneration, VLKDProcessor]:
        """Train and leave a checkpoint in `folder`, or load the one that an equal training left there."""
        marker = folder / SETTINGS_FILE
        if read_if_equal(marker, run.settings) is None:
            marker.unlink(missing_ok=True)  # the checkpoint will be another one
            rows = self.train_rows if run.row.changes.get("freeze_vision_tower", True) else None
            distill(self.teachers, self.train, folder, seed=run.seed, rows=rows, **run.arguments)
            write_json_file(marker, {"settings": run.settings}, indent=2)
        model = VLKDForConditionalGeneration.from_pretrained(folder)
        return model, VLKDProcessor.from_pretrained(folder)

    def measure(self, run: Run, folder: Path) -> Scores:
        """Train if need be, and score on the official test questions and pictures."""
        started = time.perf_counter()
        if run.is_prefix:
            prefix_model = train_frozen_prefix(self.teachers, self.train, run.steps, run.seed)
            scores, found = score_writing(prefix_model, self.test, prefix_model.look(self.test.images))
            scores["text_after"] = score_probe(prefix_model)
        else:
            model, processor = self.trained(run, folder)
            processor.num_caption_masks, processor.num_question_masks = run.row.caption_masks, run.row.question_masks
            rows = self.test_rows
            if not model.config.freeze_vision_tower:
                rows = VLKDAdapter(model, processor).look(self.test.images)
            scores, found = score_model(model, processor, self.test, rows)
        return self.completed(scores, found) | {"seconds": time.perf_counter() - started}

    def completed(self, scores: Scores, found: Predictions) -> Scores:
        """Add the mean of both kinds of yes/no questions, and CIDEr."""
        scores["yes_no"] = (scores["yes_no_colour"] + scores["yes_no_shape"]) / 2
        scores["cider"] = score_cider(self.test.scenes, [caption.text for caption in found.captions])
        return scores


def read_if_equal(path: Path, settings: dict[str, Any]) -> dict[str, Any] | None:
    """Read a file of results; None if there is none, or if it was made with other settings."""
    if not path.is_file():
        return None
    found = json.loads(path.read_text(encoding="utf-8"))
    return found if found["settings"] == settings else None


def plan_runs(table: PaperTable, variants: Sequence[str], seeds: Sequence[int], steps: int) -> list[Run]:
    """List all runs, seed by seed, so that whole tables of few seeds come first."""
    runs = [Run(row, variant, seed, steps) for seed in seeds for variant in variants for row in table.rows]
    first = variants[0]  # what has no variants is run once
    return [run for run in runs if not run.is_prefix or run.variant == first]


def measure_all(laboratory: Laboratory, runs: Sequence[Run], output: Path, console: Console) -> list[Scores]:
    """Measure runs, or read the scores of those that were measured before."""
    scores: list[Scores] = []
    spent: list[float] = []
    for number, run in enumerate(runs, start=1):
        folder = output / "runs" / run.folder_name
        folder.mkdir(parents=True, exist_ok=True)
        file, settings = folder / f"{run.row.name}.scores.json", {**run.settings, **prompts_of(run.row)}
        found, began = read_if_equal(file, settings), time.perf_counter()
        label = f"Run {number} of {len(runs)}: {run.row.label}, {VARIANTS[run.variant][0]}, seed {run.seed}"
        console.print(label if found is None else f"{label}: measured before", highlight=False, soft_wrap=True)
        if found is None:
            found = {"settings": settings, "scores": laboratory.measure(run, folder)}
            write_json_file(file, found, indent=2)
            spent.append(time.perf_counter() - began)
            console.print(remaining_time(spent, len(runs) - number), highlight=False)
        scores.append(found["scores"])
    return scores


def prompts_of(row: Row) -> dict[str, int]:
    return {"caption_masks": row.caption_masks, "question_masks": row.question_masks}


def remaining_time(spent: Sequence[float], runs: int) -> str:
    """Estimate, from the seconds of the runs so far, how long the others take."""
    return f"{spent[-1]:.0f} s; about {runs * sum(spent) / len(spent) / 60:.0f} minutes for the other {runs} runs"


def reproduce(
    table: PaperTable, variants: Sequence[str], seeds: Sequence[int], steps: int, output: Path, console: Console
) -> dict[str, Any]:
    """Measure a table, and return what `--json` writes.

    Args:
        variants: of `table.variants`.
        output: the folder of all trainings, of this and other tables.
    """
    transformers.logging.disable_progress_bar()
    runs = plan_runs(table, variants, seeds, steps)
    trainings = len({run.folder_name for run in runs})
    console.print(f"{table.title}: {len(runs)} runs of {trainings} trainings, in {output.resolve()}", soft_wrap=True)
    laboratory = Laboratory()
    measured = measure_all(laboratory, runs, output, console)
    rows: dict[str, dict[str, list[Scores]]] = {variant: {} for variant in variants}
    for run, scores in zip(runs, measured):
        rows[run.variant].setdefault(run.row.name, []).append(scores)
    versions = {"modeling_vlkd": __version__, "torch": torch.__version__, "transformers": transformers.__version__}
    return {
        "table": table.name,
        "world": "miniature",
        "seeds": list(seeds),
        "steps": steps,
        "command": command_line(table.name, variants, seeds, steps),
        "recipe": {**recorded_recipe(), "max_steps": steps},
        "prefix_recipe": PREFIX_RECIPE,
        "each_seed": rows,  # by variant and row
        "baselines": laboratory.baselines,
        "versions": {"python": platform.python_version(), **versions},
    }


def command_line(name: str, variants: Sequence[str], seeds: Sequence[int], steps: int) -> str:
    """Write the command that measures a table in this way."""
    words = [f"vlkd reproduce {name} --seeds {len(seeds)}"]
    if seeds[0] != 0:
        words.append(f"--seed {seeds[0]}")
    if list(variants) != ["paper"]:
        words.append(f"--variants {' '.join(variants)}")
    if steps != STEPS:
        words.append(f"--steps {steps}")
    return " ".join(words)


def run_table(
    name: str, variants: Sequence[str], seeds: Sequence[int], steps: int | None, output: Path, json_file: Path | None
):
    """Measure a table, print it, and leave its figures, its page and its plot in `output`.

    Args:
        steps: of a whole training; `STEPS` by default.
        json_file: a second place for the figures.
    """
    console = Console()
    result = reproduce(TABLES[name], variants, seeds, steps or STEPS, output, console)
    console.print(terminal_table(result))
    for variant in variants:
        lines = [f"Claims of the paper ({VARIANTS[variant][0]}):", *verdict_lines(result, variant)]
        console.print(*lines, sep="\n", highlight=False, soft_wrap=True)
    draw(result, output / f"{name}.png")
    (output / f"{name}.md").write_text(markdown(result, f"{name}.png"), encoding="utf-8")
    for file in filter(None, (output / f"{name}.json", json_file)):
        write_json_file(file, result, indent=2)
    console.print(f"Figures, page and plot: {output.resolve() / name}.json, .md, .png", soft_wrap=True)
