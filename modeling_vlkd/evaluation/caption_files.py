"""Files of captions in their official formats.

Results and annotations of COCO (https://cocodataset.org/#format-results), annotations of NoCaps, which are like COCO's
with the domain of each picture, and Karpathy's `dataset_coco.json` and `dataset_flickr30k.json` with their splits.
"""

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import EvaluationError
from .id_lists import name_ids
from .json_files import KINDS, read_json_file, shown, take, write_json_file


LONGEST_CAPTION = 1000  # characters; nobody writes one so long, a model that repeats itself does
HALF = re.compile("[\ud800-\udfff]")  # half a character: "\ud83d" without its "\ude00", which no encoding writes
FAULTS: dict[str, Callable[[str], Any]] = {
    f"of more than {LONGEST_CAPTION:,} characters": lambda text: len(text) > LONGEST_CAPTION,
    "with half a character": HALF.search,
}
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
    content = read_json_file(path)
    if isinstance(content, list):
        raise EvaluationError(f"{path} holds a list, as results do; give annotations, with images and captions.")
    if isinstance(content, dict) and "questions" in content:
        raise EvaluationError(f"{path} holds questions, of visual question answering; give annotations of captions.")
    images = take(content, "images", list, str(path))
    if not images:
        raise EvaluationError(f"{path} has no images; give annotations of captions.")
    if any(isinstance(image, dict) and "sentences" in image for image in images):
        references = karpathy_references(images, split, path)
    elif split is not None:
        raise EvaluationError(f"{path} has no splits, so no {split!r}; leave the split out, or give Karpathy's file.")
    else:
        references = coco_references(images, take(content, "annotations", list, str(path)), path)
    refuse_unusable(references.captions, path)
    blank = [image for image, texts in references.captions.items() if not any(text.strip() for text in texts)]
    if blank:
        raise EvaluationError(f"{path} has no caption of images {name_ids(blank)}; leave these images out.")
    return references


def coco_references(images: Sequence[Any], annotations: Sequence[Any], path: str | Path) -> CaptionReferences:
    """Put annotations of COCO or NoCaps together by image."""
    wheres = [f"Image {number} of {path}" for number in range(1, len(images) + 1)]
    ids = [take(image, "id", int, where) for image, where in zip(images, wheres)]
    refuse_duplicates(ids, path)
    captions: dict[int, list[str]] = {image: [] for image in ids}
    unknown = []
    for number, annotation in enumerate(annotations, 1):
        where = f"Annotation {number} of {path}"
        image = take(annotation, "image_id", int, where)
        text = take(annotation, "caption", str, where)
        if image in captions:
            captions[image].append(text)
        else:
            unknown.append(image)
    if unknown:
        raise EvaluationError(
            f"{path} has captions of images {name_ids(dict.fromkeys(unknown))} but does not list these; add them."
        )
    named = [(id, image, where) for id, image, where in zip(ids, images, wheres) if "file_name" in image]
    file_names = {id: take(image, "file_name", str, where) for id, image, where in named}
    return CaptionReferences(captions, file_names, nocaps_domains(dict(zip(ids, images)), path), str(path))


def nocaps_domains(images: Mapping[int, dict[str, Any]], path: str | Path) -> dict[int, str] | None:
    """Take the domain of each picture, if any has one."""
    if not any("domain" in image for image in images.values()):
        return None
    domains = {id: image.get("domain") for id, image in images.items()}
    if wrong := [id for id, domain in domains.items() if domain not in DOMAINS]:
        raise EvaluationError(
            f"{path} has {shown(domains[wrong[0]])} as a domain, of images {name_ids(wrong)}; make it one of "
            f"{', '.join(DOMAINS)}."
        )
    return {id: str(domain) for id, domain in domains.items()}


def karpathy_references(images: Sequence[Any], split: str | None, path: str | Path) -> CaptionReferences:
    """Take one split of a file by Karpathy (arXiv:1412.2306)."""
    wheres = [f"Image {number} of {path}" for number in range(1, len(images) + 1)]
    splits = [take(image, "split", str, where) for image, where in zip(images, wheres)]
    known = ", ".join(sorted(set(splits)))
    if split is None and len(set(splits)) > 1:
        raise EvaluationError(f"{path} has several splits; choose one of {known}.")
    if split is not None and split not in splits:
        raise EvaluationError(f"{path} has no split {split!r}; choose one of {known}.")
    chosen = [(image, where) for image, own, where in zip(images, splits, wheres) if split in (None, own)]
    ids = [take(image, "cocoid" if "cocoid" in image else "imgid", int, where) for image, where in chosen]
    refuse_duplicates(ids, path)
    captions, file_names = {}, {}
    for id, (image, where) in zip(ids, chosen):
        sentences = take(image, "sentences", list, where)
        captions[id] = [take(sentence, "raw", str, f"A sentence of image {id} of {path}") for sentence in sentences]
        file_names[id] = take(image, "filename", str, where)
    return CaptionReferences(captions, file_names, source=str(path))


def read_captions(path: str | Path) -> dict[int, str]:
    """Read results in COCO's format, `[{"image_id": 42, "caption": "a dog runs"}, ...]`: captions by image id.

    Raises:
        EvaluationError: the file cannot be read, is not of captions, or has two captions of a picture, empty ones or
            such of more than 1,000 characters; with the ids at fault.
    """
    content = read_json_file(path)
    if not isinstance(content, list):
        kind = "annotations" if isinstance(content, dict) and "images" in content else shown(content)
        raise EvaluationError(f'{path} holds {kind}, not results; give a list of {{"image_id": 1, "caption": "..."}}.')
    if not content:
        raise EvaluationError(f"{path} holds no captions; caption the pictures first.")
    ids, texts = [], []
    for number, result in enumerate(content, 1):
        where = f"Result {number} of {path}"
        if isinstance(result, dict) and {"question_id", "answer"} & set(result):
            raise EvaluationError(
                f"{where} answers question {shown(result.get('question_id'))}: these are results of visual question "
                "answering; give those of captioning."
            )
        ids.append(take(result, "image_id", int, where))
        texts.append(take(result, "caption", str, f"{where} (image {ids[-1]})"))
    refuse_duplicates(ids, path)
    captions = dict(zip(ids, texts))
    if empty := [id for id, text in captions.items() if not text.strip()]:
        raise EvaluationError(f"{path} has empty captions of images {name_ids(empty)}; caption these again.")
    refuse_unusable({id: [text] for id, text in captions.items()}, path)
    return captions


def write_captions(path: str | Path, captions: Mapping[int, str]):
    """Write results in COCO's format, as its server wants them, whole or not at all.

    Empty captions are written too: hours of work shall not be lost for one. Reading the file names them.

    Raises:
        EvaluationError: an id is no integer or a caption no text, or the file cannot be written.
    """
    results = [{"image_id": image, "caption": text} for image, text in captions.items()]
    for number, result in enumerate(results, 1):
        for name, kind in (("image_id", int), ("caption", str)):
            if type(result[name]) is not kind:
                raise EvaluationError(
                    f"Caption {number} for {path} has {result[name]!r:.60} as {name!r}; make it {KINDS[kind]}."
                )
    write_json_file(path, results)


def check_together(captions: Mapping[int, str], references: CaptionReferences, source: str = "The set of captions"):
    """Stop at captions that are not of the pictures of the references, one for each.

    Args:
        source: what messages call the captions: their file.

    Raises:
        EvaluationError: with the ids of pictures that one has and the other lacks.
    """
    unknown = [image for image in captions if image not in references.captions]
    missing = [image for image in references.captions if image not in captions]
    if len(unknown) == len(captions):
        raise EvaluationError(
            f"{source} and {references.source} have no image in common ({name_ids(unknown)}; {name_ids(missing)}): "
            "these are annotations of another split; give those of the captioned pictures."
        )
    if unknown:
        raise EvaluationError(
            f"{source} captions images {name_ids(unknown)}, unknown to {references.source}; leave them out, or give "
            "the annotations of their split."
        )
    if missing:
        raise EvaluationError(
            f"{source} lacks {len(missing)} of the {len(references.captions)} images of {references.source}: "
            f"{name_ids(missing)}; caption these too."
        )


def refuse_duplicates(ids: Sequence[int], path: str | Path):
    """Stop at ids that stand twice."""
    twice = [id for id, times in Counter(ids).items() if times > 1]
    if twice:
        raise EvaluationError(f"{path} has images {name_ids(twice)} more than once; keep one of each.")


def refuse_unusable(captions: Mapping[int, Sequence[str]], path: str | Path):
    """Stop at captions that are too long, or that no file can hold."""
    for fault, is_wrong in FAULTS.items():
        if wrong := [id for id, texts in captions.items() if any(map(is_wrong, texts))]:
            raise EvaluationError(f"{path} has captions {fault}, of images {name_ids(wrong)}; write them again.")
