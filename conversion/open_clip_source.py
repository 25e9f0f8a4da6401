"""CLIPs in open_clip's layout: OpenAI's own checkpoints, open_clip's, and open_clip folders and Hub repositories."""

import gzip
from collections.abc import Callable, Mapping
from copy import deepcopy
from functools import cached_property
from pathlib import Path
from typing import Any

import open_clip
import torch
from open_clip.model import CLIP, CustomTextCLIP
from open_clip.pretrained import download_pretrained, get_pretrained_cfg
from open_clip.tokenizer import HFTokenizer, SimpleTokenizer, bytes_to_unicode, default_bpe
from open_clip.transform import PreprocessCfg, image_transform_v2, merge_preprocess_dict
from torch import Tensor
from transformers import (
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    CLIPVisionModelWithProjection,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.image_processing_utils import BaseImageProcessor
from transformers.initialization import no_init_weights

from modeling_vlkd.configuration_clip_resnet_vlkd import CLIPResNetVisionConfig
from modeling_vlkd.modeling_clip_resnet_vlkd import CLIPResNetVisionModelWithProjection
from modeling_vlkd.publishing.errors import first_line

from .checkpoints import find_state_dict, open_checkpoint, open_state_dict
from .clip_rules import RESNET_RULES, VISION_TRANSFORMER_RULES, text_transformer_rules
from .errors import ConversionError, UnsupportedError, blaming
from .open_clip_configs import image_processor, openai_model_cfg, text_config, vision_config
from .sources import CLIPSource, Reference, load_tokenizer, read_json
from .state_dicts import Rule, convert_state_dict
from .strict_loading import check_sizes
from .tensor_mapping import TensorMapping


# Known and not needed: the temperature, SigLIP's bias, the sizes that OpenAI's archives state, and causal masks.
OTHER_KEYS = ["logit_scale", "logit_bias", "input_resolution", "context_length", "vocab_size", "attn_mask"]
OTHER_KEYS += [f"{tower}transformer.resblocks.{{n}}.attn_mask" for tower in ("", "visual.")]
CONFIG_FILE = "open_clip_config.json"
MODEL_REMEDY = "take weights and configuration of one model, or download them again"
# CLIP uses the first 48,894 of the 262,145 merges in the file. With 256 bytes, each alone and as the end of a word,
# and two special tokens they make 49,408 entries (`clip/simple_tokenizer.py` of github.com/openai/CLIP).
NUM_MERGES = 49152 - 256 - 2
WEIGHT_FILES = ["open_clip_model.safetensors", "open_clip_pytorch_model.safetensors", "open_clip_pytorch_model.bin"]
MODEL_SETTINGS = {"embed_dim", "vision_cfg", "text_cfg", "quick_gelu", "custom_text"}
MODEL_SETTINGS |= {"init_logit_scale", "init_logit_bias", "nonscalar_logit_scale"}
# Towers as small as open_clip can build them, for the tower that a reference does not need.
TINY_VISION = {"layers": 1, "width": 64, "patch_size": 32, "image_size": 32}
TINY_TEXT = {"context_length": 8, "vocab_size": 8, "width": 64, "heads": 1, "layers": 1}


class Selection(TensorMapping):
    """The entries of a mapping whose keys pass a test. Values are still read on demand."""

    def __init__(self, source: Mapping[str, Tensor], test: Callable[[str], bool]):
        self.source = source
        super().__init__(dict.fromkeys(key for key in source if test(key)))

    def __getitem__(self, key: str) -> Tensor:
        if key not in self.names:
            raise KeyError(key)
        return self.source[key]


def build_model(
    model_class: type[PreTrainedModel], config: PreTrainedConfig, tensors: Mapping[str, Tensor], rules: list[Rule]
) -> PreTrainedModel:
    """Make a model of the converted tensors; the time to draw random values for it is saved."""
    with no_init_weights():
        model = model_class(config)
    converted = convert_state_dict(tensors, rules, model.state_dict(), OTHER_KEYS)
    model.load_state_dict(converted, assign=True, strict=False)  # strict enough: the conversion checked every key
    return model.eval()


class OpenCLIPSource(CLIPSource):
    """A CLIP in open_clip's layout.

    Args:
        name: what the user called it.
        format: the format, for the report.
        model_cfg: open_clip's description of the architecture.
        preprocess: open_clip's description of the preprocessing.
        tensors: the checkpoint.
        folder: where the tokenizer's files lie, if they come with the checkpoint.
    """

    def __init__(
        self,
        name: str,
        format: str,
        model_cfg: dict[str, Any],
        preprocess: PreprocessCfg,
        tensors: Mapping[str, Tensor],
        folder: Path | None = None,
    ):
        self.name, self.format, self.folder = name, format, folder
        self.preprocessing = name if folder is None else str(folder / CONFIG_FILE)
        self.model_cfg, self.preprocess, self.tensors = model_cfg, preprocess, tensors
        check_sizes(model_cfg, self.preprocessing, "model_cfg.")
        if missing := {"embed_dim", "vision_cfg", "text_cfg"} - set(model_cfg):
            raise ConversionError(f"{name}: its model configuration lacks {', '.join(sorted(missing))}.")
        if other := set(model_cfg) - MODEL_SETTINGS:
            raise UnsupportedError(f"{name}: open_clip models with {', '.join(sorted(other))} are not supported.")
        if not any(key.startswith("visual.") for key in tensors):
            raise ConversionError(f"{name}: holds no vision tower (no key begins with 'visual.'); give a whole CLIP.")

    @property
    def text_prefix(self) -> str:
        """Return the prefix of the text tower's keys: `text.` in models with a tower that OpenAI's CLIPs lack."""
        return "text." if any(key.startswith("text.") for key in self.tensors) else ""

    def select(self, is_vision: bool) -> Selection:
        return Selection(self.tensors, lambda key: key.startswith("visual.") == is_vision)

    def vision_tower(self) -> PreTrainedModel:
        with blaming(self.name, MODEL_REMEDY):
            config, tensors = vision_config(self.model_cfg), self.select(is_vision=True)
            if isinstance(config, CLIPResNetVisionConfig):
                return build_model(CLIPResNetVisionModelWithProjection, config, tensors, RESNET_RULES)
            return build_model(CLIPVisionModelWithProjection, config, tensors, VISION_TRANSFORMER_RULES)

    def image_processor(self) -> BaseImageProcessor:
        with blaming(self.preprocessing, MODEL_REMEDY):
            return image_processor(self.preprocess)

    def text_teacher(self) -> PreTrainedModel:
        with blaming(self.name, MODEL_REMEDY):
            config, tensors = text_config(self.model_cfg), self.select(is_vision=False)
            return build_model(CLIPTextModelWithProjection, config, tensors, text_transformer_rules(self.text_prefix))

    def tokenizer(self) -> PreTrainedTokenizerBase:
        text_cfg = self.model_cfg["text_cfg"]
        length = text_cfg.get("context_length", 77)
        if "hf_tokenizer_name" in text_cfg:
            return load_tokenizer(self.folder or text_cfg["hf_tokenizer_name"], model_max_length=length)
        tokenizer = build_clip_tokenizer(length)
        if len(tokenizer) != text_cfg.get("vocab_size", len(tokenizer)):
            raise UnsupportedError(f"{self.name}: no tokenizer is known for {text_cfg['vocab_size']} tokens.")
        return tokenizer

    def vision_reference(self) -> Reference:
        with blaming(self.name, MODEL_REMEDY):
            model = self.load_reference(
                {**self.model_cfg, "text_cfg": TINY_TEXT, "custom_text": False}, self.select(is_vision=True)
            )
        return Reference(model.encode_image, image_transform_v2(self.preprocess, is_train=False), "open_clip")

    def text_reference(self) -> Reference:
        with blaming(self.name, MODEL_REMEDY):
            model = self.load_reference({**self.model_cfg, "vision_cfg": TINY_VISION}, self.select(is_vision=False))
        return Reference(model.encode_text, lambda text: self.original_tokenizer(text)[0], "open_clip")

    @cached_property
    def original_tokenizer(self) -> SimpleTokenizer | HFTokenizer:
        """Make open_clip's own tokenizer."""
        text_cfg = self.model_cfg["text_cfg"]
        with blaming(self.name, MODEL_REMEDY):
            settings = {"context_length": text_cfg.get("context_length", 77), **text_cfg.get("tokenizer_kwargs", {})}
            if "hf_tokenizer_name" in text_cfg:
                return HFTokenizer(str(self.folder or text_cfg["hf_tokenizer_name"]), **settings)
            return SimpleTokenizer(**settings)

    def load_reference(self, model_cfg: dict[str, Any], tensors: Mapping[str, Tensor]) -> CLIP | CustomTextCLIP:
        """Build open_clip's model and copy those of `tensors` into it that it has.

        Args:
            model_cfg: open_clip's description of the architecture; a tower that is not needed may be tiny.
            tensors: the checkpoint, or the part of it that belongs to the needed tower.
        """
        model_cfg = deepcopy(model_cfg)
        has_text_tower = model_cfg.pop("custom_text", False) or "hf_model_name" in model_cfg["text_cfg"]
        model = (CustomTextCLIP if has_text_tower else CLIP)(**model_cfg)
        with torch.no_grad():
            for key, tensor in model.state_dict().items():
                if key in tensors:
                    tensor.copy_(tensors[key])
        return model.eval()


def open_openai_checkpoint(name: str, path: Path) -> OpenCLIPSource:
    """Open a checkpoint as OpenAI published them.

    The shapes of the tensors tell the architecture but not the activation, which is taken to be OpenAI's QuickGELU.
    """
    content = open_checkpoint(path)
    if isinstance(content, Mapping) and "epoch" in content:
        raise ConversionError(
            f"{name}: a training run's checkpoint does not tell its architecture; give open_clip's name of it, as in "
            f"ViT-B-16:{name}."
        )
    tensors = find_state_dict(content, path)
    with blaming(name, MODEL_REMEDY):
        try:
            model_cfg = openai_model_cfg(tensors)
        except ConversionError as error:
            raise ConversionError(f"{name}: the checkpoint {error}; {MODEL_REMEDY}.") from error
    format = "OpenAI checkpoint, so QuickGELU"
    return OpenCLIPSource(name, format, model_cfg, openai_preprocess(model_cfg), tensors)


def openai_preprocess(model_cfg: dict[str, Any], settings: dict[str, Any] | None = None) -> PreprocessCfg:
    """Describe OpenAI's preprocessing at the model's resolution, changed by `settings`."""
    size = model_cfg["vision_cfg"].get("image_size", 224)
    return PreprocessCfg(**merge_preprocess_dict(PreprocessCfg(size=size), settings or {}))


def build_clip_tokenizer(context_length: int) -> CLIPTokenizer:
    """Build CLIP's byte-pair tokenizer with its 49,408 entries, from the vocabulary that open_clip ships.

    Args:
        context_length: tokens that the text tower reads, the two special ones included.
    """
    with gzip.open(default_bpe(), "rt", encoding="utf-8") as file:
        lines = file.read().split("\n")[1 : NUM_MERGES + 1]  # the first line tells the version
    merges = [tuple(line.split()) for line in lines]
    letters = list(bytes_to_unicode().values())
    entries = [*letters, *(letter + "</w>" for letter in letters), *("".join(pair) for pair in merges)]
    entries += ["<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(
        vocab={entry: index for index, entry in enumerate(entries)}, merges=merges, model_max_length=context_length
    )


def require_section(content: dict[str, Any], name: str, path: Path) -> dict[str, Any]:
    """Return a section of open_clip's configuration; raise ConversionError if it is missing or no JSON object."""
    if name not in content:
        raise ConversionError(f"{path}: has no {name!r}; is it open_clip's?")
    if not isinstance(content[name], dict):
        raise ConversionError(f"{path}: {name} is {content[name]!r:.40}, expected a JSON object; {MODEL_REMEDY}.")
    return content[name]


def open_open_clip_folder(name: str, folder: Path) -> OpenCLIPSource:
    """Open a folder with `open_clip_config.json` and weights, as open_clip's `push_to_hf_hub` writes them."""
    path = folder / CONFIG_FILE
    content = read_json(path)
    model_cfg = require_section(content, "model_cfg", path)
    for section in ("vision_cfg", "text_cfg"):
        require_section(model_cfg, section, path)
    weights = [folder / file for file in WEIGHT_FILES if (folder / file).is_file()]
    if not weights:
        raise ConversionError(f"{folder} has no weights; expected one of {', '.join(WEIGHT_FILES)}.")
    with blaming(path, MODEL_REMEDY):
        preprocess = openai_preprocess(model_cfg, content.get("preprocess_cfg"))
    return OpenCLIPSource(name, "open_clip folder", model_cfg, preprocess, open_state_dict(weights[0]), folder)


def open_open_clip_model(name: str, model: str, weights: str) -> OpenCLIPSource:
    """Open one of open_clip's architectures with a checkpoint.

    Args:
        name: what the user called both.
        model: the architecture, such as `ViT-B-16`.
        weights: a local file, or a tag of open_clip's pretrained weights, such as `laion2b_s34b_b88k`.
    """
    model = model.replace("/", "-")
    model_cfg = open_clip.get_model_config(model)
    if model_cfg is None:
        raise ConversionError(f"{name}: open_clip knows no model {model!r}; see open_clip.list_models().")
    if Path(weights).is_file():
        preprocess = openai_preprocess(model_cfg)
        return OpenCLIPSource(name, "open_clip checkpoint", model_cfg, preprocess, open_state_dict(weights))
    tag = get_pretrained_cfg(model, weights)
    if not tag:
        tags = ", ".join(open_clip.list_pretrained_tags_by_model(model)) or "none"
        raise ConversionError(f"{name}: {weights!r} is neither a file nor a tag of {model}; its tags: {tags}.")
    try:
        path = download_pretrained(tag)
    except (OSError, RuntimeError) as error:
        raise ConversionError(f"{name}: open_clip could not download it: {first_line(error)}") from error
    model_cfg["quick_gelu"] = tag.get("quick_gelu", False)  # how the weights of this tag were trained
    return OpenCLIPSource(
        name, "open_clip pretrained", model_cfg, openai_preprocess(model_cfg, tag), open_state_dict(path)
    )
