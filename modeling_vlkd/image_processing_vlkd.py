"""CLIP's preprocessing, pixel for pixel as CLIP's own code does it."""

import numpy as np
from transformers.image_utils import SizeDict
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from .hub_files_vlkd import brings_its_code


@brings_its_code("AutoImageProcessor")
class VLKDImageProcessor(CLIPImageProcessorPil):
    r"""
    Preprocesses pictures exactly as OpenAI's CLIP and open_clip do (`_transform` in `clip/clip.py` of
    github.com/openai/CLIP): Pillow resizes, and the crop's corner is rounded half to even, as in torchvision's
    `CenterCrop`. transformers differs in two ways: it rounds the corner down, which shifts one picture in four by a
    pixel, and where torchvision is installed it resizes with that, which changes pixels by one or two gray levels.
    """

    def center_crop(self, image: np.ndarray, size: SizeDict, **kwargs) -> np.ndarray:
        r"""
        Crop the middle of `image`, `(channels, height, width)`, or pad an image that is smaller than the crop.
        """
        height, width = image.shape[-2:]
        if height < size.height or width < size.width:
            return super().center_crop(image, size, **kwargs)
        top, left = round((height - size.height) / 2), round((width - size.width) / 2)
        return image[..., top : top + size.height, left : left + size.width]


__all__ = ["VLKDImageProcessor"]
