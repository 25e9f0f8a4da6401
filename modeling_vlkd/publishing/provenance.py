"""Where a model comes from, as its card may tell it to strangers: Hub ids and licences, no folder of this machine."""

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import constants, metadata_load
from huggingface_hub.errors import HFValidationError
from huggingface_hub.file_download import repo_folder_name
from huggingface_hub.utils import validate_repo_id


CARD_NAME = "README.md"
METADATA_KEY = "vlkd"  # of the block in a card's metadata from which the next card in a row goes on
BASE_ROLES = ("vision tower", "language model", "base model", "checkpoint")
DATA_ROLES = ("image-caption pairs", "replayed texts", "questions and answers")
# Options that no card tells of: tokens, how the user keeps books of runs, and that a run was interrupted: the command
# without it makes the same in one go.
UNTOLD = {"hub_token", "push_to_hub_token", "run_name", "logging_dir", "project", "resume_from_checkpoint"}
UNTOLD |= {"trackio_space_id", "trackio_bucket_id", "trackio_static_space_id"}
NAMES = {"image_column", "caption_column", "split", "eval_split", "metric_for_best_model", "message"}  # never paths
HUB_OPTIONS = {"vision", "text", "checkpoint", "teacher", "dataset", "hub_model_id"}  # of others, a/b is a path
FOLDERS = re.compile(r"""(^|[=:,"'\s])(?!//)(?:[^/:,="']*/)+(?=[^/:,="'\s])""")


@dataclass(frozen=True)
class Source:
    """A model or data set that went into a model.

    Args:
        role: as what; one of `BASE_ROLES` or `DATA_ROLES`, or another.
        name: its Hub id, or the last part of its path.
        on_hub: whether `name` is a Hub id.
        license: as its own card states it; None if that is not known.
        note: what else there is to say, such as how many rows.
    """

    role: str
    name: str
    on_hub: bool = False
    license: str | None = None
    note: str = ""

    @classmethod
    def find(cls, role: str, name: str | Path, repo_type: str = "model", note: str = "") -> "Source":
        """Looks up what there is to tell of a folder, file or Hub id; its card is read if it lies on this machine."""
        shown, on_hub = public_name(name)
        return cls(role, shown, on_hub, stated_license(read_metadata(name, repo_type)), note)


@dataclass
class Provenance:
    """All that went into a model.

    Args:
        sources: models first, then data sets, in the order in which they came in.
        commands: the command lines that were run one after the other.
        license: of the model itself, as somebody stated it.
        language: codes such as `"en"`, as somebody stated them.
    """

    sources: list[Source] = field(default_factory=list)
    commands: list[str] = field(default_factory=list)
    license: str | None = None
    language: list[str] = field(default_factory=list)

    @classmethod
    def of_towers(cls, vision: str | Path, text: str | Path) -> "Provenance":
        """Describes a model that is put together from a CLIP and a BART."""
        sources = [Source.find("vision tower", vision), Source.find("language model", text)]
        return cls(sources, language=stated_languages(read_metadata(text)))

    @classmethod
    def of_checkpoint(cls, name: str | Path) -> "Provenance":
        """Describes a model that was loaded from a VLKD checkpoint; a folder's card tells what went into it before."""
        metadata, (shown, on_hub) = read_metadata(name), public_name(name)
        stated, language = as_list(metadata.get("license"))[:1], stated_languages(metadata)
        license = str(stated[0]) if stated and stated[0] != "unknown" else None
        if on_hub:  # its own repository tells the rest
            return cls([Source.find("checkpoint", name)], license=license, language=language)
        block = metadata.get(METADATA_KEY)
        block = block if isinstance(block, dict) else {}
        ids = [Source("base model", str(each), on_hub=True) for each in as_list(metadata.get("base_model"))]
        sources = [Source(**each) for each in as_list(block.get("made_from")) if is_source(each)]
        commands = [each for each in as_list(block.get("commands")) if isinstance(each, str)]
        return cls(sources or ids or [Source("checkpoint", shown)], commands, license, language)

    @classmethod
    def of_config(cls, config: Any) -> "Provenance":
        """Describes a model in memory by the names that it was loaded from, or its towers."""
        if config._name_or_path:
            return cls.of_checkpoint(config._name_or_path)
        vision, text = config.vision_config._name_or_path, config.text_config._name_or_path
        return cls.of_towers(vision, text) if vision and text else cls()

    @property
    def base_models(self) -> list[str]:
        """Hub ids of the models."""
        return self.ids_of(BASE_ROLES)

    @property
    def datasets(self) -> list[str]:
        """Hub ids of the data sets."""
        return self.ids_of(DATA_ROLES)

    def ids_of(self, roles: Sequence[str]) -> list[str]:
        return list(dict.fromkeys(source.name for source in self.sources if source.on_hub and source.role in roles))

    def add_source(self, source: Source):
        """Adds a source, once: a run that is resumed or goes on names the same again."""
        if source not in self.sources:
            self.sources.append(source)

    def as_metadata(self) -> dict[str, Any]:
        """What the next card reads; values that say nothing are left out."""
        made_from = [{name: value for name, value in asdict(source).items() if value} for source in self.sources]
        return {"made_from": made_from, "commands": list(self.commands)}


def public_name(name: str | Path) -> tuple[str, bool]:
    """Gives a name that may be published, and whether it is a Hub id: of a path, the last part.

    `name` may be one of open_clip's names too: `ViT-B-16:epoch_32.pt`, `hf-hub:laion/CLIP-ViT-B-32`.
    """
    path = Path(name).expanduser()
    if path.exists():
        return path.resolve().name if path.name in ("", "..") else path.name, False
    prefix, colon, rest = str(name).partition(":")
    if colon and "/" not in prefix:
        if prefix == "hf-hub":
            return rest, is_hub_id(rest)
        return (Path(rest).name if prefix == "local-dir" else f"{prefix}:{Path(rest).name}"), False
    return (str(name), True) if is_hub_id(str(name)) else (path.name, False)


def is_hub_id(name: str) -> bool:
    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return True


def is_source(entry: Any) -> bool:
    """Whether an entry of a card's metadata, which anybody may have edited, describes a source."""
    return (
        isinstance(entry, dict)
        and {"role", "name"} <= set(entry) <= set(Source.__dataclass_fields__)
        and all(isinstance(value, bool if name == "on_hub" else str) for name, value in entry.items())
    )


def as_list(value: Any) -> list:
    """A field of a card's metadata holds one value, several, or none."""
    return value if isinstance(value, list) else [] if value is None else [value]


def read_metadata(name: str | Path, repo_type: str = "model") -> dict[str, Any]:
    """Reads the metadata of a card: in a folder, or in the Hub's cache on this machine; nothing is downloaded.

    Returns:
        Nothing where there is no card, or one whose metadata cannot be read.
    """
    path = Path(name).expanduser()
    shown, on_hub = public_name(name)
    cards = [path / CARD_NAME]
    if on_hub:
        snapshots = Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=shown, repo_type=repo_type) / "snapshots"
        cards = sorted(snapshots.glob(f"*/{CARD_NAME}"), key=lambda card: card.stat().st_mtime, reverse=True)
    try:
        return metadata_load(cards[0]) or {} if cards and cards[0].is_file() else {}
    except (ValueError, OSError, yaml.YAMLError):
        return {}


def stated_license(metadata: dict[str, Any]) -> str | None:
    """Gives the licence that a card states, by the Hub's identifiers; of one of its own, the name."""
    names = [
        str(metadata.get("license_name") or each) if each == "other" else str(each)
        for each in as_list(metadata.get("license"))
    ]
    return ", ".join(name for name in names if name != "unknown") or None


def stated_languages(metadata: dict[str, Any]) -> list[str]:
    return [code for code in as_list(metadata.get("language")) if isinstance(code, str)]


def hide_folders(text: str) -> str:
    """Reduces paths within a text to their last part: where a user keeps files is nobody's business."""
    return FOLDERS.sub(r"\1", text)


def public_words(words: Sequence[str]) -> list[str]:
    """Gives the words of a command line without what is `UNTOLD`, and of paths the last part."""
    kept, option = [], ""
    for word in map(str, words):
        flag, value = "", word
        if word.startswith("--"):
            name, equals, value = word.partition("=")
            flag, option = name + equals, name.removeprefix("--").replace("-", "_")
        if option not in UNTOLD:
            kept.append(flag + public_value(option, value))
    return kept


def public_value(option: str, value: str) -> str:
    """Gives the value of an option as it may be published: Hub ids as they are, of a path the last part."""
    if "/" not in value or option in NAMES:
        return value
    if value.startswith(("{", "[")) or "=" in value:  # JSON, or settings such as `betas=(0.9,0.98),states=here/x`
        return hide_folders(value)
    shown, on_hub = public_name(value)
    if on_hub:
        return value if option in HUB_OPTIONS else Path(value).name
    return shown
