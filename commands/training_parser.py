"""The parser of the training commands: dataclasses become flags, and `--config file.yaml` may give any of them."""

import argparse
import json
import tempfile
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, NoReturn

import yaml
from transformers import HfArgumentParser

from modeling_vlkd.trainers.whole_checkpoints import check_named, find_whole_checkpoint

from .parser import Parser


RESUME_HELP = "`true` to go on with the run in --output_dir from its last checkpoint, or the folder of a checkpoint"


class HelpWithDefaults(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Prints defaults where there are any, and keeps the lines of the examples."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        return action.help if action.default is None else super()._get_help_string(action)


def is_ours(dataclass_type: type) -> bool:
    return not dataclass_type.__module__.startswith("transformers.")


class TrainingParser(HfArgumentParser):
    """Makes flags of the fields of dataclasses; a mistake in one gets one line and exit code 2.

    Args:
        dataclass_types: what the arguments are parsed into.
        kwargs: as of `argparse.ArgumentParser`.
    """

    def __init__(self, dataclass_types: Sequence[type], **kwargs: Any):
        super().__init__(dataclass_types, allow_abbrev=False, formatter_class=HelpWithDefaults, **kwargs)
        self.add_argument("--config", metavar="FILE", help="YAML file of flags and values; flags given beside it win")
        # transformers has more than a hundred, which would stand between ours.
        first = {"output_dir", "resume_from_checkpoint"}
        first |= {name for each in dataclass_types if is_ours(each) for name in each.__annotations__}
        all_fields = {field.name for each in dataclass_types for field in fields(each)}
        inherited = self.add_argument_group("flags of transformers' training arguments")
        for action in list(self._optionals._group_actions):
            if action.dest in all_fields - first:
                self._optionals._group_actions.remove(action)
                inherited._group_actions.append(action)
            if action.dest == "resume_from_checkpoint":
                action.help = RESUME_HELP

    def error(self, message: str) -> NoReturn:
        Parser.error(self, message)  # type: ignore[arg-type]

    def parse(self, argv: Sequence[str]) -> tuple:
        """Parse flags, and the file of more of them, into one object of each dataclass."""
        config = TrainingParser([], add_help=False).parse_known_args(argv)[0].config
        *parsed, _namespace, remaining = self.parse_args_into_dataclasses(
            args=[*(read_config(config) if config else []), *argv],
            return_remaining_strings=True,
            look_for_args_file=False,
        )
        if remaining:
            self.error(f"unrecognized arguments: {' '.join(remaining)}")
        return tuple(parsed)


def read_config(path: str) -> list[str]:
    """Turn a YAML file of `flag: value` lines into command-line arguments."""
    try:
        values = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is no YAML file: {' '.join(str(error).split())}") from error
    if not isinstance(values, dict):
        raise ValueError(f"{path} holds no lines of the form `flag: value`.")
    arguments = []
    for name, value in values.items():
        if value is None:
            continue
        arguments.append(f"--{name}")
        if isinstance(value, list):
            arguments.extend(map(str, value))
        else:
            arguments.append(json.dumps(value) if isinstance(value, dict | bool) else str(value))
    return arguments


def require_writable(output_dir: str):
    """Stop before hours of training whose result could not be kept.

    Raises:
        ValueError: `output_dir` is a file, or nothing can be written there, or where it would be made.
    """
    folder = Path(output_dir).absolute()
    nearest = next(each for each in (folder, *folder.parents) if each.exists())
    if not nearest.is_dir():
        raise ValueError(f"--output_dir {output_dir}: {nearest.name} is a file; name a folder.")
    try:
        with tempfile.TemporaryFile(dir=nearest):
            pass
    except OSError as error:
        raise ValueError(f"--output_dir {output_dir}: nothing can be written there ({error.strerror}).") from error


def checkpoint_to_resume(output_dir: str, resume_from_checkpoint: str | None) -> str | None:
    """Find the checkpoint to go on from: the one named, the last whole one for `true`, or none.

    Raises:
        ValueError: there is none to resume, or one that would be written over, or one that is not whole.
    """
    if resume_from_checkpoint is not None and resume_from_checkpoint.lower() not in ("true", "last"):
        if not Path(resume_from_checkpoint, "trainer_state.json").is_file():
            raise ValueError(
                f"{resume_from_checkpoint} is no checkpoint of a training run; name a checkpoint-… folder."
            )
        return str(check_named(resume_from_checkpoint))
    last = find_whole_checkpoint(output_dir)
    if resume_from_checkpoint is None:
        if last is not None:
            raise ValueError(
                f"{output_dir} holds a run with checkpoints; add `--resume_from_checkpoint true` to go on with it, or "
                "choose another --output_dir."
            )
        return None
    if last is None:
        raise ValueError(f"{output_dir} holds no checkpoint to resume from; leave --resume_from_checkpoint out.")
    return str(last)
