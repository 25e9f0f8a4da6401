"""BARTs in transformers' format."""

from pathlib import Path
from typing import Any

from transformers import BartConfig, PreTrainedModel, PreTrainedTokenizerBase

from modeling_vlkd.configuration_vlkd import check_text_config
from modeling_vlkd.towers_vlkd import LANGUAGE_MODELS

from .errors import ConversionError
from .sources import load_tokenizer, read_json
from .strict_loading import CONFIG_REMEDY, check_folder, load_strictly


def no_mask_error(name: str, embedded: int) -> ConversionError:
    """Make the error about a BART without <mask>, the token in whose place VLKD's prompts ask for the answer."""
    return ConversionError(
        f"{name}: it has no <mask> among the {embedded} tokens that it embeds, like bart.large.cnn "
        "and bart.large.xsum, which were finetuned without it; take bart.large, from which those were made "
        "(facebook/bart-large)."
    )


def check_token_ids(settings: dict[str, Any], vocab_size: int, path: Path):
    """Refuse a configuration whose special tokens, such as the padding, lie outside the model's vocabulary."""
    for name, value in settings.items():
        is_id = name.endswith("_token_id") and isinstance(value, int)
        if is_id and not 0 <= value < vocab_size:
            raise ConversionError(
                f"{path}: {name} is {value}, but the model embeds the tokens 0 to {vocab_size - 1}; {CONFIG_REMEDY}."
            )


class BartSource:
    """A BART or mBART-50 in a folder as transformers saves it.

    Args:
        name: what the user called it.
        folder: its path.
    """

    def __init__(self, name: str, folder: Path):
        config = read_json(folder / "config.json")
        try:
            check_text_config(config, name)
        except ValueError as error:
            raise ConversionError(str(error)) from error
        self.name, self.folder, self.model_type = name, folder, config["model_type"]
        self.format = f"transformers {self.model_type}"
        check_folder(LANGUAGE_MODELS[self.model_type].head_class, folder)
        if not isinstance(config.get("eos_token_id", 2), int):
            raise ConversionError(
                f"{folder / 'config.json'}: eos_token_id is {config['eos_token_id']!r}, and BART has one token at "
                f"the end of a text; {CONFIG_REMEDY}."
            )
        for file in ("config.json", "generation_config.json"):
            if (folder / file).is_file():
                check_token_ids(
                    read_json(folder / file), config.get("vocab_size", BartConfig.vocab_size), folder / file
                )

    def model(self) -> PreTrainedModel:
        return load_strictly(LANGUAGE_MODELS[self.model_type].head_class, self.folder)

    def tokenizer(self) -> PreTrainedTokenizerBase:
        return load_tokenizer(self.folder, local_files_only=True)
