"""Read the YAML file of `--config`, whose lines `flag: value` stand for flags of a training command."""

import json
from collections.abc import Sequence
from pathlib import Path

import yaml


def read_config(path: str) -> dict[str, list[str]]:
    """Read a YAML file of `flag: value` lines; return the command-line arguments of each flag.

    Example: the lines `seed: 7` and `language: [en, de]` become
    `{"seed": ["--seed", "7"], "language": ["--language", "en", "de"]}`.
    """
    try:
        values = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"--config {path} cannot be read ({error.strerror}); give a YAML file.") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"--config {path} is no YAML file: {' '.join(str(error).split())}") from error
    if not isinstance(values, dict):
        raise ValueError(f"--config {path} holds no lines of the form `flag: value`.")
    arguments = {}
    for name, value in values.items():
        if name == "config":
            raise ValueError(f"--config {path} names another file, {value}; put its lines here.")
        if isinstance(value, list):
            arguments[str(name)] = [f"--{name}", *map(str, value)]
        elif value is not None:
            arguments[str(name)] = [f"--{name}", json.dumps(value) if isinstance(value, dict | bool) else str(value)]
    return arguments


def with_config(argv: Sequence[str]) -> list[str]:
    """Replace `--config FILE` by the flags in the file, except those that are also given on the command line."""
    path, rest, words = None, [], iter(argv)
    for word in words:
        if word.startswith("--config="):
            path = word.partition("=")[2]
        elif word != "--config" or (path := next(words, None)) is None:
            rest.append(word)
    if path is None:
        return rest
    given = {option_name(word) for word in rest if word.startswith("--")}
    lines = [line for name, line in read_config(path).items() if option_name(name) not in given]
    return [word for line in lines for word in line] + rest


def option_name(flag: str) -> str:
    """Return the name of an option, with `_` for the `-` within it: `--hub-token=x` is `hub_token`."""
    return flag.partition("=")[0].removeprefix("--").replace("-", "_")
