import pytest
from scipy import stats

from experiments import compare
from tests.study import recomputed
from tests.study.runs import write_run, write_sweep


def told(capsys, *arguments):
    assert compare.main([*map(str, arguments)]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    return line


class TestCompare:
    def test_two_samplers(self, tmp_path, capsys):
        write_sweep(tmp_path, samplers=("margin", "badge", "uniform"), data=("digits", "iris"), seeds=range(4))
        line = told(capsys, "margin", "uniform", "--runs", tmp_path)
        pairs, gap, low, high, _ = recomputed.compared(recomputed.read(tmp_path))["margin", "uniform"]
        assert line.startswith(
            f"margin is better than uniform: {gap:+.4f} [{low:+.4f}, {high:+.4f}] in area of accuracy"
        )
        assert f"over {pairs} pairs of runs of 2 experiments (digits logistic, iris logistic); 8 won, 0 equal" in line
        assert told(capsys, "uniform", "margin", "--runs", tmp_path).startswith("margin is better than uniform: -0.0")

    def test_two_folders_are_paired_on_what_they_share(self, tmp_path, capsys):
        write_sweep(tmp_path / "old", gap=0.0)
        write_sweep(tmp_path / "new", models=("mlp",), gap=0.0)
        for file in (tmp_path / "new").rglob("full_data"):
            assert file.is_dir()
        line = told(capsys, tmp_path / "new", tmp_path / "old")
        assert "over 6 pairs of runs whose model differs" in line  # of the same sampler and seed

    def test_less_is_better_of_a_loss(self, tmp_path, capsys):
        write_sweep(tmp_path, seeds=range(5))
        line = told(capsys, "margin", "uniform", "--runs", tmp_path, "--metric", "log_loss")
        assert line.startswith("margin is better than uniform: -0.0")

    def test_says_how_many_more_would_be_needed(self, tmp_path, capsys):
        gaps = [0.04, -0.02, 0.03, -0.01]
        for seed, gap in enumerate(gaps):
            write_run(tmp_path, sampler="uniform", seed=seed, values=(0.5, 0.6, 0.7))
            write_run(tmp_path, sampler="margin", seed=seed, values=(0.5 + gap, 0.6 + gap, 0.7 + gap))
        line = told(capsys, "margin", "uniform", "--runs", tmp_path)
        assert line.startswith("Neither of margin and uniform is shown to be better: +0.0100")
        assert f"p = {stats.ttest_1samp(gaps, 0).pvalue:.2g}" in line
        assert "more would show a difference as large as this one, 4 times in 5)" in line

    def test_a_difference_that_does_not_matter(self, tmp_path, capsys):
        write_sweep(tmp_path, seeds=range(8), gap=0.03)
        line = told(capsys, "margin", "uniform", "--runs", tmp_path, "--rope", "0.2")
        assert "that they differ by at most 0.2 1.00" in line
        line = told(capsys, "margin", "uniform", "--runs", tmp_path, "--rope", "0.001")
        assert "probability that margin is better 1.00, that uniform is 0.00" in line
        line = told(capsys, "margin", "uniform", "--runs", tmp_path, "--rope", "0.001", "--metric", "log_loss")
        assert "probability that margin is better 1.00, that uniform is 0.00" in line

    def test_one_pair(self, tmp_path, capsys):
        write_sweep(tmp_path, seeds=range(1))
        assert "over 1 pair of runs: too few to say how sure that is" in told(
            capsys, "margin", "uniform", "--runs", tmp_path
        )

    def test_samplers_of_other_experiments_are_no_pairs(self, tmp_path, capsys):
        for seed in range(3):
            write_run(tmp_path, sampler="margin", seed=seed)
            write_run(tmp_path, sampler="uniform", seed=seed, settings={"noise": {"share": 0.1}})
        assert compare.main(["margin", "uniform", "--runs", str(tmp_path)]) == 2
        assert "no run of margin has a partner of uniform" in capsys.readouterr().err
        line = told(capsys, tmp_path / "digits-logistic" / "margin", tmp_path / "digits-logistic" / "uniform")
        assert "over 3 pairs of runs whose settings differ" in line

    def test_the_same_difference_in_each_pair(self, tmp_path, capsys):
        for seed in range(3):
            write_run(tmp_path, sampler="uniform", seed=seed, values=(0.5, 0.5, 0.5))
            write_run(tmp_path, sampler="margin", seed=seed, values=(0.75, 0.75, 0.75))
        line = told(capsys, "margin", "uniform", "--runs", tmp_path)
        assert line.endswith("over 3 pairs of runs: the same in each, so no test says how sure it is")

    def test_a_name_with_signs_of_a_pattern_in_it(self, tmp_path, capsys):
        for seed in range(2):
            for sampler in ("x[1]", "x1"):
                settings = {"names": {"data": "d", "model": "m", "sampler": sampler}}
                write_run(tmp_path, sampler=sampler, seed=seed, settings=settings)
        assert "over 2 pairs" in told(capsys, "x[1]", "x1", "--runs", tmp_path)

    def test_what_cannot_be_read_is_told_once(self, tmp_path, capsys):
        write_sweep(tmp_path)
        (tmp_path / "digits-logistic" / "margin" / "seed=0" / "checkpoint.pt").write_bytes(b"")
        assert compare.main(["margin", "uniform", "--runs", str(tmp_path)]) == 0
        assert capsys.readouterr().err.count("could not be read") == 1

    def test_errors(self, tmp_path, capsys):
        write_run(tmp_path, sampler="uniform")
        write_run(tmp_path, sampler="margin", seed=1)
        write_run(tmp_path / "other", sampler="uniform", settings={"schedule": {"budget": 99}})
        for arguments, why in (
            (["margin", "nothing"], "sampler nothing, and nothing is no folder; there are runs of margin, uniform"),
            (["margin", "uniform"], "no run of margin has a partner of uniform"),
            (["uniform", "margin", "--metric", "auc"], "has no auc of its test part in every round"),
        ):
            assert compare.main([*arguments, "--runs", str(tmp_path)]) == 2
            assert why in capsys.readouterr().err
        with pytest.raises(SystemExit):
            compare.main(["margin"])
