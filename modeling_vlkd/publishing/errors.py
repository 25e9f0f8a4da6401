"""What publishing raises, and how any error becomes one line."""

import re


class PublishError(ValueError):
    """A checkpoint that cannot be published as it is, or not there, or not by this user."""


def first_line(error: Exception) -> str:
    """Give an error as one line: the first one with something to say; of a refused pickle, what it asked for."""
    if found := re.search(r"GLOBAL ([\w.]+)", str(error)):  # "... Unsupported global: GLOBAL os.system was not ..."
        return f"it asks for {found[1]}, which is not data; nothing of it was executed"
    if type(error) is KeyError:  # says nothing but the key
        return f"there is no {error}"
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    last = next((number for number, line in enumerate(lines) if not line.endswith(":")), len(lines) - 1)
    return " ".join(lines[: last + 1]) or type(error).__name__  # after "Validation error for field 'x':" the reason
