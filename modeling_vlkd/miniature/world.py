"""Read easy-VQA: pictures, the scenes in them, captions and questions.

easy-VQA (PyPI `easy-vqa`, MIT) has 4,000 + 1,000 pictures of 64 x 64 pixels, each with one shape in one color on a
plain background, and 48,248 questions in 24 templates. The scene of a picture is measured from its pixels, and
captions are made from the scenes of training pictures. So no stage of training reads a question of the data set; the
questions are only for evaluation.
"""

import re
from dataclasses import dataclass

import numpy as np
from PIL import Image


COLORS = {
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
    "A picture of a {color} {shape}.",
    "A drawing of a {color} {shape}.",
    "A {color} {shape}.",
    "A {shape} that is {color}.",
    "There is a {color} {shape} here.",
    "The picture shows a {color} {shape}.",
    "This is a {shape} and it is {color}.",
    "The {shape} is {color}.",
    "One {color} {shape} on a plain background.",
    "A {size} {color} {shape}.",
    "A {size} {shape} that is {color}.",
    "There is a {size} {color} {shape} in the picture.",
)

# The four templates of each kind, in alphabetical order. Questions of the kinds "no_yes_..." are negated.
QUESTION_TEMPLATES = {
    "color": (
        "what color is the shape?",
        "what color is the {shape}?",
        "what is the color of the shape?",
        "what is the color of the {shape}?",
    ),
    "shape": (
        "what is the {color} shape?",
        "what shape does the image contain?",
        "what shape is in the image?",
        "what shape is present?",
    ),
    "yes_no_color": (
        "does the image contain a {color} shape?",
        "is a {color} shape present?",
        "is there a {color} shape in the image?",
        "is there a {color} shape?",
    ),
    "no_yes_color": (
        "does the image not contain a {color} shape?",
        "is no {color} shape present?",
        "is there not a {color} shape in the image?",
        "is there not a {color} shape?",
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
# One template of each kind is in no training text: the first of the first kind, the second of the second, and so on,
# beginning again after the fourth. So no wording of a yes/no question is held out for both colors and shapes.
HELD_OUT = tuple(templates[place % 4] for place, templates in enumerate(QUESTION_TEMPLATES.values()))
KINDS = {template: kind for kind, templates in QUESTION_TEMPLATES.items() for template in templates}

_COLOR, _SHAPE = (f"({'|'.join(words)})" for words in (COLORS, SHAPES))
_PACK = np.array([65536, 256, 1])  # red, green and blue as one integer


@dataclass(frozen=True)
class Scene:
    """The shape in a picture; `size` is "small", "large", or "" for sizes in between."""

    color: str
    shape: str
    size: str = ""

    def captions(self) -> list[str]:
        """Return all true captions: 12, or 9 if the size is in between."""
        templates = CAPTION_TEMPLATES if self.size else [t for t in CAPTION_TEMPLATES if "{size}" not in t]
        return [fill(template, self.color, self.shape, self.size) for template in templates]


@dataclass(frozen=True)
class Question:
    """A question of one of the 24 templates, with the color or shape word in it, if there is one."""

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
        """Return the right answer for a scene."""
        if self.kind in ("color", "shape"):
            return getattr(scene, self.kind)
        present = self.word in (scene.color, scene.shape)
        return "yes" if present == self.kind.startswith("yes_no") else "no"


@dataclass
class Split:
    """Pictures, their scenes, and the official questions about them.

    Args:
        images: `(pictures, 64, 64, 3)`, uint8.
        image_index: for each question, the index of its picture.
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


def fill(template: str, color: str = "", shape: str = "", size: str = "") -> str:
    """Put words into a template."""
    return template.format(color=color, shape=shape, size=size)


def parse_question(text: str) -> Question:
    """Find the template of a question and the word in it; a question of another form is a ValueError."""
    for template in KINDS:
        # "is there a {shape}?" becomes the expression r"is\ there\ a\ (circle|rectangle|triangle)\?"
        escaped = re.escape(template).replace(r"\{", "{").replace(r"\}", "}")
        if found := re.fullmatch(fill(escaped, _COLOR, _SHAPE), text):
            return Question(template, *found.groups())
    raise ValueError(f"{text!r} is a question of none of easy-VQA's 24 templates.")


def measure_scene(image: np.ndarray) -> Scene:
    """Measure color, shape and size of the one shape in a picture, `(64, 64, 3)` uint8.

    Each shape has exactly one of the eight colors, and no background has one of them. A rectangle fills its bounding
    box. A triangle stands on its base, so most of it is in the lower half (three times as much as in the upper half);
    the halves of a circle are equal.
    """
    packed = image.astype(np.int32) @ _PACK  # (64, 64), one integer a color
    masks = {color: packed == np.dot(rgb, _PACK) for color, rgb in COLORS.items()}
    color = max(masks, key=lambda color: masks[color].sum())
    mask = masks[color]
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    box = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    half = len(box) // 2
    shape = "rectangle" if box.all() else "triangle" if box[-half:].sum() > 1.5 * box[:half].sum() else "circle"
    side = max(box.shape)
    return Scene(color, shape, "small" if side <= SMALL else "large" if side >= LARGE else "")


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
    """Split off every tenth training picture for validation, on which settings are chosen."""
    train = load_split("train")
    pictures = range(len(train.images))
    kept = [picture for picture in pictures if picture % 10]
    return train.part(kept), train.part([picture for picture in pictures if picture % 10 == 0])
