"""Evaluate models on one benchmark, one after the other, and put them into one table."""

import argparse
import gc
import json
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path
from typing import Any

from rich.console import Console

from modeling_vlkd.evaluation.benchmark import Benchmark
from modeling_vlkd.evaluation.errors import EvaluationError
from modeling_vlkd.evaluation.json_files import write_json_file, write_text_file
from modeling_vlkd.evaluation.page import write_page
from modeling_vlkd.evaluation.report import Report, compare
from modeling_vlkd.evaluation.running import processes, run_benchmark

from .evaluation_tasks import DEFAULT_BATCH, FLAGS, TASKS


DEFAULT_FOLDER = Path("vlkd-evaluation")
CHUNK = 8  # batches of a model that are given to it at once, so that it can put texts of like length together
SETTINGS = ("dtype", "masks", "beams", "prompt")  # beside the data, what predictions depend on


def evaluate_models(args: argparse.Namespace, command: str) -> int:
    """Evaluate each model; one that cannot be evaluated is reported, and the others go on.

    Returns:
        The exit code: 2 if a model could not be evaluated.
    """
    task, folders = TASKS[args.task], name_folders(args.checkpoint, args.control)
    benchmark = task.read(args)
    output = args.output_dir or DEFAULT_FOLDER / (args.glue_task or args.task)
    reports: dict[str, Report] = {}
    is_main = processes().is_main_process
    for name, folder in folders.items():
        try:
            report = evaluate_model(args, benchmark, name, output / folder)
        except (ValueError, OSError) as error:
            if len(folders) == 1:
                raise
            print(f"{name}: {' '.join(str(error).split())}", file=sys.stderr)
            continue
        finally:
            gc.collect()  # a model holds itself in circles; the next one needs its memory
        report.facts |= {"model": name, "seed": args.seed, "command": command}
        reports[name] = report
        if is_main:
            report.save(output / folder / "report.json")
    if is_main and reports:
        show_and_save(reports, output, folders, args.json)
    return 0 if len(reports) == len(folders) else 2


def evaluate_model(args: argparse.Namespace, benchmark: Benchmark, name: str, folder: Path) -> Report:
    """Predict with one model, save its predictions in their official format, and score them."""
    task = TASKS[args.task]
    model = task.load(name, args)
    given = vars(args)
    identity = {"model": name, "weights": fingerprint(name, model)}
    identity |= {flag: describe_data(given[flag]) for flag in FLAGS[args.task] if given[flag] is not None}
    identity |= {setting: given[setting] for setting in SETTINGS if given[setting] is not None}
    if args.control == "shuffled" or args.task == "infilling":
        identity["seed"] = args.seed  # elsewhere it is that of the bootstrap alone
    chunk = CHUNK * (args.batch_size or DEFAULT_BATCH)
    rows = run_benchmark(benchmark, model, folder, identity, chunk)
    is_main = processes().is_main_process
    if is_main and task.save is not None:
        task.save(benchmark, rows, folder)
    report = benchmark.report(rows, args.seed)
    if is_main:
        lines = [json.dumps(asdict(each), ensure_ascii=False) + "\n" for each in report.scored]
        write_text_file(folder / "examples.jsonl", "".join(lines))
        write_page(folder / "report.html", f"{args.task}: {name}", report.tables(name), report.scored, args.seed)
    return report


def name_folders(checkpoints: Sequence[str], control: str | None) -> dict[str, str]:
    """Give each model the name of a folder; stop at two that would share one."""
    folders: dict[str, str] = {}
    for name in checkpoints:
        words = re.sub(r"[^\w.-]+", "-", name).strip("-.") or "model"
        folder = words if control is None else f"{words}-{control}"
        if folder in folders.values():
            raise EvaluationError(f"--checkpoint {name} is given twice; give it once.")
        folders[name] = folder
    return folders


def fingerprint(name: str, model: Any) -> str:
    """Tell a checkpoint from the one that stood there before: the commit on the Hub, sizes and times in a folder."""
    folder = Path(name)
    if not folder.is_dir():
        return str(model.model.config._commit_hash)
    files = sorted(path for path in folder.iterdir() if path.is_file())
    listed = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in files]
    return sha256(json.dumps(listed).encode()).hexdigest()


def describe_data(value: Any) -> Any:
    """Describe the value of a flag of data: a file by its content, a folder and anything else by its name."""
    if isinstance(value, Path):
        return sha256(value.read_bytes()).hexdigest() if value.is_file() else str(value)
    return value


def show_and_save(reports: Mapping[str, Report], output: Path, folders: Mapping[str, str], json_file: Path | None):
    """Print the figures of each model and, of several, their table; write all of them."""
    console = Console(soft_wrap=True)
    for name, report in reports.items():
        if report.overall == {}:
            print(f"Nothing was scored for {name}: what is right is not told in the data.")
        else:
            console.print(*report.tables(name))
    if len(reports) > 1:
        console.print(compare(reports))
    content = [report.as_dict() for report in reports.values()]
    value = content[0] if len(folders) == 1 else {"task": content[0]["task"], "models": dict(zip(reports, content))}
    if json_file is not None:
        write_json_file(json_file, value, indent=2)
    for name in reports:
        print(f"Predictions and figures of {name} are in {output / folders[name]}.")
