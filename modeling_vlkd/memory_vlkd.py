"""Build the memory, C of eq. (1) in arXiv:2203.06386: the image rows and text states that the decoder attends to.

Pure functions of tensors for the memory and its masks. `V` are the image rows in CLIP's joint space, `E` the states of
BART's encoder.
"""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor


def pool_sentence(states: Tensor, attention_mask: Tensor | None, text_pooling: str) -> Tensor:
    """Take one state for the sentence: the first attended (`"bos"`), the last (`"eos"`) or their mean.

    Args:
        states: `(batch, length, d_model)`.
        attention_mask: `(batch, length)`, 1 for attended positions. None means that all are attended.
        text_pooling: `"bos"`, `"eos"` or `"mean"`.

    Returns:
        `(batch, d_model)`.
    """
    if attention_mask is None:
        attention_mask = torch.ones(states.shape[:2], dtype=torch.long, device=states.device)
    if text_pooling == "mean":
        weights = attention_mask.to(states.dtype)[..., None]
        return (states * weights).sum(dim=1) / weights.sum(dim=1)
    positions = torch.arange(1, states.shape[1] + 1, device=states.device)
    order = positions if text_pooling == "eos" else positions.flip(0)
    chosen = (attention_mask.to(torch.long) * order).argmax(dim=1)
    return states[torch.arange(states.shape[0], device=states.device), chosen]


def build_memory(
    text_states: Tensor,
    image_embeds: Tensor | None,
    bridge_text: Callable[[Tensor], Tensor],
    bridge_image: Callable[[Tensor], Tensor],
    projection_dim: int,
) -> Tensor:
    """Join image rows and text states: `C = [W_i V ; W'_e W_e E]`, or `W'_e W_e E` without an image.

    Args:
        text_states: E, `(batch, length, d_model)`.
        image_embeds: V, `(batch, rows, projection_dim)`, or None.
        bridge_text: `W'_e W_e`, `(..., d_model)` to `(..., d_model)`.
        bridge_image: `W_i`, `(..., projection_dim)` to `(..., d_model)`.

    Returns:
        `(batch, rows + length, d_model)`.

    Raises:
        ValueError: image rows of another shape, or another number of images than of texts.
    """
    bridged = bridge_text(text_states)
    if image_embeds is None:
        return bridged
    if image_embeds.ndim != 3 or image_embeds.shape[-1] != projection_dim:
        raise ValueError(
            f"Expected image_embeds of shape (batch, rows, {projection_dim}), as `get_image_rows` returns them; got "
            f"{tuple(image_embeds.shape)}."
        )
    # Not `len`: it would fix the batch size in torch.export.
    images, texts = image_embeds.shape[0], text_states.shape[0]
    if images != texts:
        raise ValueError(f"Expected one image per text, got {images} images and {texts} texts.")
    return torch.cat([bridge_image(image_embeds.to(bridged)), bridged], dim=1)


def cover_image_rows(attention_mask: Tensor | None, memory_length: int) -> Tensor | None:
    """Extend a mask of the text, `(batch, length)`, to the memory: ones for the image rows, which stand first.

    A mask that already has the memory's length is returned unchanged; a longer one is a ValueError.
    """
    if attention_mask is None:
        return None
    rows = memory_length - attention_mask.shape[-1]
    if rows < 0:
        raise ValueError(
            f"attention_mask covers {attention_mask.shape[-1]} positions, but the encoder output has {memory_length}."
        )
    return torch.cat([attention_mask.new_ones(attention_mask.shape[0], rows), attention_mask], dim=-1)


def mask_of_text(attention_mask: Tensor | None, text: Tensor, image_embeds: Tensor | None) -> Tensor | None:
    """Take the part of a mask that covers the text, `(batch, length)`.

    Args:
        attention_mask: of the text, or of the whole memory, `(batch, rows + length)`.
        text: token ids `(batch, length)` or embeddings `(batch, length, d_model)`.
        image_embeds: V, `(batch, rows, projection_dim)`, or None.

    Raises:
        ValueError: a mask of another shape, which would hide the wrong positions.
    """
    if attention_mask is None:
        return None
    batch, length = text.shape[:2]
    rows = 0 if image_embeds is None else image_embeds.shape[1]
    if tuple(attention_mask.shape) not in ((batch, length), (batch, rows + length)):
        raise ValueError(
            f"Expected attention_mask of shape {(batch, length)}, or {(batch, rows + length)} with the image rows, "
            f"got {tuple(attention_mask.shape)}."
        )
    return attention_mask[:, -length:]


def attach_unused(memory: Tensor, parameters: Iterable[Tensor]) -> Tensor:
    """Give parameters a gradient of 0 through the memory; the values of the memory do not change."""
    for parameter in parameters:
        memory = memory + 0 * parameter.sum().to(memory)
    return memory
