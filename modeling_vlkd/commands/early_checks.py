"""Check the flags and paths of a training command before torch is imported, which takes seconds."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from modeling_vlkd.publishing.provenance import is_hub_id

from .config_file import option_name, with_config
from .finetuning_tasks import choose_task


# Flags of other programs, and the flag with the same meaning here, by the name of the command's module. BOTH holds
# those of all training commands.
BOTH = {
    **dict.fromkeys(("batch", "batch_size", "bs", "train_batch_size"), "per_device_train_batch_size"),
    **dict.fromkeys(("eval_batch_size", "val_batch_size"), "per_device_eval_batch_size"),
    **dict.fromkeys(("lr", "peak_lr"), "learning_rate"),
    **dict.fromkeys(("epochs", "num_epochs", "n_epochs"), "num_train_epochs"),
    **dict.fromkeys(("steps", "num_steps", "num_train_steps"), "max_steps"),
    **dict.fromkeys(("model", "model_name_or_path"), "checkpoint"),
    **dict.fromkeys(("out", "output", "save_dir"), "output_dir"),
    **dict.fromkeys(("accumulation_steps", "accumulate"), "gradient_accumulation_steps"),
    **dict.fromkeys(("workers", "num_workers"), "dataloader_num_workers"),
    **dict.fromkeys(("warmup", "warmup_ratio"), "warmup_steps"),
    **dict.fromkeys(("scheduler", "lr_scheduler"), "lr_scheduler_type"),
    **dict.fromkeys(("optimizer", "optimiser"), "optim"),
    **dict.fromkeys(("wd", "decay"), "weight_decay"),
    "resume": "resume_from_checkpoint",
    "cpu": "use_cpu",
}
TEXTS = {
    **dict.fromkeys(("train_file", "data", "dataset", "train_dataset"), "train_data"),
    **dict.fromkeys(("validation_file", "eval_file", "dev_file", "eval_dataset"), "eval_data"),
    **dict.fromkeys(("max_seq_length", "max_length", "max_source_length"), "max_text_length"),
}
KNOWN_ELSEWHERE = {
    "distill": BOTH
    | dict.fromkeys(("clip", "image_model", "vision_model"), "vision")
    | dict.fromkeys(("bart", "text_model", "language_model"), "text")
    | dict.fromkeys(("data", "train_data", "images", "pictures"), "dataset")
    | dict.fromkeys(("val_split", "validation_split", "eval_dataset"), "eval_split")
    | {"eval_questions": "questions"},
    "finetune_vqa": BOTH
    | dict.fromkeys(("data", "dataset", "train_data", "train_questions"), "questions")
    | dict.fromkeys(("val_questions", "test_questions", "eval_dataset", "eval_split"), "eval_questions"),
    "finetune_captioning": BOTH
    | dict.fromkeys(("data", "train_data", "pictures"), "dataset")
    | dict.fromkeys(("annotations", "captions"), "references")
    | dict.fromkeys(("val_split", "validation_split"), "eval_split"),
    "finetune_glue": BOTH | TEXTS | {"task_name": "glue_task"},
    "finetune_summarization": BOTH | TEXTS | {"text_column": "document_column", "num_beams": "generation_num_beams"},
}
FILES = (
    *("questions", "annotations", "eval_questions", "eval_annotations", "extra_questions"),
    *("replay", "references", "eval_references"),
)
MODELS = ("vision", "text", "checkpoint", "teacher")
DATA = ("dataset", "train_data", "eval_data")  # files, folders or Hub ids
FOLDERS = ("images", "eval_images", "extra_images")


def refuse_early(command: str, argv: Sequence[str]):
    """Stop at a flag that other programs have but not this one, and at a local path that does not exist.

    A name that may be a Hub id is not taken for a local path.

    Raises:
        FileNotFoundError, ValueError: one of these, or there is no such `--task`; the flag may also stand in the file
            of `--config`.
    """
    values = last_values(with_config(argv))
    if {"help", "help_all"} & set(values):
        return
    module = f"finetune_{choose_task(argv)}" if command == "finetune" else command
    for option, value in values.items():
        known = KNOWN_ELSEWHERE[module].get(option)
        if known is not None:
            raise ValueError(f"unrecognized arguments: --{option} {value}".rstrip() + f"; did you mean --{known}?")
        path = Path(value)
        if option in FILES and value and not path.is_file():
            fault = "is a folder" if path.is_dir() else "does not exist"
            raise FileNotFoundError(f"--{option} {value} {fault}; give a file.")
        if option in FOLDERS and value and not path.is_dir():
            raise FileNotFoundError(
                f"--{option} {value} {'is a file' if path.exists() else 'does not exist'}; give a folder."
            )
        is_name = is_hub_id(value) and (option not in DATA or "/" in value)
        if option in (*MODELS, *DATA) and value and not path.exists() and not is_name:
            file = ", a parquet file" if option == "dataset" else ", a file" if option in DATA else ""
            raise FileNotFoundError(f"--{option} {value} does not exist; give a folder{file} or a Hub id, USER/NAME.")


def last_values(words: Sequence[str]) -> dict[str, str]:
    """Map each option's name (see `option_name`) to its first value; if an option is repeated, the last one counts."""
    values: dict[str, str] = {}
    option = None
    for word in words:
        if word.startswith("--"):
            option = option_name(word)
            values[option] = word.partition("=")[2]
        elif word == "-h":
            values["help"] = ""
        elif option is not None and not values[option]:
            values[option] = word
    return values


def is_on(values: Mapping[str, str], option: str, default: bool = False) -> bool:
    """Read an option that is true or false, as `last_values` gives it; without a value, it is true."""
    if option not in values:
        return default
    return values[option].lower() in ("", "true", "1", "yes", "t", "y")
