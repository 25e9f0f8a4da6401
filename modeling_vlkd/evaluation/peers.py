"""Which models of transformers can be evaluated beside ours, and how each is asked: one table."""

from dataclasses import dataclass, field
from typing import Any

from transformers import PreTrainedConfig, PreTrainedModel, ProcessorMixin
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES

from .dual_encoders import BlipRetrievalAdapter, DualEncoderAdapter
from .errors import EvaluationError
from .peer_adapters import (
    BlipCaptionAdapter,
    BlipQuestionAdapter,
    ChatAdapter,
    ContinuingAdapter,
    GitAdapter,
    Kosmos2Adapter,
    PeerAdapter,
    WritingAdapter,
)


@dataclass(frozen=True)
class Peer:
    """One kind of model.

    Args:
        model_class: of transformers, by name, because importing it costs time.
        adapter: speaks for it.
        settings: of the adapter: its prompts. A kind without a question prompt was not made to answer.
        language_model: of a kind that is built on different ones, whether this is for encoder-decoders.
    """

    model_class: str
    adapter: type[PeerAdapter]
    settings: dict[str, Any] = field(default_factory=dict)
    encoder_decoder: bool | None = None


# By `config.model_type`, and where there are several, by the class that the checkpoint names or by its language model.
PEERS: dict[str, list[Peer]] = {
    "blip": [
        # Unconditional, as in the first example of its card; "a picture of " is BLIP's own prompt (LAVIS,
        # configs/models/blip_caption_base_coco.yaml), to be given as the caption prompt.
        Peer("BlipForConditionalGeneration", BlipCaptionAdapter, {"caption_prompt": ""}),
        Peer("BlipForQuestionAnswering", BlipQuestionAdapter, {"question_prompt": "{question}"}),
        Peer("BlipForImageTextRetrieval", BlipRetrievalAdapter),
    ],
    # BLIP-2 (arXiv:2301.12597), sections 4.1 and 4.2: an OPT is asked for an answer, a FlanT5 for a short one.
    "blip-2": [
        Peer(
            "Blip2ForConditionalGeneration",
            ContinuingAdapter,
            {"caption_prompt": "a photo of", "question_prompt": "Question: {question} Answer:"},
            encoder_decoder=False,
        ),
        Peer(
            "Blip2ForConditionalGeneration",
            WritingAdapter,
            {"caption_prompt": "a photo of", "question_prompt": "Question: {question} Short answer:"},
            encoder_decoder=True,
        ),
    ],
    # InstructBLIP (arXiv:2305.06500), appendix on the instructions of the evaluation.
    "instructblip": [
        Peer(
            "InstructBlipForConditionalGeneration",
            adapter,
            {
                "caption_prompt": "A short image description:",
                "question_prompt": "Question: {question} Short answer:",
            },
            encoder_decoder,
        )
        for adapter, encoder_decoder in ((ContinuingAdapter, False), (WritingAdapter, True))
    ],
    # Its processor knows no task of asking questions; whoever finetuned one for it says with which prompt.
    "florence2": [Peer("Florence2ForConditionalGeneration", WritingAdapter, {"caption_prompt": "<CAPTION>"})],
    # Both as in the examples of its `forward`.
    "git": [Peer("GitForCausalLM", GitAdapter, {"caption_prompt": "", "question_prompt": "{question}"})],
    # Kosmos-1 (arXiv:2302.14045), section 4.1, whose evaluation Kosmos-2 repeats; "<grounding>An image of", as in its
    # card, has it say where things are, too, which the adapter takes out again.
    "kosmos-2": [
        Peer(
            "Kosmos2ForConditionalGeneration",
            Kosmos2Adapter,
            {"caption_prompt": "An image of", "question_prompt": "Question: {question} Answer:"},
        )
    ],
    "clip": [Peer("CLIPModel", DualEncoderAdapter)],
    # "That's how the model was trained" (the example of its `get_text_features`).
    "siglip": [Peer("SiglipModel", DualEncoderAdapter, {"padding": "max_length"})],
}
# What LLaVA-1.5 was trained with (arXiv:2310.03744, section 3.2), and lmms-eval asks chat models.
CHAT = Peer(
    "AutoModelForImageTextToText",
    ChatAdapter,
    {
        "caption_prompt": "Provide a one-sentence caption for the provided image.",
        "question_prompt": "{question}\nAnswer the question using a single word or phrase.",
    },
)


def is_known(model_type: Any) -> bool:
    """Tell whether models of a type can be evaluated with the code of transformers."""
    return isinstance(model_type, str) and (
        model_type in PEERS or model_type in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES
    )


def unknown_type(name: str, model_type: Any) -> EvaluationError:
    return EvaluationError(
        f"{name} holds a model of type {model_type!r}, which cannot be evaluated; those that can are 'vlkd', "
        f"{', '.join(map(repr, PEERS))}, and chat models about pictures (image-text-to-text)."
    )


def find_peer(config: PreTrainedConfig, name: str, model_class: str | None = None) -> Peer:
    """Find how a model is asked.

    Args:
        name: what messages call it.
        model_class: of a model that is loaded already; by default what the checkpoint says.

    Raises:
        EvaluationError: models of this type, or of this class, cannot be evaluated; with those that can.
    """
    if not is_known(config.model_type):
        raise unknown_type(name, config.model_type)
    if config.model_type not in PEERS:
        return CHAT
    kinds = PEERS[config.model_type]
    classes = [model_class] if model_class else config.architectures or [kinds[0].model_class]
    for kind in kinds:
        fits = kind.encoder_decoder in (None, config.get_text_config().is_encoder_decoder)
        if kind.model_class in classes and fits:
            return kind
    raise EvaluationError(
        f"{name} holds a {' or '.join(classes)}, which cannot be evaluated; of type {config.model_type!r}, those that "
        f"can are {', '.join(dict.fromkeys(kind.model_class for kind in kinds))}."
    )


def adapt(
    model: PreTrainedModel,
    processor: ProcessorMixin,
    name: str | None = None,
    peer: Peer | None = None,
    **settings: Any,
) -> PeerAdapter:
    """Let a model of transformers speak the protocol of [`VisionLanguageModel`].

    Args:
        name: what messages call it; by default where it was loaded from.
        peer: how it is asked, if that is known already.
        settings: of the adapter, over those of the table; of an adapter that writes see [`WritingAdapter`].

    Raises:
        EvaluationError: as those of `find_peer`, or a setting that this kind of model does not have.
    """
    name = name or model.name_or_path or "The model"
    peer = peer or find_peer(model.config, name, type(model).__name__)
    return peer.adapter(model, processor, name, **{**peer.settings, **settings})
