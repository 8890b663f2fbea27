import json
import multiprocessing
import time

import pytest
import torch

from alrun.config import ConfigError
from alrun.files import atomic, write_text
from alrun.state import BusyError, RunFolder, Saved, read_records

SETTINGS = {"seed": 0, "budget": {"rounds": 3}, "device": "cpu", "choices": {"strategy": "margin"}}


def whole_round() -> Saved:
    record = {"round": 0, "labeled": 2, "accuracy": 0.5, "query_seconds": 0.0, "unreached": 4}
    bought = {"rows": [3, 1], "labels": [0, 1], "scores": ["", ""]}
    return Saved(
        0, [record], [bought], {"own": [{"round": 0, "gap": 0.25}]}, {"w": torch.ones(2)}, {"loss": 1.0}
    )


def test_a_committed_round_is_loaded_as_it_was_saved(tmp_path):
    folder = RunFolder(tmp_path / "run")
    with folder.opened(SETTINGS, {}):
        assert folder.load().round == -1
        folder.commit(whole_round())
    back = folder.load()
    assert (back.round, back.records, back.purchases) == (0, whole_round().records, whole_round().purchases)
    assert torch.equal(back.weights["w"], torch.ones(2))
    assert read_records(folder.path / "selections.csv")[0] == {
        "round": "0",
        "rank": "0",
        "row": "3",
        "label": "0",
        "score": "",
    }
    assert read_records(folder.path / "rounds.csv")[0]["unreached"] == "4"
    assert (folder.path / "own.csv").read_text() == "round,gap\n0,0.25\n"


def test_columns_are_the_union_of_notes_and_empty_where_absent(tmp_path):
    folder = RunFolder(tmp_path / "run")
    saved = whole_round()
    saved.records.append({"round": 1, "labeled": 4, "accuracy": 0.75, "other": 1})
    with folder.opened(SETTINGS, {}):
        folder.commit(saved)
    first, second = read_records(folder.path / "rounds.csv")
    assert (first["other"], second["unreached"]) == ("", "")
    assert list(first)[:6] == ["round", "labeled", "accuracy", "loss", "nll", "ece"]


def test_a_second_process_is_told_that_the_folder_is_busy(tmp_path):
    context = multiprocessing.get_context("spawn")
    started = context.Event()
    other = context.Process(target=_hold, args=(tmp_path / "run", started))
    other.start()
    try:
        assert started.wait(60)
        with (
            pytest.raises(BusyError, match="another process"),
            RunFolder(tmp_path / "run").opened(SETTINGS, {}),
        ):
            pass
    finally:
        other.kill()
        other.join()
    with RunFolder(tmp_path / "run").opened(SETTINGS, {}):
        assert True  # a killed process holds nothing


def _hold(path, started):
    with RunFolder(path).opened(SETTINGS, {}):
        started.set()
        time.sleep(60)


def test_settings_changed_by_hand_are_named_with_both_values(tmp_path):
    folder = RunFolder(tmp_path / "run")
    with folder.opened(SETTINGS, {}):
        pass
    file = folder.path / "settings.yaml"
    file.write_text(file.read_text().replace("rounds: 3", "rounds: 5"))
    with pytest.raises(ConfigError, match=r"budget.rounds: 5 there, 3 here"):
        folder.same_settings(SETTINGS)
    file.write_text("rounds: [")
    with pytest.raises(ConfigError, match="cannot be read"):
        folder.same_settings(SETTINGS)


def test_a_device_change_is_no_change_of_the_run(tmp_path):
    folder = RunFolder(tmp_path / "run")
    with folder.opened(SETTINGS, {}):
        pass
    folder.same_settings({**SETTINGS, "device": "cuda"})
    assert (folder.path / "settings.yaml").exists()


def test_a_run_that_goes_on_elsewhere_says_so(tmp_path, caplog):
    folder = RunFolder(tmp_path / "run")
    with folder.opened(SETTINGS, {"threads": 2}):
        folder.commit(whole_round())
    with folder.opened(SETTINGS, {"threads": 2}):
        assert caplog.text == ""
    with folder.opened(SETTINGS, {"threads": 1}):
        assert "threads 2 before, 1 now" in caplog.text


def test_a_folder_that_cannot_be_made_is_a_clear_error(tmp_path):
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(ConfigError, match="output_dir: cannot write"),
        RunFolder(tmp_path / "file" / "run").opened(SETTINGS, {}),
    ):
        pass


def test_a_damaged_checkpoint_is_named_and_not_overwritten(tmp_path):
    folder = RunFolder(tmp_path / "run")
    with folder.opened(SETTINGS, {}):
        folder.commit(whole_round())
    checkpoint = folder.path / "checkpoint" / "round.pt"
    for damaged in (checkpoint.read_bytes()[:100], b"garbage, not a checkpoint", b""):
        checkpoint.write_bytes(damaged)
        with pytest.raises(ConfigError, match="round.pt: cannot be read"):
            folder.load()
        assert checkpoint.read_bytes() == damaged


def test_a_write_that_fails_leaves_the_old_file(tmp_path):
    target = tmp_path / "a.json"
    target.write_text(json.dumps(1))
    with pytest.raises(TypeError), atomic(target) as part:
        part.write_text(3)
    (tmp_path / "folder").mkdir()
    with pytest.raises(IsADirectoryError):
        write_text(tmp_path / "folder", "in the place of a folder")
    assert json.loads(target.read_text()) == 1
    assert {path.name for path in tmp_path.iterdir()} == {"a.json", "folder"}


def test_leftovers_of_a_killed_write_are_cleared(tmp_path):
    folder = RunFolder(tmp_path / "run")
    (tmp_path / "run").mkdir()
    left = tmp_path / "run" / ".rounds.csv.123.part"
    left.write_text("half")
    with folder.opened(SETTINGS, {}):
        assert not left.exists()


def test_fit_progress_belongs_to_its_round(tmp_path):
    folder = RunFolder(tmp_path / "run")
    with folder.opened(SETTINGS, {}):
        folder.progress(2, lambda *_: None, every=0.0).keep(1, lambda: {"epoch": 1})
        assert folder.progress(2, lambda *_: None).load() == {"epoch": 1}
        assert folder.progress(3, lambda *_: None).load() is None
        folder.commit(whole_round())
        assert folder.progress(2, lambda *_: None).load() is None
