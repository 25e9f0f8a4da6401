from contextlib import nullcontext
from pathlib import Path

import pytest
from tiny_card import CARD

from modeling_vlkd.publishing.card_checks import addressed, check_card
from modeling_vlkd.publishing.cards import CardFacts, is_untouched, make_card
from modeling_vlkd.publishing.errors import PublishError
from modeling_vlkd.publishing.provenance import Provenance


@pytest.fixture
def card(tmp_path: Path) -> Path:
    path = tmp_path / "README.md"
    path.write_text(CARD, encoding="utf-8")
    return path


def test_good_card_passes(card: Path):
    assert check_card(card) == []


def test_windows_line_ends_and_a_blank_line_before_pass(card: Path):
    card.write_bytes(("\n" + CARD).replace("\n", "\r\n").encode())
    assert check_card(card) == []


# Each: a text of the good card, what replaces it, the number of the line in the message, and a part of the message.
MISTAKES = [
    ("- vlkd", "- [vlkd", 6, "'- [vlkd' is not valid YAML: expected ',' or ']'"),
    ("apache-2.0", "apache: 2.0", 2, "'license: apache: 2.0' is not valid YAML: mapping values are not allowed here"),
    ("- vlkd", "\t- vlkd", 6, "found character '\\t' that cannot start any token"),
    ("- vlkd", '- "vlkd', 6, "found unexpected end of stream"),
    ("tags:", "license: mit\ntags:", 5, "license is in line 2 already"),
    ("apache-2.0", "[mit]", 2, "expected one text, got 'license: [mit]'"),
    ("license: apache-2.0", "license: 2", 2, "expected one text"),
    ("library_name: transformers", "library_name: timm", 3, "this model is loaded by `transformers`"),
    ("- vlkd", "- 1.0", 5, "tags is [1.0]; expected a list of texts"),
    ("tags:", "language: no\ntags:", 5, "language is False"),
    ("tags:\n- vlkd", "tags: {a: b}", 5, "tags is {'a': 'b'}"),
    ("tags:", "model-index: here\ntags:", 5, "model-index cannot be read"),
    ("tags:", "model-index:\n- name: tiny\n  results:\n  - metrics: []\ntags:", 5, "model-index cannot be read"),
    ("# Tiny", "# Tiny\n![it](it.png)", 10, "there is no picture it.png"),
    ("# Tiny", '# Tiny\n<img width="9" src="../it.png">', 10, "there is no picture ../it.png"),
]


@pytest.mark.parametrize(("old", "new", "line", "message"), MISTAKES, ids=[new for _, new, _, _ in MISTAKES])
def test_mistake_is_named_with_its_line(old: str, new: str, line: int, message: str, card: Path):
    card.write_text(CARD.replace(old, new), encoding="utf-8")
    with pytest.raises(PublishError) as caught:
        check_card(card)
    assert str(caught.value).startswith(f"{card}, line {line}: ")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("line", ["license: apache-2.0", "library_name: transformers", "pipeline_tag: visual-que"])
def test_incomplete_metadata_are_refused_with_what_to_add(line: str, card: Path):
    kept = [each for each in CARD.splitlines() if not each.startswith(line)]
    card.write_text("\n".join(kept), encoding="utf-8")
    with pytest.raises(PublishError, match=f"has no {line.split(':')[0]}; add, for example, `{line}"):
        check_card(card)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "There is no model card .*begins with `license: apache-2.0`.*`vlkd finetune` and create_model_card"),
        (b"", "does not begin with metadata"),
        (b"# Tiny\n" + CARD.encode(), "does not begin with metadata"),
        (CARD.replace("---\n# Tiny", "").encode(), "does not begin with metadata"),
        (CARD.encode("utf-16"), "is not UTF-8"),
        (b"---\n- a\n---\n", "line 2: expected `key: value`, got '- a'"),
        (b"---\n\n---\n", "expected `key: value`"),
    ],
)
def test_what_is_no_card_is_refused(content: bytes | None, message: str, card: Path):
    card.unlink() if content is None else card.write_bytes(content)
    with pytest.raises(PublishError, match=message):
        check_card(card)


@pytest.mark.parametrize(("tag", "stage"), [("untrained", "converted"), ("vlkd", "distilled")])
def test_a_model_that_can_do_nothing_yet_needs_no_pipeline(tag: str, stage: str, card: Path):
    card.write_text(str(make_card(CardFacts("tiny", "tiny", stage, Provenance(license="mit")))), encoding="utf-8")
    assert check_card(card) == []
    lines = [each for each in CARD.splitlines() if not each.startswith("pipeline_tag")]
    card.write_text("\n".join(lines).replace("- vlkd", f"- {tag}"), encoding="utf-8")
    with nullcontext() if tag == "untrained" else pytest.raises(PublishError, match="has no pipeline_tag"):
        assert check_card(card) == []


def test_pictures_of_the_folder_are_found_and_others_left_alone(card: Path):
    (card.parent / "pictures").mkdir()
    for name in ("a b.png", "pictures/c.png"):
        (card.parent / name).write_bytes(b"")
    shown = (
        '![a](./a%20b.png "title") ![](https://e.org/x.png) <img src="pictures/c.png#x"> ![](data:image/png;base64,A)'
    )
    card.write_text(CARD + shown, encoding="utf-8")
    assert check_card(card) == ["a b.png", "pictures/c.png"]


@pytest.mark.parametrize("stage", ["converted", "distilled"])
def test_generated_card_names_the_repository_instead_of_the_folder(stage: str):
    commands = ["vlkd convert --output 'my vlkd'", "vlkd distill --checkpoint 'my vlkd' --dataset pictures"]
    provenance = Provenance(commands=commands)
    card = str(make_card(CardFacts("my vlkd", "my vlkd", stage, provenance)))
    sent = addressed(card, "alice/tiny")
    assert 'name = "alice/tiny"  #' in sent
    assert sent.count("--checkpoint alice/tiny ") == 1
    assert all(command in sent for command in commands)  # the commands that were run stay the same
    assert is_untouched(card)
    assert is_untouched(sent)
    assert addressed(sent, "alice/tiny") == sent


def test_edited_card_still_counts_as_edited():
    card = str(make_card(CardFacts("tiny", "tiny", "distilled", Provenance()))).replace("# tiny", "# My own")
    sent = addressed(card, "alice/tiny")
    assert 'name = "alice/tiny"  #' in sent
    assert "# My own" in sent
    assert not is_untouched(sent)
    assert addressed(CARD, "alice/tiny") == CARD
