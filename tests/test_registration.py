"""The effects of importing the package, each in a fresh process, since a process registers only once."""

import subprocess
import sys
from pathlib import Path

import pytest


def run(code: str) -> str:
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


def test_help_answers_without_torch():
    script = Path(sys.executable).parent / "vlkd"
    result = subprocess.run([sys.executable, "-X", "importtime", script, "--help"], capture_output=True, text=True)
    assert "usage: vlkd" in result.stdout
    loaded = {line.rpartition("|")[2].strip() for line in result.stderr.splitlines()}
    assert "modeling_vlkd.commands.main" in loaded
    assert loaded.isdisjoint({"torch", "transformers"})


@pytest.mark.parametrize(
    "imports",
    [
        "import modeling_vlkd; from transformers import AutoModelForImageTextToText, pipelines",
        "from transformers import AutoModelForImageTextToText, pipelines; import modeling_vlkd",
        "import modeling_vlkd; from transformers import CLIPModel, AutoModelForImageTextToText, pipelines",
        "import modeling_vlkd.pipeline_vlkd; from transformers import AutoModelForImageTextToText, pipelines",
    ],
    ids=["before", "after", "another model first", "pipeline first"],
)
def test_classes_are_registered_whatever_is_imported_first(imports: str):
    code = f"""
{imports}
from transformers import AutoConfig
config = AutoConfig.for_model("vlkd")
print(AutoModelForImageTextToText._model_mapping[type(config)].__name__)
print(pipelines.check_task("vqa")[1]["impl"].__name__)
print(pipelines.check_task("image-captioning")[1]["impl"].__name__)
"""
    expected = ["VLKDForConditionalGeneration", "VLKDVisualQuestionAnsweringPipeline", "VLKDImageCaptioningPipeline"]
    assert run(code).splitlines() == expected


PRINT_REGISTERED = """
from transformers import AutoConfig, pipelines
print(AutoConfig.for_model("vlkd").model_type, pipelines.check_task("vqa")[1]["impl"].__name__)
"""


def test_a_script_of_a_users_own_may_have_the_name_of_the_command(tmp_path: Path):
    """Also if its name has no `.py`, which would distinguish it from the command."""
    (tmp_path / "vlkd").write_text(f"import modeling_vlkd\n{PRINT_REGISTERED}")
    result = subprocess.run([sys.executable, tmp_path / "vlkd"], capture_output=True, text=True)
    assert result.stdout.strip() == "vlkd VLKDVisualQuestionAnsweringPipeline", result.stderr


def test_an_embedded_python_may_have_no_arguments():
    code = f"import sys; sys.argv = []; import modeling_vlkd\n{PRINT_REGISTERED}"
    assert run(code) == "vlkd VLKDVisualQuestionAnsweringPipeline"


@pytest.mark.parametrize("blocked", [False, True], ids=["installed", "missing"])
def test_peft_is_not_imported_without_need(tiny_checkpoint: Path, blocked: bool):
    """Whether it is installed or not: the model is loaded and used, and peft is never imported."""
    code = f"""
import sys
if {blocked}:
    sys.modules["peft"] = None  # then `import peft` is an ImportError
import modeling_vlkd
from transformers import AutoModelForImageTextToText
model = AutoModelForImageTextToText.from_pretrained({str(tiny_checkpoint)!r})
model.generate(model.dummy_inputs["input_ids"][:1], max_new_tokens=2)
print([name for name in sys.modules if name.split(".")[0] == "peft" and sys.modules[name] is not None])
from modeling_vlkd.registration import PeftFinder
print(sum(isinstance(finder, PeftFinder) for finder in sys.meta_path))
"""
    assert run(code).splitlines() == ["[]", "1"]


@pytest.mark.parametrize("name", ["vlkd", "vlkd.exe", "vlkd-script.py"])
def test_the_command_is_known_by_where_it_was_installed(name: str, tmp_path: Path):
    """The command imports no torch before a class is used; installers for Windows give its script another name."""
    installed = tmp_path / "modeling_vlkd-0.1.0.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: modeling_vlkd\nVersion: 0.1.0\n")
    (installed / "RECORD").write_text(f"Scripts/{name},,\nmodeling_vlkd/__init__.py,,\n")
    code = f"""
import sys
sys.path.insert(0, {str(tmp_path)!r})
sys.argv = [{str(tmp_path / "Scripts" / name)!r}, "--help"]
import modeling_vlkd
print("torch" in sys.modules)
"""
    assert run(code) == "False"
