"""Train the student of a task with transformers' Trainer. Only the task knows the losses."""

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import TrainerCallback
from transformers.trainer_utils import EvalLoopOutput

from .distillation_config import DistillationConfig
from .draws import DrawnExamples
from .resumable_trainer import ResumableTrainer
from .task import STUDENT, DistillationTask
from .whole_checkpoints import CheckpointError


TASK_STATE_NAME = "task.safetensors"  # beside the student's weights
# Fixed, so that the start does not depend on the batch size or the number of processes.
EXAMPLES_AT_START, EXAMPLES_A_PASS = 256, 32


class RunningMeans:
    """Averages named scalars between two logs, on the device. A scalar that is missing in a step counts as 0.

    Args:
        names: what is averaged, the same in every process.
    """

    def __init__(self, names: list[str]):
        self.names = names
        self.sums: Tensor | None = None
        self.weight = 0.0

    def add(self, values: dict[str, Tensor], weight: float = 1.0):
        """Add values, () each; with weights 1/n, the values of n micro-batches count as one step of their sum."""
        present = next(iter(values.values()))
        stacked = torch.stack(
            [values[name].detach().float() if name in values else present.new_zeros(()) for name in self.names]
        )
        self.sums = stacked if self.sums is None else self.sums + stacked
        self.weight += weight

    def drain(self, accelerator: Accelerator) -> dict[str, float]:
        """Give the means over steps and processes, and start again."""
        if self.sums is None:
            return {}
        means = accelerator.reduce(self.sums / self.weight, reduction="mean").tolist()
        self.sums, self.weight = None, 0.0
        return dict(zip(self.names, means))


class _FollowSteps(TrainerCallback):
    """Tells the data set which epoch begins, so that masks are drawn anew, and the task that a step was made."""

    def __init__(self, task: DistillationTask, examples: Any):
        self.task = task
        self.examples = examples

    def on_epoch_begin(self, args, state, control, **kwargs):
        if isinstance(self.examples, DrawnExamples):
            self.examples.set_epoch(int(state.epoch or 0))

    def on_step_end(self, args, state, control, **kwargs):
        self.task.after_step()


def refuse_half_precision(model: nn.Module):
    """Refuse to train bfloat16 and float16 weights: an update below half a percent of a weight is lost in them."""
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and parameter.dtype in (torch.bfloat16, torch.float16):
            raise ValueError(
                f"{name} is {parameter.dtype}, too coarse to be trained: load the model with `dtype=torch.float32`; "
                "mixed precision is `bf16=True` of the trainer's arguments."
            )


class DistillationTrainer(ResumableTrainer):
    r"""
    Trains the student of a task by the weighted sum of the task's terms.

    `trainer.model` is the student. It is saved as a whole checkpoint; the task's own state goes into
    `task.safetensors` beside it. In training, the task is what is called, and what DistributedDataParallel wraps. Each
    term is logged by its name.

    Args:
        task ([`DistillationTask`]): the student and its losses.
        args ([`DistillationConfig`]): all of transformers', and the learning rate of what is new.
        weights: the weight of each term, by its name. The loss is the weighted sum.
        train_dataset, eval_dataset: as in [`~transformers.Trainer`]. Wrap a data set in [`draw_from`] to have the
            collator draw new masks in each epoch.
        data_collator: makes the batches, which become the keyword arguments of the task. It gets whole examples.
        kwargs: passed on to [`~transformers.Trainer`].
    """

    model: Any  # of transformers' Trainer, which does not say
    model_wrapped: Any
    loss_is_scaled_for_ga = True  # the micro-batches already add up to the update: Trainer must not divide again
    example_columns: tuple[str, ...] | None = None  # what the collator reads of an example; None to leave all to it

    def __init__(
        self,
        task: DistillationTask,
        args: DistillationConfig,
        weights: dict[str, float],
        train_dataset: Any = None,
        **kwargs: Any,
    ):
        if args.n_gpu > 1:
            raise ValueError(f"One process sees {args.n_gpu} GPUs; start one per GPU with `accelerate launch`.")
        refuse_half_precision(task)
        super().__init__(model=task.student, args=args, train_dataset=train_dataset, **kwargs)
        self.task = task
        self.weights = weights
        self.add_callback(_FollowSteps(task, train_dataset))
        self.train_terms = RunningMeans(list(weights))
        self.measured: list[dict[str, Tensor]] = []
        self.update_counts: dict[str, Tensor] = {}
        if self.place_model_on_device:
            task.to(args.device)

    # ---- the loss ----

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Tensor | tuple[Tensor, dict[str, Tensor]]:
        """Compute a micro-batch's share of the loss of its update; `model` is the task, as it is wrapped."""
        share = 1 / self.current_gradient_accumulation_steps
        terms = model(self.update_counts, **inputs)
        terms = {name: term if name in self.update_counts else share * term for name, term in terms.items()}
        self.train_terms.add(terms, weight=share)
        loss = self.weighted_sum(terms)
        return (loss, terms) if return_outputs else loss

    def weighted_sum(self, terms: dict[str, Any]) -> Any:
        if unknown := terms.keys() - self.weights.keys():
            given = ", ".join(self.weights) or "none"
            raise ValueError(f"The term {min(unknown)!r} has no weight; weights are given of {given}.")
        return sum(self.weights[name] * term for name, term in terms.items())

    def get_batch_samples(self, *args: Any, **kwargs: Any) -> tuple[list, Tensor | int | None]:
        """Count over all micro-batches of an update before the first is computed; some terms are divided by that."""
        batches, num_items_in_batch = super().get_batch_samples(*args, **kwargs)
        if batches:
            counted = [self.task.counts(batch) for batch in batches]
            sums = {name: sum(each[name] for each in counted) for name in counted[0]}
            counts = {name: torch.as_tensor(count).to(self.args.device).float() for name, count in sums.items()}
            # The mean over processes, because DistributedDataParallel averages what each of them divides by it.
            self.update_counts = self.accelerator.reduce(counts, reduction="mean") if counts else {}
        return batches, num_items_in_batch

    # ---- what is trained, and from where ----

    def train(self, resume_from_checkpoint: str | bool | None = None, **kwargs: Any):
        if self.train_dataset is None:
            raise ValueError("Training needs a `train_dataset`.")
        if not resume_from_checkpoint and self.state.global_step == 0:
            self.task.start(self.first_batches())
        return super().train(resume_from_checkpoint=resume_from_checkpoint, **kwargs)

    def first_batches(self) -> Iterator[dict[str, Tensor]]:
        """Make batches of the first examples, before any is shuffled."""
        first = itertools.islice(iter(self.train_dataset), EXAMPLES_AT_START)
        while examples := list(itertools.islice(first, EXAMPLES_A_PASS)):
            yield self._prepare_inputs(self.data_collator(examples))

    def _prepare_for_training(self, *args: Any, **kwargs: Any) -> tuple[nn.Module, Any]:
        """Have the task wrapped and optimized, in the student's place."""
        student = self.model
        if self.model_wrapped is student:
            self.model_wrapped = self.task
        self.model = self.task
        try:
            return super()._prepare_for_training(*args, **kwargs)
        finally:
            self.model = self.callback_handler.model = student

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """Put the new parameters of the student into groups of their own, with their own learning rate."""
        if self.optimizer is not None:
            return super().create_optimizer(model)
        optimizer = super().create_optimizer(model)
        new = set(self.task.new_parameters())
        for group in list(optimizer.param_groups):
            own = [parameter for parameter in group["params"] if parameter in new]
            group["params"] = [parameter for parameter in group["params"] if parameter not in new]
            rate = self.args.projection_learning_rate
            optimizer.add_param_group({**group, "params": own, "lr": group["lr"] if rate is None else rate})
        return optimizer

    # ---- data ----

    def _set_signature_columns_if_needed(self):
        self._signature_columns = list(self.example_columns or ())

    def _remove_unused_columns(self, dataset: Any, description: str | None = None) -> Any:
        return dataset if self.example_columns is None else super()._remove_unused_columns(dataset, description)

    def _get_collator_with_removed_columns(self, data_collator: Any, description: str | None = None) -> Any:
        if self.example_columns is None:
            return data_collator
        return super()._get_collator_with_removed_columns(data_collator, description)

    # ---- what is reported ----

    def log(self, logs: dict[str, float], start_time: float | None = None):
        if "loss" in logs:
            logs.update(self.train_terms.drain(self.accelerator))
            logs.update({name: value.item() for name, value in self.task.watched().items()})
        super().log(logs, start_time)

    def prediction_step(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        prediction_loss_only: bool,
        ignore_keys: list[str] | None = None,
    ) -> tuple[Tensor | None, dict[str, Tensor] | None, Tensor | None]:
        """Measure a batch, and keep what all processes measured, each example once.

        What was measured are also the predictions that `predict()` gives and that `compute_metrics` is called with.
        """
        inputs = self._prepare_inputs(inputs)
        with torch.no_grad(), self.accelerator.autocast():
            measured = {name: values.contiguous() for name, values in self.task.measure(**inputs).items()}
            loss = self.weighted_sum(self.task.average(measured))
        self.measured.append(self.accelerator.gather_for_metrics(measured))
        return (loss, None, None) if prediction_loss_only else (loss, measured, inputs.get("labels"))

    def evaluation_loop(self, *args: Any, metric_key_prefix: str = "eval", **kwargs: Any) -> EvalLoopOutput:
        self.measured.clear()  # of an evaluation that was interrupted
        self.task.eval()
        output = super().evaluation_loop(*args, metric_key_prefix=metric_key_prefix, **kwargs)
        output.metrics.update({f"{metric_key_prefix}_{name}": value for name, value in self.summarize().items()})
        return output

    def summarize(self) -> dict[str, float]:
        """Compute the loss, the terms and the metrics of all that was measured, and start again."""
        measured = {name: torch.cat([part[name] for part in self.measured]) for name in self.measured[0]}
        self.measured.clear()
        terms = {name: term.item() for name, term in self.task.average(measured).items()}
        return {"loss": self.weighted_sum(terms), **terms, **self.task.metrics(measured)}

    # ---- what the task keeps, beside the student ----

    def _write_model(self, folder: str, state_dict: dict | None):
        if state_dict is not None and any(name.startswith(STUDENT) for name in state_dict):
            # As DeepSpeed gives it, the state of what is wrapped: the task.
            of_student = {name: tensor for name, tensor in state_dict.items() if name.startswith(STUDENT)}
            state_dict = {name.removeprefix(STUDENT): tensor for name, tensor in of_student.items()}
        super()._write_model(folder, state_dict)
        state = self.task.own_state()
        if state and self.args.should_save:
            save_file(state, Path(folder, TASK_STATE_NAME))

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None):
        super()._load_from_checkpoint(resume_from_checkpoint, model)
        self._load_task_state(resume_from_checkpoint)

    def _load_best_model(self):
        super()._load_best_model()
        self._load_task_state(self.state.best_model_checkpoint)

    def _load_task_state(self, checkpoint: str):
        path = Path(checkpoint, TASK_STATE_NAME)
        state = load_file(path) if path.is_file() else {}
        try:
            self.task.load_own_state(state)
        except ValueError as error:
            raise CheckpointError(f"{path}: {error}") from error
