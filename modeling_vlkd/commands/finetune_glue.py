"""`vlkd finetune --task glue`: trains a distilled model to classify texts, as on GLUE, at one point or over a grid."""

import shutil
from collections.abc import Sequence
from copy import copy, deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from transformers import TrainingArguments, set_seed
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from modeling_vlkd import VLKDForSequenceClassification, VLKDProcessor
from modeling_vlkd.evaluation.glue_files import GlueExample, read_glue
from modeling_vlkd.evaluation.glue_tasks import TASKS, GlueTask, find_task
from modeling_vlkd.evaluation.json_files import write_json_file
from modeling_vlkd.evaluation.text_models import read_limit
from modeling_vlkd.evaluation.text_tables import DEV, TRAIN
from modeling_vlkd.publishing.provenance import Source
from modeling_vlkd.trainers.card_trainer import ALWAYS_IN_CARD, IN_CARD_IF_CHANGED, RunFacts, measured, plain
from modeling_vlkd.trainers.feature_cache import fingerprint
from modeling_vlkd.trainers.grid import GLUE_GRID, GridPoint, run_grid
from modeling_vlkd.trainers.resumable_trainer import SaveOnInterrupt
from modeling_vlkd.trainers.text_classification import (
    ClassificationTrainer,
    classification_examples,
    new_classifier,
)
from modeling_vlkd.trainers.trained_on import TrainedOn
from modeling_vlkd.trainers.whole_checkpoints import find_whole_checkpoint

from .config_file import with_config
from .early_checks import last_values
from .finetuning_run import (
    FinetuneArguments,
    Metric,
    add_lora,
    callbacks_of,
    evaluation_source,
    facts_of,
    make_parser,
    parse,
    run,
)
from .outcome import diverged
from .pictures import load_checkpoint


GRID = "grid"  # folder of the points' runs, in the output folder
# Arguments of the trainer that a grid's results depend on, the same at all of its points.
SAME_AT_ALL_POINTS = sorted(
    {
        *(*ALWAYS_IN_CARD, *IN_CARD_IF_CHANGED, "num_train_epochs", "max_steps", "greater_is_better"),
        *("eval_strategy", "eval_steps", "save_strategy", "save_steps", "load_best_model_at_end"),
    }
    - {"per_device_train_batch_size", "learning_rate", "weight_decay"}
)
EXAMPLES = """\
  vlkd finetune --task glue --glue_task sst2 --checkpoint my-vlkd --train_data SST-2 --eval_data SST-2
  vlkd finetune --task glue --glue_task rte --checkpoint my-vlkd --train_data nyu-mll/glue --eval_data nyu-mll/glue \\
      --grid true --output_dir my-rte
"""


@dataclass(kw_only=True)
class GlueArguments(FinetuneArguments):
    """The task of GLUE, its data, and how they are read."""

    glue_task: str = field(metadata={"help": f"One of {', '.join(TASKS)}."})
    train_data: str = field(
        metadata={
            "help": "To train on: the official .tsv file or its folder; CSV, JSON lines or parquet with the columns "
            "that `datasets` has for the task; what it has saved; or a Hub id such as nyu-mll/glue."
        }
    )
    eval_data: str | None = field(default=None, metadata={"help": "The same to evaluate on."})
    train_split: str = field(default=TRAIN, metadata={"help": "Split of --train_data that is trained on."})
    eval_split: str = field(default=DEV, metadata={"help": "Split of --eval_data that is evaluated on."})
    max_text_length: int | None = field(
        default=None, metadata={"help": "Longer texts are cut, in tokens; by default to what the model can read."}
    )
    bridge_text_only: bool | None = field(
        default=None,
        metadata={
            "help": "Whether texts go through CLIP's space on their way to the decoder (true), or straight (false); "
            "by default as the checkpoint says."
        },
    )
    lamb: bool = field(default=True, metadata={"help": "Optimize with LAMB; with false, with what --optim names."})
    grid: bool = field(
        default=False,
        metadata={
            "help": f"Train at each of the paper's {len(GLUE_GRID)} points of batch size, learning rate and weight "
            "decay, and keep the best. A grid that was stopped goes on when the command is given again."
        },
    )


@dataclass(frozen=True)
class Data:
    """What is trained and evaluated on."""

    task: GlueTask
    train: Sequence[GlueExample]
    eval: Sequence[GlueExample] | None
    trained_on: TrainedOn


def main(argv: list[str]) -> int:
    parser = make_parser(
        GlueArguments,
        "glue",
        "--glue_task NAME --checkpoint MODEL --train_data DATA [--eval_data DATA]",
        "Trains a distilled model to classify texts, on a task of GLUE (arXiv:1804.07461).",
        EXAMPLES,
        training=TrainingArguments,
        # The middle of the paper's grid. Warm-up is the first of ten epochs.
        learning_rate=5e-4,
        weight_decay=1e-4,
        per_device_train_batch_size=32,
        num_train_epochs=10,
        warmup_steps=0.1,
    )
    task = find_task(named) if (named := name_of_task(argv)) else None
    arguments, card, training, checkpoint = parse(parser, argv, task.metric if task else "", ["eval_data"])
    task = find_task(arguments.glue_task)
    if arguments.grid and training.world_size > 1:
        parser.error(f"the grid runs in one process, and not in {training.world_size}; start it without a launcher")
    if arguments.grid and arguments.eval_data is None:
        parser.error("--grid needs --eval_data, to know which point is the best")
    data = read_data(arguments, task)
    if checkpoint is not None:
        data.trained_on.refuse_other(checkpoint)
    source = Source.find(
        "texts with labels", arguments.train_data, "dataset", f"{task.title}, {len(data.train)} texts"
    )
    evaluated = evaluation_source(
        arguments.eval_data,
        arguments.train_data,
        "dataset",
        task.title,
        same_split=arguments.eval_split == arguments.train_split or Path(arguments.train_data).is_file(),
    )
    facts = facts_of(arguments, card, argv, data.trained_on, [source], evaluated)
    facts.tuned_on = f"labeled texts ({task.title})"
    if arguments.grid:
        return run_whole_grid(arguments, training, data, facts)
    trainer = make_trainer(arguments, training, data, facts)
    return run(trainer, arguments, checkpoint, metric_of(data), example_of(training.output_dir))


def name_of_task(argv: Sequence[str]) -> str | None:
    """Read the value of `--glue_task`, which says by which metric the best checkpoint is chosen."""
    return last_values(with_config(argv)).get("glue_task")


def read_data(arguments: GlueArguments, task: GlueTask) -> Data:
    """Read what is trained and evaluated on.

    Raises:
        ValueError: a file cannot be read, or is a test split, whose labels nobody has.
    """
    train = read_glue(task, arguments.train_data, arguments.train_split, TRAIN)
    held_out = read_glue(task, arguments.eval_data, arguments.eval_split) if arguments.eval_data else None
    for flag, examples in (("train_data", train), ("eval_data", held_out or [])):
        unlabeled = [example.index for example in examples if example.label is None]
        if unlabeled:
            value = getattr(arguments, flag)
            raise ValueError(f"--{flag} {value}: example {unlabeled[0]} has no label; give a split with labels.")
    return Data(task, train, held_out, describe(arguments.train_data, train))


def describe(source: str, examples: Sequence[GlueExample]) -> TrainedOn:
    return TrainedOn.of_texts(source, ([*example.texts, str(example.label)] for example in examples))


def load_start(
    arguments: GlueArguments, training: TrainingArguments, task: GlueTask
) -> tuple[VLKDForSequenceClassification, VLKDProcessor]:
    """Load the checkpoint with a head for the task, a new one if it has none: what a run begins with."""
    _, processor = load_checkpoint(arguments.checkpoint, "cpu", torch.float32)  # says what is wrong with one
    set_seed(training.seed)  # of the head, too
    return new_classifier(arguments.checkpoint, task, arguments.bridge_text_only), processor


def make_trainer(
    arguments: GlueArguments, training: TrainingArguments, data: Data, facts: RunFacts
) -> ClassificationTrainer:
    """Load the checkpoint with a new head, and put it together with the data."""
    model, processor = load_start(arguments, training, data.task)
    limit = read_limit(model, processor.tokenizer)
    length = limit if arguments.max_text_length is None else min(arguments.max_text_length, limit)
    examples = [
        None if each is None else classification_examples(each, processor.tokenizer, length)
        for each in (data.train, data.eval)
    ]
    facts.settings["bridge_text_only"] = model.config.bridge_text_only
    return ClassificationTrainer(
        add_lora(model, arguments.lora),
        training,
        task=data.task,
        lamb=arguments.lamb,
        train_dataset=examples[0],
        eval_dataset=examples[1],
        processing_class=processor,
        callbacks=callbacks_of(arguments),
        run_facts=facts,
    )


def metric_of(data: Data) -> Metric:
    count = len(data.eval or [])
    return Metric(data.task.metric, f"{{:.4f}} is the {data.task.metric} on {count} examples of {data.task.title}")


def example_of(output_dir: str) -> str:
    return (
        f"python -c \"import modeling_vlkd, transformers as t; print(t.pipeline('text-classification', {output_dir!r}"
        ")('a text'))\""
    )


def run_whole_grid(arguments: GlueArguments, training: TrainingArguments, data: Data, facts: RunFacts) -> int:
    """Train at all points that have no result yet, and put the best model into the output folder."""
    output = Path(training.output_dir)

    def run_point(point: GridPoint, folder: Path) -> dict[str, Any]:
        return train_at(point, folder / output.resolve().name, arguments, training, data, deepcopy(facts))

    identity = identity_of(arguments, training, data)
    result = run_grid(output / GRID, GLUE_GRID, run_point, data.task.metric, identity)
    shutil.copytree(result.folder / output.resolve().name, output, dirs_exist_ok=True)
    write_json_file(output / "grid_results.json", list(result.results.values()), indent=2)
    value = result.results[result.best.name][data.task.metric]
    print(f"{metric_of(data).text.format(value)}, at the best of {len(result.results)} points, {result.best.name}.")
    print(f"The finetuned model is in {output}; try\n  {example_of(training.output_dir)}")
    return 0


def identity_of(arguments: GlueArguments, training: TrainingArguments, data: Data) -> dict[str, Any]:
    """Tell what the results of a grid depend on besides the points: settings, data, and what all runs begin with."""
    start, _ = load_start(arguments, training, data.task)
    names = ("lamb", "lora", "max_text_length", "early_stopping_patience")
    return {
        **{"task": data.task.name, "trained_on": data.trained_on.fingerprint},
        "evaluated_on": describe(str(arguments.eval_data), data.eval or []).fingerprint,
        **{name: plain(getattr(training, name)) for name in SAME_AT_ALL_POINTS},
        **{name: getattr(arguments, name) for name in names},
        **{"bridge_text_only": start.config.bridge_text_only, "weights": fingerprint(start)},
    }


def train_at(
    point: GridPoint,
    folder: Path,
    arguments: GlueArguments,
    training: TrainingArguments,
    data: Data,
    facts: RunFacts,
) -> dict[str, Any]:
    """Train at one point, on from its last whole checkpoint if there is one, and save the model.

    Returns:
        The metrics of the kept checkpoint; a run that diverged has none, but says what became of it.

    Raises:
        ValueError: it was interrupted.
    """
    training = copy(training)
    training.output_dir = str(folder)
    training.learning_rate, training.weight_decay = point.learning_rate, point.weight_decay
    at_once = training.world_size * training.gradient_accumulation_steps * max(1, training.n_gpu)
    if point.batch_size % at_once:
        raise ValueError(
            f"--grid has batches of {point.batch_size}, which cannot be shared by {at_once} devices and accumulated "
            "steps; take a number of them that divides 16."
        )
    training.per_device_train_batch_size = point.batch_size // at_once
    checkpoint = find_whole_checkpoint(folder)
    training.eval_on_start &= checkpoint is None
    facts.settings["grid"] = f"{point.name}, one of {len(GLUE_GRID)} points"
    trainer = make_trainer(arguments, training, data, facts)
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    if any(each.interrupted for each in trainer.callback_handler.callbacks if isinstance(each, SaveOnInterrupt)):
        raise ValueError(f"Interrupted at {point.name}; the same command goes on.")
    for old in folder.glob(f"{PREFIX_CHECKPOINT_DIR}-*"):
        shutil.rmtree(old)
    if fault := diverged(trainer):
        return {"fault": fault}
    if data.task.metric not in measured(trainer.args, trainer.state):
        trainer.evaluate()
    if arguments.lora is not None:
        trainer.model = trainer.model.merge_and_unload()
    trainer.save_model()
    trainer.save_state()
    trainer.create_model_card()
    values = measured(trainer.args, trainer.state)
    return {name: values[name] for name in ("loss", *data.task.metrics)}
