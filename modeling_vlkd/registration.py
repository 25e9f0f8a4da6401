"""Register VLKD with transformers' Auto classes and pipelines, and tell peft where LoRA goes by default."""

import sys
from collections.abc import Sequence
from importlib import import_module
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

from .configuration_vlkd import VLKDConfig
from .hub_files_vlkd import AUTO_MAP
from .image_processing_vlkd import VLKDImageProcessor
from .pipeline_vlkd import VLKDImageCaptioningPipeline, VLKDVisualQuestionAnsweringPipeline
from .processing_vlkd import VLKDProcessor


# The default targets of LoRA, as peft has them for BART: `q_proj` and `v_proj`. CLIP has modules of the same names, so
# the expression matches only those of BART, e.g. "model.language_model.encoder.layers.0.self_attn.q_proj".
LORA_TARGETS = r"(.*\.)?language_model\..*\.(q_proj|v_proj)"
PEFT_TABLES = "peft.utils.constants"


def register_auto_classes():
    """Register the configuration, processors and models with the Auto classes."""
    AutoConfig.register(VLKDConfig.model_type, VLKDConfig, exist_ok=True)
    AutoProcessor.register(VLKDConfig, VLKDProcessor, exist_ok=True)
    # transformers asks for one of two backends and warns at each loading if that one is missing. Ours serves as both.
    backends = dict.fromkeys(("torchvision", "pil"), VLKDImageProcessor)
    AutoImageProcessor.register(VLKDConfig, image_processor_classes=backends, exist_ok=True)
    for auto_class, reference in AUTO_MAP.items():
        if auto_class.startswith("AutoModel"):
            module, name = reference.split(".")
            model_class = getattr(import_module(f".{module}", __package__), name)
            getattr(transformers, auto_class).register(VLKDConfig, model_class, exist_ok=True)


def register_pipelines():
    """Register both pipelines; the task "visual-question-answering" was one of transformers' own before 5.3."""
    # transformers raises an error for every task in REMOVED_TASKS before it looks into the registry.
    for task in ("visual-question-answering", "vqa"):
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
    """Enter `LORA_TARGETS` into peft's table of default targets.

    Args:
        peft_tables: the module `peft.utils.constants`.
    """
    peft_tables.TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING[VLKDConfig.model_type] = LORA_TARGETS


class PeftFinder(MetaPathFinder):
    """Registers the LoRA targets as soon as peft is imported.

    Importing peft takes seconds, so it is not imported here for users who do not need it. This finder waits on
    `sys.meta_path`. When peft imports its tables, it finds the module by the other finders, and registers the targets
    after the module has run. It does so once and removes itself.
    """

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != PEFT_TABLES:
            return None
        sys.meta_path.remove(self)  # otherwise `find_spec` would call this method again
        spec = find_spec(fullname)
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
