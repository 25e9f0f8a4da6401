"""BARTs in transformers' format."""

from pathlib import Path

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from modeling_vlkd.configuration_vlkd import check_text_config
from modeling_vlkd.language_models_vlkd import LANGUAGE_MODELS

from .errors import ConversionError
from .sources import load_tokenizer, read_json
from .transformers_source import load_strictly


class BartSource:
    """A BART or mBART-50 in a folder as transformers saves it.

    Args:
        name: what the user called it.
        folder: where it lies.
    """

    def __init__(self, name: str, folder: Path):
        config = read_json(folder / "config.json")
        try:
            check_text_config(config, name)
        except ValueError as error:
            raise ConversionError(str(error)) from error
        self.name, self.folder, self.model_type = name, folder, config["model_type"]
        self.format = f"transformers {self.model_type}"

    def model(self) -> PreTrainedModel:
        return load_strictly(LANGUAGE_MODELS[self.model_type].head_class, self.folder)

    def tokenizer(self) -> PreTrainedTokenizerBase:
        return load_tokenizer(self.folder, local_files_only=True)
