"""Where the tensors of OpenAI's CLIP go; open_clip kept the same names (`clip/model.py` of github.com/openai/CLIP)."""

from .state_dicts import Rule


def transformer_rules(source: str, target: str) -> list[Rule]:
    """Make the rules of one stack of residual attention blocks, of the text or the vision tower."""
    blocks, layers = f"{source}transformer.resblocks.{{n}}.", f"{target}encoder.layers.{{n}}."
    return [
        Rule(blocks + "attn.in_proj_{p}", tuple(f"{layers}self_attn.{name}_proj.{{p}}" for name in "qkv")),
        Rule(blocks + "attn.out_proj.{p}", layers + "self_attn.out_proj.{p}"),
        Rule(blocks + "ln_1.{p}", layers + "layer_norm1.{p}"),
        Rule(blocks + "ln_2.{p}", layers + "layer_norm2.{p}"),
        Rule(blocks + "mlp.c_fc.{p}", layers + "mlp.fc1.{p}"),
        Rule(blocks + "mlp.c_proj.{p}", layers + "mlp.fc2.{p}"),
    ]


VISION_TRANSFORMER_RULES = [
    Rule("visual.class_embedding", "vision_model.embeddings.class_embedding"),
    Rule("visual.conv1.weight", "vision_model.embeddings.patch_embedding.weight"),
    Rule("visual.positional_embedding", "vision_model.embeddings.position_embedding.weight"),
    Rule("visual.ln_pre.{p}", "vision_model.pre_layrnorm.{p}"),  # sic: transformers spells it so
    *transformer_rules("visual.", "vision_model."),
    Rule("visual.ln_post.{p}", "vision_model.post_layernorm.{p}"),
    Rule("visual.proj", "visual_projection.weight", transpose=True),
]


def text_transformer_rules(prefix: str = "") -> list[Rule]:
    """Make the rules of the text tower; some of open_clip's models keep it under the prefix `text.`."""
    return [
        Rule(prefix + "token_embedding.weight", "text_model.embeddings.token_embedding.weight"),
        Rule(prefix + "positional_embedding", "text_model.embeddings.position_embedding.weight"),
        *transformer_rules(prefix, "text_model."),
        Rule(prefix + "ln_final.{p}", "text_model.final_layer_norm.{p}"),
        Rule(prefix + "text_projection", "text_projection.weight", transpose=True),
    ]


def conv_rules(source: str, target: str, convolution: str, normalization: str) -> list[Rule]:
    """Make the rules of one convolution with its batch norm."""
    norm_source, norm_target = f"{source}{normalization}.", f"{target}.normalization."
    return [
        Rule(f"{source}{convolution}.weight", f"{target}.convolution.weight"),
        Rule(norm_source + "num_batches_tracked", norm_target + "num_batches_tracked", optional=True),
        Rule(norm_source + "{p}", norm_target + "{p}"),
    ]


RESNET_RULES = [
    *(
        rule
        for i in range(3)
        for rule in conv_rules("visual.", f"embeddings.layers.{i}", f"conv{i + 1}", f"bn{i + 1}")
    ),
    *(
        rule
        for stage in range(4)
        for number, layer in ((1, "layers.0"), (2, "layers.1"), (3, "layers.3"))  # layers.2 is the average pool
        for rule in conv_rules(
            f"visual.layer{stage + 1}.{{n}}.", f"stages.{stage}.layers.{{n}}.{layer}", f"conv{number}", f"bn{number}"
        )
    ),
    *(
        rule
        for stage in range(4)
        for rule in conv_rules(
            f"visual.layer{stage + 1}.{{n}}.downsample.", f"stages.{stage}.layers.{{n}}.shortcut.1", "0", "1"
        )
    ),
    Rule("visual.attnpool.positional_embedding", "attention_pool.position_embedding"),
    *(
        Rule(f"visual.attnpool.{source}_proj.{{p}}", f"attention_pool.attention.{target}_proj.{{p}}")
        for source, target in (("q", "q"), ("k", "k"), ("v", "v"), ("c", "out"))
    ),
]
