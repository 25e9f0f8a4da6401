"""CIDEr-D with document frequencies counted beforehand, fast enough to reward captions in every training step.

The scores are those of pycocoevalcap's `Cider`, which is CIDEr-D (arXiv:1411.5726, section 4), up to rounding, if the
frequencies are counted over the references that are scored. Words and n-grams are 64-bit hashes, so that all captions
of a step are scored by a few operations on arrays. Of ten million different n-grams, two would be taken for one with a
probability below one in a hundred thousand.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from pathlib import Path

import numpy as np

from .errors import EvaluationError


LONGEST = 4  # words in an n-gram
SIGMA = 6.0  # of the Gaussian that punishes other lengths
FACTOR = np.uint64(0x9E3779B97F4A7C15)  # odd, of 64 bits: hashes are polynomials in it
FILE_NAME = "document_frequencies.npz"


@lru_cache(maxsize=2**20)
def hash_word(word: str) -> int:
    return int.from_bytes(blake2b(word.encode(), digest_size=8).digest(), "little")


def mix(values: np.ndarray) -> np.ndarray:
    """Spread the bits of 64-bit numbers, one to one (splitmix64's last steps)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


@dataclass(frozen=True)
class NGrams:
    """The n-grams of texts, each once for the text it is in.

    Args:
        text: `(entries,)`, the number of the text.
        order: `(entries,)`, 0 for single words to 3.
        key: `(entries,)`, uint64, equal for equal n-grams.
        count: `(entries,)`, how often it is in the text.
    """

    text: np.ndarray
    order: np.ndarray
    key: np.ndarray
    count: np.ndarray

    @classmethod
    def of(cls, texts: Sequence[str]) -> "NGrams":
        """Count the n-grams of tokenized texts, whose words have one space between them."""
        words = [text.split() for text in texts]
        hashes: np.ndarray = np.fromiter((hash_word(word) for each in words for word in each), dtype=np.uint64)
        owner = np.repeat(np.arange(len(texts)), [len(each) for each in words])
        keys, owners, orders = [], [], []
        current: np.ndarray = np.zeros(len(hashes), dtype=np.uint64)
        for further in range(LONGEST):
            current = mix(
                current[: len(hashes) - further] * FACTOR + hashes[further:]
            )  # by the place of the first word
            if not len(current):
                break
            within = owner[: len(current)] == owner[further:]
            keys.append(current[within])
            owners.append(owner[: len(current)][within])
            orders.append(np.full(int(within.sum()), further))
        if not keys:
            return cls(*(np.zeros(0, dtype=kind) for kind in (np.int64, np.int64, np.uint64, np.float64)))
        key, text, order = np.concatenate(keys), np.concatenate(owners), np.concatenate(orders)
        places = np.lexsort((key, text))
        key, text, order = key[places], text[places], order[places]
        first = np.ones(len(key), dtype=bool)
        first[1:] = (key[1:] != key[:-1]) | (text[1:] != text[:-1])
        starts = np.flatnonzero(first)
        count = np.diff(np.append(starts, len(key))).astype(np.float64)
        return cls(text[starts], order[starts], key[starts], count)


@dataclass(frozen=True)
class DocumentFrequencies:
    """In how many pictures' references each n-gram is.

    Args:
        keys: `(ngrams,)`, uint64, sorted.
        counts: `(ngrams,)`.
        pictures: how many there are.
        fingerprint: of the references that were counted.
    """

    keys: np.ndarray
    counts: np.ndarray
    pictures: int
    fingerprint: str

    @classmethod
    def of(cls, references: Sequence[Sequence[str]]) -> "DocumentFrequencies":
        """Count over the tokenized references of all pictures."""
        if not references:
            raise EvaluationError("There are no references to count n-grams in.")
        found = NGrams.of([text for group in references for text in group])
        picture_of = np.repeat(np.arange(len(references)), [len(group) for group in references])
        pairs = np.unique(np.stack([found.key, picture_of[found.text].astype(np.uint64)]), axis=1)
        keys, counts = np.unique(pairs[0], return_counts=True)
        return cls(keys, counts, len(references), fingerprint_of(references))

    def idf(self, keys: np.ndarray) -> np.ndarray:
        """Weigh n-grams, the rarer the more; one that is in no reference counts as if it were in one."""
        places = np.searchsorted(self.keys, keys).clip(max=len(self.keys) - 1)
        known = self.keys[places] == keys
        return np.log(self.pictures) - np.log(np.where(known, self.counts[places], 1))

    def save(self, path: str | Path):
        """Write them into a file, completely or not at all."""
        partial = Path(f"{path}.partial")
        with partial.open("wb") as file:
            np.savez(file, keys=self.keys, counts=self.counts, pictures=self.pictures, fingerprint=self.fingerprint)
        os.replace(partial, path)

    @classmethod
    def load(cls, path: str | Path) -> "DocumentFrequencies":
        """Read them from a file.

        Raises:
            EvaluationError: the file is damaged or of another kind.
        """
        try:
            with np.load(path) as file:
                return cls(file["keys"], file["counts"], int(file["pictures"]), str(file["fingerprint"]))
        except (OSError, ValueError, KeyError, EOFError) as error:
            raise EvaluationError(f"{path} holds no document frequencies ({error}); delete it.") from error


def fingerprint_of(references: Sequence[Sequence[str]]) -> str:
    digest = blake2b(digest_size=16)
    for group in references:
        digest.update("\n".join(group).encode() + b"\0")
    return digest.hexdigest()


def count_once(path: str | Path, references: Sequence[Sequence[str]], write: bool = True) -> DocumentFrequencies:
    """Take document frequencies from a file, if it is there, or count them and write it.

    Args:
        references: tokenized, of each picture.
        write: whether this process writes the file.

    Raises:
        EvaluationError: the file is of other references.
    """
    path = Path(path)
    if not path.exists():
        frequencies = DocumentFrequencies.of(references)
        if write:
            path.parent.mkdir(parents=True, exist_ok=True)
            frequencies.save(path)
        return frequencies
    frequencies = DocumentFrequencies.load(path)
    if frequencies.fingerprint != fingerprint_of(references):
        raise EvaluationError(
            f"{path} was counted over the references of {frequencies.pictures} other pictures; give the data of that "
            "run, or another output folder."
        )
    return frequencies


def cider_d(
    candidates: Sequence[str],
    references: Sequence[Sequence[str]],
    picture_of: Sequence[int],
    frequencies: DocumentFrequencies,
) -> np.ndarray:
    """Score tokenized captions by CIDEr-D.

    Args:
        candidates: the captions, any number for a picture.
        references: of each picture, at least one.
        picture_of: `(candidates,)`, the place of each candidate's picture in `references`.

    Returns:
        `(candidates,)`, from 0 to 10.
    """
    said, known = NGrams.of(candidates), NGrams.of([text for group in references for text in group])
    sizes = np.array([len(group) for group in references])
    firsts = np.concatenate([[0], np.cumsum(sizes)[:-1]])  # the place of each picture's first reference
    picture = np.asarray(picture_of, dtype=np.int64)
    said_weights, known_weights = (each.count * frequencies.idf(each.key) for each in (said, known))
    said_norms, said_lengths = describe(said, said_weights, len(candidates))
    known_norms, known_lengths = describe(known, known_weights, int(sizes.sum()))

    # Each n-gram of a candidate meets each reference of its picture: `(meetings,)`.
    meets = sizes[picture[said.text]]
    entry = np.repeat(np.arange(len(said.key)), meets)
    step = np.arange(len(entry)) - np.repeat(np.cumsum(meets) - meets, meets)
    reference = firsts[picture[said.text[entry]]] + step
    table = mix(known.key + FACTOR * known.text.astype(np.uint64))
    order = np.argsort(table)
    wanted = mix(said.key[entry] + FACTOR * reference.astype(np.uint64))
    places = order[np.searchsorted(table, wanted, sorter=order).clip(max=max(len(table) - 1, 0))]
    hit = table[places] == wanted
    entry, reference, places = entry[hit], reference[hit], places[hit]

    text, n = said.text[entry], said.order[entry]
    product = np.minimum(said_weights[entry], known_weights[places]) * known_weights[places]
    norms = said_norms[text, n] * known_norms[reference, n]
    distance = said_lengths[text] - known_lengths[reference]
    share = np.divide(product, norms, out=product.copy(), where=norms != 0) * np.exp(-(distance**2) / (2 * SIGMA**2))
    total = np.bincount(text, weights=share, minlength=len(candidates))
    return 10 * total / LONGEST / sizes[picture]


def describe(ngrams: NGrams, weights: np.ndarray, texts: int) -> tuple[np.ndarray, np.ndarray]:
    """Compute the norms of the vectors of each order, `(texts, 4)`, and the lengths, `(texts,)`.

    The length is counted in pairs of words, as the official code does.
    """
    squares = np.bincount(ngrams.text * LONGEST + ngrams.order, weights=weights**2, minlength=texts * LONGEST)
    pairs = ngrams.order == 1
    lengths = np.bincount(ngrams.text[pairs], weights=ngrams.count[pairs], minlength=texts)
    return np.sqrt(squares).reshape(texts, LONGEST), lengths
