"""`pipeline("visual-question-answering")` and `pipeline("image-captioning")` for VLKD.

transformers removed its own visual question answering pipeline in 5.3; this one takes and returns what that one did.
"""

import os
from collections.abc import Sequence
from typing import Any

from PIL import Image
from transformers.pipelines.base import GenericTensor, Pipeline

from .generation_vlkd import generate_answers, generate_captions
from .processing_vlkd import open_image


def is_image(value: Any) -> bool:
    return isinstance(value, (str, os.PathLike, Image.Image))


class VLKDPipeline(Pipeline):
    """What both pipelines share: they load the processor, and see images as the rows that CLIP makes of them."""

    _load_processor = True
    _load_tokenizer = False
    _load_image_processor = False
    _load_feature_extractor = False

    def _sanitize_parameters(self, top_k=None, num_masks=None, timeout=None, generate_kwargs=None, **kwargs):
        if top_k is not None and top_k < 1:
            raise ValueError(f"top_k={top_k}: ask for at least one text.")
        forward = {"top_k": top_k, "num_masks": num_masks, **(generate_kwargs or {}), **kwargs}
        preprocess = {"timeout": timeout} if timeout is not None else {}
        return preprocess, {name: value for name, value in forward.items() if value is not None}, {}

    def pixels(self, image: Any, timeout: float | None) -> GenericTensor:
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
        Args:
            image (path, URL, `PIL.Image.Image`, or a list or data set of them; or `{"image", "question"}`, a list,
                generator or data set of such): the pictures.
            question (`str` or `list[str]`, *optional*): with several images and several questions, each question is
                asked of each image, image by image. An image asked many questions is seen once.
            top_k (`int`, *optional*, defaults to 1): answers a question.
            num_masks (`int`, *optional*): masks in the prompt; the checkpoint's default if left out.
            batch_size (`int`, *optional*, defaults to 1): images at a time.
            timeout (`float`, *optional*): seconds to wait for a URL.
            kwargs: for `generate()`, such as `num_beams`.

        Returns:
            `list[dict]` for one question, a list of such lists for many: `answer`, and `score`, the probability that
            the model gives to that answer.
        """
        if question is None:
            return super().__call__(image, **kwargs)
        many_images, many_questions = not is_image(image), not isinstance(question, str)
        images = image if many_images else [image]
        results = super().__call__([{"image": each, "question": question} for each in images], **kwargs)
        if many_images and many_questions:
            return [answers for of_image in results for answers in of_image]
        return results if many_images else results[0]

    def preprocess(self, inputs: dict[str, Any], timeout: float | None = None) -> dict[str, GenericTensor]:
        if not isinstance(inputs, dict) or not {"image", "question"} <= set(inputs):
            raise ValueError(f'Expected {{"image": ..., "question": ...}}, got {inputs!r:.200}.')
        question = inputs["question"]
        questions = [question] if isinstance(question, str) else list(question)
        self.processor.question_prefixes(questions)  # refuses empty ones before any work is done
        pixels = self.pixels(inputs["image"], timeout)
        return {"questions": questions, "single": isinstance(question, str), "pixel_values": pixels}

    def _forward(self, model_inputs: dict[str, Any], **forward_kwargs: Any) -> dict[str, Any]:
        rows = self.model.get_image_rows(model_inputs["pixel_values"])
        # Collated, `questions` is a list for each image; a batch of one comes as it left `preprocess`.
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
    Captions images: `pipeline("image-captioning", model=checkpoint)(images)`, registered by this package.

    Takes paths, URLs, PIL images, or a list, generator or data set of them, with the keyword arguments of
    [`VLKDVisualQuestionAnsweringPipeline`]; returns `[{"caption", "score"}]` an image.
    """

    def preprocess(self, inputs: Any, timeout: float | None = None) -> dict[str, GenericTensor]:
        return {"pixel_values": self.pixels(inputs, timeout)}

    def _forward(self, model_inputs: dict[str, Any], **forward_kwargs: Any) -> dict[str, Any]:
        rows = self.model.get_image_rows(model_inputs["pixel_values"])
        return {"captions": generate_captions(self.model, self.processor, rows, **forward_kwargs)}

    def postprocess(self, model_outputs: dict[str, Any]) -> list[dict[str, Any]]:
        captions = model_outputs["captions"]
        return captions[0] if isinstance(captions[0], list) else captions


__all__ = ["VLKDImageCaptioningPipeline", "VLKDVisualQuestionAnsweringPipeline"]
