"""Finetune a classifier on texts and pairs of texts, as on GLUE: examples, LAMB, and the model with a new head."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from timm.optim import Lamb
from transformers import DataCollatorWithPadding, EvalPrediction, PreTrainedTokenizerBase, TrainingArguments
from transformers.utils import logging

from modeling_vlkd import VLKDConfig, VLKDForSequenceClassification
from modeling_vlkd.evaluation.glue_files import GlueExample
from modeling_vlkd.evaluation.glue_tasks import GlueTask, score_predictions
from modeling_vlkd.publishing.cards import CardFacts
from modeling_vlkd.publishing.provenance import Provenance

from .card_trainer import CardTrainer, measured, result_on


HEAD = "classification_head."  # what a distilled model lacks, and a classifier is trained to have


def lamb_of(args: TrainingArguments) -> tuple[type[Lamb], dict[str, Any]]:
    """Give LAMB (arXiv:1904.00962) and its settings, as `optimizer_cls_and_kwargs` of a Trainer.

    LAMB would clip the gradient by itself; the Trainer does that already, by `max_grad_norm`. Weight decay is that of
    each parameter group, which the Trainer sets; the groups without decay take Adam's plain step.
    """
    return Lamb, {
        "lr": args.learning_rate,
        "betas": (args.adam_beta1, args.adam_beta2),
        "eps": args.adam_epsilon,
        "max_grad_norm": None,
    }


def new_classifier(
    checkpoint: str, task: GlueTask, bridge_text_only: bool | None = None
) -> VLKDForSequenceClassification:
    """Load a distilled model, or a classifier finetuned before, with a head for the labels of a task.

    Weights are float32, because small updates are lost in bfloat16. A head for other labels is replaced by a new one.

    Args:
        checkpoint: folder or Hub id.
        bridge_text_only: whether texts go through CLIP's space; by default what the checkpoint says.

    Raises:
        ValueError: weights other than those of the head are missing.
    """
    config = VLKDConfig.from_pretrained(checkpoint)
    names = task.labels or (task.name,)
    config.id2label = dict(enumerate(names))
    config.label2id = {name: place for place, name in enumerate(names)}
    config.problem_type = "single_label_classification" if task.labels else "regression"
    if bridge_text_only is not None:
        config.bridge_text_only = bridge_text_only
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()  # transformers would warn that the head is new
    try:
        model, loading = VLKDForSequenceClassification.from_pretrained(
            checkpoint, config=config, dtype=torch.float32, ignore_mismatched_sizes=True, output_loading_info=True
        )
    finally:
        logging.set_verbosity(verbosity)
    lacking = [*loading["missing_keys"], *(name for name, *_ in loading["mismatched_keys"])]
    if faults := sorted(name for name in lacking if not name.startswith(HEAD)):
        raise ValueError(f"{checkpoint} lacks {len(faults)} of the model's tensors, such as {', '.join(faults[:3])}.")
    return model


def classification_examples(
    examples: Sequence[GlueExample], tokenizer: PreTrainedTokenizerBase, max_length: int
) -> list[dict[str, Any]]:
    """Tokenize texts, or pairs of them, with their labels; longer ones are cut, the longer text of a pair first.

    Raises:
        ValueError: an example has no label.
    """
    unlabeled = [example.index for example in examples if example.label is None]
    if unlabeled:
        raise ValueError(f"Expected a label in every example, but {unlabeled[0]} has none: give a labeled split.")
    columns = list(zip(*(example.texts for example in examples)))
    encoded = tokenizer(*map(list, columns), truncation=True, max_length=max_length, return_token_type_ids=False)
    labels = [example.label for example in examples]
    return [
        {"input_ids": ids, "attention_mask": mask, "labels": label}
        for ids, mask, label in zip(encoded["input_ids"], encoded["attention_mask"], labels)
    ]


class ClassificationTrainer(CardTrainer):
    """A `Trainer` of classifiers that measures a GLUE task by its official metrics, and optimizes with LAMB.

    Args:
        task: whose metrics are measured at each evaluation.
        lamb: False for the optimizer that `optim` of the arguments names.
        kwargs: for [`~transformers.Trainer`]; `processing_class` is a tokenizer or a processor with one.
    """

    stage = "classifier"

    def __init__(
        self,
        model: VLKDForSequenceClassification,
        args: TrainingArguments,
        *,
        task: GlueTask,
        lamb: bool = True,
        **kwargs: Any,
    ):
        processor = kwargs.get("processing_class")
        if "data_collator" not in kwargs:
            kwargs["data_collator"] = DataCollatorWithPadding(getattr(processor, "tokenizer", processor))
        super().__init__(
            model,
            args,
            compute_metrics=lambda prediction: metrics_of(prediction, task),
            optimizer_cls_and_kwargs=lamb_of(args) if lamb else None,
            **kwargs,
        )
        self.task, self.uses_lamb = task, lamb

    def card_facts(self, name: str, location: str, provenance: Provenance) -> CardFacts:
        """Add the metrics of the task."""
        facts, values = super().card_facts(name, location, provenance), measured(self.args, self.state)
        for metric in self.task.metrics:
            if metric in values:
                text = f"{self.task.title}, {metric}"
                facts.results.append(
                    result_on(self.run_facts.eval_questions, "text-classification", metric, text, values[metric])
                )
        return facts

    def settings_of_run(self) -> dict[str, Any]:
        """Name the optimizer that was used; `optim` of the arguments is another one."""
        settings = super().settings_of_run()
        return settings | {"optim": "lamb"} if self.uses_lamb else settings


def metrics_of(prediction: EvalPrediction, task: GlueTask) -> dict[str, float]:
    """Compute a task's metrics of the outputs of a Trainer, the first of which are the logits."""
    outputs = prediction.predictions
    logits = np.asarray(outputs[0] if isinstance(outputs, tuple) else outputs)
    return score_predictions(task, task.decide(logits), prediction.label_ids)
