"""Text alone: what the miniature BART is trained on, what is replayed to it, and a probe of how well it reads.

No picture is behind any of it: scenes are drawn at random, described by a caption, and asked about. The six held-out
templates of easy-VQA are in none of these texts; wordings that easy-VQA does not have make up for what the other 18
lack in variety, as a larger corpus would.
"""

import random
from dataclasses import dataclass
from pathlib import Path

from .world import COLOURS, QUESTION_TEMPLATES, SHAPES, Question, Scene, fill


SIZES = ("small", "", "large")
OTHER_WORDINGS = {
    "colour": ("which color does the shape have?", "tell me the color of the {shape}.", "what color do you see?"),
    "shape": ("which shape do you see?", "tell me the shape.", "what is the shape of the {colour} thing?"),
    "yes_no_colour": (
        "can you see a {colour} shape?",
        "is the shape {colour}?",
        "does the picture show a {colour} shape?",
        "is there anything {colour} in the image?",
    ),
    "no_yes_colour": (
        "can you see no {colour} shape?",
        "is the shape not {colour}?",
        "does the picture not show a {colour} shape?",
        "is there nothing {colour} in the image?",
    ),
    "yes_no_shape": (
        "can you see a {shape}?",
        "is the shape a {shape}?",
        "does the picture show a {shape}?",
        "is there any {shape} in the image?",
    ),
    "no_yes_shape": (
        "can you see no {shape}?",
        "is the shape not a {shape}?",
        "does the picture not show a {shape}?",
        "is there not any {shape} in the image?",
    ),
}
# Yes/no takes a comparison, which is learned last: it is asked more often than what has to be read off.
KIND_WEIGHTS = {
    "colour": 1,
    "shape": 1,
    "yes_no_colour": 2,
    "no_yes_colour": 2,
    "yes_no_shape": 2,
    "no_yes_shape": 2,
}


@dataclass(frozen=True)
class Asked:
    """A passage, a question about what it describes, and the answer."""

    passage: str
    question: str
    answer: str

    @property
    def text(self) -> str:
        return f"{self.question} Answer: {self.answer}."


def draw_scene(rng: random.Random) -> Scene:
    return Scene(rng.choice(list(COLOURS)), rng.choice(SHAPES), rng.choice(SIZES))


def draw_asked(rng: random.Random, kinds: tuple[str, ...] = tuple(KIND_WEIGHTS)) -> Asked:
    """Describe a random scene and ask about it; yes and no are equally frequent in each kind."""
    scene = draw_scene(rng)
    kind = rng.choices(kinds, [KIND_WEIGHTS[kind] for kind in kinds])[0]
    passage = rng.choice(scene.captions())
    words = {"colour": tuple(COLOURS), "shape": SHAPES}
    if kind in words:
        question = fill(rng.choice(wordings(kind)), scene.colour, scene.shape)
        return Asked(passage, question, getattr(scene, kind))
    about = kind.removeprefix("yes_no_").removeprefix("no_yes_")
    truth = getattr(scene, about)
    word = truth if rng.random() < 0.5 else rng.choice([other for other in words[about] if other != truth])
    question = fill(rng.choice(wordings(kind)), word, word)
    return Asked(passage, question, "yes" if (word == truth) == kind.startswith("yes_no") else "no")


def wordings(kind: str) -> tuple[str, ...]:
    """All wordings of a kind that may be trained on."""
    trained = [template for template in QUESTION_TEMPLATES[kind] if not Question(template).held_out]
    return (*trained, *OTHER_WORDINGS[kind])


def infilling_prompt(text: str, num_masks: int) -> str:
    """Mask what follows the last known words, as the processor's prompts do: an answer, or what is in a picture."""
    known = text.rpartition("Answer:") if "Answer:" in text else text.partition("A picture of")
    return "".join(known[:2]) + "<mask>" * num_masks + "."


def tokenizer_texts(seed: int = 0, count: int = 4000) -> list[str]:
    rng = random.Random(seed)
    asked = [draw_asked(rng) for _ in range(count)]
    return [each.passage for each in asked] + [each.text for each in asked]


def write_replay_corpus(path: Path, lines: int, num_masks: int, seed: int = 0):
    """Write texts to replay while distilling: `passage<TAB>prompt<TAB>question and answer`, and some joint texts.

    Where a passage stands before the first tab, CLIP's text tower embeds it and it takes the place of an image; where
    nothing does, the text is read as text, passage and question together.
    """
    rng = random.Random(seed)
    written = []
    for _ in range(lines):
        asked = draw_asked(rng)
        if rng.random() < 0.2:
            whole = f"{asked.passage} {asked.text}"
            written.append(f"\t{infilling_prompt(whole, num_masks)}\t{whole}")
        else:
            written.append(f"{asked.passage}\t{infilling_prompt(asked.text, num_masks)}\t{asked.text}")
    path.write_text("\n".join(written) + "\n", encoding="utf-8")


def reading_probe(count: int = 600, seed: int = 20220306) -> tuple[list[str], list[str]]:
    """Questions about passages, to be answered from text alone: `(passage and question, answers)`."""
    rng = random.Random(seed)
    asked = [draw_asked(rng) for _ in range(count)]
    return [f"{each.passage} {each.question}" for each in asked], [each.answer for each in asked]
