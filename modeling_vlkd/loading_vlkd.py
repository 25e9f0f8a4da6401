"""Loads pretrained models whole, or not at all."""

import os
from typing import Any

from transformers import PreTrainedModel
from transformers.utils import logging


def load_whole(model_class: Any, name_or_path: str | os.PathLike, **kwargs: Any) -> PreTrainedModel:
    """Loads a model of which the checkpoint holds every tensor; what else it holds, such as CLIP's other tower, is no
    news.

    Args:
        model_class: a model or an Auto class.
        name_or_path: folder or Hub id.
        kwargs: for `from_pretrained`.

    Raises:
        ValueError: weights are missing; they would have been made up at random.
    """
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()  # transformers would report at length what is left out
    try:
        model, loading = model_class.from_pretrained(name_or_path, output_loading_info=True, **kwargs)
    finally:
        logging.set_verbosity(verbosity)
    if loading["missing_keys"]:
        names = ", ".join(sorted(loading["missing_keys"])[:3])
        raise ValueError(
            f"{name_or_path} lacks {len(loading['missing_keys'])} of the model's tensors, such as {names}."
        )
    return model
