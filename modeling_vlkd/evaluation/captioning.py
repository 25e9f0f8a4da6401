"""Image captioning, COCO's and NoCaps': how near the captions of a model are to those of people."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from .caption_files import DOMAINS, CaptionReferences, check_together
from .caption_metrics import score_groups
from .errors import EvaluationError
from .extra_packages import require_packages
from .json_entries import refuse
from .protocol import VisionLanguageModel
from .report import Report, ScoredExample, bootstrap_interval
from .shown_pictures import ShownPictures


ENTIRE = "entire"  # what NoCaps calls all domains together
MEANS = ("CIDEr", "ROUGE_L")  # of COCO's metrics, those that are means over pictures
HIGHEST_CIDER = 10.0


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


def report_captions(
    captions: Mapping[int, str],
    references: CaptionReferences,
    seed: int = 0,
    source: str = "the set of captions",
) -> Report:
    """Score captions as [`evaluate_captions`] does, and report it.

    Args:
        seed: of the bootstrap.
        source: what messages call the captions: their file.
    """
    result = evaluate_captions(captions, references, source=source)
    groups = {} if result.by_domain is None else {"by_domain": result.by_domain}
    intervals = {name: bootstrap_interval([each[name] for each in result.each.values()], seed) for name in MEANS}
    scored = [
        ScoredExample(image, min(scores["CIDEr"] / HIGHEST_CIDER, 1.0), captions[image], references.captions[image])
        for image, scores in result.each.items()
    ]
    facts = {"tokenizer": result.tokenizer}
    return Report("captioning", len(captions), result.overall, groups, intervals, facts, scored)


@dataclass
class CaptioningBenchmark:
    """Pictures to be captioned by a [`VisionLanguageModel`], and what people wrote about them.

    Raises:
        EvaluationError: a picture is missing, by its id, or the control shows none.
    """

    references: CaptionReferences
    shown: ShownPictures
    task: str = "captioning"

    def __post_init__(self):
        require_packages("Scoring captions", "pycocoevalcap", "nltk")
        self.ids = list(self.references.captions)
        lost = [image for image in self.ids if image not in self.shown.files]
        refuse(lost, "The pictures", "there is no file of", "give the folder of their split", "picture", "pictures")
        if self.shown.hidden:
            raise EvaluationError("Without a picture there is nothing to caption; take the control shuffled or blank.")

    def order(self) -> range:
        return range(len(self.ids))

    def predict(self, model: VisionLanguageModel, positions: Sequence[int]) -> list[dict[str, Any]]:
        captions = model.caption(model.look(self.shown.show([self.ids[position] for position in positions])))
        return [{"caption": caption.text, "score": caption.score} for caption in captions]

    def report(self, rows: Sequence[dict[str, Any]], seed: int) -> Report:
        captions = {image: row["caption"] for image, row in zip(self.ids, rows, strict=True)}
        report = report_captions(captions, self.references, seed)
        for place, scored in enumerate(report.scored):
            report.scored[place] = replace(scored, image=self.shown.shown_name(int(scored.id)))
        return report
