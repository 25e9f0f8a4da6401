"""Publishing with the real client to a Hub on loopback; tests/test_push.py loads what was published."""

import hashlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from huggingface_hub import HfApi, constants
from huggingface_hub.errors import RepositoryNotFoundError
from loopback_http import Fault
from loopback_hub import LoopbackHub
from tiny_card import CARD, shareable_copy

from modeling_vlkd import VLKDForConditionalGeneration
from modeling_vlkd.publishing import publish as module
from modeling_vlkd.publishing.errors import PublishError


TOKENS = {"hf_write": ("alice", "write"), "hf_read": ("alice", "read"), "hf_bob": ("bob", "write")}
publish = partial(module.publish, token="hf_write")


@pytest.fixture
def hub(monkeypatch, tmp_path) -> Iterator[LoopbackHub]:
    """Start a Hub for one test; the client knows no other Hub and no login."""
    with LoopbackHub(TOKENS) as hub:
        monkeypatch.setattr(constants, "ENDPOINT", hub.hub.url)
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no_login"))
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.delenv("HF_TOKEN", raising=False)
        for name in ("NO_PROXY", "no_proxy"):
            monkeypatch.setenv(name, "127.0.0.1")
        monkeypatch.setattr("time.sleep", lambda seconds: None)  # between the client's own repetitions
        yield hub


@pytest.fixture
def folder(tiny_checkpoint: Path, tmp_path: Path) -> Path:
    return shareable_copy(tiny_checkpoint, tmp_path / "tiny")


@pytest.fixture
def sharded(folder: Path, tmp_path: Path) -> Path:
    """Save the same model in several files."""
    copy = shareable_copy(folder, tmp_path / "sharded")
    (copy / "model.safetensors").unlink()
    VLKDForConditionalGeneration.from_pretrained(folder).save_pretrained(copy, max_shard_size="40KB")
    return copy


def weights(names) -> set[str]:
    return {name for name in names if ".safetensors" in name}


def test_one_commit_with_a_tag(hub: LoopbackHub, folder: Path):
    (folder / "training_args.bin").write_bytes(b"private")
    published = publish(folder, "alice/tiny", tag="v1.0")
    repo = hub.repos["alice/tiny"]
    assert len(repo.commits) == 2  # the first one is the Hub's, made with the repository
    assert repo.tags == {"v1.0": published.commit}
    assert set(repo.files) == {".gitattributes", *published.content.files}
    assert {name: repo.files[name].content for name in published.content.files} == {
        name: (folder / name).read_bytes() for name in published.content.files
    }
    assert published.url == f"{hub.hub.url}/alice/tiny"
    assert published.changed
    assert not published.private
    assert published.content.left_out == ["training_args.bin"]


def test_weights_of_before_are_removed_in_the_same_commit(hub: LoopbackHub, folder: Path, sharded: Path):
    publish(sharded, "alice/tiny", tag="v1")
    repo = hub.repos["alice/tiny"]
    of_before = weights(repo.files)
    assert len(of_before) > 2
    repo.commit("main", {**repo.files, "notes.txt": repo.files["README.md"]})  # by hand, in the browser

    published = publish(folder, "alice/tiny", tag="v2")
    assert set(published.removed) == of_before
    assert weights(repo.files) == {"model.safetensors"}
    assert "notes.txt" in repo.files
    assert weights(repo.commits[repo.tags["v1"]]) == of_before
    assert len(repo.commits) == 4


def test_card_is_published_with_the_address_of_its_repository(hub: LoopbackHub, folder: Path):
    line = 'name = "tiny"  # the id of this repository, or the folder where it lies\n'
    (folder / "README.md").write_text(CARD + line)
    publish(folder, "alice/tiny")
    assert 'name = "alice/tiny"  #' in hub.repos["alice/tiny"].files["README.md"].content.decode()
    assert (folder / "README.md").read_text() == CARD + line


def test_publishing_the_same_again_changes_nothing_but_tags(hub: LoopbackHub, folder: Path):
    first = publish(folder, "alice/tiny")
    again = publish(folder, "alice/tiny", tag="v1.0")
    assert not again.changed
    assert again.commit == first.commit == hub.repos["alice/tiny"].tags["v1.0"]
    assert len(hub.sent("PUT", "/put/")) == 1


def test_large_files_go_in_parts(hub: LoopbackHub, folder: Path):
    hub.part_size = 50_000
    publish(folder, "alice/tiny")
    size = (folder / "model.safetensors").stat().st_size
    assert len(hub.sent("PUT", "/put/")) == -(-size // 50_000)
    assert hub.repos["alice/tiny"].files["model.safetensors"].content == (folder / "model.safetensors").read_bytes()


def test_existing_tag_or_branch_is_refused_before_anything_is_sent(hub: LoopbackHub, folder: Path, sharded: Path):
    publish(folder, "alice/tiny", tag="v1.0")
    hub.seen.clear()
    for name in ("v1.0", "main"):
        with pytest.raises(PublishError, match=rf"has a refs/\w+/{name} at \w+ already; choose another tag"):
            publish(sharded, "alice/tiny", tag=name)
    assert not hub.sent("PUT", "") + hub.sent("POST", "/commit/")


def test_private_repository_is_seen_by_its_owner_only(hub: LoopbackHub, folder: Path):
    assert publish(folder, "alice/tiny", private=True).private
    assert HfApi(token="hf_read").model_info("alice/tiny").private
    for token in (False, "hf_bob"):
        with pytest.raises(RepositoryNotFoundError):
            HfApi(token=token).model_info("alice/tiny")
    assert publish(folder, "alice/tiny").private  # it stays private


def test_public_repository_does_not_become_private(hub: LoopbackHub, folder: Path):
    publish(folder, "alice/tiny")
    with pytest.raises(PublishError, match="is public already; choose another name"):
        publish(folder, "alice/tiny", private=True)


@pytest.mark.parametrize(
    ("repo_id", "token", "message"),
    [
        ("alice/tiny", None, "There is no token: run `hf auth login` with a write token"),
        ("alice/tiny", "hf_wrong", "the token is not valid; run `hf auth login`"),
        ("alice/tiny", "hf_read", "The token of alice can only read"),
        ("alice/tiny", "hf_bob", "alice/tiny is not bob's to write to; give bob/tiny"),
    ],
)
def test_without_the_right_to_write_nothing_happens(repo_id, token, message, hub: LoopbackHub, folder: Path):
    with pytest.raises(PublishError, match=message):
        publish(folder, repo_id, token=token)
    assert not hub.repos


def test_token_of_a_login_is_used(hub: LoopbackHub, folder: Path, monkeypatch):
    Path(constants.HF_TOKEN_PATH).write_text("hf_write")
    # This is meant for downloads; publishing must send the token all the same.
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_IMPLICIT_TOKEN", True)
    publish(folder, "alice/tiny", token=None)
    assert "README.md" in hub.repos["alice/tiny"].files


@pytest.mark.parametrize(
    ("repo_id", "tag", "message"),
    [
        ("tiny", None, "'tiny' does not name an owner; give USER/tiny"),
        ("alice/tiny/1", None, "'alice/tiny/1' is no name of a repository"),
        ("alice/ti ny", None, "'alice/ti ny' is no name of a repository"),
        ("alice/tiny", "v 1", "'v 1' is no name of a tag"),
        ("alice/tiny", "", "'' is no name of a tag"),
        ("alice/tiny", "-f", "'-f' is no name of a tag"),
        ("alice/tiny", "a..b", "'a..b' is no name of a tag"),
        ("alice/tiny", "v1.lock", r"'v1\.lock' is no name of a tag"),
    ],
)
def test_names_that_the_hub_would_not_take_are_refused(repo_id, tag, message, hub: LoopbackHub, folder: Path):
    with pytest.raises(PublishError, match=message):
        publish(folder, repo_id, tag=tag)
    assert not hub.seen


def test_folder_that_nobody_could_load_is_refused_before_the_hub_is_asked(hub: LoopbackHub, folder: Path):
    (folder / "pipeline_vlkd.py").unlink()
    with pytest.raises(PublishError, match="lacks pipeline_vlkd"):
        publish(folder, "alice/tiny")
    assert not hub.seen


def test_card_that_the_hub_refuses_leaves_no_repository(hub: LoopbackHub, folder: Path):
    (folder / "README.md").write_text(CARD.replace("apache-2.0", "my-own"))
    with pytest.raises(PublishError, match=r"README.md: the Hub refuses its metadata: .*license.* must be one of"):
        publish(folder, "alice/tiny")
    assert not hub.repos


def test_upload_cut_in_the_middle_is_repeated_without_what_arrived(hub: LoopbackHub, sharded: Path):
    sizes = {path.stat().st_size for path in sharded.glob("*.safetensors")}
    largest = max(sharded.glob("*.safetensors"), key=lambda path: path.stat().st_size)
    api = HfApi(token="hf_write")
    # The client tries each file six times. Every attempt fails, so it does not matter which file comes first.
    hub.faults.append(Fault("PUT", "/put/", cut=1000, times=100))
    with pytest.raises(
        PublishError, match=r"Publishing alice/tiny failed: .*; look at the connection to .* and repeat"
    ):
        publish(sharded, "alice/tiny", tag="v1.0")
    assert set(hub.repos["alice/tiny"].files) == {".gitattributes"}
    assert not api.list_repo_refs("alice/tiny").tags

    hub.faults[:] = [Fault("PUT", sha256_of(largest), cut=1000, times=100)]
    with pytest.raises(PublishError):
        publish(sharded, "alice/tiny", tag="v1.0")
    arrived = {len(content) for content in hub.stored.values()}
    assert arrived == sizes - {largest.stat().st_size}
    assert set(hub.repos["alice/tiny"].files) == {".gitattributes"}

    hub.faults.clear()
    hub.seen.clear()
    published = publish(sharded, "alice/tiny", tag="v1.0")
    assert hub.sent("PUT", "/put/") == [largest.stat().st_size]
    assert weights(hub.repos["alice/tiny"].files) == weights(published.content.files)
    assert hub.repos["alice/tiny"].tags == {"v1.0": published.commit}


def sha256_of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (Fault("GET", "/whoami", status=500, times=9), "the Hub answered 500 .* repeat later"),
        (Fault("GET", "/whoami", status=429, times=9), "too many requests; wait, and repeat"),
        (Fault("POST", "/validate-yaml", status=503, times=9), "the Hub answered 503"),
        (Fault("POST", "/repos/create", status=403), "out of order; use a token from .* that may write there"),
        (Fault("POST", "/preupload/", status=502, times=9), "the Hub answered 502"),
        (Fault("POST", "/objects/batch", status=401), "the token is not valid"),
        (Fault("PUT", "/put/", status=500, times=9), "the Hub answered 500"),
        (Fault("POST", "/verify", status=404), "the Hub answered 404"),
        (Fault("POST", "/commit/", cut=1000), "look at the connection"),
    ],
    ids=str,
)
def test_trouble_is_told_in_one_line_and_leaves_no_commit(fault: Fault, message: str, hub: LoopbackHub, folder: Path):
    hub.faults.append(fault)
    with pytest.raises(PublishError, match=f"^Publishing alice/tiny failed: .*{message}") as caught:
        publish(folder, "alice/tiny", tag="v1.0")
    assert "\n" not in str(caught.value)
    for repo in hub.repos.values():
        assert set(repo.files) == {".gitattributes"}
        assert not repo.tags


def test_what_somebody_else_commits_meanwhile_is_not_overwritten(hub: LoopbackHub, folder: Path, monkeypatch):
    create_commit = HfApi.create_commit

    def too_late(api: HfApi, repo_id: str, *args, **kwargs):
        repo = hub.repos[repo_id]
        repo.commit("main", {**repo.files, "model.safetensors": repo.files[".gitattributes"]})
        return create_commit(api, repo_id, *args, **kwargs)

    monkeypatch.setattr(HfApi, "create_commit", too_late)
    with pytest.raises(PublishError, match="somebody else committed at the same time"):
        publish(folder, "alice/tiny", tag="v1.0")
    assert set(hub.repos["alice/tiny"].files) == {".gitattributes", "model.safetensors"}
    assert not hub.repos["alice/tiny"].tags


def test_tag_that_fails_is_all_that_a_repetition_adds(hub: LoopbackHub, folder: Path):
    hub.faults.append(Fault("POST", "/tag/", status=500))
    with pytest.raises(PublishError, match=r"Publishing the tag v1.0 of alice/tiny, whose commit \w{7} is there"):
        publish(folder, "alice/tiny", tag="v1.0")
    published = publish(folder, "alice/tiny", tag="v1.0")
    assert not published.changed
    assert hub.repos["alice/tiny"].tags == {"v1.0": published.commit}


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (ConnectionError("Network error: 403"), r"Network error: 403 \(ConnectionError\); look at the connection"),
        (PermissionError(13, "Permission denied", "config.json"), r"failed: Permission denied: config.json\.$"),
    ],
)
def test_what_other_parts_of_the_client_raise_is_told(
    error, message: str, hub: LoopbackHub, folder: Path, monkeypatch
):
    """The code that uploads to Xet, for example, is not written in python and raises errors of its own."""

    def fail(*_, **__):
        raise error

    monkeypatch.setattr(HfApi, "create_commit", fail)
    with pytest.raises(PublishError, match=message):
        publish(folder, "alice/tiny")


def test_unreachable_hub_is_told(folder: Path, monkeypatch):
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(PublishError, match=r"look at the connection to http://127\.0\.0\.1:9"):
        publish(folder, "alice/tiny")
