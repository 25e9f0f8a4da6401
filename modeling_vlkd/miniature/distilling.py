"""Distill the miniature CLIP into the miniature BART with `VLKDDistillationTrainer`, with replay or without."""

import random
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import torch
from torch import Tensor
from transformers import CLIPModel, CLIPProcessor

from modeling_vlkd import VLKDForConditionalGeneration, VLKDProcessor
from modeling_vlkd.trainers import (
    PictureImitation,
    ReplayCorpus,
    VLKDDistillationConfig,
    VLKDDistillationTrainer,
    align_text_projection,
)

from .clip_teacher import embed_images, embed_texts, normalize
from .corpus import write_replay_corpus
from .world import Split


WEIGHTS = Path(str(files("modeling_vlkd.miniature") / "weights"))  # CLIP and BART, as `--from-scratch` makes them
CAPTION_MASKS, QUESTION_MASKS = 4, 2
STEPS, BATCH_SIZE = 300, 64
REPLAY_LINES = 20_000
RECIPE = {
    "learning_rate": 5e-4,
    "projection_learning_rate": 2e-3,
    "whole_text_share": 0.3,
    "replay_per_pair": 1.0,
    "replay_weight": 1.0,
    "weight_decay": 0.01,
    "warmup_steps": 0.1,
}


def recorded_recipe() -> dict[str, float]:
    """Return the settings that differ from the defaults of `VLKDDistillationConfig`, and the size of the corpus."""
    sizes = {"max_steps": STEPS, "per_device_train_batch_size": BATCH_SIZE, "replay_lines": REPLAY_LINES}
    return sizes | RECIPE


@dataclass
class Teachers:
    """A trained CLIP and BART in their folders, and CLIP in memory."""

    clip_folder: Path
    bart_folder: Path
    clip: CLIPModel
    clip_processor: CLIPProcessor

    @classmethod
    def load(cls, folder: Path) -> "Teachers":
        """Load the teachers from `folder/clip` and `folder/bart`."""
        clip, bart = folder / "clip", folder / "bart"
        return cls(clip, bart, CLIPModel.from_pretrained(clip).eval(), CLIPProcessor.from_pretrained(clip))


def assemble(
    teachers: Teachers, freeze_vision_tower: bool = True
) -> tuple[VLKDForConditionalGeneration, VLKDProcessor]:
    """Assemble a model of the two teachers, before any training. It decodes greedily by default."""
    folders = teachers.clip_folder, teachers.bart_folder
    model = VLKDForConditionalGeneration.from_vision_text_pretrained(*folders, freeze_vision_tower=freeze_vision_tower)
    model.generation_config.num_beams = 1
    model.generation_config.max_new_tokens = 16
    processor = VLKDProcessor.from_vision_text_pretrained(
        *folders, num_caption_masks=CAPTION_MASKS, num_question_masks=QUESTION_MASKS
    )
    return model, processor


class CaptionedPictures:
    """Pairs of a training picture and one of its true captions.

    An item holds what the collator needs, computed only once: the image rows of the picture and of its mirror image,
    the caption, and CLIP's embedding of the caption. For a vision tower that is trained, it holds the pixels instead
    of the rows.

    Args:
        pairs: how many. They go through all pictures, in random order, before any picture comes again.
        keep_pixels: give pixels.
        rows: what `embed_views` gives for these pictures, if it is known already.
    """

    def __init__(
        self,
        teachers: Teachers,
        train: Split,
        pairs: int,
        seed: int,
        keep_pixels: bool = False,
        rows: Tensor | None = None,
    ):
        self.images, self.clip_processor = train.images, teachers.clip_processor
        if not keep_pixels and rows is None:
            rows = embed_views(teachers, train)
        self.rows = None if keep_pixels else rows
        rng = random.Random(seed)
        order = [picture for _ in range(0, pairs, len(train.images)) for picture in shuffled(len(train.images), rng)]
        self.pairs = [(picture, rng.choice(train.scenes[picture].captions())) for picture in order[:pairs]]
        texts = sorted({caption for _, caption in self.pairs})
        tokenizer = teachers.clip_processor.tokenizer
        self.text_embeds: dict[str, Tensor] = dict(zip(texts, embed_texts(teachers.clip, tokenizer, texts)))

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> dict:
        picture, caption = self.pairs[index]
        if self.rows is None:
            pixels = normalize(self.images[picture : picture + 1], self.clip_processor)[0]
            image = {"pixel_values": pixels, "flip": True}
        else:
            image = {"image_embeds": self.rows[picture]}
        return {**image, "caption": caption, "text_teacher_embeds": self.text_embeds[caption]}


def embed_views(teachers: Teachers, train: Split) -> Tensor:
    """Compute the image rows of pictures and of their mirror images: `(pictures, 2 views, 1 row, dim)`."""
    views = [train.images, train.images[:, :, ::-1]]
    embeds = [embed_images(teachers.clip, teachers.clip_processor, images) for images in views]
    return torch.stack(embeds, dim=1)[:, :, None]


def shuffled(count: int, rng: random.Random) -> list[int]:
    """Return the numbers below `count` in random order."""
    return rng.sample(range(count), count)


def distill(
    teachers: Teachers,
    train: Split,
    output: Path,
    replay: bool,
    seed: int,
    pair_share: float = 1.0,
    freeze_vision_tower: bool = True,
    align: bool = True,
    bridge_text_only: bool = True,
    rows: Tensor | None = None,
    **recipe,
) -> tuple[VLKDForConditionalGeneration, VLKDProcessor]:
    """Train once, and save a checkpoint in `output` that `pipeline()` can load.

    Args:
        pair_share: the share of the pairs of a whole run that there are; they are repeated, so that the number of
            steps stays the same.
        freeze_vision_tower: keep CLIP as it is, as the method has it. Replay needs it.
        align: start W_e as `align_text_projection` does, instead of at random.
        bridge_text_only: as that of [`VLKDConfig`].
        rows: what `embed_views` gives for the training pictures, if it is known already.
        recipe: `steps`, and arguments of `VLKDDistillationConfig` over those of `RECIPE`.

    Raises:
        ValueError: replay with a vision tower that is trained.
    """
    recipe = {"steps": STEPS, **RECIPE, **recipe}
    steps = recipe.pop("steps")
    torch.manual_seed(seed)
    model, processor = assemble(teachers, freeze_vision_tower)
    model.config.bridge_text_only = bridge_text_only
    count = max(BATCH_SIZE, round(steps * BATCH_SIZE * pair_share))
    pairs = CaptionedPictures(teachers, train, count, seed, keep_pixels=not freeze_vision_tower, rows=rows)
    if align:
        captions, text_embeds = list(pairs.text_embeds), torch.stack(list(pairs.text_embeds.values()))
        align_text_projection(model, processor, captions, text_embeds)
    corpus = make_replay(teachers, processor, output, pairs, seed) if replay else None
    args = VLKDDistillationConfig(
        output_dir=str(output),
        max_steps=steps,
        per_device_train_batch_size=BATCH_SIZE,
        seed=seed,
        use_cpu=True,
        save_strategy="no",
        logging_strategy="no",
        report_to="none",
        dataloader_pin_memory=False,
        **recipe,
    )
    trainer = VLKDDistillationTrainer(
        model=model, args=args, train_dataset=pairs, processing_class=processor, replay=corpus
    )
    trainer.train()
    trainer.save_model()
    return model.eval(), processor


def make_replay(
    teachers: Teachers, processor: VLKDProcessor, output: Path, pairs: CaptionedPictures, seed: int
) -> ReplayCorpus:
    """Write the replay corpus beside the checkpoint, and read it as `vlkd distill --replay` does.

    Raises:
        ValueError: the pairs have pixels, for a vision tower that is trained.
    """
    if pairs.rows is None:
        raise ValueError("Replay needs a frozen vision tower: leave out `freeze_vision_tower=False`, or the replay.")
    output.mkdir(parents=True, exist_ok=True)
    path = output / "replay.txt"
    write_replay_corpus(path, REPLAY_LINES, QUESTION_MASKS, seed)
    corpus = ReplayCorpus.from_file(
        path,
        processor.tokenizer,
        embed_contexts=lambda texts: embed_texts(teachers.clip, teachers.clip_processor.tokenizer, texts),
    )
    pictures = torch.stack([pairs.rows[picture, 0, 0] for picture, _ in pairs.pairs])  # (pairs, dim)
    texts = torch.stack([pairs.text_embeds[caption] for _, caption in pairs.pairs])
    return corpus.imitating(PictureImitation(pictures, texts, seed))
