"""Finetune a VLKD on questions about pictures, on transformers' Seq2SeqTrainer."""

from typing import Any

from transformers import PreTrainedModel, Seq2SeqTrainer

from modeling_vlkd.evaluation.vqa import QuestionSet

from .card_trainer import CardTrainer


class FinetuningTrainer(CardTrainer, Seq2SeqTrainer):
    """`Seq2SeqTrainer` with VLKD's model card. A generation config of the user's is completed from the model's own."""

    def __init__(self, model: PreTrainedModel, *args: Any, **kwargs: Any):
        own = model.generation_config.to_dict()
        super().__init__(model, *args, **kwargs)
        self.model.generation_config.update(**own, defaults_only=True, allow_custom_entries=True)


def finetuning_examples(question_set: QuestionSet) -> list[dict[str, Any]]:
    """Give each question with its image rows and its answer, as [`VLKDDataCollator`] takes them."""
    embeds, index = question_set.image_embeds, question_set.image_index
    if embeds is None or index is None:
        raise ValueError("Expected `image_embeds` and `image_index` in the set, as `make_question_set` gives them.")
    return [
        {"image_embeds": embeds[place], "question": question, "answer": answer}
        for place, question, answer in zip(index, question_set.questions, question_set.answers)
    ]
