"""What `vlkd finetune` does alike for all tasks: arguments, loading, a baseline, training, the best checkpoint."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from transformers import EarlyStoppingCallback, PreTrainedModel, Seq2SeqTrainingArguments, TrainingArguments

from modeling_vlkd import VLKDProcessor
from modeling_vlkd.publishing.provenance import Provenance, Source
from modeling_vlkd.trainers.card_trainer import TRAINED_ON, UNNAMED, CardTrainer, RunFacts, measured
from modeling_vlkd.trainers.resumable_trainer import SaveOnInterrupt
from modeling_vlkd.trainers.trained_on import TrainedOn

from .card_arguments import CardArguments, command_line
from .config_file import with_config
from .early_checks import is_on, last_values
from .finetuning_tasks import other_tasks
from .outcome import diverged, finish
from .pictures import load_checkpoint
from .training_parser import TrainingParser, checkpoint_to_resume, require_writable


STEPS_APART = 500  # between two evaluations, where they are counted in steps and nobody says how many
KEEP_BEST_HELP = """
With evaluation data, the task's metric is measured before the first step and after every epoch, and the best
checkpoint is what OUTPUT_DIR holds at the end. --eval_strategy steps --eval_steps 200 measures more often;
--eval_on_start false leaves the first measurement out; --load_best_model_at_end false keeps the last checkpoint.
"""


@dataclass(kw_only=True)
class FinetuneArguments:
    """What every task has."""

    checkpoint: str = field(metadata={"help": "Folder or Hub id of a VLKD model."})
    task: str = field(default="vqa", metadata={"help": "What is trained."})
    lora: int | None = field(
        default=None,
        metadata={
            "help": "Rank of a LoRA adapter of BART's attention, which is trained instead of all weights; 8 or 16 are "
            "usual. OUTPUT_DIR/adapter holds it alone, for peft, and OUTPUT_DIR the whole model with it merged in."
        },
    )
    early_stopping_patience: int | None = field(
        default=None,
        metadata={"help": "Stop after so many evaluations without a better one; by default all steps are made."},
    )

    def __post_init__(self):
        for name in ("lora", "early_stopping_patience"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"--{name} {value}: give 1 or more, or leave it out.")


@dataclass(kw_only=True)
class PictureTaskArguments(FinetuneArguments):
    """What tasks about pictures have besides."""

    freeze_vision_tower: bool | None = field(
        default=None,
        metadata={
            "help": "Whether CLIP stays as it is, so that each picture is looked at only once; with false it is "
            "trained too, and looks at each step. By default as the checkpoint says: true, unless it was changed."
        },
    )


@dataclass(frozen=True)
class Metric:
    """The figure by which a task's checkpoints are compared.

    Args:
        name: in the trainer's metrics, without `eval_`.
        text: what it says, with a format for the value: "{:.2%} of 12 questions answered right".
        greater_is_better: whether the best checkpoint has the highest figure.
    """

    name: str
    text: str
    greater_is_better: bool = True


def make_parser(
    arguments: type[FinetuneArguments],
    task: str,
    usage: str,
    description: str,
    examples: str,
    training: type[TrainingArguments] = Seq2SeqTrainingArguments,
    **defaults: Any,
) -> TrainingParser:
    """Make the parser of a task.

    Args:
        arguments, training: dataclasses of the task's own arguments and of the trainer's.
        usage: the flags that one has to know.
        examples: commands, one a line.
        defaults: of any flags.
    """
    parser = TrainingParser(
        [arguments, CardArguments, training],
        prog="vlkd finetune",
        usage=f"vlkd finetune --task {task} {usage} [--config FILE] [ARGUMENTS]",
        description=description,
        epilog=f"examples:\n{examples}\n{other_tasks(task)}{KEEP_BEST_HELP}",
    )
    parser.set_defaults(task=task, output_dir="vlkd-finetuned", **defaults)
    return parser


def parse(
    parser: TrainingParser, argv: Sequence[str], metric: str, eval_flags: Sequence[str], greater_is_better: bool = True
) -> tuple[Any, CardArguments, Any, str | None]:
    """Parse a task's arguments; with evaluation data, the best checkpoint is kept unless the user says otherwise.

    Args:
        metric: the name of the task's metric, without `eval_`.
        eval_flags: names of the flags of which any one brings evaluation data; the first is named to who gives none.

    Returns:
        The task's arguments, those of the card and of the trainer, and the checkpoint to resume from, or None.

    Raises:
        ValueError: nothing can be written to the output folder, or there is no such checkpoint.
    """
    given = last_values(with_config(argv))
    has_evaluation = any(given.get(flag) for flag in eval_flags)
    if has_evaluation:
        parser.set_defaults(eval_on_start=True, **settings_of_evaluation(given, metric, greater_is_better))
    arguments, card, training = parser.parse(argv)
    if training.eval_strategy != "no" and not has_evaluation:
        what = f"--{eval_flags[0]}"
        parser.error(f"--eval_strategy {training.eval_strategy.value} needs {what}, a file to evaluate on")
    if arguments.early_stopping_patience is not None and training.eval_strategy == "no":
        parser.error(f"--early_stopping_patience needs --{eval_flags[0]} and an --eval_strategy")
    if arguments.early_stopping_patience is not None and training.metric_for_best_model is None:
        parser.error("--early_stopping_patience needs --metric_for_best_model")
    require_writable(training.output_dir)
    checkpoint = checkpoint_to_resume(training.output_dir, training.resume_from_checkpoint)
    if checkpoint is not None:
        training.eval_on_start = False  # it was measured by the run that is gone on with
        training.restore_callback_states_from_checkpoint = arguments.early_stopping_patience is not None
    return arguments, card, training, checkpoint


def settings_of_evaluation(given: Mapping[str, str], metric: str, greater_is_better: bool) -> dict[str, Any]:
    """Choose transformers' settings so that checkpoints are evaluated when they are saved, and the best one is kept.

    Args:
        given: the flags that the user gave, which win. The last checkpoint is kept if `load_best_model_at_end` is
            false, or if evaluation and saving shall differ.
    """
    counted = "steps" if given.keys() & {"eval_steps", "save_steps"} else "epoch"
    saved = given.get("save_strategy")
    evaluated = given.get("eval_strategy") or (saved if saved in ("steps", "epoch") else counted)
    if evaluated == "no":
        return {}
    saved = saved or evaluated
    steps = given.get("eval_steps") or given.get("save_steps") or str(STEPS_APART)  # the parser says what is no number
    chosen = {"eval_strategy": evaluated, "save_strategy": saved, "eval_steps": steps, "save_steps": steps}
    if not is_on(given, "load_best_model_at_end", default=saved in (evaluated, "best")):
        return chosen
    best = {"load_best_model_at_end": True, "metric_for_best_model": metric, "greater_is_better": greater_is_better}
    return chosen | best | {"save_total_limit": 2}  # the best and the last


def load_to_finetune(
    arguments: FinetuneArguments, training: TrainingArguments
) -> tuple[PreTrainedModel, VLKDProcessor]:
    """Load the checkpoint in fp32, its tower frozen or not, with a new adapter if one is asked for."""
    model, processor = load_checkpoint(arguments.checkpoint, training.device, torch.float32)
    if isinstance(arguments, PictureTaskArguments) and arguments.freeze_vision_tower is not None:
        set_tower_frozen(model, arguments.freeze_vision_tower)
    if arguments.lora is not None and not model.config.freeze_vision_tower:
        raise ValueError(
            "--lora leaves all weights of the model as they are, so also those of the vision tower: add "
            "--freeze_vision_tower true, or leave --lora out."
        )
    return add_lora(model, arguments.lora), processor


def set_tower_frozen(model: PreTrainedModel, frozen: bool):
    """Freeze the vision tower, or have it trained; the checkpoint that is saved says so too."""
    model.config.freeze_vision_tower = frozen
    model.base_model.vision_tower.requires_grad_(not frozen)
    model.train(model.training)  # a frozen tower stays in evaluation mode


def add_lora(model: PreTrainedModel, rank: int | None) -> Any:
    """Put a LoRA adapter of this rank where peft puts it by default: into BART's attention; None leaves all as it is.

    Raises:
        ValueError: peft is not installed.
    """
    if rank is None:
        return model
    try:
        from peft import LoraConfig, TaskType, get_peft_model
    except ModuleNotFoundError as error:
        raise ValueError("--lora needs peft, which is not installed; `pip install peft`.") from error
    is_generator = model.can_generate()
    kind = TaskType.SEQ_2_SEQ_LM if is_generator else TaskType.SEQ_CLS
    head = None if is_generator else ["classification_head"]  # new, so trained and saved as a whole
    return get_peft_model(model, LoraConfig(r=rank, lora_alpha=2 * rank, task_type=kind, modules_to_save=head))


def callbacks_of(arguments: FinetuneArguments) -> list[Any]:
    """Make the callbacks of a run: saving when it is interrupted and, if wanted, early stopping."""
    callbacks: list[Any] = [SaveOnInterrupt()]
    if arguments.early_stopping_patience is not None:
        callbacks.append(EarlyStoppingCallback(arguments.early_stopping_patience))
    return callbacks


def facts_of(
    arguments: FinetuneArguments,
    card: CardArguments,
    argv: Sequence[str],
    trained_on: TrainedOn,
    sources: Sequence[Source],
    evaluated: Source = UNNAMED,
) -> RunFacts:
    """Gather what the model card needs and the trainer cannot know.

    Args:
        sources: the training data.
        evaluated: the evaluation data, as `evaluation_source` describes it.
    """
    provenance = Provenance.of_checkpoint(arguments.checkpoint)
    for source in sources:
        provenance.add_source(source)
    provenance.license = card.license or provenance.license
    provenance.language = card.language or provenance.language
    provenance.commands.append(command_line("finetune", with_config(argv)))
    settings = {"lora": arguments.lora} if arguments.lora is not None else {}
    return RunFacts(provenance, settings, evaluated, evaluated, trained_on=trained_on)


def evaluation_source(
    name: str | None, trained_on: str, kind: str = "model", note: str = "", same_split: bool = True
) -> Source:
    """Describe the evaluation data, and say so if they are the training data.

    Args:
        name, trained_on: files, folders or Hub ids.
        kind: "dataset" if they may be Hub ids of data sets.
        same_split: whether the same split of both is read; a file that holds one table has no others.
    """
    if name is None:
        return UNNAMED
    same = same_split and Path(name).exists() and Path(trained_on).exists() and Path(name).samefile(trained_on)
    return Source.find(TRAINED_ON if same else "evaluation", name, kind, note)


def run(
    trainer: CardTrainer, arguments: FinetuneArguments, checkpoint: str | None, metric: Metric, example: str
) -> int:
    """Train, keep the best checkpoint, measure it, save all, and tell how it went.

    Args:
        trainer: made with `callbacks_of(arguments)`.
        checkpoint: to go on from, or None.
        metric: of the task.
        example: a command to try.

    Raises:
        ValueError: the run was interrupted, or diverged; what is there has been saved.
    """
    trainer.train(resume_from_checkpoint=checkpoint)
    interrupt = next(each for each in trainer.callback_handler.callbacks if isinstance(each, SaveOnInterrupt))
    interrupt.raise_if_interrupted(trainer.state.global_step)
    fault = diverged(trainer)
    if trainer.eval_dataset is not None and fault is None:
        if metric.name not in measured(trainer.args, trainer.state):
            trainer.evaluate()
        if trainer.is_world_process_zero():
            print(tell(metric, trainer))
    if arguments.lora is not None:
        if trainer.is_world_process_zero():
            trainer.model.save_pretrained(Path(trainer.args.output_dir, "adapter"))
        trainer.model = trainer.model.merge_and_unload()
    finish("vlkd finetune", trainer, fault, "finetuned", example)
    return 0


def tell(metric: Metric, trainer: CardTrainer) -> str:
    """Say how the kept checkpoint does, and how the model did before the first step, if that was measured."""
    state = trainer.state
    value = measured(trainer.args, state)[metric.name]
    said = metric.text.format(value)
    rank = "the best"
    before = next((each for each in state.log_history if f"eval_{metric.name}" in each and each["step"] == 0), None)
    if before is not None:
        start = before[f"eval_{metric.name}"]
        said += f"; {metric.text.split('}')[0] + '}'} before".format(start)
        trainer.run_facts.settings[f"{metric.name} before"] = round(start, 4)
        if (value <= start) if metric.greater_is_better else (value >= start):
            said += ", which it does not beat: train longer, or with a lower --learning_rate"
            rank = "the best after it"
    if trainer.args.load_best_model_at_end and state.best_global_step:
        said += f" (step {state.best_global_step} of {state.global_step}, {rank})"
        trainer.run_facts.settings["best_step"] = state.best_global_step
    return said + "."
