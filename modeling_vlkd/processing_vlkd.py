"""Images and texts in, answers and captions out: the processor of VLKD."""

from .hub_files_vlkd import brings_its_code  # first: it refuses a transformers that is too old


# isort: split
import os
from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor
from transformers import AutoConfig, AutoImageProcessor, AutoTokenizer, BatchFeature
from transformers.image_utils import load_image
from transformers.processing_utils import ProcessingKwargs, ProcessorMixin, TextKwargs


CAPTION_PREFIX = "A picture of"
ANSWER_MARK = "Answer:"
# CLIP sees the central square. A strip longer than this is cut to its middle first, which changes no pixel of that
# square but keeps the resized image, whose *short* side becomes CLIP's, from filling the memory.
MAX_ASPECT_RATIO = 64
VERY_LONG = 1_000_000  # tokens; transformers' tokenizers that know no limit say so by a larger number
SCHEMES = ("http://", "https://", "data:image/")  # strings that are no paths
# What chat programs send: the last message is the question, and without words in it a caption is asked for. The model
# was never trained on conversations, so what was said before is not read, only seen.
CHAT_TEMPLATE = """\
{%- set content = messages[-1].content -%}
{%- if content is not string -%}
{%- set content = content | selectattr("type", "equalto", "text") | map(attribute="text") | join(" ") -%}
{%- endif -%}
{{- content.strip() + question_end if content.strip() else caption -}}
"""

ImageInput = str | os.PathLike | Image.Image
ARRAYS = (np.ndarray, Tensor)


def open_image(image: ImageInput, timeout: float | None = None) -> Image.Image:
    """Opens an image as 8-bit RGB: transparency on white, 16 bits scaled to 8, the camera's rotation applied.

    Args:
        image: a path, a URL (also `file://...` and `data:image/...;base64,...`), or a PIL image.
        timeout: seconds to wait for a URL.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is no image, is broken, or has no pixels worth the name.
    """
    name = f"Image {os.fspath(image):.300}" if isinstance(image, (str, os.PathLike)) else "The image"
    if isinstance(image, str) and image.startswith("file://"):
        image = url2pathname(urlsplit(image).path)
    if isinstance(image, os.PathLike) or (isinstance(image, str) and not image.startswith(SCHEMES)):
        if not os.path.isfile(image):
            raise FileNotFoundError(f"{name} does not exist; give the path of a picture, a URL or a PIL image.")
        image = os.fspath(image)
    elif not isinstance(image, (str, Image.Image)):
        raise ValueError(f"Expected an image as a path, a URL or a PIL image, got {type(image).__name__}.")
    try:
        if isinstance(image, str):
            # A file is opened here: by `load_image` it would lose its mode on the way to RGB.
            image = Image.open(image) if os.path.isfile(image) else fetch_image(image, timeout)
        return to_rgb(ImageOps.exif_transpose(image))
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(
            f"{name} cannot be read ({reason}); give a whole picture file such as PNG or JPEG."
        ) from error


def fetch_image(url: str, timeout: float | None) -> Image.Image:
    """Fetch the picture of a URL; whatever the HTTP library of the day raises is a ValueError."""
    try:
        return load_image(url, timeout)
    except Exception as error:
        raise ValueError(f"fetching it failed: {error or type(error).__name__}") from error


def flatten(images: Any) -> list[Any]:
    """Makes a list of images of whatever holds them: one image, a stack of arrays, lists of one for each text.

    The last is how chats bring them.
    """
    if isinstance(images, (str, os.PathLike, Image.Image)) or (isinstance(images, ARRAYS) and images.ndim <= 3):
        return [images]
    images = list(images)
    for each in images:
        if isinstance(each, (list, tuple)) and len(each) != 1:
            raise ValueError(f"Expected one image per text, got {len(each)} for one text.")
    return [each[0] if isinstance(each, (list, tuple)) else each for each in images]


def to_rgb(image: Image.Image) -> Image.Image:
    """Converts any PIL mode to 8-bit RGB as a viewer shows it, and cuts extreme strips to their middle."""
    width, height = image.size
    if max(width, height) > MAX_ASPECT_RATIO * min(width, height):
        side = MAX_ASPECT_RATIO * min(width, height)
        left, top = max(0, (width - side) // 2), max(0, (height - side) // 2)
        image = image.crop((left, top, left + min(width, side), top + min(height, side)))
    if image.mode.startswith("I") or image.mode == "F":  # 16 bits and more: PIL would clip them, not scale
        values = np.asarray(image, dtype=np.float64)
        top_value = 65535.0 if image.mode.startswith("I") else max(values.max(), 1.0)
        image = Image.fromarray((values.clip(0, top_value) / top_value * 255).round().astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    return image.convert("RGB")


@brings_its_code("AutoProcessor")
class VLKDProcessor(ProcessorMixin):
    r"""
    Joins CLIP's image processor and BART's tokenizer, and knows VLKD's prompts (arXiv:2203.06386, section 4.3).

    Args:
        image_processor (`BaseImageProcessor`): CLIP's own.
        tokenizer (`PreTrainedTokenizerBase`): BART's own.
        num_caption_masks (`int`, *optional*, defaults to 6): masks in a caption prompt; more make it longer.
        num_question_masks (`int`, *optional*, defaults to 2): masks in a question prompt.

    The last two are saved with the checkpoint: they are how it wants to be asked.

    Example:

    ```python
    >>> from modeling_vlkd import VLKDProcessor

    >>> processor = VLKDProcessor.from_pretrained(checkpoint, num_caption_masks=6, num_question_masks=2)
    >>> processor.caption_prompts(1)
    ['A picture of<mask><mask><mask><mask><mask><mask>.']
    >>> processor.question_prompts(["what color is it?"])
    ['what color is it? Answer:<mask><mask>.']
    >>> processor.extract_answers(["what color is it? Answer: blue."])
    ['blue']

    ```
    """

    def __init__(
        self,
        image_processor=None,
        tokenizer=None,
        num_caption_masks: int = 6,
        num_question_masks: int = 2,
        **kwargs,
    ):
        super().__init__(image_processor, tokenizer, **kwargs)
        self.num_caption_masks = num_caption_masks
        self.num_question_masks = num_question_masks

    @classmethod
    def from_vision_text_pretrained(
        cls, vision_model_name_or_path: str | os.PathLike, text_model_name_or_path: str | os.PathLike, **kwargs: Any
    ) -> "VLKDProcessor":
        r"""
        Takes the image processor of a CLIP and the tokenizer of a BART, folders or Hub ids; the keyword arguments are
        those of the class.
        """
        tokenizer = AutoTokenizer.from_pretrained(text_model_name_or_path)
        if tokenizer.model_max_length > VERY_LONG:  # it does not know, but the model does
            tokenizer.model_max_length = AutoConfig.from_pretrained(text_model_name_or_path).max_position_embeddings
        return cls(AutoImageProcessor.from_pretrained(vision_model_name_or_path), tokenizer, **kwargs)

    def __call__(
        self,
        images: ImageInput | np.ndarray | Tensor | Sequence[ImageInput | np.ndarray | Tensor] | None = None,
        text: str | Sequence[str] | None = None,
        **kwargs: Any,
    ) -> BatchFeature:
        r"""
        Args:
            images (path, URL, `PIL.Image.Image`, array or tensor, or a list of them, *optional*): one for each text.
                Arrays and tensors, `(height, width, channels)` or channels first, also several in one more dimension,
                are taken as CLIP's own image processor takes them.
            text (`str` or `list[str]`, *optional*): padded to the longest unless `padding` says otherwise.
            kwargs: of the tokenizer (`return_tensors`, `padding`, `truncation`, `max_length`, ...) and of the image
                processor (`do_rescale`, `do_center_crop`, ...), flat or as `text_kwargs` and `images_kwargs`.

        Returns:
            [`~transformers.BatchFeature`]: `pixel_values` of shape `(batch, channels, height, width)`, `input_ids` and
            `attention_mask` of shape `(batch, length)`.

        Raises:
            TypeError: a keyword argument that neither tokenizer nor image processor has.
            ValueError: unequal numbers of images and texts, an unreadable image, an empty or overlong text.
        """
        if images is None and text is None:
            raise ValueError("Expected images, text or both, got neither.")
        kwargs = {name: value for name, value in kwargs.items() if value is not None}  # a chat has no videos
        self._refuse_unknown(kwargs)
        merged = self._merge_kwargs(ProcessingKwargs, **kwargs)
        return_tensors = merged["text_kwargs"].pop("return_tensors", None)
        data: dict[str, Any] = {}
        if images is not None:
            batch = flatten(images)
            if not batch:
                raise ValueError("Expected at least one image, got an empty list.")
            count = 1 if isinstance(text, str) else len(text) if text is not None else len(batch)
            if count != len(batch):
                raise ValueError(f"Expected one image per text, got {len(batch)} images and {count} texts.")
            if flat := [each for each in batch if isinstance(each, ARRAYS) and each.ndim != 3]:
                raise ValueError(f"Expected an image of (height, width, channels), got one of {tuple(flat[0].shape)}.")
            opened = [each if isinstance(each, ARRAYS) else open_image(each) for each in batch]
            data.update(self.image_processor(opened, **merged["images_kwargs"]))
        if text is not None:
            data.update(self._tokenize(text, **merged["text_kwargs"]))
        return BatchFeature(data, tensor_type=return_tensors)

    def _refuse_unknown(self, kwargs: dict[str, Any]):
        """Raise a TypeError at the first name that nothing here takes; transformers would leave it out."""
        known = set(ProcessingKwargs.__annotations__) | {"videos", "audio", "return_mm_token_type_ids"}
        known |= set(TextKwargs.__annotations__) | set(self.image_processor.valid_kwargs.__annotations__)
        for name in kwargs:
            if name not in known:
                similar = get_close_matches(name, known, n=1)
                hint = f"did you mean {similar[0]!r}?" if similar else "see its documentation."
                raise TypeError(f"{type(self).__name__} got an unexpected keyword argument {name!r}; {hint}")

    def apply_chat_template(self, conversation, chat_template: str | None = None, **kwargs: Any):
        r"""
        Turns a conversation into a question about its image: the text of the last message. Without text, the prompt
        asks for a caption. Keyword arguments and what is returned are those of transformers.
        """
        variables = {"caption": self.caption_prompts()[0], "question_end": self.question_prompts(["?"])[0][1:]}
        return super().apply_chat_template(conversation, chat_template or CHAT_TEMPLATE, **variables, **kwargs)

    def post_process_image_text_to_text(self, generated_outputs, skip_special_tokens: bool = True, **kwargs: Any):
        r"""
        Decodes what the model wrote: an answer or a caption without the prompt that it repeats, other text as it is.
        """
        texts = self.batch_decode(generated_outputs, skip_special_tokens=skip_special_tokens, **kwargs)
        for place, text in enumerate(texts):
            if ANSWER_MARK in text:
                [texts[place]] = self.extract_answers([text])
            elif text.strip().startswith(CAPTION_PREFIX):
                [texts[place]] = self.extract_captions([text])
        return texts

    def _tokenize(self, text: str | Sequence[str], **kwargs: Any) -> dict[str, Any]:
        texts = [text] if isinstance(text, str) else list(text)
        for position, each in enumerate(texts):
            if not isinstance(each, str) or not each.strip():
                raise ValueError(f"Text {position} is {each!r}; give a text that is not empty.")
        encoded = self.tokenizer(texts, **{"padding": True, **kwargs})
        self.refuse_overlong(encoded["input_ids"], "shorten it, or pass truncation=True")
        return encoded.data

    def refuse_overlong(self, input_ids: Sequence[Sequence[int]], remedy: str):
        """Raises a ValueError with the remedy if one of the texts is longer than the tokenizer says can be read."""
        longest, limit = max(map(len, input_ids), default=0), self.tokenizer.model_max_length
        if longest > limit:
            raise ValueError(f"A text has {longest} tokens, the model reads at most {limit}; {remedy}.")

    def caption_prompts(self, n: int = 1, num_masks: int | None = None) -> list[str]:
        r"""
        Makes `n` prompts that ask for a caption: `A picture of<mask>...<mask>.`

        Args:
            n (`int`, *optional*, defaults to 1): how many.
            num_masks (`int`, *optional*, defaults to `num_caption_masks`): each becomes one to three tokens.
        """
        return [CAPTION_PREFIX + self._masks(num_masks, self.num_caption_masks) + "."] * n

    def question_prompts(self, questions: Sequence[str], num_masks: int | None = None) -> list[str]:
        r"""
        Turns questions into prompts: `{question} Answer:<mask>...<mask>.`

        Args:
            questions (`list[str]`): any wording; surrounding spaces are dropped.
            num_masks (`int`, *optional*, defaults to `num_question_masks`): each becomes one to three tokens.

        Raises:
            ValueError: an empty question.
        """
        masks = self._masks(num_masks, self.num_question_masks)
        return [prefix + masks + "." for prefix in self.question_prefixes(questions)]

    def filled_captions(self, captions: Sequence[str]) -> list[str]:
        r"""
        Writes captions as their prompts are filled: `A picture of {caption}.` One that begins so already stays.
        """
        texts = [" ".join(caption.split()) for caption in captions]
        texts = [text if text.startswith(CAPTION_PREFIX) else f"{CAPTION_PREFIX} {text}" for text in texts]
        return [text if text.endswith((".", "!", "?")) else f"{text}." for text in texts]

    def filled_questions(self, questions: Sequence[str], answers: Sequence[str]) -> list[str]:
        r"""
        Writes answers as the prompts of their questions are filled: `{question} Answer: {answer}.`
        """
        return [f"{prefix} {answer.strip()}." for prefix, answer in zip(self.question_prefixes(questions), answers)]

    def question_prefixes(self, questions: Sequence[str]) -> list[str]:
        """Gives what each prompt says before its masks: `{question} Answer:`."""
        if isinstance(questions, str):
            raise ValueError(f"Expected a list of questions, got one string: pass [{questions!r}].")
        for position, question in enumerate(questions):
            if not isinstance(question, str) or not question.strip():
                raise ValueError(f"Question {position} is {question!r}; ask something.")
        return [f"{question.strip()} {ANSWER_MARK}" for question in questions]

    def _masks(self, num_masks: int | None, default: int) -> str:
        count = default if num_masks is None else num_masks
        if count < 1:
            raise ValueError(f"num_masks={count}: a prompt needs at least one mask to fill.")
        return self.tokenizer.mask_token * count

    def extract_answers(self, texts: Sequence[str]) -> list[str]:
        r"""
        Takes from each generated text what follows the last `Answer:`, without spaces around it and the final period.
        """
        return [text.rpartition(ANSWER_MARK)[2].strip().removesuffix(".").strip() for text in texts]

    def extract_captions(self, texts: Sequence[str]) -> list[str]:
        r"""
        Takes from each generated text what follows `A picture of`, if it is there, without the final period.
        """
        return [text.strip().removeprefix(CAPTION_PREFIX).strip().removesuffix(".").strip() for text in texts]


__all__ = ["VLKDProcessor"]
