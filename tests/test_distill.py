import csv
import errno
import logging
import os
import re
import runpy
import shlex
import shutil
import signal
import sys
import tempfile
import warnings

import datasets
import pytest
import torch
from huggingface_hub import ModelCard
from PIL import Image
from safetensors.torch import load_file
from tiny_training import COLORS, DIM, IMAGE_SIZE, SHAPES, tiny_model, tiny_processor
from transformers import BartForConditionalGeneration, CLIPConfig, CLIPModel, Trainer

from modeling_vlkd import VLKDForConditionalGeneration, VLKDProcessor
from modeling_vlkd.commands import distill
from modeling_vlkd.commands.card_arguments import command_line
from modeling_vlkd.commands.main import main
from modeling_vlkd.conversion.assembling import convert
from modeling_vlkd.evaluation.decoding import DecodingTrial
from modeling_vlkd.publishing.card_checks import check_card
from modeling_vlkd.trainers import VLKDDistillationTrainer
from modeling_vlkd.trainers.captioned_images import load_captioned_images
from modeling_vlkd.trainers.resumable_trainer import SaveOnInterrupt


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Folders on disk: a CLIP, a BART, twelve pictures with captions, questions about them, and a replay corpus."""
    folder, processor = tmp_path_factory.mktemp("world"), tiny_processor()
    torch.manual_seed(0)
    layers = {"num_hidden_layers": 1, "num_attention_heads": 2, "hidden_size": 16, "intermediate_size": 32}
    text = layers | {"vocab_size": len(processor.tokenizer), "max_position_embeddings": 32, "eos_token_id": 2}
    vision = layers | {"image_size": IMAGE_SIZE, "patch_size": 4}
    CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=DIM)).save_pretrained(folder / "clip")
    processor.image_processor.save_pretrained(folder / "clip")
    processor.tokenizer.save_pretrained(folder / "clip")
    model = tiny_model(processor)
    bart = BartForConditionalGeneration(model.config.text_config)
    bart.save_pretrained(folder / "bart")
    processor.tokenizer.save_pretrained(folder / "bart")

    captions, questions = [("file_name", "caption")], [("image", "question", "answer")]
    (folder / "pictures").mkdir()
    for index, (color, shape) in enumerate((color, shape) for color in COLORS for shape in SHAPES):
        Image.new("RGB", (IMAGE_SIZE, IMAGE_SIZE), (20 * index, 0, 0)).save(folder / "pictures" / f"{index}.png")
        captions.append((f"{index}.png", f"A picture of a {color} {shape}."))
        questions.append((f"pictures/{index}.png", "what color is the shape?", color))
    for path, rows in ((folder / "pictures" / "metadata.csv", captions), (folder / "questions.csv", questions)):
        with open(path, "w", newline="") as file:
            csv.writer(file).writerows(rows)
    corpus = ["a red box\tis there a circle? Answer: yes.", "what color is the shape? Answer: red."]
    (folder / "corpus.txt").write_text("\n".join(corpus))
    return folder


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("datasets_cache"))


@pytest.fixture
def arguments(world, tmp_path):
    flags = {
        "vision": world / "clip",
        "text": world / "bart",
        "dataset": world / "pictures",
        "cache": tmp_path / "cache",
    }
    flags |= {"output_dir": tmp_path / "out", "max_steps": 4, "per_device_train_batch_size": 4, "use_cpu": "true"}
    flags |= {"report_to": "none", "logging_steps": 1}
    return [word for name, value in flags.items() for word in (f"--{name}", str(value))]


def test_w_e_can_start_aligned_with_clips_texts(world, arguments, tmp_path):
    """Without a step of training W_e is left as it starts: orthogonal, and such that sentences meet CLIP's texts."""
    training = ["--max_steps", "1", "--learning_rate", "0"]
    meeting = {}
    for name, flags in {"random": [], "aligned": ["--align_text_projection", "true"]}.items():
        folder = tmp_path / name
        assert main(["distill", *arguments, *training, *flags, "--output_dir", str(folder)]) == 0
        model = VLKDForConditionalGeneration.from_pretrained(folder)
        weight = model.model.text_projection.weight
        torch.testing.assert_close(weight @ weight.T, torch.eye(DIM), atol=1e-5, rtol=0)
        inputs = VLKDProcessor.from_pretrained(folder).tokenizer(
            [f"A picture of a {color} {shape}." for color in COLORS for shape in SHAPES],
            padding=True,
            return_tensors="pt",
        )
        teacher = CLIPModel.from_pretrained(world / "clip")
        with torch.no_grad():
            texts, sentences = (each.get_text_features(**inputs).pooler_output for each in (teacher, model))
        meeting[name] = torch.nn.functional.cosine_similarity(texts, sentences).mean().item()
    assert meeting["aligned"] > max(0.5, meeting["random"])


def test_the_decoding_is_chosen_on_pictures_held_back(world, arguments, tmp_path, capsys):
    """It is not trained on them, and what was found stands in the checkpoint, on the terminal and in the card."""
    assert main(["distill", *arguments, "--hold_back", "3"]) == 0
    [told] = [line for line in capsys.readouterr().out.splitlines() if line.startswith("It writes ")]
    assert told.endswith("on 3 pictures).")
    chosen = told.startswith("It writes after the known beginning")
    model = VLKDForConditionalGeneration.from_pretrained(tmp_path / "out")
    assert model.generation_config.force_prefix is chosen
    card = (tmp_path / "out" / "README.md").read_text()
    assert told.removeprefix("It writes ").removesuffix(".") in card
    assert "9 pictures" in card


def test_the_decoding_is_chosen_on_the_evaluation_split(world, arguments, tmp_path, capsys):
    rows = load_captioned_images(world / "pictures")
    splits = {"train": rows.select(range(8)), "test": rows.select(range(8, 12))}
    datasets.DatasetDict(splits).save_to_disk(tmp_path / "splits")
    data = ["--dataset", str(tmp_path / "splits"), "--eval_split"]
    assert main(["distill", *arguments, *data, "test"]) == 0
    assert "on 4 pictures)." in capsys.readouterr().out
    assert main(["distill", *arguments, *data, "train", "--output_dir", str(tmp_path / "again")]) == 0
    assert "It writes" not in capsys.readouterr().out  # nothing is held back of so few, and the others were trained on


def test_another_decoding_is_measured_anew(arguments, tmp_path, monkeypatch):
    """The card tells what the checkpoint does, not what it did before the choice."""
    flags = ["--eval_split", "train", "--eval_strategy", "steps", "--eval_steps", "4", "--hold_back", "2"]
    for forced, evaluations in ((0.7, 1), (0.5, 2)):
        seen = []
        trial = DecodingTrial(forced=forced, free=0.6, pictures=2)

        def choose(model, *_, trial=trial):
            model.generation_config.force_prefix = trial.force_prefix
            return trial

        def evaluate(self, *args, seen=seen, plain=VLKDDistillationTrainer.evaluate, **kwargs):
            seen.append(self.state.global_step)
            return plain(self, *args, **kwargs)

        with monkeypatch.context() as patch:
            patch.setattr(distill, "choose_decoding", choose)
            patch.setattr(VLKDDistillationTrainer, "evaluate", evaluate)
            assert main(["distill", *arguments, *flags, "--output_dir", str(tmp_path / str(forced))]) == 0
        assert seen == [4] * evaluations


def test_more_pictures_held_back_than_there_are_is_an_error(world, arguments, capsys):
    assert main(["distill", *arguments, "--hold_back", "12"]) == 2
    assert "hold_back=12: give 0 to 11, for there are 12 pictures." in capsys.readouterr().err


def test_distill_leaves_a_checkpoint(world, arguments, tmp_path, capsys):
    extra = [
        "--replay",
        world / "corpus.txt",
        "--questions",
        world / "questions.csv",
        "--flip",
        "--eval_split",
        "train",
    ]
    extra += ["--eval_strategy", "steps", "--eval_steps", "2", "--projection_learning_rate", "1e-3"]
    assert main(["distill", *arguments, *map(str, extra)]) == 0
    output = capsys.readouterr().out
    for name in ("ttdm", "itcl", "icti", "replay", "eval_vqa_accuracy", "eval_retrieval_i2t"):
        assert f"'{name}'" in output
    assert f"The distilled model is in {tmp_path / 'out'}" in output
    command, *words = shlex.split(output.splitlines()[-1])  # what is said to try runs as it is
    assert command == "vlkd"
    assert main(words) == 0
    model = VLKDForConditionalGeneration.from_pretrained(tmp_path / "out")
    clip = CLIPModel.from_pretrained(world / "clip")
    assert torch.equal(model.model.vision_tower.visual_projection.weight, clip.visual_projection.weight)
    assert VLKDProcessor.from_pretrained(tmp_path / "out").tokenizer.mask_token == "<mask>"


def test_a_config_file_gives_flags_and_the_command_line_wins(world, arguments, tmp_path):
    config = tmp_path / "run.yaml"
    config.write_text("learning_rate: 0.5\nseed: 7\nitcl_weight: 0\nlr_scheduler_kwargs: {}\nuse_cpu: true\n")
    parser = distill.TrainingParser([distill.DistillArguments, distill.VLKDDistillationConfig])
    _, training = parser.parse([*arguments, "--config", str(config), "--seed", "8"])
    assert (training.learning_rate, training.seed, training.itcl_weight) == (0.5, 8, 0.0)


def test_resuming_is_asked_for_and_an_old_run_is_not_written_over(arguments, tmp_path, capsys):
    assert main(["distill", *arguments, "--save_steps", "2"]) == 0
    assert main(["distill", *arguments]) == 2
    assert "holds a run with checkpoints" in capsys.readouterr().err
    heard: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: heard.append(record.getMessage())
    logging.getLogger("transformers").addHandler(handler)
    assert main(["distill", *arguments, "--max_steps", "6", "--resume_from_checkpoint", "true"]) == 0
    logging.getLogger("transformers").removeHandler(handler)
    assert not [message for message in heard if "missing keys" in message]  # those that are tied are in no file
    assert (tmp_path / "out" / "trainer_state.json").read_text().count('"step"') >= 6
    kept = sorted(path.name.split("-")[0] for path in (tmp_path / "cache").iterdir())
    assert kept == ["image_rows", "text_embeds"]  # both runs used the same


def test_an_interrupt_leaves_a_checkpoint_to_resume_from(arguments, tmp_path, capsys, monkeypatch):
    on_step_end = SaveOnInterrupt.on_step_end

    def press_ctrl_c(self, args, state, control, **kwargs):
        if state.global_step == 2 and not self.interrupted:
            signal.raise_signal(signal.SIGINT)
        on_step_end(self, args, state, control, **kwargs)

    monkeypatch.setattr(SaveOnInterrupt, "on_step_end", press_ctrl_c)
    before = signal.getsignal(signal.SIGINT)
    assert main(["distill", *arguments]) == 2
    error = capsys.readouterr().err.strip()
    assert "Interrupted after step 2" in error
    assert [path.name for path in (tmp_path / "out").glob("checkpoint-*")] == ["checkpoint-2"]
    assert signal.getsignal(signal.SIGINT) is before
    monkeypatch.undo()
    assert main(["distill", *arguments, "--resume_from_checkpoint", "true"]) == 0
    [command] = card_in(tmp_path / "out").data.vlkd["commands"]
    assert command == command_line("distill", arguments)  # which a stranger can repeat


def test_a_damaged_checkpoint_is_one_line_or_passed_over(arguments, tmp_path, capsys, caplog):
    out, resume = tmp_path / "out", "--resume_from_checkpoint"
    assert main(["distill", *arguments, "--save_steps", "2"]) == 0
    os.truncate(out / "checkpoint-4" / "model.safetensors", 1000)
    capsys.readouterr()
    assert main(["distill", *arguments, resume, str(out / "checkpoint-4")]) == 2
    assert capsys.readouterr().err.strip() == (
        f"vlkd distill: error: {out}/checkpoint-4/model.safetensors is truncated or damaged; "
        "name another checkpoint, or `true` for the last whole one of the run."
    )
    assert main(["distill", *arguments, resume, "true"]) == 0
    assert f"going on from {out / 'checkpoint-2'}." in caplog.text
    for name in ("checkpoint-2", "checkpoint-4"):
        (out / name / "trainer_state.json").write_text("")
    for flags in ([], [resume, "true"]):
        capsys.readouterr()
        assert main(["distill", *arguments, *flags]) == 2
        [error] = capsys.readouterr().err.strip().splitlines()
        assert f"{out} holds no whole checkpoint: {out}/checkpoint-4/trainer_state.json is truncated" in error


def test_what_a_killed_run_did_not_finish_is_no_run_to_go_on_with(arguments, tmp_path, capsys):
    """It may begin anew in the same folder."""
    unfinished = tmp_path / "out" / "_unfinished" / "checkpoint-2"
    unfinished.mkdir(parents=True)
    assert main(["distill", *arguments, "--resume_from_checkpoint", "true"]) == 2
    assert "holds no checkpoint to resume from; leave --resume_from_checkpoint out" in capsys.readouterr().err
    assert main(["distill", *arguments, "--save_steps", "2"]) == 0
    assert not unfinished.parent.exists()


def test_a_run_does_not_go_on_with_other_pictures(world, arguments, tmp_path, capsys, monkeypatch):
    """Nothing of the models is read before that is known."""
    assert main(["distill", *arguments, "--save_steps", "2"]) == 0
    others = tmp_path / "others"
    shutil.copytree(world / "pictures", others)
    resume = ["--max_steps", "5", "--resume_from_checkpoint", "true"]
    assert main(["distill", *arguments, *resume, "--dataset", str(others)]) == 0  # the same pictures elsewhere
    table = others / "metadata.csv"
    table.write_text(table.read_text().replace("red", "green"))
    before = sorted((tmp_path / "out").rglob("*"))
    capsys.readouterr()
    monkeypatch.setattr(distill, "load_student", None)
    assert main(["distill", *arguments, *resume, "--dataset", str(others)]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert re.fullmatch(
        r"vlkd distill: error: (\S+/out/checkpoint-5) was trained on others, split train \(12 examples, \w{8}\), "
        r"and not on others, split train \(12 examples, \w{8}\); give the same data, or begin anew from its model "
        r"\(`--checkpoint \1`\) in another output_dir\.",
        error,
    )
    assert sorted((tmp_path / "out").rglob("*")) == before


@pytest.fixture(scope="module")
def converted(world, tmp_path_factory):
    """A folder with what `vlkd convert` leaves, checkpoint and teacher."""
    folder = tmp_path_factory.mktemp("converted")
    convert(str(world / "clip"), str(world / "bart"), folder / "student", folder / "teacher")
    return folder


def test_a_converted_model_is_distilled_to_the_same_weights(world, converted, arguments, tmp_path):
    """The student's new matrices are made from one seed, so it does not matter who put it together."""
    assert main(["distill", *arguments, "--seed", "0"]) == 0
    flags = ["--checkpoint", str(converted / "student"), "--teacher", str(converted / "teacher")]
    others = [*arguments[4:], "--seed", "0", "--output_dir", str(tmp_path / "second")]
    assert main(["distill", *flags, *others]) == 0
    first, second = (load_file(tmp_path / name / "model.safetensors") for name in ("out", "second"))
    for name, tensor in first.items():
        torch.testing.assert_close(second[name], tensor)


def card_in(folder) -> ModelCard:
    return ModelCard.load(folder / "README.md")


def test_the_card_goes_from_conversion_to_finetuning(world, converted, arguments, tmp_path):
    """Each command adds what it did; nothing tells where on this machine it was done."""
    flags = [
        "--checkpoint",
        converted / "student",
        "--teacher",
        converted / "teacher",
        "--replay",
        world / "corpus.txt",
    ]
    flags += ["--questions", world / "questions.csv", "--flip", "true", "--license", "mit", "--language", "en"]
    assert main(["distill", *map(str, flags), *arguments[4:]]) == 0
    distilled = card_in(tmp_path / "out")
    flags = ["--checkpoint", tmp_path / "out", "--questions", world / "questions.csv", "--max_steps", "1"]
    flags += ["--output_dir", tmp_path / "tuned", "--use_cpu", "true", "--report_to", "none"]
    assert main(["finetune", *map(str, flags), "--eval_questions", str(world / "questions.csv")]) == 0
    tuned = card_in(tmp_path / "tuned")

    sources = {each["role"]: each["name"] for each in distilled.data.vlkd["made_from"]}
    assert sources == {
        "vision tower": "clip",
        "language model": "bart",
        "text teacher": "teacher",
        "image-caption pairs": "pictures",
        "replayed texts": "corpus.txt",
    }
    assert "split train, 12 pictures" in distilled.text
    assert {each["role"] for each in tuned.data.vlkd["made_from"]} == {*sources, "questions and answers"}
    assert [each.split()[1] for each in tuned.data.vlkd["commands"]] == ["convert", "distill", "finetune"]
    assert "vlkd distill --checkpoint student --teacher teacher --replay corpus.txt" in distilled.text
    assert "| flip | `True` |" in distilled.text
    assert (tuned.data.license, tuned.data.language) == ("mit", ["en"])
    for name in ("out", "tuned"):
        assert check_card(tmp_path / name / "README.md") == []  # it could be published
    # Questions are asked at the end, though no --eval_strategy was given; the second model was trained on them.
    for card, kind in ((distilled, ""), (tuned, ", of the training data")):
        [result] = card.data.eval_results
        assert (result.dataset_name, result.metric_type) == ("questions.csv", "accuracy")
        assert result.metric_name == f"questions answered right{kind}"
        assert str(world.parent) not in str(card)
        assert str(tmp_path.parent) not in str(card)


def test_data_with_a_card_are_told_with_their_licence(world, arguments, tmp_path):
    data = tmp_path / "my_{{x}}|y"
    shutil.copytree(world / "pictures", data)
    (data / "README.md").write_text("---\nlicense: cc-by-4.0\nlanguage: en\n---\n")
    assert main(["distill", *arguments, "--dataset", str(data), "--eval_split", "train", "--max_steps", "1"]) == 0
    card = card_in(tmp_path / "out")
    assert "| image-caption pairs | `my_{{x}}\\|y`, split train, 12 pictures | `cc-by-4.0` |" in card.text
    assert card.data.language == ["en"]
    assert {each.dataset_name for each in card.data.eval_results} == {data.name}  # measured once, at the end
    assert all(each.metric_name.endswith(" among 12, of the training data") for each in card.data.eval_results)
    assert card.data.license == "unknown"


def test_training_into_the_same_folder_keeps_an_edited_card(arguments, tmp_path, capsys):
    quick = [*arguments, "--max_steps", "1", "--save_strategy", "no"]
    assert main(["distill", *quick]) == 0
    card = tmp_path / "out" / "README.md"
    assert main(["distill", *quick, "--seed", "1"]) == 0
    assert "| seed | `1` |" in card.read_text()
    card.write_text(card.read_text() + "\nMine.\n")
    assert main(["distill", *quick, "--seed", "2"]) == 0
    assert card.read_text().endswith("Mine.\n")
    assert "| seed | `2` |" in (tmp_path / "out" / "README.generated.md").read_text()


def test_a_run_that_diverges_is_saved_and_said(world, arguments, tmp_path, capsys):
    questions = ["--questions", str(world / "questions.csv")]
    assert main(["distill", *arguments, *questions, "--learning_rate", "1e30"]) == 2
    captured = capsys.readouterr()
    assert "vlkd distill: error: The training diverged: ttdm was nan at step 4." in captured.err
    assert "try" not in captured.out
    assert {"README.md", "model.safetensors", "trainer_state.json"} <= {
        path.name for path in (tmp_path / "out").iterdir()
    }


def test_a_metric_that_there_is_not_is_said_in_one_line(arguments, capsys):
    flags = "--eval_split train --eval_strategy steps --eval_steps 1 --save_steps 1 --load_best_model_at_end true"
    assert main(["distill", *arguments, *flags.split(), "--metric_for_best_model", "bleu"]) == 2
    error = capsys.readouterr().err.partition("vlkd distill: error: ")[2]  # a progress bar may stand beside it
    assert "`metric_for_best_model` training argument is set to 'eval_bleu'" in error
    assert "eval_loss" in error


def test_without_an_accelerator_nothing_is_pinned(arguments, monkeypatch):
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
    parser = distill.TrainingParser([distill.DistillArguments, distill.VLKDDistillationConfig])
    _, training = parser.parse([*arguments, "--use_cpu", "false"])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        list(torch.utils.data.DataLoader([1, 2], pin_memory=training.dataloader_pin_memory))


def test_the_card_tells_what_the_config_file_says(world, arguments, tmp_path):
    config = tmp_path / "recipe.yaml"
    config.write_text(
        f"itcl_weight: 0.5\nlr_scheduler_kwargs: {{}}\nquestions: {world}/questions.csv\nrun_name: mine\n"
    )
    quick = [*arguments, "--max_steps", "1"]
    assert main(["distill", "--config", str(config), *quick]) == 0
    [command] = card_in(tmp_path / "out").data.vlkd["commands"]
    lines = ["--itcl_weight", "0.5", "--lr_scheduler_kwargs", "{}", "--questions", "questions.csv"]
    assert shlex.split(command)[2 : 2 + len(lines)] == lines
    assert shlex.split(command)[2 + len(lines) :] == shlex.split(command_line("distill", quick))[2:]
    assert "mine" not in command


BAD = [
    (["--visoin", "x"], "unrecognized arguments: --visoin x; did you mean --vision?"),
    (["--batch_size", "8"], "unrecognized arguments: --batch_size 8; did you mean --per_device_train_batch_size?"),
    (["--eval_strategy", "epoch"], "--eval_strategy epoch needs --eval_split, the split to evaluate on"),
    (["--report_to", "wandb"], "--report_to wandb: WandbCallback requires wandb to be installed. Run `pip install"),
    (["--report_to", "nowhere"], "--report_to nowhere: nowhere is not supported, only"),
    (["--output_dir", ""], "--output_dir '': name a folder"),
    (["--deepspeed", "ds.json"], "deepspeed"),
    (["--learning_rate", "-1"], "--learning_rate -1.0: give 0 or more"),
    (["--learning_rate", "fast"], "invalid float value"),
    (["--mask_ratio", "1.5"], "mask_ratio=1.5"),
    (["--dataset", "/nowhere"], "/nowhere does not exist"),
    (["--split", "test"], "no split 'test'"),
    (["--caption_column", "legend"], "no column 'legend'"),
    (["--replay", "/nowhere.txt"], "/nowhere.txt does not exist"),
    (["--questions", "/nowhere.csv"], "/nowhere.csv does not exist"),
    (["--config", "/nowhere.yaml"], "--config /nowhere.yaml cannot be read (No such file or directory)"),
    (["--resume_from_checkpoint", "true"], "holds no checkpoint to resume from"),
    (["--resume_from_checkpoint", "/nowhere"], "/nowhere is no checkpoint"),
    (["--vision", "/nowhere"], "/nowhere"),
    (["--vision", "{world}/pictures"], "pictures has no config.json that names a model; give the folder or Hub id of"),
    (["--dataset", "nosuch/"], "nosuch/ does not exist; give a folder"),
    (["--teacher", "/nowhere"], "/nowhere"),
    (["--checkpoint", "{world}/clip"], "expected either --checkpoint, or --vision and --text"),
    (["--license", "MIT License"], "--license: expected an identifier such as apache-2.0, got 'MIT License'"),
    (["--language", "english"], "--language: expected codes of two or three letters such as en, got 'english'"),
    (["--text", "{world}/clip"], "holds a model of type 'clip'; give a BART"),
]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "required: --vision, --text (or --checkpoint)"),
        (["--text", "bart"], "required: --vision (or --checkpoint)"),
        (["--checkpoint", "{world}/clip"], "give --teacher"),
        (["--checkpoint", "{world}/clip", "--teacher", "{world}/clip"], "a model of type 'clip', not 'vlkd'"),
    ],
)
def test_a_model_has_to_be_named_wholly(flags, message, world, arguments, capsys):
    """`arguments` begins with --vision and --text, each with its folder."""
    try:
        code = main(["distill", *arguments[4:], *(flag.format(world=world) for flag in flags)])
    except SystemExit as stop:
        code = stop.code
    assert code == 2
    assert message in capsys.readouterr().err.strip().splitlines()[-1]


@pytest.mark.parametrize(
    ("flags", "message"), BAD, ids=lambda value: " ".join(value) if isinstance(value, list) else ""
)
def test_bad_input_is_one_line_and_exit_code_2(flags, message, world, arguments, capsys, tmp_path):
    try:
        code = main(["distill", *arguments, *(flag.format(world=world) for flag in flags)])
    except SystemExit as stop:  # the parser's own way out
        code = stop.code
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert code == 2
    assert message in error
    assert error.startswith("vlkd distill: error: ")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("command", ["distill", "finetune"])
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("afile", "afile is a file; name a folder"),
        ("afile/out", "afile is a file; name a folder"),
        ("closed", "nothing can be written there (Permission denied)"),
        ("closed/new", "nothing can be written there (Permission denied)"),
    ],
)
def test_where_nothing_can_be_kept_nothing_is_trained(
    command, name, message, world, arguments, tmp_path, capsys, monkeypatch
):
    """The superuser may write into any folder, so one that refuses is made of `tempfile`."""
    (tmp_path / "afile").write_text("text")
    (tmp_path / "closed").mkdir()

    def refuse(dir):
        raise PermissionError(errno.EACCES, "Permission denied", str(dir))

    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    monkeypatch.setattr(Trainer, "train", None)
    before = sorted(tmp_path.rglob("*"))
    tune = ["--checkpoint", str(world / "clip"), "--questions", str(world / "questions.csv")]
    flags = arguments if command == "distill" else tune
    assert main([command, *flags, "--output_dir", str(tmp_path / name)]) == 2
    [error] = capsys.readouterr().err.strip().splitlines()
    assert error == f"vlkd {command}: error: --output_dir {tmp_path / name}: {message}."
    assert sorted(tmp_path.rglob("*")) == before


def test_finetune_learns_the_questions(world, arguments, tmp_path, capsys):
    assert main(["distill", *arguments]) == 0
    flags = [
        "--checkpoint",
        tmp_path / "out",
        "--questions",
        world / "questions.csv",
        "--output_dir",
        tmp_path / "tuned",
    ]
    flags += [
        "--eval_questions",
        world / "questions.csv",
        "--max_steps",
        "3",
        "--use_cpu",
        "true",
        "--report_to",
        "none",
    ]
    assert main(["finetune", *map(str, flags)]) == 0
    output = capsys.readouterr().out
    assert "of 12 questions answered right" in output
    assert main(shlex.split(output.splitlines()[-1])[1:]) == 0  # what is said to try
    VLKDForConditionalGeneration.from_pretrained(tmp_path / "tuned")


@pytest.mark.parametrize("said", ["by the checkpoint", "by a flag"])
def test_finetuning_trains_the_vision_tower_if_it_is_told_to(said, world, converted, tmp_path):
    model = VLKDForConditionalGeneration.from_pretrained(converted / "student")
    model.config.freeze_vision_tower = said == "by a flag"
    model.save_pretrained(tmp_path / "before")
    VLKDProcessor.from_pretrained(converted / "student").save_pretrained(tmp_path / "before")
    flags = ["--checkpoint", tmp_path / "before", "--questions", world / "questions.csv", "--use_cpu", "true"]
    flags += ["--output_dir", tmp_path / "out", "--report_to", "none", "--max_steps", "1"]
    flags += ["--freeze_vision_tower", "false"] if said == "by a flag" else []
    assert main(["finetune", *map(str, flags)]) == 0
    before, after = (load_file(tmp_path / folder / "model.safetensors") for folder in ("before", "out"))
    name = "model.vision_tower.vision_model.encoder.layers.0.mlp.fc1.weight"
    assert not torch.equal(before[name], after[name])
    assert not VLKDForConditionalGeneration.from_pretrained(tmp_path / "out").config.freeze_vision_tower


def test_finetuning_does_not_go_on_with_other_questions(world, converted, tmp_path, capsys):
    flags = ["--checkpoint", converted / "student", "--output_dir", tmp_path / "tuned", "--use_cpu", "true"]
    flags += ["--report_to", "none", "--save_steps", "1"]
    tune = ["finetune", *map(str, flags)]
    questions = ["--questions", str(world / "questions.csv")]
    assert main([*tune, *questions, "--max_steps", "1"]) == 0
    more = ["--max_steps", "2", "--resume_from_checkpoint", "true"]
    table = (world / "questions.csv").read_text().replace("pictures/", f"{world}/pictures/")
    (tmp_path / "others.csv").write_text(table.replace("red", "green"))
    capsys.readouterr()
    assert main([*tune, *more, "--questions", str(tmp_path / "others.csv")]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert f"{tmp_path}/tuned/checkpoint-1 was trained on questions.csv (12 examples, " in error
    assert "and not on others.csv (12 examples, " in error
    assert main([*tune, *more, *questions]) == 0
    assert (tmp_path / "tuned" / "checkpoint-2").is_dir()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--eval_strategy epoch", "--eval_strategy epoch needs --eval_questions, a file to evaluate on"),
        (
            "--report_to wandb",
            "--report_to wandb: WandbCallback requires wandb to be installed. Run `pip install wandb`.",
        ),
        ("--batch_size 8", "unrecognized arguments: --batch_size 8; did you mean --per_device_train_batch_size?"),
        ("--checkpoint ./nowhere", "--checkpoint ./nowhere does not exist"),
    ],
)
def test_finetune_refuses_before_any_preparation(flags, message, world, tmp_path, capsys):
    words = ["--checkpoint", str(world / "clip"), "--questions", str(world / "questions.csv"), "--use_cpu", "true"]
    try:
        code = main(["finetune", *words, "--output_dir", str(tmp_path / "out"), *flags.split()])
    except SystemExit as stop:
        code = stop.code
    assert code == 2
    [error] = capsys.readouterr().err.strip().splitlines()
    assert message in error
    assert not (tmp_path / "out").exists()


@pytest.mark.filterwarnings("ignore:.*found in sys.modules:RuntimeWarning")
@pytest.mark.parametrize("name", ["distill", "finetune"])
def test_what_accelerate_launches_says_one_line_too(name, monkeypatch, capsys):
    """Several processes are started by `-m modeling_vlkd.commands.distill`, past the `vlkd` command."""
    monkeypatch.setattr(sys, "argv", [name, "--checkpoint", "./nowhere"])
    with pytest.raises(SystemExit) as stop:
        runpy.run_module(f"modeling_vlkd.commands.{name}", run_name="__main__")
    assert stop.value.code == 2
    assert capsys.readouterr().err.startswith(f"vlkd {name}: error: --checkpoint ./nowhere does not exist")


def test_finetune_names_what_is_wrong(world, tmp_path, capsys):
    (tmp_path / "empty.csv").write_text("image,question,answer\na.png,what color is it?,\n")
    (tmp_path / "other.csv").write_text("image,question\na.png,what color is it?\n")
    (tmp_path / "comma.csv").write_text("image,question,answer\na.png,what color, then?,red\n")
    cases = [("empty.csv", "Line 2"), ("other.csv", "no column 'answer'"), ("none.csv", "does not exist")]
    for name, message in [*cases, ("comma.csv", "has more fields than")]:
        questions = str(tmp_path / name)
        assert main(["finetune", "--checkpoint", str(world), "--questions", questions, "--use_cpu", "true"]) == 2
        assert message in capsys.readouterr().err


@pytest.mark.parametrize("command", ["distill", "finetune"])
def test_a_checkpoint_in_half_precision_is_trained_in_fp32(world, arguments, tmp_path, command):
    processor = tiny_processor()
    tiny_model(processor).to(torch.bfloat16).save_pretrained(tmp_path / "half")
    processor.save_pretrained(tmp_path / "half")
    flags = ["--checkpoint", str(tmp_path / "half"), "--output_dir", str(tmp_path / "out"), "--learning_rate", "1e-4"]
    flags += ["--max_steps", "2", "--use_cpu", "true", "--report_to", "none", "--per_device_train_batch_size", "4"]
    if command == "distill":
        flags += ["--teacher", str(world / "clip"), "--dataset", str(world / "pictures"), "--cache", str(tmp_path)]
    else:
        flags += ["--questions", str(world / "questions.csv")]
    assert main([command, *flags]) == 0
    before, after = (load_file(tmp_path / folder / "model.safetensors") for folder in ("half", "out"))
    assert {tensor.dtype for tensor in after.values()} == {torch.float32}
    for name in ("text_projection.weight", *["logit_scale"] * (command == "distill")):
        assert not torch.equal(before[f"model.{name}"].float(), after[f"model.{name}"]), name
