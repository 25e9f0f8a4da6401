"""What stays the same all through a distillation, computed once and kept: image rows, embeddings of captions."""

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

import datasets
import pyarrow as pa
import torch
from torch import Tensor
from tqdm import tqdm
from transformers import (
    AutoModel,
    AutoTokenizer,
    BatchEncoding,
    CLIPTextModelWithProjection,
    MetaClip2TextModelWithProjection,
    PreTrainedConfig,
    PreTrainedModel,
    SiglipTextModel,
)

from modeling_vlkd.loading_vlkd import load_whole
from modeling_vlkd.processing_vlkd import VLKDProcessor

from .data import ImageCaptionPairs, open_row


TEXT_TOWERS = {
    "clip_text_model": CLIPTextModelWithProjection,
    "metaclip_2_text_model": MetaClip2TextModelWithProjection,
    "siglip_text_model": SiglipTextModel,
}
ROWS_OF_A_TRAINED_TOWER = (
    "`freeze_vision_tower=False` trains the vision tower, but image rows that are kept (`image_embeds`) pass it by: "
    "keep the pictures with `keep_pixels` (examples with `image` or `pixel_values`), or freeze the tower."
)
SHARD = 2048  # rows a file; an interrupted computation goes on after the last whole file


class TextTeacher:
    """The text tower of the CLIP whose vision tower is distilled, frozen, in fp32 whatever its file holds.

    Args:
        name_or_path: folder or Hub id of a CLIP in transformers format, or of its text tower alone, as
            `vlkd convert --teacher` writes it; with its tokenizer.
        device: where it runs.
    """

    def __init__(self, name_or_path: str, device: torch.device | str = "cpu"):
        config, _ = PreTrainedConfig.get_config_dict(name_or_path)
        self.is_tower = config.get("model_type") in TEXT_TOWERS
        model_class = TEXT_TOWERS[config["model_type"]] if self.is_tower else AutoModel
        model = load_whole(model_class, name_or_path, dtype=torch.float32)
        if not self.is_tower and not callable(getattr(model, "get_text_features", None)):
            raise ValueError(f"{name_or_path} is a {type(model).__name__} without a text tower; give the whole CLIP.")
        self.model = model.to(device).eval()
        self.tokenizer = AutoTokenizer.from_pretrained(name_or_path)
        self.max_length = (model.config if self.is_tower else model.config.text_config).max_position_embeddings

    @torch.no_grad()
    def embed(self, texts: Sequence[str], batch_size: int = 256) -> Tensor:
        """Embed texts as CLIP does, not normalised: `(texts, dim)`."""
        # SigLIP was trained on texts padded to their full length, padding not masked.
        siglip = self.model.config.model_type.startswith("siglip")
        parts = []
        for first in range(0, len(texts), batch_size):
            tokens = self.tokenizer(
                list(texts[first : first + batch_size]),
                padding="max_length" if siglip else True,
                return_attention_mask=not siglip,
                truncation=True,
                max_length=self.max_length,
                return_tensors="pt",
            )
            parts.append(self.text_embeds(tokens.to(self.model.device)).float().cpu())
        return torch.cat(parts)

    def text_embeds(self, tokens: BatchEncoding) -> Tensor:
        if not self.is_tower:
            return self.model.get_text_features(**tokens).pooler_output
        output = self.model(**tokens)
        return output.text_embeds if "text_embeds" in output else output.pooler_output


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

    @torch.no_grad()
    def compute(rows: range) -> Tensor:
        pictures = [open_row(dataset, row) for row in rows]
        pixels = processor(images=pictures, return_tensors="pt")["pixel_values"].to(model.device, model.dtype)
        views = [model.get_image_rows(each) for each in ([pixels, pixels.flip(-1)] if flip else [pixels])]
        return torch.stack(views, dim=1).flatten(1)  # (batch, views * rows * dim)

    was_training = model.training
    model.eval()
    key = fingerprint(
        dataset._fingerprint, processor.image_processor.to_json_string(), str(flip), model.base_model.vision_tower
    )
    folder = Path(cache_folder) / f"image_rows-{key}"
    features = compute_once(folder, "image_embeds", len(dataset), compute, batch_size, "Image rows")
    model.train(was_training)
    return features


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


@torch.no_grad()
def embed_sample(
    dataset: datasets.Dataset,
    model: PreTrainedModel,
    processor: VLKDProcessor,
    teacher: TextTeacher,
    sample: int = 512,
    batch_size: int = 64,
) -> tuple[list[str], Tensor, Tensor]:
    """Embed the first pictures and a caption of each: captions, and two times `(pictures, dim)`, not normalised."""
    count = min(sample, len(dataset))
    parts = []
    for first in range(0, count, batch_size):
        pictures = [open_row(dataset, row) for row in range(first, min(first + batch_size, count))]
        pixels = processor(images=pictures, return_tensors="pt")["pixel_values"].to(model.device, model.dtype)
        parts.append(model.get_image_features(pixels).pooler_output.float().cpu())
    captions = [captions[0] for captions in dataset[:count]["captions"]]
    return captions, torch.cat(parts), teacher.embed(captions)
