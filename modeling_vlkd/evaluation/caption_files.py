"""Files of captions in their official formats.

Results and annotations of COCO (https://cocodataset.org/#format-results), annotations of NoCaps, which are like COCO's
with the domain of each picture, and Karpathy's `dataset_coco.json` and `dataset_flickr30k.json` with their splits.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import EvaluationError
from .json_entries import (
    ANNOTATED_CAPTIONS,
    KARPATHY_CAPTIONS,
    PREDICTED_CAPTIONS,
    Kind,
    check_field,
    has_text,
    index_entries,
    index_rows,
    number_objects,
    refuse,
    refuse_other_split,
    take_entries,
)
from .json_files import read_json_file, show_json, write_json_file


LONGEST_CAPTION = 1000  # characters; nobody writes one so long, a model that repeats itself does
HALF = re.compile("[\ud800-\udfff]")  # half a character: "\ud83d" without its "\ude00", which no encoding writes
FAULTS: dict[str, Callable[[str], Any]] = {
    f"of more than {LONGEST_CAPTION:,} characters": lambda text: len(text) > LONGEST_CAPTION,
    "with half a character": HALF.search,
}
ENTRIES, IMAGES = ("entry", "entries"), ("image", "images")  # nouns of messages: by number in the file, by id
PICTURES = Kind("pictures", "images", {"id": int})  # stands beside the captions by people
DOMAINS = ("in-domain", "near-domain", "out-domain")  # of NoCaps: what COCO's 80 classes say of a picture


@dataclass(frozen=True)
class CaptionReferences:
    """What people wrote about pictures.

    Args:
        captions: at least one for each image id.
        file_names: of the pictures, by image id; some files name none.
        domains: of each image id, one of `DOMAINS`; None for data without domains.
        source: what messages call them: their file.
    """

    captions: dict[int, list[str]]
    file_names: dict[int, str]
    domains: dict[int, str] | None = None
    source: str = "the references"


def read_references(path: str | Path, split: str | None = None) -> CaptionReferences:
    """Read annotations of COCO or NoCaps, or Karpathy's.

    Images have COCO's ids, and those of Karpathy's Flickr30K his `imgid`.

    Args:
        split: of Karpathy's files, which hold several: "train", "restval" (COCO only), "val" or "test".

    Raises:
        EvaluationError: the file cannot be read, is not of captions, or has no such split; with the ids at fault.
    """
    path = Path(path)
    content = read_json_file(path, f"give {ANNOTATED_CAPTIONS}")
    images = PICTURES.entries(content)
    if images is not None and any(isinstance(image, dict) and "sentences" in image for image in images):
        references = karpathy_references(images, split, path)
    else:
        annotations = take_entries(content, path, ANNOTATED_CAPTIONS)
        if images is None:
            raise EvaluationError(f"{path} holds captions without a list of their pictures; add {PICTURES}.")
        if split is not None:
            raise EvaluationError(
                f"{path} has no splits, so no {split!r}; leave the split out, or give Karpathy's file."
            )
        references = coco_references(images, annotations, path)
    refuse_unusable(references.captions, path)
    blank = [image for image, texts in references.captions.items() if not any(text.strip() for text in texts)]
    refuse(blank, path, "there is no caption of", "leave these images out", *IMAGES)
    return references


def coco_references(images: Sequence[Any], annotations: Sequence[Any], path: Path) -> CaptionReferences:
    """Put annotations of COCO or NoCaps together by image."""
    where = f'"images" of {path}'
    pictures = index_entries(images, where, PICTURES, "id", *IMAGES)
    captions: dict[int, list[str]] = {image: [] for image in pictures}
    rows = number_objects(annotations, f'"annotations" of {path}')
    for field, wanted in ANNOTATED_CAPTIONS.fields.items():
        check_field(rows, field, wanted, f'"annotations" of {path}', *ENTRIES)
    unknown = dict.fromkeys(row["image_id"] for row in rows.values() if row["image_id"] not in captions)
    refuse(unknown, path, 'there are captions, but no entry in "images", for', "add one of each", *IMAGES)
    for row in rows.values():
        captions[row["image_id"]].append(row["caption"])
    named = {image: row for image, row in pictures.items() if "file_name" in row}
    check_field(named, "file_name", str, where, *IMAGES)
    file_names = {image: row["file_name"] for image, row in named.items()}
    return CaptionReferences(captions, file_names, nocaps_domains(pictures, where), str(path))


def nocaps_domains(pictures: Mapping[int, dict[str, Any]], where: str) -> dict[int, str] | None:
    """Take the domain of each picture, if any has one."""
    if not any("domain" in row for row in pictures.values()):
        return None
    domains = {image: row.get("domain") for image, row in pictures.items()}
    wrong = [image for image, domain in domains.items() if domain not in DOMAINS]
    shown = show_json(domains[wrong[0]]) if wrong else ""
    refuse(wrong, where, f"'domain' is {shown} in", f"make it one of {', '.join(DOMAINS)}", *IMAGES)
    return {image: str(domain) for image, domain in domains.items()}


def karpathy_references(images: Sequence[Any], split: str | None, path: Path) -> CaptionReferences:
    """Take one split of a file by Karpathy (arXiv:1412.2306)."""
    where = f'"images" of {path}'
    numbered = number_objects(images, where)
    check_field(numbered, "split", str, where, *ENTRIES)
    splits = sorted({row["split"] for row in numbered.values()})
    if split is None and len(splits) > 1:
        raise EvaluationError(f"{path} has several splits; choose one of {', '.join(splits)}.")
    if split is not None and split not in splits:
        raise EvaluationError(f"{path} has no split {split!r}; choose one of {', '.join(splits)}.")
    chosen = {number: row for number, row in numbered.items() if split in (None, row["split"])}
    id_fields = {number: "cocoid" if "cocoid" in row else "imgid" for number, row in chosen.items()}
    for field in ("cocoid", "imgid"):
        check_field(
            {number: row for number, row in chosen.items() if id_fields[number] == field}, field, int, where, *ENTRIES
        )
    with_ids = {number: row | {"id": row[id_fields[number]]} for number, row in chosen.items()}
    rows = index_rows(with_ids, where, KARPATHY_CAPTIONS, "id", *IMAGES)
    wrong = [image for image, row in rows.items() if not all(has_text(each, "raw") for each in row["sentences"])]
    remedy = 'write [{"raw": "a dog"}, ...]'
    refuse(wrong, where, "'sentences' holds something else than texts in", remedy, *IMAGES)
    captions = {image: [each["raw"] for each in row["sentences"]] for image, row in rows.items()}
    file_names = {image: row["filename"] for image, row in rows.items()}
    return CaptionReferences(captions, file_names, source=str(path))


def read_captions(path: str | Path) -> dict[int, str]:
    """Read results in COCO's format, `[{"image_id": 42, "caption": "a dog runs"}, ...]`: captions by image id.

    Raises:
        EvaluationError: the file cannot be read, is not of captions, or has two captions of a picture, empty ones or
            such of more than 1,000 characters; with the ids at fault.
    """
    path = Path(path)
    content = read_json_file(path, f"give {PREDICTED_CAPTIONS}")
    entries = take_entries(content, path, PREDICTED_CAPTIONS)
    rows = index_entries(entries, path, PREDICTED_CAPTIONS, "image_id", *IMAGES)
    captions = {image: row["caption"] for image, row in rows.items()}
    empty = [image for image, text in captions.items() if not text.strip()]
    refuse(empty, path, "'caption' is empty in", "caption these again", *IMAGES)
    refuse_unusable({image: [text] for image, text in captions.items()}, path)
    return captions


def write_captions(path: str | Path, captions: Mapping[int, str]):
    """Write results in COCO's format, as its server wants them, whole or not at all.

    Empty captions are written too: hours of work shall not be lost for one. Reading the file names them.

    Raises:
        EvaluationError: an id is no integer or a caption no text, or the file cannot be written.
    """
    path = Path(path)
    results = [{"image_id": image, "caption": text} for image, text in captions.items()]
    index_rows(number_objects(results, path), path, PREDICTED_CAPTIONS, "image_id", *IMAGES)
    write_json_file(path, results)


def check_together(captions: Mapping[int, str], references: CaptionReferences, source: str):
    """Stop at captions that are not of the pictures of the references, one for each.

    Args:
        source: what messages call the captions: their file.

    Raises:
        EvaluationError: with the ids of pictures that one has and the other lacks.
    """
    known = references.source
    refuse_other_split(captions, source, references.captions, known, "image")
    unknown = [image for image in captions if image not in references.captions]
    remedy = "take these out, or give the annotations of their split"
    refuse(unknown, source, f"there is no entry in {known} for", remedy, *IMAGES)
    missing = [image for image in references.captions if image not in captions]
    refuse(missing, known, f"there is no caption in {source} for", "caption these too", *IMAGES)


def refuse_unusable(captions: Mapping[int, Sequence[str]], path: Path):
    """Stop at captions that are too long, or that no file can hold."""
    for fault, is_wrong in FAULTS.items():
        wrong = [image for image, texts in captions.items() if any(map(is_wrong, texts))]
        refuse(wrong, path, f"there are captions {fault} for", "write them again", *IMAGES)
