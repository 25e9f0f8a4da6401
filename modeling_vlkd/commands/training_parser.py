"""Parse the arguments of training commands: flags made from dataclasses, also given in the file of `--config`."""

import argparse
import tempfile
from collections.abc import Sequence
from copy import copy
from dataclasses import fields
from pathlib import Path
from typing import Any, NoReturn

import torch
from transformers import HfArgumentParser, TrainingArguments
from transformers.integrations import get_reporting_integration_callbacks

from modeling_vlkd.trainers.whole_checkpoints import check_named, find_whole_checkpoint

from .config_file import option_name, with_config
from .number_checks import refuse_odd_numbers
from .parser import Parser


MORE_HELP = """
--help-all lists {count} more flags, of transformers' training arguments. Those used most: --num_train_epochs,
--max_steps, --learning_rate, --per_device_train_batch_size, --gradient_accumulation_steps, --eval_strategy,
--save_steps, --report_to, --seed.
"""
RESUME_HELP = "`true` to go on with the run in --output_dir from its last checkpoint, or the folder of a checkpoint"


class HelpWithDefaults(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Prints the default of each flag that has one, and keeps the line breaks of the examples."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        return action.help if action.default is None else super()._get_help_string(action)

    def _format_action_invocation(self, action: argparse.Action) -> str:
        """Show only one of the spellings `--output_dir` and `--output-dir`; both are accepted."""
        first_spellings: dict[str, str] = {}
        for flag in action.option_strings:
            first_spellings.setdefault(option_name(flag), flag)
        shown = copy(action)
        shown.option_strings = list(first_spellings.values())
        return super()._format_action_invocation(shown)


class HelpAll(argparse.Action):
    """Prints the help with transformers' flags, and exits."""

    def __init__(self, option_strings: Sequence[str], dest: str, help: str | None = None):
        super().__init__(option_strings, dest=argparse.SUPPRESS, default=argparse.SUPPRESS, nargs=0, help=help)

    def __call__(self, parser: argparse.ArgumentParser, *_: Any):
        print(parser.format_whole_help(), end="")  # type: ignore[attr-defined]
        parser.exit()


def is_ours(dataclass_type: type) -> bool:
    """Tell whether a dataclass is defined in this package."""
    return dataclass_type.__module__.startswith("modeling_vlkd.")


class TrainingParser(HfArgumentParser):
    """Makes flags from the fields of dataclasses; a mistake gets one line and exit code 2.

    Args:
        dataclass_types: the dataclasses into which the arguments are parsed.
        kwargs: for `argparse.ArgumentParser`.
    """

    def __init__(self, dataclass_types: Sequence[type], **kwargs: Any):
        super().__init__(dataclass_types, allow_abbrev=False, formatter_class=HelpWithDefaults, **kwargs)
        self.add_argument("--config", metavar="FILE", help="YAML file of flags and values; flags given beside it win")
        self.add_argument("--help-all", "--help_all", action=HelpAll, help="show transformers' flags, too, and exit")
        first = {"output_dir", "resume_from_checkpoint"}
        ours = {each for dataclass_type in dataclass_types for each in dataclass_type.__mro__ if is_ours(each)}
        first |= {name for each in ours for name in vars(each).get("__annotations__", ())}
        all_fields = {field.name for each in dataclass_types for field in fields(each)}
        self.inherited = self.add_argument_group("flags of transformers' training arguments")
        for action in list(self._optionals._group_actions):
            if action.dest in all_fields - first:
                self._optionals._group_actions.remove(action)
                self.inherited._group_actions.append(action)
            if action.dest == "resume_from_checkpoint":
                action.help = RESUME_HELP

    def format_help(self) -> str:
        """Show only our own flags, which would be hard to find among more than a hundred of transformers."""
        place = self._action_groups.index(self.inherited)
        del self._action_groups[place]
        try:
            return super().format_help() + MORE_HELP.format(count=len(self.inherited._group_actions))
        finally:
            self._action_groups.insert(place, self.inherited)

    def format_whole_help(self) -> str:
        return super().format_help()

    def error(self, message: str) -> NoReturn:
        Parser.error(self, message)  # type: ignore[arg-type]

    def parse(self, argv: Sequence[str]) -> tuple:
        """Parse the flags, and those in the file of `--config`, into one object of each dataclass."""
        try:
            *parsed, _namespace, remaining = self.parse_args_into_dataclasses(
                args=with_config(argv), return_remaining_strings=True, look_for_args_file=False
            )
        except ImportError as error:  # what a flag asks for, such as --deepspeed, is not installed
            self.error(" ".join(str(error).split()))
        if remaining:
            self.error(f"unrecognized arguments: {' '.join(remaining)}")
        for each in parsed:
            if isinstance(each, TrainingArguments):
                refuse_odd_numbers(each)
                require_integrations(each.report_to)
                # Without an accelerator, torch warns at every evaluation that pinning memory has no effect.
                each.dataloader_pin_memory &= torch.accelerator.is_available()
        return tuple(parsed)


def require_integrations(report_to: Sequence[str]):
    """Stop, before any preparation, if a service of `--report_to` is unknown or not installed.

    Raises:
        ValueError: one of these; for a service that is not installed, the message says how to install it.
    """
    for name in report_to:
        try:
            for callback in get_reporting_integration_callbacks([name]):
                callback()
        except (ValueError, RuntimeError, ImportError) as error:
            raise ValueError(f"--report_to {name}: {' '.join(str(error).split())}") from error


def require_writable(output_dir: str):
    """Stop if nothing can be written to `output_dir`, before hours of training are lost.

    Raises:
        ValueError: `output_dir` is empty, a file, or not writable; if it does not exist, the nearest existing parent
            is not a writable folder.
    """
    if not output_dir:
        raise ValueError("--output_dir '': name a folder.")
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
    """Find the checkpoint from which the run goes on: the named one, for `true` the last complete one, or None.

    Raises:
        ValueError: there is no such checkpoint, it is incomplete, or a new run would overwrite checkpoints in
            `output_dir`.
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
