"""`pipeline("visual-question-answering")` and `pipeline("image-captioning")` for VLKD.

transformers removed its own visual question answering pipeline in 5.3. The one here has the same inputs and outputs.
"""

import os
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from PIL import Image
from torch.utils.data import Dataset
from transformers.pipelines.base import GenericTensor, Pipeline

from .generation_vlkd import generate_answers, generate_captions
from .processing_vlkd import open_image


def is_image(value: Any) -> bool:
    """Tell whether a value is a single image: a path, a URL or a PIL image."""
    return isinstance(value, (str, os.PathLike, Image.Image))


def stream(inputs: Any) -> Any:
    """Turn a collection of inputs into a generator, where `Pipeline.__call__` would not see that it is a collection.

    transformers iterates over lists, torch datasets and generators. It takes everything else for one input, also a
    data set of the library `datasets`. And it fails at an empty list, because it looks at the first element; an empty
    generator gives an empty result.
    """
    if is_image(inputs) or isinstance(inputs, (dict, Dataset)):
        return inputs
    if isinstance(inputs, (bytes, np.ndarray)):  # iterable, but meant as one image, which `open_image` refuses
        return inputs
    if isinstance(inputs, list) and inputs:
        return inputs
    if isinstance(inputs, Iterable):
        return (each for each in inputs)
    return inputs


class VLKDPipeline(Pipeline):
    """The part that both pipelines share: they load the processor, and compute an image's rows once."""

    _load_processor = True
    _load_tokenizer = False
    _load_image_processor = False
    _load_feature_extractor = False

    def _sanitize_parameters(self, top_k=None, num_masks=None, timeout=None, generate_kwargs=None, **kwargs):
        forward = {"top_k": top_k, "num_masks": num_masks, **(generate_kwargs or {}), **kwargs}
        preprocess = {"timeout": timeout} if timeout is not None else {}
        return preprocess, {name: value for name, value in forward.items() if value is not None}, {}

    def pixels(self, image: Any, timeout: float | None) -> GenericTensor:
        """Open an image and return its pixels, `(1, channels, height, width)`, in the model's type."""
        return self.processor(images=open_image(image, timeout), return_tensors="pt")["pixel_values"].to(self.dtype)


class VLKDVisualQuestionAnsweringPipeline(VLKDPipeline):
    r"""
    Answers questions about images in free text.

    Example:

    ```python
    >>> from transformers import pipeline
    >>> import modeling_vlkd

    >>> answerer = pipeline("visual-question-answering", model=checkpoint)
    >>> answers = answerer(image=picture, question="what color is the shape?")
    >>> sorted(answers[0])
    ['answer', 'score']

    ```
    """

    def __call__(self, image: Any, question: str | Sequence[str] | None = None, **kwargs: Any):
        r"""
        Answer one or more questions about one or more images.

        Args:
            image (path, URL, `PIL.Image.Image`, or a list or data set of them): the pictures. Or dictionaries
                `{"image": ..., "question": ...}`: one, or a list, generator or data set of them.
            question (`str` or `list[str]`, *optional*): with several images and several questions, each question is
                asked about each image. The results are ordered by question, then by image. Each image is encoded once.
            top_k (`int`, *optional*, defaults to 1): how many different answers a question gets at most.
            num_masks (`int`, *optional*): masks in the prompt; defaults to the checkpoint's number.
            batch_size (`int`, *optional*, defaults to 1): images that are processed together.
            timeout (`float`, *optional*): seconds to wait for a URL.
            truncation (`bool`, *optional*, defaults to `False`): cut questions that are longer than the model can
                read, instead of raising a ValueError.
            kwargs: for `generate()`, such as `num_beams`.

        Returns:
            `list[dict]` for one question, a list of such lists for many: `answer`, and `score`, the probability that
            the model gives to that answer.
        """
        if question is None:
            return super().__call__(stream(image), **kwargs)
        if is_image(image):
            return super().__call__({"image": image, "question": question}, **kwargs)
        # A generator, because the decoded pictures of a whole data set may not fit into memory.
        results = list(super().__call__(({"image": each, "question": question} for each in image), **kwargs))
        if isinstance(question, str):
            return results
        return [of_image[place] for place in range(len(question)) for of_image in results]

    def _sanitize_parameters(self, *args, padding=None, truncation=None, **kwargs):
        # `padding` was an argument of transformers' pipeline. It is accepted and ignored: texts are always padded.
        preprocess, *rest = super()._sanitize_parameters(*args, **kwargs)
        if truncation is not None:
            preprocess["truncation"] = truncation
        return preprocess, *rest

    def preprocess(
        self, inputs: dict[str, Any], timeout: float | None = None, truncation: bool = False
    ) -> dict[str, GenericTensor]:
        if not isinstance(inputs, dict) or not {"image", "question"} <= set(inputs):
            raise ValueError(f'Expected {{"image": ..., "question": ...}}, got {inputs!r:.200}.')
        question = inputs["question"]
        questions = [question] if isinstance(question, str) else list(question)
        self.processor.question_prefixes(questions)  # raises for an empty question, before the picture is opened
        if truncation:
            questions = [self.shorten(question) for question in questions]
        pixels = self.pixels(inputs["image"], timeout)
        return {"questions": questions, "single": isinstance(question, str), "pixel_values": pixels}

    def shorten(self, question: str) -> str:
        """Cut the end of a question off, to leave room for the rest of its prompt and for the answer."""
        tokenizer = self.processor.tokenizer
        around = len(tokenizer(self.processor.question_prompts(["?"])[0])["input_ids"])
        room = tokenizer.model_max_length - around - (self.model.generation_config.max_new_tokens or 0)
        tokens = tokenizer(question, add_special_tokens=False, truncation=True, max_length=room)["input_ids"]
        return tokenizer.decode(tokens)

    def _forward(self, model_inputs: dict[str, Any], **forward_kwargs: Any) -> dict[str, Any]:
        rows = self.model.get_image_rows(model_inputs["pixel_values"])
        # In a batch, each value is a list with one entry for each image. With batch_size=1 there is no batch: the
        # values are as `preprocess` returned them.
        collated = not isinstance(model_inputs["single"], bool)
        of_images = model_inputs["questions"] if collated else [model_inputs["questions"]]
        flat = [question for questions in of_images for question in questions]
        index = [place for place, questions in enumerate(of_images) for _ in questions]
        answers = iter(generate_answers(self.model, self.processor, flat, rows, index, **forward_kwargs))
        answers_of_images = [[next(answers) for _ in questions] for questions in of_images]
        return {
            "answers": answers_of_images if collated else answers_of_images[0],
            "single": model_inputs["single"],
        }

    def postprocess(self, model_outputs: dict[str, Any]) -> list[Any]:
        return model_outputs["answers"][0] if model_outputs["single"] else model_outputs["answers"]


class VLKDImageCaptioningPipeline(VLKDPipeline):
    r"""
    Captions images: `pipeline("image-captioning", model=checkpoint)(images)`. This package registers the task.

    The input is a path, a URL, a PIL image, or a list, generator or data set of them. The keyword arguments are those
    of [`VLKDVisualQuestionAnsweringPipeline`]. Each image gets a list `[{"caption": ..., "score": ...}]`.
    """

    def __call__(self, inputs: Any, **kwargs: Any):
        return super().__call__(stream(inputs), **kwargs)

    def preprocess(self, inputs: Any, timeout: float | None = None) -> dict[str, GenericTensor]:
        return {"pixel_values": self.pixels(inputs, timeout)}

    def _forward(self, model_inputs: dict[str, Any], **forward_kwargs: Any) -> dict[str, Any]:
        rows = self.model.get_image_rows(model_inputs["pixel_values"])
        return {"captions": generate_captions(self.model, self.processor, rows, **forward_kwargs)}

    def postprocess(self, model_outputs: dict[str, Any]) -> list[dict[str, Any]]:
        captions = model_outputs["captions"]
        return captions[0] if isinstance(captions[0], list) else captions


__all__ = ["VLKDImageCaptioningPipeline", "VLKDVisualQuestionAnsweringPipeline"]
