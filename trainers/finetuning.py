"""Finetune a VLKD on a task, on transformers' Seq2SeqTrainer, with the task's own metric in every evaluation."""

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import torch
from accelerate.utils import gather_object
from torch import Tensor
from transformers import PreTrainedModel, Seq2SeqTrainer
from transformers.trainer_utils import EvalLoopOutput, unwrap_peft_model

from modeling_vlkd.evaluation.vqa import QuestionSet

from .card_trainer import CardTrainer


class TaskEvaluation(Protocol):
    """What is asked of a model to see how well it does a task, and how that is scored.

    `len()` gives the number of examples.
    """

    def __len__(self) -> int: ...

    def predict(self, model: PreTrainedModel, positions: Sequence[int], batch_size: int) -> list[str]:
        """Have the model do some of the examples, one text each."""

    def score(self, predictions: Sequence[str]) -> dict[str, float]:
        """Score the texts of all examples, in their order: the names and values of the metrics."""


class FinetuningTrainer(CardTrainer, Seq2SeqTrainer):
    """`Seq2SeqTrainer` with VLKD's model card. A generation config of the user's is completed from the model's own.

    Args:
        evaluation ([`TaskEvaluation`], *optional*): what each evaluation measures besides the loss on `eval_dataset`.
            Each process does its share of it.
    """

    model: Any  # of transformers' Trainer, which does not say

    def __init__(self, model: PreTrainedModel, *args: Any, evaluation: TaskEvaluation | None = None, **kwargs: Any):
        own = unwrap_peft_model(model).generation_config.to_dict()
        super().__init__(model, *args, **kwargs)
        self.evaluation = evaluation
        self.model.generation_config.update(**own, defaults_only=True, allow_custom_entries=True)

    @property
    def bare_model(self) -> PreTrainedModel:
        """Give the VLKD itself, without DistributedDataParallel or an adapter of peft around it."""
        return unwrap_peft_model(self.accelerator.unwrap_model(self.model))

    def evaluation_loop(self, *args: Any, metric_key_prefix: str = "eval", **kwargs: Any) -> EvalLoopOutput:
        output = super().evaluation_loop(*args, metric_key_prefix=metric_key_prefix, **kwargs)
        if self.evaluation is not None:
            metrics = self.evaluation.score(self.predict_all(self.evaluation))
            output.metrics.update({f"{metric_key_prefix}_{name}": value for name, value in metrics.items()})
        return output

    def predict_all(self, evaluation: TaskEvaluation) -> list[str]:
        """Have all processes together do all examples; each gets all texts."""
        positions = list(range(self.args.process_index, len(evaluation), self.args.world_size))
        texts = evaluation.predict(self.bare_model, positions, self.args.eval_batch_size)
        found = dict(gather_object(list(zip(positions, texts))))
        return [found[position] for position in range(len(evaluation))]


class ExampleMeanTrainer(FinetuningTrainer):
    """A [`FinetuningTrainer`] whose loss is a sum over examples, divided by their number in the whole update.

    They are counted over all micro-batches and processes, so the loss is the same however the update is split. In
    training, `compute_loss` gets their number as `num_items_in_batch`.
    """

    counted: str  # a tensor of each batch that has a row for each example
    loss_is_scaled_for_ga = True  # the micro-batches already add up to the update: Trainer must not divide again

    def get_batch_samples(
        self, epoch_iterator: Iterator, num_batches: int, device: torch.device
    ) -> tuple[list, Tensor | int | None]:
        batches, _ = super().get_batch_samples(epoch_iterator, num_batches, device)
        examples = torch.tensor(float(sum(len(batch[self.counted]) for batch in batches)), device=self.args.device)
        # The mean over processes, because DistributedDataParallel averages what each of them divides by it.
        return batches, self.accelerator.reduce(examples, reduction="mean")


def finetuning_examples(question_set: QuestionSet) -> list[dict[str, Any]]:
    """Give each question with its image rows and its answer, as [`VLKDDataCollator`] takes them."""
    embeds, index = question_set.image_embeds, question_set.image_index
    if embeds is None or index is None:
        raise ValueError("Expected `image_embeds` and `image_index` in the set, as `make_question_set` gives them.")
    return [
        {"image_embeds": embeds[place], "question": question, "answer": answer}
        for place, question, answer in zip(index, question_set.questions, question_set.answers)
    ]
