"""Train: tasks (a student and its losses), their data, and trainers that know no loss by name.

May import the model, publishing and evaluation.
"""

from modeling_vlkd.evaluation.vqa import QuestionSet, answer_accuracy

from .collators import VLKDDataCollator, VLKDDistillationCollator
from .distillation_config import DistillationConfig, VLKDDistillationConfig
from .distillation_trainer import DistillationTrainer
from .initialization import align_text_projection
from .objectives import image_text_contrastive_loss, text_infilling_loss, text_text_distance_loss
from .replay import PictureImitation, ReplayCorpus, ReplayText
from .task import DistillationTask
from .text_infilling import TextInfilling
from .vlkd_task import VLKDTask
from .vlkd_trainer import VLKDDistillationTrainer


__all__ = [
    "DistillationConfig",
    "DistillationTask",
    "DistillationTrainer",
    "PictureImitation",
    "QuestionSet",
    "ReplayCorpus",
    "ReplayText",
    "TextInfilling",
    "VLKDDataCollator",
    "VLKDDistillationCollator",
    "VLKDDistillationConfig",
    "VLKDDistillationTrainer",
    "VLKDTask",
    "align_text_projection",
    "answer_accuracy",
    "image_text_contrastive_loss",
    "text_infilling_loss",
    "text_text_distance_loss",
]
