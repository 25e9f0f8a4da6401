"""The errors of a conversion whose source is at fault. Each is one line that says what to do."""

import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from modeling_vlkd.publishing.errors import first_line


class ConversionError(ValueError):
    """A source that cannot be read, understood or converted."""


class UnsupportedError(ConversionError):
    """A tower that transformers cannot compute, or that the source does not have. The file itself is not damaged."""


class StateDictError(ConversionError, KeyError):
    """Tensors that do not fit the architecture; the message names the keys that are unknown, missing or misshapen."""

    def __str__(self) -> str:  # KeyError would put the message in quotes
        return str(self.args[0])


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn any error raised while a file is read into one line with the file's name and what to do."""
    try:
        yield
    except ConversionError as error:  # readers raise it with the end of a sentence, such as "holds no vision tower"
        raise ConversionError(f"{path}: the checkpoint {error}.") from error
    except pickle.UnpicklingError as error:
        if "GLOBAL" in str(error):  # the file asks for a function that torch does not allow
            raise ConversionError(f"{path}: refused: {first_line(error)}.") from error
        raise ConversionError(f"{path}: not a checkpoint, or a damaged one; download it again.") from error
    except MemoryError as error:
        raise ConversionError(f"{path}: there is not enough memory to read it.") from error
    except (LookupError, AttributeError, OverflowError) as error:
        raise ConversionError(f"{path}: not a checkpoint, or a damaged one; download it again.") from error
    except Exception as error:  # a damaged file can raise nearly anything: EOFError, struct.error, ...
        raise ConversionError(f"{path}: truncated or damaged ({first_line(error)}); download it again.") from error


@contextmanager
def blaming(source: str | Path, remedy: str) -> Iterator[None]:
    """Turn the errors of libraries about a damaged source into one line with its name, the reason and what to do.

    Libraries fail somewhere in the middle of their work, with a ZeroDivisionError or an AttributeError, and readers
    written in Rust raise a bare Exception. All of these are caught here, so the block must use no other source.
    A ConversionError says already what to do; the name is put in front of its message, unless the message has it.

    Args:
        source: the name of the source, for the message.
        remedy: what the user should do, for the message.
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
        # A missing library or a full disk is not the source's fault. But transformers raises OSErrors of its own,
        # without an error number, about files of the source.
        is_elsewhere = isinstance(error, ImportError) or (isinstance(error, OSError) and error.errno is not None)
        advice = "" if is_elsewhere else f"; {remedy}"
        raise ConversionError(f"{source}: {first_line(error).rstrip('.')}{advice}.") from error
