"""What a checkpoint on the Hub brings along: the one place that names every file of code that is copied to it.

`save_pretrained` copies the file of the class that is saved, the files that it imports as `from .sibling import Name`,
and so on. Saving the model has to bring the processor and the pipeline along, and saving the processor the model:
Trainer pushes while it trains by copying the weights and saving the processor alone. So both import this file, and
this file names all of them. At run time it imports none, for it is imported by all.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from transformers.utils.versions import require_version


# Code that is run from the Hub was not installed: with an older transformers it would fail somewhere, and not say why.
require_version("transformers>=5.24", "Upgrade it: `pip install --upgrade transformers`.")

if TYPE_CHECKING:  # each file once, by one of its names
    from .configuration_clip_resnet_vlkd import CLIPResNetVisionConfig as CLIPResNetVisionConfig
    from .configuration_vlkd import VLKDConfig as VLKDConfig
    from .generation_vlkd import generate_answers as generate_answers
    from .image_processing_vlkd import VLKDImageProcessor as VLKDImageProcessor
    from .known_prefix_vlkd import known_prefixes as known_prefixes
    from .memory_vlkd import build_memory as build_memory
    from .modeling_clip_resnet_vlkd import CLIPResNetVisionModelWithProjection as CLIPResNetVisionModelWithProjection
    from .modeling_vlkd import VLKDModel as VLKDModel
    from .pipeline_vlkd import VLKDVisualQuestionAnsweringPipeline as VLKDVisualQuestionAnsweringPipeline
    from .processing_vlkd import VLKDProcessor as VLKDProcessor
    from .towers_vlkd import load_whole as load_whole

# What a repository's config.json says, so that `from_pretrained(..., trust_remote_code=True)` finds the code that
# `save_pretrained` puts beside it. Written by hand: transformers gathers only the class that is being saved.
AUTO_MAP = {
    "AutoConfig": "configuration_vlkd.VLKDConfig",
    "AutoModel": "modeling_vlkd.VLKDModel",
    "AutoModelForImageTextToText": "modeling_vlkd.VLKDForConditionalGeneration",
    "AutoModelForVisualQuestionAnswering": "modeling_vlkd.VLKDForConditionalGeneration",
    "AutoModelForSeq2SeqLM": "modeling_vlkd.VLKDForConditionalGeneration",
    "AutoModelForSequenceClassification": "modeling_vlkd.VLKDForSequenceClassification",
    "AutoProcessor": "processing_vlkd.VLKDProcessor",
}
# One entry only: with a second one, `pipeline(model=...)` could no longer infer the task.
CUSTOM_PIPELINES = {
    "visual-question-answering": {
        "impl": "pipeline_vlkd.VLKDVisualQuestionAnsweringPipeline",
        "pt": ["AutoModelForVisualQuestionAnswering"],
        "default": None,
        "type": "multimodal",
    }
}

Saved = TypeVar("Saved", bound=type[Any])


def brings_its_code(auto_class: str) -> Callable[[Saved], Saved]:
    """Have `save_pretrained` of a class copy the code beside what it saves, which `auto_class` then loads."""

    def register(saved_class: Saved) -> Saved:
        saved_class.register_for_auto_class(auto_class)
        return saved_class

    return register
