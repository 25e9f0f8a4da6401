"""The rooms of the project: what is packaged, who may import whom, and what the trainer must not know."""

import ast
import configparser
import re
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest


ROOT = Path(__file__).parent.parent
MODEL, HUB_FILES = "model", "modeling_vlkd.hub_files_vlkd"
MAPPED = {"trainers", "conversion"}  # rooms that stand at the top level, and install below modeling_vlkd
# Imports point one way: a room may import itself and these. New rooms find their place in the order of DESIGN:
# the model, then what describes and measures it, then what makes it, then what shows all of it.
MAY_IMPORT = {
    MODEL: set(),
    "publishing": {MODEL},
    "evaluation": {MODEL},
    "trainers": {MODEL, "publishing", "evaluation"},
    "conversion": {MODEL, "publishing", "evaluation"},
    "miniature": {MODEL, "publishing", "evaluation", "trainers", "conversion"},
    "commands": {MODEL, "publishing", "evaluation", "trainers", "conversion", "miniature"},
}
FOLDERS = {
    room: ROOT / "modeling_vlkd" if room == MODEL else (ROOT if room in MAPPED else ROOT / "modeling_vlkd") / room
    for room in MAY_IMPORT
}
SOURCES = [(room, path) for room, folder in FOLDERS.items() for path in sorted(folder.glob("*.py"))]
HUB_SOURCES = sorted((ROOT / "modeling_vlkd").glob("*_vlkd.py"))


def module_name(room: str, path: Path) -> str:
    """Name a file as users import it."""
    parts = ["modeling_vlkd", *([] if room == MODEL else [room]), *([] if path.stem == "__init__" else [path.stem])]
    return ".".join(parts)


MODULES = {module_name(room, path): path for room, path in SOURCES}


def imported_names(room: str, path: Path) -> Iterator[str]:
    """Name, in full, what a file imports, under TYPE_CHECKING and within functions too."""
    package = ["modeling_vlkd", *([] if room == MODEL else [room])]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            source = ".".join([*base, *([node.module] if node.module else [])])
            yield from (f"{source}.{alias.name}" for alias in node.names)


def imported_modules(room: str, path: Path) -> set[str]:
    """Name the project's files among what a file imports; `__init__` only where nothing in it is meant."""
    found = set()
    for name in imported_names(room, path):
        parts = name.split(".")
        if parts[0] == "modeling_vlkd":
            prefixes = [".".join(parts[:end]) for end in range(len(parts), 0, -1)]
            found.add(next(prefix for prefix in prefixes if prefix in MODULES))
    return found


def room_of(module: str) -> str:
    parts = module.split(".")
    return parts[1] if len(parts) > 1 and parts[1] in MAY_IMPORT else MODEL


@pytest.mark.parametrize(("room", "path"), SOURCES, ids=lambda value: value if isinstance(value, str) else value.name)
def test_imports_point_one_way(room: str, path: Path):
    assert {room_of(module) for module in imported_modules(room, path)} <= MAY_IMPORT[room] | {room}
    assert not {name.split(".")[0] for name in imported_names(room, path)} & set(MAY_IMPORT)  # by no bare name
    own = module_name(room, path.with_name("__init__.py"))
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            assert node.level < 2, f"line {node.lineno}: other rooms are imported by their absolute names"
            if room != MODEL and node.level == 0:
                assert not f"{node.module}.".startswith(f"{own}."), f"line {node.lineno}: siblings are relative"
    if path.stem != "__init__":
        assert own not in imported_modules(room, path), "a file imports its siblings, not the room that imports it"


def test_every_room_is_listed_and_packaged():
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    listed = set(setup["options"]["packages"].split())
    assert listed == {"modeling_vlkd"} | {f"modeling_vlkd.{room}" for room in MAY_IMPORT if room != MODEL}
    mapping = dict(line.split(" = ") for line in setup["options"]["package_dir"].strip().splitlines())
    assert mapping == {f"modeling_vlkd.{room}": room for room in MAPPED}
    folders = [path for path in ROOT.iterdir() if path.is_dir() and not (path / "pyvenv.cfg").exists()]
    on_disk = {path.parent for folder in folders for path in folder.rglob("__init__.py")}
    assert on_disk == set(FOLDERS.values())


def test_the_top_level_is_what_every_repository_has():
    folders = {path.name for path in ROOT.iterdir() if path.is_dir() and not path.name.startswith(".")}
    built = {
        "build",
        "dist",
        "vlkd-demo",
        "vlkd-evaluation",
        "vlkd-finetuned",
        "vlkd-reproduce",
        "modeling_vlkd.egg-info",
    }
    named = {"modeling_vlkd", "conversion", "trainers", "tests", "model_cards", "benchmarks", "docs"}
    assert named <= folders <= named | built


@pytest.mark.parametrize("room", [room for room in MAY_IMPORT if room != MODEL])
def test_a_room_says_what_it_is_for_and_what_it_may_import(room: str):
    said = ast.get_docstring(ast.parse((FOLDERS[room] / "__init__.py").read_text(encoding="utf-8")))
    assert said is not None
    purpose, allowed = said.split("\n\n")[:2]
    assert purpose.endswith(".")
    assert allowed.startswith("May import")
    named = re.search(r"May import (?:the|every room: )?([^.]*)\.", allowed)  # "the model, publishing and evaluation"
    assert named is not None
    assert set(re.findall(r"\w+", named[1])) - {"the", "and"} == MAY_IMPORT[room]
    table = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    [row] = re.findall(rf"^\| `{FOLDERS[room].relative_to(ROOT).as_posix()}/` .*$", table, flags=re.MULTILINE)
    may_import = row.rstrip(" |").split("|")[-1]
    rooms = [each for each in MAY_IMPORT if each in re.findall(r"\w+", may_import)]
    assert set(rooms) == MAY_IMPORT[room] or may_import.strip() == "all above"


def test_import_circles_go_through_the_hub_files_alone():
    """Those of type checking counted: what cannot be imported first cannot be read first."""
    graph = {module: imported_modules(room, path) for (module, path), (room, _) in zip(MODULES.items(), SOURCES)}
    del graph[HUB_FILES]
    packages = {"modeling_vlkd", *(f"modeling_vlkd.{room}" for room in MAY_IMPORT)}
    followed = {
        module: {each for each in imports if each not in packages | {HUB_FILES, module}}
        for module, imports in graph.items()
        if module not in packages  # an __init__ imports all of its room, and no file of a room its own __init__
    }
    try:
        TopologicalSorter(followed).prepare()
    except CycleError as error:
        raise AssertionError(" -> ".join(error.args[1])) from None


def test_the_trainer_names_no_loss():
    """Neither a term nor what only one task has; objectives are imported by tasks."""
    path = FOLDERS["trainers"] / "distillation_trainer.py"
    text = path.read_text(encoding="utf-8")
    names = "ttdm|itcl|icti|replay|contrast|infilling|logit_scale|caption|teacher|image|retrieval|vqa|question"
    assert not re.findall(f"(?<![a-z])(?:{names})", text, flags=re.IGNORECASE)  # "predictions" is allowed
    imported = {module.split(".")[-1] for module in imported_modules("trainers", path)}
    assert imported == {"distillation_config", "draws", "resumable_trainer", "task", "whole_checkpoints"}


@pytest.mark.parametrize("path", HUB_SOURCES, ids=lambda path: path.name)
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
    standard = {"collections", "copy", "dataclasses", "difflib", "math", "os", "typing", "urllib"}
    assert absolute <= standard | {"torch", "transformers", "huggingface_hub", "numpy", "PIL"}


def test_the_hub_files_name_each_other_file_of_the_hub_and_only_they_do_so_for_types():
    listed = imported_modules(MODEL, ROOT / "modeling_vlkd" / "hub_files_vlkd.py")
    assert listed == {f"modeling_vlkd.{path.stem}" for path in HUB_SOURCES} - {HUB_FILES}
    checking = [path.name for path in HUB_SOURCES if "TYPE_CHECKING" in path.read_text(encoding="utf-8")]
    assert checking == ["hub_files_vlkd.py"]
