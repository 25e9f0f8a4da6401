"""Builds CLIP's tokenizer from the vocabulary that open_clip ships."""

import gzip

from open_clip.tokenizer import bytes_to_unicode, default_bpe
from transformers import CLIPTokenizer


SIZE_OF_MERGES = 49152 - 256 - 2  # CLIP uses the first of the 262,145 merges in the file (`clip/simple_tokenizer.py`)


def build_clip_tokenizer(context_length: int) -> CLIPTokenizer:
    """Builds the byte-pair tokenizer with CLIP's 49,408 entries.

    Args:
        context_length: tokens that the text tower reads, the two special ones included.
    """
    with gzip.open(default_bpe(), "rt", encoding="utf-8") as file:
        merges = [tuple(line.split()) for line in file.read().split("\n")[1 : SIZE_OF_MERGES + 1]]
    letters = list(bytes_to_unicode().values())
    entries = [*letters, *(letter + "</w>" for letter in letters), *("".join(pair) for pair in merges)]
    entries += ["<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(
        vocab={entry: index for index, entry in enumerate(entries)}, merges=merges, model_max_length=context_length
    )
