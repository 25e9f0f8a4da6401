"""How W_e and W_i start: the paper leaves it open, and it matters."""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor
from transformers import PreTrainedModel

from modeling_vlkd.evaluation.vlkd_model import evaluating
from modeling_vlkd.memory_vlkd import pool_sentence
from modeling_vlkd.processing_vlkd import VLKDProcessor


@torch.no_grad()
def align_text_projection(
    model: PreTrainedModel, processor: VLKDProcessor, captions: Sequence[str], text_embeds: Tensor
):
    """Start W_e as the orthogonal map that brings BART's sentences closest to CLIP's texts (Procrustes).

    From a random rotation, TTDM has to turn the whole space, while W'_e and the decoder learn to turn it back on
    captions only; what captions never ask for is lost on the way. Here most of the turning is done at the start,
    W'_e = W_e^T undoes it, as W_i does to begin with, and BART goes on as it was.

    Args:
        captions: some hundreds of them are enough; all go through one forward pass.
        text_embeds: `(captions, dim)`, CLIP's embeddings of them.

    Raises:
        ValueError: the model was distilled before, and what it learned would be lost.
    """
    if was_distilled(model):
        raise ValueError(
            "The model was distilled before, and aligning W_e again would undo that: leave `align_text_projection` "
            "out to go on with it, or start from the CLIP and the BART."
        )
    base = model.base_model
    inputs = processor.tokenizer(list(captions), padding=True, truncation=True, return_tensors="pt").to(model.device)
    with evaluating(model):
        states = base.language_model.get_encoder()(**inputs).last_hidden_state
    sentences = pool_sentence(states, inputs["attention_mask"], model.config.text_pooling).float()
    left, _, right = torch.linalg.svd(text_embeds.to(sentences).T @ sentences, full_matrices=False)
    base.text_projection.weight.copy_(left @ right)  # (dim, d_model)
    for matrix in (base.text_to_decoder, base.image_to_decoder):
        matrix.weight.copy_((left @ right).T)


@torch.no_grad()
def was_distilled(model: PreTrainedModel) -> bool:
    """Tell whether a model was trained: W_i of one just assembled is the pseudo-inverse of W_e.

    Training moves both matrices, and its first step is to scale W_i.
    """
    weight = model.base_model.image_to_decoder.weight.float()
    inverse = torch.linalg.pinv(model.base_model.text_projection.weight.float())
    # Two machines find pseudo-inverses a little apart, and a model in bf16 holds them to eight bits.
    rounding = max(1e-3, 2 * torch.finfo(model.base_model.image_to_decoder.weight.dtype).eps)
    return not torch.allclose(weight, inverse, rtol=0, atol=rounding * inverse.abs().max().item())


@torch.no_grad()
def initialize_image_to_decoder(model: PreTrainedModel, batches: Iterable[tuple[Tensor, Tensor, Tensor]]) -> float:
    """Set `W_i = s pinv(W_e)`, so that image rows reach the decoder as sentences do, and as long as them.

    `s` is the mean norm of the sentences `W_e e` over that of the image rows `V`, on the batches given.

    Args:
        batches: of clean captions, `input_ids` and `attention_mask`, `(batch, length)`, and `image_embeds`,
            `(batch, rows, dim)`.

    Returns:
        `s`.
    """
    base, sentence_norms, row_norms = model.base_model, [], []
    with evaluating(model):
        for input_ids, attention_mask, image_embeds in batches:
            sentences = base.get_text_features(input_ids=input_ids, attention_mask=attention_mask).pooler_output
            sentence_norms.append(sentences.float().norm(dim=-1))  # (batch,)
            row_norms.append(image_embeds.float().norm(dim=-1).flatten())  # (batch * rows,)
    scale = torch.cat(sentence_norms).mean() / torch.cat(row_norms).mean()
    weight = base.image_to_decoder.weight
    weight.copy_(scale * torch.linalg.pinv(base.text_projection.weight.float()))  # (d_model, dim)
    return scale.item()
