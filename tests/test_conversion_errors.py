import pytest

from modeling_vlkd.conversion.errors import ConversionError, StateDictError, blaming


def test_what_a_library_raises_gets_name_reason_and_remedy():
    with (
        pytest.raises(
            ConversionError, match=r"^clip/config.json: integer division or modulo by zero; take another\.$"
        ),
        blaming("clip/config.json", "take another"),
    ):
        divmod(1, 0)


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (MemoryError(), "clip: there is not enough memory to read it."),
        (ImportError("needs sentencepiece"), "clip: needs sentencepiece."),
        (OSError(28, "No space left on device"), "clip: [Errno 28] No space left on device."),
        (
            OSError("clip has no file named model.safetensors"),
            "clip: clip has no file named model.safetensors; mend it.",
        ),
    ],
)
def test_the_remedy_is_left_out_if_the_source_is_not_at_fault(error: Exception, line: str):
    with pytest.raises(ConversionError) as caught, blaming("clip", "mend it"):
        raise error
    assert str(caught.value) == line


def test_our_own_errors_keep_their_kind_and_get_the_name_once():
    for message in ("unknown 'x'; take another.", "clip: unknown 'x'; take another."):
        with pytest.raises(StateDictError) as caught, blaming("clip", "download it again"):
            raise StateDictError(message)
        assert str(caught.value) == "clip: unknown 'x'; take another."
