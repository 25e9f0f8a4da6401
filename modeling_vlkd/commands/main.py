"""The `vlkd` command: finds the subcommand, and turns an error into one line and exit code 2."""

import logging
import os
import sys
from importlib import import_module

from modeling_vlkd import __version__
from modeling_vlkd.publishing.errors import first_line


SUBCOMMANDS = {
    "demo": "distill the miniature CLIP into the miniature BART and measure it, in minutes",
    "distill": "distill a CLIP into a BART with pictures and their captions",
    "finetune": "train a distilled model further: questions, captions, classes, summaries",
    "reproduce": "measure a table of the paper in miniature",
    "evaluate": "measure models, or files of predictions, by the official metrics",
    "answer": "answer questions about pictures",
    "caption": "caption pictures",
    "embed": "embed pictures and texts in CLIP's space",
    "convert": "assemble a model from a CLIP and a BART in any format",
    "push": "publish a model on the Hub",
}
# peft imports bitsandbytes if it is installed. bitsandbytes then logs to this logger that it could not get a faster
# 4-bit kernel from the Hub. No command here uses that kernel, so the message is filtered out.
KERNELS_LOG = "bitsandbytes.backends.cpu.ops"
WIDTH = max(map(len, SUBCOMMANDS)) + 2
HELP = "\n".join(
    [
        "usage: vlkd COMMAND [ARGUMENTS]",
        "",
        "Give any CLIP a voice: distill it, frozen, into a BART, and ask it about pictures.",
        "",
        "commands:",
        *(f"  {name:<{WIDTH}}{text}" for name, text in SUBCOMMANDS.items()),
        "",
        "`vlkd COMMAND --help` tells more. Start with `vlkd demo`.",
    ]
)


def main(argv: list[str] | None = None) -> int:
    """Run one subcommand.

    Returns:
        The exit code: 0, or 2 after an error, of which one line on standard error says what was wrong and what to do.
    """
    argv = sys.argv[1:] if argv is None else argv
    name = argv[0] if argv else "--help"
    try:
        if name in ("-h", "--help", "help"):
            print(HELP)
            return 0
        if name == "--version":
            print(f"vlkd {__version__}")
            return 0
        if name not in SUBCOMMANDS:
            return complain("vlkd", f"there is no command {name!r}; choose one of {', '.join(SUBCOMMANDS)}")
        return run(name, argv[1:])
    except KeyboardInterrupt:
        return complain(f"vlkd {name}", "interrupted")
    except BrokenPipeError:  # the program that reads our output has ended, as in `vlkd ... | head`
        # Python flushes standard output at its end, which would raise again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (ValueError, OSError) as error:
        return complain(f"vlkd {name}", one_line(error))


def run(name: str, argv: list[str]) -> int:
    """Import a subcommand, which may take seconds, and run it."""
    if name in ("distill", "finetune"):
        # Imported here, because it takes a part of a second, which `vlkd --help` need not wait for.
        from .early_checks import refuse_early

        refuse_early(name, argv)
    logging.getLogger(KERNELS_LOG).addFilter(is_of_use)
    import_module("modeling_vlkd.registration")
    from huggingface_hub.errors import StrictDataclassError  # raised for a wrong value in a config.json

    try:
        return import_module(f"modeling_vlkd.commands.{name}").main(argv) or 0
    except StrictDataclassError as error:
        raise ValueError(first_line(error)) from error
    except KeyError as error:
        if "metric_for_best_model" not in str(error):
            raise
        raise ValueError(error.args[0]) from error  # transformers' message, which lists the existing metrics


def is_of_use(record: logging.LogRecord) -> bool:
    """Tell whether a record of `KERNELS_LOG` is not about the 4-bit kernel."""
    return "kernels-community" not in record.getMessage()


def one_line(error: Exception) -> str:
    """Return an error's message as one line; for an error of the operating system, its reason and the file."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}: {error.filename}" if error.filename else error.strerror
    return first_line(error)


def complain(program: str, message: str) -> int:
    """Print an error in one line, and return the exit code."""
    print(f"{program}: error: {message}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
