"""Make the model known to lmms-eval, which finds this function by the entry point of the installed package."""

from typing import Any


def manifest() -> Any:
    """Say which class stands for `--model vlkd`; it is imported only when it is asked for."""
    from lmms_eval.models.registry_v2 import ModelManifest

    return ModelManifest(model_id="vlkd", simple_class_path="modeling_vlkd.evaluation.lmms_harness.VLKDForLmmsEval")
