import pytest
import torch
from random_weights import relative_difference
from tiny_sources import dictionary_entries, save_fairseq_bart, tiny_bart_tokenizer
from torch import Tensor, nn

from modeling_vlkd.conversion.errors import ConversionError
from modeling_vlkd.conversion.resolving import open_text


def reference_logits(tensors: dict[str, Tensor], heads: int, ids: Tensor, decoder_ids: Tensor) -> Tensor:
    """Compute BART's logits by torch's own layers, from tensors by fairseq's names (arXiv:1910.13461, section 2.1)."""

    def embed(side: str, tokens: Tensor) -> Tensor:
        positions = tensors[f"{side}.embed_positions.weight"][2 : 2 + tokens.shape[1]]  # the first two are padding
        states = nn.functional.embedding(tokens, tensors["encoder.embed_tokens.weight"]) + positions
        norm = [tensors[f"{side}.layernorm_embedding.{name}"] for name in ("weight", "bias")]
        return nn.functional.layer_norm(states, states.shape[-1:], *norm)

    def fill(layer: nn.Module, prefix: str, names: dict[str, str]) -> nn.Module:
        state = {}
        for ours, theirs in names.items():
            for kind in ("weight", "bias"):
                if ours.endswith("attn"):
                    parts = [tensors[f"{prefix}.{theirs}.{name}_proj.{kind}"] for name in "qkv"]
                    state[f"{ours}.in_proj_{kind}"] = torch.cat(parts)
                    state[f"{ours}.out_proj.{kind}"] = tensors[f"{prefix}.{theirs}.out_proj.{kind}"]
                else:
                    state[f"{ours}.{kind}"] = tensors[f"{prefix}.{theirs}.{kind}"]
        layer.load_state_dict(state)
        return layer.eval()

    width, hidden = tensors["encoder.embed_tokens.weight"].shape[1], tensors["encoder.layers.0.fc1.weight"].shape[0]
    settings = {"activation": "gelu", "batch_first": True, "norm_first": False}
    common = {"self_attn": "self_attn", "linear1": "fc1", "linear2": "fc2", "norm1": "self_attn_layer_norm"}
    memory = embed("encoder", ids)
    for n in range(2):
        layer = nn.TransformerEncoderLayer(width, heads, hidden, **settings)
        memory = fill(layer, f"encoder.layers.{n}", {**common, "norm2": "final_layer_norm"})(memory)
    states, mask = embed("decoder", decoder_ids), nn.Transformer.generate_square_subsequent_mask(decoder_ids.shape[1])
    cross = {"multihead_attn": "encoder_attn", "norm2": "encoder_attn_layer_norm", "norm3": "final_layer_norm"}
    for n in range(2):
        layer = nn.TransformerDecoderLayer(width, heads, hidden, **settings)
        states = fill(layer, f"decoder.layers.{n}", {**common, **cross})(states, memory, tgt_mask=mask)
    return states @ tensors["encoder.embed_tokens.weight"].T


@pytest.mark.parametrize("heads", [1, 4])
def test_logits_equal_an_independent_bart(heads, tmp_path):
    save_fairseq_bart(tmp_path / "bart", encoder_attention_heads=heads, decoder_attention_heads=heads)
    content = torch.load(tmp_path / "bart/model.pt", weights_only=False)
    generator = torch.Generator().manual_seed(0)
    ids, decoder_ids = (torch.randint(3, 200, (2, 9), generator=generator) for _ in range(2))
    with torch.no_grad():
        expected = reference_logits(content["model"], heads, ids, decoder_ids)
        logits = open_text(str(tmp_path / "bart")).model()(input_ids=ids, decoder_input_ids=decoder_ids).logits
    assert relative_difference(logits, expected) < 1e-5
    assert relative_difference(expected[0], expected[1]) > 0.01


def test_without_a_command_line_a_head_has_64_dimensions(tmp_path):
    save_fairseq_bart(tmp_path / "bart")
    content = torch.load(tmp_path / "bart/model.pt", weights_only=False)
    torch.save({"model": content["model"]}, tmp_path / "bart/model.pt")
    assert open_text(str(tmp_path / "bart")).model().config.encoder_attention_heads == 1


def test_weights_are_tied_and_the_bias_is_zero(tmp_path):
    save_fairseq_bart(tmp_path / "bart")
    model = open_text(str(tmp_path / "bart")).model()
    assert model.lm_head.weight is model.model.shared.weight is model.model.decoder.embed_tokens.weight
    assert not model.final_logits_bias.any()


def test_tokenizer_is_the_dictionary_over_gpt2s_merges(tmp_path):
    save_fairseq_bart(tmp_path / "bart")
    tokenizer, expected = open_text(str(tmp_path / "bart")).tokenizer(), tiny_bart_tokenizer()
    for text in ("the tree at the sea", "A<mask> b.", "naïve\n"):
        assert tokenizer(text)["input_ids"] == expected(text)["input_ids"]
    assert tokenizer("a <mask> the")["input_ids"] == tokenizer("a<mask> the")["input_ids"]  # as BART's own
    assert tokenizer.get_vocab() == expected.get_vocab()
    assert tokenizer.mask_token_id == len(tokenizer) - 1 == 4 + len(dictionary_entries())
    assert tokenizer.model_max_length == 40
    assert tokenizer.decode(tokenizer("the tree")["input_ids"], skip_special_tokens=True) == "the tree"


def test_layers_that_normalize_first_are_refused(tmp_path):
    save_fairseq_bart(tmp_path / "bart", encoder_normalize_before=True)
    with pytest.raises(ConversionError, match="normalizes before its layers"):
        open_text(str(tmp_path / "bart")).model()


def test_untied_embeddings_are_refused(tmp_path):
    save_fairseq_bart(tmp_path / "bart")
    content = torch.load(tmp_path / "bart/model.pt", weights_only=False)
    content["model"]["decoder.embed_tokens.weight"] = content["model"]["encoder.embed_tokens.weight"] + 1
    torch.save(content, tmp_path / "bart/model.pt")
    with pytest.raises(ConversionError, match=r"'decoder.embed_tokens.weight' differs"):
        open_text(str(tmp_path / "bart")).model()
