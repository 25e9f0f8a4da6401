"""Loads whole models in transformers' format, or says which file of the folder is at fault and what to do."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import GenerationConfig, PreTrainedModel
from transformers.initialization import no_init_weights

from .checkpoints import SafetensorsFile, open_state_dict
from .errors import ConversionError, blaming, explained
from .sources import read_json
from .state_dicts import list_keys


# Fields of transformers' config.json and of open_clip's configuration that are counts or lengths, or lists of such.
SIZES = {"hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "projection_dim"}
SIZES |= {"patch_size", "image_size", "num_channels", "vocab_size", "max_position_embeddings", "d_model"}
SIZES |= {f"{side}_{part}" for side in ("encoder", "decoder") for part in ("layers", "attention_heads", "ffn_dim")}
SIZES |= {"embed_dim", "width", "layers", "heads", "head_width", "context_length"}
CONFIG_REMEDY = "take the one that came with the weights"
# `from_pretrained` reads the first of these that is in a folder, or in place of each its index (NAME.index.json) and
# the files that the index names.
WEIGHTS = ("model.safetensors", "pytorch_model.bin")


def check_sizes(config: Mapping[str, Any], path: str | Path, section: str = ""):
    """Refuse sizes that no model can have, in any section of a configuration; the message names file and field.

    transformers would fail without a name, for example where it divides by a size of 0.

    Args:
        config: the configuration, or a section of it.
        path: its file, for the message.
        section: the path of this section with a dot at the end, such as `vision_config.`; empty for the whole.

    Raises:
        ConversionError: a size is 0, negative or not a whole number.
    """
    for name, value in config.items():
        if isinstance(value, Mapping):
            check_sizes(value, path, f"{section}{name}.")
        elif name in SIZES and value is not None:
            for size in value if isinstance(value, (list, tuple)) else [value]:
                if not isinstance(size, int) or size < 1:
                    raise ConversionError(
                        f"{path}: {section}{name} is {value!r}, expected a whole number of at least 1; "
                        f"{CONFIG_REMEDY}."
                    )


def weight_files(folder: Path) -> list[Path]:
    """List the files with weights that `from_pretrained` reads from a folder.

    Raises:
        ConversionError: there are none, or the index names a file that is missing.
    """
    for name in WEIGHTS:
        if (folder / name).is_file():
            return [folder / name]
        index = folder / f"{name}.index.json"
        if index.is_file():
            content = read_json(index)
            places = content.get("weight_map")
            is_map = isinstance(places, dict) and places and all(isinstance(each, str) for each in places.values())
            if not is_map or "metadata" not in content:
                raise ConversionError(f"{index}: lacks 'metadata' or a whole 'weight_map'; {CONFIG_REMEDY}.")
            files = [folder / place for place in sorted(set(places.values()))]
            if missing := [path.name for path in files if not path.is_file()]:
                raise ConversionError(f"{folder} lacks {missing[0]}, which {index.name} names; download it again.")
            return files
    raise ConversionError(f"{folder} has no weights; expected {' or '.join(WEIGHTS)}, whole or in parts.")


def count_values(model_class: type[PreTrainedModel], folder: Path) -> int:
    """Count the parameters of the model that config.json describes; refuse a file that describes no possible model."""
    path = folder / "config.json"
    check_sizes(read_json(path), path)
    with blaming(path, CONFIG_REMEDY):
        config = model_class.config_class.from_pretrained(folder, local_files_only=True)
        with no_init_weights(), torch.device("meta"):
            return model_class(config).num_parameters()


def check_folder(model_class: type[PreTrainedModel], folder: Path):
    """Refuse a folder in which a file that `from_pretrained` reads is missing or damaged; the message names the file.

    The checksums in zip files of `torch.save` are compared, which transformers does not do; other formats have none.
    The weights are not read into memory, except those in the old pickle format, one file at a time.

    Raises:
        ConversionError: a file is missing or damaged.
    """
    values = count_values(model_class, folder)
    generation = folder / "generation_config.json"
    if generation.is_file():  # transformers would ignore a damaged one
        content = read_json(generation)
        with blaming(generation, CONFIG_REMEDY):
            GenerationConfig.from_dict(content)
    files = weight_files(folder)
    for path in files:
        if path.suffix == ".safetensors":
            with explained(path):
                SafetensorsFile(path)
        else:
            open_state_dict(path)
    size = sum(path.stat().st_size for path in files)
    # Too few weights even at one byte for each value. transformers would give the rest random values, and there may
    # not be memory enough for that.
    if values > size:
        raise ConversionError(
            f"{folder / 'config.json'}: describes a model of {values:,} values, too many for {size:,} bytes of "
            f"weights; {CONFIG_REMEDY}."
        )


def load_strictly(model_class: type[PreTrainedModel], folder: Path) -> PreTrainedModel:
    """Load a model in fp32; raise ConversionError unless the checkpoint's tensors are exactly those of the model."""
    with blaming(folder, "take configuration and weights from one model, or download them again"):
        model, loading = model_class.from_pretrained(
            folder,
            dtype=torch.float32,
            local_files_only=True,
            ignore_mismatched_sizes=True,  # so that they are reported by name
            output_loading_info=True,
        )
    problems = []
    if mismatched := loading["mismatched_keys"]:
        key, got, wanted = sorted(mismatched)[0]
        problems.append(f"{key!r} has shape {tuple(got)}, but config.json wants {tuple(wanted)}")
    if missing := loading["missing_keys"]:
        problems.append(f"missing {list_keys(missing)}")
    if unknown := [key for key in loading["unexpected_keys"] if not key.endswith("position_ids")]:
        problems.append(f"unknown {list_keys(unknown)}")
    if broken := [key for key, tensor in model.named_parameters() if not tensor.isfinite().all()]:
        problems.append(f"values that are not finite in {list_keys(broken)}")
    if problems:
        raise ConversionError(
            f"{folder}: the weights do not fit config.json: {'; '.join(problems)}. Take both from one model."
        )
    return model.eval()
