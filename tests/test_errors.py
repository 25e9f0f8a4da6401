import pytest
from huggingface_hub.errors import StrictDataclassClassValidationError, StrictDataclassFieldValidationError

from modeling_vlkd.conversion.errors import ConversionError, StateDictError, blaming, first_line


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("wrong\nand at length"), "wrong"),
        (ValueError("\n  wrong  \n"), "wrong"),
        (EOFError(), "EOFError"),
        (KeyError("nonsense"), "there is no 'nonsense'"),
        (StateDictError("unknown 'x'"), "unknown 'x'"),
        (StrictDataclassFieldValidationError("d_model", TypeError("no int")), "field 'd_model': TypeError: no int"),
        (StrictDataclassClassValidationError("validate_x", ValueError("7\nmore")), "'validate_x': ValueError: 7"),
        (ValueError("invalid:\n- pad_token_id: negative\n- another"), "invalid: - pad_token_id: negative"),
        (ValueError("nothing after this:"), "nothing after this:"),
    ],
)
def test_one_line_keeps_the_reason(error: Exception, line: str):
    assert first_line(error).endswith(line)


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
def test_what_is_no_fault_of_the_source_does_not_blame_it(error: Exception, line: str):
    with pytest.raises(ConversionError) as caught, blaming("clip", "mend it"):
        raise error
    assert str(caught.value) == line


def test_our_own_errors_keep_their_kind_and_get_the_name_once():
    for message in ("unknown 'x'; take another.", "clip: unknown 'x'; take another."):
        with pytest.raises(StateDictError) as caught, blaming("clip", "download it again"):
            raise StateDictError(message)
        assert str(caught.value) == "clip: unknown 'x'; take another."
