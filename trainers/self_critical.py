"""Self-critical sequence training (arXiv:1612.00563): sampled captions are rewarded by their CIDEr-D."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import GenerationConfig, PreTrainedModel

from modeling_vlkd.evaluation.caption_tokenizers import PYTHON_TOKENIZER, tokenize_texts
from modeling_vlkd.evaluation.cider import DocumentFrequencies, cider_d
from modeling_vlkd.evaluation.vlkd_model import evaluating
from modeling_vlkd.processing_vlkd import VLKDProcessor

from .collators import gather_images
from .distillation_trainer import RunningMeans
from .finetuning import ExampleMeanTrainer


BASELINES = ("mean", "greedy")
LOGGED = ["reward", "baseline", "reward_share"]


def self_critical_loss(
    log_probabilities: Tensor, mask: Tensor, advantages: Tensor, num_samples: Tensor | int
) -> Tensor:
    """Compute the REINFORCE loss whose gradient is that of the expected reward (arXiv:1612.00563, eq. 7).

    `- sum_s advantage_s sum_t log p(token_t) / num_samples`. The sum over a caption's tokens is not divided by their
    number, as in the paper; the code of the paper's reproduction (self-critical.pytorch) divides by the tokens of the
    batch instead, which changes the scale of the gradient only.

    Args:
        log_probabilities: `(samples, length)`, of the sampled tokens.
        mask: `(samples, length)`, true where a token was sampled: not in the known beginning, nor after the end.
        advantages: `(samples,)`, reward minus baseline.
        num_samples: of the whole update, of which this may be a part.
    """
    return -(advantages[:, None] * log_probabilities.masked_fill(~mask, 0.0)).sum() / num_samples


def advantages_of(rewards: Tensor, greedy: Tensor | None) -> tuple[Tensor, Tensor]:
    """Subtract from each reward what was to be expected.

    Args:
        rewards: `(pictures, samples)`.
        greedy: `(pictures,)`, the rewards of the captions that are decoded greedily (arXiv:1612.00563); None to take
            the mean reward of the picture's other samples (arXiv:2003.09971).

    Returns:
        Advantages and baselines, `(pictures, samples)` each.
    """
    if greedy is None:
        baseline = (rewards.sum(dim=1, keepdim=True) - rewards) / (rewards.shape[1] - 1)
    else:
        baseline = greedy[:, None].expand_as(rewards)
    return rewards - baseline, baseline


class CaptionReward:
    """Scores captions of the training pictures by CIDEr-D, in this process.

    Args:
        references: tokenized, of each picture.
        frequencies: of n-grams, counted over all of them.
    """

    def __init__(self, references: Sequence[Sequence[str]], frequencies: DocumentFrequencies):
        self.references, self.frequencies = references, frequencies
        self.tokenized: dict[str, str] = {}

    def __call__(self, captions: Sequence[str], positions: Sequence[int]) -> np.ndarray:
        """Score captions, `(captions,)`, each of the picture at its position."""
        if new := [text for text in dict.fromkeys(captions) if text not in self.tokenized]:
            self.tokenized |= zip(new, tokenize_texts(new, PYTHON_TOKENIZER))
        places = {position: place for place, position in enumerate(dict.fromkeys(positions))}
        return cider_d(
            [self.tokenized[text] for text in captions],
            [self.references[position] for position in places],
            [places[position] for position in positions],
            self.frequencies,
        )


@dataclass
class PictureCollator:
    """Makes a batch of pictures with their caption prompts, and the `positions` by which the reward knows them."""

    processor: VLKDProcessor

    def __call__(self, examples: list[dict[str, Any]]) -> dict[str, Tensor]:
        prompts = self.processor.tokenizer(self.processor.caption_prompts(len(examples)), return_tensors="pt")
        return {
            "positions": torch.tensor([example["position"] for example in examples]),
            **{name: prompts[name] for name in ("input_ids", "attention_mask")},
            **gather_images(examples, self.processor),
        }


@contextmanager
def decoding_plainly(model: PreTrainedModel, samples: int) -> Iterator[None]:
    """Have `generate()` draw from the model's own distribution or, with 0 samples, take the likeliest tokens.

    Of the checkpoint's settings, only those of the known beginning and of the longest text stay: whatever else changed
    the distribution, as the end that BART forces on a text of full length does, would change what the gradient is of.
    """
    kept = {
        *("max_new_tokens", "max_length", "force_prefix", "mask_token_id", "forced_bos_token_id"),
        *("pad_token_id", "bos_token_id", "eos_token_id", "decoder_start_token_id"),
    }
    own = model.generation_config
    given = {name: value for name, value in own.to_dict().items() if name in kept and value is not None}
    drawn = {"do_sample": True, "top_k": 0, "num_return_sequences": samples} if samples else {"do_sample": False}
    model.generation_config = GenerationConfig(**given, **drawn, num_beams=1)
    try:
        yield
    finally:
        model.generation_config = own


def sampled_tokens(sequences: Tensor, prompts: Tensor, model: PreTrainedModel) -> Tensor:
    """Tell which tokens of generated texts the model chose: `(texts, length - 1)`, for `sequences[:, 1:]`.

    These are those after the known beginning, if that was forced, or after the `<s>` that is always forced; the end
    of the text is one of them, what pads it is not.

    Args:
        sequences: `(texts, length)`, from `generate()`.
        prompts: `(pictures, prompt length)`, all of one length before the masks.
    """
    settings = model.generation_config.to_dict()
    written = sequences[:, 1:]
    known = int(settings.get("forced_bos_token_id") is not None)
    if settings.get("force_prefix") and settings.get("mask_token_id") is not None:
        known = int((prompts[0] == settings["mask_token_id"]).int().argmax())
    chosen = torch.arange(written.shape[1], device=written.device) >= known
    ended = (written == settings["eos_token_id"]) & chosen
    return chosen & (ended.cumsum(dim=1) - ended.long() == 0)


class SelfCriticalTrainer(ExampleMeanTrainer):
    """Raises the CIDEr-D of sampled captions.

    Captions are sampled, rewarded, and their log-probabilities computed by one pass with gradient. All of it happens
    without dropout, so that the probabilities are those by which the captions were drawn.

    Args:
        reward ([`CaptionReward`]): of the pictures of the training data.
        samples: how many captions are drawn of each picture.
        baseline: what a reward is compared with: "mean", of the picture's other samples, or "greedy", the reward of
            the caption that is decoded greedily, which takes one more pass.
        kwargs: those of [`FinetuningTrainer`]; the examples are pictures, and the collator a [`PictureCollator`].
    """

    counted = "positions"

    def __init__(self, *args: Any, reward: CaptionReward, samples: int = 5, baseline: str = "mean", **kwargs: Any):
        if baseline not in BASELINES:
            raise ValueError(f"baseline={baseline!r}: choose one of {', '.join(BASELINES)}.")
        if samples < (2 if baseline == "mean" else 1):
            raise ValueError(f"samples={samples}: the baseline {baseline!r} needs {2 if baseline == 'mean' else 1}.")
        super().__init__(*args, **kwargs)
        self.reward, self.samples, self.baseline = reward, samples, baseline
        self.means = RunningMeans(LOGGED)
        self.reward_seconds = 0.0

    def training_step(self, *args: Any, **kwargs: Any) -> Tensor:
        """Make a step, and note which share of its time the reward took."""
        started, self.reward_seconds = time.perf_counter(), 0.0
        loss = super().training_step(*args, **kwargs)
        share = self.reward_seconds / (time.perf_counter() - started)
        self.means.add({"reward_share": loss.new_tensor(share), **self.last}, weight=1.0)
        return loss

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        inputs = dict(inputs)
        positions = inputs.pop("positions")
        model.eval()  # no dropout
        sequences = self.write(inputs, self.samples)
        rewards = self.reward_of(sequences, positions).view(len(positions), self.samples)
        greedy = self.reward_of(self.write(inputs, 0), positions) if self.baseline == "greedy" else None
        advantages, baselines = advantages_of(rewards, greedy)
        self.last = {"reward": rewards.mean(), "baseline": baselines.mean()}
        log_probabilities = self.log_probabilities(model, inputs, sequences)
        mask = sampled_tokens(sequences, inputs["input_ids"], self.bare_model)
        pictures = len(positions) if num_items_in_batch is None else num_items_in_batch
        return self_critical_loss(log_probabilities, mask, advantages.flatten(), pictures * self.samples)

    def write(self, inputs: dict[str, Tensor], samples: int) -> Tensor:
        """Caption each picture so often, or with 0 once and greedily: `(pictures * samples, length)`."""
        model = self.bare_model
        with evaluating(model), decoding_plainly(model, samples), self.accelerator.autocast():
            images = model.base_model.choose_image_rows(inputs.get("pixel_values"), inputs.get("image_embeds"))
            texts = {name: inputs[name] for name in ("input_ids", "attention_mask")}
            return model.generate(**texts, image_embeds=images)

    def log_probabilities(self, model: nn.Module, inputs: dict[str, Tensor], sequences: Tensor) -> Tensor:
        """Compute the log-probability of every token after the first, with gradient: `(texts, length - 1)`."""
        times = len(sequences) // len(inputs["input_ids"])
        repeated = {name: tensor.repeat_interleave(times, dim=0) for name, tensor in inputs.items()}
        logits = model(**repeated, decoder_input_ids=sequences[:, :-1]).logits  # (texts, length - 1, vocabulary)
        chosen = logits.gather(-1, sequences[:, 1:, None])[..., 0]
        return chosen.float() - logits.float().logsumexp(dim=-1)

    def reward_of(self, sequences: Tensor, positions: Tensor) -> Tensor:
        """Score the captions of pictures, any number each: `(texts,)`."""
        texts = self.processing_class.batch_decode(sequences.tolist(), skip_special_tokens=True)
        started = time.perf_counter()
        captions = self.processing_class.extract_captions(texts)
        owners = positions.repeat_interleave(len(captions) // len(positions)).tolist()
        rewards = self.reward(captions, owners)
        self.reward_seconds += time.perf_counter() - started
        return torch.as_tensor(rewards, dtype=torch.float32, device=sequences.device)

    def prediction_step(self, *args: Any, **kwargs: Any) -> tuple[None, None, None]:
        """Leave an evaluation to the metrics of the captions; there is no loss."""
        return None, None, None

    def log(self, logs: dict[str, float], start_time: float | None = None):
        if "loss" in logs:
            logs.update(self.means.drain(self.accelerator))
        super().log(logs, start_time)
