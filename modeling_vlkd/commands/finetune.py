"""`vlkd finetune`: trains a distilled model further on questions about pictures and their answers."""

from dataclasses import dataclass, field
from pathlib import Path

import torch
from transformers import Seq2SeqTrainingArguments, set_seed

from modeling_vlkd.evaluation.questions import make_question_set, read_questions
from modeling_vlkd.evaluation.vqa import answer_accuracy
from modeling_vlkd.publishing.provenance import Provenance, Source
from modeling_vlkd.trainers import VLKDDataCollator
from modeling_vlkd.trainers.card_trainer import TRAINED_ON, UNNAMED, VQA, RunFacts, result_on
from modeling_vlkd.trainers.finetuning import FinetuningTrainer, finetuning_examples
from modeling_vlkd.trainers.resumable_trainer import SaveOnInterrupt
from modeling_vlkd.trainers.trained_on import TrainedOn

from .card_arguments import CardArguments, command_line
from .config_file import with_config
from .outcome import diverged, example_command, refuse_diverged, warn_of_rise
from .pictures import load_checkpoint
from .training_parser import TrainingParser, checkpoint_to_resume, require_writable


EXAMPLE = """\
example:
  vlkd finetune --checkpoint vlkd-demo --questions train.csv --eval_questions test.csv --num_train_epochs 3
"""


@dataclass
class FinetuneArguments:
    """The model that is trained further, and the questions."""

    checkpoint: str = field(metadata={"help": "Folder or Hub id of a VLKD model."})
    questions: str = field(metadata={"help": "CSV or JSON lines of image, question, answer to train on."})
    eval_questions: str | None = field(
        default=None, metadata={"help": "The same to evaluate on; the share answered right is printed at the end."}
    )


def main(argv: list[str]) -> int:
    parser = TrainingParser(
        [FinetuneArguments, CardArguments, Seq2SeqTrainingArguments],
        prog="vlkd finetune",
        usage="vlkd finetune --checkpoint MODEL --questions FILE [--eval_questions FILE] [--config FILE] [ARGUMENTS]",
        description="Trains a distilled model further on questions about pictures; CLIP stays frozen.",
        epilog=EXAMPLE,
    )
    parser.set_defaults(output_dir="vlkd-finetuned", learning_rate=3e-4, per_device_train_batch_size=64)
    arguments, card, training = parser.parse(argv)
    require_writable(training.output_dir)
    checkpoint = checkpoint_to_resume(training.output_dir, training.resume_from_checkpoint)
    if training.eval_strategy != "no" and arguments.eval_questions is None:
        parser.error(f"--eval_strategy {training.eval_strategy.value} needs --eval_questions, a file to evaluate on")
    rows = read_questions(arguments.questions)
    trained_on = TrainedOn.of_questions(arguments.questions, rows)
    if checkpoint is not None:
        trained_on.refuse_other(checkpoint)
    eval_rows = read_questions(arguments.eval_questions) if arguments.eval_questions else None

    set_seed(training.seed)
    model, processor = load_checkpoint(arguments.checkpoint, training.device, torch.float32)
    if not model.config.freeze_vision_tower:
        raise ValueError(
            f"{arguments.checkpoint} wants its vision tower trained (`freeze_vision_tower` in its config.json), but "
            "each picture is looked at once here, before the training: set it to true, or train from Python on "
            "`pixel_values`."
        )
    # The collator needs the columns `question` and `answer`, which are no arguments of the model.
    training.remove_unused_columns = False
    questions = make_question_set(rows, model, processor)
    eval_questions = make_question_set(eval_rows, model, processor) if eval_rows else None
    interrupt = SaveOnInterrupt()
    trainer = FinetuningTrainer(
        model,
        training,
        data_collator=VLKDDataCollator(processor, model),
        train_dataset=finetuning_examples(questions),
        eval_dataset=finetuning_examples(eval_questions) if eval_questions else None,
        processing_class=processor,
        callbacks=[interrupt],
        run_facts=facts_of(arguments, card, argv, trained_on),
    )
    trainer.train(resume_from_checkpoint=checkpoint)
    interrupt.raise_if_interrupted(trainer.state.global_step)
    fault = diverged(trainer)
    if eval_questions and fault is None:
        accuracy = answer_accuracy(model, processor, eval_questions, batch_size=training.eval_batch_size)
        print(f"{accuracy:.2%} of {len(eval_questions.questions)} questions answered right.")
        trainer.run_facts.results.append(result_on(trainer.run_facts.eval_questions, *VQA, accuracy))
    trainer.save_model()
    trainer.save_state()
    trainer.create_model_card()
    refuse_diverged(fault, training.output_dir, training.learning_rate)
    warn_of_rise("vlkd finetune", trainer.state.log_history)
    example = example_command(training.output_dir, rows[0]["image"], rows[0]["question"])
    print(f"The finetuned model is in {training.output_dir}; try\n  {example}")
    return 0


def facts_of(arguments: FinetuneArguments, card: CardArguments, argv: list[str], trained_on: TrainedOn) -> RunFacts:
    """Gather what the model card needs and the trainer cannot know."""
    provenance = Provenance.of_checkpoint(arguments.checkpoint)
    provenance.add_source(
        Source.find("questions and answers", arguments.questions, note=f"{trained_on.examples} questions")
    )
    provenance.license = card.license or provenance.license
    provenance.language = card.language or provenance.language
    provenance.commands.append(command_line("finetune", with_config(argv)))
    evaluated = UNNAMED
    if arguments.eval_questions:
        role = TRAINED_ON if Path(arguments.eval_questions).samefile(arguments.questions) else "evaluation"
        evaluated = Source.find(role, arguments.eval_questions)
    return RunFacts(provenance, eval_questions=evaluated, trained_on=trained_on)


if __name__ == "__main__":
    import sys

    from .main import main as vlkd  # it turns an error into one line

    sys.exit(vlkd(["finetune", *sys.argv[1:]]))
