"""Files of visual question answering: what is read and written, and how what is wrong in them is named."""

import json

import pytest

from modeling_vlkd.evaluation.errors import EvaluationError
from modeling_vlkd.evaluation.vqa_files import (
    VQAAnnotation,
    VQAQuestion,
    check_together,
    read_annotations,
    read_questions,
    read_results,
    write_results,
)


QUESTION = {"question_id": 5, "image_id": 1, "question": "what color?"}
ANSWERS = [{"answer": f"red{n}", "answer_confidence": "yes", "answer_id": n} for n in range(10)]
ANNOTATION = {"question_id": 5, "image_id": 1, "question_type": "what", "answer_type": "other", "answers": ANSWERS}
RESULT = {"question_id": 5, "answer": "red"}
CAPTION = {"image_id": 1, "caption": "a red bus"}
GENOME = [{"id": 1, "qas": [{"qa_id": 7, "image_id": 1, "question": "what?", "answer": "A bus."}]}]


def write(path, content):
    """Write bytes or text as they are, and anything else as JSON."""
    if not isinstance(content, str | bytes):
        content = json.dumps(content)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def test_official_files_are_read(tmp_path):
    questions = {"info": {}, "task_type": "Open-Ended", "license": {}, "questions": [QUESTION]}
    assert read_questions(write(tmp_path / "q.json", questions)) == {5: VQAQuestion(5, 1, "what color?")}
    known = read_annotations(write(tmp_path / "a.json", {"info": {}, "annotations": [ANNOTATION | {"confidence": 3}]}))
    assert known == {5: VQAAnnotation(5, 1, "what", "other", tuple(f"red{n}" for n in range(10)))}
    text = "\ufeff" + json.dumps([{"question_id": 2, "answer": ""}, RESULT])
    assert read_results(write(tmp_path / "r.json", text)) == {2: "", 5: "red"}


def test_single_answers_are_read(tmp_path):
    single = {"question_id": 5, "image_id": 1, "answer": "red"}
    assert read_annotations(write(tmp_path / "a.json", {"annotations": [single]}))[5].answers == ("red",)
    typed = read_annotations(write(tmp_path / "a.json", {"annotations": [single | {"question_type": "what"}]}))
    assert typed == {5: VQAAnnotation(5, 1, "what", "", ("red",))}
    path = write(tmp_path / "genome.json", GENOME)
    assert read_questions(path) == {7: VQAQuestion(7, 1, "what?")}
    assert read_annotations(path) == {7: VQAAnnotation(7, 1, "", "", ("A bus.",))}


def test_results_are_written_sorted_and_read_again(tmp_path):
    answers = {30: "café", 4: 'a "b"\n', 5: ""}
    write_results(tmp_path / "r.json", answers)
    assert read_results(tmp_path / "r.json") == answers
    assert [entry["question_id"] for entry in json.loads((tmp_path / "r.json").read_text())] == [4, 5, 30]
    assert json.loads((tmp_path / "r.json").read_text())[0] == {"question_id": 4, "answer": 'a "b"\n'}


@pytest.mark.parametrize(
    ("answers", "message"),
    [
        ({}, "holds no predicted answers"),
        ({5: None}, "'answer' is null in question 5; write a text"),
        ({5: "x" * 1001, 6: "y"}, "'answer' has more than 1,000 characters in question 5"),
        ({"5": "x"}, "'question_id' is \"5\" in entry 1; write a whole number"),
        ({True: "x"}, "'question_id' is true in entry 1"),
    ],
)
def test_what_cannot_be_read_again_is_not_written(tmp_path, answers, message):
    (tmp_path / "r.json").write_text("before")
    with pytest.raises(EvaluationError) as caught:
        write_results(tmp_path / "r.json", answers)
    assert message in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["r.json"]
    assert (tmp_path / "r.json").read_text() == "before"


def test_results_are_written_whole_or_not_at_all(tmp_path, monkeypatch):
    def full(path, *args, **kwargs):
        path.write_bytes(b"[")
        raise OSError(28, "No space left on device")

    path = write(tmp_path / "r.json", "before")
    monkeypatch.setattr(type(path), "write_text", full)
    with pytest.raises(EvaluationError) as caught:
        write_results(path, {5: "red"})
    assert str(caught.value) == (
        f"{path} cannot be written (No space left on device), and nothing was changed; make its folder or room in it, "
        "or give another name."
    )
    assert [path.name for path in tmp_path.iterdir()] == ["r.json"]
    assert path.read_bytes() == b"before"


def test_results_are_not_written_where_they_cannot_be(tmp_path):
    with pytest.raises(EvaluationError, match=r"r\.json cannot be written \(No such file or directory\)"):
        write_results(tmp_path / "none" / "r.json", {5: "red"})
    (tmp_path / "folder").mkdir()
    with pytest.raises(EvaluationError, match=r"folder cannot be written \(Is a directory\)"):
        write_results(tmp_path / "folder", {5: "red"})
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


RESULTS, QUESTIONS, ANNOTATIONS = read_results, read_questions, read_annotations
GIVE = {
    RESULTS: 'give predicted answers as [{"question_id": ..., "answer": ...}, ...]',
    QUESTIONS: 'give questions as {"questions": [{"question_id": ..., "image_id": ..., "question": ...}, ...]}',
    ANNOTATIONS: 'give annotations with answers as {"annotations": [{"question_id": ...',
}
CUT = json.dumps([RESULT, RESULT | {"question_id": 6}], indent=1)
BAD = {
    "captions": (RESULTS, [CAPTION], "FILE holds predicted captions; " + GIVE[RESULTS]),
    "captions by people": (ANNOTATIONS, {"annotations": [CAPTION | {"id": 3}]}, "FILE holds captions by people; "),
    "annotations as results": (RESULTS, {"annotations": [ANNOTATION]}, "FILE holds annotations with answers; "),
    "annotations as questions": (QUESTIONS, {"annotations": [ANNOTATION]}, "FILE holds annotations with answers; "),
    "questions as annotations": (ANNOTATIONS, {"questions": [QUESTION]}, "FILE holds questions; " + GIVE[ANNOTATIONS]),
    "results as annotations": (ANNOTATIONS, [RESULT], "FILE holds predicted answers; " + GIVE[ANNOTATIONS]),
    "genome as results": (RESULTS, GENOME, "FILE holds questions and answers of Visual Genome; " + GIVE[RESULTS]),
    "captions of Karpathy": (
        ANNOTATIONS,
        {"images": [{"imgid": 0, "split": "val", "filename": "0.jpg", "sentences": [{"raw": "a red bus"}]}]},
        "FILE holds captions with Karpathy's splits; " + GIVE[ANNOTATIONS],
    ),
    "another object": (RESULTS, {"model": 1, "a\nb": 2}, 'FILE holds an object with the keys "model", "a\\nb"; '),
    "another list": (QUESTIONS, [1, 2], "FILE holds a list of other entries; " + GIVE[QUESTIONS]),
    "number": (RESULTS, "5", "FILE holds 5; " + GIVE[RESULTS]),
    "empty": (RESULTS, "", "FILE is empty; " + GIVE[RESULTS]),
    "blank": (QUESTIONS, " \n\n", "FILE is empty; " + GIVE[QUESTIONS]),
    "empty list": (RESULTS, [], "FILE holds no predicted answers, only an empty list; " + GIVE[RESULTS]),
    "empty annotations": (
        ANNOTATIONS,
        {"annotations": []},
        "FILE holds no annotations with answers, only an empty list",
    ),
    "text": (RESULTS, "5: red\n6: blue\n", "Line 1 of FILE is no JSON (Extra data); " + GIVE[RESULTS]),
    "lines": (RESULTS, f"{json.dumps(RESULT)}\n" * 2, "Line 2 of FILE is no JSON (Extra data); "),
    "quotes": (RESULTS, '[\n{"question_id": 5, "answer": red}]', "Line 2 of FILE is no JSON (Expecting value); "),
    "cut in a text": (RESULTS, CUT[:-8], "FILE ends in the middle of its line 8; write or fetch it again."),
    "cut in the list": (RESULTS, CUT[: CUT.index("}") + 2] + "\n", "FILE ends in the middle of its line 5; "),
    "nested": (RESULTS, "[" * 100_000, "FILE is nested too deeply or has too long a number; "),
    "digits": (RESULTS, "[" + "1" * 5000 + "]", "FILE is nested too deeply or has too long a number; "),
    "latin": (RESULTS, '[\n{"answer": "caf\xe9"}]'.encode("latin-1"), "Line 2 of FILE is not UTF-8 ("),
    "no objects": (RESULTS, [RESULT, 5, "red"], 'FILE: there is no object {"...": ...} in entries 2, 3; '),
    "no ids": (RESULTS, [RESULT, {"answer": "red"}], "FILE: 'question_id' is missing in entry 2; "),
    "text ids": (
        RESULTS,
        [RESULT | {"question_id": "5"}],
        "FILE: 'question_id' is \"5\" in entry 1; write a whole number",
    ),
    "truth ids": (RESULTS, [RESULT, RESULT | {"question_id": True}], "FILE: 'question_id' is true in entry 2; "),
    "broken ids": (RESULTS, [RESULT | {"question_id": 5.0}], "FILE: 'question_id' is 5.0 in entry 1; "),
    "text image ids": (
        QUESTIONS,
        {"questions": [QUESTION | {"image_id": "1"}]},
        "FILE: 'image_id' is \"1\" in question 5; ",
    ),
    "twice": (
        RESULTS,
        [RESULT | {"question_id": n // 2} for n in range(14)],
        "FILE: there is more than one entry for questions 0, 1, 2, 3, 4 and 2 more; keep one of each.",
    ),
    "annotated twice": (
        ANNOTATIONS,
        {"annotations": [ANNOTATION] * 2},
        "FILE: there is more than one entry for question 5; ",
    ),
    "no answer": (
        RESULTS,
        [RESULT, {"question_id": 6, "text": "red"}],
        "FILE: 'answer' is missing in question 6; write it.",
    ),
    "null answer": (
        RESULTS,
        [RESULT | {"answer": None}],
        "FILE: 'answer' is null in question 5; write a text in quotes.",
    ),
    "answers listed": (
        RESULTS,
        [RESULT | {"answer": ["a\n"]}],
        "FILE: 'answer' is [\"a\\n\"] in question 5; write a text",
    ),
    "long answer": (
        RESULTS,
        [RESULT | {"answer": "x" * 1001}],
        "FILE: 'answer' has more than 1,000 characters in question 5",
    ),
    "question missing": (
        QUESTIONS,
        {"questions": [QUESTION, {"question_id": 6, "image_id": 1}]},
        "FILE: 'question' is missing",
    ),
    "no type": (
        ANNOTATIONS,
        {"annotations": [{"question_id": 5, "image_id": 1, "answers": ANSWERS}]},
        "FILE: 'question_type' is missing in question 5; ",
    ),
    "unanswered": (
        ANNOTATIONS,
        {"annotations": [ANNOTATION | {"answers": []}]},
        "FILE: 'answers' is empty in question 5; ",
    ),
    "no answers": (
        ANNOTATIONS,
        {"annotations": [{key: ANNOTATION[key] for key in list(ANNOTATION)[:4]}]},
        "FILE: 'answers' is missing in question 5; ",
    ),
    "bare answers": (
        ANNOTATIONS,
        {"annotations": [ANNOTATION | {"answers": ["red"]}]},
        'FILE: \'answers\' holds something else than texts in question 5; write [{"answer": "red"}, ...].',
    ),
    "genome without ids": (
        QUESTIONS,
        [{"id": 1, "qas": [{"question": "what?"}]}],
        "FILE: 'qa_id' is missing in pair 1; ",
    ),
    "genome without pairs": (QUESTIONS, [*GENOME, {"id": 2}], "FILE: 'qas' is missing in entry 2; "),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_files_are_refused_in_one_line(tmp_path, name):
    read, content, message = BAD[name]
    path = write(tmp_path / "file.json", content)
    with pytest.raises(EvaluationError) as caught:
        read(path)
    assert str(caught.value).startswith(message.replace("FILE", str(path)))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("read", [RESULTS, QUESTIONS, ANNOTATIONS])
def test_files_that_are_none_are_refused(tmp_path, read):
    with pytest.raises(EvaluationError) as caught:
        read(tmp_path / "none.json")
    assert str(caught.value).startswith(f"{tmp_path}/none.json does not exist; {GIVE[read]}")
    with pytest.raises(EvaluationError) as caught:
        read(str(tmp_path))
    assert str(caught.value).startswith(f"{tmp_path} is a folder; {GIVE[read]}")


def annotated(*numbers):
    return {number: VQAAnnotation(number, 1, "what", "other", ["red"] * 10) for number in numbers}


def asked(*numbers, image_id=1):
    return {number: VQAQuestion(number, image_id, "what?") for number in numbers}


def test_files_of_the_same_questions_go_together():
    check_together({1: "red", 2: "red"}, annotated(1, 2))
    check_together({1: "red", 2: "red"}, annotated(2, 1), asked(1, 2, 3))


@pytest.mark.parametrize(
    ("answered", "known", "questions", "message"),
    [
        (
            [1, 2],
            [3],
            None,
            "r.json (with question 1, for one) and a.json (with question 3) have no question in common; ",
        ),
        (
            [],
            [3],
            None,
            "r.json (with no question, for one) and a.json (with question 3) have no question in common; ",
        ),
        (
            [3, *range(10, 20)],
            [3],
            None,
            "r.json: there is no entry in a.json for questions 10, 11, 12, 13, 14 and 5 more; take these out",
        ),
        ([3], [3, 4], None, "a.json: there is no prediction in r.json for question 4; answer all questions."),
        (
            [3],
            [3],
            asked(1),
            "q.json (with question 1, for one) and a.json (with question 3) have no question in common; ",
        ),
        (
            [3, 4],
            [3, 4],
            asked(3),
            "a.json: there is no entry in q.json for question 4; give all questions of the split.",
        ),
        ([3], [3], asked(3, image_id=2), "a.json: other pictures stand in q.json for question 3; give files of one"),
    ],
)
def test_files_of_other_questions_are_refused(answered, known, questions, message):
    with pytest.raises(EvaluationError) as caught:
        check_together(dict.fromkeys(answered, "red"), annotated(*known), questions, "r.json", "a.json", "q.json")
    assert str(caught.value).startswith(message)
