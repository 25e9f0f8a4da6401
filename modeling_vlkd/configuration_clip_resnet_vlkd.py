"""Configuration of CLIP's ResNet vision towers."""

from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig


@strict
class CLIPResNetVisionConfig(PreTrainedConfig):
    r"""
    Configuration of [`CLIPResNetVisionModelWithProjection`], the "modified ResNet" of CLIP (arXiv:2103.00020,
    section 2.4). The defaults are RN50's.

    layers (`tuple[int, int, int, int]`, *optional*, defaults to `(3, 4, 6, 3)`):
        Bottleneck blocks in each of the four stages.
    width (`int`, *optional*, defaults to 64):
        Channels after the stem; stage `i` ends with `4 * 2**i * width` channels.
    num_attention_heads (`int`, *optional*, defaults to 32):
        Heads of the attention pool. CLIP's own towers have one for every 64 channels.
    projection_dim (`int`, *optional*, defaults to 1024):
        Size of CLIP's joint space; the output projection of the attention pool maps into it.
    """

    model_type = "clip_resnet_vision_model"
    base_config_key = "vision_config"

    layers: tuple[int, ...] | list[int] = (3, 4, 6, 3)
    width: int = 64
    num_attention_heads: int = 32
    image_size: int = 224
    num_channels: int = 3
    projection_dim: int = 1024
    attention_dropout: float = 0.0

    def __post_init__(self, **kwargs):
        self.layers = tuple(self.layers)  # JSON gives a list
        super().__post_init__(**kwargs)

    @property
    def hidden_size(self) -> int:
        """Return the number of channels of the last feature map, which is the width of the attention pool."""
        return self.width * 32

    @property
    def num_rows(self) -> int:
        """Return the number of rows of the attention pool: the last feature map's mean, and each of its positions."""
        return 1 + (self.image_size // 32) ** 2

    def validate_architecture(self):
        """Check that the sizes fit together; `@strict` calls every method that is named `validate_...`."""
        if len(self.layers) != 4 or min(self.layers) < 1:
            raise ValueError(f"Expected four stages of at least one block each, got layers={self.layers}.")
        if self.hidden_size % self.num_attention_heads:
            raise ValueError(
                f"num_attention_heads={self.num_attention_heads} does not divide the {self.hidden_size} channels of "
                "the last feature map (32 * width)."
            )
        if self.image_size < 32 or self.image_size % 32:
            raise ValueError(f"image_size={self.image_size} is not a multiple of 32, the stride of the tower.")


__all__ = ["CLIPResNetVisionConfig"]
