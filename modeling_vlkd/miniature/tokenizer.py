"""Make the miniature's byte-level BPE, once with BART's special tokens and once with CLIP's."""

import json

from tokenizers import AddedToken, ByteLevelBPETokenizer, Tokenizer
from transformers import BartTokenizer


BART_SPECIALS = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
START, END = "<|startoftext|>", "<|endoftext|>"


def train_tokenizer(texts: list[str], vocab_size: int = 512) -> BartTokenizer:
    """Train BART's tokenizer on a corpus; a small corpus gives fewer tokens than `vocab_size`."""
    trained = ByteLevelBPETokenizer()
    trained.train_from_iterator(texts, vocab_size=vocab_size, special_tokens=BART_SPECIALS, show_progress=False)
    mask = AddedToken("<mask>", lstrip=True, special=True)  # lstrip: it includes the space before it
    return BartTokenizer(**parts(trained), mask_token=mask, model_max_length=128)


def parts(tokenizer: ByteLevelBPETokenizer | Tokenizer) -> dict:
    """Return vocabulary and merges as keyword arguments of transformers' tokenizers."""
    state = json.loads(tokenizer.to_str())["model"]
    return {"vocab": dict(state["vocab"]), "merges": [tuple(merge) for merge in state["merges"]]}


def clip_tokenizer(bart: BartTokenizer, max_length: int) -> BartTokenizer:
    """Make CLIP's tokenizer: the same BPE, with CLIP's two special tokens as the last ids.

    `CLIPTextModel` pools at the largest id if `eos_token_id` is 2, and otherwise at `eos_token_id`. As the end token
    has the largest id, both rules find the end of the text.
    """
    bpe = parts(bart.backend_tokenizer)
    bpe["vocab"] |= {START: len(bpe["vocab"]), END: len(bpe["vocab"]) + 1}
    specials = {"bos_token": START, "cls_token": START, "eos_token": END, "sep_token": END, "pad_token": END}
    return BartTokenizer(**bpe, **specials, unk_token=END, model_max_length=max_length)
