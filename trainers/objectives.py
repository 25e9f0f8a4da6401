"""The three objectives of VLKD (arXiv:2203.06386, section 3.2) as pure functions of tensors."""

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor


class _GatherRows(torch.autograd.Function):
    """All-gather over the first dimension that lets gradients flow back to the process each row came from."""

    @staticmethod
    def forward(ctx, rows: Tensor) -> Tensor:
        gathered = [torch.empty_like(rows) for _ in range(dist.get_world_size())]
        dist.all_gather(gathered, rows.contiguous())
        return torch.cat(gathered)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        gradient = gradient.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(gradient)  # every process used these rows as negatives: sum what they all say about them
        return gradient.chunk(dist.get_world_size())[dist.get_rank()]


def gather_rows(rows: Tensor) -> Tensor:
    """Stack the rows of all processes, `(batch, dim)` to `(processes * batch, dim)`, with gradient.

    Every process must hold equally many rows. Without `torch.distributed` the rows come back as they are.
    """
    if not dist.is_available() or not dist.is_initialized() or dist.get_world_size() == 1:
        return rows
    return _GatherRows.apply(rows)


def text_text_distance_loss(student_embeds: Tensor, teacher_embeds: Tensor) -> Tensor:
    """Compute TTDM, text-text distance minimization: the mean squared difference of two unit vectors (section 3.2.1).

    The mean runs over pairs *and* dimensions, so the loss is `2 (1 - cosine) / dim`; the paper's weight of 1000 goes
    with this scale.

    Args:
        student_embeds: `(batch, dim)`, BART's sentences in CLIP's space; normalized here, in fp32.
        teacher_embeds: `(batch, dim)`, the frozen CLIP text embeddings of the same captions; normalized here.
    """
    if student_embeds.shape != teacher_embeds.shape:
        raise ValueError(
            f"Expected one teacher vector per sentence, got {tuple(teacher_embeds.shape)} teacher embeddings for "
            f"{tuple(student_embeds.shape)} sentences."
        )
    return F.mse_loss(F.normalize(student_embeds.float(), dim=-1), F.normalize(teacher_embeds.float(), dim=-1))


def image_text_contrastive_loss(
    image_embeds: Tensor, text_embeds: Tensor, logit_scale: Tensor, gather: bool = False
) -> Tensor:
    """Compute ITCL, image-text contrast: symmetric InfoNCE over the batch (section 3.2.2), in fp32 also in autocast.

    Args:
        image_embeds, text_embeds: `(batch, dim)`, L2-normalized; row i of one matches row i of the other.
        logit_scale: scalar, already exponentiated; not clamped.
        gather: take the pairs of all processes as negatives. Each process then scores its own rows against everyone's,
            so that the *mean* over processes, which is what DistributedDataParallel makes of losses and gradients, is
            the loss of the global batch.
    """
    image_embeds, text_embeds, logit_scale = image_embeds.float(), text_embeds.float(), logit_scale.float()
    all_images, all_texts, first = image_embeds, text_embeds, 0
    if gather:
        all_images, all_texts = gather_rows(image_embeds), gather_rows(text_embeds)
        first = dist.get_rank() * len(image_embeds) if len(all_images) > len(image_embeds) else 0
    targets = torch.arange(first, first + len(image_embeds), device=image_embeds.device)
    # In bfloat16, similarities of .99 and .992 are the same, and autocast would multiply in it.
    with torch.autocast(image_embeds.device.type, enabled=False):
        image_to_text = F.cross_entropy(logit_scale * image_embeds @ all_texts.T, targets)  # (batch, global batch)
        text_to_image = F.cross_entropy(logit_scale * text_embeds @ all_images.T, targets)
    return (image_to_text + text_to_image) / 2


def text_infilling_loss(logits: Tensor, labels: Tensor, num_tokens: Tensor | int | None = None) -> Tensor:
    """Compute ICTI, image-conditioned text infilling: cross-entropy of the whole clean caption (section 3.2.3).

    Args:
        logits: `(batch, length, vocabulary)`.
        labels: `(batch, length)`, the clean caption; -100 does not count.
        num_tokens: what the sum over tokens is divided by, the number of labels here by default. Micro-batches of
            one update pass the count of the whole update, so that their losses add up to its token mean.
    """
    total = F.cross_entropy(logits.flatten(0, 1).float(), labels.flatten(), ignore_index=-100, reduction="sum")
    return total / ((labels != -100).sum().clamp(min=1) if num_tokens is None else num_tokens)


def weighted_answer_loss(
    logits: Tensor,
    labels: Tensor,
    weights: Tensor,
    num_images: Tensor | int,
    label_smoothing: float = 0.0,
) -> Tensor:
    """Compute the loss of generated answers: each counts by its weight, and the sum is divided by the images.

    `sum_a w_a sum_t CE(a, t) / num_images`, as in ALBEF (arXiv:2107.07651, its code's `models/model_vqa.py`): an image
    stands for a question about it, and the weights of a question's different answers, the share of people who gave
    each, add up to 1. So a question counts alike whether people agreed or not.

    Args:
        logits: `(answers, length, vocabulary)`.
        labels: `(answers, length)`, the filled prompts; -100 does not count.
        weights: `(answers,)`, those of a question next to each other or anywhere.
        num_images: the questions of the whole update, of which this may be a part.
        label_smoothing: share of the target that all tokens of the vocabulary have alike.
    """
    if labels.shape != logits.shape[:2] or weights.shape != labels.shape[:1]:
        raise ValueError(
            f"Expected one weight and one row of labels per answer, got {tuple(weights.shape)} weights and "
            f"{tuple(labels.shape)} labels for logits of {tuple(logits.shape)}."
        )
    exact = logits.to(torch.promote_types(logits.dtype, torch.float32))
    losses = F.cross_entropy(
        exact.flatten(0, 1), labels.flatten(), ignore_index=-100, reduction="none", label_smoothing=label_smoothing
    )
    return losses.view_as(labels).sum(dim=1) @ weights.to(exact.dtype) / num_images
