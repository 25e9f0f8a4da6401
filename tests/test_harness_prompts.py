import pytest

from modeling_vlkd.evaluation.errors import EvaluationError
from modeling_vlkd.evaluation.harness_prompts import cut_at, infilling_prompt, question_of


QUESTION = "what color is the shape?"


@pytest.mark.parametrize(
    "prompt",
    [  # as lmms-eval 0.7 gives them: VQAv2, GQA, POPE; VizWiz, OK-VQA; PLM's; LLaVA's old ones
        "{}",
        "{}\nAnswer the question using a single word or phrase.",
        "{}\nWhen the provided information is insufficient, respond with 'Unanswerable'.\n"
        "Answer the question using a single word or phrase.",
        "{}\nRespond with one word.",
        "{} Please answer the question with a single word.",
        "{}\nYour response must be concise.",
        "<image>\nQuestion: {} Short answer:",
        "Question: {}\nAnswer:",
        "  {}\n\n",
    ],
)
def test_questions_lose_what_is_said_to_chat_models(prompt: str):
    assert question_of(prompt.format(QUESTION)) == QUESTION


@pytest.mark.parametrize(
    "prompt",
    [
        "is the answer red?",
        "what word is on the sign, and in what color?",
        "describe this image in one word?",
        "How would you describe the image?",
        "What is a good caption for this picture?",
        "Which is red?\nA. the box\nB. the bus\nAnswer with the option's letter from the given choices directly.",
        "what short answer does the sign give?",
    ],
)
def test_everything_else_is_asked_as_it_stands(prompt: str):
    assert question_of(prompt) == " ".join(prompt.split())


@pytest.mark.parametrize(
    "prompt",
    [  # COCO, NoCaps, Flickr30K, TextCaps; detailed captions; RefCOCO
        "Provide a one-sentence caption for the provided image.",
        "<image>\nProvide a one-sentence caption for the provided image.",
        "Describe this image in detail.",
        "Please describe the picture briefly",
        "Describe the image briefly.",
        "Write a short description of the photograph.",
        "Provide a short description for this region.",
    ],
)
def test_captions_are_recognized(prompt: str):
    assert question_of(prompt) is None


@pytest.mark.parametrize("prompt", ["", " <image> \n", "Question:\nAnswer:", "Answer with one word."])
def test_a_prompt_without_a_question_is_an_error(prompt: str):
    with pytest.raises(EvaluationError, match="There is no question in the prompt"):
        question_of(prompt)


@pytest.mark.parametrize(
    ("context", "prompt"),
    [
        ("is it red?", "is it red? Answer:<mask><mask>."),
        ("is it red?\n", "is it red? Answer:<mask><mask>."),
        ("Question: is it red?\nAnswer:", "is it red? Answer:<mask><mask>."),
        ("The box is red. Answer:", "The box is red. Answer:<mask><mask>."),
        ("Q: a? Answer: b\n\nQ: c?\nAnswer:", "Q: a? Answer: b\n\nQ: c? Answer:<mask><mask>."),  # few-shot
        ("The sky is", "The sky is<mask><mask>."),
        ("The sky is ", "The sky is<mask><mask>."),
        ("", "<mask><mask>."),
        ("Answer:", "Answer:<mask><mask>."),
        ("The<mask> is blue.", "The<mask> is blue."),
    ],
)
def test_contexts_become_prompts_with_masks(context: str, prompt: str, processor):
    assert infilling_prompt(context, processor) == prompt
    assert infilling_prompt(context, processor, num_masks=1) == prompt.replace("<mask><mask>", "<mask>")


@pytest.mark.parametrize(
    ("text", "until", "expected"),
    [
        (" red\nand", "\n", "red"),
        ("red. Q: who?", ["Q:", "\n"], "red."),
        ("one two", ["two", "one"], ""),
        ("red", [], "red"),
        ("red", ["", "x"], "red"),
    ],
)
def test_texts_end_where_the_task_ends_them(text: str, until, expected: str):
    assert cut_at(text, until) == expected
