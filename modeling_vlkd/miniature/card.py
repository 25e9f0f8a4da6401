"""Make the model card of the demo's checkpoint from the scores that `vlkd demo --json` wrote.

`python -m modeling_vlkd.miniature.card docs/demo.json` prints the card that is in `model_cards/`.
"""

import json
import sys
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard

from modeling_vlkd.publishing.cards import CardFacts, make_card
from modeling_vlkd.publishing.provenance import Provenance, Source

from .report import BASELINES, ROWS, demo_command, show


OWN_LICENSE = "apache-2.0"  # of this package and of the teachers that come with it
SOURCES = [
    Source("vision tower", "miniature CLIP of modeling_vlkd", license=OWN_LICENSE),
    Source("language model", "miniature BART of modeling_vlkd", license=OWN_LICENSE),
    Source("image-caption pairs", "easy-VQA 1.0", license="mit", note="training pictures, captions drawn by rule"),
    Source("replayed texts", "drawn by rule", license=OWN_LICENSE, note="passages with questions, without pictures"),
]
VQA, READING = "visual-question-answering", "question-answering"
# For each reported score, the Hub's names of the task and the metric. The keys are those of `vlkd demo --json`.
TASKS = {
    **dict.fromkeys(("overall", "shape", "colour", "yes_no_colour", "yes_no_shape"), (VQA, "accuracy")),
    **dict.fromkeys(("trained_templates", "heldout_templates"), (VQA, "accuracy")),
    "caption": ("image-to-text", "exact_match"),
    **dict.fromkeys(("retrieval_i2t", "retrieval_t2i"), ("retrieval", "recall_at_1")),
    "text_after": (READING, "accuracy"),
}


def demo_card(result: dict[str, Any]) -> ModelCard:
    """Make the card of the checkpoint that the demo leaves: the run with replay of the first seed.

    Args:
        result: as `DemoResult.as_dict` returns it.
    """
    scores, seed = result["each_seed"]["replay"][0], result["seeds"][0]
    settings = {name: value for name, value in result["recipe"].items() if name != "from_scratch"}
    settings |= {"align_text_projection": True, "seed": seed}
    return make_card(
        CardFacts(
            name="vlkd-miniature",
            location=Path(result["checkpoint"]).name,
            stage="distilled",
            provenance=Provenance(list(SOURCES), [demo_command(result)], OWN_LICENSE, ["en"]),
            parameters=result["parameters"],
            settings=settings | {"all others": "the defaults of VLKDDistillationConfig"},
            results=[result_of(name, scores[name]) for name in TASKS],
            results_note=results_note(result, scores),
            limits=["A toy: it knows pictures of 64 x 64 pixels with one shape (3) in one color (8), and few words."],
            versions=result["versions"],
        )
    )


def result_of(name: str, value: float) -> EvalResult:
    """Describe one score as the Hub's model cards do."""
    task, metric = TASKS[name]
    on_text = task == READING
    return EvalResult(
        task_type=task,
        dataset_type="synthetic" if on_text else "easy-vqa",
        dataset_name="passages drawn by rule" if on_text else "easy-VQA 1.0",
        dataset_split=None if on_text else "test",
        metric_type=metric,
        metric_name="questions about a passage, text alone" if on_text else ROWS[name],
        metric_value=round(value, 4),
    )


def results_note(result: dict[str, Any], scores: dict[str, float]) -> str:
    """Say with which other figures to compare the scores: other seeds, and answers without the picture."""
    seeds, run = result["seeds"], result["runs"]["replay"]
    sentences = [
        f"Measured by `{demo_command(result)}`: one run, of seed {seeds[0]}, whose weights lie here.",
        f"To compare with: {show(scores['blind'], None)} of all questions without the picture, "
        f"{show(scores['shuffled'], None)} with another picture, and "
        f"{show(result['baselines']['question_only'], None)} by the {BASELINES['question_only']}.",
    ]
    if len(seeds) > 1:
        mean = show(run["overall"], run["overall_std"])
        sentences.insert(1, f"Over the {len(seeds)} seeds of that command, all questions have {mean}.")
    return "\n".join(sentences)


if __name__ == "__main__":
    print(demo_card(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))), end="")
