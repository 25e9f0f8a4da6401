"""Turn the prompts of other people's harnesses into ours, and cut texts where their tasks end them.

Their prompts are written for chat models: a question is followed by a sentence that says how to answer it. A VLKD has
one prompt for questions and one for captions, and reads any other sentence as part of the question.
"""

import re
from collections.abc import Sequence

from modeling_vlkd.processing_vlkd import ANSWER_MARK, VLKDProcessor

from .errors import EvaluationError


# A whole prompt that asks for a caption: "Provide a one-sentence caption for the provided image."
CAPTION_REQUEST = re.compile(
    r"(please )?((provide|write|give|generate|create)\b[^.?]*\b(caption|description)\b[^.?]*"
    r"|(describe|caption)\b[^.?]*\b(image|picture|photo|photograph)\b[^.?]*)[.:!]?",
    re.IGNORECASE,
)
# Sentences at the end of a question that say how to answer it; those of VQAv2, OK-VQA, GQA, VizWiz, POPE and others.
INSTRUCTIONS = (
    r"(please )?(answer|respond)( to)?( the question| this question)? (with|using|in) (only )?(a|one)( single| short)?"
    r" (word|phrase|number|integer)( or( a)?( short)? phrase)?( only)?",
    r"when the provided information is insufficient, respond with 'unanswerable'",
    r"(keep your answer|your (answer|response) (must|should) be) (short|brief|concise|as short as possible)",
)
INSTRUCTION_AT_END = re.compile(rf"(?:(?<=\s)|^)(?:{'|'.join(INSTRUCTIONS)})\s*[.:!]?\s*$", re.IGNORECASE)
ANSWER_AT_END = re.compile(r"(?:(?<=\s)|^)(?:the )?(?:short )?answer(?: is)?:\s*$", re.IGNORECASE)
QUESTION_AT_START = re.compile(r"^\s*(?:question|q)\s*:\s*", re.IGNORECASE)
IMAGE_TAG = re.compile(r"<image\d*>", re.IGNORECASE)


def question_of(context: str) -> str | None:
    """Take the question out of a prompt for chat models.

    "Question: <image> What color is it?\\nAnswer the question using a single word or phrase." becomes "What color is
    it?". Image tags go, and so do sentences at the end that only say how short an answer should be. Everything else
    stays: options to choose from, hints, other instructions.

    Returns:
        The question on one line, or None if the prompt asks for a caption.

    Raises:
        EvaluationError: nothing is left of the prompt.
    """
    text = IMAGE_TAG.sub(" ", context).strip()
    if CAPTION_REQUEST.fullmatch(text):
        return None
    before = None
    while text != before:
        before = text
        text = ANSWER_AT_END.sub("", INSTRUCTION_AT_END.sub("", text)).strip()
    text = " ".join(QUESTION_AT_START.sub("", text).split())
    if not text:
        raise EvaluationError(f"There is no question in the prompt {context!r}; mend the task's `doc_to_text`.")
    return text


def infilling_prompt(context: str, processor: VLKDProcessor, num_masks: int | None = None) -> str:
    """Turn a text that is to be continued into one with masks to fill.

    - A text that has masks of its own stays as it is.
    - A question, which ends in "?" or in "Answer:", becomes our question prompt: "Question: Is it?\\nAnswer:" gives
      "Is it? Answer:<mask><mask>.". Of a text with several questions, as few-shot tasks give, only the end changes.
    - Any other text gets the masks and the period at its end: "The sky is" gives "The sky is<mask><mask>.".

    Args:
        num_masks: by default as many as in the processor's question prompts.
    """
    mask = processor.tokenizer.mask_token
    if mask in context:
        return context
    text = context.rstrip()
    if question := asked_at_end(text):
        [prompt] = processor.question_prompts([question], num_masks)
        return prompt
    count = processor.num_question_masks if num_masks is None else num_masks
    return f"{text}{mask * count}."


def asked_at_end(text: str) -> str | None:
    """Return a text that ends in a question, without "Answer:" at its end and a single "Question:" at its beginning.

    Returns:
        None for a text that ends otherwise, or that is nothing but "Answer:".
    """
    question = text.removesuffix(ANSWER_MARK).rstrip()
    if not question or not text.endswith((ANSWER_MARK, "?")):
        return None
    several = ANSWER_MARK in question
    return question if several else QUESTION_AT_START.sub("", question) or None


def cut_at(text: str, until: str | Sequence[str]) -> str:
    """Cut a text where the first of the texts `until` begins, and drop outer spaces."""
    for end in [until] if isinstance(until, str) else until:
        if end:
            text = text.partition(end)[0]
    return text.strip()
