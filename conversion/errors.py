"""What converting and publishing raise when their input is at fault: one clear line that says what to do."""

import pickle
import re
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError


class ConversionError(ValueError):
    """A source that cannot be read, understood or converted."""


class PublishError(ValueError):
    """A checkpoint that cannot be published as it is, or not there, or not by this user."""


class UnsupportedError(ConversionError):
    """A tower of a kind that transformers cannot compute, or that is not there; nothing is wrong with the file."""


class StateDictError(ConversionError, KeyError):
    """Tensors that do not fit the architecture: unknown, missing or misshapen keys, each named."""

    def __str__(self) -> str:  # KeyError would put the message in quotes
        return str(self.args[0])


def first_line(error: Exception) -> str:
    """Gives an error as one line; of a refused pickle, what it asked for."""
    if found := re.search(r"GLOBAL ([\w.]+)", str(error)):
        return f"it asks for {found[1]}, which is not data; nothing of it was executed"
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turns what readers raise about a file into one line that names the file and the remedy."""
    try:
        yield
    except ConversionError as error:
        raise ConversionError(f"{path}: the checkpoint {error}.") from error
    except pickle.UnpicklingError as error:
        if "GLOBAL" in str(error):
            raise ConversionError(f"{path}: refused: {first_line(error)}.") from error
        raise ConversionError(f"{path}: not a checkpoint, or a damaged one; download it again.") from error
    except (SafetensorError, zipfile.BadZipFile, EOFError, RuntimeError, ValueError, TypeError) as error:
        raise ConversionError(f"{path}: truncated or damaged ({first_line(error)}); download it again.") from error
    except (KeyError, IndexError, AttributeError, OverflowError) as error:
        raise ConversionError(f"{path}: not a checkpoint, or a damaged one; download it again.") from error
