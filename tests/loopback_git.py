"""The repositories of `loopback_hub`: files, commits, and the branches and tags that name commits."""

import hashlib
import secrets
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from loopback_http import HttpError


@dataclass(frozen=True)
class Blob:
    """A file. git itself keeps a small one; for a large one it keeps a pointer."""

    content: bytes
    large: bool

    @cached_property
    def sha256(self) -> str:
        """Compute the name of a large file in the storage."""
        return hashlib.sha256(self.content).hexdigest()

    @property
    def pointer(self) -> bytes:
        """Write the pointer to a large file, in the format of git LFS."""
        lines = [
            "version https://git-lfs.github.com/spec/v1",
            f"oid sha256:{self.sha256}",
            f"size {len(self.content)}",
        ]
        return "\n".join([*lines, ""]).encode()

    @property
    def oid(self) -> str:
        """Compute the name that git gives to the file or, if it is large, to its pointer."""
        stored = self.pointer if self.large else self.content
        return hashlib.sha1(b"blob %d\0" % len(stored) + stored).hexdigest()

    def description(self, path: str) -> dict[str, Any]:
        """Describe the file as the Hub does in its answers."""
        entry: dict[str, Any] = {"type": "file", "path": path, "oid": self.oid, "size": len(self.content)}
        if self.large:
            entry["lfs"] = {"oid": self.sha256, "size": len(self.content), "pointerSize": len(self.pointer)}
        return entry


@dataclass
class Repo:
    """A repository. Each commit has all files; branches and tags name commits."""

    private: bool
    commits: dict[str, dict[str, Blob]] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)

    def commit(self, branch: str, files: dict[str, Blob]) -> str:
        """Make the next commit of a branch, and return its id."""
        oid = secrets.token_hex(20)
        self.commits[oid] = files
        self.branches[branch] = oid
        return oid

    def find(self, revision: str) -> str:
        """Return the id of the commit that a branch, a tag or the id itself names."""
        oid = self.branches.get(revision) or self.tags.get(revision) or revision
        if oid not in self.commits:
            raise HttpError(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return oid

    @property
    def files(self) -> dict[str, Blob]:
        """Return the files on the main branch."""
        return self.commits[self.branches["main"]]
