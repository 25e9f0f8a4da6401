"""Checkpoints of a training run, whole or not at all: how they are written, checked and found again."""

import contextlib
import json
import logging
import os
import re
import shutil
import zipfile
from pathlib import Path

from safetensors import SafetensorError, safe_open
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR
from transformers.utils import CONFIG_NAME, SAFE_WEIGHTS_INDEX_NAME

from .trained_on import FILE_NAME


logger = logging.getLogger(__name__)

UNFINISHED = "_unfinished"  # checkpoints are written in here first; transformers uploads nothing that begins with "_"
DAMAGED = "damaged-"  # before the name of a checkpoint that is set aside
# model.safetensors, adapter_model.safetensors, model-00001-of-00002.safetensors, model.safetensors.index.json
WEIGHTS = re.compile(r"(adapter_)?model(-\d{5}-of-\d{5})?\.safetensors(\.index\.json)?")
# JSON files that are read on resuming. Others in a checkpoint are not ours to judge.
OBJECTS = (TRAINER_STATE_NAME, CONFIG_NAME, FILE_NAME, SAFE_WEIGHTS_INDEX_NAME)
# Written by torch.save: optimizer.pt, rng_state.pth, rng_state_1.pth of the second process, pytorch_model.bin
ARCHIVES = re.compile(r"(optimizer|scheduler|scaler|rng_state(_\d+)?|pytorch_model.*)\.(pt|pth|bin)")


class CheckpointError(ValueError):
    """A checkpoint of a training run that cannot be gone on from; with the file at fault."""


def checkpoints_of(run_dir: str | Path) -> list[Path]:
    """List the checkpoints in the folder of a run, whole or not, the last one first."""
    folders = [path for path in Path(run_dir).glob(f"{PREFIX_CHECKPOINT_DIR}-*") if path.is_dir()]
    return sorted((path for path in folders if step_of(path) >= 0), key=step_of, reverse=True)


def step_of(checkpoint: Path) -> int:
    """Read the step from the name of a checkpoint; -1 of another folder."""
    step = checkpoint.name.removeprefix(f"{PREFIX_CHECKPOINT_DIR}-")
    return int(step) if step.isdecimal() else -1


def find_whole_checkpoint(run_dir: str | Path) -> Path | None:
    """Find the last whole checkpoint in the folder of a run; None if there is none at all.

    Raises:
        CheckpointError: there are some, and none of them is whole.
    """
    faults = []
    for checkpoint in checkpoints_of(run_dir):
        try:
            check_whole(checkpoint)
        except CheckpointError as error:
            faults.append(error)
        else:
            return checkpoint
    if faults:
        raise CheckpointError(
            f"{run_dir} holds no whole checkpoint: {faults[0]}; remove what is there to begin anew, or choose another "
            "output_dir."
        )
    return None


def check_named(checkpoint: str | Path) -> Path:
    """Check the checkpoint that somebody has named, and give its path.

    Raises:
        CheckpointError: it is not whole; with the file and the remedy.
    """
    try:
        check_whole(Path(checkpoint))
    except CheckpointError as error:
        raise CheckpointError(
            f"{error}; name another checkpoint, or `true` for the last whole one of the run."
        ) from error
    return Path(checkpoint)


def check_whole(checkpoint: Path):
    """Check that nothing of a checkpoint is missing or truncated, without reading a weight.

    Raises:
        CheckpointError: it is not whole; with the first file at fault.
    """
    if not (checkpoint / TRAINER_STATE_NAME).is_file():  # written last
        raise CheckpointError(f"{checkpoint / TRAINER_STATE_NAME} is missing")
    files = sorted(path for path in checkpoint.iterdir() if path.is_file())
    for path in files:
        if path.name in OBJECTS:
            read_json(path)
        elif ARCHIVES.fullmatch(path.name) and not zipfile.is_zipfile(path):  # its list of contents stands at its end
            raise CheckpointError(f"{path} is truncated or damaged")
    for path in sorted(checkpoint.rglob("*.safetensors")):  # those of adapters may lie in folders
        check_header(path)
    if (checkpoint / SAFE_WEIGHTS_INDEX_NAME).is_file():
        for shard in sorted(set(read_json(checkpoint / SAFE_WEIGHTS_INDEX_NAME)["weight_map"].values())):
            if not (checkpoint / shard).is_file():
                raise CheckpointError(f"{checkpoint / shard} is missing")
    weights = [path for path in files if WEIGHTS.fullmatch(path.name) or path.match("*_model*.bin")]
    if not weights and not any(path.is_dir() for path in checkpoint.iterdir()):  # FSDP and DeepSpeed write folders
        raise CheckpointError(f"{checkpoint} holds no weights")


def read_json(path: Path) -> dict:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CheckpointError(f"{path} is truncated or damaged") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} holds no JSON object")
    return content


def check_header(path: Path):
    """Read the header of a file with weights; what it describes has to end where the file ends."""
    try:
        with safe_open(path, framework="pt"):
            pass
    except SafetensorError as error:
        raise CheckpointError(f"{path} is truncated or damaged") from error


def clear_for_resuming(run_dir: Path, resumed: Path):
    """Remove the unfinished checkpoints that a killed run left after `resumed`, and set damaged ones aside.

    Otherwise a checkpoint that is not whole could be kept as the last one in place of the next that is.
    """
    for checkpoint in sorted((run_dir / UNFINISHED).glob(f"{PREFIX_CHECKPOINT_DIR}-*")):
        logger.warning("%s was not finished and is removed; going on from %s.", run_dir / checkpoint.name, resumed)
    shutil.rmtree(run_dir / UNFINISHED, ignore_errors=True)
    for checkpoint in checkpoints_of(run_dir):
        if step_of(checkpoint) <= step_of(resumed):
            break
        try:
            check_whole(checkpoint)
        except CheckpointError as error:
            if (checkpoint / TRAINER_STATE_NAME).is_file():
                aside = checkpoint.with_name(DAMAGED + checkpoint.name)
                shutil.rmtree(aside, ignore_errors=True)
                checkpoint.rename(aside)
                logger.warning("%s: set aside as %s; going on from %s.", error, aside.name, resumed)
            else:
                shutil.rmtree(checkpoint)
                logger.warning("%s was not finished and is removed; going on from %s.", checkpoint, resumed)


def give_name(written: Path, checkpoint: Path):
    """Move a checkpoint out of the folder `UNFINISHED` to its own name, once all of it is on disk."""
    sync_files(written)
    if checkpoint.is_dir():  # of the same step, by an earlier run or by Ctrl-C at the end of an epoch
        checkpoint.rename(written.parent / "replaced")
    written.rename(checkpoint)
    sync_folder(checkpoint.parent)
    shutil.rmtree(written.parent)


def move_model(written: Path, folder: Path):
    """Move a saved model into a folder, which at any moment loads as the new model, the old one, or not at all.

    Weights go first and come last: in between, the folder loads not at all.
    """
    sync_files(written)
    files = [path.relative_to(written) for path in sorted(written.rglob("*")) if path.is_file()]
    # An index makes its shards a model, and so comes after them.
    files.sort(key=lambda path: (WEIGHTS.fullmatch(path.name) is not None, path.suffix == ".json"))
    for old in [path for path in folder.iterdir() if WEIGHTS.fullmatch(path.name)]:
        old.unlink()
    for path in files:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (written / path).replace(folder / path)
    sync_folder(folder)
    shutil.rmtree(written.parent)


def sync_files(folder: Path):
    """Write all files below a folder to the disk itself; in memory, a power cut would lose them."""
    for path in folder.rglob("*"):
        if path.is_file() and os.name == "posix":  # elsewhere, files that are open for reading cannot be synced
            sync(path)


def sync_folder(folder: Path):
    """Write the names in a folder to the disk itself, if its file system can do that."""
    if os.name == "posix":
        with contextlib.suppress(OSError):
            sync(folder)


def sync(path: Path):
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
