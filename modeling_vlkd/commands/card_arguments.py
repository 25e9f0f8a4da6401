"""Arguments that a user may give for the model card, because the program cannot know them: license and languages."""

import argparse
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field

from modeling_vlkd.publishing.provenance import public_words


LICENSE_HELP = (
    "license of the model for its card, by the Hub's identifiers such as apache-2.0; none is stated by default"
)


@dataclass
class CardArguments:
    """What a user states about the model for its card."""

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
            if not re.fullmatch("[a-z]{2,3}|multilingual", code):  # "en", "gsw" or "multilingual"
                raise ValueError(f"--language: expected codes of two or three letters such as en, got {code!r}")


def command_line(name: str, argv: Sequence[str]) -> str:
    """Return a command as it was typed, without private parts such as tokens and the folders of paths."""
    return shlex.join(["vlkd", name, *public_words(argv)])


def license_id(text: str) -> str:
    """Check only the form of a license identifier; the Hub knows which identifiers exist."""
    if not re.fullmatch(r"[a-z0-9][a-z0-9.-]*", text):  # "apache-2.0"
        raise argparse.ArgumentTypeError(f"expected an identifier such as apache-2.0, got {text!r}")
    return text
