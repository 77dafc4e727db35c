import json
import math

import pytest
import torch

from torchal import ConfigError, RoundResult, RunError
from torchal.runs import results
from torchal.runs.results import RunFolder, find_runs


def make_result(number=0, **changes):
    fields = {
        "round": number,
        "n_labeled": 10 * (number + 1),
        "rows": torch.tensor([3, 1]),
        "source_rows": torch.tensor([30, 10]),
        "labels": torch.tensor([0, 1]),
        "scores": torch.tensor([0.1, math.nan], dtype=torch.float64),
        "picked_by": "Margin",
        "test": {"accuracy": 0.1 * number, "auc": math.nan},
        "validation": {},
        "seconds": {"fit": 0.5, "select": 0.25},
        "report": {"clusters": [1, 2], "weight": math.inf},
    }
    return RoundResult(**fields | changes)


def same(a, b):
    return a.to_json() == b.to_json()


class TestRoundResult:
    def test_goes_through_strict_json(self):
        result = make_result()
        text = json.dumps(result.to_json(), allow_nan=False)
        back = RoundResult.from_json(json.loads(text))
        assert same(back, result)
        assert back.rows.equal(result.rows)
        assert back.scores.dtype == torch.float64
        assert math.isnan(back.test["auc"])
        assert math.isnan(back.scores[1])

    def test_no_rows(self):
        empty = torch.empty(0, dtype=torch.int64)
        result = make_result(rows=empty, source_rows=empty, labels=empty, scores=torch.empty(0))
        assert RoundResult.from_json(result.to_json()).rows.dtype == torch.int64


class TestRunFolder:
    def fill(self, path, n=3):
        folder = RunFolder(path)
        with folder.locked():
            folder.open({"a": 1}, {})
            for number in range(n):
                folder.append(make_result(number))
                folder.write_checkpoint({"n_rounds": number + 1}, finished=number == n - 1)
        return folder

    def test_reads_what_was_written(self, tmp_path):
        run = self.fill(tmp_path).read()
        assert [result.round for result in run.rounds] == [0, 1, 2]
        assert run.finished
        assert run.config == {"a": 1}
        assert run.curve() == ([10, 20, 30], pytest.approx([0.0, 0.1, 0.2]))
        assert run.seconds == pytest.approx(2.25)

    def test_a_line_that_was_cut_off_does_not_count(self, tmp_path):
        folder = self.fill(tmp_path)
        with (tmp_path / "rounds.jsonl").open("a") as file:
            file.write('{"round": 3, "n_lab')
        assert len(folder.read_rounds()) == 3
        folder.keep_rounds({"state": {"n_rounds": 2}})
        assert len((tmp_path / "rounds.jsonl").read_text().splitlines()) == 2

    def test_keeping_all_rounds_removes_only_the_cut_off_line(self, tmp_path):
        folder = self.fill(tmp_path)
        whole = (tmp_path / "rounds.jsonl").read_bytes()
        (tmp_path / "rounds.jsonl").write_bytes(whole + b"{")
        folder.keep_rounds(folder.read_checkpoint())
        assert (tmp_path / "rounds.jsonl").read_bytes() == whole

    def test_a_line_that_was_changed_is_found(self, tmp_path):
        folder = self.fill(tmp_path)
        path = tmp_path / "rounds.jsonl"
        whole = path.read_bytes()
        path.write_bytes(whole.replace(b'"accuracy": 0.1', b'"accuracy": 0.9'))
        for read in (folder.read, lambda: folder.keep_rounds(folder.read_checkpoint())):
            with pytest.raises(RunError, match="its first 3 lines are not those that the run wrote"):
                read()
        path.write_bytes(whole)
        assert len(folder.read().rounds) == 3

    def test_goes_on_with_the_lines_that_are_kept(self, tmp_path):
        self.fill(tmp_path)
        folder = RunFolder(tmp_path)  # another process
        folder.keep_rounds(folder.read_checkpoint())
        folder.append(make_result(3))
        folder.write_checkpoint({"n_rounds": 4}, finished=True)
        assert len(folder.read().rounds) == 4

    def test_a_checkpoint_of_before_there_was_a_digest(self, tmp_path):
        folder = self.fill(tmp_path)
        saved = {name: value for name, value in folder.read_checkpoint().items() if name != "digest"}
        torch.save(saved, tmp_path / "checkpoint.pt")
        assert len(folder.read().rounds) == 3

    def test_the_lock_is_given_back(self, tmp_path):
        folder = self.fill(tmp_path)
        with folder.locked(), pytest.raises(RunError, match="in use"), RunFolder(tmp_path).locked():
            raise AssertionError("two at once")
        with folder.locked():
            pass

    def test_names_what_a_run_did_not_record(self, tmp_path):
        run = self.fill(tmp_path).read()
        with pytest.raises(ConfigError, match="no test 'log_loss'; it has accuracy, auc"):
            run.curve("log_loss")
        with pytest.raises(ConfigError, match="no validation part"):
            run.curve(part="validation")

    def test_a_folder_without_a_run(self, tmp_path):
        with pytest.raises(RunError, match="is not a run folder"):
            RunFolder(tmp_path).read()
        with pytest.raises(RunError, match="there is no folder"):
            find_runs(tmp_path / "none")
        (tmp_path / "config.yaml").write_text("a: [")
        with pytest.raises(RunError, match=r"config.yaml is damaged"):
            RunFolder(tmp_path).read()

    def test_find_runs_looks_in_every_folder_below(self, tmp_path):
        for name in ("b/seed=0", "a/seed=1", "a/seed=0"):
            self.fill(tmp_path / name)
        found = [str(run.folder.relative_to(tmp_path)) for run in find_runs(tmp_path)]
        assert found == ["a/seed=0", "a/seed=1", "b/seed=0"]


def test_environment_names_versions_and_device():
    environment = results.environment(torch.device("cpu"))
    assert environment["device"] == "cpu"
    assert set(environment["packages"]) == {"torchal", "torch", "numpy", "scikit-learn"}
    assert json.loads(json.dumps(environment)) == environment
