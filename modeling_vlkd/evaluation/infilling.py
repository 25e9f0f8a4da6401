"""Text ability kept: how well a model restores text that was masked as BART's was, whatever it has learned since.

Some words of each line are masked as in BART's training (`text_infilling.py`), the same ones for every model whose
tokenizer is the same. A model reads the corrupted line and, token by token, writes the clean one, always given the
right tokens so far (teacher forcing). Of it are measured:

- `loss`: the mean cross-entropy of all tokens of the clean lines, `<s>` and `</s>` included, in nats; what BART was
  trained on, and `perplexity`, its exponential;
- `masked_loss`: the same of those tokens alone that are gone from the corrupted line;
- `accuracy`: the share of masked words of which each token is the model's first choice.

They compare models of one tokenizer: a VLKD and the BART that it came from.
"""

import gzip
import math
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from .errors import EvaluationError
from .json_files import read_text
from .models import kind_of, load_processor, load_weights, move, read_config
from .random_numbers import mix
from .report import Report, ScoredExample, bootstrap_ratio
from .text_infilling import TextInfilling
from .vlkd_model import evaluating


TOKENS_AT_ONCE = 4096  # with padding; of a vocabulary of 50,000, their logits are .8 GB
INFILLERS = ("vlkd", "bart", "mbart")
IGNORED = -100  # a label that is no token


@dataclass(frozen=True)
class TokenScores:
    """How a model writes a text, token by token.

    Args:
        losses: `(length,)`, minus the log probability of each token.
        choices: `(length,)`, the token to which it gives the highest probability at each place.
    """

    losses: np.ndarray
    choices: np.ndarray


class TextInfiller(Protocol):
    """A model as this benchmark sees it: it reads one text and writes another.

    Args:
        max_length: of a text that it reads or writes, in tokens.
    """

    tokenizer: PreTrainedTokenizerBase
    max_length: int

    def score(self, sources: Sequence[Sequence[int]], targets: Sequence[Sequence[int]]) -> list[TokenScores]:
        """Score how each target is written after its source was read, both as token ids."""


class Seq2SeqInfiller:
    """Lets a `BartForConditionalGeneration`, or a `VLKDForConditionalGeneration` without an image, infill text.

    The text of a VLKD crosses its bridge, or goes straight to the decoder, as `config.bridge_text_only` says.
    """

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase):
        self.model = model
        self.tokenizer = tokenizer
        positions = model.config.get_text_config().max_position_embeddings
        self.max_length = min(tokenizer.model_max_length, positions)

    def score(self, sources: Sequence[Sequence[int]], targets: Sequence[Sequence[int]]) -> list[TokenScores]:
        lengths = [max(len(source), len(target)) for source, target in zip(sources, targets, strict=True)]
        scores: list[TokenScores] = []
        with evaluating(self.model):
            for first, last in cut_batches(lengths):
                scores += self.score_batch(sources[first:last], targets[first:last])
        return scores

    def score_batch(self, sources: Sequence[Sequence[int]], targets: Sequence[Sequence[int]]) -> list[TokenScores]:
        padding = self.tokenizer.pad_token_id
        input_ids = pad_ids(sources, padding).to(self.model.device)  # (batch, length)
        labels = pad_ids(targets, IGNORED).to(self.model.device)  # (batch, target length)
        output = self.model(
            input_ids=input_ids, attention_mask=(input_ids != padding).long(), labels=labels, return_dict=True
        )
        logits = output.logits.float()  # (batch, target length, vocabulary)
        losses = F.cross_entropy(logits.transpose(1, 2), labels, ignore_index=IGNORED, reduction="none").cpu().numpy()
        choices = logits.argmax(dim=-1).cpu().numpy()
        return [
            TokenScores(loss[: len(target)], choice[: len(target)])
            for loss, choice, target in zip(losses, choices, targets)
        ]


def load_infiller(
    name: str, device: torch.device | str | None = None, dtype: torch.dtype | str = "auto"
) -> Seq2SeqInfiller:
    """Load a VLKD or a BART and its tokenizer; arguments and errors as those of [`load_model`].

    Raises:
        EvaluationError: it is a model of another kind, which was not trained to fill masks as BART was; or as there.
    """
    kind = kind_of(read_config(name))
    if kind not in INFILLERS:
        raise EvaluationError(f"{name} holds a model of type {kind!r}; give one of type {' or '.join(INFILLERS)}.")
    model = move(load_weights(AutoModelForSeq2SeqLM, name, dtype), device)
    return Seq2SeqInfiller(model, load_processor(AutoTokenizer, name))


def pad_ids(rows: Sequence[Sequence[int]], value: int) -> Tensor:
    """Stack token ids of different lengths, padded on the right: `(batch, longest)`."""
    return pad_sequence([torch.as_tensor(row) for row in rows], batch_first=True, padding_value=value)


def cut_batches(lengths: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Cut a sequence into batches of `TOKENS_AT_ONCE` tokens at most, padded: their first places and their ends."""
    first, longest = 0, 0
    for place, length in enumerate(lengths):
        if place > first and max(longest, length) * (place - first + 1) > TOKENS_AT_ONCE:
            yield first, place
            first, longest = place, 0
        longest = max(longest, length)
    if first < len(lengths):
        yield first, len(lengths)


@dataclass
class InfillingBenchmark:
    """Lines of text with masked words; the model speaks [`TextInfiller`].

    A line that is longer than the model can read is cut; an eighth of the length is left for masks between words.

    Args:
        lines: by their numbers, which are the ids.
        seed: of the masks; what is masked in a line depends on it, the number of the line and its words alone.
        mask_ratio, mean_span: as those of [`TextInfilling`].
    """

    lines: dict[int, str]
    seed: int = 0
    mask_ratio: float = 0.15
    mean_span: float = 3.0
    task: str = field(default="infilling", init=False)
    _infilling: TextInfilling | None = field(default=None, init=False, repr=False)

    def __post_init__(self):
        if not 0 < self.mask_ratio <= 1 or self.mean_span <= 0:
            raise EvaluationError(
                f"Got a mask_ratio of {self.mask_ratio} and a mean_span of {self.mean_span}; give a share above 0, up "
                "to 1, and a number of words above 0."
            )
        self.ids = list(self.lines)

    @classmethod
    def from_file(cls, path: str | Path, limit: int | None = None, **settings: Any) -> "InfillingBenchmark":
        """Read a text file, plain or gzipped, a text a line; empty lines are left out.

        Args:
            limit: take the first so many texts.
            settings: as those of the class.

        Raises:
            EvaluationError: the file cannot be read, or holds no text.
        """
        return cls(read_lines(Path(path), limit), **settings)

    def order(self) -> list[int]:
        """Give all positions, from the longest text to the shortest: what is too large for memory fails at once."""
        return sorted(range(len(self.ids)), key=lambda position: -len(self.lines[self.ids[position]]))

    def predict(self, model: TextInfiller, positions: Sequence[int]) -> list[dict[str, Any]]:
        """Score lines: sums over tokens and counts, and what was read and what would have been written."""
        numbers = [self.ids[position] for position in positions]
        encoded = model.tokenizer([self.lines[number] for number in numbers], verbose=False).input_ids
        longest = model.max_length - model.max_length // 8
        kept = [ids if len(ids) <= longest else [*ids[: longest - 1], ids[-1]] for ids in encoded]  # </s> stays
        padding = model.tokenizer.pad_token_id
        clean = pad_ids(kept, padding).numpy()  # (batch, length)
        corruption = self.infilling(model.tokenizer).corrupt(clean, mix(self.seed, np.array(numbers)))
        sources = [row[row != padding].tolist() for row in corruption.input_ids]
        scores = model.score(sources, kept)
        rows = []
        for place, (source, target, score) in enumerate(zip(sources, kept, scores, strict=True)):
            taken, word = (each[place, : len(target)] for each in (corruption.taken, corruption.word))
            row = score_line(np.array(target), taken, word, score)
            said = np.where(taken, score.choices, target)
            row |= {"cut": len(encoded[place]) > longest, "read": model.tokenizer.decode(source[1:-1])}
            rows.append(row | {"said": model.tokenizer.decode(said, skip_special_tokens=True)})
        return rows

    def infilling(self, tokenizer: PreTrainedTokenizerBase) -> TextInfilling:
        """Look through the vocabulary once for each tokenizer."""
        if self._infilling is None or self._infilling.tokenizer is not tokenizer:
            try:
                self._infilling = TextInfilling(tokenizer, self.mask_ratio, self.mean_span)
            except ValueError as error:
                raise EvaluationError(str(error)) from error
        return self._infilling

    def report(self, rows: Sequence[dict[str, Any]], seed: int = 0) -> Report:
        """Compute the figures that stand at the top of this file."""
        pairs = {
            "loss": ("loss_sum", "tokens"),
            "masked_loss": ("masked_loss_sum", "masked_tokens"),
            "accuracy": ("right", "masked"),
        }
        sums = {
            name: (np.array([row[share] for row in rows], dtype=float), np.array([row[whole] for row in rows]))
            for name, (share, whole) in pairs.items()
        }
        figures = {name: float(share.sum() / max(whole.sum(), 1)) for name, (share, whole) in sums.items()}
        overall = {
            "loss": figures["loss"],
            "perplexity": math.exp(figures["loss"]),
            "masked_loss": figures["masked_loss"],
            "accuracy": figures["accuracy"],
        }
        intervals = {name: bootstrap_ratio(share, whole, seed) for name, (share, whole) in sums.items()}
        facts = {
            "tokens": sum(row["tokens"] for row in rows),
            "masked_tokens": sum(row["masked_tokens"] for row in rows),
            "masked_words": sum(row["masked"] for row in rows),
            "lines_cut": sum(row["cut"] for row in rows),
            "mask_seed": self.seed,
            "mask_ratio": self.mask_ratio,
            "mean_span": self.mean_span,
        }
        scored = [
            ScoredExample(
                id=number,
                score=row["right"] / row["masked"] if row["masked"] else None,
                said=row["said"],
                truth=[self.lines[number]],
                asked=row["read"],
            )
            for number, row in zip(self.ids, rows, strict=True)
        ]
        return Report(self.task, len(rows), overall, {}, intervals, facts, scored)


def score_line(target: np.ndarray, taken: np.ndarray, word: np.ndarray, score: TokenScores) -> dict[str, Any]:
    """Sum up one line.

    Args:
        target: `(length,)`, its tokens.
        taken, word: `(length,)`, as those of [`Corruption`].

    Returns:
        `loss_sum` over `tokens`, `masked_loss_sum` over `masked_tokens`, and of `masked` words how many are `right`.
    """
    masked, wrong = set(word[taken].tolist()), set(word[taken & (score.choices != target)].tolist())
    return {
        "loss_sum": float(score.losses.sum(dtype=float)),
        "tokens": len(target),
        "masked_loss_sum": float(score.losses[taken].sum(dtype=float)),
        "masked_tokens": int(taken.sum()),
        "right": len(masked - wrong),
        "masked": len(masked),
    }


def read_lines(path: Path, limit: int | None = None) -> dict[int, str]:
    """Read the lines of a text file that are not empty, by their numbers from 1; a file `*.gz` is unpacked."""
    if limit is not None and limit < 1:
        raise EvaluationError(f"Got a limit of {limit} lines; give 1 or more, or leave it out to take all.")
    remedy = "give a text file, a text a line"
    if path.suffix == ".gz" and path.is_file():
        try:
            text = gzip.decompress(path.read_bytes()).decode("utf-8-sig")
        except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
            raise EvaluationError(f"{path} cannot be unpacked as text ({error}); {remedy}, gzipped whole.") from error
    else:
        text = read_text(path, remedy)
    numbered = ((number, line.strip()) for number, line in enumerate(text.split("\n"), 1))
    lines = dict(islice(((number, line) for number, line in numbered if line), limit))
    if not lines:
        raise EvaluationError(f"{path} holds no text; {remedy}.")
    return lines
