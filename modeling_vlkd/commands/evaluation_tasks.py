"""The tasks of `vlkd evaluate`: which flags belong to each, and how its benchmark is read."""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modeling_vlkd.evaluation import vqa_benchmark
from modeling_vlkd.evaluation.benchmark import Benchmark
from modeling_vlkd.evaluation.caption_files import read_references, write_captions
from modeling_vlkd.evaluation.captioning import CaptioningBenchmark
from modeling_vlkd.evaluation.classification import ClassificationBenchmark
from modeling_vlkd.evaluation.clip_texts import CLIPTextTower
from modeling_vlkd.evaluation.embeddings import EmbeddingModel, WithTextsOf
from modeling_vlkd.evaluation.glue import GlueBenchmark
from modeling_vlkd.evaluation.infilling import InfillingBenchmark, TextInfiller, load_infiller
from modeling_vlkd.evaluation.models import kind_of, load_model, read_config
from modeling_vlkd.evaluation.picture_files import find_picture_files
from modeling_vlkd.evaluation.protocol import VisionLanguageModel
from modeling_vlkd.evaluation.retrieval_benchmark import RetrievalBenchmark
from modeling_vlkd.evaluation.running import processes
from modeling_vlkd.evaluation.shown_pictures import ShownPictures
from modeling_vlkd.evaluation.summarization import GENERATION, SummarizationBenchmark
from modeling_vlkd.evaluation.text_models import TextClassifier, TextWriter, load_classifier, load_writer
from modeling_vlkd.evaluation.text_tables import DEV
from modeling_vlkd.evaluation.vqa_files import write_results


DEFAULT_BATCH = 32
OF_PICTURES = ("batch_size", "trust_remote_code")  # of models that see
OF_WRITERS = (*OF_PICTURES, "masks", "beams", "prompt")
PROMPTS = {"vqa": "question_prompt", "captioning": "caption_prompt"}  # of peers
Rows = Sequence[dict[str, Any]]


@dataclass(frozen=True)
class Task:
    """How a task is evaluated.

    Args:
        needs: flags without which there is nothing to evaluate on.
        may_have: its other flags of data.
        asks_by: its flags of how models are asked.
        read: makes the benchmark.
        load: makes of a name what the benchmark asks.
        save: writes the predictions in the official format into a folder.
    """

    needs: tuple[str, ...]
    may_have: tuple[str, ...]
    asks_by: tuple[str, ...]
    read: Callable[[argparse.Namespace], Benchmark]
    load: Callable[[str, argparse.Namespace], Any]
    save: Callable[[Any, Rows, Path], object] | None = None


def read_questions(args: argparse.Namespace) -> Benchmark:
    return vqa_benchmark.read_benchmark(
        args.questions, args.annotations, args.images, args.control, args.seed, args.answer_list
    )


def read_captioning(args: argparse.Namespace) -> Benchmark:
    references = read_references(args.annotations, args.split)
    files = find_picture_files(args.images, references.captions, references.file_names)
    return CaptioningBenchmark(references, ShownPictures(files, args.control, args.seed))


def read_retrieval(args: argparse.Namespace) -> Benchmark:
    return RetrievalBenchmark.from_files(
        args.annotations, args.images, args.split, args.captions_per_image, args.folds
    )


def read_classification(args: argparse.Namespace) -> Benchmark:
    if args.images is None and args.labels is None:
        raise ValueError("--task classification needs --images with a folder for each class, or --labels.")
    images = args.images or args.labels.parent
    return ClassificationBenchmark.from_files(images, args.labels, args.classes, args.templates)


def read_infilling(args: argparse.Namespace) -> Benchmark:
    return InfillingBenchmark.from_file(args.texts, args.limit, seed=args.seed)


def load_text_infiller(name: str, args: argparse.Namespace) -> TextInfiller:
    return load_infiller(name, args.device or processes().device, args.dtype or "auto")


def read_glue(args: argparse.Namespace) -> Benchmark:
    return GlueBenchmark.read(args.glue_task, args.data, args.split or DEV)


def load_text_classifier(name: str, args: argparse.Namespace) -> TextClassifier:
    device, dtype = args.device or processes().device, args.dtype or "auto"
    return load_classifier(name, device, dtype, args.batch_size or DEFAULT_BATCH)


def read_summarization(args: argparse.Namespace) -> Benchmark:
    columns = {"document_column": args.document_column, "summary_column": args.summary_column}
    given = {name: value for name, value in columns.items() if value is not None}
    return SummarizationBenchmark.read(args.data, args.split or DEV, **given)


def load_text_writer(name: str, args: argparse.Namespace) -> TextWriter:
    settings = GENERATION | ({} if args.beams is None else {"num_beams": args.beams})
    device, dtype = args.device or processes().device, args.dtype or "auto"
    return load_writer(name, device, dtype, args.batch_size or DEFAULT_BATCH, **settings)


def load_embedding_model(name: str, args: argparse.Namespace) -> EmbeddingModel:
    """Load a model whose pictures and texts share a space; another CLIP's text tower may read the texts."""
    model = load_vision_language_model(name, args)
    if args.text_tower is None:
        return model
    return WithTextsOf(model, CLIPTextTower(args.text_tower, args.device or processes().device))


def load_vision_language_model(name: str, args: argparse.Namespace) -> VisionLanguageModel:
    """Load a VLKD or a peer; masks are for the prompts of the one, a prompt is for the other."""
    settings: dict[str, Any] = {} if args.beams is None else {"num_beams": args.beams}
    is_ours = kind_of(read_config(name)) == "vlkd"
    if is_ours and args.masks is not None:
        settings["num_masks"] = args.masks
    if not is_ours and args.prompt is not None:
        settings[PROMPTS[args.task]] = args.prompt
    device, dtype = args.device or processes().device, args.dtype or "auto"
    return load_model(name, device, dtype, args.batch_size or DEFAULT_BATCH, bool(args.trust_remote_code), **settings)


def save_answers(benchmark: Benchmark, rows: Rows, folder: Path):
    answers = {int(number): row["answer"] for number, row in zip(benchmark.ids, rows)}
    write_results(folder / "answers.json", answers)


def save_captions(benchmark: Benchmark, rows: Rows, folder: Path):
    captions = {int(number): row["caption"] for number, row in zip(benchmark.ids, rows)}
    write_captions(folder / "captions.json", captions)


TASKS = {
    "vqa": Task(
        ("questions",),
        ("annotations", "images", "answer_list", "control"),
        OF_WRITERS,
        read_questions,
        load_vision_language_model,
        save_answers,
    ),
    "captioning": Task(
        ("annotations", "images"),
        ("split", "control"),
        OF_WRITERS,
        read_captioning,
        load_vision_language_model,
        save_captions,
    ),
    "retrieval": Task(
        ("annotations", "images"),
        ("split", "captions_per_image", "folds", "text_tower"),
        OF_PICTURES,
        read_retrieval,
        load_embedding_model,
    ),
    "classification": Task(
        (),
        ("images", "labels", "classes", "templates", "text_tower"),
        OF_PICTURES,
        read_classification,
        load_embedding_model,
    ),
    "infilling": Task(("texts",), ("limit",), (), read_infilling, load_text_infiller),
    "glue": Task(
        ("glue_task", "data"),
        ("split",),
        ("batch_size",),
        read_glue,
        load_text_classifier,
        GlueBenchmark.submit,
    ),
    "summarization": Task(
        ("data",),
        ("split", "document_column", "summary_column"),
        ("batch_size", "beams"),
        read_summarization,
        load_text_writer,
    ),
}
FLAGS = {name: {*task.needs, *task.may_have, *task.asks_by} for name, task in TASKS.items()}
