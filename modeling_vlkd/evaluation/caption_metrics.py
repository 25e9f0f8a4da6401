"""The metrics of COCO's captions: BLEU, ROUGE-L, CIDEr-D and METEOR, by pycocoevalcap's scorers (arXiv:1504.00325)."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from itertools import islice
from threading import Lock
from typing import Any

from .caption_tokenizers import JAVA_TOKENIZER, PYTHON_TOKENIZER, choose_tokenizer, tokenize_texts
from .errors import EvaluationError
from .json_files import name_ids


ALL = "all"
BLEU = ("Bleu_1", "Bleu_2", "Bleu_3", "Bleu_4")


@dataclass(frozen=True)
class CaptionScores:
    """How near captions are to what people wrote, from 0 to 1, CIDEr to 10.

    Args:
        overall: of all captions as one corpus: `Bleu_1` to `Bleu_4`, `ROUGE_L`, `CIDEr` and, with Java, `METEOR`.
        each: the same for each caption, by image id. BLEU of one caption is no share of BLEU of the corpus.
        tokenizer: which one cut the captions into words.
    """

    overall: dict[str, float]
    each: dict[int, dict[str, float]]
    tokenizer: str


def score_captions(
    captions: Mapping[int, str], references: Mapping[int, Sequence[str]], tokenizer: str | None = None
) -> CaptionScores:
    """Score one caption of each image against its references.

    Args:
        captions, references: by image id; the same images in both.
        tokenizer: `JAVA_TOKENIZER`, which is the official one and brings METEOR, or `PYTHON_TOKENIZER`; by default
            Java's where Java runs.

    Raises:
        EvaluationError: images differ or have no references, or a package, Java or a tokenizer is missing.
    """
    return score_groups(captions, references, {ALL: captions.keys()}, tokenizer)[ALL]


def score_groups(
    captions: Mapping[int, str],
    references: Mapping[int, Sequence[str]],
    groups: Mapping[str, Collection[int]],
    tokenizer: str | None = None,
) -> dict[str, CaptionScores]:
    """Score groups of images, each as a corpus of its own: CIDEr weighs words by the references of the group.

    Args:
        groups: image ids by the name of their group; an image may be in several.
        captions, references, tokenizer: as those of [`score_captions`].
    """
    refuse_unequal(captions, references)
    tokenizer = choose_tokenizer(tokenizer)
    said, known = tokenize_all(captions, references, tokenizer)
    meteor = start_meteor() if tokenizer == JAVA_TOKENIZER else None
    scores = {}
    for name, images in groups.items():
        part = {image: known[image] for image in images}, {image: said[image] for image in images}
        scores[name] = CaptionScores(*score_corpus(*part, meteor), tokenizer)
    return scores


def refuse_unequal(captions: Mapping[int, str], references: Mapping[int, Sequence[str]]):
    if not captions:
        raise EvaluationError("There are no captions to score.")
    if missing := [image for image in captions if not references.get(image)]:
        raise EvaluationError(
            f"There are no references of {name_ids(missing, 'image', 'images')}; leave out their captions."
        )
    if missing := [image for image in references if image not in captions]:
        raise EvaluationError(f"There are no captions of {name_ids(missing, 'image', 'images')}; caption these too.")


def tokenize_all(
    captions: Mapping[int, str], references: Mapping[int, Sequence[str]], tokenizer: str
) -> tuple[dict[int, list[str]], dict[int, list[str]]]:
    """Cut captions and references into words, all in one run of the tokenizer, as lists by image id."""
    texts = [[captions[image], *references[image]] for image in captions]
    words = iter(tokenize_texts([text for group in texts for text in group], tokenizer))
    groups = {image: list(islice(words, len(group))) for image, group in zip(captions, texts)}
    if wordless := [image for image, group in groups.items() if not any(group[1:])]:  # CIDEr could not count in these
        raise EvaluationError(
            f"There are no words in the references of {name_ids(wordless, 'image', 'images')}; leave them out."
        )
    return {image: group[:1] for image, group in groups.items()}, {image: group[1:] for image, group in groups.items()}


def score_corpus(
    references: Mapping[int, Sequence[str]], captions: Mapping[int, Sequence[str]], meteor: Any = None
) -> tuple[dict[str, float], dict[int, dict[str, float]]]:
    """Score tokenized captions as one corpus: overall, and each by image id.

    Args:
        meteor: what `start_meteor` gave; None to go without METEOR.
    """
    from pycocoevalcap.bleu.bleu import Bleu
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.rouge.rouge import Rouge

    bleu = Bleu(4).compute_score(references, captions, verbose=0)  # it prints unless told not to
    found = dict(zip(BLEU, zip(*bleu)))  # by name: the score of the corpus, and that of each caption
    found["ROUGE_L"] = Rouge().compute_score(references, captions)
    found["CIDEr"] = Cider().compute_score(references, captions)
    if meteor is not None:
        found["METEOR"] = meteor_scores(meteor, references, captions)
    overall = {name: float(score) for name, (score, _) in found.items()}
    rows = zip(*(scores for _, scores in found.values()))
    each = {image: dict(zip(found, map(float, row))) for image, row in zip(captions, rows)}
    return overall, each


def start_meteor() -> Any:
    """Start METEOR's Java program, which reads its dictionaries for seconds; it ends with the object."""
    from pycocoevalcap.meteor.meteor import Meteor

    return Meteor()


def meteor_scores(
    meteor: Any, references: Mapping[int, Sequence[str]], captions: Mapping[int, Sequence[str]]
) -> tuple[float, list[float]]:
    """Compute METEOR of the corpus and of each caption.

    Raises:
        EvaluationError: its program has ended.
    """
    try:
        return meteor.compute_score(references, captions)
    except (OSError, ValueError) as error:  # a broken pipe, or nothing where a number should be
        # Its end waits for the lock, which the failed call still holds, and closes the pipe, which would fail.
        meteor.lock, meteor.meteor_p.stdin = Lock(), BytesIO()
        raise EvaluationError(
            f"METEOR's Java program failed; give it 2 GB of memory, or take the tokenizer {PYTHON_TOKENIZER!r}."
        ) from error
