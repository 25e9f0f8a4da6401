"""A distillation task: a student, the terms of its loss, and the state that both need between steps."""

from collections.abc import Iterable, Iterator
from typing import Any

from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.trainer_pt_utils import find_batch_size
from transformers.trainer_utils import unwrap_peft_model


STUDENT = "student."  # what the names of the student's tensors begin with in the task's


class DistillationTask(nn.Module):
    r"""
    A model and its losses. [`DistillationTrainer`] trains it without knowing either.

    A subclass needs a `forward`. Parameters and buffers that it registers beside the student, such as a projection or
    a queue, are moved to the device, saved with each checkpoint, and loaded on resuming; parameters are trained. In
    several processes, buffers are those of the first: gather what goes into a queue (`objectives.gather_rows`).

    ```python
    class ToTeacher(DistillationTask):
        def forward(self, counts, **batch):
            student = self.student(batch["input_ids"], batch["attention_mask"]).pooler_output  # (batch, dim)
            return {"regression": torch.nn.functional.mse_loss(student, batch["teacher_embeds"])}

    trainer = DistillationTrainer(ToTeacher(encoder), args, weights={"regression": 1.0}, train_dataset=..., ...)
    ```

    Args:
        student ([`~transformers.PreTrainedModel`], also with an adapter of peft): what is trained, and saved by
            `save_pretrained`.
    """

    def __init__(self, student: PreTrainedModel):
        super().__init__()
        self.student = student

    @property
    def bare_student(self) -> PreTrainedModel:
        """Give the student itself, without the adapter of peft around it."""
        return unwrap_peft_model(self.student)

    # ---- training ----

    def forward(self, counts: dict[str, Tensor], **batch: Any) -> dict[str, Tensor]:
        """Compute the unweighted terms of the loss, () each.

        A term is a mean over its batch; the trainer averages it over the micro-batches of an update. A term that is
        named in `counts` is a sum divided by that count; the trainer adds it up. So it is a mean over, say, all tokens
        of the update, however these are spread over micro-batches.

        Args:
            counts: of the whole update, per process, as the method `counts` names them; empty in evaluation, where
                each batch stands for itself.
            batch: what the collator makes.
        """
        raise NotImplementedError(f"{type(self).__name__} has no `forward`; give it the terms of the loss.")

    def counts(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Count what the sums of some terms are divided by, for example the tokens of this micro-batch.

        Returns:
            A scalar for each such term, by its name.
        """
        return {}

    def start(self, batches: Iterator[dict[str, Tensor]]):
        """Prepare the student before the first step of a run that is not resumed.

        Args:
            batches: of the first examples, before any is shuffled, the same whatever the batch size and the number of
                processes. They are made when they are asked for.
        """

    def after_step(self):
        """Update, after each step of the optimizer, what depends on it, such as a queue or a momentum copy."""

    def new_parameters(self) -> Iterable[nn.Parameter]:
        """List the parameters that no pretraining has seen; they are trained at a learning rate of their own."""
        return ()

    def watched(self) -> dict[str, Tensor]:
        """Give what is logged beside the terms, () each."""
        return {}

    # ---- evaluation ----

    def measure(self, **batch: Any) -> dict[str, Tensor]:
        """Measure each example of a batch, `(examples, ...)`; by default each gets the terms of its batch.

        A task that measures more than its terms needs an `average` of its own.
        """
        examples = find_batch_size(batch)
        return {name: term.expand(examples) for name, term in self({}, **batch).items()}

    def average(self, measured: dict[str, Tensor]) -> dict[str, Tensor]:
        """Average what was measured to the terms, () each, of one batch or of all; by default over examples."""
        return {name: values.float().mean() for name, values in measured.items()}

    def metrics(self, measured: dict[str, Tensor]) -> dict[str, float]:
        """Make further metrics of what was measured on all examples."""
        return {}

    # ---- what is kept beside the student ----

    def own_state(self) -> dict[str, Tensor]:
        """Copy all tensors that are not the student's, by name, to the CPU; tied ones then share no memory."""
        state = self.state_dict()
        return {name: tensor.to("cpu", copy=True) for name, tensor in state.items() if not name.startswith(STUDENT)}

    def load_own_state(self, state: dict[str, Tensor]):
        """Take back what `own_state` gave.

        Raises:
            ValueError: it is the state of another task.
        """
        wanted, found = (
            {name: tuple(tensor.shape) for name, tensor in each.items()} for each in (self.own_state(), state)
        )
        if wanted != found:
            raise ValueError(f"Expected the tensors {wanted}, got {found}: the checkpoint is of another task.")
        self.load_state_dict(state, strict=False)
