"""Cards: metadata that the Hub understands, text that follows from the facts, and nothing that a user wrote lost."""

import errno
import re
from pathlib import Path

import pytest
import yaml
from huggingface_hub import EvalResult, ModelCard, metadata_load
from huggingface_hub.repocard_data import eval_results_to_model_index, model_index_to_eval_results

from modeling_vlkd.publishing.cards import (
    CardFacts,
    count_image_rows,
    count_parameters,
    is_untouched,
    make_card,
    write_card,
)
from modeling_vlkd.publishing.provenance import Provenance, Source


ROOT = Path(__file__).parent.parent
AWKWARD = "my_{{x}}|y `z` {% raw %} <b> #1: 'q' \"r\""


def make_facts(name: str = "my-vlkd", stage: str = "distilled", **changes) -> CardFacts:
    sources = [
        Source("vision tower", "openai/clip-vit-base-patch16", on_hub=True, license="mit"),
        Source("language model", "my-bart"),
        Source("image-caption pairs", "me/pictures", on_hub=True, note="split train, 12 pictures"),
    ]
    provenance = Provenance(sources, ["vlkd distill --vision a", "vlkd finetune --checkpoint b"])
    result = EvalResult(
        "visual-question-answering", "local", "q.csv", "accuracy", 0.5, metric_name="right", dataset_split="test"
    )
    facts = {
        "parameters": {"all": 1_234_567, "vision_tower": 4567},
        "settings": {"learning_rate": 2.4e-4, "seed": 7},
        "losses": {"ttdm": 0.0123456, "itcl": 2.5},
        "results": [result],
        "versions": {"torch": "1.2.3"},
    }
    return CardFacts(name, name, stage, **{"provenance": provenance, **facts, **changes})


def test_metadata_are_those_that_the_hub_goes_by():
    data = ModelCard(str(make_card(make_facts()))).data
    assert (data.license, data.library_name, data.pipeline_tag) == (
        "unknown",
        "transformers",
        "visual-question-answering",
    )
    assert data.base_model == ["openai/clip-vit-base-patch16"]  # the language model has no Hub id
    assert data.base_model_relation == "finetune"
    assert data.datasets == ["me/pictures"]
    assert "vlkd" in data.tags
    assert data.language is None
    assert data.eval_results == make_facts().results


def test_an_untrained_model_claims_no_task():
    data = ModelCard(str(make_card(make_facts(stage="converted", results=[])))).data
    assert data.pipeline_tag is None
    assert data.tags == ["vlkd", "clip", "bart", "untrained"]


def test_metadata_come_through_the_hubs_own_reading_and_writing(tmp_path):
    card = make_card(make_facts(AWKWARD))
    card.save(tmp_path / "README.md")
    metadata = metadata_load(tmp_path / "README.md")
    assert metadata == ModelCard.load(tmp_path / "README.md").data.to_dict()
    name, results = model_index_to_eval_results(metadata["model-index"])
    assert name == AWKWARD
    assert eval_results_to_model_index(name, results) == metadata["model-index"]


def test_without_results_there_is_no_model_index():
    card = str(make_card(make_facts(results=[])))
    assert "model-index" not in card
    assert "model_name" not in card
    assert "None was measured in this run." in card


def test_stated_license_and_languages_are_told():
    provenance = Provenance(license="apache-2.0", language=["en", "no"])
    card = make_card(make_facts(provenance=provenance))
    assert yaml.safe_load(card.data.to_yaml())["language"] == ["en", "no"]  # YAML would read an unquoted no as False
    assert card.data.license == "apache-2.0"
    assert "stated as `apache-2.0`" in card.text
    assert "Nobody has stated a license" in make_card(make_facts()).text


def test_the_text_follows_from_the_facts():
    text = make_card(make_facts()).text
    for told in (
        "# my-vlkd",
        "It has 1,234,567 parameters, of which 4,567 in the vision tower.",
        "| vision tower | [openai/clip-vit-base-patch16](https://huggingface.co/openai/clip-vit-base-patch16) |",
        "| `mit` |",
        "| language model | `my-bart` | none known |",
        "[me/pictures](https://huggingface.co/datasets/me/pictures), split train, 12 pictures |",
        'name = "my-vlkd"',
        "vlkd finetune --checkpoint my-vlkd",
        "```bash\nvlkd distill --vision a\nvlkd finetune --checkpoint b\n```",
        "| learning_rate | `0.00024` |",
        "| ttdm | 0.01235 |",
        "| q.csv, test | right | 0.5 |",
        "Versions: torch 1.2.3.",
        "a single row for a picture",
        "No picture came with a question in training.",
        "BART saw captions alone",
    ):
        assert told in text, told


@pytest.mark.parametrize(
    ("changes", "told", "untold"),
    [
        ({"image_rows": 145}, "gives 145 rows for a picture", "a single row"),
        ({"tower_frozen": False}, "CLIP, itself trained along, was", "frozen CLIP"),
        ({"provenance": Provenance()}, "Measured by the trainer, on", "command above"),
        ({"stage": "finetuned"}, "and then trained on questions", "No picture came with a question"),
        ({"stage": "converted"}, "**not trained yet**", 'pipeline("visual'),
        ({"stage": "converted", "results": []}, "None: the model is not trained.", "was measured"),
        ({"settings": {}}, "vlkd distill --vision a", "| setting |"),
        ({"losses": {}}, "vlkd distill --vision a", "last logged"),
        ({"results_note": "Mean of three."}, "Mean of three.", "by the last command above"),
        ({"proof": [("logits", "transformers", 1e-5)]}, "| logits | transformers | 1e-05 |", "no such thing"),
        ({"limits": ["It is small."]}, "- It is small.", "no such thing"),
        (
            {"provenance": Provenance([Source("replayed texts", "x")], ["y"])},
            "captions and replayed texts (",
            "BART saw captions alone",
        ),
        ({"provenance": Provenance()}, "It was trained from Python", "```bash\nvlkd distill"),
    ],
)
def test_a_change_of_a_fact_changes_the_text(changes, told, untold):
    text = make_card(make_facts(**changes)).text
    assert told in text
    assert untold not in text


def test_names_are_shown_as_they_are(tmp_path):
    sources = [Source("image-caption pairs", AWKWARD, license=AWKWARD, note=AWKWARD)]
    card = make_card(make_facts(AWKWARD, provenance=Provenance(sources, [f"vlkd distill --dataset '{AWKWARD}'"])))
    assert "{{x}}" in card.text
    tables = [line for line in card.text.splitlines() if line.startswith("| image-caption")]
    assert [len(re.findall(r"(?<!\\)\|", line)) for line in tables] == [4]  # a bar in a name ends no cell
    assert "``my_{{x}}\\|y `z`" in tables[0]  # nor does a backtick end code
    assert "# my\\_\\{\\{x\\}\\}\\|y" in card.text
    card.save(tmp_path / "README.md")
    [entry] = metadata_load(tmp_path / "README.md")["vlkd"]["made_from"]
    assert Source(**entry) == sources[0]


def test_python_shown_is_python():
    for stage in ("distilled", "converted"):
        text = make_card(make_facts(AWKWARD, stage=stage)).text
        [block] = re.findall(r"^```python\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)
        compile(block, "card", "exec")
        assert AWKWARD in eval(re.search("^name = (.*)$", block, flags=re.MULTILINE)[1])


def test_the_citation_is_that_of_the_readme():
    [ours], [readme] = (
        re.findall("```bibtex\n.*?```", text, flags=re.DOTALL)
        for text in (make_card(make_facts()).text, (ROOT / "README.md").read_text(encoding="utf-8"))
    )
    assert ours == readme


def test_a_card_is_written_over_until_somebody_edits_it(tmp_path):
    path = tmp_path / "README.md"
    assert write_card(make_card(make_facts("first")), tmp_path) == path
    assert is_untouched(path.read_text())
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))  # as git may leave it
    assert write_card(make_card(make_facts("second")), tmp_path) == path
    assert "# second" in path.read_text()
    assert [file.name for file in tmp_path.iterdir()] == ["README.md"]


@pytest.mark.parametrize(
    "edit",
    [
        lambda text: text.replace("# first", "# My own title"),
        lambda text: text.replace("license: unknown", "license: mit"),
        lambda text: text + "\nMore.\n",
        lambda text: "\n".join(text.splitlines()[:-1]),  # without the signature
        lambda text: "No metadata at all.",
        lambda text: "",
        lambda text: "---\n[broken\n---\n",
    ],
)
def test_what_somebody_wrote_is_never_lost(edit, tmp_path):
    path = tmp_path / "README.md"
    write_card(make_card(make_facts("first")), tmp_path)
    path.write_text(edit(path.read_text()))
    kept = path.read_text()
    for name in ("second", "third"):
        beside = write_card(make_card(make_facts(name)), tmp_path)
        assert beside == tmp_path / "README.generated.md"
        assert f"# {name}" in beside.read_text()
        assert path.read_text() == kept


def test_a_full_disk_leaves_the_old_card(tmp_path, monkeypatch):
    def write_half(self, path):
        Path(path).write_text("---")
        raise OSError(errno.ENOSPC, "No space left on device")

    write_card(make_card(make_facts("first")), tmp_path)
    monkeypatch.setattr(ModelCard, "save", write_half)
    with pytest.raises(OSError, match="No space left"):
        write_card(make_card(make_facts("second")), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["README.md"]
    assert is_untouched((tmp_path / "README.md").read_text())


def test_parameters_and_rows_are_counted(make_model, pixel_values):
    vit, resnet = make_model("vit"), make_model("resnet")
    assert count_parameters(vit)["all"] == sum(tensor.numel() for tensor in vit.parameters())
    assert count_parameters(vit)["vision_tower"] < count_parameters(vit)["all"]
    assert count_image_rows(vit.config) == 1
    assert count_image_rows(resnet.config) == resnet.get_image_rows(pixel_values).shape[1] > 1
