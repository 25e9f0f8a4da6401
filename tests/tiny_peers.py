"""Peers of transformers in tiny: random models of their true architectures, and processors made offline."""

import re
from collections.abc import Callable
from tempfile import TemporaryDirectory

from random_weights import randomize
from tiny_training import CAPTIONS, tiny_tokenizer
from transformers import (
    BartTokenizer,
    BertTokenizer,
    Blip2Config,
    Blip2ForConditionalGeneration,
    Blip2Processor,
    BlipConfig,
    BlipForConditionalGeneration,
    BlipForImageTextRetrieval,
    BlipForQuestionAnswering,
    BlipImageProcessor,
    BlipProcessor,
    CLIPConfig,
    CLIPImageProcessor,
    CLIPModel,
    CLIPProcessor,
    Florence2Config,
    Florence2ForConditionalGeneration,
    Florence2Processor,
    GitConfig,
    GitForCausalLM,
    GitProcessor,
    Idefics3Config,
    Idefics3ForConditionalGeneration,
    Idefics3ImageProcessor,
    Idefics3Processor,
    InstructBlipConfig,
    InstructBlipForConditionalGeneration,
    InstructBlipProcessor,
    Kosmos2Config,
    Kosmos2ForConditionalGeneration,
    Kosmos2Processor,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedModel,
    ProcessorMixin,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
    Qwen2VLImageProcessor,
    Qwen2VLProcessor,
    Qwen2VLVideoProcessor,
    SiglipConfig,
    SiglipImageProcessor,
    SiglipModel,
    SiglipProcessor,
)


SIZE, PATCH, QUERIES, DIM = 16, 8, 3, 12
WORDS = [*CAPTIONS, "is there a circle in the image?", "what color is the shape? question: short answer: yes no."]
LAYERS = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
VISION = {**LAYERS, "image_size": SIZE, "patch_size": PATCH}
SPECIAL = {"bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 2}  # of the tokenizer below
LLAMA = {"model_type": "llama", **LAYERS, **SPECIAL, "num_key_value_heads": 2, "max_position_embeddings": 512}
OPT = {"model_type": "opt", **SPECIAL, "hidden_size": 16, "ffn_dim": 24, "num_hidden_layers": 2}
OPT |= {"num_attention_heads": 2, "max_position_embeddings": 128, "word_embed_proj_dim": 16}
T5 = {"model_type": "t5", "d_model": 16, "d_kv": 8, "d_ff": 24, "num_layers": 2, "num_heads": 2}
T5 |= {"pad_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 0}
# As chat models have it: the picture, the text, and whose turn it is.
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ message['role'] }}: {% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image>{% else %}{{ part['text'] }}{% endif %}{% endfor %}{{ '\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}assistant:{% endif %}"
)
Peer = tuple[PreTrainedModel, ProcessorMixin]


def wordpiece_tokenizer() -> BertTokenizer:
    """Make one of words and, for other words, of letters; training one would give other numbers each time."""
    words = sorted(set(re.findall(r"[a-z]+|[^a-z ]", " ".join(WORDS).lower())))
    letters = [chr(number) for number in range(ord("a"), ord("z") + 1)]
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words, *letters, *(f"##{letter}" for letter in letters)]
    vocabulary = {piece: number for number, piece in enumerate(dict.fromkeys(pieces))}
    tokenizer = BertTokenizer(vocab=vocabulary, model_max_length=64)
    tokenizer.add_special_tokens({"bos_token": "[DEC]"})  # as BLIP's
    return tokenizer


def byte_level_tokenizer(*special_tokens: str) -> BartTokenizer:
    tokenizer = tiny_tokenizer()
    tokenizer.model_max_length = 512
    tokenizer.add_special_tokens({"additional_special_tokens": list(special_tokens)})
    return tokenizer


def blip_pixels() -> BlipImageProcessor:
    return BlipImageProcessor(size={"height": SIZE, "width": SIZE})


def clip_pixels() -> CLIPImageProcessor:
    return CLIPImageProcessor(size={"shortest_edge": SIZE}, crop_size={"height": SIZE, "width": SIZE})


def blip(model_class: type[PreTrainedModel]) -> Peer:
    tokenizer = wordpiece_tokenizer()
    text = {**LAYERS, "vocab_size": len(tokenizer), "encoder_hidden_size": 16, "projection_dim": 16}
    text |= {"bos_token_id": tokenizer.bos_token_id, "sep_token_id": tokenizer.sep_token_id, "pad_token_id": 0}
    config = BlipConfig(text_config=text, vision_config=VISION, image_text_hidden_size=DIM)
    return model_class(config), BlipProcessor(blip_pixels(), tokenizer)


def blip_2(text: dict) -> Peer:
    processor = Blip2Processor(blip_pixels(), byte_level_tokenizer(), num_query_tokens=QUERIES)
    vocabulary = len(processor.tokenizer)
    qformer = {**LAYERS, "vocab_size": vocabulary, "encoder_hidden_size": 16}
    config = Blip2Config(
        vision_config=VISION,
        qformer_config=qformer,
        text_config={**text, "vocab_size": vocabulary},
        num_query_tokens=QUERIES,
        image_token_index=processor.tokenizer.convert_tokens_to_ids("<image>"),
    )
    return Blip2ForConditionalGeneration(config), processor


def instructblip(text: dict) -> Peer:
    question_tokenizer = wordpiece_tokenizer()
    processor = InstructBlipProcessor(
        blip_pixels(), byte_level_tokenizer(), question_tokenizer, num_query_tokens=QUERIES
    )
    qformer = {**LAYERS, "vocab_size": len(question_tokenizer), "encoder_hidden_size": 16}
    config = InstructBlipConfig(
        vision_config=VISION,
        qformer_config=qformer,
        text_config={**text, "vocab_size": len(processor.tokenizer)},
        num_query_tokens=QUERIES,
        image_token_index=processor.tokenizer.convert_tokens_to_ids("<image>"),
    )
    return InstructBlipForConditionalGeneration(config), processor


def florence2() -> Peer:
    with TemporaryDirectory() as folder:  # a token with a name can be given at loading alone
        byte_level_tokenizer().save_pretrained(folder)
        tokenizer = BartTokenizer.from_pretrained(folder, extra_special_tokens={"image_token": "<image>"})
    pixels = CLIPImageProcessor(size={"height": 32, "width": 32}, do_center_crop=False)
    pixels.image_seq_length = 2  # the picture's 1 x 1 last grid, and its mean
    vision = {"depths": (1, 1), "embed_dim": (8, 16), "num_heads": (2, 2), "num_groups": (2, 2), "window_size": 4}
    vision |= {"patch_size": (7, 3), "patch_stride": (8, 4), "patch_padding": (3, 1), "patch_prenorm": (False, True)}
    vision |= {"projection_dim": 16, "drop_path_rate": 0.0}
    text = {"model_type": "bart", "vocab_size": len(tokenizer), "d_model": 16, "max_position_embeddings": 128}
    text |= {"encoder_layers": 2, "encoder_attention_heads": 2, "encoder_ffn_dim": 24}
    text |= {"decoder_layers": 2, "decoder_attention_heads": 2, "decoder_ffn_dim": 24}
    config = Florence2Config(text_config=text, vision_config=vision, image_token_id=tokenizer.image_token_id)
    processor = Florence2Processor(pixels, tokenizer, post_processor_config={"pure_text": {}})
    return Florence2ForConditionalGeneration(config), processor


def git() -> Peer:
    tokenizer = wordpiece_tokenizer()
    config = GitConfig(
        **LAYERS,
        vocab_size=len(tokenizer),
        vision_config=VISION,
        max_position_embeddings=64,
        bos_token_id=tokenizer.cls_token_id,
        eos_token_id=tokenizer.sep_token_id,
    )
    return GitForCausalLM(config), GitProcessor(clip_pixels(), tokenizer)


def kosmos2() -> Peer:
    processor = Kosmos2Processor(clip_pixels(), byte_level_tokenizer())
    text = {"vocab_size": len(processor.tokenizer), "embed_dim": 16, "ffn_dim": 24, "layers": 2, "attention_heads": 2}
    config = Kosmos2Config(text_config={**text, "max_position_embeddings": 256}, vision_config=VISION)
    return Kosmos2ForConditionalGeneration(config), processor


def llava() -> Peer:
    tokenizer = byte_level_tokenizer("<image>")
    config = LlavaConfig(
        vision_config={"model_type": "clip_vision_model", **VISION},
        text_config={**LLAMA, "vocab_size": len(tokenizer)},
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
    )
    processor = LlavaProcessor(
        clip_pixels(),
        tokenizer,
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=CHAT_TEMPLATE,
    )
    return LlavaForConditionalGeneration(config), processor


def idefics3() -> Peer:
    """Make a chat model that sees a picture as a number of squares that depends on its shape."""
    squares = [f"<row_{row}_col_{column}>" for row in range(1, 7) for column in range(1, 7)]
    tokenizer = byte_level_tokenizer("<image>", "<fake_token_around_image>", "<global-img>", *squares)
    pixels = Idefics3ImageProcessor(size={"longest_edge": 2 * SIZE}, max_image_size={"longest_edge": SIZE})
    config = Idefics3Config(
        vision_config=VISION,
        text_config={**LLAMA, "vocab_size": len(tokenizer) + 2},
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        scale_factor=2,
    )
    processor = Idefics3Processor(pixels, tokenizer, image_seq_len=1, chat_template=CHAT_TEMPLATE)
    return Idefics3ForConditionalGeneration(config), processor


def qwen2_vl() -> Peer:
    """Make a chat model that sees a picture as a row of patches, as many as it has."""
    names = ["<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"]
    tokenizer = byte_level_tokenizer(*names)
    start, end, image, video = tokenizer.convert_tokens_to_ids(names)
    layers = {name: value for name, value in LLAMA.items() if name != "model_type"}
    config = Qwen2VLConfig(
        vision_config={
            "depth": 2,
            "embed_dim": 16,
            "hidden_size": 16,
            "num_heads": 2,
            "mlp_ratio": 2,
            "patch_size": 4,
        },
        text_config={
            **layers,
            "vocab_size": len(tokenizer),
            "rope_parameters": {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 10000.0},
        },
        vision_start_token_id=start,
        vision_end_token_id=end,
        image_token_id=image,
        video_token_id=video,
    )
    processor = Qwen2VLProcessor(
        Qwen2VLImageProcessor(patch_size=4, size={"shortest_edge": 64, "longest_edge": 1024}),
        tokenizer,
        Qwen2VLVideoProcessor(),
        chat_template=CHAT_TEMPLATE.replace("<image>", "<|vision_start|><|image_pad|><|vision_end|>"),
    )
    return Qwen2VLForConditionalGeneration(config), processor


def clip() -> Peer:
    tokenizer = byte_level_tokenizer()
    tokenizer.model_max_length = 32
    text = {**LAYERS, **SPECIAL, "vocab_size": len(tokenizer), "max_position_embeddings": 32}
    config = CLIPConfig(text_config=text, vision_config=VISION, projection_dim=DIM)
    return CLIPModel(config), CLIPProcessor(clip_pixels(), tokenizer)


def siglip() -> Peer:
    tokenizer = byte_level_tokenizer()
    tokenizer.model_max_length = 24
    text = {**LAYERS, **SPECIAL, "vocab_size": len(tokenizer), "max_position_embeddings": 24}
    pixels = SiglipImageProcessor(size={"height": SIZE, "width": SIZE})
    return SiglipModel(SiglipConfig(text_config=text, vision_config=VISION)), SiglipProcessor(pixels, tokenizer)


PEERS: dict[str, Callable[[], Peer]] = {
    "blip-caption": lambda: blip(BlipForConditionalGeneration),
    "blip-vqa": lambda: blip(BlipForQuestionAnswering),
    "blip-itm": lambda: blip(BlipForImageTextRetrieval),
    "blip-2-opt": lambda: blip_2(OPT),
    "blip-2-t5": lambda: blip_2(T5),
    "instructblip-llama": lambda: instructblip(LLAMA),
    "instructblip-t5": lambda: instructblip(T5),
    "florence2": florence2,
    "git": git,
    "kosmos-2": kosmos2,
    "llava": llava,
    "idefics3": idefics3,
    "qwen2_vl": qwen2_vl,
    "clip": clip,
    "siglip": siglip,
}


SEEDS = {
    "kosmos-2": 2,
    "instructblip-t5": 4,
}  # with seed 3, the others write different texts for different pictures and questions


def make_peer(name: str) -> Peer:
    """Make a model, every weight random, and its processor."""
    model, processor = PEERS[name]()
    return randomize(model, SEEDS.get(name, 3)), processor
