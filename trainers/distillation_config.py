"""Arguments of a distillation run: those of transformers, what every task needs beside them, and VLKD's own."""

from dataclasses import dataclass, field

import torch
from transformers import TrainingArguments


@dataclass
class DistillationConfig(TrainingArguments):
    """Arguments of [`DistillationTrainer`], whatever its task.

    Raises:
        ValueError: label smoothing, which no task has.
    """

    logging_steps: float = field(default=50, metadata={"help": "Log every so many steps, or share of all steps."})
    bf16: bool | None = field(
        default=None, metadata={"help": "Mixed precision in bfloat16; by default where a CUDA device supports it."}
    )
    ddp_find_unused_parameters: bool | None = field(
        default=False,
        metadata={"help": "Look for parameters without gradient at each step; needed only if a task leaves some out."},
    )
    projection_learning_rate: float | None = field(
        default=None, metadata={"help": "Peak learning rate of what is new to the student; by default that of all."}
    )

    def __post_init__(self):
        if self.bf16 is None:
            on_gpu = torch.cuda.is_available() and not self.use_cpu
            self.bf16 = on_gpu and torch.cuda.is_bf16_supported() and not self.fp16
        # Where there is no accelerator, torch would warn at every evaluation that there is nothing to pin for.
        self.dataloader_pin_memory &= torch.accelerator.is_available()
        super().__post_init__()
        if self.label_smoothing_factor:
            raise ValueError(
                f"label_smoothing_factor={self.label_smoothing_factor}: distillation has no smoothed loss."
            )


@dataclass
class VLKDDistillationConfig(DistillationConfig):
    """Arguments of [`VLKDDistillationTrainer`].

    Defaults that differ from [`~transformers.TrainingArguments`] are the recipe of arXiv:2203.06386, section 4.1, but
    for `whole_text_share`, whose effect `benchmarks/decoding.py` measures.
    """

    learning_rate: float = field(default=2.4e-4, metadata={"help": "Peak learning rate of BART."})
    warmup_steps: float = field(
        default=0.02, metadata={"help": "Linear warm-up, in steps, or as a share of all steps if below 1."}
    )
    weight_decay: float = field(
        default=0.01, metadata={"help": "Weight decay; biases, norms and the temperature: none."}
    )
    num_train_epochs: float = field(default=10.0, metadata={"help": "Passes over the image-caption pairs."})
    per_device_train_batch_size: int = field(
        default=64, metadata={"help": "Pairs a step and device; over all devices they are each other's negatives."}
    )

    projection_learning_rate: float | None = field(
        default=None,
        metadata={"help": "Peak learning rate of the three matrices and the temperature; by default that of BART."},
    )
    ttdm_weight: float = field(default=1000.0, metadata={"help": "Weight of text-text distance minimization."})
    itcl_weight: float = field(default=1.0, metadata={"help": "Weight of the image-text contrastive loss."})
    icti_weight: float = field(default=1.0, metadata={"help": "Weight of image-conditioned text infilling."})
    replay_weight: float = field(default=1.0, metadata={"help": "Weight of the replayed texts, if there are any."})
    replay_per_pair: float = field(default=1.0, metadata={"help": "Texts replayed for each image-caption pair."})
    mask_ratio: float = field(default=0.15, metadata={"help": "Share of a caption's words that is masked."})
    mean_span: float = field(default=3.0, metadata={"help": "Mean length of a masked span, in words (Poisson)."})
    whole_text_share: float = field(
        default=0.1,
        metadata={
            "help": "Share of captions that is written as the filling of a caption prompt, so that training sees what "
            "is asked for later; the paper says nothing of it. The losses of an evaluation depend on it, too."
        },
    )
    max_text_length: int = field(default=64, metadata={"help": "Longer captions are cut, in tokens."})
    init_image_to_decoder: bool | None = field(
        default=None,
        metadata={
            "help": "Start W_i as the scaled pseudo-inverse of W_e; by default unless the model was distilled before."
        },
    )

    def __post_init__(self):
        super().__post_init__()
        for name in ("mask_ratio", "whole_text_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name}={getattr(self, name)}: give a share between 0 and 1.")
        for name in ("ttdm_weight", "itcl_weight", "icti_weight", "replay_weight", "replay_per_pair"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name}={getattr(self, name)}: give a number of 0 or more.")
        if self.mean_span <= 0:
            raise ValueError(f"mean_span={self.mean_span}: give a number above 0.")
        if self.itcl_weight > 0 and self.train_batch_size * self.world_size == 1:
            raise ValueError(
                "per_device_train_batch_size=1 on one device leaves ITCL a single pair and nothing to tell it from: "
                "give more pairs a step, or `itcl_weight=0`."
            )

    @property
    def weights(self) -> dict[str, float]:
        """Give the weight of each term of the loss."""
        return {
            "ttdm": self.ttdm_weight,
            "itcl": self.itcl_weight,
            "icti": self.icti_weight,
            "replay": self.replay_weight,
        }
