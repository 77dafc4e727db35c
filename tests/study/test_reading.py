import json
import shutil

import pytest
import torch

from tests.study.runs import write_run
from torchal import ConfigError, RunError
from torchal.study.reading import differing, read_runs


def names(runs):
    return [(one.data, one.model, one.sampler, one.seed) for one in runs.found]


class TestReadRuns:
    def test_reads_what_is_below_several_folders_once(self, tmp_path):
        for seed in (0, 1):
            write_run(tmp_path, seed=seed)
        write_run(tmp_path, data="iris", sampler="uniform")
        runs = read_runs([tmp_path, tmp_path / "digits-logistic"])
        assert names(runs) == [
            ("digits", "logistic", "margin", 0),
            ("digits", "logistic", "margin", 1),
            ("iris", "logistic", "uniform", 0),
        ]
        assert (runs.problems, runs.twice, runs.empty) == ([], [], [])
        assert runs.found[0].settings == runs.found[1].settings != runs.found[2].settings

    def test_a_copy_of_a_run_is_left_out_and_told(self, tmp_path):
        folder = write_run(tmp_path)
        shutil.copytree(folder, tmp_path / "copy")
        runs = read_runs([tmp_path])
        assert len(runs.found) == 1
        assert runs.twice == [str(folder)]

    def test_of_two_copies_the_finished_one_counts(self, tmp_path):
        done = write_run(tmp_path)
        half = write_run(tmp_path / "a", finished=False)
        runs = read_runs([tmp_path])
        assert [one.run.folder for one in runs.found] == [done]
        assert runs.twice == [str(half)]

    @pytest.mark.parametrize("seed", ["a", 1.5, True, [1]])
    def test_a_seed_that_is_no_number(self, tmp_path, seed):
        write_run(tmp_path)
        write_run(tmp_path / "odd", settings={"seed": seed})
        runs = read_runs([tmp_path])
        assert len(runs.found) == 1
        assert "runs are paired by whole numbers" in runs.problems[0].why

    def test_names_that_are_none(self, tmp_path):
        write_run(tmp_path, settings={"names": "x"})
        assert names(read_runs([tmp_path])) == [("margin", "logistic", "margin", 0)]

    def test_what_is_damaged_is_told_and_the_rest_is_read(self, tmp_path):
        write_run(tmp_path)
        half = write_run(tmp_path, seed=1)
        (half / "checkpoint.pt").write_bytes((half / "checkpoint.pt").read_bytes()[:100])
        edited = write_run(tmp_path, seed=2)
        lines = (edited / "rounds.jsonl").read_text()
        (edited / "rounds.jsonl").write_text(lines.replace('"accuracy": 0.7', '"accuracy": 0.8'))
        lost = write_run(tmp_path, seed=3)
        (lost / "config.yaml").unlink()
        runs = read_runs([tmp_path])
        assert names(runs) == [("digits", "logistic", "margin", 0)]
        told = {problem.folder: problem.why for problem in runs.problems}
        assert "checkpoint.pt is damaged" in told[str(half)]
        assert "its first 3 lines are not those that the run wrote" in told[str(edited)]
        assert "it has no config.yaml" in told[str(lost)]

    @pytest.mark.parametrize(
        ("before", "after", "why"),
        [
            ('"round": 2', '"round": 5', "line 3 .* is of round 5, after round 1"),
            ('"n_labeled": 20', '"n_labeled": 25', "line 2 .* counts 25 labels: there were 10, 10 came"),
            ('"labels": [', '"labels": [1, ', r"line 1 .* has 10 rows, 11 labels and 10 scores"),
            ('"cost"', '"price"', "a round has price, which this version of torchal does not know"),
            ('"accuracy": 0.7', '"accuracy": "x"', "line 2 has 'x' as test/accuracy"),
            ('"fit": 0.5', '"fit": null', "line 1 has None as seconds/fit"),
            ('"cost": 20.0', '"cost": null', "line 2 has None as cost"),
            ('"seconds": {"fit"', '"seconds": [], "model": {"fit"', "damaged"),
            ('"labels": [1', '"labels": [-1', "line 1 has the label -1"),
        ],
    )
    def test_rounds_that_do_not_follow(self, tmp_path, before, after, why):
        folder = write_run(tmp_path)
        rounds, checkpoint = folder / "rounds.jsonl", folder / "checkpoint.pt"
        rounds.write_text(rounds.read_text().replace(before, after, 1))
        saved = torch.load(checkpoint, weights_only=True)  # as runs of before there was a digest
        torch.save({name: value for name, value in saved.items() if name != "digest"}, checkpoint)
        runs = read_runs([tmp_path])
        assert not runs.found
        (problem,) = runs.problems
        with pytest.raises(AssertionError, match=why):
            raise AssertionError(problem.why)

    def test_says_which_version_wrote_what_cannot_be_read(self, tmp_path):
        folder = write_run(tmp_path, environment={"packages": {"torchal": "0.0.1"}})
        (folder / "checkpoint.pt").write_bytes(b"")
        (problem,) = read_runs([tmp_path]).problems
        assert "written by torchal 0.0.1, this is" in problem.why

    def test_runs_that_go_on_or_have_only_begun(self, tmp_path):
        write_run(tmp_path, finished=False)
        write_run(tmp_path, seed=1, values=(), labels=(), settings={"schedule": {}})
        runs = read_runs([tmp_path])
        assert [one.run.finished for one in runs.found] == [False]
        assert runs.empty == [str(tmp_path / "digits-logistic" / "margin" / "seed=1")]

    def test_a_run_of_a_trainer_without_a_config_of_its_own(self, tmp_path):
        folder = write_run(tmp_path)
        config = {"model": "GaussianNB()", "sampler": "Margin(temperature=2)", "seed": 3, "metrics": []}
        (folder / "config.yaml").write_text(json.dumps(config))
        assert names(read_runs([tmp_path])) == [("margin", "GaussianNB", "Margin", 3)]

    def test_a_sampler_with_several_settings_is_several_samplers(self, tmp_path):
        for beta in (1, 2):
            settings = {"sampler": {"_target_": "Power", "beta": beta, "alpha": 0}}
            write_run(tmp_path, sampler="power", settings=settings, suffix=f",beta={beta}")
        assert {one.sampler for one in read_runs([tmp_path]).found} == {"power (beta=1)", "power (beta=2)"}

    @pytest.mark.parametrize(
        ("one", "other", "told"),
        [
            ({"beta": 1}, {"beta": "1"}, {"power (beta=1) #1", "power (beta=1) #2"}),
            ({}, {"beta": None}, {"power", "power (beta=None)"}),
            ("Power(beta=1)", "Power(beta=2)", {"Power(beta=1)", "Power(beta=2)"}),
            ({"seed": 5}, {"seed": 6}, {"power (seed=5)", "power (seed=6)"}),
            ({"parts": [{"beta": 1}]}, {"parts": [{"beta": 2}]}, {"power (parts.0.beta=1)", "power (parts.0.beta=2)"}),
        ],
    )
    def test_no_two_settings_of_a_sampler_have_one_name(self, tmp_path, one, other, told):
        for number, settings in enumerate((one, other)):
            for seed in (0, 1):
                write_run(tmp_path / str(number), sampler="power", seed=seed, settings={"sampler": settings})
        runs = read_runs([tmp_path])
        assert {run.sampler for run in runs.found} == told
        assert len({(run.settings, run.sampler, run.seed) for run in runs.found}) == len(runs.found) == 4

    @pytest.mark.parametrize("at", [lambda seed: {"seed": seed}, lambda seed: {"parts": [{"random_state": seed}]}])
    def test_a_seed_that_follows_that_of_the_run_is_no_setting(self, tmp_path, at):
        for seed in (0, 1):
            write_run(tmp_path, sampler="power", seed=seed, settings={"sampler": at(seed)})
        assert {run.sampler for run in read_runs([tmp_path]).found} == {"power"}

    def test_samplers_of_the_same_settings_and_other_names(self, tmp_path):
        for name in ("margin", "margin-0.3-uniform-0.7"):  # which a setting beside them makes
            write_run(tmp_path, sampler=name, settings={"sampler": {"_target_": "Margin"}})
        runs = read_runs([tmp_path])
        assert {one.sampler for one in runs.found} == {"margin", "margin-0.3-uniform-0.7"}
        assert not runs.twice

    def test_filters(self, tmp_path):
        write_run(tmp_path, settings={"noise": {"share": 0.1}})
        write_run(tmp_path, seed=1, settings={"noise": {"share": 0.0}})
        write_run(tmp_path, data="iris", sampler="uniform")
        assert len(read_runs([tmp_path], only={"data": ["dig*"]}).found) == 2
        assert names(read_runs([tmp_path], only={"sampler": ["uniform", "x"]})) == [("iris", "logistic", "uniform", 0)]
        assert names(read_runs([tmp_path], only={"noise": ["0.1"]})) == [("digits", "logistic", "margin", 0)]
        assert names(read_runs([tmp_path], only={"noise": ["0"]})) == [("digits", "logistic", "margin", 1)]
        assert len(read_runs([tmp_path], only={"schedule.budget": ["40"], "seed": ["0"]}).found) == 2
        with pytest.raises(ConfigError, match=r"no run has a setting 'colour'; there are .*noise.share"):
            read_runs([tmp_path], only={"colour": ["red"]})

    def test_a_folder_that_is_not_there(self, tmp_path):
        with pytest.raises(RunError, match=r"there is no folder .*nowhere"):
            read_runs([tmp_path / "nowhere"])
        assert read_runs([tmp_path]).found == []


def test_differing_leaves_seeds_out():
    configs = [{"a": {"b": 1, "seed": 1}, "c": 3}, {"a": {"b": 2, "seed": 2}, "c": 3, "d": None}]
    assert differing(configs) == ["a.b"]
    assert differing([{"a": 1}, {"a": 1, "d": 0}]) == ["d"]
