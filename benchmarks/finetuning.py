"""Finetune the miniature on easy-VQA's training questions: from the distilled checkpoint, and from a random BART.

Both begin with the same frozen CLIP and make the same steps, by the same command; only what the distillation has
taught differs. All 9,673 official test questions are asked before the first step and after the last one, which no
earlier step could replace: nothing is chosen by the test questions.

    python benchmarks/finetuning.py --checkpoint vlkd-demo --json finetuning.json

The checkpoint is what `vlkd demo` leaves.
"""

import argparse
import csv
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import easy_vqa
import torch
from transformers import BartConfig, BartForConditionalGeneration, BartTokenizer

from modeling_vlkd.miniature.distilling import WEIGHTS, Teachers, assemble


STARTS = {"distilled": "the distilled checkpoint", "random": "a random BART beside the same CLIP"}
SETTINGS = ["--learning_rate", "1e-3", "--per_device_train_batch_size", "64", "--per_device_eval_batch_size", "512"]
SETTINGS += ["--report_to", "none", "--disable_tqdm", "true", "--use_cpu", "true", "--eval_strategy", "no"]
SETTINGS += ["--save_strategy", "no"]


def write_questions(folder: Path) -> dict[str, Path]:
    """Write easy-VQA's questions as tables that name its pictures where they are."""
    splits = {
        "train": (easy_vqa.get_train_questions(), easy_vqa.get_train_image_paths()),
        "test": (easy_vqa.get_test_questions(), easy_vqa.get_test_image_paths()),
    }
    paths = {}
    for split, ((questions, answers, images), pictures) in splits.items():
        paths[split] = folder / f"{split}.csv"
        with paths[split].open("w", newline="", encoding="utf-8") as file:
            table = csv.writer(file)
            table.writerow(["image", "question", "answer"])
            table.writerows(
                [pictures[image], question, answer] for question, answer, image in zip(questions, answers, images)
            )
    return paths


def save_random(folder: Path, seed: int):
    """Save the model that the distillation starts from, but with a BART that has never learned anything."""
    teachers = Teachers.load(WEIGHTS)
    torch.manual_seed(seed)
    random_bart = folder / "bart"
    BartForConditionalGeneration(BartConfig.from_pretrained(teachers.bart_folder)).save_pretrained(random_bart)
    BartTokenizer.from_pretrained(teachers.bart_folder).save_pretrained(random_bart)
    teachers.bart_folder = random_bart
    for part in assemble(teachers):
        part.save_pretrained(folder)


def finetune(checkpoint: Path, questions: dict[str, Path], folder: Path, seed: int, epochs: float) -> dict[str, Any]:
    """Run the command, and read what it measured."""
    command = [sys.executable, "-m", "modeling_vlkd.commands.main", "finetune", "--checkpoint", str(checkpoint)]
    command += ["--questions", str(questions["train"]), "--eval_questions", str(questions["test"]), *SETTINGS]
    command += ["--output_dir", str(folder), "--seed", str(seed), "--num_train_epochs", str(epochs)]
    started, used = time.perf_counter(), cpu_seconds()
    subprocess.run(command, check=True)
    state = json.loads((folder / "trainer_state.json").read_text())
    measured = [entry["eval_vqa_accuracy"] for entry in state["log_history"] if "eval_vqa_accuracy" in entry]
    return {
        **{"seed": seed, "before": measured[0], "after": measured[-1], "steps": state["global_step"]},
        **{"seconds": time.perf_counter() - started, "cpu_seconds": cpu_seconds() - used},
    }


def cpu_seconds() -> float:
    """Tell how long ended child processes have computed."""
    import resource

    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def summarize(runs: list[dict[str, Any]]) -> dict[str, float]:
    """Compute the mean and the spread over seeds."""
    after = [run["after"] for run in runs]
    spread = statistics.stdev(after) if len(after) > 1 else 0.0
    return {
        **{"before": statistics.mean(run["before"] for run in runs), "after": statistics.mean(after)},
        **{"after_std": spread, "cpu_seconds": statistics.mean(run["cpu_seconds"] for run in runs)},
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, default=Path("vlkd-demo"), help="(default: %(default)s)")
    parser.add_argument("--seeds", type=int, default=3, help="(default: %(default)s)")
    parser.add_argument("--epochs", type=float, default=2, help="(default: %(default)s)")
    parser.add_argument("--output", type=Path, default=Path("finetuning"), help="for the runs (default: %(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures to FILE, after every run")
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    questions = write_questions(args.output)
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in STARTS}
    for seed in range(args.seeds):
        for start, found in runs.items():
            checkpoint = args.checkpoint
            if start == "random":
                checkpoint = args.output / f"random-{seed}-start"
                save_random(checkpoint, seed)
            found.append(finetune(checkpoint, questions, args.output / f"{start}-{seed}", seed, args.epochs))
            if args.json is not None:
                figures = {"epochs": args.epochs, "threads": torch.get_num_threads(), "runs": runs}
                means = {name: summarize(each) for name, each in runs.items() if each}
                args.json.write_text(json.dumps(figures | {"means": means}, indent=2) + "\n", encoding="utf-8")
    for start, found in runs.items():
        means = summarize(found)
        print(
            f"{STARTS[start]}: {means['before']:.2%} before, {means['after']:.2%} after "
            f"(spread {means['after_std']:.2%}, {len(found)} seeds), {means['cpu_seconds']:.0f} CPU seconds a run"
        )


if __name__ == "__main__":
    main()
