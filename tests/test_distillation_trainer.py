"""The trainer knows no loss: a toy task with a queue of its own trains, resumes and is saved as any other."""

import copy
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from torch.nn.functional import mse_loss
from transformers import BertConfig, BertModel, TrainerCallback, default_data_collator

from modeling_vlkd.trainers import DistillationConfig, DistillationTask, DistillationTrainer
from modeling_vlkd.trainers.distillation_trainer import TASK_STATE_NAME
from modeling_vlkd.trainers.whole_checkpoints import CheckpointError


DIM = 16


class ToTeacherTask(DistillationTask):
    """A text encoder goes to where a teacher's vectors are, and away from those of the last steps."""

    def __init__(self, student):
        super().__init__(student)
        self.register_buffer("queue", torch.zeros(8, DIM))
        self.head = nn.Linear(DIM, DIM)

    def forward(self, counts, **batch):
        self.last = batch["teacher"]  # (batch, dim)
        found = self.head(self.student(batch["input_ids"], batch["attention_mask"]).pooler_output)
        return {"regression": mse_loss(found, batch["teacher"]), "queue": (found @ self.queue.T).square().mean()}

    def after_step(self):
        self.queue = torch.cat([self.last, self.queue])[: len(self.queue)]


def student(seed: int = 0, dropout: float = 0.1) -> BertModel:
    torch.manual_seed(seed)
    sizes = {"vocab_size": 20, "hidden_size": DIM, "intermediate_size": 32, "max_position_embeddings": 8}
    dropouts = {"hidden_dropout_prob": dropout, "attention_probs_dropout_prob": dropout}
    return BertModel(BertConfig(num_hidden_layers=1, num_attention_heads=2, **sizes, **dropouts))


def examples(count: int = 12) -> list[dict]:
    generator = torch.Generator().manual_seed(0)
    return [
        {
            "input_ids": torch.randint(20, (5,), generator=generator),
            "attention_mask": torch.ones(5, dtype=torch.long),
            "teacher": torch.randn(DIM, generator=generator),
        }
        for _ in range(count)
    ]


@pytest.fixture
def trainer_of(tmp_path):
    """Makes a trainer of the toy task; keyword arguments are those of the config, or of the trainer."""

    def make(task=None, folder="run", weights=None, **kwargs):
        of_trainer = {name: kwargs.pop(name) for name in ("eval_dataset", "compute_metrics") if name in kwargs}
        settings = {"max_steps": 6, "per_device_train_batch_size": 4, "logging_steps": 1, "learning_rate": 1e-2}
        settings |= {"save_strategy": "no", "report_to": "none", "disable_tqdm": True, "use_cpu": True} | kwargs
        torch.manual_seed(1)
        return DistillationTrainer(
            task or ToTeacherTask(student()),
            DistillationConfig(str(tmp_path / folder), **settings),
            {"regression": 10.0, "queue": 0.5} if weights is None else weights,
            train_dataset=examples(),
            data_collator=default_data_collator,
            **of_trainer,
        )

    return make


def logged(trainer, name):
    return [entry[name] for entry in trainer.state.log_history if name in entry]


def test_the_loss_is_the_weighted_sum_and_the_queue_moves_once_a_step(trainer_of):
    seen = []

    class Watch(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            seen.append(task.queue.clone())

    task = ToTeacherTask(student())
    trainer = trainer_of(task, gradient_accumulation_steps=2)
    trainer.add_callback(Watch())
    trainer.train()
    for entry in trainer.state.log_history[:6]:
        assert entry["loss"] == pytest.approx(10 * entry["regression"] + 0.5 * entry["queue"], rel=1e-5)
    assert logged(trainer, "queue")[0] == 0  # it was empty
    assert logged(trainer, "queue")[-1] > 0
    assert all(torch.equal(after[4:], before[:4]) for before, after in pairwise(seen))  # 4 of 8 are new


def test_all_of_the_task_is_trained(trainer_of):
    task = ToTeacherTask(student())
    before = {name: parameter.clone() for name, parameter in task.named_parameters()}
    trainer_of(task).train()
    assert any(name.startswith("head.") for name in before)
    assert not [name for name, parameter in task.named_parameters() if torch.equal(parameter, before[name])]


def test_means_are_averaged_over_micro_batches_and_counted_terms_add_up(trainer_of):
    class Counted(ToTeacherTask):
        def counts(self, batch):
            return {"queue": torch.tensor(len(batch["input_ids"]))}

        def forward(self, counts, **batch):
            regression = super().forward(counts, **batch)["regression"]
            return {"regression": regression, "queue": len(batch["input_ids"]) / counts["queue"]}

    trainer = trainer_of(Counted(student()), gradient_accumulation_steps=3)
    trainer.train()
    assert logged(trainer, "queue") == pytest.approx([1.0] * 6)
    plain, accumulated = (
        trainer_of(
            ToTeacherTask(student(dropout=0.0)),
            per_device_train_batch_size=size,
            gradient_accumulation_steps=steps,
            weights={"regression": 1.0, "queue": 0.0},
            optim="sgd",
        )
        for size, steps in ((4, 1), (1, 4))
    )
    for each in (plain, accumulated):
        each.train()
    assert logged(accumulated, "regression") == pytest.approx(logged(plain, "regression"), rel=1e-4)


def test_a_resumed_run_is_the_uninterrupted_one_bit_for_bit(trainer_of):
    class StopAt(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            control.should_training_stop = state.global_step == 3

    settings = {"save_strategy": "steps", "save_steps": 3}
    whole = trainer_of(folder="whole", **settings)
    whole.train()
    first = trainer_of(folder="part", **settings)
    first.add_callback(StopAt())
    first.train()
    second = trainer_of(ToTeacherTask(student(seed=5)), folder="part", **settings)
    second.train(resume_from_checkpoint=True)
    assert logged(second, "loss") == logged(whole, "loss")
    states = [trainer.task.state_dict() for trainer in (whole, second)]
    assert not [name for name in states[0] if not torch.equal(states[0][name], states[1][name])]
    assert states[0]["queue"].any()


def test_the_student_is_saved_as_a_whole_checkpoint_and_the_rest_beside_it(trainer_of, tmp_path):
    trainer = trainer_of()
    trainer.train()
    trainer.save_model(str(tmp_path / "saved"))
    loaded = BertModel.from_pretrained(tmp_path / "saved").state_dict()
    assert loaded.keys() == trainer.model.state_dict().keys()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in trainer.model.state_dict().items())
    kept = load_file(tmp_path / "saved" / TASK_STATE_NAME)
    assert set(kept) == {"queue", "head.weight", "head.bias"}
    assert torch.equal(kept["queue"], trainer.task.queue)


def test_the_best_checkpoint_brings_back_all_of_the_task(trainer_of):
    trainer = trainer_of(
        eval_dataset=examples(4),
        eval_strategy="steps",
        eval_steps=1,
        save_strategy="steps",
        save_steps=1,
        load_best_model_at_end=True,
        metric_for_best_model="eval_regression",
        greater_is_better=True,  # so that an early step is the best: it falls
    )
    trainer.train()
    scores = logged(trainer, "eval_regression")
    assert scores.index(max(scores)) < len(scores) - 1
    assert trainer.evaluate()["eval_regression"] == pytest.approx(max(scores), rel=1e-6)


def test_a_checkpoint_without_what_the_task_keeps_is_refused(trainer_of, tmp_path):
    trainer = trainer_of(save_strategy="steps", save_steps=3)
    trainer.train()
    Path(trainer.args.output_dir, "checkpoint-6", TASK_STATE_NAME).unlink()
    with pytest.raises(
        CheckpointError, match=r"task\.safetensors: Expected the tensors .*'head\.bias': \(16,\).*, got {}:"
    ):
        trainer_of().train(resume_from_checkpoint=True)


def test_evaluation_is_a_mean_over_examples_whatever_the_batch_size(trainer_of):
    runs = []
    for size in (8, 3, 1):
        trainer = trainer_of(eval_dataset=examples(8), per_device_eval_batch_size=size)
        runs.append(trainer.evaluate())
        assert runs[-1]["eval_loss"] == pytest.approx(10 * runs[-1]["eval_regression"], rel=1e-5)  # the queue is empty
    assert [run["eval_regression"] for run in runs] == pytest.approx([runs[0]["eval_regression"]] * 3, rel=1e-5)


def test_predictions_are_what_was_measured(trainer_of):
    trainer = trainer_of(per_device_eval_batch_size=3)
    output = trainer.predict(examples(8))
    assert output.predictions["regression"].shape == (8,)
    assert output.predictions["regression"].mean() == pytest.approx(output.metrics["test_regression"], rel=1e-6)


def test_metrics_of_the_users_own_are_computed_of_what_was_measured(trainer_of):
    """As in any Trainer: where examples have labels."""
    seen = []

    def compute_metrics(prediction):
        seen.append(prediction)
        return {"mine": float(prediction.label_ids.sum())}

    labeled = [{**example, "labels": torch.tensor(place)} for place, example in enumerate(examples(8))]
    trainer = trainer_of(eval_dataset=labeled, per_device_eval_batch_size=3, compute_metrics=compute_metrics)
    metrics = trainer.evaluate()
    assert metrics["eval_mine"] == sum(range(8))
    assert seen[0].predictions["regression"].mean() == pytest.approx(metrics["eval_regression"], rel=1e-6)


def test_a_momentum_copy_is_kept_though_its_weights_are_tied(trainer_of, tmp_path):
    class WithMomentum(ToTeacherTask):
        def __init__(self, student):
            super().__init__(student)
            self.momentum = copy.deepcopy(self.head)
            self.twin = self.momentum  # one tensor under two names
            self.momentum.requires_grad_(False)

    trainer = trainer_of(WithMomentum(student()), save_strategy="steps", save_steps=3)
    trainer.train()
    kept = load_file(Path(trainer.args.output_dir, "checkpoint-6", TASK_STATE_NAME))
    assert torch.equal(kept["twin.weight"], kept["momentum.weight"])
    trainer_of(WithMomentum(student()), max_steps=7).train(resume_from_checkpoint=True)


def test_the_state_of_what_is_wrapped_is_saved_as_the_student(trainer_of, tmp_path):
    """As DeepSpeed hands it to the trainer."""
    trainer = trainer_of()
    trainer._save(str(tmp_path / "saved"), state_dict=trainer.task.state_dict())
    loaded = BertModel.from_pretrained(tmp_path / "saved").state_dict()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in trainer.model.state_dict().items())
    assert "head.weight" not in load_file(tmp_path / "saved" / "model.safetensors")


def test_weights_of_the_task_too_coarse_to_be_trained_are_refused(trainer_of):
    task = ToTeacherTask(student())
    task.head.to(torch.bfloat16)
    with pytest.raises(ValueError, match=r"head\.weight is torch\.bfloat16"):
        trainer_of(task)


def test_what_is_new_has_a_learning_rate_of_its_own(trainer_of):
    class WithNewHead(ToTeacherTask):
        def new_parameters(self):
            return self.head.parameters()

    trainer = trainer_of(WithNewHead(student()), projection_learning_rate=0.1, max_steps=1, warmup_steps=0)
    trainer.train()
    rates = {
        parameter: group["initial_lr"] for group in trainer.optimizer.param_groups for parameter in group["params"]
    }
    for name, parameter in trainer.task.named_parameters():
        assert rates[parameter] == (0.1 if name.startswith("head.") else 1e-2), name


def test_a_term_without_a_weight_is_named(trainer_of):
    with pytest.raises(ValueError, match="The term 'queue' has no weight; weights are given of regression"):
        trainer_of(weights={"regression": 1.0}).train()


def test_a_task_without_a_loss_says_so(trainer_of):
    with pytest.raises(NotImplementedError, match="DistillationTask has no `forward`"):
        trainer_of(DistillationTask(student())).train()


def test_the_student_stays_the_model_of_the_trainer(trainer_of):
    models = []

    class Watch(TrainerCallback):
        def on_step_end(self, args, state, control, model=None, **kwargs):
            models.append(model)

    task = ToTeacherTask(student())
    trainer = trainer_of(task)
    trainer.add_callback(Watch())
    trainer.train()
    trainer.train()  # a second time, with what the first one wrapped
    assert trainer.model is task.student
    assert all(model is task.student for model in models)
