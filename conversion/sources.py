"""What a conversion asks of a CLIP, whatever its format, and how a name finds its source."""

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, RepositoryNotFoundError
from torch import Tensor
from transformers import AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.image_processing_utils import BaseImageProcessor

from modeling_vlkd.publishing.errors import first_line

from .errors import ConversionError, blaming


SMALL_FILES = ["*.json", "*.txt", "*.model", "*.bpe"]
TOKENIZER_REMEDY = "take the tokenizer's files that came with the weights"
TOKENIZER_OBJECTS = ["tokenizer.json", "tokenizer_config.json", "vocab.json", "added_tokens.json"]
TOKENIZER_OBJECTS += ["special_tokens_map.json"]
TOKENIZER_FILES = ("tokenizer.json", "vocab.json", "vocab.txt", "spiece.model", "sentencepiece.bpe.model")


@dataclass
class Reference:
    """The original code with the original weights, one tower at a time, for the proof.

    encode: pixels `(batch, 3, height, width)` or token ids `(batch, length)` -> embeddings `(batch, dim)`, as CLIP
        gives them, not normalised.
    prepare: a picture or a text -> the input of `encode`, without the batch axis.
    library: whose code it is.
    """

    encode: Callable[[Tensor], Tensor]
    prepare: Callable[[Any], Tensor]
    library: str


class CLIPSource(ABC):
    """A CLIP to be converted. Towers are made when asked for, so that one at a time is in memory."""

    name: str  # as the user gave it
    format: str  # what it turned out to be
    preprocessing: str  # the file that describes its preprocessing, or its name if there is none

    @abstractmethod
    def vision_tower(self) -> PreTrainedModel:
        """Converts the vision tower, with CLIP's projection."""

    @abstractmethod
    def image_processor(self) -> BaseImageProcessor:
        """Converts the preprocessing."""

    @abstractmethod
    def text_teacher(self) -> PreTrainedModel:
        """Converts the text tower, with CLIP's projection; UnsupportedError where transformers has no such tower."""

    @abstractmethod
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """Converts the text tower's tokenizer; UnsupportedError where none is known."""

    @abstractmethod
    def vision_reference(self) -> Reference:
        """Loads the original vision tower in the original code."""

    @abstractmethod
    def text_reference(self) -> Reference:
        """Loads the original text tower in the original code."""


def find_folder(name: str, weights: Sequence[str] = ()) -> Path:
    """Returns the folder of that name, or downloads from that Hub repository what a conversion reads.

    Args:
        name: a folder or a Hub id.
        weights: patterns of files; the first that the repository has is downloaded beside the small files, which come
            always: configurations and vocabularies.

    Raises:
        ConversionError: there is neither, or it cannot be reached; the message says which.
    """
    folder = Path(name).expanduser()
    if folder.is_dir():
        return folder
    if folder.exists() or name.count("/") != 1 or name.startswith((".", "/", "~")):
        raise ConversionError(f"{name} is neither a folder nor a Hub id such as openai/clip-vit-base-patch16.")
    try:
        folder = Path(snapshot_download(name, allow_patterns=SMALL_FILES))
        for pattern in weights:
            if not any(folder.glob(pattern)):
                snapshot_download(name, allow_patterns=[pattern])
            if any(folder.glob(pattern)):
                break
    except RepositoryNotFoundError as error:
        raise ConversionError(f"{name} is neither a folder nor a repository that the Hub shows you.") from error
    except (LocalEntryNotFoundError, HfHubHTTPError, HFValidationError, OSError) as error:
        raise ConversionError(
            f"{name} is no folder, and fetching it from the Hub failed: {first_line(error)}"
        ) from error
    return folder


def load_tokenizer(name: str | Path, **settings: Any) -> PreTrainedTokenizerBase:
    """Loads a tokenizer in transformers format, from a folder or the Hub, without what it says of code of its own."""
    if Path(name).is_dir() and not any((Path(name) / file).is_file() for file in TOKENIZER_FILES):
        # transformers would make one up that knows nothing but the special tokens
        raise ConversionError(f"{name} has no tokenizer; expected one of {', '.join(TOKENIZER_FILES)}.")
    for file in TOKENIZER_OBJECTS:
        if (path := Path(name) / file).is_file():
            read_json(path)
    merges = Path(name) / "merges.txt"
    if merges.is_file() and not merges.stat().st_size and not (Path(name) / "tokenizer.json").is_file():
        # transformers would go on, and cut every word into letters
        raise ConversionError(f"{merges} is empty; {TOKENIZER_REMEDY}.")
    with blaming(f"{name}: its tokenizer cannot be loaded", TOKENIZER_REMEDY):
        tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=False, **settings)
    length = tokenizer.model_max_length
    if not isinstance(length, (int, float)) or length < 1:
        raise ConversionError(
            f"{name}/tokenizer_config.json: model_max_length is {length!r}, expected a number of at least 1; "
            f"{TOKENIZER_REMEDY}."
        )
    return tokenizer


def read_json(path: Path) -> dict[str, Any]:
    """Reads a JSON object; anything else is a ConversionError."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ConversionError(f"{path}: no JSON ({error}); take the one that came with the weights.") from error
    if not isinstance(content, dict):
        raise ConversionError(
            f"{path}: expected a JSON object, got {type(content).__name__}; take the one that came with the weights."
        )
    return content
