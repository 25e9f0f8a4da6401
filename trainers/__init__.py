"""Training VLKD: the paper's objectives, the distillation trainer, and collators for finetuning."""

from .collators import VLKDDataCollator, VLKDDistillationCollator
from .distillation_config import VLKDDistillationConfig
from .distillation_trainer import VLKDDistillationTrainer
from .evaluation import QuestionSet, answer_accuracy
from .initialisation import align_text_projection
from .objectives import image_text_contrastive_loss, text_infilling_loss, text_text_distance_loss
from .replay import PictureImitation, ReplayCorpus, ReplayText
from .text_infilling import TextInfilling


__all__ = [
    "PictureImitation",
    "QuestionSet",
    "ReplayCorpus",
    "ReplayText",
    "TextInfilling",
    "VLKDDataCollator",
    "VLKDDistillationCollator",
    "VLKDDistillationConfig",
    "VLKDDistillationTrainer",
    "align_text_projection",
    "answer_accuracy",
    "image_text_contrastive_loss",
    "text_infilling_loss",
    "text_text_distance_loss",
]
