"""Makes transformers' Auto classes and pipelines know VLKD."""

import transformers
from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModelForImageTextToText,
    AutoModelForVisualQuestionAnswering,
    AutoProcessor,
    pipelines,
)

from . import modeling_vlkd
from .configuration_vlkd import AUTO_MAP, VLKDConfig
from .image_processing_vlkd import VLKDImageProcessor
from .pipeline_vlkd import VLKDImageCaptioningPipeline, VLKDVisualQuestionAnsweringPipeline
from .processing_vlkd import VLKDProcessor


def register_auto_classes():
    AutoConfig.register(VLKDConfig.model_type, VLKDConfig, exist_ok=True)
    AutoProcessor.register(VLKDConfig, VLKDProcessor, exist_ok=True)
    # There is one whatever the backend asked for; under a single name the other one would warn at every loading.
    backends = dict.fromkeys(("torchvision", "pil"), VLKDImageProcessor)
    AutoImageProcessor.register(VLKDConfig, image_processor_classes=backends, exist_ok=True)
    for auto_class, reference in AUTO_MAP.items():
        if auto_class.startswith("AutoModel"):
            model_class = getattr(modeling_vlkd, reference.split(".")[1])
            getattr(transformers, auto_class).register(VLKDConfig, model_class, exist_ok=True)


def register_pipelines():
    for task in ("visual-question-answering", "vqa"):  # named there as removed, they would raise before the registry
        pipelines.REMOVED_TASKS.pop(task, None)
    registry = pipelines.PIPELINE_REGISTRY
    registry.register_pipeline(
        "visual-question-answering",
        VLKDVisualQuestionAnsweringPipeline,
        pt_model=AutoModelForVisualQuestionAnswering,
        type="multimodal",
    )
    registry.task_aliases["vqa"] = "visual-question-answering"
    registry.register_pipeline(
        "image-captioning", VLKDImageCaptioningPipeline, pt_model=AutoModelForImageTextToText, type="multimodal"
    )


register_auto_classes()
register_pipelines()
