"""Name every code file that is copied to the Hub together with a checkpoint.

`save_pretrained` copies the file of the class that is saved, then every file that it imports as
`from .sibling import Name`, and so on. A checkpoint needs all code files, whichever part is saved: the model needs the
processor and the pipelines, and the processor needs the model (when Trainer pushes during training, it copies the
weights and saves only the processor). So every class that is saved imports this file, and this file names all others.
The imports are under `TYPE_CHECKING`, which is enough for copying: at run time they would be circular.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from transformers.utils.versions import require_version


# Code that runs from the Hub was not installed by pip, which would have checked the version of transformers.
require_version("transformers>=5.24", "Upgrade it: `pip install --upgrade transformers`.")

if TYPE_CHECKING:  # one name from each file is enough
    from .configuration_clip_resnet_vlkd import CLIPResNetVisionConfig as CLIPResNetVisionConfig
    from .configuration_vlkd import VLKDConfig as VLKDConfig
    from .generation_vlkd import generate_answers as generate_answers
    from .image_processing_vlkd import VLKDImageProcessor as VLKDImageProcessor
    from .known_prefix_vlkd import known_prefixes as known_prefixes
    from .memory_vlkd import build_memory as build_memory
    from .modeling_clip_resnet_vlkd import CLIPResNetVisionModelWithProjection as CLIPResNetVisionModelWithProjection
    from .modeling_vlkd import VLKDModel as VLKDModel
    from .modeling_zero_shot_vlkd import VLKDForZeroShotImageClassification as VLKDForZeroShotImageClassification
    from .pipeline_vlkd import VLKDVisualQuestionAnsweringPipeline as VLKDVisualQuestionAnsweringPipeline
    from .processing_vlkd import VLKDProcessor as VLKDProcessor
    from .towers_vlkd import load_whole as load_whole

# Written to config.json, so that `from_pretrained(..., trust_remote_code=True)` finds the code that `save_pretrained`
# has put beside it. The table is written by hand, because transformers would enter only the class that is being saved.
AUTO_MAP = {
    "AutoConfig": "configuration_vlkd.VLKDConfig",
    "AutoModel": "modeling_vlkd.VLKDModel",
    "AutoModelForImageTextToText": "modeling_vlkd.VLKDForConditionalGeneration",
    "AutoModelForVisualQuestionAnswering": "modeling_vlkd.VLKDForConditionalGeneration",
    "AutoModelForSeq2SeqLM": "modeling_vlkd.VLKDForConditionalGeneration",
    "AutoModelForSequenceClassification": "modeling_vlkd.VLKDForSequenceClassification",
    "AutoModelForZeroShotImageClassification": "modeling_zero_shot_vlkd.VLKDForZeroShotImageClassification",
    "AutoProcessor": "processing_vlkd.VLKDProcessor",
}
# Only one entry: with two, `pipeline(model=...)` without a task could not choose between them.
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
    """Make `save_pretrained` of a class copy the code files beside what it saves, so that `auto_class` can load it."""

    def register(saved_class: Saved) -> Saved:
        saved_class.register_for_auto_class(auto_class)
        return saved_class

    return register
