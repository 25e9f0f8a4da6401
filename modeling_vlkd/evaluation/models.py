"""Load any model that can be evaluated, ours or a peer, from its folder or the Hub."""

import os
from typing import Any

import torch
import transformers
from safetensors import SafetensorError
from transformers import AutoConfig, AutoProcessor, PreTrainedConfig, PreTrainedModel, ProcessorMixin
from transformers.utils import logging

from modeling_vlkd import VLKDForConditionalGeneration, VLKDProcessor
from modeling_vlkd.towers_vlkd import load_whole

from .errors import EvaluationError
from .peers import CHAT, Peer, adapt, find_peer, is_known, unknown_type
from .protocol import VisionLanguageModel
from .vlkd_model import VLKDAdapter


def load_model(
    name: str,
    device: torch.device | str | None = None,
    dtype: torch.dtype | str = "auto",
    batch_size: int = 32,
    trust_remote_code: bool = False,
    **settings: Any,
) -> VisionLanguageModel:
    """Load a model to evaluate: a VLKD, or a peer that `peers.py` lists.

    A folder is read without the network. Weights are read from safetensors alone.

    Args:
        name: a folder or Hub id.
        device: defaults to an accelerator, or the CPU if there is none.
        dtype: type of the weights, by default that of the file.
        batch_size: pictures, questions or texts at a time.
        trust_remote_code: whether code that comes with the checkpoint may run. That of a VLKD is not needed.
        settings: of the adapter, over its defaults: `num_beams` and others of `generate()`; for a VLKD those of
            [`VLKDAdapter`], for peers that write those of [`WritingAdapter`], such as `question_prompt`.

    Raises:
        EvaluationError: no such model, one that cannot be evaluated, or an incomplete one.
        OSError: the configuration in a folder cannot be read.
    """
    config = read_config(name)
    if kind_of(config) == "vlkd":
        return VLKDAdapter(*load_vlkd(name, device, dtype), batch_size, **settings)
    peer = peer_of(config, name, trust_remote_code)
    model_class = getattr(transformers, peer.model_class)
    consent = {"trust_remote_code": trust_remote_code}
    model = move(load_weights(model_class, name, dtype, **consent), device)
    processor = load_processor(AutoProcessor, name, **consent)
    if not isinstance(processor, ProcessorMixin):  # it is then one part of it, as AutoProcessor gives what it finds
        raise processor_error(name, f"there is only its {type(processor).__name__}")
    return adapt(model, processor, name, peer, batch_size=batch_size, **settings)


def load_vlkd(
    name: str, device: torch.device | str | None = None, dtype: torch.dtype | str = "auto"
) -> tuple[VLKDForConditionalGeneration, VLKDProcessor]:
    """Load a VLKD and its processor; arguments and errors as those of `load_model`."""
    model = move(load_weights(VLKDForConditionalGeneration, name, dtype), device)
    return model, load_processor(VLKDProcessor, name)


def read_config(name: str) -> Any:
    """Read what a checkpoint says of its model: a dictionary, if it is as it should be."""
    if os.path.isfile(name):
        raise EvaluationError(f"{name} is a file; name the folder of a checkpoint.")
    if not os.path.isdir(name) and name.startswith((".", "/", "~")):
        raise EvaluationError(f"There is no folder {name}; name that of a checkpoint, or a Hub id.")
    if os.path.isdir(name) and not os.path.isfile(os.path.join(name, "config.json")):
        raise EvaluationError(f"{name} holds no checkpoint: there is no config.json in it.")
    try:
        return PreTrainedConfig.get_config_dict(name)[0]
    except (OSError, ValueError) as error:
        if os.path.isdir(name):
            raise
        raise EvaluationError(f"There is no folder {name!r}, and on the Hub: {first_line(error)}") from error


def kind_of(config: Any) -> Any:
    """Return the model type that a configuration names; what is no configuration is returned as it is."""
    return config.get("model_type") if isinstance(config, dict) else config


def peer_of(config: Any, name: str, trust_remote_code: bool) -> Peer:
    """Find how the model of a checkpoint is asked, before anything else of it is read.

    A type that transformers does not know is a chat model about pictures if it comes with code that says so.
    """
    kind = kind_of(config)
    if not is_known(kind) and isinstance(config, dict) and CHAT.model_class in (config.get("auto_map") or {}):
        if not trust_remote_code:
            raise EvaluationError(
                f"{name} holds a model of type {kind!r}, whose code comes with it; if you trust that, let it run by "
                "trust_remote_code."
            )
        return CHAT
    if not is_known(kind):
        raise unknown_type(name, kind)
    return find_peer(AutoConfig.from_pretrained(name), name)


def load_weights(model_class: Any, name: str, dtype: torch.dtype | str, **kwargs: Any) -> PreTrainedModel:
    """Load a whole model from safetensors, which cannot run code as other files can."""
    logging.disable_progress_bar()
    try:
        return load_whole(model_class, name, dtype=dtype, use_safetensors=True, **kwargs)
    except SafetensorError as error:
        raise EvaluationError(
            f"The weights of {name} are truncated or damaged ({error}); fetch them again."
        ) from error
    except OSError as error:
        raise EvaluationError(
            f"The weights of {name} cannot be loaded ({first_line(error)}); they have to be in safetensors."
        ) from error


def move(model: PreTrainedModel, device: torch.device | str | None) -> PreTrainedModel:
    """Move a model to a device, by default to an accelerator if there is one."""
    device = device or torch.accelerator.current_accelerator(check_available=True) or "cpu"
    try:
        return model.to(device)
    except RuntimeError as error:
        raise EvaluationError(f"--device {device} cannot be used: {first_line(error)}") from error


def load_processor(processor_class: Any, name: str, **kwargs: Any) -> Any:
    try:
        return processor_class.from_pretrained(name, **kwargs)
    except (OSError, ValueError) as error:
        raise processor_error(name, first_line(error)) from error


def processor_error(name: str, reason: str) -> EvaluationError:
    return EvaluationError(
        f"The processor of {name} cannot be loaded ({reason}); save it there again: "
        "`processor.save_pretrained(folder)`."
    )


def first_line(error: Exception) -> str:
    return str(error).splitlines()[0].rstrip(".:")
