"""Draw texts: the training texts of the miniature BART, the texts that are replayed to it, and a test of its reading.

The texts come from no picture: scenes are drawn at random, described by a caption, and asked about. The six held-out
templates of easy-VQA are in none of these texts. The other 18 templates vary little, so wordings that easy-VQA does
not have are added.
"""

import random
from dataclasses import dataclass
from pathlib import Path

from .world import COLORS, QUESTION_TEMPLATES, SHAPES, Question, Scene, fill


SIZES = ("small", "", "large")
OTHER_WORDINGS = {
    "color": ("which color does the shape have?", "tell me the color of the {shape}.", "what color do you see?"),
    "shape": ("which shape do you see?", "tell me the shape.", "what is the shape of the {color} thing?"),
    "yes_no_color": (
        "can you see a {color} shape?",
        "is the shape {color}?",
        "does the picture show a {color} shape?",
        "is there anything {color} in the image?",
    ),
    "no_yes_color": (
        "can you see no {color} shape?",
        "is the shape not {color}?",
        "does the picture not show a {color} shape?",
        "is there nothing {color} in the image?",
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
# How often each kind is drawn. Yes/no questions need a comparison, which is learned last, so they are more frequent.
KIND_WEIGHTS = {
    "color": 1,
    "shape": 1,
    "yes_no_color": 2,
    "no_yes_color": 2,
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
    """Draw a color, a shape and a size."""
    return Scene(rng.choice(list(COLORS)), rng.choice(SHAPES), rng.choice(SIZES))


def draw_asked(rng: random.Random, kinds: tuple[str, ...] = tuple(KIND_WEIGHTS)) -> Asked:
    """Describe a random scene and ask about it; yes and no are equally frequent in each kind."""
    scene = draw_scene(rng)
    kind = rng.choices(kinds, [KIND_WEIGHTS[kind] for kind in kinds])[0]
    passage = rng.choice(scene.captions())
    words = {"color": tuple(COLORS), "shape": SHAPES}
    if kind in words:
        question = fill(rng.choice(wordings(kind)), scene.color, scene.shape)
        return Asked(passage, question, getattr(scene, kind))
    about = kind.removeprefix("yes_no_").removeprefix("no_yes_")
    truth = getattr(scene, about)
    word = truth if rng.random() < 0.5 else rng.choice([other for other in words[about] if other != truth])
    question = fill(rng.choice(wordings(kind)), word, word)
    return Asked(passage, question, "yes" if (word == truth) == kind.startswith("yes_no") else "no")


def wordings(kind: str) -> tuple[str, ...]:
    """Return all wordings of a kind for training: those of easy-VQA that are not held out, and the others."""
    trained = [template for template in QUESTION_TEMPLATES[kind] if not Question(template).held_out]
    return (*trained, *OTHER_WORDINGS[kind])


def infilling_prompt(text: str, num_masks: int) -> str:
    """Mask the answer after the last `Answer:`, or the caption after `A picture of`, as the processor's prompts do."""
    known = text.rpartition("Answer:") if "Answer:" in text else text.partition("A picture of")
    return "".join(known[:2]) + "<mask>" * num_masks + "."


def tokenizer_texts(seed: int = 0, count: int = 4000) -> list[str]:
    """Draw the texts on which the tokenizer is trained."""
    rng = random.Random(seed)
    asked = [draw_asked(rng) for _ in range(count)]
    return [each.passage for each in asked] + [each.text for each in asked]


def write_replay_corpus(path: Path, lines: int, num_masks: int, seed: int = 0):
    """Write lines to replay during the distillation: `passage<TAB>prompt<TAB>question and answer`.

    CLIP's text tower embeds the passage, and the embedding takes the place of an image. In a fifth of the lines, there
    is nothing before the first tab; then passage and question together are the text that BART reads.
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
    """Draw questions about passages, to be answered from text alone.

    Returns:
        The texts, each a passage and its question, and the answers.
    """
    rng = random.Random(seed)
    asked = [draw_asked(rng) for _ in range(count)]
    return [f"{each.passage} {each.question}" for each in asked], [each.answer for each in asked]
