"""A model card on its way to the Hub: checked, with the line that is wrong, and addressed to its repository."""

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import yaml
from huggingface_hub import ModelCardData
from huggingface_hub.repocard import REGEX_YAML_BLOCK

from .cards import UNTRAINED, is_untouched, signature
from .errors import PublishError, first_line
from .provenance import as_list


# What a reader of the Hub goes by: what one may do with the model, what loads it, and which pipeline runs it.
REQUIRED = {"license": "apache-2.0", "library_name": "transformers", "pipeline_tag": "visual-question-answering"}
LISTS = ("base_model", "datasets", "language", "metrics", "tags")  # each a text, or a list of texts
# The line of a generated card by which its reader loads the model.
ADDRESS = re.compile(r'^name = (".*")(?=  # the id of this repository)', re.MULTILINE)
PICTURE = re.compile(r"!\[[^\]]*\]\(\s*<?([^)\s>]+)|<img\b[^>]*\bsrc=[\"']([^\"']+)[\"']")


def check_card(path: Path) -> list[str]:
    """Checks the metadata of a card: that it can be read, is complete, and is of the types that the Hub expects.

    Args:
        path: the card, `README.md` in the folder of a checkpoint.

    Returns:
        The pictures in the same folder that the card shows, as paths relative to it.

    Raises:
        PublishError: with the line of the card that is wrong, and what stands there.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise PublishError(
            f"There is no model card {path}; write one that begins with {example()} between two lines of ---. "
            "`vlkd distill`, `vlkd finetune` and create_model_card() of VLKDDistillationTrainer write theirs."
        ) from error
    except UnicodeDecodeError as error:
        raise PublishError(f"{path} is not UTF-8 ({error.reason} at byte {error.start}); save it as such.") from error
    block = REGEX_YAML_BLOCK.match(text)
    if block is None:
        raise PublishError(f"{path} does not begin with metadata between two lines of ---; add {example()}.")
    lines = text.splitlines()
    before = len(text[: block.start(2)].splitlines())  # lines above the metadata
    data, places = parse(block[2], path, lines, before)
    check_fields(data, path, lines, places)
    try:
        ModelCardData(**data, ignore_metadata_errors=False)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        line = places.get("model-index", before)
        raise PublishError(f"{path}, line {line}: model-index cannot be read ({first_line(error)}).") from error
    return list(pictures_of(text, path))


def example() -> str:
    return ", ".join(f"`{key}: {value}`" for key, value in REQUIRED.items())


def parse(block: str, path: Path, lines: list[str], before: int) -> tuple[dict[str, Any], dict[str, int]]:
    """Reads metadata.

    Returns:
        What it says, and in which line of the card each key stands.
    """
    try:
        node, data = yaml.compose(block, Loader=yaml.SafeLoader), yaml.safe_load(block)
    except yaml.MarkedYAMLError as error:
        # Of what was never closed, the beginning is where to look; of anything else, the place where it went wrong.
        unclosed = error.context_mark is not None and re.search("flow|quoted", error.context or "")
        mark = error.context_mark if unclosed else error.problem_mark
        line = before + mark.line + 1
        raise PublishError(f"{path}, line {line}: {lines[line - 1]!r} is no YAML: {error.problem}.") from error
    except (yaml.YAMLError, ValueError) as error:
        raise PublishError(f"{path}: the metadata is no YAML: {first_line(error)}.") from error
    if not isinstance(node, yaml.MappingNode):
        raise PublishError(f"{path}, line {before + 1}: expected `key: value`, got {lines[before]!r}.")
    places: dict[str, int] = {}
    for key, _ in node.value:
        line = before + key.start_mark.line + 1
        if key.value in places:
            raise PublishError(f"{path}, line {line}: {key.value} stands in line {places[key.value]} already.")
        places[key.value] = line
    return data, places


def check_fields(data: dict[str, Any], path: Path, lines: list[str], places: dict[str, int]):
    """Refuses metadata that lacks what a reader needs, or has a value of the wrong type."""
    for key, value in REQUIRED.items():
        if key == "pipeline_tag" and key not in data and UNTRAINED in as_list(data.get("tags")):
            continue  # no pipeline has anything to run yet
        if not data.get(key):
            raise PublishError(f"{path}: the metadata has no {key}; add, for example, `{key}: {value}`.")
        if not isinstance(data[key], str):
            raise PublishError(f"{path}, line {places[key]}: expected one text, got {lines[places[key] - 1]!r}.")
    if data["library_name"] != REQUIRED["library_name"]:
        line = places["library_name"]
        raise PublishError(f"{path}, line {line}: {lines[line - 1]!r}: this model is loaded by `transformers`.")
    for key in LISTS:
        values = [] if data.get(key) is None else data[key]
        if not isinstance(values, (str, list)) or not all(isinstance(each, str) for each in values):
            raise PublishError(
                f"{path}, line {places[key]}: {key} is {values!r:.80}; expected a list of texts (quote what YAML "
                "takes for something else, such as `no` or 1.0)."
            )


def pictures_of(text: str, path: Path) -> Iterator[str]:
    """Finds the pictures that a card shows from its own folder; one that is not there is a PublishError."""
    for found in PICTURE.finditer(text):
        link = found[1] or found[2]
        if re.match(r"[a-z]+:|//", link):  # somewhere else
            continue
        name = unquote(re.sub(r"[?#].*", "", link)).removeprefix("./")
        line = text.count("\n", 0, found.start()) + 1
        if name.startswith("/") or ".." in name.split("/") or not (path.parent / name).is_file():
            raise PublishError(f"{path}, line {line}: there is no picture {link} in {path.parent}; put it there.")
        yield name


def addressed(card: str, repo_id: str) -> str:
    """Has a generated card load the model from the repository, where it named the folder that it was written into.

    A card that nobody has edited still counts as such; in others, only what was generated is changed.
    """
    found = ADDRESS.search(card)
    if found is None:
        return card
    # Only in how to use it: elsewhere, in the metadata too, stand the commands that were run.
    use, heading, made = card[found.start() :].partition("\n## How it was made\n")
    folder = shlex.quote(json.loads(found[1]))
    use = ADDRESS.sub(f'name = "{repo_id}"', use).replace(f"--checkpoint {folder} ", f"--checkpoint {repo_id} ")
    content = card[: found.start()] + use + heading + made
    if is_untouched(card):
        unsigned = "\n".join(content.rstrip().splitlines()[:-1])
        return f"{unsigned}\n{signature(unsigned)}\n"
    return content
