"""The wheel and the source distribution hold all that is needed, and work where there is no checkout."""

import configparser
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from modeling_vlkd import __version__


ROOT = Path(__file__).parent.parent
SOURCES = {
    "modeling_vlkd": "modeling_vlkd",
    "trainers": "modeling_vlkd/trainers",
    "conversion": "modeling_vlkd/conversion",
}


def requirements_of(text: str) -> list[Requirement]:
    """Parses lines of requirements, of setup.cfg or of a file for pip."""
    return [Requirement(line) for line in text.splitlines() if line and not line.startswith("#")]


def bounds(requirements: list[Requirement], operator: str) -> dict[str, Version]:
    """The versions that requirements name with one operator, by package."""
    found = [(each.name, bound) for each in requirements for bound in each.specifier if bound.operator == operator]
    return {name: Version(bound.version) for name, bound in found}


@pytest.fixture(scope="module")
def setup() -> configparser.ConfigParser:
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    return setup


def test_the_minimum_set_is_what_is_required(setup):
    minimum = requirements_of((ROOT / ".ci" / "minimum.txt").read_text())
    assert bounds(minimum, "==") == bounds(requirements_of(setup["options"]["install_requires"]), ">=")


def test_every_requirement_is_pinned_within_its_range(setup):
    pins = bounds(requirements_of((ROOT / "constraints.txt").read_text()), "==")
    pins = {canonicalize_name(name): version for name, version in pins.items()}
    extras = setup["options.extras_require"]
    wanted = requirements_of("\n".join([setup["options"]["install_requires"], *extras.values()]))
    for each in wanted:
        if each.name != "modeling_vlkd":
            assert each.specifier.contains(pins[canonicalize_name(each.name)]), each


def test_code_of_the_hub_asks_for_the_transformers_that_is_required(setup):
    """In the one file that both files that Auto classes load first import before anything of transformers."""
    required = bounds(requirements_of(setup["options"]["install_requires"]), ">=")["transformers"]
    text = (ROOT / "modeling_vlkd" / "hub_files_vlkd.py").read_text()
    assert f'require_version("transformers>={required}"' in text
    for name in ("configuration_vlkd.py", "processing_vlkd.py"):
        imports = re.findall(r"^(?:from|import) (\S+)", (ROOT / "modeling_vlkd" / name).read_text(), re.MULTILINE)
        assert imports[0] == ".hub_files_vlkd"


def test_the_version_stands_in_one_place(setup, dist):
    assert setup["metadata"]["version"] == "attr: modeling_vlkd.__version__"
    [wheel] = dist.glob("*.whl")
    assert wheel.name.startswith(f"modeling_vlkd-{__version__}-")


def installed_files() -> set[str]:
    """List everything in the rooms, under the name that it installs as: code, and the miniature's weights."""
    files = set()
    for folder, target in SOURCES.items():
        for path in (ROOT / folder).rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts:
                files.add(f"{target}/{path.relative_to(ROOT / folder).as_posix()}")
    return files


@pytest.fixture(scope="module")
def dist(tmp_path_factory) -> Path:
    """A folder with a wheel built from the source distribution, as `python -m build` makes both."""
    source = tmp_path_factory.mktemp("source") / "checkout"
    ignored = shutil.ignore_patterns(
        ".git", ".venv*", "__pycache__", "*.egg-info", "build", "dist", "vlkd-demo", ".*cache"
    )
    shutil.copytree(ROOT, source, ignore=ignored)
    dist = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(dist), str(source)]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    return dist


def test_wheel_holds_every_file_under_one_name(dist: Path):
    [wheel] = dist.glob("*.whl")
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert names == installed_files()


def test_source_distribution_holds_code_and_licence(dist: Path):
    [archive] = dist.glob("*.tar.gz")
    with tarfile.open(archive) as members:
        names = {name.partition("/")[2] for name in members.getnames()}
    assert {"LICENSE", "README.md", "setup.cfg", "pyproject.toml", "trainers/objectives.py"} <= names


def test_wheel_works_outside_the_checkout(dist: Path, tmp_path: Path):
    [wheel] = dist.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    code = """
import sys
sys.meta_path = [finder for finder in sys.meta_path if "editable" not in repr(finder).lower()]
from pathlib import Path
from modeling_vlkd import VLKDForConditionalGeneration
import modeling_vlkd.commands.main, modeling_vlkd.conversion, modeling_vlkd.trainers
from modeling_vlkd.miniature.distilling import WEIGHTS
assert Path(modeling_vlkd.__file__).is_relative_to(sys.argv[1]), modeling_vlkd.__file__
model = VLKDForConditionalGeneration.from_vision_text_pretrained(WEIGHTS / "clip", WEIGHTS / "bart")
print(type(model).__name__)
"""
    site = str(tmp_path / "site")
    command = [sys.executable, "-c", f"import sys; sys.path.insert(0, {site!r})\n{code}", site]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert result.stdout.strip() == "VLKDForConditionalGeneration", result.stderr
