"""The argument parser of every subcommand: a mistake gets one line, not a page of usage."""

import argparse
from difflib import get_close_matches
from typing import NoReturn


class Parser(argparse.ArgumentParser):
    """An `ArgumentParser` that keeps the layout of its examples; a mistake gets one line and exit code 2."""

    def __init__(self, **kwargs):
        super().__init__(formatter_class=argparse.RawDescriptionHelpFormatter, **kwargs)

    def error(self, message: str) -> NoReturn:
        wrong = [word for word in message.split() if word.startswith("--")]
        flags = [flag for action in self._actions for flag in action.option_strings]
        similar = get_close_matches(wrong[0], flags, n=1) if wrong and "unrecognized" in message else []
        hint = f"did you mean {similar[0]}?" if similar else f"see `{self.prog} --help`"
        self.exit(2, f"{self.prog}: error: {message}; {hint}\n")
