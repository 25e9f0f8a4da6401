"""What an evaluation measures of a model that is trained to summarize."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from modeling_vlkd.evaluation.summarization import Document, score_summaries
from modeling_vlkd.evaluation.text_models import WriterAdapter


class SummaryEvaluation:
    """Summarizes documents, and scores the summaries by ROUGE; a `TaskEvaluation` of [`FinetuningTrainer`].

    Args:
        max_length: longer documents are cut, in tokens.
        generation: settings of `generate()`.
    """

    def __init__(
        self,
        documents: Sequence[Document],
        tokenizer: PreTrainedTokenizerBase,
        max_length: int,
        generation: Mapping[str, Any],
    ):
        self.documents, self.tokenizer, self.max_length = documents, tokenizer, max_length
        self.generation = generation

    def __len__(self) -> int:
        return len(self.documents)

    def predict(self, model: PreTrainedModel, positions: Sequence[int], batch_size: int) -> list[str]:
        """Summarize some of the documents."""
        writer = WriterAdapter(model, self.tokenizer, batch_size, self.max_length, **self.generation)
        return writer.write([self.documents[place].text for place in positions])

    def score(self, predictions: Sequence[str]) -> dict[str, float]:
        """Compute ROUGE of all summaries, in percent."""
        each = score_summaries(predictions, [document.summary for document in self.documents])
        return {name: float(np.mean(scores)) for name, scores in each.items()}
