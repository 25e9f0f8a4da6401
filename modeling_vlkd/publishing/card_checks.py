"""Checks a model card before it is published, and writes the name of its repository into it."""

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


# The metadata that every card needs, with an example of each: what one may do with the model, which library loads it,
# and which pipeline runs it.
REQUIRED = {"license": "apache-2.0", "library_name": "transformers", "pipeline_tag": "visual-question-answering"}
LISTS = ("base_model", "datasets", "language", "metrics", "tags")  # each has one text or a list of texts
# The line of a generated card that names the model to load, up to its comment:
# `name = "my-vlkd"  # the id of this repository, or the folder where it lies`.
ADDRESS = re.compile(r'^name = (".*")(?=  # the id of this repository)', re.MULTILINE)
# A picture in Markdown, `![alt](picture.png "title")`, or in HTML, `<img width="9" src="picture.png">`. Its path is in
# the first or the second group.
PICTURE = re.compile(r"!\[[^\]]*\]\(\s*<?([^)\s>]+)|<img\b[^>]*\bsrc=[\"']([^\"']+)[\"']")


def check_card(path: Path) -> list[str]:
    """Check that the metadata of a card can be read, are complete and have the types that the Hub expects.

    Args:
        path: the card, `README.md` in the folder of a checkpoint.

    Returns:
        The pictures in the same folder that the card shows, as paths relative to it.

    Raises:
        PublishError: something is wrong; the message has the line and its number, if it is about one.
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
    before = len(text[: block.start(2)].splitlines())  # the number of lines above the metadata
    data, places = parse(block[2], path, lines, before)
    check_fields(data, path, lines, places)
    try:
        ModelCardData(**data, ignore_metadata_errors=False)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        line = places.get("model-index", before)
        raise PublishError(f"{path}, line {line}: model-index cannot be read ({first_line(error)}).") from error
    return list(pictures_of(text, path))


def example() -> str:
    """Write the required metadata as an example for a message."""
    return ", ".join(f"`{key}: {value}`" for key, value in REQUIRED.items())


def parse(block: str, path: Path, lines: list[str], before: int) -> tuple[dict[str, Any], dict[str, int]]:
    """Parse the metadata of a card.

    Args:
        block: the YAML.
        path: the card, for the messages.
        lines: all lines of the card, for the messages.
        before: the number of lines above the YAML.

    Returns:
        The metadata, and for each key the number of its line in the card.
    """
    try:
        node, data = yaml.compose(block, Loader=yaml.SafeLoader), yaml.safe_load(block)
    except yaml.MarkedYAMLError as error:
        # A bracket or quote that is never closed fails far below; its beginning is the line to show. The context says
        # "while parsing a flow sequence" or "while scanning a quoted scalar" then.
        unclosed = error.context_mark is not None and re.search("flow|quoted", error.context or "")
        mark = error.context_mark if unclosed else error.problem_mark
        line = before + mark.line + 1
        raise PublishError(f"{path}, line {line}: {lines[line - 1]!r} is not valid YAML: {error.problem}.") from error
    except (yaml.YAMLError, ValueError) as error:
        raise PublishError(f"{path}: the metadata is not valid YAML: {first_line(error)}.") from error
    if not isinstance(node, yaml.MappingNode):
        raise PublishError(f"{path}, line {before + 1}: expected `key: value`, got {lines[before]!r}.")
    places: dict[str, int] = {}
    for key, _ in node.value:
        line = before + key.start_mark.line + 1
        if key.value in places:
            raise PublishError(f"{path}, line {line}: {key.value} is in line {places[key.value]} already.")
        places[key.value] = line
    return data, places


def check_fields(data: dict[str, Any], path: Path, lines: list[str], places: dict[str, int]):
    """Refuse metadata that lacks what a reader needs, or has a value of the wrong type."""
    for key, value in REQUIRED.items():
        if key == "pipeline_tag" and key not in data and UNTRAINED in as_list(data.get("tags")):
            continue  # no pipeline can run an untrained model
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
    """Find the pictures that a card shows from its own folder; raise PublishError if one is not there."""
    for found in PICTURE.finditer(text):
        link = found[1] or found[2]
        if re.match(r"[a-z]+:|//", link):  # not in the folder: "https://...", "data:...", "//host/..."
            continue
        name = unquote(re.sub(r"[?#].*", "", link)).removeprefix("./")  # without "?raw=true" or "#top"
        line = text.count("\n", 0, found.start()) + 1
        if name.startswith("/") or ".." in name.split("/") or not (path.parent / name).is_file():
            raise PublishError(f"{path}, line {line}: there is no picture {link} in {path.parent}; put it there.")
        yield name


def addressed(card: str, repo_id: str) -> str:
    """Replace the folder from which a generated card loads the model by the repository's id.

    If nobody has edited the card, its signature is made anew, so that it still counts as not edited. In a card that
    somebody has edited, only the generated lines change.

    Args:
        card: the whole text of the card.
        repo_id: the id of the repository.
    """
    found = ADDRESS.search(card)
    if found is None:
        return card
    # Only the section "Use" is changed. The commands in the metadata and in "How it was made" are those that were run.
    use, heading, made = card[found.start() :].partition("\n## How it was made\n")
    folder = shlex.quote(json.loads(found[1]))
    use = ADDRESS.sub(f'name = "{repo_id}"', use).replace(f"--checkpoint {folder} ", f"--checkpoint {repo_id} ")
    content = card[: found.start()] + use + heading + made
    if is_untouched(card):
        unsigned = "\n".join(content.rstrip().splitlines()[:-1])
        return f"{unsigned}\n{signature(unsigned)}\n"
    return content
