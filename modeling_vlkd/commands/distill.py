"""`vlkd distill`: distills a CLIP into a BART with pictures and their captions."""

from dataclasses import dataclass, field
from pathlib import Path

import torch
from datasets import Dataset
from transformers import set_seed

from modeling_vlkd import VLKDForConditionalGeneration, VLKDProcessor
from modeling_vlkd.evaluation.decoding import MOST_PICTURES, choose_decoding
from modeling_vlkd.evaluation.questions import make_question_set, read_questions
from modeling_vlkd.publishing.provenance import Provenance, Source, read_metadata, stated_languages
from modeling_vlkd.trainers import (
    PictureImitation,
    ReplayCorpus,
    VLKDDistillationConfig,
    VLKDDistillationTrainer,
    align_text_projection,
)
from modeling_vlkd.trainers.captioned_images import ImageCaptionPairs, hold_back, load_captioned_images, open_row
from modeling_vlkd.trainers.card_trainer import TRAINED_ON, UNNAMED, VQA, RunFacts, measured, result_on
from modeling_vlkd.trainers.feature_cache import embed_sample, prepare_pairs
from modeling_vlkd.trainers.resumable_trainer import SaveOnInterrupt
from modeling_vlkd.trainers.text_teacher import TextTeacher
from modeling_vlkd.trainers.trained_on import TrainedOn

from .card_arguments import CardArguments, command_line
from .config_file import with_config
from .outcome import diverged, example_command, finish
from .pictures import load_checkpoint
from .training_parser import TrainingParser, checkpoint_to_resume, require_writable


EXAMPLE = """\
examples:
  vlkd distill --vision openai/clip-vit-base-patch16 --text facebook/bart-base --dataset pictures/
  accelerate launch --num_processes 8 -m modeling_vlkd.commands.distill --vision ...    (several GPUs)
  vlkd distill --checkpoint my-vlkd --teacher my-teacher --dataset pictures/
"""


@dataclass
class DistillArguments:
    """The models that are distilled, and the data."""

    dataset: str = field(
        metadata={"help": "Folder of pictures with metadata.csv, parquet, saved data set, or Hub id."}
    )
    vision: str | None = field(default=None, metadata={"help": "The CLIP: folder or Hub id, in transformers format."})
    text: str | None = field(default=None, metadata={"help": "The BART: folder or Hub id, in transformers format."})
    checkpoint: str | None = field(
        default=None,
        metadata={"help": "What `vlkd convert` made of both, instead of --vision and --text."},
    )
    teacher: str | None = field(
        default=None,
        metadata={"help": "The CLIP, or its text tower as `vlkd convert --teacher` leaves it; by default --vision."},
    )
    split: str = field(default="train", metadata={"help": "Split of the data set to train on."})
    eval_split: str | None = field(
        default=None, metadata={"help": "Split to evaluate on, at the end and as --eval_strategy says."}
    )
    image_column: str | None = field(default=None, metadata={"help": "Column of pictures; found by default."})
    caption_column: str | None = field(default=None, metadata={"help": "Column of captions; found by default."})
    hold_back: int | None = field(
        default=None,
        metadata={
            "help": "Pictures that are not trained on: at the end, both ways of decoding are tried on them. By "
            "default 5 %%, at most 200; none with an --eval_split of its own, which is tried on instead."
        },
    )
    questions: str | None = field(
        default=None, metadata={"help": "CSV or JSON lines of image, question, answer to evaluate on, zero-shot."}
    )
    replay: str | None = field(
        default=None,
        metadata={
            "help": "Texts to replay, so that BART does not forget how to read: lines of `text`, `context<TAB>text` "
            "or `context<TAB>source<TAB>target`; CLIP's embedding of the context stands where an image would."
        },
    )
    align_text_projection: bool = field(
        default=False,
        metadata={
            "help": "Start W_e as the orthogonal map that brings BART's sentences closest to CLIP's texts, and not at "
            "random; not to go on with a distilled model."
        },
    )
    flip: bool = field(
        default=False, metadata={"help": "Show mirror images too; leave it off if captions say left or right."}
    )
    keep_pixels: bool = field(
        default=False, metadata={"help": "Look at the pictures at each step instead of keeping their image rows."}
    )
    cache: str = field(
        default="~/.cache/modeling_vlkd", metadata={"help": "Folder in which image rows and embeddings are kept."}
    )


def main(argv: list[str]) -> int:
    parser = TrainingParser(
        [DistillArguments, CardArguments, VLKDDistillationConfig],
        prog="vlkd distill",
        usage="vlkd distill (--vision CLIP --text BART | --checkpoint DIR --teacher CLIP) --dataset PICTURES "
        "[--replay FILE] [--config FILE] [ARGUMENTS]",
        description="Distills a frozen CLIP into a BART with pictures and their captions (arXiv:2203.06386).",
        epilog=EXAMPLE,
    )
    parser.set_defaults(output_dir="vlkd-distilled")
    arguments, card, training = parser.parse(argv)
    refuse_half_a_model(parser, arguments, needs_teacher(arguments, training))
    require_writable(training.output_dir)
    checkpoint = checkpoint_to_resume(training.output_dir, training.resume_from_checkpoint)
    if training.eval_strategy != "no" and arguments.eval_split is None:
        parser.error(f"--eval_strategy {training.eval_strategy.value} needs --eval_split, the split to evaluate on")
    trainer, interrupt, unseen = make_trainer(arguments, training, facts_of(arguments, card, argv), checkpoint)
    trainer.train(resume_from_checkpoint=checkpoint)
    interrupt.raise_if_interrupted(trainer.state.global_step)
    fault = diverged(trainer)
    if fault is None:
        changed = unseen is not None and choose_decoding_at_the_end(trainer, unseen)
        evaluate_at_the_end(trainer, anew=changed)
    example = example_command(training.output_dir, arguments.dataset)
    finish("vlkd distill", trainer, fault, "distilled", example)
    return 0


def make_trainer(
    arguments: DistillArguments, training: VLKDDistillationConfig, facts: RunFacts, checkpoint: str | None
) -> tuple[VLKDDistillationTrainer, SaveOnInterrupt, Dataset | None]:
    """Assemble model, data and trainer.

    Returns:
        The trainer; the callback that saves on an interrupt; and pictures that are not trained on, or None.

    Raises:
        ValueError: the run of `checkpoint` was trained on other data.
    """
    set_seed(training.seed)
    dataset, held_back = load_pairs_of(arguments, arguments.split), None
    has_own_evaluation = arguments.eval_split not in (None, arguments.split)
    if arguments.hold_back is not None or not has_own_evaluation:
        dataset, held_back = hold_back(dataset, arguments.hold_back, training.seed)
    facts.trained_on = TrainedOn.of_pairs(arguments.dataset, arguments.split, dataset)
    if checkpoint is not None:
        facts.trained_on.refuse_other(checkpoint)
    eval_dataset = load_pairs_of(arguments, arguments.eval_split) if arguments.eval_split else None
    rows = read_questions(arguments.questions) if arguments.questions else None
    model, processor = load_student(arguments)
    model.to(training.device)
    teacher = None
    if needs_teacher(arguments, training):
        teacher = TextTeacher(arguments.teacher or arguments.vision, training.device)
    replay = None
    if arguments.replay is not None:
        replay = ReplayCorpus.from_file(arguments.replay, processor.tokenizer, teacher.embed)
    if arguments.align_text_projection or (replay is not None and replay.has_contexts):
        captions, image_embeds, text_embeds = embed_sample(dataset, model, processor, teacher)
        if arguments.align_text_projection:
            align_text_projection(model, processor, captions, text_embeds)
        if replay is not None:
            replay = replay.imitating(PictureImitation(image_embeds, text_embeds, training.seed))

    def prepare(data: Dataset, flip: bool) -> ImageCaptionPairs:
        cache = Path(arguments.cache).expanduser()
        used = teacher if training.ttdm_weight > 0 else None
        with training.main_process_first(desc="frozen features"):  # then the other processes read the cache
            return prepare_pairs(data, model, processor, used, cache, flip, arguments.keep_pixels)

    interrupt = SaveOnInterrupt()
    trainer = VLKDDistillationTrainer(
        model,
        training,
        train_dataset=prepare(dataset, arguments.flip),
        eval_dataset=None if eval_dataset is None else prepare(eval_dataset, flip=False),
        processing_class=processor,
        replay=replay,
        question_set=None if rows is None else make_question_set(rows, model, processor),
        callbacks=[interrupt],
        run_facts=facts,
    )
    add_data(facts.provenance, arguments, len(dataset), len(replay or []))
    unseen = eval_dataset if has_own_evaluation and held_back is None else held_back
    return trainer, interrupt, unseen


def facts_of(arguments: DistillArguments, card: CardArguments, argv: list[str]) -> RunFacts:
    """Gather what the model card needs and the trainer cannot know.

    This happens before the training, which may move or overwrite the files that are read here.
    """
    if arguments.checkpoint is not None:
        provenance = Provenance.of_checkpoint(arguments.checkpoint)
    else:
        provenance = Provenance.of_towers(str(arguments.vision), str(arguments.text))
    if arguments.teacher is not None:
        provenance.add_source(Source.find("text teacher", arguments.teacher))
    provenance.license = card.license or provenance.license
    provenance.language = card.language or provenance.language
    provenance.commands.append(command_line("distill", with_config(argv)))
    names = ("align_text_projection", "flip", "keep_pixels")
    settings = {name: True for name in names if getattr(arguments, name)}
    role = TRAINED_ON if arguments.eval_split == arguments.split else "evaluation"
    evaluated = Source.find(role, arguments.dataset, "dataset", arguments.eval_split or "")
    questions = Source.find("evaluation", arguments.questions) if arguments.questions else UNNAMED
    return RunFacts(provenance, settings, evaluated, questions)


def add_data(provenance: Provenance, arguments: DistillArguments, pictures: int, texts: int):
    """Add the data sets to the model's sources, after loading, when the card of a Hub data set is in the cache."""
    note = f"split {arguments.split}, {pictures} pictures"
    provenance.add_source(Source.find("image-caption pairs", arguments.dataset, "dataset", note))
    if arguments.replay is not None:
        provenance.add_source(Source.find("replayed texts", arguments.replay, note=f"{texts} texts"))
    provenance.language = provenance.language or stated_languages(read_metadata(arguments.dataset, "dataset"))


def choose_decoding_at_the_end(trainer: VLKDDistillationTrainer, unseen: Dataset) -> bool:
    """Try both ways of decoding on unseen pictures, keep the better one with the model, and report it.

    Returns:
        Whether the choice differs from the one before.
    """
    before = trainer.bare_model.generation_config.to_dict().get("force_prefix", True)
    count = min(len(unseen), MOST_PICTURES)
    trial = choose_decoding(
        trainer.bare_model,
        trainer.processing_class,
        (open_row(unseen, row) for row in range(count)),
        unseen["captions"][:count],
        trainer.args.eval_batch_size,
    )
    trainer.run_facts.settings["it writes"] = str(trial)
    if trainer.is_world_process_zero():
        print(f"It writes {trial}.")
    return trial.force_prefix != before


def evaluate_at_the_end(trainer: VLKDDistillationTrainer, anew: bool):
    """Evaluate the final weights, on the evaluation split or on the questions, if either is given.

    Args:
        anew: evaluate on the split even if the last training step has just done so.
    """
    if trainer.eval_dataset is not None:
        if anew or not measured(trainer.args, trainer.state):
            trainer.evaluate()
    elif trainer.question_set is not None:
        accuracy = trainer.answer_accuracy(trainer.question_set)
        print(f"{accuracy:.2%} of {len(trainer.question_set.questions)} questions answered right, zero-shot.")
        trainer.run_facts.results.append(result_on(trainer.run_facts.eval_questions, *VQA, accuracy))


def needs_teacher(arguments: DistillArguments, training: VLKDDistillationConfig) -> bool:
    """Tell whether the run needs CLIP's text tower."""
    return training.ttdm_weight > 0 or arguments.replay is not None or arguments.align_text_projection


def refuse_half_a_model(parser: TrainingParser, arguments: DistillArguments, teacher_needed: bool):
    """Stop unless the arguments give either both towers or a checkpoint, and a teacher if one is needed."""
    names = {"--vision": arguments.vision, "--text": arguments.text}
    missing = [flag for flag, name in names.items() if name is None]
    if arguments.checkpoint is None and missing:
        parser.error(f"the following arguments are required: {', '.join(missing)} (or --checkpoint)")
    if arguments.checkpoint is not None and len(missing) < 2:
        parser.error("expected either --checkpoint, or --vision and --text")
    if arguments.checkpoint is not None and arguments.teacher is None and teacher_needed:
        parser.error("--checkpoint holds no text tower of CLIP; give --teacher, or --ttdm_weight 0")


def load_student(arguments: DistillArguments) -> tuple[VLKDForConditionalGeneration, VLKDProcessor]:
    """Load the checkpoint that is to be distilled, or assemble a model from a CLIP and a BART."""
    if arguments.checkpoint is not None:
        return load_checkpoint(arguments.checkpoint, "cpu", torch.float32)
    names = (str(arguments.vision), str(arguments.text))
    return (
        VLKDForConditionalGeneration.from_vision_text_pretrained(*names),
        VLKDProcessor.from_vision_text_pretrained(*names),
    )


def load_pairs_of(arguments: DistillArguments, split: str) -> Dataset:
    return load_captioned_images(arguments.dataset, split, arguments.image_column, arguments.caption_column)


if __name__ == "__main__":
    import sys

    from .main import main as vlkd  # it turns an error into one line

    sys.exit(vlkd(["distill", *sys.argv[1:]]))
