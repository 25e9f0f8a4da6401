"""The file of `--config`: its lines become flags, and a mistake in it is named."""

import pytest

from modeling_vlkd.commands.card_arguments import command_line
from modeling_vlkd.commands.config_file import with_config


def test_lines_become_flags_but_those_given_beside_the_file_win(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text("seed: 7\nlr_scheduler_kwargs: {a: 1}\nflip: true\nlanguage: [en, de]\nteacher:\nmax-steps: 3\n")
    lines = ["--lr_scheduler_kwargs", '{"a": 1}', "--flip", "true", "--language", "en", "de"]
    expected = [*lines, "--seed", "8", "--max_steps=4"]
    assert with_config(["--seed", "8", "--config", str(path), "--max_steps=4"]) == expected
    assert with_config([f"--config={path}", "--seed", "8", "--max_steps=4"]) == expected
    assert with_config(["--seed", "8"]) == ["--seed", "8"]


def test_a_card_tells_the_lines_of_the_file_without_what_is_private(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text(f"hub_token: hf_secret\ndataset: {tmp_path}/pictures\nvision: openai/clip\nlearning_rate: 1e-3\n")
    command = command_line("distill", with_config(["--config", str(path), "--text", "facebook/bart-base"]))
    told = "--dataset pictures --vision openai/clip --learning_rate 1e-3 --text facebook/bart-base"
    assert command == f"vlkd distill {told}"


BAD = {
    "seed 7": "holds no lines of the form `flag: value`",
    "- seed": "holds no lines of the form `flag: value`",
    "": "holds no lines of the form `flag: value`",
    "seed: [7": "is no YAML file: while parsing a flow sequence",
    "seed: 7\n\tflip: true": "is no YAML file: while scanning",
    "a: caf\xe9": "is no YAML file: 'utf-8' codec",
    "config: other.yaml": "names another file, other.yaml; put its lines here",
}


@pytest.mark.parametrize("content", BAD)
def test_what_is_wrong_in_a_file_is_one_line(content, tmp_path):
    (tmp_path / "run.yaml").write_text(content, encoding="latin-1")
    with pytest.raises(ValueError) as caught:
        with_config(["--config", str(tmp_path / "run.yaml")])
    assert BAD[content] in str(caught.value)
    assert "\n" not in str(caught.value)
