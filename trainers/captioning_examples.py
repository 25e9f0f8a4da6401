"""Captioned pictures to finetune on: reading them, examples of a caption or of a picture, and an evaluation."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import datasets
import torch
from transformers import PreTrainedModel

from modeling_vlkd.evaluation.caption_files import CaptionReferences, read_references
from modeling_vlkd.evaluation.caption_tokenizers import PYTHON_TOKENIZER
from modeling_vlkd.evaluation.captioning import evaluate_captions
from modeling_vlkd.evaluation.picture_files import find_picture_files
from modeling_vlkd.evaluation.vlkd_model import VLKDAdapter
from modeling_vlkd.processing_vlkd import VLKDProcessor

from .captioned_images import open_row


METRICS = ("CIDEr", "Bleu_4", "ROUGE_L")  # of those that are measured, the ones that are logged


def load_referenced_images(references: str | Path, images: str | Path, split: str | None = None) -> datasets.Dataset:
    """Load pictures with the captions of COCO's or Karpathy's files.

    They come as [`load_captioned_images`] gives those of others.

    Args:
        references: the JSON file.
        images: the folder of its pictures.
        split: of Karpathy's files; "train+restval" for two of them.

    Returns:
        One row a picture: `image`, a path, and `captions`, a list of strings.

    Raises:
        EvaluationError: a file cannot be read, or pictures are missing; with their ids.
    """
    paths, captions = [], []
    for part in split.split("+") if split else [None]:
        found = read_references(references, part)
        files = find_picture_files(images, found.captions, found.file_names)
        paths += [str(files[image]) for image in found.captions]
        captions += [[" ".join(text.split()) for text in texts if text.strip()] for texts in found.captions.values()]
    return datasets.Dataset.from_dict({"image": paths, "captions": captions})


class PictureExamples(torch.utils.data.Dataset):
    """Pictures for [`VLKDDataCollator`], an example a caption or an example a picture.

    Args:
        pictures: one row a picture, `image` and `captions`.
        image_rows: their rows as [`compute_image_rows`] gives them, in numpy's format; None to look at the pictures at
            each step.
        dim: of the rows.
        each_caption: give each caption with its picture; otherwise each picture with its `position`.
    """

    def __init__(
        self, pictures: datasets.Dataset, image_rows: datasets.Dataset | None, dim: int, each_caption: bool = True
    ):
        self.pictures, self.image_rows, self.dim = pictures, image_rows, dim
        self.captions: list[list[str]] = list(pictures["captions"])
        self.places = [
            (picture, caption)
            for picture, captions in enumerate(self.captions)
            for caption in (captions if each_caption else [None])
        ]

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: int) -> dict[str, Any]:
        picture, caption = self.places[index]
        text = {"position": picture} if caption is None else {"caption": caption}
        return self.image_of(picture) | text

    def image_of(self, picture: int) -> dict[str, Any]:
        """Give a picture's rows, `(rows, dim)`, or the picture."""
        if self.image_rows is None:
            return {"image": open_row(self.pictures, picture)}
        return {"image_embeds": self.image_rows[picture]["image_embeds"].reshape(-1, self.dim)}


class CaptionEvaluation:
    """Has a model caption pictures, and scores that as COCO's evaluation does: CIDEr, BLEU-4 and ROUGE-L.

    Words are told apart without Java, so figures may differ from the official ones in the fourth digit.
    """

    def __init__(self, examples: PictureExamples, processor: VLKDProcessor):
        self.examples, self.processor = examples, processor
        self.references = CaptionReferences(dict(enumerate(examples.captions)), {})

    def __len__(self) -> int:
        return len(self.references.captions)

    def predict(self, model: PreTrainedModel, positions: Sequence[int], batch_size: int) -> list[str]:
        images: Any = (open_row(self.examples.pictures, position) for position in positions)
        if self.examples.image_rows is not None:
            rows = [torch.as_tensor(self.examples.image_of(position)["image_embeds"]) for position in positions]
            images = torch.stack(rows)
        return [caption.text for caption in VLKDAdapter(model, self.processor, batch_size).caption(images)]

    def score(self, predictions: Sequence[str]) -> dict[str, float]:
        result = evaluate_captions(dict(enumerate(predictions)), self.references, PYTHON_TOKENIZER)
        return {name: result.overall[name] for name in METRICS}
