"""Evaluation on image-caption pairs: the terms of the loss, and retrieval, whatever the batch size and processes."""

import hashlib
from collections.abc import Iterable

import torch
from accelerate import Accelerator
from torch import Tensor
from transformers.modeling_outputs import ModelOutput

from .metrics import image_text_recall
from .objectives import image_text_contrastive_loss, text_infilling_loss, text_text_distance_loss


RECALL_AT = (1, 5, 10)


def recall_name(direction: str, k: int) -> str:
    return direction if k == 1 else f"{direction}_at_{k}"


def content_keys(rows: Iterable[Tensor]) -> Tensor:
    """Hash each row to an integer of 64 bits, equal for equal rows: `(rows,)`, on the CPU."""
    values = [row.detach().contiguous().flatten().view(torch.uint8).cpu().numpy().tobytes() for row in rows]
    digests = [hashlib.blake2b(value, digest_size=8).digest() for value in values]
    return torch.tensor([int.from_bytes(digest, "little", signed=True) for digest in digests])


class PairEvaluation:
    """Keeps what is measured pair by pair, and gives the means over all pairs.

    Means over pairs (of ICTI, over tokens) do not depend on how the pairs came in batches and to processes. Only ITCL
    does, by its nature: the negatives of a pair are the others of its batch on its process.

    Pictures are told apart by what the model is given of them, pixels or rows, and captions by their tokens.
    """

    def __init__(self) -> None:
        self.parts: list[dict[str, Tensor]] = []

    def add(
        self, outputs: ModelOutput, inputs: dict[str, Tensor], teacher: Tensor | None, accelerator: Accelerator
    ) -> dict[str, Tensor]:
        """Measure a batch, and keep that of all processes without the pairs that only fill up the last one.

        Args:
            inputs: the batch as the collator makes it.
            teacher: `(pairs, dim)`, the embeddings for TTDM; None to leave it out.

        Returns:
            The terms of this batch in this process, () each.
        """
        pairs, labels = len(inputs["clean_input_ids"]), inputs["labels"]
        rows = [slice(pair, pair + 1) for pair in range(pairs)]
        contrast = image_text_contrastive_loss(outputs.image_embeds, outputs.text_embeds, outputs.logit_scale)
        measured = {
            "itcl": contrast.expand(pairs),
            "icti": torch.stack([text_infilling_loss(outputs.logits[row], labels[row], num_tokens=1) for row in rows]),
            "tokens": (labels != -100).sum(dim=1).float(),
        }
        if teacher is not None:
            distances = [text_text_distance_loss(outputs.text_embeds[row], teacher[row]) for row in rows]
            measured["ttdm"] = torch.stack(distances)
        masks = inputs["clean_attention_mask"].bool()
        captions = [ids[mask] for ids, mask in zip(inputs["clean_input_ids"], masks)]
        pictures = inputs["image_embeds"] if "image_embeds" in inputs else inputs["pixel_values"]
        kept = measured | {
            "image_embeds": outputs.image_embeds,
            "text_embeds": outputs.text_embeds,
            "picture_keys": content_keys(pictures).to(labels.device),
            "caption_keys": content_keys(captions).to(labels.device),
        }
        self.parts.append(accelerator.gather_for_metrics({name: each.contiguous() for name, each in kept.items()}))
        return self.terms_of(measured)

    @staticmethod
    def terms_of(measured: dict[str, Tensor]) -> dict[str, Tensor]:
        """Average over pairs, and ICTI over tokens, () each."""
        terms = {name: measured[name].float().mean() for name in ("ttdm", "itcl") if name in measured}
        return terms | {"icti": measured["icti"].sum() / measured["tokens"].sum()}

    def drain(self, weights: dict[str, float]) -> dict[str, float]:
        """Give the metrics of all pairs, and start again.

        Args:
            weights: of the terms in `loss`.
        """
        all_pairs = {name: torch.cat([part[name] for part in self.parts]) for name in self.parts[0]}
        self.parts.clear()
        terms = {name: term.item() for name, term in self.terms_of(all_pairs).items()}
        metrics = {"loss": sum(weights[name] * term for name, term in terms.items()), **terms}
        keys = all_pairs["picture_keys"], all_pairs["caption_keys"]
        recalls = image_text_recall(all_pairs["image_embeds"], all_pairs["text_embeds"], *keys, RECALL_AT)
        for direction, recall in zip(("retrieval_i2t", "retrieval_t2i"), recalls):
            for k, share in zip(RECALL_AT, recall):
                metrics[recall_name(direction, k)] = share
        metrics["retrieval_pairs"] = len(keys[0])
        metrics["retrieval_pictures"] = len(keys[0].unique())
        return metrics
