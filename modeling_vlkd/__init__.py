"""VLKD: give any CLIP a voice (arXiv:2203.06386).

Importing the package makes transformers' Auto classes and pipelines know the model.
"""

import sys
from importlib import import_module, metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any


__version__ = "0.1.0"

_MODULES = {
    "VLKDConfig": "configuration_vlkd",
    "CLIPResNetVisionConfig": "configuration_clip_resnet_vlkd",
    "CLIPResNetVisionModelWithProjection": "modeling_clip_resnet_vlkd",
    "VLKDImageProcessor": "image_processing_vlkd",
    "VLKDModel": "modeling_vlkd",
    "VLKDForConditionalGeneration": "modeling_vlkd",
    "VLKDForSequenceClassification": "modeling_vlkd",
    "VLKDForZeroShotImageClassification": "modeling_zero_shot_vlkd",
    "VLKDProcessor": "processing_vlkd",
    "VLKDVisualQuestionAnsweringPipeline": "pipeline_vlkd",
    "VLKDImageCaptioningPipeline": "pipeline_vlkd",
}
__all__ = sorted(_MODULES)

if TYPE_CHECKING:
    from .configuration_clip_resnet_vlkd import CLIPResNetVisionConfig as CLIPResNetVisionConfig
    from .configuration_vlkd import VLKDConfig as VLKDConfig
    from .image_processing_vlkd import VLKDImageProcessor as VLKDImageProcessor
    from .modeling_clip_resnet_vlkd import CLIPResNetVisionModelWithProjection as CLIPResNetVisionModelWithProjection
    from .modeling_vlkd import VLKDForConditionalGeneration as VLKDForConditionalGeneration
    from .modeling_vlkd import VLKDForSequenceClassification as VLKDForSequenceClassification
    from .modeling_vlkd import VLKDModel as VLKDModel
    from .modeling_zero_shot_vlkd import VLKDForZeroShotImageClassification as VLKDForZeroShotImageClassification
    from .pipeline_vlkd import VLKDImageCaptioningPipeline as VLKDImageCaptioningPipeline
    from .pipeline_vlkd import VLKDVisualQuestionAnsweringPipeline as VLKDVisualQuestionAnsweringPipeline
    from .processing_vlkd import VLKDProcessor as VLKDProcessor


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import_module(".registration", __name__)  # done already, except in the command `vlkd`, which skips it below
    return getattr(import_module(f".{_MODULES[name]}", __name__), name)


def _runs_as_command() -> bool:
    """Tell whether this process runs the installed command `vlkd`, not a user's own script of the same name."""
    script = Path(sys.argv[0] if sys.argv else "")
    if script.name.lower() not in ("vlkd", "vlkd.exe", "vlkd-script.py"):
        return False
    try:
        installed = metadata.files(__name__) or []
    except metadata.PackageNotFoundError:
        return False
    return any(file.name == script.name and Path(file.locate()).resolve() == script.resolve() for file in installed)


# Registration imports torch, which takes seconds. So that `vlkd --help` answers at once, the command does not register
# here: `__getattr__` registers when the first class is asked for.
if not _runs_as_command():
    import_module(".registration", __name__)
