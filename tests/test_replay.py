import pytest
import torch
from tiny_training import DIM, tiny_tokenizer
from torch.nn.functional import normalize

from modeling_vlkd.trainers import PictureImitation, ReplayCorpus, ReplayText
from modeling_vlkd.trainers.replay import parse_replay_line


@pytest.fixture(scope="module")
def tokenizer():
    return tiny_tokenizer()


def test_a_line_has_one_two_or_three_fields():
    assert parse_replay_line("a red box\n") == (None, None, "a red box")
    assert parse_replay_line("a teal box\tis it red? Answer: no.") == ("a teal box", None, "is it red? Answer: no.")
    assert parse_replay_line("a box\tis it red? Answer:<mask>.\tno") == ("a box", "is it red? Answer:<mask>.", "no")
    assert parse_replay_line("\ta red<mask>\ta red box") == (None, "a red<mask>", "a red box")


def test_a_corpus_is_tokenized_and_its_contexts_embedded_once(tokenizer, tmp_path):
    corpus = tmp_path / "corpus.txt"
    corpus.write_text("a red box\n\na teal box\ta circle\na teal box\ta<mask>\ta circle\na box\ta red box\n")
    asked = []

    def embed(texts):
        asked.extend(texts)
        return torch.stack([torch.full((DIM,), float(len(text))) for text in texts])

    texts = ReplayCorpus.from_file(corpus, tokenizer, embed)
    assert len(texts) == 4
    assert texts.has_contexts
    assert sorted(asked) == ["a box", "a teal box"]
    assert texts[0].source is None
    assert texts[0].context_embeds is None
    assert tokenizer.decode(texts[2].source) == "<s>a<mask></s>"
    assert tokenizer.decode(texts[2].target) == "<s>a circle</s>"
    assert [texts[index].context_embeds[0].item() for index in (1, 2, 3)] == [10.0, 10.0, 5.0]


def test_an_imitated_picture_lies_where_pictures_do(tokenizer):
    """Pictures are texts moved by a gap and strewn by noise, so imitations have the pictures' mean, spread, length."""
    generator = torch.Generator().manual_seed(0)
    texts = torch.randn(4000, DIM, generator=generator) + 3
    gap, noise = torch.linspace(-0.3, 0.3, DIM), torch.linspace(0.01, 0.05, DIM)
    pictures = normalize(texts, dim=-1) + gap + noise * torch.randn(4000, DIM, generator=generator)
    imitation = PictureImitation(7 * normalize(pictures, dim=-1), texts, seed=1)
    imitated = torch.stack([imitation(text) for text in texts])
    torch.testing.assert_close(imitated.norm(dim=-1), torch.full((4000,), 7.0))
    truth, found = (normalize(rows, dim=-1) - normalize(texts, dim=-1) for rows in (pictures, imitated))
    torch.testing.assert_close(found.mean(dim=0), truth.mean(dim=0), atol=0.05, rtol=0)
    assert (found.mean(dim=0) - truth.mean(dim=0)).norm() < 0.3 * truth.mean(dim=0).norm()

    corpus = ReplayCorpus([ReplayText([0, 5, 2], context_embeds=texts[0]), ReplayText([0, 6, 2])])
    moved = corpus.imitating(PictureImitation(pictures, texts, seed=2))
    assert not torch.equal(moved[0].context_embeds, texts[0])
    assert moved[1] == corpus[1]


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
