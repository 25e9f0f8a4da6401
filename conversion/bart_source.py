"""BARTs in transformers' format."""

from pathlib import Path

from transformers import BartForConditionalGeneration, PreTrainedTokenizerBase

from modeling_vlkd.configuration_vlkd import NO_BART

from .errors import ConversionError
from .sources import load_tokenizer, read_json
from .transformers_source import load_strictly


class BartSource:
    """A BART in a folder as transformers saves it.

    Args:
        name: what the user called it.
        folder: where it lies.
    """

    def __init__(self, name: str, folder: Path):
        self.name, self.folder, self.format = name, folder, "transformers bart"
        model_type = read_json(folder / "config.json").get("model_type")
        if model_type != "bart":
            reason = NO_BART.get(str(model_type), "; give an encoder-decoder of type 'bart'")
            raise ConversionError(f"{name} is a {model_type!r}, not a BART{reason}.")

    def model(self) -> BartForConditionalGeneration:
        return load_strictly(BartForConditionalGeneration, self.folder)

    def tokenizer(self) -> PreTrainedTokenizerBase:
        return load_tokenizer(self.folder, local_files_only=True)
