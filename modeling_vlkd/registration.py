"""Make transformers' Auto classes and pipelines know VLKD, and peft where its adapters go."""

import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType

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
from .configuration_vlkd import VLKDConfig
from .hub_files_vlkd import AUTO_MAP
from .image_processing_vlkd import VLKDImageProcessor
from .pipeline_vlkd import VLKDImageCaptioningPipeline, VLKDVisualQuestionAnsweringPipeline
from .processing_vlkd import VLKDProcessor


# Where LoRA goes unless it is told: what peft chooses for BART, and not CLIP's projections of the same names.
LORA_TARGETS = r"(.*\.)?language_model\..*\.(q_proj|v_proj)"
PEFT_TABLES = "peft.utils.constants"


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


def register_lora_targets(peft_tables: ModuleType):
    peft_tables.TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING[VLKDConfig.model_type] = LORA_TARGETS


class PeftFinder(MetaPathFinder):
    """Registers VLKD with peft at the moment when somebody imports it: nobody waits for peft who does without."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != PEFT_TABLES:
            return None
        sys.meta_path.remove(self)
        spec = find_spec(fullname)  # by the finders that are left
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def execute_and_register(module: ModuleType):
                execute(module)
                register_lora_targets(module)

            spec.loader.exec_module = execute_and_register  # type: ignore[method-assign]
        return spec


register_auto_classes()
register_pipelines()
if PEFT_TABLES in sys.modules:
    register_lora_targets(sys.modules[PEFT_TABLES])
else:
    sys.meta_path.insert(0, PeftFinder())
