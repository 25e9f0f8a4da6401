"""The tables of `vlkd reproduce` from end to end, on few pictures and with two steps; resuming; and mistakes."""

import json
import shutil
import sys
from dataclasses import replace

import pytest
from PIL import Image
from rich.console import Console

from modeling_vlkd.commands import reproduce as command
from modeling_vlkd.commands.main import main
from modeling_vlkd.miniature import distilling, frozen_prefix, reproducing, scoring
from modeling_vlkd.miniature.reproducing import Run, plan_runs, reproduce
from modeling_vlkd.miniature.reproduction_page import COLUMNS, table_rows
from modeling_vlkd.miniature.tables import FROZEN_CLIP, FULL, MASKS, OBJECTIVES, PREFIX_ROW, TABLES, VARIANTS
from modeling_vlkd.miniature.world import load_split, load_train_and_validation


@pytest.fixture(scope="module")
def few_pictures():
    """Leave so few pictures, questions and replayed texts that a run takes a second."""
    test, (train, validation) = load_split("test").part(list(range(6))), load_train_and_validation()
    probe = scoring.reading_probe(count=8)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reproducing, "load_split", lambda name: test)
        patch.setattr(reproducing, "load_train_and_validation", lambda: (train.part(list(range(80))), validation))
        patch.setattr(scoring, "reading_probe", lambda: probe)
        patch.setattr(distilling, "REPLAY_LINES", 50)
        patch.setattr(distilling, "BATCH_SIZE", 8)
        patch.setattr(frozen_prefix, "BATCH_SIZE", 8)
        yield


@pytest.fixture(scope="module")
def output(few_pictures, tmp_path_factory):
    """A folder where all tables were measured, by the command."""
    folder = tmp_path_factory.mktemp("reproduce")
    for name in TABLES:
        words = ["reproduce", name, "--steps", "2", "--seeds", "1", "--output", str(folder)]
        assert main([*words, "--json", str(folder / f"copy-{name}.json")]) == 0
    return folder


def measure(folder, seeds=(0,), variants=("paper",), table=FROZEN_CLIP):
    return reproduce(table, list(variants), list(seeds), 2, folder, Console(file=sys.stderr))


def scores_of(result):
    """Take the scores without the times."""
    variants = result["each_seed"].items()
    return {
        (variant, row, seed): {key: value for key, value in scores.items() if "seconds" not in key}
        for variant, rows in variants
        for row, each in rows.items()
        for seed, scores in enumerate(each)
    }


@pytest.mark.parametrize("name", TABLES)
def test_every_row_of_every_table_is_measured(output, name):
    result = json.loads((output / f"{name}.json").read_text())
    assert json.loads((output / f"copy-{name}.json").read_text()) == result
    assert list(result["each_seed"]["paper"]) == [row.name for row in TABLES[name].rows]
    for row, [scores] in result["each_seed"]["paper"].items():
        assert set(COLUMNS) - set(scores) == ({"retrieval_i2t"} if row == PREFIX_ROW else set())
    assert (result["seeds"], result["steps"]) == ([0], 2)
    page = (output / f"{name}.md").read_text()
    for row in TABLES[name].rows:
        assert page.count(f"| {row.label} |") == 1
        assert all(claim.says[1:] in page for claim in row.claims)
    with Image.open(output / f"{name}.png") as picture:
        assert picture.width > 600
    assert result["command"] == f"vlkd reproduce {name} --seeds 1 --steps 2"
    assert f"`{result['command']}`" in page


def test_rows_with_equal_training_share_it(output):
    folders = [path.name for path in (output / "runs").iterdir()]
    alone = [row.name for table in TABLES.values() for row in table.rows if row.changes or row.step_share != 1]
    assert len(folders) == len(set(alone)) + 2  # and the full method, and the prefix
    [full] = [name for name in folders if FULL in name]
    asked = {path.name.removesuffix(".scores.json") for path in (output / "runs" / full).glob("*.scores.json")}
    assert asked == {row.name for row in MASKS.rows} - {PREFIX_ROW}


def test_rows_change_what_they_say(output):
    """What was written beside each checkpoint is what the row says, and not the same for two rows."""
    found = {}
    for path in (output / "runs").glob("*/settings.json"):
        settings = json.loads(path.read_text())["settings"]
        settings["recipe"].pop("replay_lines")
        found[path.parent.name.split("_")[1]] = settings["arguments"]
        config = json.loads((path.parent / "config.json").read_text())
        assert config["freeze_vision_tower"] == ("unfrozen" not in path.parent.name)
    assert found[FULL] == {"replay": False, "steps": 2}
    assert found["neither"] == {"replay": False, "steps": 2, "ttdm_weight": 0.0, "itcl_weight": 0.0}
    assert found["thirtieth"] == {"replay": False, "steps": 2, "pair_share": 1 / 30}
    assert found["thirtieth-epochs"] == {"replay": False, "steps": 1}
    assert len({json.dumps(each) for each in found.values()}) == len(found) - 1  # a third of two steps is one, too


def test_what_was_measured_is_not_measured_again(output, monkeypatch):
    def fail(*args, **kwargs):
        raise AssertionError("there was nothing to train")

    before = json.loads((output / "objectives.json").read_text())
    monkeypatch.setattr(reproducing, "distill", fail)
    monkeypatch.setattr(reproducing, "train_frozen_prefix", fail)
    assert measure(output, table=OBJECTIVES)["each_seed"] == before["each_seed"]
    # Scores that are lost are measured again, from the checkpoint.
    lost = next((output / "runs").glob(f"paper_{FULL}_*")) / "m-8.scores.json"
    kept = json.loads(lost.read_text())
    lost.unlink()
    measure(output, table=MASKS)
    again = json.loads(lost.read_text())
    for each in (kept, again):
        each["scores"] = {name: value for name, value in each["scores"].items() if "seconds" not in name}
    assert again == kept


def test_a_kill_loses_one_run_and_a_seed_gives_the_same_again(few_pictures, output, tmp_path, monkeypatch):
    trained, own = [], reproducing.distill

    def distill(teachers, train, folder, **kwargs):
        trained.append(folder.name)
        model = own(teachers, train, folder, **kwargs)
        if len(trained) == 2:
            raise KeyboardInterrupt  # its checkpoint is there, but nothing says that it is whole
        return model

    monkeypatch.setattr(reproducing, "distill", distill)
    with pytest.raises(KeyboardInterrupt):
        measure(tmp_path)
    result = measure(tmp_path)
    assert [name.split("_")[1] for name in trained] == [FULL, "unfrozen", "unfrozen"]
    first = json.loads((output / "frozen-clip.json").read_text())
    assert scores_of(result) == scores_of(first)


def only_full(table):
    """Leave of a table the full method and the prefix."""
    return replace(table, rows=(table.rows[0], table.rows[-1]))


def test_a_checkpoint_of_other_settings_is_not_taken(output, tmp_path, monkeypatch):
    shutil.copytree(output / "runs", tmp_path / "runs")
    monkeypatch.setitem(reproducing.VARIANTS, "paper", ("the paper's losses", {"replay": False, "mask_ratio": 0.5}))
    trained, own = [], reproducing.distill
    monkeypatch.setattr(reproducing, "distill", lambda *args, **kwargs: trained.append(kwargs) or own(*args, **kwargs))
    measure(tmp_path, table=only_full(FROZEN_CLIP))
    assert [each["mask_ratio"] for each in trained] == [0.5]


def test_variants_are_sections_of_their_own_and_the_prefix_is_run_once(few_pictures, output, tmp_path):
    shutil.copytree(output / "runs", tmp_path / "runs")
    result = measure(tmp_path, variants=["paper", "replay", "unaligned"], table=only_full(OBJECTIVES))
    assert {name: list(rows) for name, rows in result["each_seed"].items()} == {
        "paper": [FULL, PREFIX_ROW],
        "replay": [FULL],
        "unaligned": [FULL],
    }
    headings = [heading for heading, _ in table_rows(result)]
    assert headings == [*(VARIANTS[name][0] for name in ("paper", "replay", "unaligned")), "beside it"]
    assert result["command"] == "vlkd reproduce objectives --seeds 1 --variants paper replay unaligned --steps 2"
    found = {name: rows[FULL][0]["retrieval_i2t"] for name, rows in result["each_seed"].items()}
    assert found["unaligned"] < found["paper"]  # a random W_e has learned nothing in two steps


def test_the_plan_goes_seed_by_seed():
    runs = plan_runs(OBJECTIVES, ["paper", "replay"], [4, 5], 300)
    assert [(run.seed, run.variant, run.row.name) for run in runs[:6]] == [
        *((4, "paper", row.name) for row in OBJECTIVES.rows),
        (4, "replay", FULL),
    ]
    assert len(runs) == 2 * (5 + 4)


def test_all_trainings_have_folders_of_their_own():
    """Two runs share a folder exactly if their trainings are equal."""
    runs = [
        Run(row, variant, seed, steps)
        for table in TABLES.values()
        for variant in table.variants
        for row in table.rows
        for seed in (0, 1)
        for steps in (30, 300)
    ]
    # Of a row with a share of the steps, the whole run's are in the name, too.
    trainings = {(run.folder_name, json.dumps(run.settings, sort_keys=True)) for run in runs}
    assert len(trainings) == len({name for name, _ in trainings})


def test_the_command_knows_the_tables_and_variants():
    assert list(command.TABLES) == list(TABLES)
    assert list(command.VARIANTS) == list(VARIANTS)
    without_replay = [table.name for table in TABLES.values() if "replay" not in table.variants]
    assert without_replay == ["frozen-clip"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["tables"], "invalid choice: 'tables'"),
        ([], "TABLE"),
        (["masks", "--world", "moon"], "invalid choice: 'moon'"),
        (["masks", "--seeds", "0"], "--seeds 0: give 1 or more"),
        (["masks", "--steps", "-5"], "--steps -5: give 1 or more"),
        (["masks", "--seed", "-1"], "--seed -1: give 0 or more"),
        (["frozen-clip", "--variants", "paper", "replay"], "replay needs a frozen CLIP"),
        (["masks", "--json", "nowhere/a.json"], "there is no folder"),
        (["masks", "--json", "."], "name a file"),
        (["masks", "--output", __file__], "this is a file; name a folder"),
        (["masks", "--sedes", "3"], "did you mean --seeds?"),
    ],
)
def test_mistakes_get_one_line(words, message, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["reproduce", *words])
    assert stopped.value.code == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_a_missing_package_is_named_with_its_extra(monkeypatch, capsys):
    monkeypatch.setattr(command, "find_spec", lambda name: None if name == "matplotlib" else name)
    with pytest.raises(SystemExit):
        main(["reproduce", "masks"])
    assert (
        "matplotlib is missing; install it with `pip install modeling_vlkd[demo,evaluate]`" in capsys.readouterr().err
    )
