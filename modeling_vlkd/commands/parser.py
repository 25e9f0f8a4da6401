"""The argument parser of every subcommand: a mistake gets one line, not a page of usage."""

import argparse
from difflib import get_close_matches
from typing import NoReturn


SIMILARITY = 0.8  # of two flags that differ by a slip of the keys; of --nonsense and --license it is 0.63


class Parser(argparse.ArgumentParser):
    """An `ArgumentParser` that keeps the layout of its examples; a mistake gets one line and exit code 2."""

    def __init__(self, **kwargs):
        super().__init__(formatter_class=argparse.RawDescriptionHelpFormatter, **kwargs)

    def error(self, message: str) -> NoReturn:
        wrong = [word.partition("=")[0] for word in message.split() if word.startswith("--")]
        flags = [flag for action in self._actions for flag in action.option_strings]
        is_unknown = wrong and "unrecognized" in message
        similar = get_close_matches(wrong[0], flags, n=1, cutoff=SIMILARITY) if is_unknown else []
        hint = f"did you mean {similar[0]}?" if similar else f"see `{self.prog} --help`"
        self.exit(2, f"{self.prog}: error: {message}; {hint}\n")
