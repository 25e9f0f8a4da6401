"""Distils the miniature CLIP into the miniature BART with `VLKDDistillationTrainer`, with replay or without."""

import random
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import normalize
from transformers import CLIPModel, CLIPProcessor

from modeling_vlkd import VLKDForConditionalGeneration, VLKDProcessor
from modeling_vlkd.trainers import ReplayCorpus, VLKDDistillationConfig, VLKDDistillationTrainer

from .clip_teacher import embed_images, embed_texts
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


@dataclass
class Teachers:
    """A trained CLIP and BART in their folders, and CLIP in memory."""

    clip_folder: Path
    bart_folder: Path
    clip: CLIPModel
    clip_processor: CLIPProcessor

    @classmethod
    def load(cls, folder: Path) -> "Teachers":
        clip, bart = folder / "clip", folder / "bart"
        return cls(clip, bart, CLIPModel.from_pretrained(clip).eval(), CLIPProcessor.from_pretrained(clip))


def assemble(teachers: Teachers) -> tuple[VLKDForConditionalGeneration, VLKDProcessor]:
    """Put the two teachers together; nothing is trained yet. Decoding is greedy by default."""
    folders = teachers.clip_folder, teachers.bart_folder
    model = VLKDForConditionalGeneration.from_vision_text_pretrained(*folders)
    model.generation_config.num_beams = 1
    model.generation_config.max_new_tokens = 16
    processor = VLKDProcessor.from_vision_text_pretrained(
        *folders, num_caption_masks=CAPTION_MASKS, num_question_masks=QUESTION_MASKS
    )
    return model, processor


class CaptionedPictures:
    """Pictures of the train split, both ways round, each time with one of its true captions; by number of the pair.

    An item has what the collator needs, computed once: the image rows of both views, and CLIP's text embedding.
    """

    def __init__(self, teachers: Teachers, train: Split, pairs: int, seed: int):
        views = [train.images, train.images[:, :, ::-1]]
        embeds = [embed_images(teachers.clip, teachers.clip_processor, images) for images in views]
        self.rows = torch.stack(embeds, dim=1)[:, :, None]  # (pictures, 2 views, 1 row, dim)
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
        return {
            "image_embeds": self.rows[picture],
            "caption": caption,
            "text_teacher_embeds": self.text_embeds[caption],
        }


def shuffled(count: int, rng: random.Random) -> list[int]:
    return rng.sample(range(count), count)


def distil(
    teachers: Teachers, train: Split, output: Path, replay: bool, seed: int, **recipe
) -> tuple[VLKDForConditionalGeneration, VLKDProcessor]:
    """Train once, and leave a checkpoint in `output` that `pipeline()` loads."""
    recipe = {"steps": STEPS, **RECIPE, **recipe}
    steps = recipe.pop("steps")
    torch.manual_seed(seed)
    model, processor = assemble(teachers)
    pairs = CaptionedPictures(teachers, train, steps * BATCH_SIZE, seed)
    align_text_projection(model, processor, pairs.text_embeds)
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


@torch.no_grad()
def align_text_projection(
    model: VLKDForConditionalGeneration, processor: VLKDProcessor, text_embeds: dict[str, Tensor]
):
    """Start W_e as the orthogonal map that brings BART's sentences closest to CLIP's texts (Procrustes).

    The paper leaves open how W_e starts. From a random rotation, TTDM has to turn the whole space, while W'_e and the
    decoder learn to turn it back on captions only; what captions never ask for is lost on the way. Here most of the
    turning is done at the start, W'_e = W_e^T undoes it exactly, and BART goes on as it was.

    Args:
        text_embeds: captions and CLIP's embeddings of them, `(dim,)` each.
    """
    base = model.base_model
    inputs = processor.tokenizer(list(text_embeds), padding=True, return_tensors="pt")
    states = base.language_model.get_encoder()(**inputs).last_hidden_state[:, 0]  # (captions, d_model)
    left, _, right = torch.linalg.svd(torch.stack(list(text_embeds.values())).T @ states, full_matrices=False)
    base.text_projection.weight.copy_(left @ right)  # (dim, d_model)
    base.text_to_decoder.weight.copy_((left @ right).T)


def make_replay(
    teachers: Teachers, processor: VLKDProcessor, output: Path, pairs: CaptionedPictures, seed: int
) -> ReplayCorpus:
    """Write the corpus beside the checkpoint and read it as `vlkd distill --replay` does, but picture-like."""
    output.mkdir(parents=True, exist_ok=True)
    path = output / "replay.txt"
    write_replay_corpus(path, REPLAY_LINES, QUESTION_MASKS, seed)
    imitation = PictureImitation(pairs, seed)
    corpus = ReplayCorpus.from_file(
        path,
        processor.tokenizer,
        embed_contexts=lambda texts: embed_texts(teachers.clip, teachers.clip_processor.tokenizer, texts),
    )
    return ReplayCorpus([replace(text, context_embeds=imitation(text.context_embeds)) for text in corpus])


class PictureImitation:
    """Makes CLIP's embedding of a text look like that of a picture, for it stands where pictures will.

    CLIP's pictures and texts lie apart, and a picture strays around its captions. So texts are moved by the difference
    of the two means, are given as much noise as the pictures of the pairs have around them, and their length.
    """

    def __init__(self, pairs: CaptionedPictures, seed: int):
        pictures = torch.stack([pairs.rows[picture, 0, 0] for picture, _ in pairs.pairs])  # (pairs, dim)
        texts = torch.stack([pairs.text_embeds[caption] for _, caption in pairs.pairs])
        apart = normalize(pictures, dim=-1) - normalize(texts, dim=-1)
        self.gap, self.noise = apart.mean(dim=0), apart.std(dim=0)  # (dim,) each
        self.length = pictures.norm(dim=-1).mean()
        self.generator = torch.Generator().manual_seed(seed)

    def __call__(self, text_embeds: Tensor | None) -> Tensor | None:
        """`(dim,)` to `(dim,)`; what has no context stays so."""
        if text_embeds is None:
            return None
        strayed = self.noise * torch.randn(self.noise.shape, generator=self.generator)
        return self.length * normalize(normalize(text_embeds, dim=-1) + self.gap + strayed, dim=-1)
