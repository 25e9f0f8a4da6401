"""`vlkd finetune --task captioning`: trains a distilled model further on captions, by cross-entropy or by CIDEr."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from datasets import Dataset
from transformers import PreTrainedModel, Seq2SeqTrainingArguments, set_seed
from transformers.trainer_utils import unwrap_peft_model

from modeling_vlkd import VLKDProcessor
from modeling_vlkd.evaluation.caption_tokenizers import PYTHON_TOKENIZER, tokenize_texts
from modeling_vlkd.evaluation.cider import FILE_NAME, count_once
from modeling_vlkd.evaluation.extra_packages import require_packages
from modeling_vlkd.publishing.provenance import Source
from modeling_vlkd.trainers import VLKDDataCollator, load_captioned_images
from modeling_vlkd.trainers.captioning_examples import CaptionEvaluation, PictureExamples, load_referenced_images
from modeling_vlkd.trainers.feature_cache import compute_image_rows
from modeling_vlkd.trainers.finetuning import FinetuningTrainer
from modeling_vlkd.trainers.self_critical import BASELINES, CaptionReward, PictureCollator, SelfCriticalTrainer
from modeling_vlkd.trainers.trained_on import TrainedOn

from .config_file import with_config
from .early_checks import is_on, last_values
from .finetuning_run import (
    Metric,
    PictureTaskArguments,
    callbacks_of,
    evaluation_source,
    facts_of,
    load_to_finetune,
    make_parser,
    parse,
    run,
)
from .outcome import example_command
from .training_parser import TrainingParser


EXAMPLES = """\
  vlkd finetune --task captioning --checkpoint my-vlkd --dataset pictures/ --eval_split validation
  vlkd finetune --task captioning --checkpoint my-vlkd --references dataset_coco.json --split train+restval
      --eval_split val --images coco/ --output_dir captioner
  vlkd finetune --task captioning --scst true --checkpoint captioner --references dataset_coco.json
      --split train+restval --eval_split val --images coco/ --output_dir captioner-scst
"""
DESCRIPTION = """\
Trains a distilled model further on pictures with captions.

The second stage, --scst true, starts from the checkpoint that the first has left: it samples captions and raises their
CIDEr-D (self-critical sequence training, arXiv:1612.00563). In an evaluation words are told apart without Java, so
figures may differ from the official ones in the fourth digit."""
RATE, SCST_RATE = 3e-5, 1e-5


@dataclass(kw_only=True)
class CaptioningArguments(PictureTaskArguments):
    """The captioned pictures, and the second stage."""

    dataset: str | None = field(
        default=None,
        metadata={"help": "Folder of pictures with metadata.csv, parquet, saved data set, or Hub id."},
    )
    references: str | None = field(
        default=None, metadata={"help": "Captions in COCO's or Karpathy's format, in place of --dataset."}
    )
    images: str | None = field(default=None, metadata={"help": "With --references: folder of their pictures."})
    split: str | None = field(
        default=None, metadata={"help": "Split to train on; train of a --dataset, none of COCO's files."}
    )
    eval_split: str | None = field(default=None, metadata={"help": "Split to evaluate on, of the same data."})
    eval_references: str | None = field(
        default=None, metadata={"help": "Captions to evaluate on, in COCO's or Karpathy's format."}
    )
    eval_images: str | None = field(
        default=None, metadata={"help": "Folder of the pictures of these; by default --images."}
    )
    image_column: str | None = field(default=None, metadata={"help": "Column of pictures; found by default."})
    caption_column: str | None = field(default=None, metadata={"help": "Column of captions; found by default."})
    scst: bool = field(default=False, metadata={"help": "Raise the CIDEr-D of sampled captions: the second stage."})
    samples: int = field(default=5, metadata={"help": "With --scst: captions that are sampled of a picture."})
    baseline: str = field(
        default="mean",
        metadata={
            "help": "With --scst, what the reward of a sample is compared with: mean, of the other samples "
            "(arXiv:2003.09971), or greedy, the reward of the greedy caption (arXiv:1612.00563).",
            "choices": list(BASELINES),
        },
    )
    cache: str = field(default="~/.cache/modeling_vlkd", metadata={"help": "Folder in which image rows are kept."})

    def __post_init__(self):
        super().__post_init__()
        least = 2 if self.baseline == "mean" else 1
        if self.samples < least:
            raise ValueError(f"--samples {self.samples}: give {least} or more with --baseline {self.baseline}.")

    def read(self) -> tuple[Dataset, Dataset | None]:
        """Read the pictures to train on, and those to evaluate on."""
        if self.references is not None:
            pictures = load_referenced_images(self.references, str(self.images), self.split)
        else:
            pictures = self.load(str(self.train_split))
        if self.eval_references is not None:
            images = self.eval_images or self.images
            return pictures, load_referenced_images(self.eval_references, str(images), self.eval_split)
        if self.eval_split is None:
            return pictures, None
        if self.references is not None:
            return pictures, load_referenced_images(self.references, str(self.images), self.eval_split)
        return pictures, self.load(self.eval_split)

    def load(self, split: str) -> Dataset:
        return load_captioned_images(str(self.dataset), split, self.image_column, self.caption_column)

    @property
    def train_split(self) -> str | None:
        return self.split or (None if self.dataset is None else "train")

    @property
    def source(self) -> str:
        return str(self.references or self.dataset)


def main(argv: list[str]) -> int:
    is_second_stage = is_on(last_values(with_config(argv)), "scst")
    parser = make_parser(
        CaptioningArguments,
        "captioning",
        "--checkpoint MODEL (--dataset PICTURES | --references FILE --images DIR) [--eval_split SPLIT]",
        DESCRIPTION,
        EXAMPLES,
        learning_rate=SCST_RATE if is_second_stage else RATE,
        per_device_train_batch_size=32,
    )
    arguments, card, training, checkpoint = parse(parser, argv, "CIDEr", ["eval_split", "eval_references"])
    refuse_half_the_data(parser, arguments)
    if arguments.scst or training.eval_strategy != "no":
        require_packages("Scoring captions", "pycocoevalcap", "nltk")
    pictures, eval_pictures = arguments.read()
    trained_on = TrainedOn.of_pairs(arguments.source, arguments.split or "train", pictures)
    if checkpoint is not None:
        trained_on.refuse_other(checkpoint)

    set_seed(training.seed)
    model, processor = load_to_finetune(arguments, training)
    # The collators need `caption` and `position`, which are no arguments of the model.
    training.remove_unused_columns = False

    def prepare(data: Dataset, each_caption: bool) -> PictureExamples:
        with training.main_process_first(desc="image rows"):  # then the other processes read the cache
            return make_examples(data, unwrap_peft_model(model), processor, arguments.cache, each_caption)

    train = prepare(pictures, not arguments.scst)
    evaluated = None if eval_pictures is None else prepare(eval_pictures, not arguments.scst)
    note = f"{len(pictures)} pictures, {sum(map(len, train.captions))} captions"
    trainer = make_trainer(
        arguments,
        training,
        train,
        model=model,
        eval_dataset=evaluated,
        evaluation=None if evaluated is None else CaptionEvaluation(evaluated, processor),
        processing_class=processor,
        callbacks=callbacks_of(arguments),
        run_facts=facts_of(
            arguments,
            card,
            argv,
            trained_on,
            [Source.find("image-caption pairs", arguments.source, "dataset", note)],
            evaluation_source(
                arguments.eval_references or (arguments.source if arguments.eval_split else None),
                arguments.source,
                "dataset",
                arguments.eval_split or "",
                same_split=arguments.eval_split == arguments.train_split,
            ),
        ),
    )
    metric = Metric("CIDEr", f"CIDEr {{:.4f}} on {0 if eval_pictures is None else len(eval_pictures)} pictures")
    return run(
        trainer,
        arguments,
        checkpoint,
        metric,
        example_command(training.output_dir, arguments.images or arguments.source),
    )


def make_examples(
    data: Dataset, model: PreTrainedModel, processor: VLKDProcessor, cache: str, each_caption: bool
) -> PictureExamples:
    """Look at each picture once, or never if the rows are in the cache, where the tower is frozen."""
    rows = None
    if model.config.freeze_vision_tower:
        rows = compute_image_rows(data, model, processor, Path(cache).expanduser()).with_format("numpy")
    return PictureExamples(data, rows, model.config.projection_dim, each_caption)


def make_trainer(
    arguments: CaptioningArguments, training: Seq2SeqTrainingArguments, train: PictureExamples, **kwargs: Any
) -> FinetuningTrainer:
    """Make the trainer of the first or the second stage; its own statistics of the references stay with the run."""
    processor = kwargs["processing_class"]
    if not arguments.scst:
        bare = unwrap_peft_model(kwargs["model"])
        collate: Any = VLKDDataCollator(processor, bare)
        return FinetuningTrainer(args=training, data_collator=collate, train_dataset=train, **kwargs)
    references = tokenize_references(train.captions)
    with training.main_process_first(desc="document frequencies"):
        path = Path(training.output_dir, FILE_NAME)
        frequencies = count_once(path, references, write=training.should_save)
    kwargs["run_facts"].settings |= {"scst": True, "samples": arguments.samples, "baseline": arguments.baseline}
    return SelfCriticalTrainer(
        args=training,
        data_collator=PictureCollator(processor),
        train_dataset=train,
        reward=CaptionReward(references, frequencies),
        samples=arguments.samples,
        baseline=arguments.baseline,
        **kwargs,
    )


def tokenize_references(captions: Sequence[Sequence[str]]) -> list[list[str]]:
    """Cut the captions of all pictures into words, as the reward does the samples."""
    words = iter(tokenize_texts([text for group in captions for text in group], PYTHON_TOKENIZER))
    return [[next(words) for _ in group] for group in captions]


def refuse_half_the_data(parser: TrainingParser, arguments: CaptioningArguments):
    """Stop unless there is a data set, or references with the folder of their pictures; and at a folder in vain."""
    if (arguments.dataset is None) == (arguments.references is None):
        parser.error("expected either --dataset, or --references and --images")
    if arguments.references is not None and arguments.images is None:
        parser.error("--references needs --images, the folder of the pictures")
    if arguments.images is not None and arguments.references is None and arguments.eval_references is None:
        parser.error("--images needs --references, the file of the captions; a --dataset holds its own pictures")
    if arguments.eval_images is not None and arguments.eval_references is None:
        parser.error("--eval_images needs --eval_references, the file of the captions")
    if arguments.eval_references is not None and (arguments.eval_images or arguments.images) is None:
        parser.error("--eval_references needs --eval_images, the folder of the pictures")
