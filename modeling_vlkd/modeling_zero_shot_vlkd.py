"""VLKD as a CLIP: images against texts, for `pipeline("zero-shot-image-classification")`."""

from torch import Tensor, nn
from transformers.models.clip.modeling_clip import CLIPOutput
from transformers.processing_utils import Unpack
from transformers.utils import TransformersKwargs, can_return_tuple

from .configuration_vlkd import VLKDConfig
from .hub_files_vlkd import brings_its_code
from .modeling_vlkd import NO_TEXT, VLKDModel, VLKDPreTrainedModel


@brings_its_code("AutoModelForZeroShotImageClassification")
class VLKDForZeroShotImageClassification(VLKDPreTrainedModel):
    r"""
    VLKD with the forward pass of a CLIP: it compares each image with each text. It has no weights of its own, so every
    VLKD checkpoint can be loaded as it.

    Example:

    ```python
    >>> from transformers import pipeline
    >>> import modeling_vlkd

    >>> classifier = pipeline("zero-shot-image-classification", model=checkpoint)
    >>> best = classifier(picture, candidate_labels=["red circle", "blue box"])[0]
    >>> sorted(best)
    ['label', 'score']

    ```
    """

    def __init__(self, config: VLKDConfig):
        super().__init__(config)
        self.model = VLKDModel(config)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        pixel_values: Tensor | None = None,
        image_embeds: Tensor | None = None,
        attention_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> tuple | CLIPOutput:
        r"""
        Compare images with texts. Their numbers need not be equal.

        Args:
            input_ids (`torch.LongTensor` of shape `(texts, length)`): tokens.
            pixel_values (`torch.FloatTensor` of shape `(images, channels, height, width)`): preprocessed images.
            image_embeds (`torch.FloatTensor` of shape `(images, rows, projection_dim)`, *optional*):
                Image rows V, from `get_image_rows`, instead of `pixel_values`.
            attention_mask (`torch.LongTensor` of shape `(texts, length)`, *optional*): 0 for padding.
            inputs_embeds (`torch.FloatTensor` of shape `(texts, length, d_model)`, *optional*):
                Instead of `input_ids`.

        Returns:
            [`~transformers.models.clip.modeling_clip.CLIPOutput`]: `logits_per_image` of shape `(images, texts)`, the
            cosine of each image and each text times the exponentiated `logit_scale`; `logits_per_text`, its transpose;
            and the normalized `image_embeds` and `text_embeds`.

        Raises:
            ValueError: images or texts are missing, or a text is too long.
        """
        rows = self.model.choose_image_rows(pixel_values, image_embeds)
        if rows is None:
            raise ValueError("Expected pixel_values or image_embeds: the images that the texts are compared with.")
        if input_ids is None and inputs_embeds is None:
            raise ValueError(NO_TEXT)
        sentence = self.model.get_text_features(
            input_ids, attention_mask, inputs_embeds, return_dict=True, **kwargs
        ).pooler_output
        text_embeds = nn.functional.normalize(sentence, dim=-1)  # (texts, projection_dim)
        image_embeds = nn.functional.normalize(rows[:, 0], dim=-1)  # (images, projection_dim)
        logits_per_text = self.model.logit_scale.exp() * text_embeds @ image_embeds.T  # (texts, images)
        return CLIPOutput(
            logits_per_image=logits_per_text.T,
            logits_per_text=logits_per_text,
            text_embeds=text_embeds,
            image_embeds=image_embeds,
        )


__all__ = ["VLKDForZeroShotImageClassification"]
