"""Let models of transformers that write text speak the protocol of `protocol.py`; `peers.py` says which and how."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import BatchFeature, PreTrainedModel, ProcessorMixin
from transformers.modeling_outputs import ModelOutput

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
        vision_tower: the name of the part that sees, of models whose `generate()` has each row of its output read by
            one prompt: a picture is then seen once for all questions about it in a batch.
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
        vision_tower: str | None = None,
        max_new_tokens: int | None = None,
        **generate_kwargs: Any,
    ):
        super().__init__(model, processor, name, batch_size)
        if question_prompt is not None and "{question}" not in question_prompt:
            raise EvaluationError(
                f"The question prompt {question_prompt!r} has no {{question}}, where each question is to stand."
            )
        self.caption_prompt, self.question_prompt = caption_prompt, question_prompt
        self.max_new_tokens = max_new_tokens
        self.vision_tower = vision_tower
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
        """Have a text written for each prompt about its picture, in order.

        Args:
            index: for each prompt, which picture it is about.
        """
        texts = [""] * len(prompts)
        with evaluating(self.model):
            for positions in self.batches(prompts, index):
                asked = [prompts[each] for each in positions]
                places = list(dict.fromkeys(index[each] for each in positions))  # each picture once
                rows = [places.index(index[each]) for each in positions]
                opened = None if pictures is None else [open_image(pictures[place]) for place in places]
                if opened is not None and self.vision_tower is None:
                    opened, rows = [opened[row] for row in rows], list(range(len(rows)))
                inputs = self.encode(asked, opened).to(self.model.device, self.model.dtype)
                with self.repeating(rows):
                    sequences = self.model.generate(**inputs, max_new_tokens=max_new_tokens, **self.generate_kwargs)
                for position, text in zip(positions, self.decode(sequences, inputs)):
                    texts[position] = text
        return texts

    def batches(self, prompts: Sequence[str], index: Sequence[int]) -> Iterator[list[int]]:
        """Yield positions of prompts that are answered together, by their pictures where lengths may differ."""
        if self.padding_side is None and prompts:
            lengths = [len(ids) for ids in self.processor.tokenizer(list(prompts))["input_ids"]]
            yield from batches_of_equal_length(lengths, self.batch_size)
            return
        ordered = sorted(range(len(prompts)), key=index.__getitem__)
        for first in range(0, len(ordered), self.batch_size):
            yield ordered[first : first + self.batch_size]

    @contextmanager
    def repeating(self, rows: list[int]) -> Iterator[None]:
        """Let the vision tower see each picture of a batch once, and repeat what it saw for each prompt.

        Args:
            rows: for each prompt, the row of its picture.
        """
        if self.vision_tower is None or rows == list(range(len(rows))):
            yield
            return

        def repeat(module: nn.Module, args: Any, output: ModelOutput) -> ModelOutput:
            output.last_hidden_state = output.last_hidden_state[rows]  # (prompts, patches, width)
            return output

        hook = self.model.get_submodule(self.vision_tower).register_forward_hook(repeat)
        try:
            yield
        finally:
            hook.remove()

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
    """BLIP that answers questions: its decoder reads the padding of a shorter question too, so there must be none."""

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
