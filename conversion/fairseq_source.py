"""BARTs in fairseq's format: `model.pt` and `dict.txt`, with GPT-2's byte-pair merges."""

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from open_clip.tokenizer import bytes_to_unicode
from torch import Tensor
from transformers import AddedToken, BartConfig, BartForConditionalGeneration, BartTokenizer, PreTrainedTokenizerBase
from transformers.initialization import no_init_weights

from .bart_source import BartSource, no_mask_error
from .checkpoints import find_state_dict, open_checkpoint
from .errors import ConversionError, blaming
from .state_dicts import Rule, convert_state_dict
from .strict_loading import check_sizes


FAIRSEQ_RULES = [
    Rule("encoder.embed_tokens.weight", "model.shared.weight"),
    *(
        Rule(f"{side}.{key}", f"model.{side}.{key}")
        for side in ("encoder", "decoder")
        for key in ("embed_positions.weight", "layernorm_embedding.{p}", "layers.{n}.{rest}")
    ),
]
# Known and not needed: copies of the embedding matrix, version marks, and classifiers of finetuned models.
FAIRSEQ_OTHER_KEYS = ["decoder.embed_tokens.weight", "decoder.output_projection.weight", "classification_heads.{rest}"]
FAIRSEQ_OTHER_KEYS += [f"{side}.{mark}" for side in ("encoder", "decoder") for mark in ("version", "_float_tensor")]
FAIRSEQ_OTHER_KEYS += [f"{side}.embed_positions._float_tensor" for side in ("encoder", "decoder")]
SPECIAL_TOKENS = ["<s>", "<pad>", "</s>", "<unk>"]  # the first ones of every dictionary; dict.txt leaves them out
# The matrices whose shapes tell the architecture.
TELLING_KEYS = ["encoder.embed_tokens.weight", "encoder.embed_positions.weight"]
TELLING_KEYS += [f"{side}.layers.0.fc1.weight" for side in ("encoder", "decoder")]
DICTIONARY_REMEDY = "take the dict.txt that came with this model"
MERGES_REMEDY = "take GPT-2's, which came with this model"
HEAD_SIZE = 64  # that of every published BART; the shapes of the tensors do not tell it


class FairseqBartSource(BartSource):
    """A BART as fairseq published it: `model.pt`, `dict.txt` and, for the tokenizer, GPT-2's merges.

    Args:
        name: what the user called it.
        folder: where the three files lie. The merges are called `vocab.bpe`, as in fairseq, or `merges.txt`.
    """

    def __init__(self, name: str, folder: Path):
        self.name, self.folder, self.format = name, folder, "fairseq bart"
        self.dictionary = read_fairseq_dictionary(folder / "dict.txt")
        content = open_checkpoint(folder / "model.pt")
        self.tensors = find_state_dict(content, folder / "model.pt")
        self.arguments = fairseq_arguments(content)
        for key in TELLING_KEYS:
            if key not in self.tensors or self.tensors[key].ndim != 2:
                fault = "no matrix" if key in self.tensors else "missing"
                raise ConversionError(f"{folder / 'model.pt'} is no BART: {key!r} is {fault}; give bart.large's.")

    def model(self) -> BartForConditionalGeneration:
        tensors, path = self.tensors, self.folder / "model.pt"
        with blaming(path, "download it again"):
            config = fairseq_config(tensors, self.arguments)
            check_sizes(config.to_dict(), path)
            with no_init_weights():
                model = BartForConditionalGeneration(config)
        entries = len(SPECIAL_TOKENS) + len(self.dictionary) + 1
        if config.vocab_size == entries - 1:
            raise no_mask_error(str(path), config.vocab_size)
        if entries != config.vocab_size:
            raise ConversionError(
                f"{self.folder / 'dict.txt'}: gives {entries} tokens, but model.pt embeds {config.vocab_size}; "
                f"{DICTIONARY_REMEDY}."
            )
        model.tie_weights()  # so that `named_parameters` lists each matrix once
        model.final_logits_bias.zero_()
        with blaming(path, "download it again"):
            converted = convert_state_dict(tensors, FAIRSEQ_RULES, dict(model.named_parameters()), FAIRSEQ_OTHER_KEYS)
        for key in ("decoder.embed_tokens.weight", "decoder.output_projection.weight"):
            if key in tensors and not torch.equal(tensors[key], tensors["encoder.embed_tokens.weight"]):
                raise ConversionError(
                    f"{path}: {key!r} differs from 'encoder.embed_tokens.weight', and BART ties them; give a BART."
                )
        model.load_state_dict(converted, assign=True, strict=False)  # strict enough: every parameter was converted
        model.tie_weights()
        return model.eval()

    def tokenizer(self) -> PreTrainedTokenizerBase:
        paths = [self.folder / name for name in ("vocab.bpe", "merges.txt") if (self.folder / name).is_file()]
        if not paths:
            raise ConversionError(
                f"{self.folder} lacks vocab.bpe, GPT-2's merges, which fairseq keeps beside dict.txt."
            )
        merges = read_merges(paths[0])
        pieces = gpt2_pieces(merges)
        vocabulary = {token: index for index, token in enumerate(SPECIAL_TOKENS)}
        for line, entry in enumerate(self.dictionary, start=1):
            if not entry.isdigit() and not entry.startswith("madeupword"):
                raise ConversionError(
                    f"{self.folder / 'dict.txt'}, line {line}: {entry!r} is no number of GPT-2's BPE; "
                    f"{DICTIONARY_REMEDY}."
                )
            if entry.isdigit() and int(entry) >= len(pieces):
                raise ConversionError(
                    f"{self.folder / 'dict.txt'}, line {line}: {entry} is beyond the {len(pieces)} pieces of "
                    f"{paths[0].name}; take both from one model."
                )
            vocabulary[pieces[int(entry)] if entry.isdigit() else entry] = len(vocabulary)
        vocabulary["<mask>"] = len(vocabulary)
        # With lstrip, the token contains the space before it, as the first piece of a word does.
        mask = AddedToken("<mask>", lstrip=True, special=True)
        length = count_positions(self.tensors)
        with blaming(paths[0], MERGES_REMEDY):
            tokenizer = BartTokenizer(vocab=vocabulary, merges=merges, mask_token=mask, model_max_length=length)
        return tokenizer


def read_fairseq_dictionary(path: Path) -> list[str]:
    """Read the entries of a fairseq dictionary. Each line has an entry and its count, such as `1640 2511`."""
    if not path.is_file():
        raise ConversionError(f"{path} is missing; fairseq's model.pt needs the dict.txt that came with it.")
    entries = []
    for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), start=1):
        entry, _, count = line.rpartition(" ")
        if not entry or not count.isdigit():
            raise ConversionError(
                f"{path}, line {number}: expected an entry and its count, got {line[:40]!r}; {DICTIONARY_REMEDY}."
            )
        entries.append(entry)
    if len(set(entries)) < len(entries) or not entries:
        raise ConversionError(f"{path}: is empty or names an entry twice; {DICTIONARY_REMEDY}.")
    return entries


def read_merges(path: Path) -> list[tuple[str, str]]:
    """Read byte-pair merges. Each line has a pair, such as `Ġ t`; a first line with the version is skipped."""
    merges = []
    for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), start=1):
        if line.startswith("#version") or not line:
            continue
        pair = tuple(line.split(" "))
        if len(pair) != 2:
            raise ConversionError(f"{path}, line {number}: expected a pair, got {line[:40]!r}; {MERGES_REMEDY}.")
        merges.append(pair)
    return merges


def gpt2_pieces(merges: list[tuple[str, str]]) -> list[str]:
    """List GPT-2's pieces by their numbers: the bytes, the merges in order, and the end of text (`encoder.json`)."""
    return [*bytes_to_unicode().values(), *(left + right for left, right in merges), "<|endoftext|>"]


def fairseq_arguments(content: Any) -> dict[str, Any]:
    """Return the command line arguments of the training, or nothing if the checkpoint does not keep them."""
    arguments = content.get("args") if isinstance(content, Mapping) else None
    return vars(arguments) if isinstance(arguments, argparse.Namespace) else {}


def count_positions(tensors: Mapping[str, Tensor]) -> int:
    """Count the tokens that a text may have; the first two rows of the position matrix are for padding."""
    return tensors["encoder.embed_positions.weight"].shape[0] - 2


def fairseq_config(tensors: Mapping[str, Tensor], arguments: dict[str, Any]) -> BartConfig:
    """Find the architecture by the shapes of the tensors and, for what they do not tell, the training's arguments."""
    if arguments.get("encoder_normalize_before") or arguments.get("decoder_normalize_before"):
        raise ConversionError("model.pt normalizes before its layers, as mBART does; BART normalizes after them.")
    vocab_size, width = tensors["encoder.embed_tokens.weight"].shape
    layers = {
        side: len({key.split(".")[2] for key in tensors if key.startswith(f"{side}.layers.")})
        for side in ("encoder", "decoder")
    }
    return BartConfig(
        vocab_size=vocab_size,
        d_model=width,
        max_position_embeddings=count_positions(tensors),
        encoder_layers=layers["encoder"],
        decoder_layers=layers["decoder"],
        encoder_ffn_dim=tensors["encoder.layers.0.fc1.weight"].shape[0],
        decoder_ffn_dim=tensors["decoder.layers.0.fc1.weight"].shape[0],
        encoder_attention_heads=arguments.get("encoder_attention_heads") or max(1, width // HEAD_SIZE),
        decoder_attention_heads=arguments.get("decoder_attention_heads") or max(1, width // HEAD_SIZE),
        activation_function=arguments.get("activation_fn") or "gelu",
        scale_embedding=not arguments.get("no_scale_embedding", True),
        bos_token_id=0,
        pad_token_id=1,
        eos_token_id=2,
        decoder_start_token_id=2,
        forced_eos_token_id=2,
    )
