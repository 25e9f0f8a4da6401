import pytest
import torch
from tiny_training import DIM, tiny_model, tiny_processor

from modeling_vlkd.evaluation import vlkd_model
from modeling_vlkd.evaluation.vqa import QuestionSet, answer_accuracy
from modeling_vlkd.generation_vlkd import generate_answers


@pytest.fixture(scope="module")
def processor():
    return tiny_processor()


def test_accuracy_counts_right_answers_whatever_their_case(processor, monkeypatch):
    seen = {}

    def answers(model, processor, questions, **kwargs):
        seen.update(kwargs, training=model.training)
        return [[{"answer": answer, "score": 1.0}] for answer in ("Red", "no", "box")]

    monkeypatch.setattr(vlkd_model, "generate_answers", answers)
    model = tiny_model(processor).train()
    questions = QuestionSet(["a?", "b?", "c?"], ["red", "yes", "box"], torch.ones(1, 1, DIM), [0, 0, 0])
    assert answer_accuracy(model, processor, questions, num_beams=2) == pytest.approx(2 / 3)
    assert (seen["num_beams"], seen["image_index"], seen["training"]) == (2, [0, 0, 0], False)
    assert model.training


def test_parts_of_a_question_set_are_the_whole():
    questions = QuestionSet(list("abcde"), list("vwxyz"), torch.ones(5, 1, DIM))
    parts = [questions.part(first, 2) for first in range(2)]
    assert [part.questions for part in parts] == [["a", "c", "e"], ["b", "d"]]
    assert [part.image_index for part in parts] == [[0, 2, 4], [1, 3]]
    assert parts[0].image_embeds is questions.image_embeds
    blind = QuestionSet(["a", "b"], ["x", "y"]).part(1, 2)
    assert (blind.questions, blind.image_embeds, blind.image_index) == (["b"], None, None)


def test_a_real_model_is_right_where_its_own_answers_are_the_references(processor):
    model, questions = tiny_model(processor), ["is there a circle?", "what color is the shape?"]
    rows, index = torch.randn(2, 1, DIM), [0, 1]
    ranked = generate_answers(model, processor, questions, image_embeds=rows, image_index=index)
    said = [answers[0]["answer"] for answers in ranked]
    for references, share in ((said, 1.0), ([said[0], "another"], 0.5), (["another", "others"], 0.0)):
        assert answer_accuracy(model, processor, QuestionSet(questions, references, rows, index)) == share
    blind = generate_answers(model, processor, questions)[1][0]["answer"]
    for references, share in (([blind], 1.0), (["another"], 0.0)):
        assert answer_accuracy(model, processor, QuestionSet(questions[1:], references)) == share
