"""Distils CLIP into BART: TTDM, ITCL and ICTI of VLKD (arXiv:2203.06386, section 3.2) on transformers' Trainer."""

import itertools
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset
from transformers import PreTrainedModel, TrainerCallback, TrainerState
from transformers.modeling_outputs import ModelOutput
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import EvalLoopOutput, has_length, unwrap_peft_model

from modeling_vlkd.processing_vlkd import VLKDProcessor
from modeling_vlkd.provenance import Source

from .card_trainer import CardTrainer
from .collators import VLKDDistillationCollator
from .distillation_config import VLKDDistillationConfig
from .drawn_examples import DrawnExamples, draw_from
from .evaluation import QuestionSet, answer_accuracy
from .features import ROWS_OF_A_TRAINED_TOWER
from .initialisation import initialise_image_to_decoder, was_distilled
from .objectives import image_text_contrastive_loss, text_infilling_loss, text_text_distance_loss
from .pair_evaluation import PairEvaluation
from .replay import ReplayCorpus, join_image_rows
from .running_means import RunningMeans


FORWARD_NAMES = {"input_ids", "attention_mask", "pixel_values", "image_embeds"}
FORWARD_NAMES |= {"clean_input_ids", "clean_attention_mask"}
PAIRS_FOR_SCALE, PAIRS_A_PASS = 256, 32  # whatever the batch size and the processes: all runs begin at one place
PROJECTIONS = {"text_projection", "text_to_decoder", "image_to_decoder", "logit_scale"}

logger = logging.getLogger(__name__)


class _SetEpoch(TrainerCallback):
    """Tells the data set which epoch begins, so that masks are drawn anew."""

    def __init__(self, examples: DrawnExamples):
        self.examples = examples

    def on_epoch_begin(self, args, state, control, **kwargs):
        self.examples.set_epoch(int(state.epoch or 0))


def refuse_half_precision(model: torch.nn.Module):
    """Stop before what is trained cannot move: an update below half a percent is lost in a bfloat16 weight."""
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and parameter.dtype in (torch.bfloat16, torch.float16):
            raise ValueError(
                f"{name} is {parameter.dtype}, too coarse to be trained: load the model with `dtype=torch.float32`; "
                "mixed precision is `bf16=True` of the trainer's arguments."
            )


class VLKDDistillationTrainer(CardTrainer):
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

    Negatives of the contrastive loss are the pairs of one step on all devices; gradient accumulation adds none. All
    other terms are the same for 8 steps of 1 pair as for 1 step of 8.

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
    loss_is_scaled_for_ga = True  # the terms of an update's micro-batches add up to the update's

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
        if args.n_gpu > 1:
            raise ValueError(f"One process sees {args.n_gpu} GPUs; start one per GPU with `accelerate launch`.")
        refuse_half_precision(model)
        if data_collator is None:
            if processing_class is None:
                raise ValueError("Give the VLKDProcessor of the model as `processing_class`: it makes the batches.")
            data_collator = VLKDDistillationCollator(
                processing_class,
                max_text_length=args.max_text_length,
                mask_ratio=args.mask_ratio,
                mean_span=args.mean_span,
                whole_text_share=args.whole_text_share,
                seed=args.seed,
            )
        if replay is not None and isinstance(train_dataset, IterableDataset):
            raise ValueError("Replay needs a data set that is read by place; this one streams.")
        if replay is not None:
            train_dataset = DrawnExamples(train_dataset, args.seed, replay, args.replay_per_pair)
        elif train_dataset is not None:
            train_dataset = draw_from(train_dataset, args.seed)
        if replay is not None and not model.config.freeze_vision_tower:
            raise ValueError(
                "Replay needs a frozen vision tower: set `freeze_vision_tower=True` in the model's config."
            )
        # Evaluation draws the same masks each time, and replays nothing.
        if isinstance(eval_dataset, dict):
            eval_dataset = {name: draw_from(each, args.seed, fixed=True) for name, each in eval_dataset.items()}
        elif eval_dataset is not None:
            eval_dataset = draw_from(eval_dataset, args.seed, fixed=True)
        super().__init__(
            model=model,
            args=args,
            train_dataset=train_dataset,
            eval_dataset=eval_dataset,
            processing_class=processing_class,
            data_collator=data_collator,
            **kwargs,
        )
        if isinstance(train_dataset, DrawnExamples):
            self.add_callback(_SetEpoch(train_dataset))
        if kwargs.get("run_facts") is None:
            self.add_unnamed_data(train_dataset, replay)
        self.question_set = question_set
        terms = ["ttdm"] * (args.ttdm_weight > 0) + ["itcl", "icti"] + ["replay"] * (replay is not None)
        self.train_terms, self.pair_evaluation = RunningMeans(terms), PairEvaluation()
        self.update_tokens: dict[str, Tensor] = {}

    def add_unnamed_data(self, train_dataset: Any, replay: ReplayCorpus | None):
        """Say in the card that there were data, where nobody has said which."""
        for role, data in (("image-caption pairs", train_dataset), ("replayed texts", replay)):
            if data is not None:
                note = f"{len(data)} of them" if has_length(data) else ""
                self.run_facts.provenance.add_source(Source(role, "not named", note=note))

    @property
    def bare_model(self) -> PreTrainedModel:
        """The VLKD itself, whatever wraps it: DistributedDataParallel or an adapter of peft."""
        return unwrap_peft_model(self.accelerator.unwrap_model(self.model))

    # ---- the loss ----

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, Tensor],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Tensor | tuple[Tensor, ModelOutput]:
        outputs = model(**self.forward_inputs(inputs), use_cache=False)
        if model.training:
            terms = self.objective_terms(outputs, inputs)
            self.train_terms.add(terms, weight=1 / self.current_gradient_accumulation_steps)
        else:
            terms = self.pair_evaluation.add(outputs, inputs, self.teacher_embeds(inputs), self.accelerator)
        loss = sum(self.args.weights[name] * term for name, term in terms.items())
        return (loss, outputs) if return_outputs else loss

    def objective_terms(self, outputs: ModelOutput, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """Compute a micro-batch's share of each term of its update, () each."""
        pairs, labels = len(inputs["clean_input_ids"]), inputs["labels"]
        share = 1 / self.current_gradient_accumulation_steps
        teacher, terms = self.teacher_embeds(inputs), {}
        if teacher is not None:
            terms["ttdm"] = share * text_text_distance_loss(outputs.text_embeds, teacher)
        terms["itcl"] = share * image_text_contrastive_loss(
            outputs.image_embeds[:pairs], outputs.text_embeds, outputs.logit_scale, gather=True
        )
        terms["icti"] = text_infilling_loss(outputs.logits[:pairs], labels[:pairs], self.update_tokens["icti"])
        if len(labels) > pairs:
            terms["replay"] = text_infilling_loss(outputs.logits[pairs:], labels[pairs:], self.update_tokens["replay"])
        return terms

    def teacher_embeds(self, inputs: dict[str, Tensor]) -> Tensor | None:
        """Take CLIP's embeddings of the captions, `(pairs, dim)`; None without TTDM."""
        if self.args.ttdm_weight == 0:
            return None
        if "text_teacher_embeds" not in inputs:
            raise ValueError(
                "TTDM needs `text_teacher_embeds`, CLIP's embedding of the caption, in each example; "
                "set `ttdm_weight=0` to train without it."
            )
        return inputs["text_teacher_embeds"]

    def forward_inputs(self, inputs: dict[str, Tensor]) -> dict[str, Any]:
        """Turn a batch into the arguments of the one forward pass that all terms share."""
        model = self.bare_model
        if "image_embeds" in inputs and not model.config.freeze_vision_tower:
            raise ValueError(ROWS_OF_A_TRAINED_TOWER)
        arguments: dict[str, Any] = {name: value for name, value in inputs.items() if name in FORWARD_NAMES}
        # Without labels the model computes no loss of its own over pairs and replay together.
        arguments["decoder_input_ids"] = model.prepare_decoder_input_ids_from_labels(inputs["labels"])
        texts = len(inputs["labels"]) - len(inputs["clean_input_ids"])
        if texts:
            rows, row_mask = join_image_rows(
                self.image_rows(arguments), texts, inputs.get("replay_embeds"), inputs.get("replay_has_context")
            )
            arguments.pop("pixel_values", None)
            arguments["image_embeds"] = rows
            arguments["attention_mask"] = torch.cat([row_mask, inputs["attention_mask"]], dim=1)
        elif "image_embeds" in arguments:
            arguments["image_embeds"] = arguments["image_embeds"].to(model.dtype)  # may be kept in half precision
        return arguments

    def image_rows(self, inputs: dict[str, Tensor]) -> Tensor:
        """Take or compute the image rows V of a frozen tower: `(batch, rows, dim)`."""
        model = self.bare_model
        if "image_embeds" in inputs:
            return inputs["image_embeds"].to(model.dtype)
        with torch.no_grad(), self.accelerator.autocast():
            return model.get_image_rows(inputs["pixel_values"]).to(model.dtype)

    def get_batch_samples(self, *args: Any, **kwargs: Any) -> tuple[list, Tensor | int | None]:
        """Count the tokens of a whole update before its first micro-batch, for their mean runs over the update."""
        batches, num_items_in_batch = super().get_batch_samples(*args, **kwargs)
        if batches:
            # The mean over processes, because DistributedDataParallel averages what each of them divides by it.
            self.update_tokens = self.accelerator.reduce(self.count_tokens(batches), reduction="mean")
        return batches, num_items_in_batch

    def count_tokens(self, batches: list[dict[str, Tensor]]) -> dict[str, Tensor]:
        """Count the labels of captions and of replayed texts, () each."""
        split = [(batch["labels"] != -100, len(batch["clean_input_ids"])) for batch in batches]
        counts = {
            "icti": sum(real[:pairs].sum() for real, pairs in split),
            "replay": sum(real[pairs:].sum() for real, pairs in split),
        }
        return {name: count.to(self.args.device).float() for name, count in counts.items()}

    # ---- what is trained, and from where ----

    def train(self, resume_from_checkpoint: str | bool | None = None, **kwargs: Any):
        if self.train_dataset is None:
            raise ValueError("Training needs a `train_dataset`.")
        if not resume_from_checkpoint and self.state.global_step == 0:
            self.start_image_matrix()
        return super().train(resume_from_checkpoint=resume_from_checkpoint, **kwargs)

    def start_image_matrix(self):
        """Start W_i where the arguments say so, and else where no distillation has trained it."""
        model, wanted = self.bare_model, self.args.init_image_to_decoder
        if not model.base_model.image_to_decoder.weight.requires_grad:
            return  # an adapter leaves it alone
        if wanted is None and was_distilled(model):
            logger.info("The model was distilled before, so W_i goes on from where it is.")
        elif wanted is not False:
            initialise_image_to_decoder(model, self.batches_for_scale())

    def batches_for_scale(self) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Give token ids, their mask and image rows of the first examples, before any is shuffled."""
        first = itertools.islice(iter(self.train_dataset), PAIRS_FOR_SCALE)
        while examples := list(itertools.islice(first, PAIRS_A_PASS)):
            batch = self._prepare_inputs(self.data_collator(examples))
            yield batch["clean_input_ids"], batch["clean_attention_mask"], self.image_rows(batch)

    def create_optimizer(self, model: torch.nn.Module | None = None) -> torch.optim.Optimizer:
        """Give the three matrices and the temperature groups of their own, with their own learning rate."""
        if self.optimizer is not None:
            return super().create_optimizer(model)
        optimizer = super().create_optimizer(model)
        names = {parameter: name for name, parameter in (model or self.model).named_parameters()}
        for group in list(optimizer.param_groups):
            own = [p for p in group["params"] if not PROJECTIONS.isdisjoint(names[p].split("."))]
            group["params"] = [p for p in group["params"] if PROJECTIONS.isdisjoint(names[p].split("."))]
            rate = self.args.projection_learning_rate
            optimizer.add_param_group({**group, "params": own, "lr": group["lr"] if rate is None else rate})
        return optimizer

    # ---- data ----

    def _set_signature_columns_if_needed(self):
        """Keep the columns of an example that the collator reads, which are not the arguments of the model."""
        images, texts = ["image", "pixel_values", "image_embeds"], ["caption", "input_ids", "text_teacher_embeds"]
        self._signature_columns = [*images, *texts, "flip", "draw", "replay"]

    def get_eval_dataloader(self, eval_dataset: Any = None) -> DataLoader:
        if eval_dataset is None or isinstance(eval_dataset, str):
            return super().get_eval_dataloader(eval_dataset)
        # Where loader workers persist, transformers keeps one loader for all data sets that have no name.
        return self.get_test_dataloader(eval_dataset)

    def get_test_dataloader(self, test_dataset: Any) -> DataLoader:
        return super().get_test_dataloader(draw_from(test_dataset, self.args.seed, fixed=True))

    def _init_training_state(
        self,
        max_steps: int,
        num_update_steps_per_epoch: int,
        num_train_epochs: int,
        resume_from_checkpoint: Any,
        trial,
    ) -> tuple[int, int]:
        """Find the pass and the batch to go on from in a stream without a length, which transformers counts as one."""
        place = super()._init_training_state(
            max_steps, num_update_steps_per_epoch, num_train_epochs, resume_from_checkpoint, trial
        )
        if resume_from_checkpoint is None or has_length(self.train_dataset):
            return place
        saved = TrainerState.load_from_json(Path(resume_from_checkpoint, TRAINER_STATE_NAME))
        passes, share = divmod(saved.epoch, 1)  # the share of all steps of that run that were made in this pass
        batches = round(share * saved.max_steps * self.args.gradient_accumulation_steps)
        return int(passes), 0 if self.args.ignore_data_skip else batches

    # ---- what is reported ----

    def log(self, logs: dict[str, float], start_time: float | None = None):
        if "loss" in logs:
            logs.update(self.train_terms.drain(self.accelerator))
            logs["logit_scale"] = self.bare_model.base_model.logit_scale.exp().item()
        super().log(logs, start_time)

    def evaluation_loop(
        self,
        dataloader: DataLoader,
        description: str,
        prediction_loss_only: bool | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> EvalLoopOutput:
        self.pair_evaluation.parts.clear()  # of an evaluation that was interrupted
        output = super().evaluation_loop(dataloader, description, prediction_loss_only, ignore_keys, metric_key_prefix)
        metrics = self.pair_evaluation.drain(self.args.weights)
        if self.question_set is not None:
            metrics["vqa_accuracy"] = self.answer_accuracy(self.question_set)
        output.metrics.update({f"{metric_key_prefix}_{name}": value for name, value in metrics.items()})
        return output

    def answer_accuracy(self, question_set: QuestionSet) -> float:
        """Share of questions answered right; each process answers its share of them."""
        part = question_set.part(self.args.process_index, self.args.world_size)
        model = self.bare_model
        accuracy = answer_accuracy(model, self.processing_class, part, batch_size=self.args.eval_batch_size)
        hits = torch.tensor([accuracy * len(part.questions), len(part.questions)], device=self.args.device)
        right, asked = self.accelerator.reduce(hits, reduction="sum").tolist()
        return right / asked
