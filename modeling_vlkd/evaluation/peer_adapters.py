"""Let models of transformers that write text speak the protocol of `protocol.py`; `peers.py` says which and how."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import BatchFeature, PreTrainedModel, ProcessorMixin

from modeling_vlkd.generation_vlkd import batches_of_equal_length
from modeling_vlkd.processing_vlkd import ImageInput, open_image

from .errors import EvaluationError
from .protocol import Answer, Caption
from .vlkd_model import evaluating


ANSWER_TOKENS, CAPTION_TOKENS = 10, 30  # LAVIS allows so many for VQAv2 and COCO


class PeerAdapter:
    """What all peers have: pictures are kept as they are given, and what a model cannot do is refused by its name.

    Args:
        name: what messages call the model: its folder or Hub id.
        batch_size: pictures, questions or texts at a time.
    """

    abilities = ""  # for messages

    def __init__(self, model: PreTrainedModel, processor: ProcessorMixin, name: str, batch_size: int = 16):
        self.model = model
        self.processor = processor
        self.name = name
        self.batch_size = batch_size

    def look(self, images: Iterable[ImageInput]) -> list[ImageInput]:
        """Give the pictures back: each is opened when it is needed, and again for the next batch that needs it."""
        return list(images)

    def answer(
        self,
        images: Iterable[ImageInput] | None,
        questions: Sequence[str],
        image_index: Sequence[int] | None = None,
    ) -> list[Answer]:
        raise self.refusal("answers no questions")

    def caption(self, images: Iterable[ImageInput]) -> list[Caption]:
        raise self.refusal("captions no pictures")

    def embed_images(self, images: Iterable[ImageInput]) -> Tensor:
        raise self.refusal("has no embeddings of pictures that texts share")

    def embed_texts(self, texts: Sequence[str]) -> Tensor:
        raise self.refusal("has no embeddings of texts that pictures share")

    def refusal(self, what: str) -> EvaluationError:
        """Say what the model cannot do, and what it can."""
        return EvaluationError(f"{self.name} ({type(self.model).__name__}) {what}; it can {self.abilities}.")


class WritingAdapter(PeerAdapter):
    """Models that read a prompt and write a text of their own: encoder-decoders.

    Shorter prompts of a batch are padded on the right, which an encoder masks; the tokenizer is told so.

    Args:
        caption_prompt: asks for a caption; "" where pictures alone do; None for a model that was not made for it.
        question_prompt: asks a question, with `{question}` where that stands; None likewise.
        max_new_tokens: of an answer or a caption; 10 and 30 by default.
        generate_kwargs: more for `generate()`, such as `num_beams`, over what the checkpoint says. Nothing is drawn by
            default, so that a figure can be had again.

    Raises:
        EvaluationError: the question prompt has no place for the question.
    """

    padding_side: str | None = "right"  # None: a batch has to have prompts of one length
    can_do_without_picture = False

    def __init__(
        self,
        model: PreTrainedModel,
        processor: ProcessorMixin,
        name: str,
        batch_size: int = 16,
        caption_prompt: str | None = None,
        question_prompt: str | None = None,
        max_new_tokens: int | None = None,
        **generate_kwargs: Any,
    ):
        super().__init__(model, processor, name, batch_size)
        if question_prompt is not None and "{question}" not in question_prompt:
            raise EvaluationError(
                f"The question prompt {question_prompt!r} has no {{question}}, where each question is to stand."
            )
        self.caption_prompt, self.question_prompt, self.max_new_tokens = (
            caption_prompt,
            question_prompt,
            max_new_tokens,
        )
        self.generate_kwargs = {"do_sample": False, **generate_kwargs}
        known = {"caption pictures": caption_prompt, "answer questions": question_prompt}
        self.abilities = " and ".join(ability for ability, prompt in known.items() if prompt is not None)
        if self.padding_side is not None:
            processor.tokenizer.padding_side = self.padding_side

    def answer(
        self,
        images: Iterable[ImageInput] | None,
        questions: Sequence[str],
        image_index: Sequence[int] | None = None,
    ) -> list[Answer]:
        """Answer questions; see [`VisionLanguageModel`]."""
        if self.question_prompt is None:
            raise self.refusal("was not made to answer questions, unless you give a question prompt")
        if images is None and not self.can_do_without_picture:
            raise EvaluationError(f"{self.name} ({type(self.model).__name__}) cannot answer without a picture.")
        pictures = None if images is None else self.look(images)
        if pictures is not None and image_index is None and len(pictures) != len(questions):
            raise EvaluationError(
                f"Expected one picture per question, got {len(pictures)} for {len(questions)} questions; give "
                "image_index to ask several questions about one."
            )
        prompts = [self.question_prompt.replace("{question}", question) for question in questions]
        index = range(len(questions)) if image_index is None else list(image_index)
        return [Answer(text) for text in self.write(prompts, pictures, index, self.max_new_tokens or ANSWER_TOKENS)]

    def caption(self, images: Iterable[ImageInput]) -> list[Caption]:
        if self.caption_prompt is None:
            raise self.refusal("was not made to caption pictures, unless you give a caption prompt")
        pictures = self.look(images)
        prompts = [self.caption_prompt] * len(pictures)
        limit = self.max_new_tokens or CAPTION_TOKENS
        return [Caption(text) for text in self.write(prompts, pictures, range(len(pictures)), limit)]

    def write(
        self,
        prompts: Sequence[str],
        pictures: Sequence[ImageInput] | None,
        index: Sequence[int],
        max_new_tokens: int,
    ) -> list[str]:
        """Have a text written for each prompt about its picture, in order; those of like length are written together.

        Args:
            index: for each prompt, which picture it is about.
        """
        texts = [""] * len(prompts)
        with evaluating(self.model):
            for positions in self.batches(prompts, index):
                opened: dict[int, Any] = {}
                if pictures is not None:
                    opened = {place: open_image(pictures[place]) for place in {index[each] for each in positions}}
                shown = None if pictures is None else [opened[index[each]] for each in positions]
                inputs = self.encode([prompts[each] for each in positions], shown)
                inputs = inputs.to(self.model.device, self.model.dtype)
                sequences = self.model.generate(**inputs, max_new_tokens=max_new_tokens, **self.generate_kwargs)
                for position, text in zip(positions, self.decode(sequences, inputs)):
                    texts[position] = text
        return texts

    def batches(self, prompts: Sequence[str], index: Sequence[int]) -> Iterator[list[int]]:
        """Yield positions of prompts that are answered together: of like length, and of one picture if possible."""
        lengths = [len(ids) for ids in self.processor.tokenizer(list(prompts))["input_ids"]] if prompts else []
        if self.padding_side is None:
            yield from batches_of_equal_length(lengths, self.batch_size)
            return
        ordered = sorted(range(len(prompts)), key=lambda position: (lengths[position], index[position]))
        for first in range(0, len(ordered), self.batch_size):
            yield ordered[first : first + self.batch_size]

    def encode(self, prompts: list[str], pictures: list[Any] | None) -> BatchFeature:
        """Make the inputs of `generate()`."""
        if not any(prompts):
            return self.processor(images=pictures, return_tensors="pt")
        return self.processor(images=pictures, text=prompts, padding=True, return_tensors="pt")

    def decode(self, sequences: Tensor, inputs: BatchFeature) -> list[str]:
        """Read what the model wrote, without special tokens."""
        texts = self.processor.tokenizer.batch_decode(sequences, skip_special_tokens=True)
        return [text.strip() for text in texts]


class ContinuingAdapter(WritingAdapter):
    """Models that continue their prompt, and give that back too: it is cut off.

    A prompt has to end where the text begins, so shorter ones are padded on the left.
    """

    padding_side: str | None = "left"

    def decode(self, sequences: Tensor, inputs: BatchFeature) -> list[str]:
        known = inputs["input_ids"].shape[1] if "input_ids" in inputs else 0
        return super().decode(sequences[:, known:], inputs)


class BlipQuestionAdapter(WritingAdapter):
    """BLIP that answers questions: its decoder sees the padding of a shorter question, so there must be none."""

    padding_side = None


class BlipCaptionAdapter(ContinuingAdapter):
    """BLIP that captions: it continues a prompt without its last token, which is the end of the text."""

    padding_side = None

    def decode(self, sequences: Tensor, inputs: BatchFeature) -> list[str]:
        known = inputs["input_ids"].shape[1] - 1 if "input_ids" in inputs else 0
        return WritingAdapter.decode(self, sequences[:, known:], inputs)


class GitAdapter(ContinuingAdapter):
    """GIT: it continues `[CLS]` and the question; it counts positions from the left, so there must be no padding."""

    padding_side = None

    def encode(self, prompts: list[str], pictures: list[Any] | None) -> BatchFeature:
        inputs = self.processor(images=pictures, return_tensors="pt")
        if any(prompts):
            ids = self.processor.tokenizer(prompts, add_special_tokens=False)["input_ids"]
            inputs["input_ids"] = torch.tensor([[self.processor.tokenizer.cls_token_id, *each] for each in ids])
        return inputs


class Kosmos2Adapter(ContinuingAdapter):
    """Kosmos-2: what it says of places in the picture is taken out of its text.

    While it writes, it counts the padding of its prompt as positions, so there must be none.
    """

    padding_side = None

    def decode(self, sequences: Tensor, inputs: BatchFeature) -> list[str]:
        texts = super().decode(sequences, inputs)
        return [self.processor.post_process_generation(text)[0].strip() for text in texts]


class ChatAdapter(ContinuingAdapter):
    """Chat models: the prompt is what a user says beside a picture, written as the model's chat template has it.

    Raises:
        EvaluationError: the processor has no chat template.
    """

    can_do_without_picture = True

    def __init__(self, model: PreTrainedModel, processor: ProcessorMixin, name: str, *args: Any, **settings: Any):
        super().__init__(model, processor, name, *args, **settings)
        if processor.chat_template is None:
            raise EvaluationError(
                f"{name} ({type(model).__name__}) has no chat template, which says how it is asked; set "
                "`processor.chat_template` and save the processor there."
            )

    def encode(self, prompts: list[str], pictures: list[Any] | None) -> BatchFeature:
        shown = [[] if pictures is None else [{"type": "image", "image": pictures[i]}] for i in range(len(prompts))]
        conversations = [
            [{"role": "user", "content": [*picture, {"type": "text", "text": prompt}]}]
            for picture, prompt in zip(shown, prompts)
        ]
        return self.processor.apply_chat_template(
            conversations,
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
            processor_kwargs={"padding": True},
        )
