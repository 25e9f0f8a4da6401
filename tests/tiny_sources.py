"""CLIPs and BARTs of every format that can be converted, tiny and with every tensor random."""

import argparse
import json
import re
from pathlib import Path

import torch
from open_clip.model import CLIP, CustomTextCLIP, convert_weights_to_lp
from random_weights import randomize
from safetensors.torch import save_file
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    BartTokenizer,
    ChineseCLIPConfig,
    ChineseCLIPModel,
    CLIPConfig,
    CLIPImageProcessor,
    CLIPModel,
    CLIPTokenizer,
    MetaClip2Config,
    MetaClip2Model,
    SiglipConfig,
    SiglipImageProcessor,
    SiglipModel,
)

from modeling_vlkd.conversion.fairseq_source import gpt2_pieces


TEXT_CFG = {"context_length": 12, "width": 64, "heads": 1, "layers": 2}
MODEL_CFGS = {  # open_clip's descriptions of the architectures
    "vit": {"vision_cfg": {"image_size": 32, "layers": 2, "width": 128, "patch_size": 8}},
    "resnet": {"vision_cfg": {"image_size": 64, "layers": [1, 2, 1, 1], "width": 8, "patch_size": None}},
    # settings that OpenAI's CLIPs do not have: other heads and hidden sizes, another epsilon, keys with `text.`
    "vit-custom": {
        "custom_text": True,
        "vision_cfg": {
            **{"image_size": 32, "layers": 2, "width": 96, "patch_size": 8, "head_width": 24, "mlp_ratio": 2.3637},
            "norm_kwargs": {"eps": 1e-4},
        },
    },
}
MERGES = [("Ġ", "t"), ("h", "e"), ("Ġt", "he"), ("r", "e"), ("Ġ", "a")]


def model_cfg(kind: str, quick_gelu: bool = False, vocab_size: int = 60) -> dict:
    text_cfg = {**TEXT_CFG, "vocab_size": vocab_size}
    cfg = {"embed_dim": 20, "text_cfg": text_cfg, "quick_gelu": quick_gelu, **MODEL_CFGS[kind]}
    return json.loads(json.dumps(cfg))


def open_clip_model(kind: str, quick_gelu: bool = False, vocab_size: int = 60) -> CLIP | CustomTextCLIP:
    cfg = model_cfg(kind, quick_gelu, vocab_size)
    return randomize((CustomTextCLIP if cfg.pop("custom_text", False) else CLIP)(**cfg))


def openai_model(kind: str) -> CLIP:
    """Make a CLIP with QuickGELU, and with half precision for the tensors that OpenAI published so."""
    model = open_clip_model(kind, quick_gelu=True)
    convert_weights_to_lp(model)
    return model


def save_openai_archive(kind: str, path: Path, vocab_size: int = 60) -> None:
    """Save a traced model like OpenAI's archives, which hold sizes as buffers and some tensors in half precision."""
    model = open_clip_model(kind, quick_gelu=True, vocab_size=vocab_size)
    size = MODEL_CFGS[kind]["vision_cfg"]["image_size"]
    for name, value in (("input_resolution", size), ("context_length", 12), ("vocab_size", vocab_size)):
        model.__dict__.pop(name, None)
        model.register_buffer(name, torch.tensor(value))
    inputs = {"encode_image": (torch.zeros(1, 3, size, size),), "encode_text": (torch.zeros(1, 12).long(),)}
    traced = torch.jit.trace_module(model, inputs, check_trace=False)
    for name, parameter in traced.named_parameters():
        # all but tensors such as visual.ln_pre.bias, visual.bn1.weight and token_embedding.weight
        if not re.search(r"ln_|bn\d|downsample\.1|embedding|logit_scale", name):
            parameter.data = parameter.data.half()
    traced.save(str(path))


def save_open_clip_folder(kind: str, folder: Path, **preprocess) -> CLIP | CustomTextCLIP:
    model = open_clip_model(kind)
    folder.mkdir()
    content = {"model_cfg": model_cfg(kind), "preprocess_cfg": preprocess}
    (folder / "open_clip_config.json").write_text(json.dumps(content))
    save_file(model.state_dict(), folder / "open_clip_model.safetensors")
    return model


def tiny_clip_tokenizer() -> CLIPTokenizer:
    letters = [chr(letter) for letter in range(ord("a"), ord("z") + 1)]
    entries = [
        *letters,
        *(letter + "</w>" for letter in letters),
        *"0123",
        "<|startoftext|>",
        "<|endoftext|>",
        "?",
        "!",
    ]
    return CLIPTokenizer(vocab={entry: i for i, entry in enumerate(entries)}, merges=[], model_max_length=16)


TEXT_SIZES = {"vocab_size": 60, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
TEXT_SIZES |= {"num_attention_heads": 4, "max_position_embeddings": 16}
VISION_SIZES = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
VISION_SIZES |= {"image_size": 32, "patch_size": 8}
CLIP_TEXT = {**TEXT_SIZES, "bos_token_id": 56, "eos_token_id": 57}
TRANSFORMERS_CLIPS = {
    "clip": (CLIPModel, CLIPConfig, CLIP_TEXT),
    "clip-eos-2": (CLIPModel, CLIPConfig, {**CLIP_TEXT, "eos_token_id": 2}),
    "metaclip_2": (MetaClip2Model, MetaClip2Config, CLIP_TEXT),
    "chinese_clip": (ChineseCLIPModel, ChineseCLIPConfig, TEXT_SIZES),
    "siglip": (SiglipModel, SiglipConfig, TEXT_SIZES),
}


def save_transformers_clip(kind: str, folder: Path) -> None:
    """Save a CLIP of transformers. Its joint space has 24 dimensions; SigLIP's has 32, like its hidden states."""
    model_class, config_class, text = TRANSFORMERS_CLIPS[kind]
    sizes = {} if kind == "siglip" else {"projection_dim": 24}
    config = config_class(text_config=text, vision_config={**VISION_SIZES, **sizes}, **sizes)
    randomize(model_class(config)).save_pretrained(folder)
    if kind == "siglip":
        SiglipImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder)
    else:
        CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=32).save_pretrained(folder)
    tiny_clip_tokenizer().save_pretrained(folder)


def tiny_bart() -> BartForConditionalGeneration:
    config = BartConfig(
        vocab_size=4 + len(gpt2_pieces(MERGES)) + 2,  # specials, pieces, madeupword0000, <mask>
        d_model=64,
        encoder_layers=2,
        decoder_layers=2,
        encoder_attention_heads=1,
        decoder_attention_heads=1,
        encoder_ffn_dim=96,
        decoder_ffn_dim=96,
        max_position_embeddings=40,
    )
    return randomize(BartForConditionalGeneration(config))


def dictionary_entries() -> list[str]:
    """List GPT-2's pieces in another order, here backwards; fairseq orders them by their frequency."""
    return [*(str(number) for number in reversed(range(len(gpt2_pieces(MERGES))))), "madeupword0000"]


def tiny_bart_tokenizer() -> BartTokenizer:
    pieces = gpt2_pieces(MERGES)
    entries = [pieces[int(entry)] if entry.isdigit() else entry for entry in dictionary_entries()]
    vocabulary = ["<s>", "<pad>", "</s>", "<unk>", *entries, "<mask>"]
    return BartTokenizer(vocab={e: i for i, e in enumerate(vocabulary)}, merges=MERGES, model_max_length=40)


def save_bart(folder: Path) -> BartForConditionalGeneration:
    model = tiny_bart()
    model.final_logits_bias.zero_()
    model.save_pretrained(folder)
    tiny_bart_tokenizer().save_pretrained(folder)
    return model


def save_fairseq_bart(folder: Path, **arguments) -> BartForConditionalGeneration:
    """Write a checkpoint like fairseq's of BART, with the command line and the tensors under fairseq's names."""
    model = tiny_bart()
    model.final_logits_bias.zero_()
    names = {"model.shared.weight": "encoder.embed_tokens.weight"}
    tensors = {
        names.get(key, key.removeprefix("model.")): tensor for key, tensor in model.named_parameters() if tensor.ndim
    }
    tensors["decoder.embed_tokens.weight"] = tensors["encoder.embed_tokens.weight"]
    tensors |= {"encoder.version": torch.tensor([3.0]), "decoder.version": torch.tensor([3.0])}
    arguments = {"encoder_attention_heads": 1, "decoder_attention_heads": 1, "no_scale_embedding": True, **arguments}
    folder.mkdir()
    content = {"args": argparse.Namespace(**arguments), "model": tensors, "extra_state": {"epoch": 3}}
    torch.save(content, folder / "model.pt")
    (folder / "dict.txt").write_text("".join(f"{entry} 7\n" for entry in dictionary_entries()))
    (folder / "vocab.bpe").write_text("#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in MERGES), encoding="utf-8")
    return model
