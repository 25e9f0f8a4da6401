"""Image captioning, COCO's and NoCaps': how near the captions of a model are to those of people."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from modeling_vlkd.processing_vlkd import open_image

from .caption_files import DOMAINS, CaptionReferences, check_together
from .caption_metrics import score_groups
from .errors import EvaluationError
from .json_files import name_ids
from .protocol import Caption, VisionLanguageModel


ENTIRE = "entire"  # what NoCaps calls all domains together


@dataclass(frozen=True)
class CaptioningResult:
    """How well pictures were captioned.

    Args:
        overall, each, tokenizer: as those of [`CaptionScores`].
        by_domain: of NoCaps: what `overall` has, for "in-domain", "near-domain", "out-domain" and "entire"; None for
            data without domains.
    """

    overall: dict[str, float]
    each: dict[int, dict[str, float]]
    tokenizer: str
    by_domain: dict[str, dict[str, float]] | None = None


def evaluate_captions(
    captions: Mapping[int, str],
    references: CaptionReferences,
    tokenizer: str | None = None,
    source: str = "the set of captions",
) -> CaptioningResult:
    """Score captions by the official metrics, and those of NoCaps by domain too.

    Each domain is scored as a corpus of its own, as if the others were not there (arXiv:1812.08658). An empty caption
    scores 0.

    Args:
        captions: one for each image of the references, by image id.
        tokenizer: as that of [`score_captions`].
        source: what messages call the captions: their file.

    Raises:
        EvaluationError: captions and references are not of the same images, or what scores them is missing.
    """
    check_together(captions, references, source)
    groups = {ENTIRE: list(captions)}
    if references.domains is not None:
        members = {name: [image for image in captions if references.domains[image] == name] for name in DOMAINS}
        groups = {name: images for name, images in members.items() if images} | groups
    scores = score_groups(captions, references.captions, groups, tokenizer)
    by_domain = None if references.domains is None else {name: each.overall for name, each in scores.items()}
    entire = scores[ENTIRE]
    return CaptioningResult(entire.overall, entire.each, entire.tokenizer, by_domain)


def caption_pictures(model: VisionLanguageModel, paths: Sequence[str | Path]) -> list[Caption]:
    """Caption picture files with any model, in their order.

    The model gets the pictures one by one, so that it may hold as few of them in memory as it likes.

    Raises:
        EvaluationError: files are missing, which is found out before the model begins, or one is no picture.
    """
    if missing := [str(path) for path in paths if not Path(path).is_file()]:
        raise EvaluationError(
            f"There {name_ids(missing, 'is no picture', 'are no pictures')}; mend the folder or the names."
        )

    def pictures() -> Iterator[Image.Image]:
        for path in paths:
            try:
                yield open_image(Path(path))
            except (ValueError, OSError) as error:
                raise EvaluationError(f"{error} Mend the picture or leave it out.") from error

    captions = model.caption(model.look(pictures()))
    if len(captions) != len(paths):
        raise EvaluationError(
            f"The model gave {len(captions)} captions for {len(paths)} pictures; it should give one each."
        )
    return captions
