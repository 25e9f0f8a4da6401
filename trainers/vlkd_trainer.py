"""Distill CLIP into BART in one line: VLKD (arXiv:2203.06386), its data, its card and its evaluation put together."""

from dataclasses import fields
from typing import Any

import torch
from torch.utils.data import DataLoader, IterableDataset
from transformers import PreTrainedModel, TrainingArguments
from transformers.trainer_utils import EvalLoopOutput, has_length

from modeling_vlkd.evaluation.text_infilling import TextInfilling
from modeling_vlkd.evaluation.vqa import QuestionSet, answer_accuracy
from modeling_vlkd.processing_vlkd import VLKDProcessor
from modeling_vlkd.publishing.cards import has_replay
from modeling_vlkd.publishing.provenance import Source

from .card_trainer import CardTrainer
from .collators import VLKDDistillationCollator
from .distillation_config import VLKDDistillationConfig
from .distillation_trainer import DistillationTrainer
from .draws import draw_from
from .replay import ReplayCorpus
from .replay_task import ReplayCollator, ReplayExamples, VLKDReplayTask
from .vlkd_task import VLKDTask


class VLKDDistillationTrainer(CardTrainer, DistillationTrainer):
    r"""
    Trains W_e, W'_e, W_i, the temperature and BART against a frozen CLIP, on image-caption pairs.

    ```python
    trainer = VLKDDistillationTrainer(
        model=VLKDForConditionalGeneration.from_vision_text_pretrained("my-clip", "facebook/bart-base"),
        args=VLKDDistillationConfig("my-vlkd", num_train_epochs=10),
        train_dataset=pairs,        # examples as `VLKDDistillationCollator` takes them
        processing_class=processor,
    )
    trainer.train()
    trainer.save_model()            # a complete checkpoint: model, vision tower and processor
    ```

    It is a [`DistillationTrainer`] of a [`VLKDTask`]. Negatives of the contrastive loss are the pairs of one step on
    all devices; gradient accumulation adds none. All other terms are the same for 8 steps of 1 pair as for 1 step of
    8.

    Args:
        model ([`VLKDForConditionalGeneration`]): its vision tower is frozen, unless its configuration says otherwise.
        args ([`VLKDDistillationConfig`]): weights of the losses, masking, learning rates and all of transformers'.
        train_dataset, eval_dataset: dictionaries as [`VLKDDistillationCollator`] takes them, by place or as a stream.
            Evaluation reports the same terms, and retrieval R@1, R@5 and R@10 both ways among the pairs, as
            [`image_text_recall`] counts it: `eval_retrieval_i2t`, `eval_retrieval_i2t_at_5`, ...
        processing_class ([`VLKDProcessor`]): saved with each checkpoint.
        data_collator (*optional*): made from `args` by default.
        replay ([`ReplayCorpus`], *optional*): texts to replay, `args.replay_per_pair` for each pair.
        question_set ([`QuestionSet`], *optional*): evaluation reports the share that is answered right, zero-shot.
        kwargs: passed to [`CardTrainer`] and on to [`~transformers.Trainer`].
    """

    stage = "distilled"
    example_columns = (
        *("image", "pixel_values", "image_embeds", "flip"),
        *("caption", "input_ids", "text_teacher_embeds"),
        *("draw", "replay"),
    )

    def __init__(
        self,
        model: PreTrainedModel,
        args: VLKDDistillationConfig,
        train_dataset: Any = None,
        eval_dataset: Any = None,
        processing_class: VLKDProcessor | None = None,
        data_collator: VLKDDistillationCollator | None = None,
        replay: ReplayCorpus | None = None,
        question_set: QuestionSet | None = None,
        **kwargs: Any,
    ):
        collate: Any = data_collator or make_collator(args, processing_class)
        task_class: type[VLKDTask] = VLKDTask
        weights = dict(args.weights)
        if args.ttdm_weight == 0:
            del weights["ttdm"]
        if replay is None:
            del weights["replay"]
            drawn = None if train_dataset is None else draw_from(train_dataset, args.seed)
        else:
            if isinstance(train_dataset, IterableDataset):
                raise ValueError("Replay needs a data set that is read by place; this one streams.")
            task_class = VLKDReplayTask
            collate = ReplayCollator(collate, make_infilling(args, collate, processing_class))
            drawn = ReplayExamples(train_dataset, args.seed, replay, args.replay_per_pair)
        # Evaluation draws the same masks each time, and replays nothing.
        if isinstance(eval_dataset, dict):
            eval_dataset = {name: draw_from(each, args.seed, fixed=True) for name, each in eval_dataset.items()}
        elif eval_dataset is not None:
            eval_dataset = draw_from(eval_dataset, args.seed, fixed=True)
        super().__init__(
            task_class(model, with_ttdm="ttdm" in weights, init_image_to_decoder=args.init_image_to_decoder),
            args,
            weights,
            train_dataset=drawn,
            eval_dataset=eval_dataset,
            processing_class=processing_class,
            data_collator=collate,
            **kwargs,
        )
        self.question_set = question_set
        if kwargs.get("run_facts") is None:
            self.add_unnamed_data(train_dataset, replay)

    def add_unnamed_data(self, train_dataset: Any, replay: ReplayCorpus | None):
        """Tell the card that there were data, if nobody has told it which."""
        for role, data in (("image-caption pairs", train_dataset), ("replayed texts", replay)):
            if data is not None:
                note = f"{len(data)} of them" if has_length(data) else ""
                self.run_facts.provenance.add_source(Source(role, "not named", note=note))

    @property
    def bare_model(self) -> PreTrainedModel:
        """Give the VLKD itself, without DistributedDataParallel or an adapter of peft around it."""
        return self.task.bare_student

    def settings_of_run(self) -> dict[str, Any]:
        own = [each.name for each in fields(self.args) if each.name not in TrainingArguments.__dataclass_fields__]
        if not has_replay(self.run_facts.provenance):
            own = [name for name in own if not name.startswith("replay_")]
        return super().settings_of_run() | {name: getattr(self.args, name) for name in own}

    # ---- evaluation ----

    def get_eval_dataloader(self, eval_dataset: Any = None) -> DataLoader:
        if eval_dataset is None or isinstance(eval_dataset, str):
            return super().get_eval_dataloader(eval_dataset)
        # Where loader workers persist, transformers keeps one loader for all data sets that have no name.
        return self.get_test_dataloader(eval_dataset)

    def get_test_dataloader(self, test_dataset: Any) -> DataLoader:
        return super().get_test_dataloader(draw_from(test_dataset, self.args.seed, fixed=True))

    def evaluation_loop(self, *args: Any, metric_key_prefix: str = "eval", **kwargs: Any) -> EvalLoopOutput:
        output = super().evaluation_loop(*args, metric_key_prefix=metric_key_prefix, **kwargs)
        if self.question_set is not None:
            output.metrics[f"{metric_key_prefix}_vqa_accuracy"] = self.answer_accuracy(self.question_set)
        return output

    def answer_accuracy(self, question_set: QuestionSet) -> float:
        """Measure which share of questions is answered right; each process answers its share of them."""
        part = question_set.part(self.args.process_index, self.args.world_size)
        accuracy = answer_accuracy(self.bare_model, self.processing_class, part, batch_size=self.args.eval_batch_size)
        hits = torch.tensor([accuracy * len(part.questions), len(part.questions)], device=self.args.device)
        right, asked = self.accelerator.reduce(hits, reduction="sum").tolist()
        return right / asked


def make_collator(args: VLKDDistillationConfig, processor: VLKDProcessor | None) -> VLKDDistillationCollator:
    """Make the collator that the arguments describe.

    Raises:
        ValueError: there is no processor.
    """
    if processor is None:
        raise ValueError("Give the VLKDProcessor of the model as `processing_class`: it makes the batches.")
    return VLKDDistillationCollator(
        processor,
        max_text_length=args.max_text_length,
        mask_ratio=args.mask_ratio,
        mean_span=args.mean_span,
        whole_text_share=args.whole_text_share,
        seed=args.seed,
    )


def make_infilling(args: VLKDDistillationConfig, collate: Any, processor: VLKDProcessor | None) -> TextInfilling:
    """Take the masking of replayed texts from the collator of the captions or, if that is of another kind, `args`.

    Raises:
        ValueError: it is of another kind, and there is no processor.
    """
    if isinstance(collate, VLKDDistillationCollator):
        return collate.infill
    return make_collator(args, processor).infill
