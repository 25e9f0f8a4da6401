"""What a conversion needs of a CLIP of any format, and the loading of folders, tokenizers and JSON files."""

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
# Files of a tokenizer that have to hold a JSON object.
TOKENIZER_OBJECTS = ["tokenizer.json", "tokenizer_config.json", "vocab.json", "added_tokens.json"]
TOKENIZER_OBJECTS += ["special_tokens_map.json"]
# A folder with a tokenizer has at least one of these.
TOKENIZER_FILES = ("tokenizer.json", "vocab.json", "vocab.txt", "spiece.model", "sentencepiece.bpe.model")


@dataclass
class Reference:
    """The original code with the original weights, one tower at a time, for the proof.

    encode: pixels `(batch, 3, height, width)` or token ids `(batch, length)` -> embeddings `(batch, dim)`, as CLIP
        gives them, not normalized.
    prepare: a picture or a text -> the input of `encode`, without the batch axis.
    library: the name of the library whose code it is.
    """

    encode: Callable[[Tensor], Tensor]
    prepare: Callable[[Any], Tensor]
    library: str


class CLIPSource(ABC):
    """A CLIP to be converted. Each method makes its tower anew, so that only one need be in memory at a time."""

    name: str  # the name that the user gave
    format: str  # the format that was found, for the report
    preprocessing: str  # the file that describes the preprocessing, or `name` if there is no such file

    @abstractmethod
    def vision_tower(self) -> PreTrainedModel:
        """Convert the vision tower, with CLIP's projection."""

    @abstractmethod
    def image_processor(self) -> BaseImageProcessor:
        """Convert the preprocessing."""

    @abstractmethod
    def text_teacher(self) -> PreTrainedModel:
        """Convert the text tower, with CLIP's projection; raise UnsupportedError if transformers has no such tower."""

    @abstractmethod
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """Convert the text tower's tokenizer; raise UnsupportedError if none is known."""

    @abstractmethod
    def vision_reference(self) -> Reference:
        """Load the original vision tower in the original code."""

    @abstractmethod
    def text_reference(self) -> Reference:
        """Load the original text tower in the original code."""


def find_folder(name: str, weights: Sequence[str] = ()) -> Path:
    """Return the folder of this name, or download the files that a conversion reads from the Hub repository.

    Args:
        name: a folder or a Hub id.
        weights: patterns of files with weights. Of these, the files of the first pattern that the repository has are
            downloaded. The small files, which are configurations and vocabularies, are always downloaded.

    Raises:
        ConversionError: there is no such folder or repository, or the Hub cannot be reached; the message says which.
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
    """Load a tokenizer in transformers' format from a folder or the Hub; python code that comes with it is not run."""
    if Path(name).is_dir() and not any((Path(name) / file).is_file() for file in TOKENIZER_FILES):
        # transformers would make a tokenizer that knows nothing but the special tokens
        raise ConversionError(f"{name} has no tokenizer; expected one of {', '.join(TOKENIZER_FILES)}.")
    for file in TOKENIZER_OBJECTS:
        if (path := Path(name) / file).is_file():
            read_json(path)
    merges = Path(name) / "merges.txt"
    if merges.is_file() and not merges.stat().st_size and not (Path(name) / "tokenizer.json").is_file():
        # transformers would not complain, and cut every word into letters
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
    """Read a JSON object; raise ConversionError if the file holds anything else."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ConversionError(f"{path}: no JSON ({error}); take the one that came with the weights.") from error
    if not isinstance(content, dict):
        raise ConversionError(
            f"{path}: expected a JSON object, got {type(content).__name__}; take the one that came with the weights."
        )
    return content
