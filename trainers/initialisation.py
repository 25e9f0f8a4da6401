"""How W_e and W_i start: the paper leaves it open, and it matters."""

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import PreTrainedModel

from modeling_vlkd.modeling_vlkd import pool_sentence
from modeling_vlkd.processing_vlkd import VLKDProcessor


@torch.no_grad()
def align_text_projection(
    model: PreTrainedModel, processor: VLKDProcessor, captions: Sequence[str], text_embeds: Tensor
):
    """Start W_e as the orthogonal map that brings BART's sentences closest to CLIP's texts (Procrustes).

    From a random rotation, TTDM has to turn the whole space, while W'_e and the decoder learn to turn it back on
    captions only; what captions never ask for is lost on the way. Here most of the turning is done at the start,
    W'_e = W_e^T undoes it, and BART goes on as it was.

    Args:
        captions: some hundreds of them are enough; all go through one forward pass.
        text_embeds: `(captions, dim)`, CLIP's embeddings of them.
    """
    base, was_training = model.base_model, model.training
    model.eval()
    inputs = processor.tokenizer(list(captions), padding=True, truncation=True, return_tensors="pt").to(model.device)
    states = base.language_model.get_encoder()(**inputs).last_hidden_state
    model.train(was_training)
    sentences = pool_sentence(states, inputs["attention_mask"], model.config.text_pooling).float()
    left, _, right = torch.linalg.svd(text_embeds.to(sentences).T @ sentences, full_matrices=False)
    base.text_projection.weight.copy_(left @ right)  # (dim, d_model)
    base.text_to_decoder.weight.copy_((left @ right).T)


@torch.no_grad()
def initialise_image_to_decoder(
    model: PreTrainedModel, input_ids: Tensor, attention_mask: Tensor, image_embeds: Tensor
) -> float:
    """Set `W_i = s pinv(W_e)`, so that image rows reach the decoder as sentences do, and as long as them.

    `s` is the mean norm of the sentences `W_e e` over that of the image rows `V`, on the batch given.

    Args:
        input_ids, attention_mask: `(batch, length)`, clean captions.
        image_embeds: `(batch, rows, dim)`.

    Returns:
        `s`.
    """
    base, was_training = model.base_model, model.training
    model.eval()
    sentences = base.get_text_features(input_ids=input_ids, attention_mask=attention_mask).pooler_output
    model.train(was_training)
    scale = sentences.float().norm(dim=-1).mean() / image_embeds.float().norm(dim=-1).mean()  # norms of (batch, dim)
    weight = base.image_to_decoder.weight
    weight.copy_(scale * torch.linalg.pinv(base.text_projection.weight.float()))  # (d_model, dim)
    return scale.item()
