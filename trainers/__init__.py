"""Train: tasks (a student and its losses), their data, and trainers that know no loss by name.

May import the model, publishing and evaluation.
"""

from modeling_vlkd.evaluation.questions import make_question_set
from modeling_vlkd.evaluation.text_infilling import TextInfilling
from modeling_vlkd.evaluation.vqa import QuestionSet, answer_accuracy

from .captioned_images import load_captioned_images
from .collators import VLKDDataCollator, VLKDDistillationCollator
from .distillation_config import DistillationConfig, VLKDDistillationConfig
from .distillation_trainer import DistillationTrainer
from .draws import draw_from
from .feature_cache import prepare_pairs
from .finetuning import finetuning_examples
from .initialization import align_text_projection
from .objectives import image_text_contrastive_loss, text_infilling_loss, text_text_distance_loss
from .replay import PictureImitation, ReplayCorpus, ReplayText
from .task import DistillationTask
from .text_teacher import TextTeacher
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
    "TextTeacher",
    "VLKDDataCollator",
    "VLKDDistillationCollator",
    "VLKDDistillationConfig",
    "VLKDDistillationTrainer",
    "VLKDTask",
    "align_text_projection",
    "answer_accuracy",
    "draw_from",
    "finetuning_examples",
    "image_text_contrastive_loss",
    "load_captioned_images",
    "make_question_set",
    "prepare_pairs",
    "text_infilling_loss",
    "text_text_distance_loss",
]
