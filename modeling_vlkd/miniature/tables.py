"""The paper's tables as data (arXiv:2203.06386, section 5): rows, what each changes, and which claim it bears on."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from .distilling import CAPTION_MASKS, QUESTION_MASKS


# Ways to train the rows of a table: a label, and arguments of `distill`.
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "paper": ("the paper's losses", {"replay": False}),
    "unaligned": ("the paper's losses, W_e starting at random", {"replay": False, "align": False}),
    "replay": ("with text replay", {"replay": True}),
}
FULL = "full"  # the row that the others are compared to
PREFIX_ROW = "frozen-prefix"
Relation = Literal["lower", "much lower", "about equal", "not higher"]


@dataclass(frozen=True)
class Claim:
    """What the paper says of a row, as something that figures can deny.

    Args:
        says: the claim in words, as the subject of "holds here" or "does not hold here".
        score: which score it is about.
        relation: how the row's score is to that of another.
        than: the other row.
    """

    says: str
    score: str
    relation: Relation
    than: str = FULL


@dataclass(frozen=True)
class Row:
    """A row of a table: a training, and how it is asked.

    Args:
        changes: arguments of `distill` that differ from those of the full method. Rows with the same changes share
            one training.
        step_share: the share of the steps of a whole run that it is trained for.
        caption_masks, question_masks: masks in a prompt.
        system: what is trained.
    """

    name: str
    label: str
    claims: tuple[Claim, ...] = ()
    changes: Mapping[str, Any] = field(default_factory=dict)
    step_share: float = 1.0
    caption_masks: int = CAPTION_MASKS
    question_masks: int = QUESTION_MASKS
    system: Literal["vlkd", "frozen prefix"] = "vlkd"


@dataclass(frozen=True)
class PaperTable:
    """A table of the paper.

    Args:
        source: where the paper has it.
        variants: which of `VARIANTS` its rows can be trained in.
        note: what a reader has to know of how it is done in miniature.
    """

    name: str
    title: str
    source: str
    rows: tuple[Row, ...]
    note: str
    variants: tuple[str, ...] = ("paper", "unaligned", "replay")


VQA, CAPTION = "overall", "caption"
_FULL = Row(FULL, "the full method")
_PREFIX = Row(PREFIX_ROW, "Frozen-style prefix, same budget", system="frozen prefix")


OBJECTIVES = PaperTable(
    "objectives",
    "Objectives of the distillation",
    "table 6",
    (
        _FULL,
        Row(
            "no-ttdm",
            "without TTDM",
            (
                Claim("without TTDM, questions are answered worse", VQA, "lower"),
                Claim("without TTDM, captions are worse", CAPTION, "lower"),
                Claim("questions need TTDM more than ITCL", VQA, "lower", "no-itcl"),
            ),
            {"ttdm_weight": 0.0},
        ),
        Row(
            "no-itcl",
            "without ITCL",
            (
                Claim("without ITCL, questions are answered worse", VQA, "lower"),
                Claim("without ITCL, captions are worse", CAPTION, "lower"),
                Claim("captions need ITCL more than TTDM", CAPTION, "lower", "no-ttdm"),
            ),
            {"itcl_weight": 0.0},
        ),
        Row(
            "neither",
            "without both",
            (
                Claim("without both, questions are answered much worse", VQA, "much lower"),
                Claim("without both, captions are much worse", CAPTION, "much lower"),
            ),
            {"ttdm_weight": 0.0, "itcl_weight": 0.0},
        ),
        _PREFIX,
    ),
    "ICTI stays in all rows, as in the paper. W_e starts where it brings BART's sentences closest to CLIP's texts. "
    "This is our choice, and it does a part of TTDM's work before the first step; the variant `unaligned` starts at "
    "random.",
)


def _caption_masks(count: int) -> Row:
    says = f"captions with m = {count} are about as good as with m = {CAPTION_MASKS}"
    claim = Claim(says, CAPTION, "about equal")
    return Row(f"m-{count}", f"m = {count} in a caption prompt", (claim,), caption_masks=count)


def _question_masks(count: int) -> Row:
    claim = Claim(f"answers with n = {count} are no better than with n = {QUESTION_MASKS}", VQA, "not higher")
    return Row(f"n-{count}", f"n = {count} in a question prompt", (claim,), question_masks=count)


MASKS = PaperTable(
    "masks",
    "Number of masks in a prompt",
    "table 7",
    (
        Row(FULL, f"m = {CAPTION_MASKS}, n = {QUESTION_MASKS}, the default here"),
        *(_caption_masks(count) for count in (1, 2, 6, 8)),
        *(_question_masks(count) for count in (1, 3)),
        _PREFIX,
    ),
    "One training a seed, asked with different prompts. The paper's m is 6 for COCO and 8 for NoCaps, whose captions "
    "are longer than those here. Of n, its text says that 2 is the best of 1 to 3.",
)

DATA_SIZE = PaperTable(
    "data-size",
    "Number of image-caption pairs",
    "table 8",
    (
        Row(FULL, "all pairs"),
        Row(
            "third",
            "1/3 of the pairs (the paper's 1 M of 3 M)",
            (
                Claim("a third of the pairs answers about as well", VQA, "about equal"),
                Claim("a third of the pairs captions about as well", CAPTION, "about equal"),
            ),
            {"pair_share": 1 / 3},
        ),
        Row(
            "thirtieth",
            "1/30 of the pairs (100 K of 3 M)",
            (
                Claim("a thirtieth of the pairs answers much worse", VQA, "much lower"),
                Claim("a thirtieth of the pairs captions much worse", CAPTION, "much lower"),
            ),
            {"pair_share": 1 / 30},
        ),
        Row("three-hundredth", "1/300 of the pairs", changes={"pair_share": 1 / 300}),
        Row(
            "third-epochs",
            "1/3 of pairs and steps",
            (
                Claim("a third of the pairs, each seen as often, answers about as well", VQA, "about equal"),
                Claim("a third of the pairs, each seen as often, captions about as well", CAPTION, "about equal"),
            ),
            step_share=1 / 3,
        ),
        Row(
            "thirtieth-epochs",
            "1/30 of pairs and steps",
            (
                Claim("a thirtieth of the pairs, each seen as often, answers much worse", VQA, "much lower"),
                Claim("a thirtieth of the pairs, each seen as often, captions much worse", CAPTION, "much lower"),
            ),
            step_share=1 / 30,
        ),
        _PREFIX,
    ),
    "A part of the pairs is drawn at random by the seed. Rows of pairs alone are trained for as many steps as the "
    "full run, which shows each pair more often; in rows of pairs and steps, each pair is seen as often as in the "
    "full run. The paper does not say which of the two it did. It has no row of 1/300.",
)

FROZEN_CLIP = PaperTable(
    "frozen-clip",
    "CLIP frozen or trained",
    "section 5, without a table",
    (
        Row(FULL, "CLIP frozen"),
        Row(
            "unfrozen",
            "CLIP's vision tower trained too",
            (
                Claim("with CLIP unfrozen, questions are answered worse", VQA, "lower"),
                Claim("with CLIP unfrozen, captions are worse", CAPTION, "lower"),
            ),
            {"freeze_vision_tower": False},
        ),
        _PREFIX,
    ),
    "The vision tower is trained at BART's learning rate; the teacher of the texts stays as it is. Replay needs a "
    "frozen tower, so there is none. The paper found 31.7 instead of 38.6 on VQAv2 val.",
    variants=("paper", "unaligned"),
)

TABLES = {table.name: table for table in (OBJECTIVES, MASKS, DATA_SIZE, FROZEN_CLIP)}
