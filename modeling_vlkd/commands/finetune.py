"""`vlkd finetune`: trains a distilled model further on one of several tasks; each has a file and a help of its own."""

from importlib import import_module

from .finetuning_tasks import choose_task


def main(argv: list[str]) -> int:
    return import_module(f".finetune_{choose_task(argv)}", __package__).main(argv)


if __name__ == "__main__":
    import sys

    from .main import main as vlkd  # it turns an error into one line

    sys.exit(vlkd(["finetune", *sys.argv[1:]]))
