"""The smallest model card that can be published, and a checkpoint with it."""

import shutil
from pathlib import Path


CARD = """\
---
license: apache-2.0
library_name: transformers
pipeline_tag: visual-question-answering
tags:
- vlkd
base_model: openai/clip-vit-base-patch16
---
# Tiny

A model with random weights.
"""


def shareable_copy(checkpoint: Path, folder: Path) -> Path:
    """Copy a checkpoint and give it a card."""
    shutil.copytree(checkpoint, folder)
    (folder / "README.md").write_text(CARD, encoding="utf-8")
    return folder
