"""A Trainer whose model card is VLKD's: written from the arguments, the log and what whoever started it can tell."""

import logging
from collections.abc import Sequence
from dataclasses import MISSING, dataclass, field, replace
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult
from transformers import TrainerState, TrainingArguments
from transformers.trainer_utils import unwrap_peft_model

from modeling_vlkd.evaluation.retrieval import RECALL_AT, recall_name
from modeling_vlkd.publishing.cards import CardFacts, count_image_rows, count_parameters, make_card, write_card
from modeling_vlkd.publishing.provenance import BASE_ROLES, CARD_NAME, Provenance, Source, as_list, hide_folders

from .resumable_trainer import ResumableTrainer
from .trained_on import TrainedOn


logger = logging.getLogger(__name__)

# Arguments of transformers that rule what is computed.
ALWAYS_IN_CARD = (
    *("per_device_train_batch_size", "gradient_accumulation_steps", "learning_rate", "lr_scheduler_type"),
    *("warmup_steps", "optim", "weight_decay", "max_grad_norm", "seed"),
)
IN_CARD_IF_CHANGED = (
    *("adam_beta1", "adam_beta2", "adam_epsilon", "optim_args", "lr_scheduler_kwargs", "data_seed"),
    *("label_smoothing_factor", "neftune_noise_alpha", "bf16", "fp16", "tf32", "torch_compile"),
    *("dataloader_drop_last", "train_sampling_strategy", "metric_for_best_model"),
)
NO_LOSS = ("learning_rate", "epoch", "step", "grad_norm", "num_input_tokens_seen")  # in a log, beside the losses
VQA = ("visual-question-answering", "accuracy", "questions answered right")
CAPTIONING = {"CIDEr": "CIDEr", "Bleu_4": "BLEU-4", "ROUGE_L": "ROUGE-L"}  # by their names in an evaluation
ROUGE = {"rouge1": "ROUGE-1", "rouge2": "ROUGE-2", "rougeL": "ROUGE-L"}
RETRIEVAL = {  # for each direction: its name in a card, and the metric with the number of candidates
    "retrieval_i2t": ("caption of a picture", "retrieval_pairs"),
    "retrieval_t2i": ("picture of a caption", "retrieval_pictures"),
}
TRAINED_ON = "evaluation on what was trained on"  # a role: metrics on such data say little about other data
UNNAMED = Source("evaluation", "evaluation set, not named")


@dataclass
class RunFacts:
    """What a trainer cannot know of its run.

    Args:
        provenance: what goes into the model, data sets included, and the commands.
        settings: of the run, beside the trainer's arguments.
        eval_pairs, eval_questions: what is evaluated on; the note is the split. Of the role `TRAINED_ON`, they are
            told as such.
        results: metrics that were measured outside of the trainer.
        trained_on: the training data, for whoever resumes; by default their number.
        tuned_on: what the model is finetuned on, in words.
    """

    provenance: Provenance
    settings: dict[str, Any] = field(default_factory=dict)
    eval_pairs: Source = UNNAMED
    eval_questions: Source = UNNAMED
    results: list[EvalResult] = field(default_factory=list)
    trained_on: TrainedOn | None = None
    tuned_on: str = "questions about pictures"


class CardTrainer(ResumableTrainer):
    """Writes VLKD's card where transformers would write its own.

    Args:
        run_facts ([`RunFacts`], *optional*): by default what the configuration tells: what the model, or its towers,
            were loaded from.
        args, kwargs: passed on to [`~transformers.Trainer`].
    """

    stage = "finetuned"

    def __init__(self, *args: Any, run_facts: RunFacts | None = None, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.run_facts = run_facts or RunFacts(Provenance.of_config(self.model.config))

    @property
    def trained_on(self) -> TrainedOn:
        return self.run_facts.trained_on or super().trained_on

    def create_model_card(
        self,
        language: str | None = None,
        license: str | None = None,
        tags: str | list[str] | None = None,
        model_name: str | None = None,
        finetuned_from: str | None = None,
        tasks: str | list[str] | None = None,
        dataset_tags: str | list[str] | None = None,
        dataset: str | list[str] | None = None,
        dataset_args: str | list[str] | None = None,
    ) -> None:
        r"""Write `README.md` into the output folder, as [`~transformers.Trainer.push_to_hub`] asks for it.

        A README.md that somebody has written or edited stays, and the new one is `README.generated.md`. Arguments are
        those of transformers; `tasks` and `dataset_args` change nothing, for the tasks are those of every VLKD.
        """
        if not self.is_world_process_zero():
            return
        sources = self.run_facts.provenance.sources
        if finetuned_from is not None:
            bases = [Source.find("base model", finetuned_from)]
            sources = bases + [source for source in sources if source.role not in BASE_ROLES]
        known = {source.name for source in sources}
        data = [Source("image-caption pairs", name, on_hub=True) for name in as_list(dataset_tags)]
        data += [Source("image-caption pairs", name) for name in as_list(dataset) if name not in as_list(dataset_tags)]
        provenance = replace(
            self.run_facts.provenance,
            sources=sources + [source for source in data if source.name not in known],
            license=license or self.run_facts.provenance.license,
            language=as_list(language) or self.run_facts.provenance.language,
        )
        folder = Path(self.args.output_dir)
        location = self.hub_model_id or folder.resolve().name
        facts = self.card_facts(model_name or location.split("/")[-1], location, provenance)
        facts.tags += [tag for tag in as_list(tags) if tag not in facts.tags]
        written = write_card(make_card(facts), folder)
        if written.name != CARD_NAME:
            logger.warning("%s was edited by hand and stays; the card of this run is %s.", CARD_NAME, written)

    def card_facts(self, name: str, location: str, provenance: Provenance) -> CardFacts:
        model = unwrap_peft_model(self.accelerator.unwrap_model(self.model))
        return CardFacts(
            name=name,
            location=location,
            stage=self.stage,
            provenance=provenance,
            tuned_on=self.run_facts.tuned_on,
            parameters=count_parameters(model),
            image_rows=count_image_rows(model.config),
            tower_frozen=model.config.freeze_vision_tower,
            settings=self.settings_in_card() | self.run_facts.settings,
            losses=last_losses(self.state.log_history),
            results=[*results_of(measured(self.args, self.state), self.run_facts), *self.run_facts.results],
            tags=["generated_from_trainer"],
        )

    def settings_of_run(self) -> dict[str, Any]:
        """Tell how long and how it was trained: what always matters, and what differs from the defaults."""
        settings = {"steps": self.state.global_step, "epochs": self.state.epoch}
        settings |= {name: getattr(self.args, name) for name in ALWAYS_IN_CARD}
        for name in IN_CARD_IF_CHANGED:
            if getattr(self.args, name) not in (default_of(self.args, name), None, False):
                settings[name] = getattr(self.args, name)
        return settings

    def settings_in_card(self) -> dict[str, Any]:
        """Show the settings as numbers and texts."""
        settings = self.settings_of_run()
        if self.args.world_size > 1:
            settings["processes"] = self.args.world_size
        return {name: plain(value) for name, value in settings.items() if value is not None}


def default_of(args: TrainingArguments, name: str) -> Any:
    default = type(args).__dataclass_fields__[name].default
    return None if default is MISSING else default


def plain(value: Any) -> Any:
    """Give an argument as a number or a text: enumerations by their value, paths by their last part."""
    if isinstance(value, bool | int | float):
        return value
    return hide_folders(str(getattr(value, "value", value)))


def last_losses(log: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Take the losses that were logged last in training, or the mean loss of a run that logged none."""
    entries = [entry for entry in log if "loss" in entry]
    if entries:
        losses = {name: value for name, value in entries[-1].items() if name not in NO_LOSS}
        return {"step": entries[-1]["step"]} | losses
    means = [entry["train_loss"] for entry in log if "train_loss" in entry]
    return {"loss, mean of the run": means[-1]} if means else {}


def measured(args: TrainingArguments, state: TrainerState) -> dict[str, float]:
    """Take the last evaluation of the weights that are kept; nothing if they were trained further after it."""
    log = state.log_history
    step = state.best_global_step if args.load_best_model_at_end and state.best_global_step else state.global_step
    ends = [place for place, entry in enumerate(log) if "train_runtime" in entry]
    for place in reversed(range(len(log))):
        entry = log[place]
        of_these_weights = entry.get("step") == step or (ends and place > ends[-1])
        if of_these_weights and any(name.startswith("eval_") for name in entry):
            return {name.removeprefix("eval_"): value for name, value in entry.items()}
    return {}


def results_of(metrics: dict[str, float], facts: RunFacts) -> list[EvalResult]:
    """Name the metrics of an evaluation as the Hub wants them; losses are left out."""
    results = []
    for direction, (name, candidates) in RETRIEVAL.items():
        for k in RECALL_AT:
            metric = recall_name(direction, k)
            if metric in metrics and metrics[candidates] > k:  # else all candidates are among the k nearest
                text = f"{name}, R@{k} among {metrics[candidates]}"
                results.append(result_on(facts.eval_pairs, "retrieval", f"recall_at_{k}", text, metrics[metric]))
    for name, text in CAPTIONING.items():
        if name in metrics:
            results.append(result_on(facts.eval_pairs, "image-to-text", name.lower(), text, metrics[name]))
    for name, text in ROUGE.items():
        if name in metrics:
            results.append(result_on(facts.eval_pairs, "summarization", name.lower(), text, metrics[name]))
    if "vqa_accuracy" in metrics:
        results.append(result_on(facts.eval_questions, *VQA, metrics["vqa_accuracy"]))
    return results


def result_on(data: Source, task: str, metric: str, name: str, value: float) -> EvalResult:
    """Describe a metric on a data set; a data set that is not on the Hub has the type `local`."""
    if data.role == TRAINED_ON:
        name += ", of the training data"
    return EvalResult(
        task_type=task,
        dataset_type=data.name if data.on_hub else "local",
        dataset_name=data.name,
        dataset_split=data.note or None,
        metric_type=metric,
        metric_name=name,
        metric_value=value,
    )
