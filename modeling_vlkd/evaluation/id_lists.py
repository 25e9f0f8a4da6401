"""Name ids in a message without a noun, few enough to be read."""

from collections.abc import Iterable
from typing import Any

from . import json_files


def name_ids(ids: Iterable[Any]) -> str:
    """List ids, at most five of them, and how many more there are: "3, 5, 8, 13, 21 and 2 more"."""
    return json_files.name_ids(ids, "", "").lstrip()
