import pytest
import torch
from tiny_training import DIM, tiny_tokenizer

from modeling_vlkd.trainers import ReplayCorpus
from modeling_vlkd.trainers.replay import join_image_rows, parse_replay_line


@pytest.fixture(scope="module")
def tokenizer():
    return tiny_tokenizer()


def test_a_line_has_one_two_or_three_fields():
    assert parse_replay_line("a red box\n") == (None, None, "a red box")
    assert parse_replay_line("a teal box\tis it red? Answer: no.") == ("a teal box", None, "is it red? Answer: no.")
    assert parse_replay_line("a box\tis it red? Answer:<mask>.\tno") == ("a box", "is it red? Answer:<mask>.", "no")
    assert parse_replay_line("\ta red<mask>\ta red box") == (None, "a red<mask>", "a red box")


def test_a_corpus_is_tokenized_and_its_contexts_embedded_once_and_scaled(tokenizer, tmp_path):
    corpus = tmp_path / "corpus.txt"
    corpus.write_text("a red box\n\na teal box\ta circle\na teal box\ta<mask>\ta circle\na box\ta red box\n")
    asked = []

    def embed(texts):
        asked.extend(texts)
        return torch.stack([torch.full((DIM,), float(len(text))) for text in texts])

    texts = ReplayCorpus.from_file(corpus, tokenizer, embed, image_norm=3.0)
    assert len(texts) == 4
    assert texts.has_contexts
    assert sorted(asked) == ["a box", "a teal box"]
    assert texts[0].source is None
    assert texts[0].context_embeds is None
    assert tokenizer.decode(texts[2].source) == "<s>a<mask></s>"
    assert tokenizer.decode(texts[2].target) == "<s>a circle</s>"
    lengths = [texts[index].context_embeds.norm() for index in (1, 3)]
    assert sum(lengths) / 2 == pytest.approx(3.0)
    assert lengths[0] / lengths[1] == pytest.approx(10 / 5)


def test_what_is_wrong_is_named_by_its_line(tokenizer, tmp_path):
    corpus = tmp_path / "corpus.txt"
    for text, message in (
        ("a red box\n\na\tb\tc\td", "line 3: Expected at most three fields .* got 4"),
        ("a red box\na teal box\t", "line 2: The text to replay is empty"),
        ("a\t\ta box", "line 1: The source is empty"),
        ("a teal box\ta box", "has contexts, which CLIP's text tower"),
        ("\n", "no lines"),
    ):
        corpus.write_text(text)
        with pytest.raises(ValueError, match=message):
            ReplayCorpus.from_file(corpus, tokenizer)


def test_a_context_is_one_image_row_and_the_others_are_masked():
    images = torch.ones(2, 3, DIM)
    contexts = torch.stack([torch.full((DIM,), 5.0), torch.zeros(DIM)])
    embeds, mask = join_image_rows(images, 2, contexts, torch.tensor([True, False]))
    assert mask.tolist() == [[1, 1, 1], [1, 1, 1], [1, 0, 0], [0, 0, 0]]
    assert embeds.shape == (4, 3, DIM)
    assert (embeds[2, 0] == 5).all()
    assert not embeds[2:, 1:].any()
