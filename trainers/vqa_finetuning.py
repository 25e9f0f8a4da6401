"""Finetune on questions with the answers of several people: each answer counts by the share of people who gave it."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from .collators import VLKDDataCollator, gather_images
from .finetuning import ExampleMeanTrainer
from .objectives import weighted_answer_loss


@dataclass
class WeightedAnswersCollator(VLKDDataCollator):
    """Makes a batch of questions with all their different answers, a row for each.

    ```python
    >>> collate = WeightedAnswersCollator(processor, model)
    >>> asked = {"image_embeds": rows, "question": "what color is it?"}
    >>> batch = collate([asked | {"answers": {"red": 0.7, "pink": 0.3}}, asked | {"answers": {"blue": 1.0}}])
    >>> batch["answers_each"].tolist(), batch["labels"].shape[0]
    ([2, 1], 3)

    ```

    An example has a `question`; `answers`, each with its weight; and an image in one of the forms of
    [`gather_images`]. An image is prepared once for all answers.
    """

    def __call__(self, examples: list[dict[str, Any]]) -> dict[str, Tensor]:
        counts = torch.tensor([len(example["answers"]) for example in examples])
        pairs = [
            {"question": example["question"], "answer": answer}
            for example in examples
            for answer in example["answers"]
        ]
        weights = torch.tensor([weight for example in examples for weight in example["answers"].values()])
        images = gather_images(examples, self.processor)
        repeated = {name: tensor.repeat_interleave(counts, dim=0) for name, tensor in images.items()}
        # The counts come first: transformers takes the size of a batch, in questions, from its first tensor.
        return {"answers_each": counts, "answer_weights": weights, **super().__call__(pairs), **repeated}


class VQAFinetuningTrainer(ExampleMeanTrainer):
    """Trains by [`weighted_answer_loss`], on batches of [`WeightedAnswersCollator`].

    `label_smoothing_factor` is that of the loss; an evaluation has none.
    """

    counted = "answers_each"

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """Compute a micro-batch's share of the loss of its update; in an evaluation, the loss of the batch.

        Args:
            num_items_in_batch: in training, the questions of the update as `get_batch_samples` counted them. In an
                evaluation transformers counts tokens, which do not matter here.
        """
        own = {"answers_each", "answer_weights", "labels"}
        outputs = model(**{name: value for name, value in inputs.items() if name not in own})
        questions = num_items_in_batch if model.training and num_items_in_batch is not None else None
        loss = weighted_answer_loss(
            outputs.logits,
            inputs["labels"],
            inputs["answer_weights"],
            len(inputs["answers_each"]) if questions is None else questions,
            self.args.label_smoothing_factor if model.training else 0.0,
        )
        return (loss, {"loss": loss, "logits": outputs.logits}) if return_outputs else loss
