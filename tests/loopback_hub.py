"""A Hub on 127.0.0.1 for the real `huggingface_hub` client; it can do what pushing and pulling models over LFS needs.

Like the real Hub it has two servers: the Hub itself, and a storage for large files, which accepts signed links and
refuses tokens. Everything is kept in memory. Tests see in `repos` and `seen` what arrived, and `faults` make requests
fail.

    with LoopbackHub({"hf_write": ("alice", "write"), "hf_read": ("alice", "read")}) as hub:
        subprocess.run(["vlkd", "push", ...], env=hub.environment(home, token="hf_write"))
"""

import base64
import hashlib
import json
import os
import secrets
from pathlib import Path
from threading import Lock, Thread
from typing import Any
from urllib.parse import parse_qs

import yaml
from huggingface_hub.repocard import REGEX_YAML_BLOCK
from loopback_git import Blob, Repo
from loopback_http import HttpError, LoopbackHandler, LoopbackServer


LFS_SUFFIXES = (".safetensors", ".bin", ".model", ".png")
LICENSES = ["apache-2.0", "mit", "other", "unknown"]


class LoopbackHub:
    """The state of both servers, which run while it is entered.

    Args:
        tokens: for each token the name of its user, and `"read"` or `"write"`.
        part_size: files with more bytes than this are uploaded in parts of this size.
    """

    def __init__(self, tokens: dict[str, tuple[str, str]], part_size: int = 5_000_000):
        self.tokens, self.part_size = tokens, part_size
        self.repos: dict[str, Repo] = {}
        self.stored: dict[str, bytes] = {}  # large files by their sha256
        self.uploads: dict[str, dict[int, bytes]] = {}  # parts, by the sha256 of the whole file
        self.signature = secrets.token_hex(8)
        self.lock = Lock()
        self.hub, self.storage = LoopbackServer(HubHandler, self), LoopbackServer(StorageHandler, self)
        self.seen, self.faults = self.hub.seen, self.hub.faults
        self.storage.seen, self.storage.faults = self.seen, self.faults

    def __enter__(self) -> "LoopbackHub":
        for server in (self.hub, self.storage):
            Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: Any):
        for server in (self.hub, self.storage):
            server.shutdown()
            server.server_close()

    def environment(self, home: Path, token: str | None = None, **more: str) -> dict[str, str]:
        """Make the environment of a process that knows only this Hub; its cache and its login are in `home`."""
        others = ("HF_", "HUGGING", "TRANSFORMERS_")
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(others)}
        own = {"HF_ENDPOINT": self.hub.url, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1", "OMP_NUM_THREADS": "1"}
        own |= {"HF_HUB_DISABLE_TELEMETRY": "1", "DISABLE_SAFETENSORS_CONVERSION": "1"}
        own |= dict.fromkeys(("NO_PROXY", "no_proxy"), "127.0.0.1")
        return {**inherited, **own, **({"HF_TOKEN": token} if token else {}), **more}

    def store(self, sha: str, content: bytes):
        """Keep a large file; refuse it if its sha256 is not the announced one."""
        if hashlib.sha256(content).hexdigest() != sha:
            raise HttpError(400, "the content is not what was announced")
        self.stored[sha] = content

    def sent(self, method: str, part_of_path: str) -> list[int]:
        """List the sizes of the bodies of all requests of this kind, in the order of their arrival."""
        return [each.size for each in self.seen if each.method == method and part_of_path in each.path]


def metadata(card: str) -> dict[str, Any]:
    """Read the metadata of a card, between its first two lines of three dashes."""
    block = REGEX_YAML_BLOCK.match(card)
    return yaml.safe_load(block[2]) if block else {}


class HubHandler(LoopbackHandler):
    """The Hub itself. Each route names the method that answers; the words in braces become its arguments."""

    ROUTES = (
        ("GET", "/api/whoami-v2", "whoami"),
        ("POST", "/api/validate-yaml", "validate_card"),
        ("POST", "/api/repos/create", "create"),
        ("GET", "/api/models/{repo}", "info"),
        ("GET", "/api/models/{repo}/revision/{revision}", "info"),
        ("GET", "/api/models/{repo}/refs", "refs"),
        ("GET", "/api/models/{repo}/tree/{revision}", "tree"),
        ("GET", "/api/models/{repo}/tree/{revision}/{path}", "tree"),
        ("POST", "/api/models/{repo}/paths-info/{revision}", "paths_info"),
        ("POST", "/api/models/{repo}/preupload/{revision}", "preupload"),
        ("POST", "/{repo}.git/info/lfs/objects/batch", "lfs_batch"),
        ("POST", "/{repo}.git/info/lfs/complete", "lfs_complete"),
        ("POST", "/{repo}.git/info/lfs/verify", "lfs_verify"),
        ("POST", "/api/models/{repo}/commit/{revision}", "commit"),
        ("POST", "/api/models/{repo}/tag/{revision}", "tag"),
        ("GET", "/{repo}/resolve/{revision}/{path}", "resolve"),
    )

    # ---- rights ----

    def authenticate(self):
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if token and token not in self.state.tokens:
            raise HttpError(401, "Invalid credentials in Authorization header")
        self.user, self.role = self.state.tokens.get(token, (None, None))

    def repo(self, name: str) -> Repo:
        found = self.state.repos.get(name)
        if found is None or (found.private and name.split("/")[0] != self.user):
            raise HttpError(404 if self.user else 401, "Repository not found", "RepoNotFound")
        return found

    def writable(self, name: str) -> Repo:
        found = self.repo(name)
        self.demand_writing(name.split("/")[0])
        return found

    def demand_writing(self, namespace: str):
        if self.user is None:
            raise HttpError(401, "Invalid username or password.")
        if self.role != "write" or namespace != self.user:
            raise HttpError(403, f"You don't have the rights to write to the namespace {namespace}")

    def whoami(self):
        if self.user is None:
            raise HttpError(401, "Invalid username or password.")
        token = {"displayName": f"{self.user}'s token", "role": self.role}
        self.send_json({"type": "user", "name": self.user, "orgs": [], "auth": {"accessToken": token}})

    # ---- repositories ----

    def create(self):
        asked = self.json()
        namespace = asked.get("organization") or self.user
        self.demand_writing(namespace)
        name = f"{namespace}/{asked['name']}"
        url = f"{self.state.hub.url}/{name}"
        if name in self.state.repos:
            return self.send_json({"error": "You already created this model repo", "url": url}, 409)
        self.state.repos[name] = repo = Repo(private=asked.get("visibility") == "private")
        repo.commit("main", {".gitattributes": Blob(b"*.safetensors filter=lfs\n", large=False)})
        self.send_json({"url": url, "name": name})

    def info(self, repo: str, revision: str = "main"):
        found = self.repo(repo)
        oid = found.find(revision)
        files = found.commits[oid]
        card = metadata(files["README.md"].content.decode()) if "README.md" in files else {}
        times = dict.fromkeys(("createdAt", "lastModified"), "2026-01-01T00:00:00.000Z")
        siblings = [{"rfilename": path} for path in sorted(files)]
        about = {"id": repo, "modelId": repo, "sha": oid, "private": found.private, "siblings": siblings, **times}
        self.send_json({**about, "tags": [], "cardData": card, "pipeline_tag": card.get("pipeline_tag")})

    def refs(self, repo: str):
        found = self.repo(repo)
        lists = {"branches": ("refs/heads/", found.branches), "tags": ("refs/tags/", found.tags)}
        named = {
            kind: [{"name": name, "ref": prefix + name, "targetCommit": oid} for name, oid in references.items()]
            for kind, (prefix, references) in lists.items()
        }
        self.send_json({**named, "converts": []})

    def tree(self, repo: str, revision: str, path: str = ""):
        found = self.repo(repo)
        files = {name: blob for name, blob in found.commits[found.find(revision)].items() if name.startswith(path)}
        if not files:
            raise HttpError(404, f"{path} does not exist", "EntryNotFound")
        self.send_json([blob.description(name) for name, blob in sorted(files.items())])

    def paths_info(self, repo: str, revision: str):
        found = self.repo(repo)
        files = found.commits[found.find(revision)]
        asked = parse_qs(self.body.decode()).get("paths", [])
        self.send_json([files[path].description(path) for path in asked if path in files])

    def tag(self, repo: str, revision: str):
        found, name = self.writable(repo), self.json()["tag"]
        if name in found.tags:
            raise HttpError(409, f"Reference already exists: {name}")
        found.tags[name] = found.find(revision)
        self.send_json({})

    # ---- pushing ----

    def validate_card(self):
        try:
            data = metadata(self.json()["content"])
            errors = [] if data.get("license", "unknown") in LICENSES else [f'"license" must be one of {LICENSES}']
        except yaml.YAMLError as error:
            errors = [f"YAML: {error}"]
        answer = {"errors": [{"message": message} for message in errors], "warnings": []}
        self.send_json(answer, 400 if errors else 200)

    def preupload(self, repo: str, revision: str):
        found = self.writable(repo)
        files, answers = found.commits[found.find(revision)], []
        for asked in self.json()["files"]:
            path, old = asked["path"], files.get(asked["path"])
            oid = None if old is None else old.sha256 if old.large else old.oid
            mode = "lfs" if path.endswith(LFS_SUFFIXES) else "regular"
            answers.append({"path": path, "uploadMode": mode, "shouldIgnore": False, "oid": oid})
        self.send_json({"files": answers})

    def lfs_batch(self, repo: str):
        self.writable(repo)
        self.send_json({"objects": [self.lfs_object(repo, asked) for asked in self.json()["objects"]]})

    def lfs_object(self, repo: str, asked: dict[str, Any]) -> dict[str, Any]:
        """Tell where to upload a large file, in one piece or in parts; no place is told if it is there already."""
        sha, size, lfs = asked["oid"], asked["size"], f"{self.state.hub.url}/{repo}.git/info/lfs"
        if sha in self.state.stored:
            return {"oid": sha, "size": size}
        link = f"{self.state.storage.url}/put/{sha}/{{}}?signature={self.state.signature}"
        upload: dict[str, Any] = {"href": link.format(0)}
        if size > self.state.part_size:
            parts = {str(part): link.format(part) for part in range(1, -(-size // self.state.part_size) + 1)}
            upload = {"href": f"{lfs}/complete", "header": {"chunk_size": str(self.state.part_size), **parts}}
        return {"oid": sha, "size": size, "actions": {"upload": upload, "verify": {"href": f"{lfs}/verify"}}}

    def lfs_complete(self, repo: str):
        asked = self.json()
        parts = self.state.uploads.pop(asked["oid"])
        self.state.store(asked["oid"], b"".join(parts[part["partNumber"]] for part in asked["parts"]))
        self.send_json({})

    def lfs_verify(self, repo: str):
        self.writable(repo)
        if len(self.state.stored.get(self.json()["oid"], b"")) != self.json()["size"]:
            raise HttpError(404, "object not found")
        self.send_json({})

    def commit(self, repo: str, revision: str):
        found = self.writable(repo)
        lines = [json.loads(line) for line in self.body.splitlines() if line]
        with self.state.lock:
            parent = found.find(revision)
            if lines[0]["value"].get("parentCommit", parent) != parent:
                raise HttpError(412, "A commit has happened since. Please refresh and try again.")
            files = dict(found.commits[parent])
            for line in lines[1:]:
                self.apply(files, line["key"], line["value"])
            oid = found.commit(revision, files)
        self.send_json({"commitOid": oid, "commitUrl": f"{self.state.hub.url}/{repo}/commit/{oid}"})

    def apply(self, files: dict[str, Blob], operation: str, value: dict[str, Any]):
        path = value["path"]
        if operation == "file":
            files[path] = Blob(base64.b64decode(value["content"]), large=False)
        elif operation == "lfsFile" and value["oid"] in self.state.stored:
            files[path] = Blob(self.state.stored[value["oid"]], large=True)
        elif operation == "deletedFile" and path in files:
            del files[path]
        else:
            raise HttpError(400, f"{operation} {path}: there is no such file")

    # ---- pulling ----

    def resolve(self, repo: str, revision: str, path: str):
        found = self.repo(repo)
        oid = found.find(revision)
        headers = {"X-Repo-Commit": oid}
        blob = found.commits[oid].get(path)
        if blob is None:
            raise HttpError(404, "Entry not found", "EntryNotFound", headers)
        headers["ETag"] = f'"{blob.oid}"'
        if not blob.large:
            return self.send_range(blob.content, headers)
        link = f"{self.state.storage.url}/get/{blob.sha256}?signature={self.state.signature}"
        headers |= {"X-Linked-Etag": f'"{blob.sha256}"', "X-Linked-Size": str(len(blob.content)), "Location": link}
        self.send(b"", 302, headers)


class StorageHandler(LoopbackHandler):
    """The storage for large files. Its links are signed; it is an error if a client sends its token here."""

    ROUTES = (("GET", "/get/{sha}", "get"), ("PUT", "/put/{sha}/{part}", "put"))

    def authenticate(self):
        if "Authorization" in self.headers:
            raise HttpError(400, "Only one auth mechanism allowed")
        if self.query.get("signature") != [self.state.signature]:
            raise HttpError(403, "SignatureDoesNotMatch")

    def get(self, sha: str):
        self.send_range(self.state.stored[sha], {"ETag": f'"{sha}"'})

    def put(self, sha: str, part: str):
        """Take a part of a file; part 0 is a whole file, and the parts of a large one are counted from 1."""
        if part == "0":
            self.state.store(sha, self.body)
        else:
            with self.state.lock:
                self.state.uploads.setdefault(sha, {})[int(part)] = self.body
        self.send(b"", 200, {"ETag": f'"{part}"'})
