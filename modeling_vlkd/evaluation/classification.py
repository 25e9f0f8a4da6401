"""Zero-shot classification: which name of a class, said in prompts, is nearest to a picture (CLIP, arXiv:2103.00020).

The text of a class is the mean over templates of its normalized embeddings, normalized again (section 3.1.4).
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from weakref import ref

import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from .class_files import (
    PLAIN_TEMPLATE,
    LabeledPictures,
    check_classes,
    read_class_folder,
    read_classes,
    read_label_table,
    read_templates,
)
from .embeddings import EmbeddingModel
from .report import Report, ScoredExample, bootstrap_interval


BEST = 5  # classes of a picture that are kept
CLASSES_AT_ONCE = 32  # whose prompts are embedded together


def embed_classes(model: EmbeddingModel, names: Sequence[str], templates: Sequence[str]) -> Tensor:
    """Embed classes by their names: `(classes, dim)`, normalized.

    Args:
        templates: `{}` in them is replaced by the name.
    """
    parts = []
    # The bar shows itself after five seconds: a thousand names in eighty templates take a while.
    for first in tqdm(range(0, len(names), CLASSES_AT_ONCE), desc="names of classes", delay=5, leave=False):
        chosen = names[first : first + CLASSES_AT_ONCE]
        prompts = [template.replace("{}", name) for name in chosen for template in templates]
        embeds = F.normalize(model.embed_texts(prompts).float(), dim=-1)  # (classes * templates, dim)
        parts.append(embeds.unflatten(0, (len(chosen), len(templates))).mean(dim=1))
    return F.normalize(torch.cat(parts), dim=-1)


@dataclass
class ClassificationBenchmark:
    """Pictures that are put into classes by the names of these alone.

    A prediction is the five nearest classes and their cosines; of classes that are equally near, the one that is
    listed first comes first. The model speaks [`EmbeddingModel`].

    Args:
        classes: the name of each label.
        templates: of the prompts.
        facts: what the report says besides.
    """

    pictures: LabeledPictures
    classes: dict[str, str]
    templates: Sequence[str] = (PLAIN_TEMPLATE,)
    facts: dict[str, Any] = field(default_factory=dict)
    task: str = field(default="classification", init=False)
    _embedded: tuple[ref, Tensor] | None = field(default=None, init=False, repr=False)

    def __post_init__(self):
        check_classes(self.pictures, self.classes)
        self.ids = self.pictures.ids
        self.labels = list(self.classes)
        self.facts = {
            "classes": len(self.classes),
            "templates": len(self.templates),
            "first_template": self.templates[0],
            **self.facts,
        }

    @classmethod
    def from_files(
        cls,
        pictures: str | Path,
        table: str | Path | None = None,
        classes: str | Path | None = None,
        templates: str | Path | None = None,
    ) -> "ClassificationBenchmark":
        """Read labeled pictures, the names of their classes, and templates.

        Args:
            pictures: a folder with one subfolder a class, or that of the pictures in the table.
            table: CSV or JSON lines with the columns `image` and `label`.
            classes: as [`read_classes`] takes them; the labels are the names by default.
            templates: as [`read_templates`] takes them.

        Raises:
            EvaluationError: a file is wrong, a label is no class, or a class has no pictures; with the names.
        """
        labeled = read_class_folder(pictures) if table is None else read_label_table(table, pictures)
        labels = sorted(set(labeled.labels))
        names = dict(zip(labels, labels)) if classes is None else read_classes(classes, labels)
        return cls(labeled, names, read_templates(templates))

    def order(self) -> list[int]:
        """Give all positions as they are: pictures cost alike."""
        return list(range(len(self.ids)))

    def predict(self, model: EmbeddingModel, positions: Sequence[int]) -> list[dict[str, Any]]:
        """Find the nearest classes of pictures: rows `{"labels": [...], "cosines": [...]}`, nearest first."""
        classes = self.embedded_classes(model)
        looked = model.look([self.pictures.paths[position] for position in positions])
        cosines = F.normalize(model.embed_images(looked).float(), dim=-1) @ classes.T  # (pictures, classes)
        nearest = cosines.sort(dim=1, descending=True, stable=True)
        return [
            {"labels": [self.labels[place] for place in places[:BEST]], "cosines": values[:BEST]}
            for values, places in zip(nearest.values.tolist(), nearest.indices.tolist())
        ]

    def embedded_classes(self, model: EmbeddingModel) -> Tensor:
        """Embed the classes once for each model."""
        if self._embedded is None or self._embedded[0]() is not model:
            # Held weakly: the next model needs the memory of this one.
            self._embedded = ref(model), embed_classes(model, list(self.classes.values()), self.templates)
        return self._embedded[1]

    def report(self, rows: Sequence[dict[str, Any]], seed: int = 0) -> Report:
        """Compute the shares `top1` and, of more than five classes, `top5`; and `mean_per_class`, in which each counts
        alike however many pictures it has.
        """
        hits = {"top1": [float(row["labels"][0] == label) for row, label in zip(rows, self.pictures.labels)]}
        if len(self.classes) > BEST:
            hits["top5"] = [float(label in row["labels"]) for row, label in zip(rows, self.pictures.labels)]
        by_class: dict[str, dict[str, float]] = defaultdict(dict)
        for name, values in hits.items():
            members: dict[str, list[float]] = {label: [] for label in self.classes}
            for label, hit in zip(self.pictures.labels, values):
                members[label].append(hit)
            for label, each in members.items():
                by_class[self.show(label)][name] = mean(each)
        overall = {name: mean(values) for name, values in hits.items()}
        overall["mean_per_class"] = mean([figures["top1"] for figures in by_class.values()])
        intervals = {name: bootstrap_interval(values, seed) for name, values in hits.items()}
        scored = [
            ScoredExample(number, score, self.show(row["labels"][0]), [self.show(label)], image=str(path))
            for number, path, label, row, score in zip(
                self.ids, self.pictures.paths, self.pictures.labels, rows, hits["top1"]
            )
        ]
        return Report(self.task, len(rows), overall, {"by_class": dict(by_class)}, intervals, dict(self.facts), scored)

    def show(self, label: str) -> str:
        """Write a class so that it can be told from all others: ImageNet has two of the name "missile"."""
        name = self.classes[label]
        return name if name == label else f"{name} ({label})"


def mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
