"""What a user may state of a model for its card; a run cannot know it."""

import argparse
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field

from modeling_vlkd.publishing.provenance import public_words


LICENSE_HELP = (
    "licence of the model for its card, by the Hub's identifiers such as apache-2.0; none is stated by default"
)


@dataclass
class CardArguments:
    """What the model's card says beside what the run knows."""

    license: str | None = field(default=None, metadata={"help": f"{LICENSE_HELP[0].upper()}{LICENSE_HELP[1:]}."})
    language: list[str] | None = field(
        default=None,
        metadata={"help": "Languages of the texts for the model's card, such as en; not stated by default."},
    )

    def __post_init__(self):
        try:
            self.license = license_id(self.license) if self.license is not None else None
        except argparse.ArgumentTypeError as error:
            raise ValueError(f"--license: {error}") from None
        for code in self.language or []:
            if not re.fullmatch("[a-z]{2,3}|multilingual", code):
                raise ValueError(f"--language: expected codes of two or three letters such as en, got {code!r}")


def command_line(name: str, argv: Sequence[str]) -> str:
    """Gives a command as it was typed, but for what is nobody's business, such as tokens and folders."""
    return shlex.join(["vlkd", name, *public_words(argv)])


def license_id(text: str) -> str:
    """Checks the form of a licence's identifier; which ones there are, the Hub knows."""
    if not re.fullmatch(r"[a-z0-9][a-z0-9.-]*", text):
        raise argparse.ArgumentTypeError(f"expected an identifier such as apache-2.0, got {text!r}")
    return text
