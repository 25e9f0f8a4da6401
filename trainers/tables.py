"""What is wrong with a table of texts that somebody wrote: its encoding, its separator, its columns."""

from collections.abc import Sequence
from pathlib import Path


def refuse_other_encodings(path: Path):
    """Name the first line that is not UTF-8.

    Raises:
        ValueError: there is one, as in the tables that some spreadsheets write.
    """
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            try:
                line.decode("utf-8")
            except UnicodeDecodeError as error:
                raise ValueError(
                    f"Line {number} of {path} is not UTF-8 ({error.reason}); save the file again as UTF-8."
                ) from error


def describe_columns(names: Sequence[str]) -> str:
    """List the columns of a table, and say which separator they seem to have if it is no comma."""
    if len(names) == 1:
        for separator, shown in ((";", "';'"), ("\t", "tabs"), ("|", "'|'")):
            if separator in names[0]:
                columns = ", ".join(name.strip() for name in names[0].split(separator))
                return f"{columns}, separated by {shown}: separate them by commas"
    return ", ".join(names) or "none"
