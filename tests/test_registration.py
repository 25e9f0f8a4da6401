"""What importing the package changes, each in a fresh process, since a process registers only once."""

import subprocess
import sys

import pytest


def run(code: str) -> str:
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


def test_import_loads_neither_torch_nor_transformers():
    code = "import sys, modeling_vlkd; print('torch' in sys.modules, 'transformers' in sys.modules)"
    assert run(code) == "False False"


def test_help_answers_without_torch():
    code = "import sys; from modeling_vlkd.commands.main import main; main(['--help']); print('torch' in sys.modules)"
    assert run(code).endswith("False")


@pytest.mark.parametrize(
    "imports",
    [
        "import modeling_vlkd; from transformers import AutoModelForImageTextToText, pipelines",
        "from transformers import AutoModelForImageTextToText, pipelines; import modeling_vlkd",
        "import modeling_vlkd.pipeline_vlkd; from transformers import AutoModelForImageTextToText, pipelines",
    ],
    ids=["before", "after", "pipeline first"],
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
