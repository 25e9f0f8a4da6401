"""Retrieval on COCO 5K, Flickr30K 1K, or any pictures with captions: `ranking.py` has the figures."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .caption_files import IMAGES, CaptionReferences, read_references
from .embeddings import EmbeddingModel, read_embedding, write_embedding
from .errors import EvaluationError
from .json_entries import refuse
from .picture_files import find_picture_files
from .ranking import IMAGE_TO_TEXT, RECALL_AT, TEXT_TO_IMAGE, Ranking, rank_both_ways, rank_folds
from .report import Report, ScoredExample, bootstrap_interval


@dataclass
class RetrievalBenchmark:
    """Finds the captions of each picture and the picture of each caption.

    The examples are the pictures, "image 42", and their captions, "caption 42/0"; a prediction is an embedding. The
    model speaks [`EmbeddingModel`].

    Args:
        captions: of each picture, by image id.
        paths: the file of each picture.
        folds: average over so many parts of the pictures too: with 5 of COCO's 5,000, "COCO 1K".
        facts: what the report says besides.
    """

    captions: dict[int, list[str]]
    paths: dict[int, Path]
    folds: int | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    task: str = field(default="retrieval", init=False)
    ids: list[str] = field(init=False)

    def __post_init__(self):
        self.images = list(self.captions)
        self.texts = [text for texts in self.captions.values() for text in texts]
        counts = [len(texts) for texts in self.captions.values()]
        self.image_of = torch.arange(len(self.images)).repeat_interleave(torch.tensor(counts))
        self.ids = [f"image {image}" for image in self.images]
        self.ids += [f"caption {image}/{place}" for image in self.images for place in range(len(self.captions[image]))]
        if self.folds is not None and (self.folds < 2 or len(self.images) % self.folds):
            raise EvaluationError(
                f"{len(self.images)} pictures make no {self.folds} folds of one size; give a number that divides them."
            )
        self.facts = {
            "pictures": len(self.images),
            "captions": len(self.texts),
            "captions_per_image": counts[0] if len(set(counts)) == 1 else f"{min(counts)} to {max(counts)}",
            **self.facts,
        }

    @classmethod
    def from_files(
        cls,
        captions: str | Path,
        pictures: str | Path,
        split: str | None = None,
        captions_per_image: int | None = None,
        folds: int | None = None,
    ) -> "RetrievalBenchmark":
        """Read captions of COCO, or Karpathy's, and find their pictures.

        Args:
            captions: the file; pictures keep its order, which tells the folds.
            pictures: the folder.
            split: of Karpathy's files.
            captions_per_image: take the first so many of each picture, such as the 5 of published figures; all of the
                file's by default.

        Raises:
            EvaluationError: a file is wrong, pictures are missing, or have fewer captions; with the ids.
        """
        references = read_references(captions, split)
        chosen = choose_captions(references, captions_per_image)
        paths = find_picture_files(pictures, chosen, references.file_names)
        return cls(chosen, paths, folds, {} if split is None else {"split": split})

    def order(self) -> list[int]:
        """Give all positions: the pictures, then the captions from the shortest to the longest."""
        first = len(self.images)
        captions = sorted(range(len(self.texts)), key=lambda place: len(self.texts[place]))
        return [*range(first), *(first + place for place in captions)]

    def predict(self, model: EmbeddingModel, positions: Sequence[int]) -> list[dict[str, Any]]:
        """Embed pictures and captions: a row `{"embedding": ...}` each, as [`write_embedding`] writes it."""
        first, found = len(self.images), dict[int, Tensor]()
        if pictures := [position for position in positions if position < first]:
            looked = model.look([self.paths[self.images[position]] for position in pictures])
            found |= zip(pictures, model.embed_images(looked), strict=True)
        if captions := [position for position in positions if position >= first]:
            texts = [self.texts[position - first] for position in captions]
            found |= zip(captions, model.embed_texts(texts), strict=True)
        return [{"embedding": write_embedding(found[position])} for position in positions]

    def report(self, rows: Sequence[dict[str, Any]], seed: int = 0) -> Report:
        """Rank all by their embeddings; figures are shares, and ranks from 1."""
        embeds, first = [read_embedding(row["embedding"]) for row in rows], len(self.images)
        if len({len(each) for each in embeds[:first]}) > 1 or len({len(each) for each in embeds[first:]}) > 1:
            raise EvaluationError("The embeddings have different numbers of dimensions; give those of one model.")
        # Equal captions were embedded in different batches, which changes the last bits; as one they are exactly tied.
        one_of = {text: place for place, text in enumerate(self.texts)}
        image_embeds = torch.stack(embeds[:first])
        text_embeds = torch.stack([embeds[first + one_of[text]] for text in self.texts])
        ranking = rank_both_ways(image_embeds, text_embeds, self.image_of)
        groups = {}
        if self.folds is not None:
            name = f"mean of {self.folds} folds of {first // self.folds:,}"
            groups["by_folds"] = {name: rank_folds(image_embeds, text_embeds, self.image_of, self.folds)}
        intervals = {
            name: bootstrap_interval(scores.tolist(), seed)
            for name, scores in self.scores_of_pictures(ranking).items()
        }
        scored = self.scored_examples(ranking)
        return Report(self.task, len(rows), ranking.figures(), groups, intervals, dict(self.facts), scored)

    def scores_of_pictures(self, ranking: Ranking) -> dict[str, Tensor]:
        """Share each figure that is a mean out among the pictures, `(pictures,)`.

        Captions of one picture are right and wrong together, so the bootstrap draws pictures, not captions.
        """
        counts = torch.bincount(self.image_of).double()
        scores = {}
        for k in RECALL_AT:
            scores[f"{IMAGE_TO_TEXT}_R@{k}"] = ranking.images.hits(k)
        for k in RECALL_AT:
            hits = torch.zeros_like(counts).index_add(0, self.image_of, ranking.texts.hits(k))
            scores[f"{TEXT_TO_IMAGE}_R@{k}"] = hits / counts.mean()
        return scores | {"mean_recall": torch.stack(list(scores.values())).mean(dim=0)}

    def scored_examples(self, ranking: Ranking) -> list[ScoredExample]:
        """Tell of each picture the nearest caption, and of each caption the nearest picture."""
        first = len(self.images)
        of_pictures = [
            ScoredExample(
                id=self.ids[place],
                score=score,
                said=self.texts[nearest],
                truth=self.captions[image],
                image=str(self.paths[image]),
            )
            for place, (image, score, nearest) in enumerate(
                zip(self.images, ranking.images.hits(1).tolist(), ranking.images.nearest.tolist())
            )
        ]
        of_captions = [
            ScoredExample(
                id=self.ids[first + place],
                score=score,
                said=self.paths[self.images[nearest]].name,
                truth=[self.paths[self.images[own]].name],
                asked=self.texts[place],
                image=str(self.paths[self.images[nearest]]),
            )
            for place, (own, score, nearest) in enumerate(
                zip(self.image_of.tolist(), ranking.texts.hits(1).tolist(), ranking.texts.nearest.tolist())
            )
        ]
        return of_pictures + of_captions


def choose_captions(references: CaptionReferences, per_image: int | None) -> dict[int, list[str]]:
    """Take the first captions of each picture, or all; stop at pictures with too few, and at empty captions."""
    if per_image is not None and per_image < 1:
        raise EvaluationError(f"Got {per_image} captions a picture; give 1 or more, or leave it out to take all.")
    few = [image for image, texts in references.captions.items() if len(texts) < (per_image or 1)]
    refuse(few, references.source, f"there are not {per_image or 1} captions of", "ask for fewer", *IMAGES)
    chosen = {image: texts[:per_image] for image, texts in references.captions.items()}
    empty = [image for image, texts in chosen.items() if not all(text.strip() for text in texts)]
    refuse(empty, references.source, "there is an empty caption of", "write it or take it out", *IMAGES)
    return chosen
