"""CLIPs in transformers' format: CLIP, MetaCLIP 2, SigLIP, SigLIP 2 of fixed resolution, and Chinese-CLIP."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image
from torch import Tensor
from transformers import (
    AutoImageProcessor,
    ChineseCLIPModel,
    CLIPModel,
    CLIPTextModelWithProjection,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
    MetaClip2Model,
    MetaClip2TextModelWithProjection,
    MetaClip2VisionModelWithProjection,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    SiglipModel,
    SiglipVisionModel,
)
from transformers.image_processing_utils import BaseImageProcessor
from transformers.initialization import no_init_weights

from modeling_vlkd.modeling_clip_resnet_vlkd import CLIPResNetVisionModelWithProjection

from .errors import ConversionError, UnsupportedError, blaming
from .sources import CLIPSource, Reference, load_tokenizer, read_json
from .strict_loading import check_folder, load_strictly


class Kind(NamedTuple):
    """How transformers holds one kind of CLIP.

    model_class: the class of the whole CLIP, or of a vision tower by itself.
    text_class: the class of the text tower with its projection; None if the tower has no projection or transformers no
        such class.
    is_whole: whether `model_class` has both towers.
    """

    model_class: type[PreTrainedModel]
    text_class: type[PreTrainedModel] | None = None
    is_whole: bool = True


KINDS = {
    "clip": Kind(CLIPModel, CLIPTextModelWithProjection),
    "metaclip_2": Kind(MetaClip2Model, MetaClip2TextModelWithProjection),
    "siglip": Kind(SiglipModel),
    "chinese_clip": Kind(ChineseCLIPModel),
    "clip_vision_model": Kind(CLIPVisionModelWithProjection, is_whole=False),
    "metaclip_2_vision_model": Kind(MetaClip2VisionModelWithProjection, is_whole=False),
    "siglip_vision_model": Kind(SiglipVisionModel, is_whole=False),
    "clip_resnet_vision_model": Kind(CLIPResNetVisionModelWithProjection, is_whole=False),
}
REFUSED = {
    "siglip2": "SigLIP 2 NaFlex takes any number of patches, not pictures; take a checkpoint of fixed resolution.",
    "siglip2_vision_model": "SigLIP 2 NaFlex takes any number of patches; take a checkpoint of fixed resolution.",
}
PREPROCESSING_REMEDY = "take the one that came with the CLIP"
WEIGHT_FILES = ["model*.safetensors", "pytorch_model*.bin"]


def put_together(
    model_class: type[PreTrainedModel], config: PreTrainedConfig, parts: dict[str, Any]
) -> PreTrainedModel:
    """Make a model out of modules of another one, without copying a tensor.

    Args:
        model_class, config: of the new model.
        parts: the modules, by the names that they have in the new model.
    """
    with no_init_weights():
        model = model_class(config)
    tensors = {f"{name}.{key}": tensor for name, part in parts.items() for key, tensor in part.state_dict().items()}
    model.load_state_dict(tensors, assign=True)
    return model.eval()


class TransformersSource(CLIPSource):
    """A CLIP, or only its vision tower, in a folder as transformers saves it.

    Args:
        name: what the user called it.
        folder: its path.
    """

    def __init__(self, name: str, folder: Path):
        self.name, self.folder = name, folder
        model_type = str(read_json(folder / "config.json").get("model_type"))
        if model_type in REFUSED:
            raise ConversionError(f"{name}: {REFUSED[model_type]}")
        if model_type.endswith("_text_model"):
            raise ConversionError(f"{name} is the text tower of a CLIP alone; give the whole CLIP.")
        if model_type not in KINDS:
            raise ConversionError(f"{name} is a {model_type!r}, not a CLIP; supported: {', '.join(KINDS)}.")
        self.kind = KINDS[model_type]
        self.format = f"transformers {model_type}"
        # A CLIP that was saved with a whole processor has its preprocessing in the processor's file.
        own = folder / "preprocessor_config.json"
        self.preprocessing = str(own if own.is_file() else folder / "processor_config.json")
        check_folder(self.kind.model_class, folder)

    def load(self) -> PreTrainedModel:
        return load_strictly(self.kind.model_class, self.folder)

    def vision_tower(self) -> PreTrainedModel:
        model = self.load()
        if isinstance(model, (CLIPVisionModelWithProjection, SiglipVisionModel, CLIPResNetVisionModelWithProjection)):
            return model
        return model.vision_model if isinstance(model, SiglipModel) else clip_tower(model)

    def image_processor(self) -> BaseImageProcessor:
        if Path(self.preprocessing).is_file():
            read_json(Path(self.preprocessing))
        with blaming(f"{self.name}: has no usable preprocessor_config.json", PREPROCESSING_REMEDY):
            processor = AutoImageProcessor.from_pretrained(self.folder, local_files_only=True, trust_remote_code=False)
        return processor

    def text_teacher(self) -> PreTrainedModel:
        if not self.kind.is_whole:
            raise UnsupportedError(f"{self.name} is a vision tower without a text tower.")
        model = self.load()
        if isinstance(model, SiglipModel):
            return model.text_model
        if self.kind.text_class is None:
            raise UnsupportedError(f"transformers has no class for the text tower of {self.format} by itself.")
        config = model.config.text_config
        config.projection_dim = model.config.projection_dim
        parts = {"text_model": model.text_model, "text_projection": model.text_projection}
        return put_together(self.kind.text_class, config, parts)

    def tokenizer(self) -> PreTrainedTokenizerBase:
        return load_tokenizer(self.folder, local_files_only=True)

    def vision_reference(self) -> Reference:
        model, processor = self.load(), self.image_processor()

        def prepare(picture: Image.Image) -> Tensor:
            return processor(picture, return_tensors="pt")["pixel_values"][0]

        return Reference(image_encoder(model, self.kind.is_whole), prepare, "transformers")

    def text_reference(self) -> Reference:
        if not self.kind.is_whole:
            raise UnsupportedError(f"{self.name} is a vision tower without a text tower.")
        model = self.load()

        def prepare(text: str) -> Tensor:
            return self.tokenizer()(text, truncation=True, return_tensors="pt")["input_ids"][0]

        return Reference(lambda ids: model.get_text_features(input_ids=ids).pooler_output, prepare, "transformers")


def clip_tower(model: PreTrainedModel) -> CLIPVisionModelWithProjection:
    """Make CLIP's vision tower out of one of the same architecture that has another name in transformers.

    MetaCLIP 2 and Chinese-CLIP changed only the text tower; in the vision tower even the names of tensors are CLIP's.
    """
    source = getattr(model.config, "vision_config", model.config)
    config = CLIPVisionConfig(**{field: getattr(source, field) for field in CLIPVisionConfig.__annotations__})
    config.projection_dim = model.config.projection_dim  # a whole CLIP uses this value, not that of its vision_config
    parts = {"vision_model": model.vision_model, "visual_projection": model.visual_projection}
    return put_together(CLIPVisionModelWithProjection, config, parts)


def image_encoder(model: PreTrainedModel, is_whole: bool) -> Callable[[Tensor], Tensor]:
    """Make the function by which a model of transformers embeds pixels in the joint space."""
    if is_whole:
        return lambda pixels: model.get_image_features(pixel_values=pixels).pooler_output
    if isinstance(model, SiglipVisionModel):
        return lambda pixels: model(pixel_values=pixels).pooler_output
    return lambda pixels: model(pixel_values=pixels).image_embeds
