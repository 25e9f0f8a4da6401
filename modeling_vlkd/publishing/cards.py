"""Writes the model card of a checkpoint: the facts that its run knows, in the text of `card_template.md`."""

import hashlib
import json
import platform
import re
import shlex
from dataclasses import dataclass, field
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from modeling_vlkd import __version__

from .provenance import CARD_NAME, DATA_ROLES, METADATA_KEY, Provenance, Source


GENERATED_NAME = "README.generated.md"  # the file of a new card if somebody has edited the old one
PIPELINE_TAG = "visual-question-answering"
UNTRAINED = "untrained"  # the tag of a model that was put together and not trained; it can do no task yet
CLASSIFIER_TAGS = ["vlkd", "knowledge-distillation", "clip", "bart"]
TAGS = ["vlkd", "image-captioning", "image-text-to-text", "knowledge-distillation", "clip", "bart"]
# Among these is no task, or the Hub would take it for the pipeline_tag.
UNTRAINED_TAGS = ["vlkd", "clip", "bart", UNTRAINED]


@dataclass
class CardFacts:
    """What is known of a checkpoint.

    Args:
        name: the title of the card.
        location: the folder or Hub id from which the card loads the model.
        stage: `converted`, `distilled`, `finetuned` or, with a head for labels, `classifier`.
        provenance: what the model was made from.
        parameters: the number of parameters of each part, as `count_parameters` gives them.
        image_rows: how many rows the vision tower gives for a picture.
        tower_frozen: whether the vision tower was left as it is.
        settings: hyper-parameters of the run.
        losses: the last values that the run logged.
        results: the metrics, each with its data set.
        results_note: what has to be said beside the metrics, such as how many runs there were.
        proof: the checks of a conversion: subject, what it was compared with, and the largest difference allowed.
        limits: limits of this model, beside those of every VLKD.
        tags: added to `TAGS`.
        tuned_on: what it was finetuned on, in words.
        versions: of the software.
    """

    name: str
    location: str
    stage: str
    provenance: Provenance
    parameters: dict[str, int] = field(default_factory=dict)
    image_rows: int = 1
    tower_frozen: bool = True
    settings: dict[str, Any] = field(default_factory=dict)
    losses: dict[str, float] = field(default_factory=dict)
    results: list[EvalResult] = field(default_factory=list)
    results_note: str = ""
    proof: list[tuple[str, str, float]] = field(default_factory=list)
    limits: list[str] = field(default_factory=list)
    tags: list[str] = field(default_factory=list)
    tuned_on: str = "questions about pictures"
    versions: dict[str, str] = field(default_factory=lambda: software_versions())


def software_versions() -> dict[str, str]:
    """Read the installed versions of this package, of the libraries that matter most, and of python."""
    libraries = ("transformers", "torch", "datasets", "tokenizers")
    return {
        "modeling_vlkd": __version__,
        **{name: version(name) for name in libraries},
        "python": platform.python_version(),
    }


def count_parameters(model: Any) -> dict[str, int]:
    """Count all parameters of a model, and those of its vision tower."""
    return {"all": model.num_parameters(), "vision_tower": model.base_model.vision_tower.num_parameters()}


def count_image_rows(config: Any) -> int:
    """Count the rows that the vision tower gives for a picture.

    A ViT gives its class token alone, one of CLIP's ResNets all rows of its attention pool.
    """
    return config.vision_config.num_rows if config.vision_config.model_type == "clip_resnet_vision_model" else 1


def has_replay(provenance: Provenance) -> bool:
    """Tell whether texts were replayed in the training."""
    return any(source.role == "replayed texts" for source in provenance.sources)


def make_card(facts: CardFacts) -> ModelCard:
    """Fill in the template, with metadata that the Hub understands."""
    provenance, untrained = facts.provenance, facts.stage == "converted"
    classifies = facts.stage == "classifier"
    data = ModelCardData(
        license=provenance.license or "unknown",
        language=provenance.language or None,
        library_name="transformers",
        pipeline_tag=None if untrained else "text-classification" if classifies else PIPELINE_TAG,
        base_model=provenance.base_models or None,
        # Without this, the Hub takes a model with several base models for a merge of their weights.
        base_model_relation="finetune" if provenance.base_models and not untrained else None,
        datasets=provenance.datasets or None,
        tags=[*(UNTRAINED_TAGS if untrained else CLASSIFIER_TAGS if classifies else TAGS), *facts.tags],
        model_name=facts.name if facts.results else None,
        eval_results=facts.results or None,
    )
    data[METADATA_KEY] = provenance.as_metadata()
    card = ModelCard.from_template(
        data,
        template_path=str(files("modeling_vlkd.publishing") / "card_template.md"),
        facts=facts,
        sources=provenance.sources,
        commands=provenance.commands,
        stated_license=provenance.license,
        has_replay=has_replay(provenance),
        code=inline_code,
        escape=escape,
        link=link,
        number=show_number,
        quote=shlex.quote,
        quote_python=json.dumps,
    )
    card.text = f"{card.text.rstrip()}\n\n{signature(str(card))}\n"
    return card


# ---- how names and numbers are shown ----


def inline_code(text: Any) -> str:
    """Write a name as Markdown code, for a paragraph or a table; backticks and bars in it are shown as they are."""
    words = " ".join(str(text).split()).replace("|", "\\|")
    fence = "`" * (1 + max(map(len, re.findall("`+", words)), default=0))  # longer than every run of backticks inside
    space = " " if words.startswith("`") or words.endswith("`") else ""
    return f"{fence}{space}{words}{space}{fence}"


def escape(text: Any) -> str:
    """Write a name for a heading, so that Markdown shows it as it is: `my_clip` becomes `my\\_clip`."""
    return re.sub(r"([\\`*_{}\[\]<>#|~$])", r"\\\1", " ".join(str(text).split()))


def show_number(value: Any) -> str:
    """Write a float with at most four significant digits, and any other value as it is."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def link(source: Source) -> str:
    """Write the name of a source, as a link if it has a page on the Hub."""
    if not source.on_hub:
        return inline_code(source.name)
    folder = "datasets/" if source.role in DATA_ROLES else ""
    return f"[{source.name}](https://huggingface.co/{folder}{source.name})"


# ---- writing, and not writing over what a user wrote ----


def signature(content: str) -> str:
    """Make the last line of a card. It has a hash of the lines above, which no longer fits if somebody edits them."""
    digest = hashlib.sha256("\n".join(content.split()).encode()).hexdigest()[:16]
    return f"<!-- Written by modeling_vlkd from the run itself; no run writes over it once it is edited. {digest} -->"


def is_untouched(content: str) -> bool:
    """Tell whether a card is still as `make_card` made it."""
    lines = content.rstrip().splitlines()
    return bool(lines) and lines[-1] == signature("\n".join(lines[:-1]))


def write_card(card: ModelCard, folder: str | Path) -> Path:
    """Write a card into the folder of a checkpoint.

    Returns:
        The path of the card. This is `README.md`; if somebody has written or edited that file, it stays as it is, and
        the card is `README.generated.md`.
    """
    path = Path(folder) / CARD_NAME
    if path.exists() and not is_untouched(path.read_text(encoding="utf-8", errors="replace")):
        path = path.with_name(GENERATED_NAME)
    unfinished = path.with_name(f".{path.name}.unfinished")  # if writing is cut off, half a card would count as edited
    try:
        card.save(unfinished)
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
    return path
