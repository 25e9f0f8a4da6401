import pytest
from huggingface_hub.errors import StrictDataclassClassValidationError, StrictDataclassFieldValidationError

from modeling_vlkd.conversion.errors import StateDictError
from modeling_vlkd.publishing.errors import first_line


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
