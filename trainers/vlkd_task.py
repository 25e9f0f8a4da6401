"""VLKD as a task: TTDM, ITCL and ICTI (arXiv:2203.06386, section 3.2) from one forward pass."""

import logging
from collections.abc import Iterator
from typing import Any

import torch
from accelerate.utils import convert_to_fp32
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.modeling_outputs import ModelOutput

from modeling_vlkd.evaluation.retrieval import content_keys, pair_retrieval

from .captioned_images import ROWS_OF_A_TRAINED_TOWER
from .initialization import initialize_image_to_decoder, was_distilled
from .objectives import image_text_contrastive_loss, text_infilling_loss, text_text_distance_loss
from .task import DistillationTask


FORWARD_NAMES = {"input_ids", "attention_mask", "pixel_values", "image_embeds"}
FORWARD_NAMES |= {"clean_input_ids", "clean_attention_mask"}
BRIDGE = {"text_projection", "text_to_decoder", "image_to_decoder", "logit_scale"}  # W_e, W'_e, W_i, temperature
NO_TERMS = ("tokens", "image_embeds", "text_embeds", "picture_keys", "caption_keys")  # measured beside the terms

logger = logging.getLogger(__name__)


class VLKDTask(DistillationTask):
    """Trains W_e, W'_e, W_i, the temperature and BART against a frozen CLIP, on image-caption pairs.

    Batches are those of [`VLKDDistillationCollator`].

    Args:
        student ([`VLKDForConditionalGeneration`]): its vision tower is frozen, unless its configuration says
            otherwise.
        with_ttdm: whether there is a teacher of the texts, whose embeddings then come with each batch.
        init_image_to_decoder: start W_i as the scaled pseudo-inverse of W_e; by default unless the student was
            distilled before.
    """

    def __init__(self, student: PreTrainedModel, with_ttdm: bool = True, init_image_to_decoder: bool | None = None):
        super().__init__(student)
        self.with_ttdm = with_ttdm
        self.init_image_to_decoder = init_image_to_decoder

    # ---- training ----

    def forward(self, counts: dict[str, Tensor], **batch: Any) -> dict[str, Tensor]:
        return self.terms_of(self.run_student(batch), batch, counts)

    def run_student(self, batch: dict[str, Any]) -> ModelOutput:
        """Make the one forward pass that all terms share; its outputs are fp32, also in mixed precision.

        Cast once, here: the gradients of several terms then add up in fp32, too.
        """
        return convert_to_fp32(self.student(**self.inputs_of(batch), use_cache=False))

    def inputs_of(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Turn a batch into the arguments of the student."""
        model = self.bare_student
        if "image_embeds" in batch and not model.config.freeze_vision_tower:
            raise ValueError(ROWS_OF_A_TRAINED_TOWER)
        inputs = {name: value for name, value in batch.items() if name in FORWARD_NAMES}
        # Without labels, the model computes no loss of its own.
        inputs["decoder_input_ids"] = model.prepare_decoder_input_ids_from_labels(batch["labels"])
        if "image_embeds" in inputs:
            inputs["image_embeds"] = inputs["image_embeds"].to(model.dtype)  # may be kept in half precision
        return inputs

    def terms_of(self, outputs: ModelOutput, batch: dict[str, Any], counts: dict[str, Tensor]) -> dict[str, Tensor]:
        terms = {}
        if self.with_ttdm:
            terms["ttdm"] = text_text_distance_loss(outputs.text_embeds, self.teacher_embeds(batch))
        terms["itcl"] = image_text_contrastive_loss(
            outputs.image_embeds, outputs.text_embeds, outputs.logit_scale, gather=self.training
        )
        terms["icti"] = text_infilling_loss(outputs.logits, batch["labels"], counts.get("icti"))
        return terms

    def counts(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        return {"icti": (batch["labels"] != -100).sum()}

    def teacher_embeds(self, batch: dict[str, Tensor]) -> Tensor:
        """Take CLIP's embeddings of the captions, `(pairs, dim)`."""
        if "text_teacher_embeds" not in batch:
            raise ValueError(
                "TTDM needs `text_teacher_embeds`, CLIP's embedding of the caption, in each example; "
                "set `ttdm_weight=0` to train without it."
            )
        return batch["text_teacher_embeds"]

    def image_rows(self, batch: dict[str, Tensor]) -> Tensor:
        """Take or compute the image rows V of a frozen tower: `(batch, rows, dim)`."""
        model = self.bare_student
        if "image_embeds" in batch:
            return batch["image_embeds"].to(model.dtype)
        with torch.no_grad():
            return model.get_image_rows(batch["pixel_values"]).to(model.dtype)

    def start(self, batches: Iterator[dict[str, Tensor]]):
        """Initialize W_i if `init_image_to_decoder` is true; if it is None, only in a model never distilled before."""
        model, wanted = self.bare_student, self.init_image_to_decoder
        if not model.base_model.image_to_decoder.weight.requires_grad:
            return  # an adapter leaves it alone
        if wanted is None and was_distilled(model):
            logger.info("The model was distilled before, so W_i goes on from where it is.")
        elif wanted is not False:
            parts = (
                (batch["clean_input_ids"], batch["clean_attention_mask"], self.image_rows(batch)) for batch in batches
            )
            initialize_image_to_decoder(model, parts)

    def new_parameters(self) -> Iterator[nn.Parameter]:
        named = self.student.named_parameters()
        return (parameter for name, parameter in named if not BRIDGE.isdisjoint(name.split(".")))

    def watched(self) -> dict[str, Tensor]:
        return {"logit_scale": self.bare_student.base_model.logit_scale.exp()}

    # ---- evaluation ----

    def measure(self, **batch: Any) -> dict[str, Tensor]:
        """Measure each pair: its terms, its embeddings, and keys that are equal for equal pictures and captions.

        The means of TTDM over pairs and of ICTI over tokens do not depend on the batches. ITCL does: the negatives of
        a pair are the other pairs of its batch on its process. A term that a subclass adds is given to all pairs of
        the batch.
        """
        outputs = self.run_student(batch)
        labels, pairs = batch["labels"], len(batch["labels"])
        rows = [slice(pair, pair + 1) for pair in range(pairs)]
        measured = {name: term.expand(pairs) for name, term in self.terms_of(outputs, batch, {}).items()}
        icti = [text_infilling_loss(outputs.logits[row], labels[row], num_tokens=1) for row in rows]
        measured["icti"] = torch.stack(icti)
        if self.with_ttdm:
            teacher = self.teacher_embeds(batch)
            distances = [text_text_distance_loss(outputs.text_embeds[row], teacher[row]) for row in rows]
            measured["ttdm"] = torch.stack(distances)
        # Pictures are told apart by what the model is given of them, pixels or rows, and captions by their tokens.
        pictures = batch["image_embeds"] if "image_embeds" in batch else batch["pixel_values"]
        masks = batch["clean_attention_mask"].bool()
        captions = [ids[mask] for ids, mask in zip(batch["clean_input_ids"], masks)]
        return measured | {
            "tokens": (labels != -100).sum(dim=1).float(),
            "image_embeds": outputs.image_embeds,
            "text_embeds": outputs.text_embeds,
            "picture_keys": content_keys(pictures).to(labels.device),
            "caption_keys": content_keys(captions).to(labels.device),
        }

    def average(self, measured: dict[str, Tensor]) -> dict[str, Tensor]:
        """Average over pairs, and ICTI over tokens."""
        terms = {name: values.float().mean() for name, values in measured.items() if name not in NO_TERMS}
        return terms | {"icti": measured["icti"].sum() / measured["tokens"].sum()}

    def metrics(self, measured: dict[str, Tensor]) -> dict[str, float]:
        return pair_retrieval(*(measured[name] for name in NO_TERMS[1:]))
