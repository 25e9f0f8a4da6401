"""Texts replayed during distillation, so that BART does not forget how to read while it learns to see.

An extension of this project; VLKD (arXiv:2203.06386) has nothing like it. On captions alone a BART keeps its
vocabulary, and loses what captions never ask for, such as comparing a question with what is described.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import normalize
from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class ReplayText:
    """One text to replay, as token ids.

    Args:
        target: what the decoder shall write.
        source: what the encoder reads; `None` for the target with spans of words masked, drawn anew each time.
        context_embeds: `(dim,)`, CLIP's embedding of a text that stands where the image would; `None` for no image.
    """

    target: list[int]
    source: list[int] | None = None
    context_embeds: Tensor | None = None


def parse_replay_line(line: str) -> tuple[str | None, str | None, str]:
    """Split a line of a corpus into context, source and target; a part that it lacks is `None`.

    A line is `text`, or `context<TAB>text`, or `context<TAB>source<TAB>target`. An empty context is none.
    """
    fields = [field.strip() for field in line.rstrip("\r\n").split("\t")]
    if len(fields) > 3:
        raise ValueError(f"Expected at most three fields (context, source, target) between tabs, got {len(fields)}")
    target, context, source = fields[-1], None, None
    if len(fields) > 1:
        context = fields[0]
    if len(fields) > 2:
        source = fields[1]
    if not target:
        raise ValueError("The text to replay is empty")
    if source == "":
        raise ValueError("The source is empty; leave the field out to have the target masked instead")
    return context or None, source, target


class ReplayCorpus:
    """Texts to replay, tokenized, with the embeddings of their contexts."""

    def __init__(self, texts: list[ReplayText]):
        if not texts:
            raise ValueError("The replay corpus has no lines; leave it out if nothing shall be replayed.")
        self.texts = texts

    def __len__(self) -> int:
        return len(self.texts)

    def __getitem__(self, index: int) -> ReplayText:
        return self.texts[index]

    @property
    def has_contexts(self) -> bool:
        return any(text.context_embeds is not None for text in self.texts)

    def imitating(self, imitation: "PictureImitation") -> "ReplayCorpus":
        """Make a corpus of the same texts, whose contexts are moved to where pictures of them would be."""
        texts = self.texts
        moved = [None if text.context_embeds is None else imitation(text.context_embeds) for text in texts]
        return ReplayCorpus([replace(text, context_embeds=embeds) for text, embeds in zip(texts, moved)])

    @classmethod
    def from_file(
        cls,
        path: str | Path,
        tokenizer: PreTrainedTokenizerBase,
        embed_contexts: Callable[[list[str]], Tensor] | None = None,
        max_length: int = 256,
    ) -> "ReplayCorpus":
        """Read a corpus: one text a line, `text`, `context<TAB>text` or `context<TAB>source<TAB>target`.

        Args:
            embed_contexts: CLIP's text tower: n texts to `(n, dim)`; needed if a line has a context.
            max_length: longer texts are cut, in tokens.
        """
        fields = []
        for number, line in enumerate(Path(path).read_text(encoding="utf-8").split("\n"), start=1):
            try:
                if line.strip():
                    fields.append(parse_replay_line(line))
            except ValueError as error:
                raise ValueError(f"{path}, line {number}: {error}.") from None
        embeds = _embed_once([context for context, _, _ in fields], embed_contexts, path)

        def tokenize(texts: list[str]) -> list[list[int]]:
            return tokenizer(texts, truncation=True, max_length=max_length).input_ids if texts else []

        targets = tokenize([target for _, _, target in fields])
        sources = iter(tokenize([source for _, source, _ in fields if source is not None]))
        return cls(
            [
                ReplayText(target, None if source is None else next(sources), embeds.get(context))
                for target, (context, source, _) in zip(targets, fields)
            ]
        )


class PictureImitation:
    """Makes CLIP's embedding of a text look like that of a picture, for it stands where pictures will.

    CLIP's pictures and texts lie apart, and a picture strays around its captions. So texts are moved by the difference
    of the two means, are given as much noise as the pictures have around their captions, and their length.

    Args:
        image_embeds, text_embeds: `(pairs, dim)`, CLIP's, not normalized, of pictures and a caption of each.
        seed: of the noise.
    """

    def __init__(self, image_embeds: Tensor, text_embeds: Tensor, seed: int = 0):
        apart = normalize(image_embeds, dim=-1) - normalize(text_embeds, dim=-1)
        self.gap, self.noise = apart.mean(dim=0), apart.std(dim=0)  # (dim,) each
        self.length = image_embeds.norm(dim=-1).mean()
        self.generator = torch.Generator().manual_seed(seed)

    def __call__(self, text_embeds: Tensor) -> Tensor:
        """Move the embedding of a text to where a picture of it would be: `(dim,)` to `(dim,)`."""
        strayed = self.noise * torch.randn(self.noise.shape, generator=self.generator)
        return self.length * normalize(normalize(text_embeds, dim=-1) + self.gap + strayed, dim=-1)


def _embed_once(
    contexts: list[str | None],
    embed_contexts: Callable[[list[str]], Tensor] | None,
    path: str | Path,
) -> dict[str | None, Tensor]:
    """Embed each distinct context once: text -> `(dim,)`."""
    distinct = sorted({context for context in contexts if context is not None})
    if not distinct:
        return {}
    if embed_contexts is None:
        raise ValueError(f"{path} has contexts, which CLIP's text tower has to embed; give `embed_contexts`.")
    embeds = torch.as_tensor(embed_contexts(distinct), dtype=torch.float32)  # (contexts, dim)
    return dict(zip(distinct, embeds))
