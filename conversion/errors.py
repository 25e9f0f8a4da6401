"""What a conversion raises when its source is at fault: one clear line that says what to do."""

import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from modeling_vlkd.publishing.errors import first_line


class ConversionError(ValueError):
    """A source that cannot be read, understood or converted."""


class UnsupportedError(ConversionError):
    """A tower of a kind that transformers cannot compute, or that is not there; nothing is wrong with the file."""


class StateDictError(ConversionError, KeyError):
    """Tensors that do not fit the architecture: unknown, missing or misshapen keys, each named."""

    def __str__(self) -> str:  # KeyError would put the message in quotes
        return str(self.args[0])


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn what readers raise about a file into one line that names the file and the remedy."""
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
    """Turn what libraries raise over a damaged source into one line with its name, the reason and the remedy.

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
