"""`vlkd finetune --task vqa`: trains a distilled model further on questions about pictures and their answers."""

from dataclasses import dataclass, field

from transformers import set_seed

from modeling_vlkd.evaluation.questions import read_questions
from modeling_vlkd.publishing.provenance import Source
from modeling_vlkd.trainers import VLKDDataCollator
from modeling_vlkd.trainers.answered_questions import AnswerEvaluation, QuestionExamples
from modeling_vlkd.trainers.finetuning import FinetuningTrainer
from modeling_vlkd.trainers.trained_on import TrainedOn

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


EXAMPLES = """\
  vlkd finetune --checkpoint vlkd-demo --questions train.csv --eval_questions test.csv --num_train_epochs 3
"""


@dataclass(kw_only=True)
class VQAArguments(PictureTaskArguments):
    """The questions to train and to evaluate on."""

    questions: str = field(metadata={"help": "CSV or JSON lines of image, question, answer to train on."})
    eval_questions: str | None = field(
        default=None, metadata={"help": "The same to evaluate on; the share answered right is printed at the end."}
    )


def main(argv: list[str]) -> int:
    parser = make_parser(
        VQAArguments,
        "vqa",
        "--checkpoint MODEL --questions FILE [--eval_questions FILE]",
        "Trains a distilled model further on questions about pictures.",
        EXAMPLES,
        learning_rate=3e-4,
        per_device_train_batch_size=64,
    )
    arguments, card, training, checkpoint = parse(parser, argv, "vqa_accuracy", ["eval_questions"])
    rows = read_questions(arguments.questions)
    trained_on = TrainedOn.of_questions(arguments.questions, rows)
    if checkpoint is not None:
        trained_on.refuse_other(checkpoint)
    eval_rows = read_questions(arguments.eval_questions) if arguments.eval_questions else None

    set_seed(training.seed)
    model, processor = load_to_finetune(arguments, training)
    # The collator needs the columns `question` and `answer`, which are no arguments of the model.
    training.remove_unused_columns = False
    eval_examples = QuestionExamples.of(eval_rows, model, processor) if eval_rows else None
    source = Source.find("questions and answers", arguments.questions, note=f"{trained_on.examples} questions")
    trainer = FinetuningTrainer(
        model,
        training,
        data_collator=VLKDDataCollator(processor, model),
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
            [source],
            evaluation_source(arguments.eval_questions, arguments.questions),
        ),
    )
    metric = Metric("vqa_accuracy", f"{{:.2%}} of {len(eval_rows or [])} questions answered right")
    example = example_command(training.output_dir, rows[0]["image"], rows[0]["question"])
    return run(trainer, arguments, checkpoint, metric, example)
