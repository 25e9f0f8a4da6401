"""The argument parser of every subcommand: a mistake gets one line, not a page of usage."""

import argparse
from difflib import get_close_matches
from typing import NoReturn


# How similar an unknown flag must be to a known one to be taken for a typing error (1 means equal). --sedes and
# --seeds have 0.86; --nonsense and --license, which have nothing in common, still have 0.63.
SIMILARITY = 0.8


class Parser(argparse.ArgumentParser):
    """An `ArgumentParser` that keeps the layout of its examples; a mistake gets one line and exit code 2."""

    def __init__(self, **kwargs):
        super().__init__(formatter_class=argparse.RawDescriptionHelpFormatter, **kwargs)

    def error(self, message: str) -> NoReturn:
        """Print a mistake in one line, with the similar flag if there is one, and exit with code 2."""
        wrong = [word.partition("=")[0] for word in message.split() if word.startswith("--")]
        flags = [flag for action in self._actions for flag in action.option_strings]
        is_unknown = wrong and "unrecognized" in message
        similar = get_close_matches(wrong[0], flags, n=1, cutoff=SIMILARITY) if is_unknown else []
        hint = f"did you mean {similar[0]}?" if similar else f"see `{self.prog} --help`"
        self.exit(2, f"{self.prog}: error: {message}; {hint}\n")
