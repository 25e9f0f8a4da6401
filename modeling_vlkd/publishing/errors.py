"""The error of publishing, and how any error becomes one line."""

import re


class PublishError(ValueError):
    """The checkpoint cannot be published as it is, or not to this repository, or not by this user."""


def first_line(error: Exception) -> str:
    """Describe an error in one line.

    This is the first line of its message that is not empty. If that line ends with a colon, the line after it, which
    has the reason, is joined to it. If torch refused a pickle, the line says which function the pickle asked for.
    """
    if found := re.search(r"GLOBAL ([\w.]+)", str(error)):  # "... Unsupported global: GLOBAL os.system was not ..."
        return f"it asks for {found[1]}, which is not data; nothing of it was executed"
    if type(error) is KeyError:  # its message is the key alone
        return f"there is no {error}"
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    # "Validation error for field 'x':" is followed by the reason.
    last = next((number for number, line in enumerate(lines) if not line.endswith(":")), len(lines) - 1)
    return " ".join(lines[: last + 1]) or type(error).__name__
