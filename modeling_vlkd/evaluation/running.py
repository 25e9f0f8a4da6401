"""Run a benchmark with a model: in batches, over several processes, and on from where a run was cut off."""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list
from tqdm import tqdm

from .benchmark import Benchmark
from .errors import EvaluationError
from .json_files import show_json, write_json_file


IDENTITY, PREDICTIONS = "run.json", "predictions-{}.jsonl"
Row = dict[str, Any]


def processes() -> PartialState:
    """Join the processes that a launcher started, also those without an accelerator."""
    return PartialState(cpu=not torch.accelerator.is_available())


def run_benchmark(
    benchmark: Benchmark,
    model: Any,
    folder: str | Path,
    identity: Mapping[str, Any] | None = None,
    batch_size: int = 256,
) -> list[Row]:
    """Predict all examples, and keep each prediction as soon as it is there.

    Each process writes its predictions to a file of its own, `predictions-0.jsonl` and so on, a line each. A run that
    was cut off, however many processes it had, goes on with the examples that are in none of these files, and so every
    example counts once.

    Args:
        folder: of this run alone; it is made.
        identity: what the predictions depend on: model, data and settings, as JSON can hold them.
        batch_size: examples that are given to the model at once. It may sort them and make smaller batches of them.

    Returns:
        The rows in the order of `benchmark.ids`, in every process.

    Raises:
        EvaluationError: the folder holds predictions of another run, or cannot be written.
    """
    folder, state = Path(folder), processes()
    faults: list[str | None] = [None]
    if state.is_main_process:
        try:
            claim(folder, {"task": benchmark.task, "examples": len(benchmark.ids), **(identity or {})})
        except EvaluationError as error:
            faults = [str(error)]
    [fault] = broadcast_object_list(faults)  # all processes stop, or none does
    if fault is not None:
        raise EvaluationError(fault)
    done = read_rows(folder)
    state.wait_for_everyone()  # nobody writes while another still reads
    left = [position for position in benchmark.order() if benchmark.ids[position] not in done]
    batches = [left[first : first + batch_size] for first in range(0, len(left), batch_size)]
    batches = batches[state.process_index :: state.num_processes]
    with (
        tqdm(
            desc=benchmark.task if state.num_processes == 1 else f"{benchmark.task}, share of one process",
            total=sum(map(len, batches)),
            unit="example",
            disable=None if state.is_main_process and left else True,
        ) as bar,
        appending(folder / PREDICTIONS.format(state.process_index)) as append,
    ):
        for batch in batches:
            for position, row in zip(batch, benchmark.predict(model, batch), strict=True):
                append({"id": benchmark.ids[position], **row})
            bar.update(len(batch))
    state.wait_for_everyone()
    done = read_rows(folder)
    return [done[number] for number in benchmark.ids]


def claim(folder: Path, identity: Mapping[str, Any], name: str = IDENTITY, what: str = "predictions", of: str = "run"):
    """Write into a folder what it holds; stop at one that holds something else.

    Args:
        identity: what the content of the folder depends on, as JSON can hold it.
        name: of the file that it is written to.
        what, of: for messages: the folder holds predictions of another run.

    Raises:
        EvaluationError: the folder holds something else, or cannot be written; or its file cannot be read.
    """
    path = folder / name
    try:
        folder.mkdir(parents=True, exist_ok=True)
        known = json.loads(path.read_text(encoding="utf-8")) if path.exists() else None
    except (OSError, ValueError) as error:
        raise EvaluationError(f"{folder} cannot hold {what} ({error}); name another folder.") from error
    if known is None:
        write_json_file(path, identity, indent=2)
        return
    ours = json.loads(json.dumps(identity))  # as it is when it has been in a file
    if differing := [key for key in {**known, **ours} if known.get(key) != ours.get(key)]:
        key = differing[0]
        raise EvaluationError(
            f"{folder} holds {what} of another {of}: {key} was {show_json(known.get(key))} and is "
            f"{show_json(ours.get(key))}; name another folder, or delete it."
        )


def read_rows(folder: Path) -> dict[int | str, Row]:
    """Read the predictions of all processes, by the ids of their examples; a last line that was cut off is no row."""
    rows = {}
    for path in sorted(folder.glob(PREDICTIONS.format("*"))):
        for line in path.read_bytes().splitlines(keepends=True):
            if line.endswith(b"\n"):
                row = json.loads(line)
                rows[row["id"]] = row
    return rows


@contextmanager
def appending(path: Path) -> Iterator[Callable[[Row], None]]:
    """Open a file to which rows are added, each whole on the disk before the next; an unfinished last line goes."""
    with path.open("ab+") as file:
        file.seek(0)
        file.truncate(file.read().rfind(b"\n") + 1)

        def append(row: Row):
            file.write(json.dumps(row, ensure_ascii=False).encode() + b"\n")
            file.flush()

        yield append
