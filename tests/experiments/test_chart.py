import pytest

from tests import killed_run
from tests.study.runs import write_sweep
from torchal import ConfigError, Run

pytest.importorskip("hydra", reason="the commands need hydra, which is not installed")

from experiments import chart


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    for seed in (0, 1):
        config = {"names": {"sampler": "drift", "model": "means"}, "seed": seed}
        killed_run.run(folder / f"seed={seed}", seed=seed, config=config)
    return folder


@pytest.mark.parametrize("suffix", ["png", "pdf", "svg"])
def test_draws_run_folders(suffix, runs, tmp_path, capsys):
    out = tmp_path / f"chart.{suffix}"
    assert chart.main([str(runs), "--out", str(out), "--metric", "log_loss", "--part", "validation"]) == 0
    assert out.stat().st_size > 1000
    assert capsys.readouterr().out.strip() == str(out)


@pytest.mark.parametrize("against", ["labels", "cost", "seconds"])
def test_draws_against_labels_cost_and_seconds(against, tmp_path):
    write_sweep(tmp_path / "runs")  # whose seconds do not depend on the machine
    assert chart.main([str(tmp_path / "runs"), "--out", str(tmp_path / "a.svg"), "--against", against]) == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--metric", "auc"], "no test 'auc'; it has accuracy, log_loss"),
        (["--by", "planet"], "no 'planet' to group by; it has"),
        (["--out", "chart.bmp"], ".pdf, .png, .svg"),
    ],
)
def test_says_what_is_wrong_in_one_line(arguments, message, runs, capsys):
    assert chart.main([str(runs), *arguments]) == 2
    assert message in capsys.readouterr().err


def test_signs_of_a_formula_stay_as_they_are(tmp_path):
    write_sweep(tmp_path / "runs", samplers=("$x_$", "uniform"))
    out = tmp_path / "c.svg"
    assert chart.main([str(tmp_path / "runs"), "--out", str(out), "--title", "$x_$"]) == 0
    assert "$x_$" in out.read_text()


def test_a_folder_without_runs(tmp_path, capsys):
    assert chart.main([str(tmp_path)]) == 2
    assert f"there is no finished run below {tmp_path}" in capsys.readouterr().err
    assert chart.main([str(tmp_path / "none")]) == 2


class TestGroups:
    def make(self, folder, number, **changes):
        names = {"sampler": "drift", "model": "means", "data": "blobs"} | changes.pop("names", {})
        config = {"names": names, "seed": number, "data": {"seed": number}, "schedule": {"batch_size": 6}} | changes
        return Run(folder, config, [], finished=True)

    def test_seeds_are_averaged_and_nothing_else(self, tmp_path):
        same = [self.make(tmp_path, seed) for seed in (0, 1)]
        assert chart.grouped(same, ["sampler"]) == {"drift": same}
        other = self.make(tmp_path, 0, names={"data": "moons"})
        assert chart.grouped([*same, other], ["sampler"]) == {"drift, blobs": same, "drift, moons": [other]}
        larger = self.make(tmp_path, 0, schedule={"batch_size": 9})
        with pytest.raises(ConfigError, match=r"the runs of 'drift' differ in schedule.batch_size"):
            chart.grouped([*same, larger], ["sampler"])
        assert chart.grouped([*same, larger], ["schedule.batch_size"]) == {"6": same, "9": [larger]}

    def test_unfinished_runs_are_left_out_and_counted(self, tmp_path, capsys):
        config = {"names": {"sampler": "drift", "model": "means"}, "seed": 0}
        killed_run.run_and_be_killed(tmp_path / "killed", "line")
        killed_run.run(tmp_path / "whole", config=config)
        assert chart.main([str(tmp_path), "--out", str(tmp_path / "chart.png")]) == 0
        assert "left out: 1 runs that are not finished" in capsys.readouterr().err
