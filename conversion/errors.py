"""What converting and publishing raise when their input is at fault: one clear line that says what to do."""

import pickle
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


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
    """Gives an error as one line: the first one with something to say; of a refused pickle, what it asked for."""
    if found := re.search(r"GLOBAL ([\w.]+)", str(error)):
        return f"it asks for {found[1]}, which is not data; nothing of it was executed"
    if type(error) is KeyError:  # says nothing but the key
        return f"there is no {error}"
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    last = next((number for number, line in enumerate(lines) if not line.endswith(":")), len(lines) - 1)
    return " ".join(lines[: last + 1]) or type(error).__name__  # after "Validation error for field 'x':" the reason


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
    except MemoryError as error:
        raise ConversionError(f"{path}: there is not enough memory to read it.") from error
    except (LookupError, AttributeError, OverflowError) as error:
        raise ConversionError(f"{path}: not a checkpoint, or a damaged one; download it again.") from error
    except Exception as error:  # there is no end to what damage makes a reader raise: EOFError, struct.error, ...
        raise ConversionError(f"{path}: truncated or damaged ({first_line(error)}); download it again.") from error


@contextmanager
def blaming(source: str | Path, remedy: str) -> Iterator[None]:
    """Turns what libraries raise over a damaged source into one line with its name, the reason and the remedy.

    They stumble somewhere in the middle, over a ZeroDivisionError or an AttributeError, and readers written in Rust
    raise a bare Exception; so nothing but this source may be read inside. Our own errors say what to do; they get the
    name if they lack it.
    """
    try:
        yield
    except ConversionError as error:
        if str(source) in str(error):
            raise
        raise type(error)(f"{source}: {error}") from error
    except MemoryError as error:
        raise ConversionError(f"{source}: there is not enough memory to read it.") from error
    except Exception as error:
        # A missing library or a full disk is no fault of the source; what transformers' own OSErrors say, without a
        # number, is.
        is_elsewhere = isinstance(error, ImportError) or (isinstance(error, OSError) and error.errno is not None)
        advice = "" if is_elsewhere else f"; {remedy}"
        raise ConversionError(f"{source}: {first_line(error).rstrip('.')}{advice}.") from error
