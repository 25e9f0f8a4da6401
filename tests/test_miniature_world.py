"""The scenes that are measured from easy-VQA's pixels agree with every official question."""

import pytest

from modeling_vlkd.miniature.world import (
    CAPTION_TEMPLATES,
    HELD_OUT,
    KINDS,
    Scene,
    load_split,
    load_train_and_validation,
    parse_question,
)


@pytest.mark.parametrize(("name", "pictures", "questions"), [("train", 4000, 38575), ("test", 1000, 9673)])
def test_measured_scenes_answer_every_official_question(name, pictures, questions):
    split = load_split(name)
    assert (len(split.images), len(split.questions)) == (pictures, questions)
    parsed = {text: parse_question(text) for text in set(split.questions)}
    assert all(question.text() == text for text, question in parsed.items())
    answers = [parsed[text].answer(split.scenes[picture]) for text, picture in zip(split.questions, split.image_index)]
    assert answers == split.answers


def test_one_template_of_each_kind_is_held_out():
    assert len(KINDS) == 24
    assert sorted(KINDS[template] for template in HELD_OUT) == sorted(set(KINDS.values()))


def test_captions_name_a_size_only_where_it_is_clear():
    assert len(CAPTION_TEMPLATES) == 12
    assert len(Scene("red", "circle", "small").captions()) == 12
    captions = Scene("red", "circle").captions()
    assert len(captions) == len(set(captions)) == 9
    assert all("red" in caption and "circle" in caption and "small" not in caption for caption in captions)


def test_validation_is_a_tenth_of_the_pictures_with_their_own_questions():
    train, validation = load_train_and_validation()
    assert (len(train.scenes), len(validation.scenes)) == (3600, 400)
    assert len(train.questions) + len(validation.questions) == 38575
    for text, answer, picture in list(zip(validation.questions, validation.answers, validation.image_index))[:500]:
        assert parse_question(text).answer(validation.scenes[picture]) == answer


def test_unknown_question_is_refused():
    with pytest.raises(ValueError, match="how many"):
        parse_question("how many shapes are there?")
