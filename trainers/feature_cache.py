"""Compute once what stays the same all through a distillation, and keep it: image rows, embeddings of captions."""

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

import datasets
import pyarrow as pa
import torch
from torch import Tensor
from tqdm import tqdm
from transformers import PreTrainedModel

from modeling_vlkd.evaluation.vlkd_model import VLKDAdapter, evaluating, pixels_of
from modeling_vlkd.processing_vlkd import VLKDProcessor

from .captioned_images import ROWS_OF_A_TRAINED_TOWER, ImageCaptionPairs, open_row
from .text_teacher import TextTeacher


SHARD = 2048  # rows a file; an interrupted computation goes on after the last whole file


def fingerprint(*parts: str | torch.nn.Module) -> str:
    """Hash texts, and the weights of models: with any change in them, features are computed anew."""
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, torch.nn.Module):
            for name, tensor in part.state_dict().items():
                digest.update(name.encode())
                digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
        else:
            digest.update(part.encode())
        digest.update(b"\0")
    return digest.hexdigest()[:32]


def compute_once(
    folder: Path, column: str, count: int, compute: Callable[[range], Tensor], batch_size: int, description: str
) -> datasets.Dataset:
    """Compute a vector for each of `count` rows, unless its file is there; the result is memory-mapped.

    Args:
        compute: for a range of rows, `(rows, size)`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    shards = []
    with tqdm(total=count, desc=description, unit="row") as progress:
        for first in range(0, count, SHARD):
            path, unfinished = folder / f"{first:09d}.arrow", folder / f"{first:09d}.unfinished"
            last = min(first + SHARD, count)
            if not path.exists():
                parts = []
                for start in range(first, last, batch_size):
                    parts.append(compute(range(start, min(start + batch_size, last))).float().cpu())
                    progress.update(len(parts[-1]))
                vectors = torch.cat(parts).numpy()
                values = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), vectors.shape[1])
                table = pa.table({column: values})
                with pa.OSFile(str(unfinished), "wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
                    writer.write_table(table)
                unfinished.rename(path)
            else:
                progress.update(last - first)
            shards.append(datasets.Dataset.from_file(str(path)))
    return datasets.concatenate_datasets(shards)


def compute_image_rows(
    dataset: datasets.Dataset,
    model: PreTrainedModel,
    processor: VLKDProcessor,
    cache_folder: str | Path,
    flip: bool = False,
    batch_size: int = 64,
) -> datasets.Dataset:
    """Compute the rows V of every picture, and with `flip` those of its mirror image too.

    Args:
        dataset: as [`load_captioned_images`] gives it.

    Returns:
        One row a picture: `image_embeds`, the numbers of `(views, rows, dim)` in a line.
    """

    def compute(rows: range) -> Tensor:
        pixels = pixels_of([open_row(dataset, row) for row in rows], model, processor)
        views = [model.get_image_rows(each) for each in ([pixels, pixels.flip(-1)] if flip else [pixels])]
        return torch.stack(views, dim=1).flatten(1)  # (batch, views * rows * dim)

    key = fingerprint(
        dataset._fingerprint, processor.image_processor.to_json_string(), str(flip), model.base_model.vision_tower
    )
    folder = Path(cache_folder) / f"image_rows-{key}"
    with evaluating(model):
        return compute_once(folder, "image_embeds", len(dataset), compute, batch_size, "Image rows")


def embed_captions(captions: Sequence[str], teacher: TextTeacher, cache_folder: str | Path) -> datasets.Dataset:
    """Embed captions with the teacher: one row a caption, `text_teacher_embeds` of `(dim,)`."""

    def compute(rows: range) -> Tensor:
        return teacher.embed(captions[rows.start : rows.stop])

    folder = Path(cache_folder) / f"text_embeds-{fingerprint(chr(0).join(captions), teacher.model)}"
    return compute_once(folder, "text_teacher_embeds", len(captions), compute, 256, "Caption embeddings")


def prepare_pairs(
    dataset: datasets.Dataset,
    model: PreTrainedModel,
    processor: VLKDProcessor,
    teacher: TextTeacher | None,
    cache_folder: str | Path,
    flip: bool = False,
    keep_pixels: bool = False,
) -> ImageCaptionPairs:
    """Make the examples of a distillation: every caption with its picture's rows and the teacher's embedding.

    Args:
        dataset: as [`load_captioned_images`] gives it.
        teacher: `None` to train without TTDM.
        cache_folder: where features are kept for the next run.
        flip: show mirror images too, one of the two to be drawn in each epoch.
        keep_pixels: decode and embed pictures at each step instead of once, for data too large to keep rows of, and
            for a vision tower that is trained.
    """
    if not keep_pixels and not model.config.freeze_vision_tower:
        raise ValueError(ROWS_OF_A_TRAINED_TOWER)
    index = [row for row, captions in enumerate(dataset["captions"]) for _ in captions]
    texts = [caption for captions in dataset["captions"] for caption in captions]
    columns = [datasets.Dataset.from_dict({"image_index": index, "caption": texts})]
    if teacher is not None:
        columns.append(embed_captions(texts, teacher, cache_folder))
    captions = datasets.concatenate_datasets(columns, axis=1).with_format("numpy")
    views = 2 if flip else 1
    if keep_pixels:
        return ImageCaptionPairs(dataset, captions, views)
    rows = compute_image_rows(dataset, model, processor, cache_folder, flip).with_format("numpy")
    return ImageCaptionPairs(rows, captions, views, dim=model.config.projection_dim)


def embed_sample(
    dataset: datasets.Dataset,
    model: PreTrainedModel,
    processor: VLKDProcessor,
    teacher: TextTeacher,
    sample: int = 512,
    batch_size: int = 64,
) -> tuple[list[str], Tensor, Tensor]:
    """Embed the first pictures and a caption of each: captions, and two times `(pictures, dim)`, not normalized."""
    count = min(sample, len(dataset))
    adapter = VLKDAdapter(model, processor, batch_size)
    embeds = adapter.embed_images(open_row(dataset, row) for row in range(count))
    captions = [captions[0] for captions in dataset[:count]["captions"]]
    return captions, embeds, teacher.embed(captions)
