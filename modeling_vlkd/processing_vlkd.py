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
# The image processor scales the short side to CLIP's size and then crops the central square. The long side of an
# extreme strip would become so long that it fills the memory. So a strip whose long side is more than 64 times its
# short side is cut to its middle first. No pixel of the central square changes.
MAX_ASPECT_RATIO = 64
VERY_LONG = 1_000_000  # tokens; a tokenizer without a limit has a `model_max_length` of 1e30
SCHEMES = ("http://", "https://", "data:image/")  # a string that begins so is no path
# For chat programs: the text of the last message is the question; if it has no text, the prompt asks for a caption.
# The model was not trained on conversations, so the texts of earlier messages are ignored; their images are used.
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
    """Open an image as 8-bit RGB: transparency on white, 16 bits scaled to 8, the camera's rotation applied.

    Args:
        image: a path, a URL (also `file://...` and `data:image/...;base64,...`), or a PIL image.
        timeout: seconds to wait for a URL.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is no image or is damaged, or the URL cannot be fetched.
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
            # `load_image` would convert a file to RGB without regard to 16 bits or transparency.
            image = Image.open(image) if os.path.isfile(image) else fetch_image(image, timeout)
        return to_rgb(ImageOps.exif_transpose(image))
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(
            f"{name} cannot be read ({reason}); give a whole picture file such as PNG or JPEG."
        ) from error


def fetch_image(url: str, timeout: float | None) -> Image.Image:
    """Fetch the picture of a URL; any error of the HTTP library becomes a ValueError."""
    try:
        return load_image(url, timeout)
    except Exception as error:
        raise ValueError(f"fetching it failed: {error or type(error).__name__}") from error


def flatten(images: Any) -> list[Any]:
    """Make a list of images from one image, a list of images, a stack of arrays, or a list of lists of one image.

    Chat templates pass lists of one image, one list for each text.
    """
    if isinstance(images, (str, os.PathLike, Image.Image)) or (isinstance(images, ARRAYS) and images.ndim <= 3):
        return [images]
    images = list(images)
    for each in images:
        if isinstance(each, (list, tuple)) and len(each) != 1:
            raise ValueError(f"Expected one image per text, got {len(each)} for one text.")
    return [each[0] if isinstance(each, (list, tuple)) else each for each in images]


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert any PIL mode to 8-bit RGB as a viewer shows it, and cut extreme strips to their middle."""
    width, height = image.size
    if max(width, height) > MAX_ASPECT_RATIO * min(width, height):
        side = MAX_ASPECT_RATIO * min(width, height)
        left, top = max(0, (width - side) // 2), max(0, (height - side) // 2)
        image = image.crop((left, top, left + min(width, side), top + min(height, side)))
    if (
        image.mode.startswith("I") or image.mode == "F"
    ):  # 16 bits and more: PIL would clip the values at 255, not scale them
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
        num_caption_masks (`int`, *optional*, defaults to 6): masks in a caption prompt; more give longer captions.
        num_question_masks (`int`, *optional*, defaults to 2): masks in a question prompt.

    The last two are saved with the checkpoint, because each checkpoint works best with its own numbers of masks.

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
        Load the image processor of a CLIP and the tokenizer of a BART, from folders or Hub ids. The keyword arguments
        are those of the class.
        """
        tokenizer = AutoTokenizer.from_pretrained(text_model_name_or_path)
        if tokenizer.model_max_length > VERY_LONG:  # no limit: take the model's
            tokenizer.model_max_length = AutoConfig.from_pretrained(text_model_name_or_path).max_position_embeddings
        return cls(AutoImageProcessor.from_pretrained(vision_model_name_or_path), tokenizer, **kwargs)

    def __call__(
        self,
        images: ImageInput | np.ndarray | Tensor | Sequence[ImageInput | np.ndarray | Tensor] | None = None,
        text: str | Sequence[str] | None = None,
        **kwargs: Any,
    ) -> BatchFeature:
        r"""
        Prepare images, texts or both for the model.

        Args:
            images (path, URL, `PIL.Image.Image`, array or tensor, or a list of them, *optional*): one for each text.
                Arrays and tensors are `(height, width, channels)` or `(channels, height, width)`, or a stack of such
                images in a further first dimension. CLIP's image processor treats them as it always does.
            text (`str` or `list[str]`, *optional*): padded to the longest unless `padding` says otherwise.
            kwargs: of the tokenizer (`return_tensors`, `padding`, `truncation`, `max_length`, ...) and of the image
                processor (`do_rescale`, `do_center_crop`, ...), given directly or in `text_kwargs` and
                `images_kwargs`.

        Returns:
            [`~transformers.BatchFeature`]: `pixel_values` of shape `(batch, channels, height, width)`, `input_ids` and
            `attention_mask` of shape `(batch, length)`.

        Raises:
            TypeError: a keyword argument that neither the tokenizer nor the image processor has.
            ValueError: unequal numbers of images and texts, an unreadable image, an empty or overlong text.
        """
        if images is None and text is None:
            raise ValueError("Expected images, text or both, got neither.")
        kwargs = {name: value for name, value in kwargs.items() if value is not None}  # chats pass `videos=None`
        self._refuse_unknown(kwargs)
        merged = self._merge_kwargs(ProcessingKwargs, **kwargs)
        return_tensors = merged["text_kwargs"].pop("return_tensors", None)
        data: dict[str, Any] = {}
        if images is not None:
            batch = flatten(images)
            if not batch:
                raise ValueError("Expected at least one image, got an empty list.")
            if text is not None:
                count = 1 if isinstance(text, str) else len(text)
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
        """Raise a TypeError for the first unknown keyword argument, which transformers would ignore."""
        known = set(ProcessingKwargs.__annotations__) | {"videos", "audio", "return_mm_token_type_ids"}
        known |= set(TextKwargs.__annotations__) | set(self.image_processor.valid_kwargs.__annotations__)
        for name in kwargs:
            if name not in known:
                similar = get_close_matches(name, known, n=1)
                hint = f"did you mean {similar[0]!r}?" if similar else "see its documentation."
                raise TypeError(f"{type(self).__name__} got an unexpected keyword argument {name!r}; {hint}")

    def apply_chat_template(self, conversation, chat_template: str | None = None, **kwargs: Any):
        r"""
        Turn a conversation into a prompt about its image: the text of the last message is the question. Without text,
        the prompt asks for a caption. The keyword arguments and the result are those of transformers.
        """
        variables = {"caption": self.caption_prompts()[0], "question_end": self.question_prompts(["?"])[0][1:]}
        return super().apply_chat_template(conversation, chat_template or CHAT_TEMPLATE, **variables, **kwargs)

    def post_process_image_text_to_text(self, generated_outputs, skip_special_tokens: bool = True, **kwargs: Any):
        r"""
        Decode generated tokens. From answers and captions, the repeated prompt is removed; other texts stay unchanged.
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
        """Raise a ValueError that names the remedy if a text is longer than the tokenizer's `model_max_length`."""
        longest, limit = max(map(len, input_ids), default=0), self.tokenizer.model_max_length
        if longest > limit:
            raise ValueError(f"A text has {longest} tokens, the model reads at most {limit}; {remedy}.")

    def caption_prompts(self, n: int = 1, num_masks: int | None = None) -> list[str]:
        r"""
        Make `n` prompts that ask for a caption: `A picture of<mask>...<mask>.`

        Args:
            n (`int`, *optional*, defaults to 1): how many.
            num_masks (`int`, *optional*, defaults to `num_caption_masks`): each becomes one to three tokens.
        """
        return [CAPTION_PREFIX + self._masks(num_masks, self.num_caption_masks) + "."] * n

    def question_prompts(self, questions: Sequence[str], num_masks: int | None = None) -> list[str]:
        r"""
        Turn questions into prompts: `{question} Answer:<mask>...<mask>.`

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
        Write captions as filled prompts: `A picture of {caption}.` A caption that already begins so gets no second
        beginning.
        """
        texts = [" ".join(caption.split()) for caption in captions]
        texts = [text if text.startswith(CAPTION_PREFIX) else f"{CAPTION_PREFIX} {text}" for text in texts]
        return [text if text.endswith((".", "!", "?")) else f"{text}." for text in texts]

    def filled_questions(self, questions: Sequence[str], answers: Sequence[str]) -> list[str]:
        r"""
        Write questions and answers as filled prompts: `{question} Answer: {answer}.`
        """
        return [f"{prefix} {answer.strip()}." for prefix, answer in zip(self.question_prefixes(questions), answers)]

    def question_prefixes(self, questions: Sequence[str]) -> list[str]:
        """Return the part of each prompt before its masks: `{question} Answer:`."""
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
        Return the part of each generated text after the last `Answer:`, without outer spaces and the final period.
        """
        return [text.rpartition(ANSWER_MARK)[2].strip().removesuffix(".").strip() for text in texts]

    def extract_captions(self, texts: Sequence[str]) -> list[str]:
        r"""
        Return each generated text without `A picture of` at its beginning, outer spaces and the final period.
        """
        return [text.strip().removeprefix(CAPTION_PREFIX).strip().removesuffix(".").strip() for text in texts]


__all__ = ["VLKDProcessor"]
