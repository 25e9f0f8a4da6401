"""Files of questions: what is read, and how what is wrong in them is named."""

import pytest

from modeling_vlkd.trainers.questions import read_questions


QUESTION = {"image": "a.png", "question": "how many, then?", "answer": "0"}


def test_answers_stay_as_they_are_written(tmp_path):
    answers = ["None", "NA", "0", "007", "False", "café"]
    lines = [f'a.png,"how many, then?",{answer}\n' for answer in answers]
    (tmp_path / "questions.csv").write_text("\ufeffimage,question,answer\n" + "".join(lines), encoding="utf-8")
    rows = read_questions(tmp_path / "questions.csv")
    assert [row["answer"] for row in rows] == answers
    assert rows[0] == QUESTION | {"image": str(tmp_path / "a.png"), "answer": "None"}


def test_json_lines_may_hold_numbers(tmp_path):
    (tmp_path / "questions.jsonl").write_text(
        '{"image": "a.png", "question": "how many, then?", "answer": 0}\n\n'
        '{"image": "b.png", "question": "is it?", "answer": false, "id": 7}\n'
    )
    rows = read_questions(tmp_path / "questions.jsonl")
    assert [row["answer"] for row in rows] == ["0", "False"]
    assert rows[0] == QUESTION | {"image": str(tmp_path / "a.png")}


HEADER = "image,question,answer\n"
BAD = {
    "empty.csv": ("", "empty.csv holds no questions"),
    "header.csv": (HEADER, "header.csv holds no questions"),
    "comma.csv": (HEADER + "a.png,what?,b\na.png,one, two?,b\n", "Line 3 of {}/comma.csv has more fields than the 3"),
    "quote.csv": (HEADER + 'a.png,"what?,b\na.png,what?,b\n', "quote.csv is no CSV (unexpected end of data)"),
    "short.csv": (HEADER + "a.png,what?\n", "Line 2 of {}/short.csv has an empty answer"),
    "column.csv": ("image,question\na.png,what?\n", "column.csv has no column 'answer'; it has image, question"),
    "latin.csv": (HEADER + "a.png,what?,caf\xe9\n", "latin.csv is not UTF-8"),
    "empty.jsonl": ("", "empty.jsonl holds no questions"),
    "broken.jsonl": ('{"image": "a.png",\n', "Line 1 of {}/broken.jsonl is no JSON"),
    "list.json": ('[{"image": "a.png"}]', "Line 1 of {}/list.json is no JSON object but ["),
    "null.jsonl": ('{"image": "a", "question": "b", "answer": null}', "Line 1 of {}/null.jsonl has an empty answer"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_wrong_is_named_with_its_line(name, tmp_path):
    content, message = BAD[name]
    (tmp_path / name).write_text(content, encoding="latin-1")
    with pytest.raises(ValueError) as caught:
        read_questions(tmp_path / name)
    assert message.format(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)
