"""What a conversion raises when its input is at fault: one clear line that says what to do."""


class ConversionError(ValueError):
    """A source that cannot be read, understood or converted."""


class StateDictError(ConversionError, KeyError):
    """Tensors that do not fit the architecture: unknown, missing or misshapen keys, each named."""

    def __str__(self) -> str:  # KeyError would put the message in quotes
        return str(self.args[0])
