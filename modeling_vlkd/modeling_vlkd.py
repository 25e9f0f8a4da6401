"""VLKD (arXiv:2203.06386): a frozen CLIP vision tower speaks through a BART.

Comments use the notation of the paper: `V` are the image rows in CLIP's joint space, `E` the BART encoder states, and
`W_e` (`text_projection`), `W'_e` (`text_to_decoder`) and `W_i` (`image_to_decoder`) the three matrices without bias.
The BART decoder attends to `C = [W_i V ; W'_e W_e E]`, eq. (1), which is called the memory here.
"""

import os
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    Cache,
    GenerationConfig,
    GenerationMixin,
    PreTrainedModel,
)
from transformers import initialization as init
from transformers.modeling_outputs import (
    BaseModelOutput,
    BaseModelOutputWithPooling,
    ModelOutput,
    Seq2SeqLMOutput,
    Seq2SeqModelOutput,
    Seq2SeqSequenceClassifierOutput,
)
from transformers.models.bart.modeling_bart import BartClassificationHead, shift_tokens_right
from transformers.processing_utils import Unpack
from transformers.utils import TransformersKwargs, can_return_tuple
from transformers.utils.deprecation import deprecate_kwarg

from .configuration_vlkd import VLKDConfig
from .hub_files_vlkd import brings_its_code
from .known_prefix_vlkd import default_generation_config, join_rows, known_prefixes, take_rows
from .memory_vlkd import attach_unused, build_memory, cover_image_rows, mask_of_text, pool_sentence
from .towers_vlkd import (
    LANGUAGE_MODELS,
    find_mask_token_id,
    load_language_model,
    load_vision_tower,
    vision_tower_of,
)


NO_TEXT = (
    "Expected input_ids (or inputs_embeds) beside the image: a question, or a prompt to fill such as "
    "`processor.caption_prompts()` gives it."
)


@dataclass
class VLKDModelOutput(Seq2SeqModelOutput):
    r"""
    A BART output (`encoder_last_hidden_state` is the memory C) and, when `clean_input_ids` is given:

    image_embeds (`torch.FloatTensor` of shape `(batch, projection_dim)`): row 0 of V, L2-normalized.
    text_embeds (`torch.FloatTensor` of shape `(batch, projection_dim)`): the sentence in CLIP's space, L2-normalized.
    logit_scale (`torch.FloatTensor`, scalar): inverse temperature, exponentiated.
    """

    image_embeds: torch.FloatTensor | None = None
    text_embeds: torch.FloatTensor | None = None
    logit_scale: torch.FloatTensor | None = None


@dataclass
class VLKDSeq2SeqLMOutput(Seq2SeqLMOutput):
    r"""
    A BART language modeling output and the three extra fields of [`VLKDModelOutput`].
    """

    image_embeds: torch.FloatTensor | None = None
    text_embeds: torch.FloatTensor | None = None
    logit_scale: torch.FloatTensor | None = None


class VLKDPreTrainedModel(PreTrainedModel):
    config: VLKDConfig
    config_class = VLKDConfig
    base_model_prefix = "model"
    main_input_name = "input_ids"
    input_modalities = ("image", "text")
    supports_gradient_checkpointing = True
    _skip_keys_device_placement = ["cache"]
    # Of the generating model, when its weights are loaded with another head.
    _keys_to_ignore_on_load_unexpected = ["final_logits_bias"]
    _supports_flash_attn = True
    _supports_sdpa = True
    _supports_flex_attn = True
    _can_compile_fullgraph = True

    @torch.no_grad()
    def _init_weights(self, module: nn.Module):
        super()._init_weights(module)
        if isinstance(module, VLKDModel):
            init.orthogonal_(module.text_projection.weight)
            # W'_e starts as the pseudo-inverse of W_e (section 3.2.3), and so does W_i.
            inverse = torch.linalg.pinv(module.text_projection.weight.float())
            init.copy_(module.text_to_decoder.weight, inverse)
            init.copy_(module.image_to_decoder.weight, inverse)
            init.constant_(module.logit_scale, self.config.logit_scale_init_value)

    def get_input_embeddings(self) -> nn.Module:
        return self.base_model.language_model.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module):
        self.base_model.language_model.set_input_embeddings(value)

    def get_encoder(self, modality: str | None = None):
        if modality is None:
            return self.base_model.language_model.get_encoder()
        return super().get_encoder(modality=modality)

    def get_decoder(self):
        return self.base_model.language_model.get_decoder()

    def get_image_features(self, pixel_values: Tensor, **kwargs) -> tuple | BaseModelOutputWithPooling:
        r"""
        Embed images in CLIP's joint space. See [`VLKDModel.get_image_features`].
        """
        return self.base_model.get_image_features(pixel_values=pixel_values, **kwargs)

    def get_text_features(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, **kwargs
    ) -> tuple | BaseModelOutputWithPooling:
        r"""
        Embed texts in CLIP's joint space. See [`VLKDModel.get_text_features`].
        """
        return self.base_model.get_text_features(input_ids=input_ids, attention_mask=attention_mask, **kwargs)

    def get_image_rows(self, pixel_values: Tensor, **kwargs) -> Tensor:
        r"""
        Compute the image rows V once, to be passed as `image_embeds`. See [`VLKDModel.get_image_rows`].
        """
        return self.base_model.get_image_rows(pixel_values=pixel_values, **kwargs)

    @classmethod
    def from_vision_text_pretrained(
        cls,
        vision_model_name_or_path: str | os.PathLike,
        text_model_name_or_path: str | os.PathLike,
        dtype: torch.dtype = torch.float32,
        **config_kwargs: Any,
    ) -> "VLKDPreTrainedModel":
        r"""
        Assemble a model from a pretrained CLIP and a pretrained BART.

        `W_e` is new and orthogonal; `W'_e` and `W_i` are its pseudo-inverse. The generation config is
        [`default_generation_config`].

        Args:
            vision_model_name_or_path (`str`):
                Folder or Hub id of a CLIP in transformers format; its text tower is not used.
            text_model_name_or_path (`str`):
                Folder or Hub id of a BART, or an mBART-50, in transformers format.
            dtype (`torch.dtype`, *optional*, defaults to `torch.float32`):
                Type of all weights.
            config_kwargs:
                Fields of [`VLKDConfig`].

        Raises:
            ValueError: one of the two is a model of another kind, or lacks weights.
        """
        vision_tower = load_vision_tower(vision_model_name_or_path, dtype)
        text_model = load_language_model(text_model_name_or_path, dtype)
        config = cls.config_class(vision_config=vision_tower.config, text_config=text_model.config, **config_kwargs)
        # The meta device allocates nothing. The two loaded towers replace theirs; then only the new parts get memory.
        with torch.device("meta"):
            model = cls(config)
        model.base_model.vision_tower = vision_tower
        model.base_model.language_model = text_model.model
        for module in reversed(list(model.modules())):  # children first, as in `initialize_weights`
            if any(tensor.is_meta for tensor in [*module.parameters(recurse=False), *module.buffers(recurse=False)]):
                module.to_empty(device="cpu", recurse=False).to(dtype)
                model._init_weights(module)
        model.tie_weights()
        model.base_model.freeze_vision_tower()
        if model.can_generate():
            model.final_logits_bias.copy_(text_model.final_logits_bias)
            mask_token_id = find_mask_token_id(text_model_name_or_path)
            model.generation_config = default_generation_config(text_model.config, mask_token_id)
        return model.eval()


@brings_its_code("AutoModel")
class VLKDModel(VLKDPreTrainedModel):
    r"""
    A CLIP vision tower with its projection, a BART, and `W_e`, `W'_e` and `W_i` between them, without a head.

    Args:
        config ([`VLKDConfig`]): sizes of all parts.
    """

    def __init__(self, config: VLKDConfig):
        super().__init__(config)
        width, dim = config.text_config.d_model, config.projection_dim
        self.vision_tower = vision_tower_of(config.vision_config.model_type).model_class._from_config(
            config.vision_config
        )
        self.language_model = LANGUAGE_MODELS[config.text_config.model_type].model_class._from_config(
            config.text_config
        )
        self.text_projection = nn.Linear(width, dim, bias=False)  # W_e
        self.text_to_decoder = nn.Linear(dim, width, bias=False)  # W'_e
        self.image_to_decoder = nn.Linear(dim, width, bias=False)  # W_i
        self.logit_scale = nn.Parameter(torch.tensor(config.logit_scale_init_value))
        self.post_init()
        self.freeze_vision_tower()

    def freeze_vision_tower(self):
        """Freeze CLIP if the configuration says so: no gradients, no dropout, fixed statistics of batch norm."""
        if self.config.freeze_vision_tower:
            self.vision_tower.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> "VLKDModel":
        super().train(mode)
        # `from_pretrained` puts in new parameters, which are not frozen, and then calls eval(), which calls this.
        self.freeze_vision_tower()
        return self

    @can_return_tuple
    def get_image_features(
        self, pixel_values: Tensor, **kwargs: Unpack[TransformersKwargs]
    ) -> tuple | BaseModelOutputWithPooling:
        r"""
        Embed images in CLIP's joint space.

        Args:
            pixel_values (`torch.FloatTensor` of shape `(batch, channels, height, width)`): preprocessed images.

        Returns:
            [`~transformers.modeling_outputs.BaseModelOutputWithPooling`]: `pooler_output` of shape
            `(batch, projection_dim)` equals CLIP's own image embedding, not normalized; the other fields are the
            vision tower's.
        """
        output = self.vision_tower(pixel_values=pixel_values, return_dict=True, **kwargs)
        return BaseModelOutputWithPooling(
            last_hidden_state=output.last_hidden_state,
            pooler_output=self._rows_of(output)[:, 0],
            hidden_states=output.get("hidden_states"),
            attentions=output.get("attentions"),
        )

    def get_image_rows(self, pixel_values: Tensor, **kwargs: Unpack[TransformersKwargs]) -> Tensor:
        r"""
        Compute the image rows V in CLIP's joint space. They can be passed as `image_embeds` instead of `pixel_values`,
        so that one vision pass serves many questions.

        Args:
            pixel_values (`torch.FloatTensor` of shape `(batch, channels, height, width)`): preprocessed images.

        Returns:
            `torch.FloatTensor` of shape `(batch, rows, projection_dim)`: one row for a ViT, all rows of the attention
            pool for a ResNet; row 0 is CLIP's image embedding.
        """
        return self._rows_of(self.vision_tower(pixel_values=pixel_values, return_dict=True, **kwargs))

    def choose_image_rows(self, pixel_values: Tensor | None, image_embeds: Tensor | None) -> Tensor | None:
        """Return the image rows V, `(batch, rows, projection_dim)`: given, or computed; None without an image."""
        if pixel_values is None:
            return image_embeds
        if image_embeds is not None:
            raise ValueError(
                "Got pixel_values and image_embeds: give one, since the rows are computed from the pixels."
            )
        return self.get_image_rows(pixel_values)

    def _rows_of(self, tower_output: ModelOutput) -> Tensor:
        return vision_tower_of(self.config.vision_config.model_type).rows(tower_output)

    @can_return_tuple
    def get_text_features(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> tuple | BaseModelOutputWithPooling:
        r"""
        Embed texts in CLIP's joint space with BART's encoder.

        Args:
            input_ids (`torch.LongTensor` of shape `(batch, length)`): tokens.
            attention_mask (`torch.LongTensor` of shape `(batch, length)`, *optional*): 0 for padding.
            inputs_embeds (`torch.FloatTensor` of shape `(batch, length, d_model)`, *optional*):
                Instead of `input_ids`.

        Returns:
            [`~transformers.modeling_outputs.BaseModelOutputWithPooling`]: `pooler_output` of shape
            `(batch, projection_dim)` is the sentence, not normalized; the other fields are the BART encoder's.
        """
        self.refuse_overlong(input_ids if input_ids is not None else inputs_embeds, "text to read")
        output = self.language_model.encoder(
            input_ids=input_ids, attention_mask=attention_mask, inputs_embeds=inputs_embeds, **kwargs
        )
        sentence = pool_sentence(output.last_hidden_state, attention_mask, self.config.text_pooling)
        return BaseModelOutputWithPooling(
            last_hidden_state=output.last_hidden_state,
            pooler_output=self.text_projection(sentence),
            hidden_states=output.hidden_states,
            attentions=output.attentions,
        )

    def refuse_overlong(self, text: Tensor, name: str):
        """Refuse a text, `(batch, length, ...)`, that is longer than BART has positions."""
        limit = self.config.text_config.max_position_embeddings
        # Not while compiling or exporting: there the length may be a symbol, which a comparison would restrict.
        if not torch.compiler.is_compiling() and text.shape[1] > limit:
            raise ValueError(f"A {name} has {text.shape[1]} tokens, but the model has {limit} positions; shorten it.")

    def build_memory(self, text_states: Tensor, image_embeds: Tensor | None = None) -> Tensor:
        r"""
        Join image rows and text states into what the decoder attends to, C of eq. (1).

        Args:
            text_states (`torch.FloatTensor` of shape `(batch, length, d_model)`): BART encoder states E.
            image_embeds (`torch.FloatTensor` of shape `(batch, rows, projection_dim)`, *optional*): image rows V.

        Returns:
            `torch.FloatTensor` of shape `(batch, rows + length, d_model)`.
        """
        if image_embeds is None and not self.config.bridge_text_only:
            return text_states

        def bridge_text(states: Tensor) -> Tensor:
            return self.text_to_decoder(self.text_projection(states))  # through CLIP's space

        return build_memory(text_states, image_embeds, bridge_text, self.image_to_decoder, self.config.projection_dim)

    def encode(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        pixel_values: Tensor | None = None,
        image_embeds: Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> tuple[BaseModelOutput, Tensor | None]:
        r"""
        Run both encoders; see `forward` for the arguments.

        Returns:
            The BART encoder's output, whose `last_hidden_state` is replaced by the memory C, `(batch, rows + length,
            d_model)`; and the image rows, `(batch, rows, projection_dim)`, or None.
        """
        image_embeds = self.choose_image_rows(pixel_values, image_embeds)
        text = input_ids if input_ids is not None else inputs_embeds
        if text is None:
            raise ValueError(NO_TEXT)
        self.refuse_overlong(text, "text to read")
        text_mask = mask_of_text(attention_mask, text, image_embeds)
        output = self.language_model.encoder(
            input_ids=input_ids, attention_mask=text_mask, inputs_embeds=inputs_embeds, **kwargs
        )
        output.last_hidden_state = self.build_memory(output.last_hidden_state, image_embeds)
        return output, image_embeds

    def touch_unused(self, memory: Tensor, image_embeds: Tensor | None, clean_input_ids: Tensor | None) -> Tensor:
        """In distributed training, give a gradient of 0 to the bridge parameters that this forward pass does not use.

        With gradient checkpointing, DistributedDataParallel waits until every parameter has a gradient. But finetuning
        on `labels` does not use the temperature, and a batch without images does not use W_i.
        """
        if not (self.training and torch.distributed.is_available() and torch.distributed.is_initialized()):
            return memory
        unused = []
        if clean_input_ids is None:
            unused.append(self.logit_scale)
        if image_embeds is None:
            unused.append(self.image_to_decoder.weight)
            if not self.config.bridge_text_only:
                unused.append(self.text_to_decoder.weight)
                if clean_input_ids is None:
                    unused.append(self.text_projection.weight)
        return attach_unused(memory, unused)

    @deprecate_kwarg("past_key_values", "5.40.0", new_name="cache")  # as long as in BART
    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        pixel_values: Tensor | None = None,
        image_embeds: Tensor | None = None,
        attention_mask: Tensor | None = None,
        decoder_input_ids: Tensor | None = None,
        decoder_attention_mask: Tensor | None = None,
        encoder_outputs: BaseModelOutput | tuple[Tensor] | None = None,
        cache: Cache | None = None,
        inputs_embeds: Tensor | None = None,
        decoder_inputs_embeds: Tensor | None = None,
        clean_input_ids: Tensor | None = None,
        clean_attention_mask: Tensor | None = None,
        use_cache: bool | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> tuple | VLKDModelOutput:
        r"""
        Encode image and text, and run the decoder on the memory C.

        Args:
            input_ids (`torch.LongTensor` of shape `(batch, length)`, *optional*):
                Text for the encoder: a question, a prompt or a corrupted caption.
            pixel_values (`torch.FloatTensor` of shape `(batch, channels, height, width)`, *optional*):
                One image for each text. Without an image the model is a text model.
            image_embeds (`torch.FloatTensor` of shape `(batch, rows, projection_dim)`, *optional*):
                Image rows V, from `get_image_rows`, instead of `pixel_values`.
            attention_mask (`torch.LongTensor` of shape `(batch, length)` or `(batch, rows + length)`, *optional*):
                0 for padding. The image rows stand before the text; a mask of the text alone is extended by ones for
                them.
            decoder_input_ids (`torch.LongTensor` of shape `(batch, target_length)`, *optional*):
                Defaults to `input_ids` shifted right, as in BART.
            encoder_outputs (`BaseModelOutput`, *optional*):
                The memory C, `(batch, rows + length, d_model)`, if it was computed before.
            clean_input_ids (`torch.LongTensor` of shape `(batch, clean_length)`, *optional*):
                Captions before corruption. A second encoder pass embeds them for the losses that compare embeddings.
            clean_attention_mask (`torch.LongTensor` of shape `(batch, clean_length)`, *optional*): 0 for padding.
        """
        if encoder_outputs is None:
            encoder_outputs, image_embeds = self.encode(
                input_ids, attention_mask, inputs_embeds, pixel_values, image_embeds, **kwargs
            )
        elif not isinstance(encoder_outputs, BaseModelOutput):
            encoder_outputs = BaseModelOutput(*encoder_outputs)
        memory = encoder_outputs.last_hidden_state
        if decoder_input_ids is None and decoder_inputs_embeds is None:
            if input_ids is None:
                raise ValueError("Expected decoder_input_ids or labels: without input_ids they have no default.")
            text_config = self.config.text_config
            decoder_input_ids = shift_tokens_right(
                input_ids, text_config.pad_token_id, text_config.decoder_start_token_id
            )
        written = decoder_input_ids if decoder_input_ids is not None else decoder_inputs_embeds
        self.refuse_overlong(written, "text to write")
        if written.shape[0] != memory.shape[0]:  # attention would broadcast a batch of one to the other batch
            raise ValueError(
                f"Expected one text to write per text read, got {written.shape[0]} and {memory.shape[0]}."
            )
        decoder_outputs = self.language_model.decoder(
            input_ids=decoder_input_ids,
            attention_mask=decoder_attention_mask,
            encoder_hidden_states=self.touch_unused(memory, image_embeds, clean_input_ids),
            encoder_attention_mask=cover_image_rows(attention_mask, memory.shape[1]),
            cache=cache,
            inputs_embeds=decoder_inputs_embeds,
            use_cache=use_cache,
            **kwargs,
        )
        output = VLKDModelOutput(
            last_hidden_state=decoder_outputs.last_hidden_state,
            cache=decoder_outputs.cache,
            decoder_hidden_states=decoder_outputs.hidden_states,
            decoder_attentions=decoder_outputs.attentions,
            cross_attentions=decoder_outputs.cross_attentions,
            encoder_last_hidden_state=memory,
            encoder_hidden_states=encoder_outputs.hidden_states,
            encoder_attentions=encoder_outputs.attentions,
        )
        if clean_input_ids is not None:
            sentence = self.get_text_features(clean_input_ids, clean_attention_mask).pooler_output
            output.text_embeds = nn.functional.normalize(sentence, dim=-1)
            output.logit_scale = self.logit_scale.exp()
            if image_embeds is not None:
                output.image_embeds = nn.functional.normalize(image_embeds[:, 0], dim=-1)
        return output


@brings_its_code("AutoModelForImageTextToText")
class VLKDForConditionalGeneration(VLKDPreTrainedModel, GenerationMixin):
    r"""
    VLKD with BART's language modeling head: captions, answers, and text.

    Example:

    ```python
    >>> from modeling_vlkd import VLKDForConditionalGeneration, VLKDProcessor
    >>> from PIL import Image

    >>> model = VLKDForConditionalGeneration.from_pretrained(checkpoint)
    >>> processor = VLKDProcessor.from_pretrained(checkpoint)
    >>> inputs = processor(images=Image.open(picture), text=processor.caption_prompts(1), return_tensors="pt")
    >>> caption = processor.batch_decode(model.generate(**inputs), skip_special_tokens=True)

    ```
    """

    _tied_weights_keys = {"lm_head.weight": "model.language_model.shared.weight"}
    _keys_to_ignore_on_load_missing = ["final_logits_bias"]

    def __init__(self, config: VLKDConfig):
        super().__init__(config)
        self.model = VLKDModel(config)
        vocab_size = config.text_config.vocab_size
        self.lm_head = nn.Linear(config.text_config.d_model, vocab_size, bias=False)
        self.register_buffer("final_logits_bias", torch.zeros(1, vocab_size))  # BART's; zero in published BARTs
        self.post_init()

    def _init_weights(self, module: nn.Module):
        super()._init_weights(module)
        if isinstance(module, VLKDForConditionalGeneration):
            init.zeros_(module.final_logits_bias)

    def get_output_embeddings(self) -> nn.Module:
        return self.lm_head

    def set_output_embeddings(self, value: nn.Module):
        self.lm_head = value

    def resize_token_embeddings(self, *args, **kwargs) -> nn.Embedding:
        embeddings = super().resize_token_embeddings(*args, **kwargs)
        grown = len(embeddings.weight) - self.final_logits_bias.shape[-1]
        self.final_logits_bias = nn.functional.pad(self.final_logits_bias, (0, grown))  # a negative pad shortens
        return embeddings

    @deprecate_kwarg("past_key_values", "5.40.0", new_name="cache")  # as long as in BART
    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        pixel_values: Tensor | None = None,
        image_embeds: Tensor | None = None,
        attention_mask: Tensor | None = None,
        decoder_input_ids: Tensor | None = None,
        decoder_attention_mask: Tensor | None = None,
        encoder_outputs: BaseModelOutput | tuple[Tensor] | None = None,
        cache: Cache | None = None,
        inputs_embeds: Tensor | None = None,
        decoder_inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        clean_input_ids: Tensor | None = None,
        clean_attention_mask: Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | Tensor = 0,
        **kwargs: Unpack[TransformersKwargs],
    ) -> tuple | VLKDSeq2SeqLMOutput:
        r"""
        Compute logits and, with `labels`, the loss. The arguments are those of [`VLKDModel.forward`] and:

        Args:
            labels (`torch.LongTensor` of shape `(batch, target_length)`, *optional*):
                Text to write, with -100 at positions that the loss ignores. Without `decoder_input_ids`, the decoder
                reads the labels shifted right. The loss is the mean over tokens; with `num_items_in_batch`, it is the
                sum over tokens divided by that number.
            logits_to_keep (`int` or `torch.LongTensor`, *optional*, defaults to 0):
                Compute logits only of the last `logits_to_keep` positions, or of the positions in the tensor. 0 means
                all positions.
        """
        text_config = self.config.text_config
        if labels is not None:
            use_cache = False
            if decoder_input_ids is None and decoder_inputs_embeds is None:
                decoder_input_ids = self.prepare_decoder_input_ids_from_labels(labels)
        num_items_in_batch = kwargs.pop("num_items_in_batch", None)
        output = self.model(
            input_ids=input_ids,
            pixel_values=pixel_values,
            image_embeds=image_embeds,
            attention_mask=attention_mask,
            decoder_input_ids=decoder_input_ids,
            decoder_attention_mask=decoder_attention_mask,
            encoder_outputs=encoder_outputs,
            cache=cache,
            inputs_embeds=inputs_embeds,
            decoder_inputs_embeds=decoder_inputs_embeds,
            clean_input_ids=clean_input_ids,
            clean_attention_mask=clean_attention_mask,
            use_cache=use_cache,
            return_dict=True,
            **kwargs,
        )
        kept = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        logits = (
            self.lm_head(output.last_hidden_state[:, kept]) + self.final_logits_bias
        )  # (batch, length, vocabulary)
        loss = None
        if labels is not None:
            loss = self.loss_function(
                logits=logits,
                labels=labels,
                vocab_size=text_config.vocab_size,
                shift_labels=labels,  # the decoder input is shifted already
                num_items_in_batch=num_items_in_batch,
            )
        fields = {name: value for name, value in output.items() if name != "last_hidden_state"}
        return VLKDSeq2SeqLMOutput(loss=loss, logits=logits, **fields)

    def prepare_decoder_input_ids_from_labels(self, labels: Tensor) -> Tensor:
        text_config = self.config.text_config
        return shift_tokens_right(labels, text_config.pad_token_id, text_config.decoder_start_token_id)

    def _prepare_text_encoder_decoder_kwargs_for_generation(
        self, inputs_tensor: Tensor, model_kwargs: dict[str, Any], model_input_name: str | None, generation_config
    ) -> dict[str, Any]:
        # `generate()` runs BART's encoder here, and this replaces the encoder's states by the memory C. The other
        # arguments stay unchanged, because an assistant model computes its own memory from them, and because `forward`
        # extends the mask.
        self.model.refuse_overlong(inputs_tensor, "text to read")
        image_embeds = self.model.choose_image_rows(model_kwargs.get("pixel_values"), model_kwargs.get("image_embeds"))
        text_kwargs = {
            key: value for key, value in model_kwargs.items() if key not in ("pixel_values", "image_embeds")
        }
        text_kwargs["attention_mask"] = mask_of_text(model_kwargs.get("attention_mask"), inputs_tensor, image_embeds)
        output = super()._prepare_text_encoder_decoder_kwargs_for_generation(
            inputs_tensor, text_kwargs, model_input_name, generation_config
        )["encoder_outputs"]
        output.last_hidden_state = self.model.build_memory(output.last_hidden_state, image_embeds)
        return model_kwargs | {"encoder_outputs": output}

    def generate(
        self,
        inputs: Tensor | None = None,
        generation_config: GenerationConfig | None = None,
        *args: Any,
        **kwargs: Any,
    ):
        r"""
        Write texts as [`~transformers.GenerationMixin.generate`] does, with two more fields of the generation config:

        Args:
            force_prefix (`bool`, *optional*):
                Begin each text with the words of its prompt before the first mask (`A picture of`, `{question}
                Answer:`); these do not count as new tokens. With `False`, or if `decoder_input_ids` are given, the
                model writes the whole text itself. `vlkd distill` tries both and saves the better one in the
                generation config. Prompts whose beginnings have different lengths are generated in groups of one
                length, so that no text depends on the others in its batch.
            mask_token_id (`int`, *optional*): the tokenizer's. Without it, `force_prefix` has no effect.

        Raises:
            ValueError: an image without a text to read, as in `forward`; or `return_dict_in_generate` with beginnings
                of different lengths.
        """
        own = {name: kwargs.pop(name) for name in ("force_prefix", "mask_token_id") if name in kwargs}
        settings, others = self._prepare_generation_config(generation_config, **kwargs)
        settings.update(**own, allow_custom_entries=True)
        prompts = others.get("input_ids") if inputs is None else inputs
        given = {name for name, value in {**others, "input_ids": prompts}.items() if value is not None}
        if given & {"pixel_values", "image_embeds"} and not given & {"input_ids", "inputs_embeds", "encoder_outputs"}:
            raise ValueError(NO_TEXT)
        groups = []
        if "decoder_input_ids" not in given:
            groups = known_prefixes(settings, prompts, self.config.text_config.decoder_start_token_id)
        if len(groups) < 2:
            if groups and groups[0][1] is not None:
                kwargs["decoder_input_ids"] = groups[0][1]
            return super().generate(inputs, generation_config, *args, **kwargs)
        if settings.return_dict_in_generate:
            raise ValueError(
                "return_dict_in_generate needs prompts whose words before the masks have one length in tokens: ask "
                "for them in batches of one length, or with force_prefix=False."
            )
        parts = []
        for places, known in groups:
            taken = {name: take_rows(value, places, prompts.shape[0]) for name, value in kwargs.items()}
            if known is not None:
                taken["decoder_input_ids"] = known
            texts = super().generate(inputs if inputs is None else inputs[places], generation_config, *args, **taken)
            parts.append((places, texts))
        return join_rows(parts, settings.pad_token_id)


@brings_its_code("AutoModelForSequenceClassification")
class VLKDForSequenceClassification(VLKDPreTrainedModel):
    r"""
    VLKD with BART's classification head on the decoder's state of the last token, for tasks such as GLUE; each text
    may have an image. `config.num_labels` and `config.problem_type` choose the loss as in BART.
    """

    # The loss is the mean of one batch and ignores `num_items_in_batch`: Trainer divides it by the accumulated steps.
    accepts_loss_kwargs = False

    def __init__(self, config: VLKDConfig):
        super().__init__(config)
        self.model = VLKDModel(config)
        text_config = config.text_config
        self.classification_head = BartClassificationHead(
            text_config.d_model, text_config.d_model, config.num_labels, text_config.classifier_dropout
        )
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        pixel_values: Tensor | None = None,
        image_embeds: Tensor | None = None,
        attention_mask: Tensor | None = None,
        decoder_input_ids: Tensor | None = None,
        decoder_attention_mask: Tensor | None = None,
        encoder_outputs: BaseModelOutput | tuple[Tensor] | None = None,
        inputs_embeds: Tensor | None = None,
        decoder_inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> tuple | Seq2SeqSequenceClassifierOutput:
        r"""
        Compute the logits of the classes and, with `labels`, the loss. The arguments are those of
        [`VLKDModel.forward`] and:

        Args:
            labels (`torch.LongTensor` of shape `(batch,)`, or float for regression, *optional*): classes.
        """
        if inputs_embeds is not None and decoder_inputs_embeds is None and decoder_input_ids is None:
            decoder_inputs_embeds = inputs_embeds
        output = self.model(
            input_ids=input_ids,
            pixel_values=pixel_values,
            image_embeds=image_embeds,
            attention_mask=attention_mask,
            decoder_input_ids=decoder_input_ids,
            decoder_attention_mask=decoder_attention_mask,
            encoder_outputs=encoder_outputs,
            inputs_embeds=inputs_embeds,
            decoder_inputs_embeds=decoder_inputs_embeds,
            use_cache=False if labels is not None else use_cache,
            return_dict=True,
            **kwargs,
        )
        states = output.last_hidden_state
        if decoder_input_ids is None and decoder_attention_mask is None and attention_mask is not None:
            decoder_attention_mask = attention_mask[:, -states.shape[1] :]  # the decoder reads the same text
        sentence = pool_sentence(states, decoder_attention_mask, "eos")
        logits = self.classification_head(sentence)  # (batch, num_labels)
        loss = None
        if labels is not None:
            loss = self.loss_function(labels=labels, pooled_logits=logits, config=self.config)
        fields = {name: value for name, value in output.items() if name != "last_hidden_state"}
        return Seq2SeqSequenceClassifierOutput(loss=loss, logits=logits, **fields)


__all__ = ["VLKDForConditionalGeneration", "VLKDForSequenceClassification", "VLKDModel", "VLKDPreTrainedModel"]
