"""How W_i starts: the paper leaves it open, and the scale of the image rows matters."""

import torch
from torch import Tensor
from transformers import PreTrainedModel


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
