"""The card of a training run, from the trainer's arguments and log."""

import inspect
import logging
from types import SimpleNamespace

import pytest
from huggingface_hub import ModelCard
from tiny_training import tiny_model, tiny_pairs, tiny_processor
from transformers import Trainer, TrainingArguments

from modeling_vlkd.publishing.provenance import Provenance, Source
from modeling_vlkd.trainers import QuestionSet, VLKDDistillationConfig, VLKDDistillationTrainer
from modeling_vlkd.trainers.card_trainer import TRAINED_ON, CardTrainer, RunFacts, last_losses, measured


SETTINGS = {"report_to": "none", "disable_tqdm": True, "use_cpu": True, "save_strategy": "no", "logging_steps": 1}
SETTINGS |= {"max_steps": 2, "per_device_train_batch_size": 4}


@pytest.fixture(scope="module")
def processor():
    return tiny_processor()


@pytest.fixture
def make_trainer(processor, tmp_path):
    def make(run_facts=None, questions=None, **changes) -> VLKDDistillationTrainer:
        args = VLKDDistillationConfig(str(tmp_path / "my-vlkd"), **(SETTINGS | changes))
        return VLKDDistillationTrainer(
            tiny_model(processor),
            args,
            train_dataset=tiny_pairs(),
            eval_dataset=tiny_pairs(6, seed=1),
            processing_class=processor,
            question_set=questions,
            run_facts=run_facts,
        )

    return make


def card_of(trainer, **arguments) -> ModelCard:
    trainer.create_model_card(**arguments)
    return ModelCard.load(f"{trainer.args.output_dir}/README.md")


def test_the_signature_is_that_of_transformers():
    ours, theirs = (inspect.signature(each.create_model_card).parameters for each in (CardTrainer, Trainer))
    assert list(ours) == list(theirs)
    assert [each.default for each in ours.values()] == [each.default for each in theirs.values()]


def test_the_temperature_never_decays(processor, tmp_path):
    trainer = CardTrainer(tiny_model(processor), TrainingArguments(str(tmp_path), use_cpu=True, report_to="none"))
    names = trainer.get_decay_parameter_names(trainer.model)
    assert "model.text_projection.weight" in names
    assert "model.logit_scale" not in names


def test_settings_losses_and_counts_are_those_of_the_run(make_trainer, tmp_path):
    trainer = make_trainer(learning_rate=0.0125, mask_ratio=0.4, adam_beta1=0.8, gradient_accumulation_steps=2, seed=5)
    trainer.train()
    text = card_of(trainer).text
    settings = {"steps": 2, "learning_rate": 0.0125, "mask_ratio": 0.4, "adam_beta1": 0.8, "seed": 5}
    settings |= {"gradient_accumulation_steps": 2, "ttdm_weight": 1000, "per_device_train_batch_size": 4}
    for name, value in settings.items():
        assert f"| {name} | `{value}` |" in text
    assert "adam_beta2" not in text  # as by default
    assert "replay_weight" not in text  # nothing was replayed
    last = [entry for entry in trainer.state.log_history if "loss" in entry][-1]
    for name in ("loss", "ttdm", "itcl", "icti", "logit_scale"):
        assert f"| {name} | {last[name]:.4g} |" in text
    assert f"It has {trainer.model.num_parameters():,} parameters" in text
    assert "| image-caption pairs | `not named`, 12 of them | none known |" in text
    assert "It was trained from Python" in text
    assert str(tmp_path) not in text


def test_another_run_has_another_card(make_trainer):
    cards = []
    for rate in (0.001, 0.002, 0.001):
        trainer = make_trainer(learning_rate=rate)
        trainer.train()
        cards.append(str(card_of(trainer)))
    assert cards[0] == cards[2] != cards[1]


def test_what_the_caller_knows_is_told(make_trainer):
    provenance = Provenance([Source("vision tower", "a/clip", on_hub=True)], ["vlkd distill --x"], "mit", ["fr"])
    questions = Source("evaluation", "me/questions", on_hub=True, note="test")
    pictures = QuestionSet(["what color is the shape?"], ["red"], tiny_pairs(1)[0]["image_embeds"][None])
    facts = RunFacts(provenance, {"flip": True}, Source("evaluation", "pairs"), questions)
    trainer = make_trainer(facts, pictures)
    metrics = trainer.evaluate()
    card = card_of(trainer)
    assert (card.data.license, card.data.language, card.data.base_model) == ("mit", ["fr"], ["a/clip"])
    assert "| flip | `True` |" in card.text
    assert "vlkd distill --x" in card.text
    assert "not named" not in card.text
    results = {(each.dataset_type, each.dataset_name, each.metric_name): each for each in card.data.eval_results}
    assert set(results) == {
        ("local", "pairs", "caption of a picture, R@1 among 6"),
        ("local", "pairs", "caption of a picture, R@5 among 6"),
        ("local", "pairs", "picture of a caption, R@1 among 6"),  # of 6, R@10 is 1 whatever the model
        ("local", "pairs", "picture of a caption, R@5 among 6"),
        ("me/questions", "me/questions", "questions answered right"),
    }
    first, fifth, *_, answers = card.data.eval_results
    assert (first.metric_type, first.metric_value) == ("recall_at_1", metrics["eval_retrieval_i2t"])
    assert (fifth.metric_type, fifth.metric_value) == ("recall_at_5", metrics["eval_retrieval_i2t_at_5"])
    assert (answers.dataset_split, answers.metric_value) == ("test", metrics["eval_vqa_accuracy"])


def test_metrics_of_training_data_are_told_as_such(make_trainer):
    facts = RunFacts(Provenance(), eval_pairs=Source(TRAINED_ON, "pairs", note="train"))
    trainer = make_trainer(facts)
    trainer.evaluate()
    card = card_of(trainer)
    assert "| pairs, train | caption of a picture, R@1 among 6, of the training data | " in card.text
    assert {each.dataset_split for each in card.data.eval_results} == {"train"}


def test_arguments_of_transformers_hook_are_honoured(make_trainer):
    trainer = make_trainer()
    trainer.hub_model_id = "me/repository"
    given = {"language": "de", "license": "mit", "tags": "mine", "model_name": "A name", "finetuned_from": "a/b"}
    card = card_of(trainer, dataset_tags=["me/data"], dataset=["me/data", "Data of mine"], **given)
    assert (card.data.language, card.data.license, card.data.base_model) == (["de"], "mit", ["a/b"])
    assert card.data.datasets == ["me/data"]
    assert {"mine", "generated_from_trainer"} <= set(card.data.tags)
    assert "# A name" in card.text
    assert "`Data of mine`" in card.text
    assert 'name = "me/repository"' in card.text
    again = card_of(trainer)  # nothing of it stays with the trainer
    assert "# repository" in again.text
    assert again.data.base_model is None
    assert again.data.license == "unknown"


def test_metrics_are_those_of_the_weights_that_are_kept(make_trainer):
    trainer = make_trainer()
    trainer.evaluate()
    trainer.train()
    assert card_of(trainer).data.eval_results is None  # it has learned on since
    trainer.evaluate()
    assert len(card_of(trainer).data.eval_results) == 4


def entry(step: int, **values: float) -> dict:
    return {"step": step, "epoch": 1.0, **values}


@pytest.mark.parametrize(
    ("log", "best", "expected"),
    [
        ([], None, None),
        ([entry(4, loss=1.0)], None, None),
        ([entry(2, eval_x=1.0), entry(4, eval_x=2.0), entry(4, train_runtime=1.0)], None, 2.0),
        ([entry(2, eval_x=1.0), entry(4, train_runtime=1.0)], None, None),
        ([entry(2, eval_x=1.0), entry(4, eval_x=2.0), entry(4, train_runtime=1.0)], 2, 1.0),
        ([entry(2, eval_x=1.0), entry(4, train_runtime=1.0), entry(4, eval_x=3.0)], 2, 3.0),
    ],
)
def test_an_evaluation_counts_if_the_weights_are_the_same(log, best, expected):
    args = SimpleNamespace(load_best_model_at_end=best is not None)
    state = SimpleNamespace(log_history=log, global_step=4, best_global_step=best)
    assert measured(args, state).get("x") == expected


def test_a_run_that_logged_nothing_tells_its_mean_loss():
    assert last_losses([entry(4, train_runtime=1.0, train_loss=0.5)]) == {"loss, mean of the run": 0.5}
    assert last_losses([entry(2, loss=1.0, learning_rate=0.1), entry(4, train_loss=0.5)]) == {"step": 2, "loss": 1.0}
    assert last_losses([]) == {}


def test_a_resumed_run_has_the_card_of_the_uninterrupted_one(make_trainer):
    settings = {"save_strategy": "steps", "save_steps": 2, "max_steps": 4}
    whole = make_trainer(**settings)
    whole.train()
    card = str(card_of(whole))
    resumed = make_trainer(**settings)
    resumed.train(resume_from_checkpoint=f"{whole.args.output_dir}/checkpoint-2")
    assert str(card_of(resumed)) == card


def test_an_edited_card_stays_and_the_user_is_told(make_trainer, caplog):
    trainer = make_trainer()
    card_of(trainer)
    path = f"{trainer.args.output_dir}/README.md"
    with open(path, "a") as file:
        file.write("\nMy own words.\n")
    with caplog.at_level(logging.WARNING):
        assert "My own words." in card_of(trainer).text
    assert "README.md was edited by hand and stays" in caplog.text
    assert ModelCard.load(f"{trainer.args.output_dir}/README.generated.md").data.library_name == "transformers"


def test_only_the_main_process_writes(make_trainer, monkeypatch, tmp_path):
    trainer = make_trainer()
    monkeypatch.setattr(trainer, "is_world_process_zero", lambda: False)
    trainer.create_model_card()
    assert not list(tmp_path.rglob("README.md"))
