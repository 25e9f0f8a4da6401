"""Writes the model card of a checkpoint from what its run knows, into the text of `card_template.md`."""

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


GENERATED_NAME = "README.generated.md"  # where a new card goes if somebody has edited the old one
PIPELINE_TAG = "visual-question-answering"
UNTRAINED = "untrained"  # the tag of a model that was put together and answers nothing yet, in place of a task
TAGS = ["vlkd", "image-captioning", "image-text-to-text", "knowledge-distillation", "clip", "bart"]
UNTRAINED_TAGS = ["vlkd", "clip", "bart", UNTRAINED]  # a task among them would make up for the pipeline's


@dataclass
class CardFacts:
    """What is known of a checkpoint.

    Args:
        name: its title.
        location: what to load it by, as long as it is where it was written: a Hub id or a folder.
        stage: `converted`, `distilled` or `finetuned`.
        provenance: what went into it.
        parameters: of which part, how many.
        image_rows, tower_frozen: how many rows the vision tower gives for a picture, and whether it was left as it is.
        settings: hyper-parameters of the run.
        losses: the last values that it logged.
        results: its metrics; the data set of each is named in it.
        results_note: what has to be said beside them, such as how many runs there were.
        proof: the checks of a conversion: subject, against what, and the difference allowed.
        limits: beside those of every VLKD.
        tags: added to `TAGS`.
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
    versions: dict[str, str] = field(default_factory=lambda: software_versions())


def software_versions() -> dict[str, str]:
    libraries = ("transformers", "torch", "datasets", "tokenizers")
    return {
        "modeling_vlkd": __version__,
        **{name: version(name) for name in libraries},
        "python": platform.python_version(),
    }


def count_parameters(model: Any) -> dict[str, int]:
    """Counts all parameters of a model, and those of its vision tower among them."""
    return {"all": model.num_parameters(), "vision_tower": model.base_model.vision_tower.num_parameters()}


def count_image_rows(config: Any) -> int:
    """A ViT gives its class token alone, CLIP's ResNets all rows of their attention pool."""
    return config.vision_config.num_rows if config.vision_config.model_type == "clip_resnet_vision_model" else 1


def has_replay(provenance: Provenance) -> bool:
    return any(source.role == "replayed texts" for source in provenance.sources)


def make_card(facts: CardFacts) -> ModelCard:
    """Fills the template in; the metadata are the Hub's own."""
    provenance, untrained = facts.provenance, facts.stage == "converted"
    data = ModelCardData(
        license=provenance.license or "unknown",
        language=provenance.language or None,
        library_name="transformers",
        pipeline_tag=None if untrained else PIPELINE_TAG,
        base_model=provenance.base_models or None,
        # The Hub takes a list of base models for a merge of their weights, if nobody says otherwise.
        base_model_relation="finetune" if provenance.base_models and not untrained else None,
        datasets=provenance.datasets or None,
        tags=[*(UNTRAINED_TAGS if untrained else TAGS), *facts.tags],
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
    """Shows a name as it is, in a paragraph or in a table."""
    words = " ".join(str(text).split()).replace("|", "\\|")
    fence = "`" * (1 + max(map(len, re.findall("`+", words)), default=0))
    space = " " if words.startswith("`") or words.endswith("`") else ""
    return f"{fence}{space}{words}{space}{fence}"


def escape(text: Any) -> str:
    """Shows a name as it is, in a heading."""
    return re.sub(r"([\\`*_{}\[\]<>#|~$])", r"\\\1", " ".join(str(text).split()))


def show_number(value: Any) -> str:
    """Shows a number with at most four significant digits, and what is none as it is."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def link(source: Source) -> str:
    """Shows what has a page on the Hub as a link."""
    folder = "datasets/" if source.role in DATA_ROLES else ""
    return (
        f"[{source.name}](https://huggingface.co/{folder}{source.name})" if source.on_hub else inline_code(source.name)
    )


# ---- writing, and not writing over what a user wrote ----


def signature(content: str) -> str:
    """Makes the line by which it can be told whether anybody has edited a card since."""
    digest = hashlib.sha256("\n".join(content.split()).encode()).hexdigest()[:16]
    return f"<!-- Written by modeling_vlkd from the run itself; no run writes over it once it is edited. {digest} -->"


def is_untouched(content: str) -> bool:
    """Whether a card is still as `make_card` made it."""
    lines = content.rstrip().splitlines()
    return bool(lines) and lines[-1] == signature("\n".join(lines[:-1]))


def write_card(card: ModelCard, folder: str | Path) -> Path:
    """Writes a card into the folder of a checkpoint.

    Returns:
        Its path: `README.md`, or `README.generated.md` where there is a README.md that somebody has written or
        edited, which stays as it is.
    """
    path = Path(folder) / CARD_NAME
    if path.exists() and not is_untouched(path.read_text(encoding="utf-8", errors="replace")):
        path = path.with_name(GENERATED_NAME)
    unfinished = path.with_name(f".{path.name}.unfinished")  # half a card would count as edited
    try:
        card.save(unfinished)
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
    return path
