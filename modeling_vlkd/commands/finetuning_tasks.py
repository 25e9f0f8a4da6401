"""The tasks of `vlkd finetune`, and which one a command line names; known before torch is imported."""

from collections.abc import Sequence
from difflib import get_close_matches

from .config_file import option_name, with_config


TASKS = {  # the tasks: `--task NAME` is `finetune_NAME.py`, whose `main` takes all arguments
    "vqa": "questions about pictures, with answers in free words",
    "captioning": "captions of pictures, by cross-entropy and then by CIDEr (SCST)",
    "glue": "classes of texts and of pairs of texts, as on GLUE",
    "summarization": "summaries of texts, as of XSum",
}
DEFAULT_TASK = "vqa"


def choose_task(argv: Sequence[str]) -> str:
    """Read which task `--task` names, on the command line or in the file of `--config`.

    Raises:
        ValueError: there is no such task.
    """
    task, words = DEFAULT_TASK, iter(with_config(argv))
    for word in words:
        if word.startswith("--") and option_name(word) == "task":
            task = word.partition("=")[2] or next(words, "")
    if task not in TASKS:
        similar = get_close_matches(task, TASKS, n=1)
        hint = f"did you mean {similar[0]}?" if similar else f"choose one of {', '.join(TASKS)}."
        raise ValueError(f"--task {task}: there is no such task; {hint}")
    return task


def other_tasks(task: str) -> str:
    """Tell, for the help of one task, how to see those of the others."""
    lines = [f"  vlkd finetune --task {name} --help    {text}" for name, text in TASKS.items() if name != task]
    return "\n".join(["other tasks:", *lines]) + "\n"
