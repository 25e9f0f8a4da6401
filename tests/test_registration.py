"""What importing the package changes, each in a fresh process, since a process registers only once."""

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
