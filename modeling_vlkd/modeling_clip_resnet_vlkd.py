"""CLIP's ResNet vision towers (RN50, RN101, RN50x4, RN50x16, RN50x64) as a transformers model.

Architecture: arXiv:2103.00020, section 2.4, and `clip/model.py` of github.com/openai/CLIP. Differences from a plain
ResNet: a stem of three convolutions, average pooling before every strided convolution, and attention pooling.
"""

from dataclasses import dataclass

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers import initialization as init
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.models.clip.modeling_clip import CLIPAttention
from transformers.processing_utils import Unpack
from transformers.utils import ModelOutput, TransformersKwargs
from transformers.utils.generic import merge_with_config_defaults
from transformers.utils.output_capturing import capture_outputs

from .configuration_clip_resnet_vlkd import CLIPResNetVisionConfig


@dataclass
class CLIPResNetVisionModelOutput(ModelOutput):
    r"""
    image_embeds (`torch.Tensor` of shape `(batch_size, projection_dim)`):
        CLIP's image embedding, not normalized: row 0 of `last_hidden_state`.
    last_hidden_state (`torch.Tensor` of shape `(batch_size, 1 + height * width, projection_dim)`):
        All rows of the attention pool in CLIP's joint space: the pooled image, then one row for each position.
    pooler_output (`torch.Tensor` of shape `(batch_size, projection_dim)`):
        The same as `image_embeds`, under the name that other towers use.
    hidden_states (`tuple[torch.Tensor]`, *optional*, returned when `output_hidden_states=True`):
        Five feature maps `(batch_size, channels, height, width)`: one of the stem and one of each stage.
    attentions (`tuple[torch.Tensor]`, *optional*, returned when `output_attentions=True`):
        The attention pool's weights `(batch_size, heads, rows, rows)`.
    """

    image_embeds: torch.Tensor | None = None
    last_hidden_state: torch.Tensor | None = None
    pooler_output: torch.Tensor | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None


class CLIPResNetConvLayer(nn.Module):
    """Convolution without bias, batch norm and, unless switched off, ReLU."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int = 1, stride: int = 1, relu: bool = True):
        super().__init__()
        padding = kernel_size // 2
        self.convolution = nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding, bias=False)
        self.normalization = nn.BatchNorm2d(out_channels)
        self.activation = nn.ReLU() if relu else nn.Identity()

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return self.activation(self.normalization(self.convolution(hidden_states)))


class CLIPResNetEmbeddings(nn.Module):
    """The stem: three convolutions and an average pool; its output has a quarter of the resolution."""

    def __init__(self, config: CLIPResNetVisionConfig):
        super().__init__()
        half = config.width // 2
        self.layers = nn.Sequential(
            CLIPResNetConvLayer(config.num_channels, half, kernel_size=3, stride=2),
            CLIPResNetConvLayer(half, half, kernel_size=3),
            CLIPResNetConvLayer(half, config.width, kernel_size=3),
        )
        self.pooling = nn.AvgPool2d(2)

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        pixel_values = pixel_values.to(next(self.layers.parameters()).dtype)  # as the ViT towers do
        return self.pooling(self.layers(pixel_values))  # (batch, 3, h, w) -> (batch, width, h/4, w/4)


class CLIPResNetBottleneckLayer(GradientCheckpointingLayer):
    """Convolutions 1x1, 3x3 and 1x1 with a shortcut; average pooling downsamples, never a strided convolution."""

    def __init__(self, in_channels: int, channels: int, stride: int):
        super().__init__()
        out_channels = 4 * channels
        self.layers = nn.Sequential(
            CLIPResNetConvLayer(in_channels, channels),
            CLIPResNetConvLayer(channels, channels, kernel_size=3),
            nn.AvgPool2d(stride) if stride > 1 else nn.Identity(),
            CLIPResNetConvLayer(channels, out_channels, relu=False),
        )
        self.shortcut: nn.Module = nn.Identity()
        if stride > 1 or in_channels != out_channels:
            self.shortcut = nn.Sequential(
                nn.AvgPool2d(stride), CLIPResNetConvLayer(in_channels, out_channels, relu=False)
            )
        self.activation = nn.ReLU()

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return self.activation(self.layers(hidden_states) + self.shortcut(hidden_states))


class CLIPResNetStage(nn.Module):
    """Bottleneck layers of one width; the first one downsamples by `stride`."""

    def __init__(self, in_channels: int, channels: int, depth: int, stride: int):
        super().__init__()
        rest = [CLIPResNetBottleneckLayer(4 * channels, channels, stride=1) for _ in range(depth - 1)]
        self.layers = nn.ModuleList([CLIPResNetBottleneckLayer(in_channels, channels, stride), *rest])

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            hidden_states = layer(hidden_states)
        return hidden_states


class CLIPResNetPooler(nn.Module):
    """Self-attention over the feature map and its mean, projected into CLIP's joint space.

    CLIP computes only the row of the mean. Here every row is a query, because VLKD reads all rows (arXiv:2203.06386,
    section 3.1). Attention computes each row without the outputs of the others, so the first row is still CLIP's.
    """

    def __init__(self, config: CLIPResNetVisionConfig):
        super().__init__()
        self.position_embedding = nn.Parameter(torch.empty(config.num_rows, config.hidden_size))
        self.attention = CLIPAttention(config)
        self.attention.out_proj = nn.Linear(config.hidden_size, config.projection_dim)

    def forward(self, hidden_states: torch.Tensor, **kwargs: Unpack[TransformersKwargs]) -> torch.Tensor:
        hidden_states = hidden_states.flatten(2).transpose(1, 2)  # (batch, channels, h, w) -> (batch, h*w, channels)
        hidden_states = torch.cat([hidden_states.mean(dim=1, keepdim=True), hidden_states], dim=1)
        hidden_states, _ = self.attention(hidden_states + self.position_embedding, **kwargs)
        return hidden_states  # (batch, 1 + h*w, projection_dim)


class CLIPResNetVisionModelWithProjection(PreTrainedModel):
    """CLIP's ResNet vision tower; its output holds all rows of the attention pool in CLIP's joint space."""

    config: CLIPResNetVisionConfig
    config_class = CLIPResNetVisionConfig
    base_model_prefix = "clip_resnet"
    main_input_name = "pixel_values"
    input_modalities = ("image",)
    supports_gradient_checkpointing = True
    _no_split_modules = ["CLIPResNetBottleneckLayer", "CLIPResNetPooler"]
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    _can_record_outputs = {"hidden_states": CLIPResNetStage, "attentions": CLIPAttention}

    def __init__(self, config: CLIPResNetVisionConfig):
        super().__init__(config)
        self.embeddings = CLIPResNetEmbeddings(config)
        in_channels, self.stages = config.width, nn.ModuleList()
        for index, depth in enumerate(config.layers):
            channels = config.width * 2**index
            self.stages.append(CLIPResNetStage(in_channels, channels, depth, stride=1 if index == 0 else 2))
            in_channels = 4 * channels
        self.attention_pool = CLIPResNetPooler(config)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        return self.embeddings

    @torch.no_grad()
    def _init_weights(self, module: nn.Module):
        """Initialize as CLIP does, except that no batch norm starts at zero: a zero would switch a whole block off."""
        super()._init_weights(module)
        if isinstance(module, nn.Conv2d):
            init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(module, CLIPResNetPooler):
            std = module.position_embedding.shape[-1] ** -0.5
            init.normal_(module.position_embedding, std=std)
            for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
                init.normal_(getattr(module.attention, name).weight, std=std)

    @merge_with_config_defaults
    @capture_outputs(tie_last_hidden_states=False)
    def forward(
        self, pixel_values: torch.Tensor, **kwargs: Unpack[TransformersKwargs]
    ) -> CLIPResNetVisionModelOutput | tuple:
        r"""
        Compute the rows of the attention pool in CLIP's joint space.

        pixel_values (`torch.Tensor` of shape `(batch_size, num_channels, image_size, image_size)`):
            Normalized pixels. The attention pool's positions are learned for one size, so any other is refused.
        """
        size = (self.config.num_channels, self.config.image_size, self.config.image_size)
        if tuple(pixel_values.shape[1:]) != size:
            raise ValueError(
                f"Expected pixel_values of shape (batch, {size[0]}, {size[1]}, {size[2]}), got "
                f"{tuple(pixel_values.shape)}; resize with the checkpoint's own image processor."
            )
        hidden_states = self.embeddings(pixel_values)
        for stage in self.stages:
            hidden_states = stage(hidden_states)
        rows = self.attention_pool(hidden_states, **kwargs)
        return CLIPResNetVisionModelOutput(image_embeds=rows[:, 0], last_hidden_state=rows, pooler_output=rows[:, 0])


__all__ = ["CLIPResNetVisionModelOutput", "CLIPResNetVisionModelWithProjection"]
