"""Publishes a checkpoint's folder on the Hub: one commit with all that is needed to load the model, and a tag."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, ModelCard, ModelInfo, constants
from huggingface_hub.errors import (
    HfHubHTTPError,
    HFValidationError,
    HTTPError,  # of the HTTP library below huggingface_hub, which differs between its versions
    LocalTokenNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
)
from huggingface_hub.utils import validate_repo_id

from .card_checks import addressed
from .errors import PublishError, first_line
from .shareable import Shareable, find_shareable


TOKENS = "https://huggingface.co/settings/tokens"
# The name of a tag, such as `v1.0`. git allows neither `a..b` nor `v1.lock`, and takes `-f` for an option.
TAG = re.compile(r"(?!.*\.\.)(?!.*\.lock$)[A-Za-z0-9]([\w.+-]*[\w+-])?")
# Weights of an earlier commit, such as `model-00001-of-00002.safetensors`, `pytorch_model.bin.index.json` and
# `adapter_config.json`. If they stayed, they might be loaded instead of the new ones or on top of them.
OLD_WEIGHTS = re.compile(
    r"(model|pytorch_model|adapter_model)\b.*\.(safetensors|bin)(\.index\.json)?|adapter_config\.json"
)


@dataclass(frozen=True)
class Published:
    """What is on the Hub now.

    repo_id, url: the name and the address of the repository.
    commit: 40 hexadecimal digits.
    tag: the name of the new tag, or None.
    private: whether the repository is private.
    changed: False if the repository had exactly these files before.
    removed: files with weights of an earlier commit, which this commit removed.
    content: what was published of the folder.
    """

    repo_id: str
    url: str
    commit: str
    tag: str | None
    private: bool
    changed: bool
    removed: list[str]
    content: Shareable


def publish(
    folder: str | Path,
    repo_id: str,
    *,
    tag: str | None = None,
    private: bool = False,
    message: str | None = None,
    token: str | None = None,
) -> Published:
    """Publish a checkpoint as a model on the Hub, in one commit.

    All checks are made before anything is uploaded. An upload that breaks off leaves no commit and no tag, but maybe a
    new repository without the model. Repeating the call then uploads only the files that have not arrived.

    Args:
        folder: a checkpoint with its card, as `vlkd distill`, `finetune`, `convert` and `demo` write it.
            `find_shareable` chooses the files that are published.
        repo_id: `user/name`; the repository is made if there is none.
        tag: a name for this version, which must be new.
        private: make a new repository private.
        message: the message of the commit; "Upload NAME-OF-CLASS" by default.
        token: a token with the right to write; by default that of `hf auth login` or `HF_TOKEN`.

    Raises:
        PublishError: with what to do. Nothing was published, unless the message says that only the tag is missing.
    """
    folder = Path(folder)
    check_names(repo_id, tag)
    content = find_shareable(folder)
    # True stands for the token of the login, and is used even if HF_HUB_DISABLE_IMPLICIT_TOKEN is set.
    api = HfApi(token=True if token is None else token)
    with explained(repo_id):
        check_rights(api, repo_id)
        check_card_on_hub(folder / "README.md")
        if find_repo(api, repo_id, private, tag) is None:
            # None instead of False leaves it to the Hub, because an organization may have its own default.
            api.create_repo(repo_id, private=private or None, exist_ok=True)
        before = api.model_info(repo_id)
        removed = [name for name in names_in(before) if OLD_WEIGHTS.fullmatch(name) and name not in content.files]
        commit = api.create_commit(
            repo_id,
            additions(folder, content, repo_id) + [CommitOperationDelete(name) for name in removed],
            commit_message=message or f"Upload {content.architecture}",
            parent_commit=before.sha,  # refused if somebody else committed meanwhile
        )
        if absent := set(content.files) - set(names_in(api.model_info(repo_id, revision=commit.oid))):
            raise PublishError(f"{repo_id} ignores {min(absent)}; look at its .gitignore.")
    if tag is not None:
        with explained(f"the tag {tag} of {repo_id}, whose commit {commit.oid[:7]} is there; repeat the command"):
            api.create_tag(repo_id, tag=tag, revision=commit.oid)
    url = f"{api.endpoint}/{repo_id}"
    changed = commit.oid != before.sha
    return Published(repo_id, url, commit.oid, tag, bool(before.private), changed, removed, content)


def check_names(repo_id: str, tag: str | None):
    """Refuse names of a repository or tag that the Hub would refuse or misunderstand."""
    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        raise PublishError(f"{repo_id!r} is no name of a repository: {first_line(error)}") from error
    if "/" not in repo_id:
        raise PublishError(f"{repo_id!r} does not name an owner; give USER/{repo_id}.")
    if tag is not None and not TAG.fullmatch(tag):
        raise PublishError(f"{tag!r} is no name of a tag; use letters, digits, dots and dashes, as in v1.0.")


def additions(folder: Path, content: Shareable, repo_id: str) -> list[CommitOperationAdd]:
    """List the files to upload; only the card is changed, so that it loads the model from this repository."""
    card = (folder / "README.md").read_bytes().decode()  # as bytes, because `read_text` would change the line ends
    files: dict[str, Path | bytes] = {name: folder / name for name in content.files}
    files["README.md"] = addressed(card, repo_id).encode()
    return [CommitOperationAdd(name, file) for name, file in files.items()]


def names_in(info: ModelInfo) -> list[str]:
    """List the paths of the files in a repository."""
    return [sibling.rfilename for sibling in info.siblings or []]


def check_rights(api: HfApi, repo_id: str):
    """Ask the Hub whose token is used; refuse it if it cannot write to repositories of this owner."""
    try:
        me = api.whoami()
    except LocalTokenNotFoundError as error:
        raise PublishError(f"There is no token: run `hf auth login` with a write token from {TOKENS}.") from error
    role = (me.get("auth") or {}).get("accessToken", {}).get("role")
    if role == "read":
        raise PublishError(
            f"The token of {me['name']} can only read; run `hf auth login` with one from {TOKENS} that writes."
        )
    owner, _, name = repo_id.partition("/")
    if owner not in (known := [me["name"], *(organization["name"] for organization in me.get("orgs", []))]):
        raise PublishError(
            f"{repo_id} is not {me['name']}'s to write to; give {' or '.join(f'{each}/{name}' for each in known)}."
        )


def check_card_on_hub(path: Path):
    """Let the Hub check the metadata of the card; it knows which licenses, tasks and languages there are."""
    try:
        ModelCard.load(path).validate()
    except HfHubHTTPError:
        raise
    except ValueError as error:
        # The Hub answers in JSON, such as {"errors": [{"message": "\"license\" must be one of [apache-2.0, mit]"}]}.
        messages = re.findall(r'"message":\s*"((?:[^"\\]|\\.)*)"', str(error)) or [first_line(error)]
        raise PublishError(f"{path}: the Hub refuses its metadata: {'; '.join(messages):.300}") from error


def find_repo(api: HfApi, repo_id: str, private: bool, tag: str | None) -> ModelInfo | None:
    """Find the repository; refuse to make a public one private, and refuse a tag that it has already."""
    try:
        info = api.model_info(repo_id)
    except RepositoryNotFoundError:
        return None
    if private and not info.private:
        raise PublishError(
            f"{repo_id} is public already; choose another name, or make it private in its settings first."
        )
    if tag is not None:
        refs = api.list_repo_refs(repo_id)
        for ref in [*refs.tags, *refs.branches]:
            if ref.name == tag:
                raise PublishError(
                    f"{repo_id} has a {ref.ref} at {ref.target_commit[:7]} already; choose another tag."
                )
    return info


@contextmanager
def explained(what: str) -> Iterator[None]:
    """Turn the errors of the Hub's client into one line that says what to do.

    Args:
        what: what is being published, for the message.
    """
    try:
        yield
    except PublishError:
        raise
    except OfflineModeIsEnabled as error:
        raise PublishError("Nothing can be published while HF_HUB_OFFLINE is set; unset it.") from error
    except (HTTPError, OSError, RuntimeError, ValueError) as error:
        # If a large file does not arrive, the client raises a RuntimeError. The error that caused it says more.
        cause = error.__cause__ if isinstance(error, RuntimeError) and error.__cause__ else error
        raise PublishError(f"Publishing {what} failed: {reason_of(cause)}.") from error


def reason_of(error: BaseException) -> str:
    """Say in one line why a request failed, and what to do."""
    if isinstance(error, OSError) and error.filename:
        return f"{error.strerror}: {error.filename}"
    if not isinstance(error, HfHubHTTPError):
        said = first_line(error) if isinstance(error, Exception) else str(error)
        return (
            f"{said.rstrip('.')} ({type(error).__name__}); look at the connection to {constants.ENDPOINT} and repeat"
        )
    status = error.response.status_code
    said = (error.server_message or first_line(error)).rstrip(".")
    remedies = {
        401: f"the token is not valid; run `hf auth login` with one from {TOKENS}",
        403: f"{said}; use a token from {TOKENS} that may write there",
        412: "somebody else committed at the same time; look at what is there, and repeat",
        429: "too many requests; wait, and repeat",
    }
    return remedies.get(status, f"the Hub answered {status} ({said}); repeat later")
