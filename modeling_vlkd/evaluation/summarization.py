"""Summarization, as of XSum (arXiv:1808.08745): how near the summaries of a model are to those of people, by ROUGE."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .errors import EvaluationError
from .extra_packages import require_packages
from .report import Report, ScoredExample, bootstrap_interval
from .text_models import TextWriter
from .text_tables import DEV, read_texts, refuse_split_of_one_table


# ROUGE as it is published for XSum: F1, words stemmed. XSum's summaries are one sentence, and ROUGE-L is that of the
# whole text; "rougeLsum", which goes by lines, would be the same.
ROUGE = ("rouge1", "rouge2", "rougeL")
# BART's settings for XSum: beam 6, length penalty 1, 10 to 60 tokens. generate() also counts `</s>`, with which a text
# starts, and the one at its end, as in the configuration of facebook/bart-large-xsum. No known prefix is forced:
# a document has no mask.
GENERATION = {
    **{"num_beams": 6, "length_penalty": 1.0, "min_length": 11, "max_length": 62},
    **{"min_new_tokens": None, "max_new_tokens": None},
}


@dataclass(frozen=True)
class Document:
    """A document and the summary that somebody has written."""

    id: int | str
    text: str
    summary: str


def read_documents(
    source: str | Path,
    split: str = DEV,
    default: str = DEV,
    document_column: str = "document",
    summary_column: str = "summary",
) -> list[Document]:
    """Read documents with their summaries from whatever [`read_texts`] reads.

    Args:
        split: of a source that has several.
        default: the split that one table is read for, which has no other.
        document_column, summary_column: by default those of XSum.

    Raises:
        EvaluationError: there is no such source, split or column, or a text is empty; with its line or row.
    """
    refuse_split_of_one_table(Path(source), split, default)
    columns, documents = (document_column, summary_column), []
    for number, (place, row) in enumerate(read_texts(source, columns, split)):
        for name in columns:
            if not isinstance(row[name], str) or not row[name].strip():
                raise EvaluationError(f"{place}: {name!r} is {row[name]!r:.40}; write a text or leave the row out.")
        documents.append(Document(number, row[document_column].strip(), row[summary_column].strip()))
    return documents


def score_summaries(summaries: Sequence[str], references: Sequence[str]) -> dict[str, list[float]]:
    """Compute ROUGE of each summary, in percent.

    It is F1 of the words, of the pairs of words, and of the longest common sequence of words.
    """
    from rouge_score.rouge_scorer import RougeScorer  # not everybody has it

    scorer = RougeScorer(ROUGE, use_stemmer=True)
    each = [scorer.score(reference, summary) for summary, reference in zip(summaries, references, strict=True)]
    return {name: [100 * scores[name].fmeasure for scores in each] for name in ROUGE}


class SummarizationBenchmark:
    """Documents to be summarized, as a benchmark; see `benchmark.py`.

    A row holds the summary, `{"summary": "..."}`, and `{"truncated": true}` where the document was cut to what the
    model reads.

    Raises:
        EvaluationError: there are no documents.
    """

    task = "summarization"

    def __init__(self, documents: Sequence[Document]):
        require_packages("Scoring summaries", "rouge_score")
        if not documents:
            raise EvaluationError("Expected documents with summaries, got none.")
        self.documents = documents
        self.ids = [document.id for document in documents]

    @classmethod
    def read(cls, source: str | Path, split: str = DEV, **columns: str) -> "SummarizationBenchmark":
        """Read the documents as [`read_documents`] does."""
        return cls(read_documents(source, split, DEV, **columns))

    def order(self) -> Sequence[int]:
        return sorted(range(len(self.documents)), key=lambda place: len(self.documents[place].text))

    def predict(self, model: TextWriter, positions: Sequence[int]) -> list[dict[str, Any]]:
        """Summarize documents by a model that speaks [`TextWriter`], made with the settings `GENERATION`."""
        texts = [self.documents[place].text for place in positions]
        return [
            {"summary": summary} | ({"truncated": True} if truncated else {})
            for summary, truncated in zip(model.write(texts), model.overlong(texts), strict=True)
        ]

    def report(self, rows: Sequence[dict[str, Any]], seed: int = 0) -> Report:
        """Score all rows by ROUGE, in percent."""
        summaries = [row["summary"] for row in rows]
        each = score_summaries(summaries, [document.summary for document in self.documents])
        scored = [
            ScoredExample(document.id, score / 100, summary, [document.summary], document.text)
            for document, summary, score in zip(self.documents, summaries, each["rougeL"])
        ]
        return Report(
            "summarization",
            len(rows),
            {name: float(np.mean(scores)) for name, scores in each.items()},
            intervals={name: bootstrap_interval(scores, seed) for name, scores in each.items()},
            facts={
                "rouge": "F1 in percent, rouge_score with its stemmer, ROUGE-L of whole texts",
                "truncated": sum("truncated" in row for row in rows),
            },
            scored=scored,
        )
