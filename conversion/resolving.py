"""Finds the models that the user names with `--vision` and `--text`."""

from pathlib import Path

from . import open_clip_source, transformers_source
from .bart_source import BartSource
from .errors import ConversionError
from .fairseq_source import FairseqBartSource
from .open_clip_source import open_open_clip_folder, open_open_clip_model, open_openai_checkpoint
from .sources import CLIPSource, find_folder
from .transformers_source import TransformersSource


VISION_HELP = (
    "a folder or Hub id in transformers' or open_clip's format, an OpenAI checkpoint (RN50x16.pt; a bare file is "
    "taken for one, with QuickGELU), or an open_clip model with a checkpoint or a pretrained tag "
    "(ViT-B-16:epoch_32.pt, ViT-B-16:laion2b_s34b_b88k)"
)


def open_clip_or_transformers(name: str) -> CLIPSource:
    """Open a folder or Hub repository in transformers' format or, if it is not in that one, in open_clip's."""
    folder = find_folder(name)
    if (folder / "config.json").is_file():
        return TransformersSource(name, find_folder(name, transformers_source.WEIGHT_FILES))
    if (folder / "open_clip_config.json").is_file():
        return open_open_clip_folder(name, find_folder(name, open_clip_source.WEIGHT_FILES))
    raise ConversionError(f"{folder} holds neither config.json nor open_clip_config.json; is it the right folder?")


def open_vision(name: str) -> CLIPSource:
    """Open the CLIP that `--vision` names.

    Args:
        name: see `VISION_HELP`. open_clip's own prefixes `hf-hub:` and `local-dir:` are understood too.

    Raises:
        ConversionError: the name means none of these.
    """
    path = Path(name).expanduser()
    if path.is_file():
        return open_openai_checkpoint(name, path)
    prefix, colon, rest = name.partition(":")
    if prefix in ("hf-hub", "local-dir") and colon:
        return open_open_clip_folder(name, find_folder(rest, open_clip_source.WEIGHT_FILES))
    if colon and not path.exists():
        return open_open_clip_model(name, prefix, rest)
    return open_clip_or_transformers(name)


def open_text(name: str) -> BartSource:
    """Open the BART that `--text` names: a folder or Hub id in transformers' or fairseq's format.

    Raises:
        ConversionError: the folder is in neither format.
    """
    folder = find_folder(name, [*transformers_source.WEIGHT_FILES, "model.pt"])
    if (folder / "config.json").is_file():
        return BartSource(name, folder)
    if (folder / "model.pt").is_file():
        return FairseqBartSource(name, folder)
    raise ConversionError(f"{folder} holds neither config.json nor fairseq's model.pt; is it the right folder?")
