"""Makes transformers' Auto classes and pipelines know VLKD, without importing them before they are asked for.

Importing torch and transformers takes seconds, which `vlkd --help` should not cost. So each registration waits for the
module of transformers that it concerns, or is done at once where that module is loaded already.
"""

import sys
from collections.abc import Callable, Sequence
from functools import partial
from importlib import import_module
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType
from typing import Any


def register_config():
    from transformers import AutoConfig

    from .configuration_vlkd import VLKDConfig

    AutoConfig.register(VLKDConfig.model_type, VLKDConfig, exist_ok=True)


def register_models():
    import transformers

    from . import modeling_vlkd
    from .configuration_vlkd import AUTO_MAP, VLKDConfig

    for auto_class, reference in AUTO_MAP.items():
        if auto_class.startswith("AutoModel"):
            model_class = getattr(modeling_vlkd, reference.split(".")[1])
            getattr(transformers, auto_class).register(VLKDConfig, model_class, exist_ok=True)


def register_image_processor():
    from transformers import AutoImageProcessor

    from .configuration_vlkd import VLKDConfig
    from .image_processing_vlkd import VLKDImageProcessor

    # There is one whatever the backend asked for; under a single name the other one would warn at every loading.
    backends = dict.fromkeys(("torchvision", "pil"), VLKDImageProcessor)
    AutoImageProcessor.register(VLKDConfig, image_processor_classes=backends, exist_ok=True)


def register_processor():
    from transformers import AutoProcessor

    from .configuration_vlkd import VLKDConfig
    from .processing_vlkd import VLKDProcessor

    AutoProcessor.register(VLKDConfig, VLKDProcessor, exist_ok=True)


def register_pipelines():
    from transformers import AutoModelForImageTextToText, AutoModelForVisualQuestionAnswering, pipelines

    from .pipeline_vlkd import VLKDImageCaptioningPipeline, VLKDVisualQuestionAnsweringPipeline

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


# What makes a registration due: either the module of transformers that it concerns, or our own module, is loaded.
TRIGGERS = {
    "transformers.models.auto.configuration_auto": "modeling_vlkd.configuration_vlkd",
    "transformers.models.auto.modeling_auto": "modeling_vlkd.modeling_vlkd",
    "transformers.models.auto.image_processing_auto": "modeling_vlkd.image_processing_vlkd",
    "transformers.models.auto.processing_auto": "modeling_vlkd.processing_vlkd",
    "transformers.pipelines": "modeling_vlkd.pipeline_vlkd",
}
# Done after our own module is complete, and not from within it: it may be what imports that part of transformers.
REGISTRATIONS: dict[str, Callable[[], None]] = {
    "modeling_vlkd.configuration_vlkd": register_config,
    "modeling_vlkd.modeling_vlkd": register_models,
    "modeling_vlkd.image_processing_vlkd": register_image_processor,
    "modeling_vlkd.processing_vlkd": register_processor,
    "modeling_vlkd.pipeline_vlkd": register_pipelines,
}


class RegisterOnImport(MetaPathFinder):
    """Runs an action once, right after the module that it waits for has been imported."""

    def __init__(self, actions: dict[str, Callable[[], Any]]):
        self.actions = actions

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname not in self.actions:
            return None
        action = self.actions.pop(fullname)  # first, since the search below comes here again
        spec = find_spec(fullname)
        if spec is None or spec.loader is None:
            return None
        execute = spec.loader.exec_module

        def execute_and_act(module: ModuleType):
            execute(module)
            action()

        spec.loader.exec_module = execute_and_act  # type: ignore[method-assign]
        return spec


def register():
    """Registers now what concerns loaded modules of transformers, and the rest when they are imported."""
    sys.meta_path.insert(0, RegisterOnImport(dict(REGISTRATIONS)))
    waiting: dict[str, Callable[[], Any]] = {}
    for trigger, module in TRIGGERS.items():
        if trigger in sys.modules:
            import_module(module)
        else:
            waiting[trigger] = partial(import_module, module)
    sys.meta_path.insert(0, RegisterOnImport(waiting))
