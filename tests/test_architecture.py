"""The rooms of the project: what is packaged, and who may import whom."""

import ast
import configparser
import re
from pathlib import Path

import pytest


ROOT = Path(__file__).parent.parent
ROOMS = {"modeling_vlkd", "trainers", "conversion", "miniature", "commands"}
# Imports point one way: a room may import itself and these.
MAY_IMPORT = {
    "modeling_vlkd": set(),
    "trainers": {"modeling_vlkd"},
    "conversion": {"modeling_vlkd"},
    "miniature": {"modeling_vlkd", "trainers", "conversion"},
    "commands": {"modeling_vlkd", "trainers", "conversion", "miniature"},
}
SOURCES = [path for room in sorted(ROOMS) for path in sorted((ROOT / room).glob("*.py"))]


def imported_rooms(path: Path) -> set[str]:
    """Names the rooms that a file imports, itself by relative and others by absolute imports."""
    rooms = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and node.level == 0:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        for name in names:
            parts = name.split(".")
            if parts[0] == "modeling_vlkd":
                rooms.add(parts[1] if len(parts) > 1 and parts[1] in ROOMS else "modeling_vlkd")
            elif parts[0] in ROOMS:
                rooms.add(f"{parts[0]} (not by its installed name)")
    return rooms


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_imports_point_one_way(path: Path):
    room = path.parent.name
    assert imported_rooms(path) <= MAY_IMPORT[room] | {room}


def test_every_package_on_disk_is_listed():
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    listed = set(setup["options"]["packages"].split())
    mapping = dict(line.split(" = ") for line in setup["options"]["package_dir"].strip().splitlines())
    folders = [path for path in ROOT.iterdir() if path.is_dir() and not (path / "pyvenv.cfg").exists()]
    on_disk = {
        path.parent.relative_to(ROOT).as_posix() for folder in folders for path in folder.glob("**/__init__.py")
    }
    assert {mapping.get(package, package) for package in listed} == on_disk == ROOMS


@pytest.mark.parametrize("path", sorted((ROOT / "modeling_vlkd").glob("*_vlkd.py")), ids=lambda path: path.name)
def test_hub_files_import_only_libraries_and_flat_siblings(path: Path):
    """transformers copies these by a regular expression that reads docstrings too."""
    text = path.read_text(encoding="utf-8")
    for dotted in re.findall(r"^\s*from\s+(\.\S*)\s+import", text, flags=re.MULTILINE):
        assert re.fullmatch(r"\.\w+_vlkd", dotted), dotted
    tree = ast.parse(text)
    absolute = {
        alias.name.split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names
    }
    absolute |= {
        node.module.split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and not node.level
    }
    standard = {"collections", "copy", "dataclasses", "difflib", "math", "os", "sys", "typing", "urllib"}
    assert absolute <= standard | {"torch", "transformers", "huggingface_hub", "numpy", "PIL"}
