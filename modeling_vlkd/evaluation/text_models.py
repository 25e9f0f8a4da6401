"""What a benchmark of text may ask of a model, and adapters for ours and for those of transformers."""

from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor
from transformers import (
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES as WRITERS,
)
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES as CLASSIFIERS,
)

from .errors import EvaluationError
from .models import kind_of, load_processor, load_weights, move, read_config
from .vlkd_model import evaluating


class TextWriter(Protocol):
    """A model that reads a text and writes another one."""

    def write(self, texts: Sequence[str]) -> list[str]:
        """Write one text for each."""

    def overlong(self, texts: Sequence[str]) -> list[bool]:
        """Tell of each text whether it is longer than what the model reads, and so would be cut."""


class TextClassifier(Protocol):
    """A model that gives a text, or a pair of texts, an output for each label."""

    @property
    def labels(self) -> Sequence[str]:
        """Names of the outputs, in their order: `LABEL_0`, `LABEL_1` and so on where they have none."""

    def classify(self, texts: Sequence[str], pairs: Sequence[str] | None = None) -> Tensor:
        """Compute the outputs, `(texts, labels)`, in float32 on the CPU.

        Args:
            pairs: the second text of each pair.
        """

    def overlong(self, texts: Sequence[str], pairs: Sequence[str] | None = None) -> list[bool]:
        """Tell of each text, or pair, whether it is longer than what the model reads, and so would be cut."""


class TextAdapter:
    """What both adapters share: tokens, their limit, and batches of like lengths.

    Args:
        tokenizer: of the model.
        batch_size: texts at a time.
        max_text_length: longer texts are cut, in tokens; by default, and at most, what the model can read.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        batch_size: int = 32,
        max_text_length: int | None = None,
    ):
        self.model, self.tokenizer, self.batch_size = model, tokenizer, batch_size
        limit = read_limit(model, tokenizer)
        self.max_text_length = limit if max_text_length is None else min(max_text_length, limit)

    def overlong(self, texts: Sequence[str], pairs: Sequence[str] | None = None) -> list[bool]:
        encoded = self.tokenizer(list(texts), None if pairs is None else list(pairs), verbose=False)
        return [len(ids) > self.max_text_length for ids in encoded["input_ids"]]

    def batches(self, texts: Sequence[str], pairs: Sequence[str] | None = None) -> Iterator[tuple[list[int], Any]]:
        """Give the inputs of each batch with the places of its texts; texts of like lengths go together.

        Texts are padded on the right, so that what is made of one does not depend on the others.
        """
        encoded = self.tokenizer(
            list(texts), None if pairs is None else list(pairs), truncation=True, max_length=self.max_text_length
        )
        lengths = [len(ids) for ids in encoded["input_ids"]]
        order = sorted(
            range(len(lengths)), key=lengths.__getitem__, reverse=True
        )  # what needs most memory comes first
        for first in range(0, len(order), self.batch_size):
            places = order[first : first + self.batch_size]
            chosen = {name: [encoded[name][place] for place in places] for name in self.tokenizer.model_input_names}
            padded = self.tokenizer.pad(chosen, padding_side="right", return_tensors="pt")
            yield places, padded.to(self.model.device)

    def map(self, read: Callable[[Any], Sequence], texts: Sequence[str], pairs: Sequence[str] | None) -> list[Any]:
        """Apply a function to the inputs of each batch, and put what it gives into the order of the texts."""
        found: list[Any] = [None] * len(texts)
        if not texts:  # of which the tokenizer cannot make a batch
            return found
        with evaluating(self.model):
            for places, inputs in self.batches(texts, pairs):
                for place, value in zip(places, read(inputs), strict=True):
                    found[place] = value
        return found


class WriterAdapter(TextAdapter):
    """Lets a model with `generate()` speak [`TextWriter`]: a VLKD on text alone, a BART.

    Args:
        generate_kwargs: for `generate()`, over what the checkpoint says.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        batch_size: int = 32,
        max_text_length: int | None = None,
        **generate_kwargs: Any,
    ):
        super().__init__(model, tokenizer, batch_size, max_text_length)
        self.generate_kwargs = generate_kwargs

    def write(self, texts: Sequence[str]) -> list[str]:
        def read(inputs: Any) -> list[str]:
            written = self.model.generate(**inputs, **self.generate_kwargs)
            return [text.strip() for text in self.tokenizer.batch_decode(written, skip_special_tokens=True)]

        return self.map(read, texts, None)


class ClassifierAdapter(TextAdapter):
    """Lets a model with a classification head speak [`TextClassifier`]: a VLKD, or any of transformers."""

    @property
    def labels(self) -> list[str]:
        return [str(name) for _, name in sorted(self.model.config.id2label.items())]

    def classify(self, texts: Sequence[str], pairs: Sequence[str] | None = None) -> Tensor:
        rows = self.map(lambda inputs: self.model(**inputs).logits.float().cpu(), texts, pairs)
        return torch.stack(rows) if rows else torch.empty(0, self.model.config.num_labels)


def read_limit(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> int:
    """Find how many tokens a model reads at most: as many as it has positions, or fewer if its tokenizer says so."""
    positions = model.config.get_text_config().max_position_embeddings
    return min(positions, tokenizer.model_max_length)


def load_writer(
    name: str,
    device: torch.device | str | None = None,
    dtype: torch.dtype | str = "auto",
    batch_size: int = 32,
    **generate_kwargs: Any,
) -> WriterAdapter:
    """Load a VLKD, or an encoder-decoder of transformers, to write texts; arguments and errors as of [`load_model`].

    Args:
        generate_kwargs: for `generate()`.
    """
    refuse_other_models(name, WRITERS, "an encoder-decoder")
    model = move(load_weights(AutoModelForSeq2SeqLM, name, dtype), device)
    return WriterAdapter(model, load_processor(AutoTokenizer, name), batch_size, **generate_kwargs)


def load_classifier(
    name: str, device: torch.device | str | None = None, dtype: torch.dtype | str = "auto", batch_size: int = 32
) -> ClassifierAdapter:
    """Load a model with a classification head, a VLKD or another; arguments and errors as of [`load_model`]."""
    refuse_other_models(name, CLASSIFIERS, "a classifier of texts")
    try:
        model = move(load_weights(AutoModelForSequenceClassification, name, dtype), device)
    except ValueError as error:
        if "classification_head" not in str(error):
            raise
        raise EvaluationError(f"{name} has no head to classify with; finetune it on the task first.") from error
    return ClassifierAdapter(model, load_processor(AutoTokenizer, name), batch_size)


def refuse_other_models(name: str, kinds: Collection[str], wanted: str):
    kind = kind_of(read_config(name))
    if kind != "vlkd" and kind not in kinds:
        raise EvaluationError(f"{name} holds a model of type {kind!r}; give a VLKD or {wanted} of transformers.")
