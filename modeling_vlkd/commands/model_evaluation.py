"""Evaluate models on one benchmark, one after the other, and put them into one table."""

import argparse
import gc
import json
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path
from typing import Any

from rich.console import Console

from modeling_vlkd.evaluation.benchmark import Benchmark
from modeling_vlkd.evaluation.errors import EvaluationError
from modeling_vlkd.evaluation.json_files import write_json_file, write_text_file
from modeling_vlkd.evaluation.models import read_config
from modeling_vlkd.evaluation.page import write_page
from modeling_vlkd.evaluation.report import Report, compare
from modeling_vlkd.evaluation.running import Row, processes, run_benchmark

from .evaluation_tasks import DEFAULT_BATCH, TASKS


DEFAULT_FOLDER = Path("vlkd-evaluation")
CHUNK = 8  # batches of a model that are given to it at once, so that it can put texts of like length together
SETTINGS = ("dtype", "masks", "beams", "prompt")  # beside the data, what predictions depend on


def evaluate_models(args: argparse.Namespace, command: str) -> int:
    """Evaluate each model; one that cannot be evaluated is reported, and the others go on.

    Returns:
        The exit code: 2 if a model could not be evaluated.
    """
    folders = name_folders(args.checkpoint, args.control)
    benchmark = TASKS[args.task].read(args)
    output = args.output_dir or DEFAULT_FOLDER / (args.glue_task or args.task)
    reports: dict[str, Report] = {}
    failed = 0
    for name, folder in folders.items():
        try:
            rows = predict(args, benchmark, name, output / folder)
            if processes().is_main_process:
                reports[name] = score(args, benchmark, rows, output / folder)
                reports[name].facts |= {"model": name, "seed": args.seed, "command": command}
                reports[name].save(output / folder / "report.json")
        except (ValueError, OSError) as error:
            if len(folders) == 1 or processes().num_processes > 1:  # the others would wait for this one
                raise
            print(f"{name}: {' '.join(str(error).split())}", file=sys.stderr)
            failed += 1
        finally:
            gc.collect()  # a model holds itself in circles; the next one needs its memory
    if reports:
        show_and_save(reports, output, folders, args.json)
    return 2 if failed else 0


def predict(args: argparse.Namespace, benchmark: Benchmark, name: str, folder: Path) -> list[Row]:
    """Have one model predict all examples, and save them in their official format."""
    task = TASKS[args.task]
    given = {flag: value for flag, value in vars(args).items() if value is not None}
    identity = {"model": name, "weights": fingerprint(name)}
    for flag in {*task.needs, *task.may_have} & given.keys():
        identity[flag] = DESCRIBE.get(flag, describe_data)(given[flag])
    identity |= {setting: given[setting] for setting in SETTINGS if setting in given}
    if args.control == "shuffled" or args.task == "infilling":
        identity["seed"] = args.seed  # elsewhere it is that of the bootstrap alone
    model = task.load(name, args)
    rows = run_benchmark(benchmark, model, folder, identity, CHUNK * (args.batch_size or DEFAULT_BATCH))
    if processes().is_main_process and task.save is not None:
        task.save(benchmark, rows, folder)
    return rows


def score(args: argparse.Namespace, benchmark: Benchmark, rows: list[Row], folder: Path) -> Report:
    """Score what one model predicted, and leave each example with its score, and a page of some."""
    report = benchmark.report(rows, args.seed)
    lines = [json.dumps(asdict(each), ensure_ascii=False) + "\n" for each in report.scored]
    write_text_file(folder / "examples.jsonl", "".join(lines))
    title = f"{args.task}: {folder.name}"
    write_page(folder / "report.html", title, report.tables(folder.name), report.scored, args.seed)
    return report


def name_folders(checkpoints: Sequence[str], control: str | None) -> dict[str, str]:
    """Give each model the name of a folder of its own; stop at one that is given twice."""
    folders: dict[str, str] = {}
    for name in checkpoints:
        if name in folders:
            raise EvaluationError(f"--checkpoint {name} is given twice; give it once.")
        words = re.sub(r"[^\w.-]+", "-", name).strip("-.") or "model"
        folder = words if control is None else f"{words}-{control}"
        twins = sum(re.fullmatch(rf"{re.escape(folder)}(-\d+)?", other) is not None for other in folders.values())
        folders[name] = f"{folder}-{twins + 1}" if twins else folder
    return folders


def fingerprint(name: str) -> str:
    """Tell a checkpoint from the one that stood there before: the commit on the Hub, sizes and times in a folder."""
    return describe_data(Path(name)) if Path(name).is_dir() else str(read_config(name).get("_commit_hash"))


def describe_data(value: Any) -> Any:
    """Describe the value of a flag of data: a file by its content, a folder by the sizes and times of its files."""
    path = Path(value) if isinstance(value, str | Path) else None
    if path is not None and path.is_file():
        return sha256(path.read_bytes()).hexdigest()
    if path is not None and path.is_dir():
        files = sorted(each for each in path.rglob("*") if each.is_file())
        listed = [(str(each.relative_to(path)), each.stat().st_size, each.stat().st_mtime_ns) for each in files]
        return sha256(json.dumps(listed).encode()).hexdigest()
    return value if path is None else str(value)


# Flags whose values are described in another way; of pictures, which may be very many, only where they are.
DESCRIBE: dict[str, Callable[[Any], Any]] = {"text_tower": fingerprint, "images": lambda folder: str(folder.resolve())}


def show_and_save(reports: Mapping[str, Report], output: Path, folders: Mapping[str, str], json_file: Path | None):
    """Print the figures of each model and, of several, their table; write all of them."""
    console = Console(soft_wrap=True)
    for name, report in reports.items():
        if report.overall == {}:
            print(f"Nothing was scored for {name}: what is right is not told in the data.")
        else:
            console.print(*report.tables(name))
    scored = {name: report for name, report in reports.items() if report.overall != {}}
    if len(scored) > 1:
        console.print(compare(scored))
    content = [report.as_dict() for report in reports.values()]
    value = content[0] if len(folders) == 1 else {"task": content[0]["task"], "models": dict(zip(reports, content))}
    if json_file is not None:
        write_json_file(json_file, value, indent=2)
    for name in reports:
        print(f"Predictions and figures of {name} are in {output / folders[name]}.")
