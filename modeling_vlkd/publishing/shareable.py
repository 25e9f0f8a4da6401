"""Chooses the files of a folder to publish, and checks that anybody could load them. The Hub is not asked."""

import ast
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError, safe_open
from transformers.dynamic_module_utils import get_relative_imports

import modeling_vlkd
from modeling_vlkd import VLKDProcessor
from modeling_vlkd.towers_vlkd import load_whole

from .card_checks import check_card
from .errors import PublishError, first_line


WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
GENERATION = "generation_config.json"
# The classes of a saved model, each with the Auto class that loads it.
AUTO_CLASSES = {
    "VLKDForConditionalGeneration": "AutoModelForImageTextToText",
    "VLKDForSequenceClassification": "AutoModelForSequenceClassification",
    "VLKDModel": "AutoModel",
}
PROCESSOR_FILES = {"processor_config.json", "preprocessor_config.json", "tokenizer_config.json", "tokenizer.json"}
PROCESSOR_FILES |= {"special_tokens_map.json", "added_tokens.json", "chat_template.jinja"}
LICENSE_FILES = {"LICENSE", "LICENSE.md", "LICENSE.txt", "NOTICE"}
SAVE_MODEL = "save the model into it again: `model.save_pretrained(folder)`"
SAVE_PROCESSOR = "save the processor into it again: `processor.save_pretrained(folder)`"


@dataclass(frozen=True)
class Shareable:
    """The files of a folder, with those that belong in a repository.

    architecture: the name of the model's class.
    files: relative paths of the files to publish.
    left_out: relative paths of all others; folders end with a slash.
    size: bytes of all files to publish.
    """

    architecture: str
    files: list[str]
    left_out: list[str]
    size: int


def find_shareable(folder: Path) -> Shareable:
    """Check that a folder is a whole VLKD checkpoint, with a card and the code to load it without this package.

    Raises:
        PublishError: something is missing, damaged or contradictory; the message says what to do.
    """
    if not folder.is_dir():
        raise PublishError(f"{folder} is not a folder; give the folder of a checkpoint.")
    refuse_what_is_no_model(folder)
    config = read_json(folder, "config.json", SAVE_MODEL)
    if config.get("model_type") != "vlkd":
        raise PublishError(f"{folder} holds a model of type {config.get('model_type')!r}, not 'vlkd'.")
    if not {"auto_map", "custom_pipelines"} <= set(config):
        raise PublishError(f"{folder}/config.json names no code (auto_map, custom_pipelines); {SAVE_MODEL}.")
    architecture = (config.get("architectures") or [None])[0]
    if architecture not in AUTO_CLASSES:
        raise PublishError(f"{folder}/config.json: architectures is {architecture!r}, no model of VLKD; {SAVE_MODEL}.")
    files = {"README.md", "config.json"} | check_weights(folder) | check_code(folder)
    if architecture == "VLKDForConditionalGeneration":
        read_json(folder, GENERATION, SAVE_MODEL)
        files.add(GENERATION)
    check_model(folder, architecture)
    files |= check_processor(folder) | set(check_card(folder / "README.md")) | present(folder, LICENSE_FILES)
    size = sum((folder / name).stat().st_size for name in files)
    return Shareable(architecture, sorted(files), list(leftovers(folder, files)), size)


def refuse_what_is_no_model(folder: Path):
    """Refuse folders without a model, where the advice to save a file again would not help."""
    if (folder / "config.json").is_file():
        return
    if (folder / "adapter_config.json").is_file():
        raise PublishError(
            f"{folder} holds an adapter of peft, no model; merge it first, "
            "`model.merge_and_unload().save_pretrained(folder)`, and save the processor beside it."
        )
    if not present(folder, {WEIGHTS, INDEX} | PROCESSOR_FILES):
        raise PublishError(
            f"{folder} is no checkpoint: it holds neither config.json nor weights; give another folder."
        )


def read_json(folder: Path, name: str, remedy: str) -> dict[str, Any]:
    """Read a JSON object; raise PublishError with the line if the file holds anything else."""
    try:
        content = json.loads((folder / name).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise PublishError(f"{folder} lacks {name}; {remedy}.") from error
    except json.JSONDecodeError as error:
        raise PublishError(f"{folder}/{name}, line {error.lineno}: no JSON: {error.msg}; {remedy}.") from error
    except UnicodeDecodeError as error:
        raise PublishError(f"{folder}/{name} is no JSON; {remedy}.") from error
    if not isinstance(content, dict):
        raise PublishError(f"{folder}/{name} holds no JSON object but {content!r:.40}; {remedy}.")
    return content


def check_weights(folder: Path) -> set[str]:
    """List the files with weights that `from_pretrained` would read; refuse a file that is missing or damaged."""
    if (folder / WEIGHTS).is_file():  # if there is an index, too, transformers does not read it
        check_safetensors(folder / WEIGHTS)
        return {WEIGHTS}
    if not (folder / INDEX).is_file():
        raise PublishError(f"{folder} holds no weights ({WEIGHTS} or {INDEX}); {SAVE_MODEL}.")
    places = read_json(folder, INDEX, SAVE_MODEL).get("weight_map")
    if not isinstance(places, dict) or not places:
        raise PublishError(f"{folder}/{INDEX} has no weight_map; {SAVE_MODEL}.")
    shards = set(places.values())
    for shard in sorted(shards):
        if not (folder / shard).is_file():
            raise PublishError(f"{folder} lacks {shard}, which {INDEX} names; {SAVE_MODEL}.")
        held = check_safetensors(folder / shard)
        if absent := {name for name, place in places.items() if place == shard} - held:
            raise PublishError(f"{folder}/{shard} lacks {min(absent)}, which {INDEX} places there; {SAVE_MODEL}.")
    return {INDEX, *shards}


def check_safetensors(path: Path) -> set[str]:
    """Read the header of a file with weights, and refuse a file whose length does not fit the header.

    Returns:
        The names of the tensors in it.
    """
    try:
        with safe_open(path, framework="pt") as file:
            return set(file.keys())
    except SafetensorError as error:
        raise PublishError(f"{path} is truncated or damaged ({first_line(error)}); {SAVE_MODEL}.") from error


def check_code(folder: Path) -> set[str]:
    """List the python files that are run when somebody without this package loads the checkpoint.

    These are the files that a configuration names, and their siblings that they import.

    Raises:
        PublishError: a file is missing, or it is not valid python.
    """
    wanted = {}  # files still to check, each with the file that names it
    for name in ("config.json", "processor_config.json", "tokenizer_config.json"):
        if (folder / name).is_file():
            for reference in code_references(read_json(folder, name, SAVE_PROCESSOR)):
                wanted[f"{reference.rpartition('.')[0]}.py"] = name
    needed: set[str] = set()
    while wanted:
        name, reason = wanted.popitem()
        path = folder / name
        try:
            ast.parse(path.read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise PublishError(f"{folder} lacks {name}, which {reason} names; {SAVE_MODEL}.") from error
        except (SyntaxError, ValueError) as error:
            raise PublishError(f"{path} is not valid python ({first_line(error)}); {SAVE_MODEL}.") from error
        needed.add(name)
        siblings = {f"{module}.py" for module in get_relative_imports(path)}
        wanted.update(dict.fromkeys(sorted(siblings - needed), name))  # sorted: the same message each time
    return needed


def code_references(config: dict[str, Any]) -> Iterator[str]:
    """Find the `module.Class` of every auto map and custom pipeline, at any depth."""
    for key, value in config.items():
        if key == "auto_map":
            for reference in value.values():  # of a tokenizer: a list of two, of which one may be None
                yield from filter(None, reference if isinstance(reference, list) else [reference])
        elif key == "custom_pipelines":
            yield from (pipeline["impl"] for pipeline in value.values())
        elif isinstance(value, dict):
            yield from code_references(value)


def check_processor(folder: Path) -> set[str]:
    """List the files of the processor and its tokenizer; refuse them if they do not load."""
    read_json(folder, "processor_config.json", SAVE_PROCESSOR)
    read_json(folder, "tokenizer_config.json", SAVE_PROCESSOR)
    try:
        processor = VLKDProcessor.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # the files of tokenizers are read by Rust code, which raises a bare Exception
        raise PublishError(
            f"{folder}: its processor does not load ({first_line(error)}); {SAVE_PROCESSOR}."
        ) from error
    vocabulary = set(processor.tokenizer.vocab_files_names.values()) - {"tokenizer.json"}
    files = present(folder, PROCESSOR_FILES | vocabulary)
    # Without these files, transformers makes a tokenizer that knows no word.
    if "tokenizer.json" not in files and not vocabulary <= files:
        raise PublishError(f"{folder} lacks tokenizer.json; {SAVE_PROCESSOR}.")
    return files


def present(folder: Path, names: set[str]) -> set[str]:
    """Choose those names that are files of the folder."""
    return {name for name in names if (folder / name).is_file()}


def check_model(folder: Path, architecture: str):
    """Refuse weights that do not fit the configuration; only their names and shapes are read."""
    model_class = getattr(modeling_vlkd, architecture)
    try:
        load_whole(model_class, folder, device_map="meta")
    except (ValueError, RuntimeError, OSError, StrictDataclassError) as error:
        reason = " ".join(str(error).split())
        raise PublishError(f"{folder} does not load: {reason:.300}") from error


def leftovers(folder: Path, files: set[str]) -> Iterator[str]:
    """List what is not published.

    A folder is listed as a whole, with a slash. If a picture in it is published, the other files in it are listed.
    """
    for path in sorted(folder.iterdir()):
        if not path.is_dir():
            if path.name not in files:
                yield path.name
        elif any(name.startswith(f"{path.name}/") for name in files):
            inside = (each for each in sorted(path.rglob("*")) if each.is_file())
            names = (each.relative_to(folder).as_posix() for each in inside)
            yield from (name for name in names if name not in files)
        else:
            yield f"{path.name}/"
