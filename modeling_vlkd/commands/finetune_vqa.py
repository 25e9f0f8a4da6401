"""`vlkd finetune --task vqa`: trains a distilled model further on questions about pictures and their answers."""

from dataclasses import dataclass, field
from pathlib import Path

from transformers import set_seed

from modeling_vlkd.publishing.provenance import Source
from modeling_vlkd.trainers.answered_questions import AnswerEvaluation, QuestionExamples, read_answered_questions
from modeling_vlkd.trainers.trained_on import TrainedOn
from modeling_vlkd.trainers.vqa_finetuning import VQAFinetuningTrainer, WeightedAnswersCollator

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
  vlkd finetune --checkpoint vlkd-demo --questions train.csv --eval_questions test.csv --num_train_epochs 3
  vlkd finetune --checkpoint my-vlkd --questions v2_OpenEnded_mscoco_train2014_questions.json
      --label_smoothing_factor 0.1 --annotations v2_mscoco_train2014_annotations.json --images train2014
      --extra_questions question_answers.json --extra_images VG_100K
"""
DESCRIPTION = """\
Trains a distilled model further on questions about pictures.

Questions are a CSV or JSON-lines file of image, question, answer; or, with --images, the files of VQAv2 and OK-VQA
(questions and annotations) or Visual Genome (question_answers.json). Where several people answered, each different
answer counts by the share of people who gave it, spelled as they did."""
FILE_HELP = "CSV or JSON lines of image, question, answer{}; with {}, the file of a data set"


@dataclass(kw_only=True)
class VQAArguments(PictureTaskArguments):
    """The questions to train and to evaluate on."""

    questions: str = field(metadata={"help": FILE_HELP.format(" to train on", "--images") + "."})
    annotations: str | None = field(default=None, metadata={"help": "Answers to them, of VQAv2 or OK-VQA."})
    images: str | None = field(
        default=None, metadata={"help": "Folder of their pictures, whose names end in their ids."}
    )
    extra_questions: str | None = field(
        default=None, metadata={"help": FILE_HELP.format(" that are mixed in", "--extra_images") + ", say VG-QA."}
    )
    extra_images: str | None = field(default=None, metadata={"help": "Folder of the pictures of these."})
    eval_questions: str | None = field(
        default=None,
        metadata={"help": "The same to evaluate on, by the official VQA accuracy where several people answered."},
    )
    eval_annotations: str | None = field(default=None, metadata={"help": "Answers to these, of VQAv2 or OK-VQA."})
    eval_images: str | None = field(default=None, metadata={"help": "Folder of the pictures of these."})

    def read(self) -> tuple[list[dict], list[dict] | None]:
        """Read the questions to train on, the mixed-in ones among them, and those to evaluate on."""
        rows = read_answered_questions(self.questions, self.annotations, self.images)
        if self.extra_questions is not None:
            rows += read_answered_questions(self.extra_questions, images=self.extra_images)
        if self.eval_questions is None:
            return rows, None
        return rows, read_answered_questions(self.eval_questions, self.eval_annotations, self.eval_images)


def main(argv: list[str]) -> int:
    parser = make_parser(
        VQAArguments,
        "vqa",
        "--checkpoint MODEL --questions FILE [--eval_questions FILE]",
        DESCRIPTION,
        EXAMPLES,
        learning_rate=3e-4,
        per_device_train_batch_size=64,
    )
    arguments, card, training, checkpoint = parse(parser, argv, "vqa_accuracy", ["eval_questions"])
    refuse_what_does_not_match(parser, arguments)
    rows, eval_rows = arguments.read()
    trained_on = TrainedOn.of_questions(arguments.questions, rows)
    if checkpoint is not None:
        trained_on.refuse_other(checkpoint)

    set_seed(training.seed)
    model, processor = load_to_finetune(arguments, training)
    # The collator needs the columns `question` and `answers`, which are no arguments of the model.
    training.remove_unused_columns = False
    eval_examples = QuestionExamples.of(eval_rows, model, processor) if eval_rows else None
    trainer = VQAFinetuningTrainer(
        model,
        training,
        data_collator=WeightedAnswersCollator(processor, model),
        train_dataset=QuestionExamples.of(rows, model, processor),
        eval_dataset=eval_examples,
        evaluation=None if eval_examples is None else AnswerEvaluation(eval_examples, processor),
        processing_class=processor,
        callbacks=callbacks_of(arguments),
        run_facts=facts_of(
            arguments,
            card,
            argv,
            trained_on,
            sources_of(arguments, len(rows)),
            evaluation_source(arguments.eval_questions, arguments.questions),
        ),
    )
    metric = Metric("vqa_accuracy", f"{{:.2%}} of {len(eval_rows or [])} questions answered right")
    example = example_command(training.output_dir, rows[0]["image"], rows[0]["question"])
    return run(trainer, arguments, checkpoint, metric, example)


def refuse_what_does_not_match(parser: TrainingParser, arguments: VQAArguments):
    """Stop at answers or pictures without their questions, and at a folder for questions that name their pictures."""
    for flag in ("eval_annotations", "eval_images", "extra_images"):
        questions = f"{flag.partition('_')[0]}_questions"
        if getattr(arguments, flag) is not None and getattr(arguments, questions) is None:
            parser.error(f"--{flag} needs --{questions}, the file of the questions")
    for prefix in ("", "extra_", "eval_"):
        file, folder = getattr(arguments, f"{prefix}questions"), getattr(arguments, f"{prefix}images")
        if folder is not None and Path(file).suffix in (".csv", ".jsonl"):
            parser.error(f"--{prefix}questions {file} names its pictures itself; leave --{prefix}images out")


def sources_of(arguments: VQAArguments, count: int) -> list[Source]:
    """Name the training data for the card; the number is of all questions."""
    role = "questions and answers"
    sources = [Source.find(role, arguments.questions, note=f"{count} questions")]
    if arguments.extra_questions is not None:
        sources.append(Source.find(role, arguments.extra_questions, note="mixed in, counted with the others"))
    return sources
