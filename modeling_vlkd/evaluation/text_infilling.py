"""Whole-word text infilling, the corruption of BART (arXiv:1910.13461), as fairseq's `denoising_dataset.py` has it."""

import math
from dataclasses import dataclass, field

import numpy as np
from transformers import PreTrainedTokenizerBase

from .random_numbers import uniforms


_LENGTHS, _PLACES, _GAPS = range(3)  # each decision reads its own stream of random numbers


def find_word_starts(tokenizer: PreTrainedTokenizerBase) -> np.ndarray:
    """Mark the entries of a vocabulary that begin a word: `(vocabulary,)`, bool.

    Byte-level BPE keeps the space, newline or tab before a word as the first character of the word's first token, and
    sentencepiece, mBART's, the space as `▁`.
    """
    tokens = tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
    starts = np.array([token.startswith(("Ġ", "Ċ", "ĉ", "▁")) for token in tokens])
    if not starts.any():
        raise ValueError(
            f"No token of {type(tokenizer).__name__} begins with 'Ġ' or '▁', so words cannot be told apart: text "
            "infilling needs a byte-level BPE tokenizer such as BART's, or sentencepiece."
        )
    return starts


def poisson_quantiles(uniform: np.ndarray, mean: float) -> np.ndarray:
    """Turn uniform numbers into Poisson ones through the inverse of the cumulative distribution."""
    counts = range(64)  # longer spans are too rare to matter
    density = [math.exp(count * math.log(mean) - mean - math.lgamma(count + 1)) for count in counts]
    return np.searchsorted(np.cumsum(density), uniform, side="right")


def draw_spans(
    words: np.ndarray, seeds: np.ndarray, mask_ratio: float, mean_span: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Choose which words go: `ceil(mask_ratio * words)` of them, in spans of Poisson length.

    The span that would overdraw this budget is cut to what is left of it. A span of length zero takes no word; it is
    counted as an insertion. Spans may overlap, or reach the end of the text; then fewer words go.

    Args:
        words: `(batch,)`, how many words each row has.
        seeds: `(batch,)`.

    Returns:
        `first` and `length`, both `(batch, spans)`: a span's first word and how many words it takes, 0 where a row
        has no such span; and `insertions`, `(batch,)`.
    """
    budget = np.ceil(mask_ratio * words).astype(int)
    draws = 2 * max(budget.max(initial=0), 4)  # spans of 3 words: far more than the budget can be spent on
    length = poisson_quantiles(uniforms(seeds, draws, _LENGTHS), mean_span)
    spent = np.cumsum(length, axis=1) - length
    drawn = spent < budget[:, None]
    length = np.where(drawn, np.minimum(length, budget[:, None] - spent), 0)
    insertions = (drawn & (length == 0)).sum(axis=1)

    columns = max(words.max(initial=0), draws)
    shuffled = np.where(np.arange(columns) < words[:, None], uniforms(seeds, columns, _PLACES), 2.0).argsort(axis=1)
    nth_span = np.maximum((length > 0).cumsum(axis=1) - 1, 0)  # spans begin at different words
    first = np.take_along_axis(shuffled, nth_span, axis=1)
    return first, length, insertions


@dataclass(frozen=True)
class Corruption:
    """What became of a batch of texts.

    Args:
        input_ids: `(batch, new length)`, the corrupted texts, padded on the right.
        taken: `(batch, length)`, bool: the tokens of the clean texts that are gone.
        word: `(batch, length)`: which word of its text a clean token belongs to; -1 for special tokens.
    """

    input_ids: np.ndarray
    taken: np.ndarray
    word: np.ndarray


@dataclass
class TextInfilling:
    """Replaces spans of whole words by one `<mask>` each and inserts some masks between words.

    ```python
    >>> infill = TextInfilling(tokenizer)
    >>> ids = tokenizer(["A picture of a red circle beside a teal box."], return_tensors="np").input_ids
    >>> tokenizer.batch_decode(infill(ids, seeds=np.array([1])))
    ['<s>A picture of a<mask> beside a teal box.</s>']

    ```

    Args:
        mask_ratio: the share of words that is masked; 15 % in VLKD, rounded up.
        mean_span: the mean of the Poisson distribution of span lengths, in words.
    """

    tokenizer: PreTrainedTokenizerBase
    mask_ratio: float = 0.15
    mean_span: float = 3.0
    begins_word: np.ndarray = field(init=False, repr=False)
    is_special: np.ndarray = field(init=False, repr=False)

    def __post_init__(self):
        if self.tokenizer.mask_token_id is None or self.tokenizer.pad_token_id is None:
            raise ValueError(f"{type(self.tokenizer).__name__} has no <mask> or no <pad> token; infilling needs both.")
        self.begins_word = find_word_starts(self.tokenizer)
        self.is_special = np.zeros(len(self.begins_word), dtype=bool)
        self.is_special[self.tokenizer.all_special_ids] = True

    def __call__(self, input_ids: np.ndarray, seeds: np.ndarray) -> np.ndarray:
        """Corrupt texts: `(batch, length)` to `(batch, new length)`, both padded on the right; see [`corrupt`]."""
        return self.corrupt(input_ids, seeds).input_ids

    def corrupt(self, input_ids: np.ndarray, seeds: np.ndarray) -> Corruption:
        """Corrupt texts, `(batch, length)`, padded on the right, and tell which of their tokens went.

        A worked row: the text has the words a, red, circle, here, of which the third is two tokens. One span was
        drawn, from word 1 on, two words long, and one insertion. Ones and zeros are bool; all are `(batch, length)`.

            input_ids   <s>   a   red   cir   cle   here  </s>  <pad>
            text         0    1    1     1     1     1     0     0
            starts       0    1    1     1     0     1     0     0
            word         0    0    1     2     2     3     3     3
            opens        0    0    1     0     0     0     0     0     tokens of the word that begins the span
            inside       0    0    0     1     1     0     0     0     tokens of words that it reaches from the left
            masked       0    0    1     0     0     0     0     0     where the one mask of the span goes
            kept         1    1    1     0     0     1     1     0
            gaps         0    1    1     0     0     1     1     0     an insertion goes before one of these
            result      <s>   a  <mask> here <mask> </s>              if the last gap is drawn

        Args:
            seeds: `(batch,)`, integers; what happens to a row depends on its words and its seed alone.
        """
        text = ~self.is_special[input_ids]  # special tokens stay as they are
        after_special = np.pad(~text[:, :-1], ((0, 0), (1, 0)), constant_values=True)
        starts = text & (self.begins_word[input_ids] | after_special)
        word = np.maximum(starts.cumsum(axis=1) - 1, 0)
        words = starts.sum(axis=1)  # (batch,)
        first, length, insertions = draw_spans(words, np.asarray(seeds), self.mask_ratio, self.mean_span)
        of_words = self._mark_words(first, length, words)
        opens, inside = (np.take_along_axis(marks, word, axis=1) & text for marks in of_words)

        masked = starts & opens & ~inside
        kept = (~(opens | inside) | masked) & (input_ids != self.tokenizer.pad_token_id)
        tokens = np.where(masked, self.tokenizer.mask_token_id, input_ids)
        gaps = kept & (starts | ~text)  # not within a word
        gaps[:, 0] = False  # nor before the first token, <s> or a language
        corrupted = self._insert_masks(tokens, kept, gaps, insertions, np.asarray(seeds))
        return Corruption(corrupted, opens | inside, np.where(text, word, -1))

    @staticmethod
    def _mark_words(first: np.ndarray, length: np.ndarray, words: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mark the words that begin a span and those that a span has reached from the left: `(batch, words + 1)`.

        With a span of two words from word 1 on, of four words:

            steps      0   0   1  -1   0     +1 after the first word of a span, -1 after its last
            opens      0   1   0   0   0
            inside     0   0   1   0   0     the sum of the steps so far is above 0
        """
        row, span = np.nonzero(length)
        first, end = first[row, span], np.minimum(first[row, span] + length[row, span], words[row])
        opens = np.zeros((len(words), words.max(initial=0) + 1), dtype=bool)
        opens[row, first] = True
        steps = np.zeros(opens.shape, dtype=int)
        np.add.at(steps, (row, first + 1), 1)
        np.add.at(steps, (row, end), -1)
        return opens, steps.cumsum(axis=1) > 0

    def _insert_masks(
        self, tokens: np.ndarray, kept: np.ndarray, gaps: np.ndarray, insertions: np.ndarray, seeds: np.ndarray
    ) -> np.ndarray:
        """Close up what was deleted and put masks before some of the tokens marked in `gaps`.

        Tokens are sorted by their places. Those that stay are numbered, those that go are at infinity, and a mask
        comes half a place before a token. The worked row above, in which the last of four gaps is drawn:

            kept          1    1    1    0    0    1    1    0
            places        0    1    2   inf  inf   3    4   inf
            gap_places   0.5  1.5  2.5  3.5  inf  inf  inf  inf     sorted, the gaps come first
            mask_places  3.5                                        one for each insertion
        """
        places = np.where(kept, kept.cumsum(axis=1) - 1.0, np.inf)  # (batch, length)
        gap_places = np.sort(np.where(gaps, places, np.inf), axis=1) - 0.5
        wanted = np.arange(insertions.max(initial=0)) < insertions[:, None]  # (batch, most insertions)
        picks = uniforms(seeds, wanted.shape[1], _GAPS) * gaps.sum(axis=1, keepdims=True)
        mask_places = np.take_along_axis(gap_places, picks.astype(int), axis=1)

        places = np.concatenate([places, np.where(wanted, mask_places, np.inf)], axis=1)
        tokens = np.concatenate([tokens, np.full(wanted.shape, self.tokenizer.mask_token_id)], axis=1)
        tokens = np.take_along_axis(tokens, places.argsort(axis=1, kind="stable"), axis=1)
        lengths = np.isfinite(places).sum(axis=1)
        filled = np.arange(lengths.max(initial=0)) < lengths[:, None]
        return np.where(filled, tokens[:, : filled.shape[1]], self.tokenizer.pad_token_id)
