"""easy-VQA as data: pictures, what stands in them, captions and questions.

easy-VQA (PyPI `easy-vqa`, MIT) has 4,000 + 1,000 pictures of 64 x 64 pixels, each with one shape in one colour on a
plain background, and 48,248 questions in 24 templates. What stands in a picture is measured from its pixels, so no
stage of training reads a question of the data set: captions are made from the measured scenes of training pictures,
and the questions serve for evaluation alone.
"""

import re
from dataclasses import dataclass

import numpy as np
from PIL import Image


COLOURS = {
    "black": (0, 0, 0),
    "blue": (0, 0, 255),
    "brown": (165, 42, 42),
    "gray": (128, 128, 128),
    "green": (0, 255, 0),
    "red": (255, 0, 0),
    "teal": (0, 128, 128),
    "yellow": (255, 255, 0),
}
SHAPES = ("circle", "rectangle", "triangle")
SMALL, LARGE = 15, 25  # longest side in pixels up to which a shape is called small, and from which it is called large

CAPTION_TEMPLATES = (
    "A picture of a {colour} {shape}.",
    "A drawing of a {colour} {shape}.",
    "A {colour} {shape}.",
    "A {shape} that is {colour}.",
    "There is a {colour} {shape} here.",
    "The picture shows a {colour} {shape}.",
    "This is a {shape} and it is {colour}.",
    "The {shape} is {colour}.",
    "One {colour} {shape} on a plain background.",
    "A {size} {colour} {shape}.",
    "A {size} {shape} that is {colour}.",
    "There is a {size} {colour} {shape} in the picture.",
)

# kind -> its four templates in alphabetical order; "no_yes" are the negated ones
QUESTION_TEMPLATES = {
    "colour": (
        "what color is the shape?",
        "what color is the {shape}?",
        "what is the color of the shape?",
        "what is the color of the {shape}?",
    ),
    "shape": (
        "what is the {colour} shape?",
        "what shape does the image contain?",
        "what shape is in the image?",
        "what shape is present?",
    ),
    "yes_no_colour": (
        "does the image contain a {colour} shape?",
        "is a {colour} shape present?",
        "is there a {colour} shape in the image?",
        "is there a {colour} shape?",
    ),
    "no_yes_colour": (
        "does the image not contain a {colour} shape?",
        "is no {colour} shape present?",
        "is there not a {colour} shape in the image?",
        "is there not a {colour} shape?",
    ),
    "yes_no_shape": (
        "does the image contain a {shape}?",
        "is a {shape} present?",
        "is there a {shape} in the image?",
        "is there a {shape}?",
    ),
    "no_yes_shape": (
        "does the image not contain a {shape}?",
        "is no {shape} present?",
        "is there not a {shape} in the image?",
        "is there not a {shape}?",
    ),
}
# One template of each kind is in no text that anything is trained on: the first of the first kind, the second of the
# second, and so on around: each wording of a yes/no question is held out once, and none for both colours and shapes.
HELD_OUT = tuple(templates[place % 4] for place, templates in enumerate(QUESTION_TEMPLATES.values()))
KINDS = {template: kind for kind, templates in QUESTION_TEMPLATES.items() for template in templates}

_COLOUR, _SHAPE = (f"({'|'.join(words)})" for words in (COLOURS, SHAPES))
_PACK = np.array([65536, 256, 1])


@dataclass(frozen=True)
class Scene:
    """What stands in a picture; `size` is "small", "large", or "" for in between."""

    colour: str
    shape: str
    size: str = ""

    def captions(self) -> list[str]:
        """All true captions: 12, or 9 where the size is in between."""
        templates = CAPTION_TEMPLATES if self.size else [t for t in CAPTION_TEMPLATES if "{size}" not in t]
        return [fill(template, self.colour, self.shape, self.size) for template in templates]


@dataclass(frozen=True)
class Question:
    """A question of one of the 24 templates, with the colour or shape word in it, if there is one."""

    template: str
    word: str = ""

    @property
    def kind(self) -> str:
        return KINDS[self.template]

    @property
    def held_out(self) -> bool:
        return self.template in HELD_OUT

    def text(self) -> str:
        return fill(self.template, self.word, self.word)

    def answer(self, scene: Scene) -> str:
        """Answer from what stands in the picture."""
        if self.kind in ("colour", "shape"):
            return getattr(scene, self.kind)
        present = self.word in (scene.colour, scene.shape)
        return "yes" if present == self.kind.startswith("yes_no") else "no"


@dataclass
class Split:
    """Pictures, what stands in them, and the official questions about them.

    Args:
        images: `(pictures, 64, 64, 3)`, uint8.
        image_index: for each question, its picture.
    """

    images: np.ndarray
    scenes: list[Scene]
    questions: list[str]
    answers: list[str]
    image_index: list[int]

    def part(self, chosen: list[int]) -> "Split":
        """Keep the chosen pictures and the questions about them."""
        place = {picture: position for position, picture in enumerate(chosen)}
        asked = [position for position, picture in enumerate(self.image_index) if picture in place]
        return Split(
            self.images[chosen],
            [self.scenes[picture] for picture in chosen],
            [self.questions[position] for position in asked],
            [self.answers[position] for position in asked],
            [place[self.image_index[position]] for position in asked],
        )


def fill(template: str, colour: str = "", shape: str = "", size: str = "") -> str:
    return template.format(colour=colour, shape=shape, size=size)


def parse_question(text: str) -> Question:
    """Find the template of a question; one of none of the 24 is a ValueError."""
    for template in KINDS:
        found = re.fullmatch(fill(re.escape(template).replace(r"\{", "{").replace(r"\}", "}"), _COLOUR, _SHAPE), text)
        if found:
            return Question(template, *found.groups())
    raise ValueError(f"{text!r} is a question of none of easy-VQA's 24 templates.")


def measure_scene(image: np.ndarray) -> Scene:
    """Measure colour, shape and size of the one shape in a picture, `(64, 64, 3)` uint8.

    Its colour is exact, and that of no background. A rectangle fills its bounding box; a triangle, which stands on its
    base, has far more of itself in the lower half than in the upper one, and a circle has not.
    """
    packed = image.astype(np.int32) @ _PACK  # (64, 64), one integer a colour
    masks = {colour: packed == np.dot(rgb, _PACK) for colour, rgb in COLOURS.items()}
    colour = max(masks, key=lambda colour: masks[colour].sum())
    mask = masks[colour]
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    box = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    half = len(box) // 2
    shape = "rectangle" if box.all() else "triangle" if box[-half:].sum() > 1.5 * box[:half].sum() else "circle"
    side = max(box.shape)
    return Scene(colour, shape, "small" if side <= SMALL else "large" if side >= LARGE else "")


def load_split(name: str) -> Split:
    """Read "train" or "test" of the installed package `easy_vqa`.

    Raises:
        ImportError: the package is not installed.
    """
    import easy_vqa  # an extra: only the miniature needs it

    if name == "train":
        paths, questions = easy_vqa.get_train_image_paths(), easy_vqa.get_train_questions()
    else:
        paths, questions = easy_vqa.get_test_image_paths(), easy_vqa.get_test_questions()
    images = np.stack([np.asarray(Image.open(paths[picture]).convert("RGB")) for picture in range(len(paths))])
    return Split(images, [measure_scene(image) for image in images], *questions)


def load_train_and_validation() -> tuple[Split, Split]:
    """Cut every tenth picture of the train split off, to choose recipes on."""
    train = load_split("train")
    pictures = range(len(train.images))
    kept = [picture for picture in pictures if picture % 10]
    return train.part(kept), train.part([picture for picture in pictures if picture % 10 == 0])
