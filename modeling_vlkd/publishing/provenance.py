"""Where a model comes from, in the form in which it may be published: Hub ids and licenses, but no local paths."""

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
# The key of our block in a card's metadata. The card of a model that is made from this one goes on from it.
METADATA_KEY = "vlkd"
BASE_ROLES = ("vision tower", "language model", "base model", "checkpoint")
DATA_ROLES = (
    *("image-caption pairs", "replayed texts", "questions and answers"),
    *("texts with labels", "documents with summaries"),
)
# Options that a card leaves out: secret tokens, where and under which name the user logs the run, and
# --resume_from_checkpoint, because the command without it gives the same model in one run.
UNTOLD = {"hub_token", "push_to_hub_token", "run_name", "logging_dir", "project", "resume_from_checkpoint"}
UNTOLD |= {"trackio_space_id", "trackio_bucket_id", "trackio_static_space_id"}
# Options whose value is never a path, even if it has a slash.
NAMES = {"image_column", "caption_column", "split", "eval_split", "train_split", "metric_for_best_model", "message"}
# Options whose value may be a Hub id. In the value of any other option, a/b is a path.
HUB_OPTIONS = {"vision", "text", "checkpoint", "teacher", "dataset", "train_data", "eval_data", "hub_model_id"}
# The folders of a path at the beginning of a text or after one of = : , " ' and space, up to the last part:
# `/home/me/` in `path="/home/me/pictures"`. An address such as `https://host/a` is not matched.
FOLDERS = re.compile(r"""(^|[=:,"'\s])(?!//)(?:[^/:,="']*/)+(?=[^/:,="'\s])""")


@dataclass(frozen=True)
class Source:
    """A model or data set that went into a model.

    Args:
        role: what it was used as, such as one of `BASE_ROLES` or `DATA_ROLES`.
        name: its Hub id, or the last part of its path.
        on_hub: whether `name` is a Hub id.
        license: the license that its own card states; None if it is not known.
        note: anything else, such as the number of rows.
    """

    role: str
    name: str
    on_hub: bool = False
    license: str | None = None
    note: str = ""

    @classmethod
    def find(cls, role: str, name: str | Path, repo_type: str = "model", note: str = "") -> "Source":
        """Describe a folder, file or Hub id; its card is read if it is on this machine."""
        shown, on_hub = public_name(name)
        return cls(role, shown, on_hub, stated_license(read_metadata(name, repo_type)), note)


@dataclass
class Provenance:
    """All that a model was made from, and how.

    Args:
        sources: models first, then data sets, in the order in which they were used.
        commands: the command lines in the order in which they were run.
        license: the license of the model itself; None if nobody stated one.
        language: codes such as `"en"`; empty if nobody stated any.
    """

    sources: list[Source] = field(default_factory=list)
    commands: list[str] = field(default_factory=list)
    license: str | None = None
    language: list[str] = field(default_factory=list)

    @classmethod
    def of_towers(cls, vision: str | Path, text: str | Path) -> "Provenance":
        """Describe a model that is put together from a CLIP and a BART."""
        sources = [Source.find("vision tower", vision), Source.find("language model", text)]
        return cls(sources, language=stated_languages(read_metadata(text)))

    @classmethod
    def of_checkpoint(cls, name: str | Path) -> "Provenance":
        """Describe a model that was loaded from a VLKD checkpoint.

        The card in a checkpoint's folder tells what it was made from. A checkpoint on the Hub is the only source.
        """
        metadata, (shown, on_hub) = read_metadata(name), public_name(name)
        stated, language = as_list(metadata.get("license"))[:1], stated_languages(metadata)
        license = str(stated[0]) if stated and stated[0] != "unknown" else None
        if on_hub:  # a reader finds the rest in its repository
            return cls([Source.find("checkpoint", name)], license=license, language=language)
        block = metadata.get(METADATA_KEY)
        block = block if isinstance(block, dict) else {}
        ids = [Source("base model", str(each), on_hub=True) for each in as_list(metadata.get("base_model"))]
        sources = [Source(**each) for each in as_list(block.get("made_from")) if is_source(each)]
        commands = [each for each in as_list(block.get("commands")) if isinstance(each, str)]
        return cls(sources or ids or [Source("checkpoint", shown)], commands, license, language)

    @classmethod
    def of_config(cls, config: Any) -> "Provenance":
        """Describe a model in memory by the name that it, or each of its towers, was loaded from."""
        if config._name_or_path:
            return cls.of_checkpoint(config._name_or_path)
        vision, text = config.vision_config._name_or_path, config.text_config._name_or_path
        return cls.of_towers(vision, text) if vision and text else cls()

    @property
    def base_models(self) -> list[str]:
        """List the Hub ids of the models."""
        return self.ids_of(BASE_ROLES)

    @property
    def datasets(self) -> list[str]:
        """List the Hub ids of the data sets."""
        return self.ids_of(DATA_ROLES)

    def ids_of(self, roles: Sequence[str]) -> list[str]:
        """List the Hub ids of the sources with one of these roles, each once."""
        return list(dict.fromkeys(source.name for source in self.sources if source.on_hub and source.role in roles))

    def add_source(self, source: Source):
        """Add a source, unless it is there already: a run that is resumed adds the same sources again."""
        if source not in self.sources:
            self.sources.append(source)

    def as_metadata(self) -> dict[str, Any]:
        """Give the sources and commands as metadata for `of_checkpoint`; empty values are left out."""
        made_from = [{name: value for name, value in asdict(source).items() if value} for source in self.sources]
        return {"made_from": made_from, "commands": list(self.commands)}


def public_name(name: str | Path) -> tuple[str, bool]:
    """Give a name in the form in which it may be published, and tell whether it is a Hub id.

    Of a path, this is the last part. open_clip's names are understood, too: `ViT-B-16:/home/me/epoch_32.pt` becomes
    `ViT-B-16:epoch_32.pt`, and `hf-hub:laion/CLIP-ViT-B-32` becomes the Hub id `laion/CLIP-ViT-B-32`.
    """
    path = Path(name).expanduser()
    if path.exists():
        return path.resolve().name if path.name in ("", "..") else path.name, False  # "." and ".." have no name
    prefix, colon, rest = str(name).partition(":")
    if colon and "/" not in prefix:
        if prefix == "hf-hub":
            return rest, is_hub_id(rest)
        last = Path(rest).name
        return (last if prefix == "local-dir" else f"{prefix}:{last}"), False
    return (str(name), True) if is_hub_id(str(name)) else (path.name, False)


def is_hub_id(name: str) -> bool:
    """Tell whether a name has the form of a Hub id; the Hub is not asked."""
    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return True


def is_source(entry: Any) -> bool:
    """Tell whether an entry of a card's metadata describes a source; anybody may have edited the card."""
    return (
        isinstance(entry, dict)
        and {"role", "name"} <= set(entry) <= set(Source.__dataclass_fields__)
        and all(isinstance(value, bool if name == "on_hub" else str) for name, value in entry.items())
    )


def as_list(value: Any) -> list:
    """Make a list of a field of a card's metadata, which may hold one value, a list of values, or None."""
    if value is None:
        return []
    return value if isinstance(value, list) else [value]


def read_metadata(name: str | Path, repo_type: str = "model") -> dict[str, Any]:
    """Read the metadata of the card in a folder or, for a Hub id, in the cache on this machine. Nothing is downloaded.

    Returns:
        The metadata; empty if there is no card, or if its metadata cannot be read.
    """
    path = Path(name).expanduser()
    shown, on_hub = public_name(name)
    cards = [path / CARD_NAME]
    if on_hub:
        snapshots = Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=shown, repo_type=repo_type) / "snapshots"
        cards = sorted(snapshots.glob(f"*/{CARD_NAME}"), key=lambda card: card.stat().st_mtime, reverse=True)
    try:
        if not cards or not cards[0].is_file():
            return {}
        return metadata_load(cards[0]) or {}
    except (ValueError, OSError, yaml.YAMLError):
        return {}


def stated_license(metadata: dict[str, Any]) -> str | None:
    """Give the license that a card states: the Hub's identifier or, if this is `other`, its `license_name`."""
    names = [
        str(metadata.get("license_name") or each) if each == "other" else str(each)
        for each in as_list(metadata.get("license"))
    ]
    return ", ".join(name for name in names if name != "unknown") or None


def stated_languages(metadata: dict[str, Any]) -> list[str]:
    """Give the codes of the languages that a card states."""
    return [code for code in as_list(metadata.get("language")) if isinstance(code, str)]


def hide_folders(text: str) -> str:
    """Cut paths within a text down to their last part, because the user's folders are private."""
    return FOLDERS.sub(r"\1", text)


def public_words(words: Sequence[str]) -> list[str]:
    """Give the words of a command line in the form in which they may be published.

    Options in `UNTOLD` are left out with their values, and paths are cut down to their last part: `--seed 1
    --run_name mine --dataset /home/me/pictures` becomes `--seed 1 --dataset pictures`.
    """
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
    """Give an option's value in the form in which it may be published: a Hub id whole, of a path the last part."""
    if "/" not in value or option in NAMES:
        return value
    if value.startswith(("{", "[")) or "=" in value:  # JSON, or settings such as `betas=(0.9,0.98),states=here/x`
        return hide_folders(value)
    shown, on_hub = public_name(value)
    if on_hub:
        return value if option in HUB_OPTIONS else Path(value).name
    return shown
