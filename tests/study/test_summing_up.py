import math

import numpy as np
import pytest
from scipy import stats

from tests.study import recomputed
from tests.study.runs import write_full_data, write_run, write_sweep
from torchal import ConfigError, DataError
from torchal.study.reading import read_runs
from torchal.study.summing_up import Wanted, sum_up


def summed(root, **wanted):
    return sum_up(read_runs([root]), Wanted(**wanted))


def ends(estimate):
    return estimate.mean, estimate.lower, estimate.upper


class TestSumUp:
    def test_says_what_is_in_the_rounds(self, tmp_path):
        write_sweep(tmp_path, samplers=("margin", "badge", "uniform"), data=("digits", "iris"), seeds=range(5))
        summary = summed(tmp_path)
        assert [one.name for one in summary.experiments] == ["digits, logistic", "iris, logistic"]
        for metric in ("accuracy", "log_loss"):
            curves = recomputed.read(tmp_path, metric)
            for one in summary.experiments:
                for sampler, by_seed in curves[one.data, one.model].items():
                    entry = one.entries[sampler]
                    assert (entry.runs, entry.unfinished, entry.labels, entry.cost) == (5, 0, 40, 40)
                    areas = [recomputed.area(points) for points in by_seed.values()]
                    assert ends(entry.area[metric]) == pytest.approx(recomputed.interval(areas))
                    finals = [points[1][-1] for points in by_seed.values()]
                    assert ends(entry.final[metric]) == pytest.approx(recomputed.interval(finals))
                    band = entry.curves[metric]["labels"]
                    assert band.x == [10, 20, 40]
                    for place in range(3):
                        told = recomputed.interval([points[1][place] for points in by_seed.values()])
                        assert (band.mean[place], band.lower[place], band.upper[place]) == pytest.approx(told)
            for found in summary.comparisons[metric]:
                pairs, *gap, p = recomputed.compared(curves)[found.a, found.b]
                assert (found.pairs, *ends(found.difference)) == pytest.approx((pairs, *gap))
                assert found.p_holm == pytest.approx(p)
                assert found.wins + found.ties + found.losses == pairs == 10

    def test_less_of_a_loss_is_better(self, tmp_path):
        write_sweep(tmp_path, seeds=range(6))
        summary = summed(tmp_path, metric="log_loss")
        assert summary.metrics == ["log_loss", "accuracy"]
        assert summary.lower_is_better == ["log_loss"]
        (experiment,) = summary.experiments
        assert experiment.ordered == ["margin", "uniform"]
        (found,) = summary.comparisons["log_loss"]
        assert (found.a, found.verdict, found.wins) == ("margin", 1, 6)
        assert found.difference.mean < 0
        assert experiment.entries["margin"].against["log_loss"].verdict == 1
        assert experiment.full_data is None  # only its accuracy is known

    def test_labels_needed_where_some_runs_did_not_come_there(self, tmp_path):
        for seed, values in enumerate([(0.5, 0.7, 0.9), (0.5, 0.6, 0.88), (0.5, 0.6, 0.7)]):
            write_run(tmp_path, sampler="uniform", seed=seed, values=values)
        reached = summed(tmp_path, target=0.7).experiments[0].entries["uniform"].reached
        assert (reached.target, reached.runs, reached.reached, reached.median) == (0.7, 3, 3, 40)
        reached = summed(tmp_path, target=0.89).experiments[0].entries["uniform"].reached
        assert (reached.runs, reached.reached, reached.median) == (3, 1, None)
        assert summed(tmp_path).experiments[0].entries["uniform"].reached is None
        write_full_data(tmp_path, seeds=(0, 1), accuracy=0.95)
        reached = summed(tmp_path).experiments[0].entries["uniform"].reached
        assert reached.target == pytest.approx(0.855)
        assert (reached.runs, reached.reached) == (2, 2)  # the third is not said to have missed what is not known

    def test_full_data_of_other_settings_does_not_count(self, tmp_path):
        write_run(tmp_path, sampler="uniform")
        folder = tmp_path / "digits-logistic" / "full_data"
        folder.mkdir()
        (folder / "seed=0.json").write_text('{"config": {"data": {"_target_": "x"}, "seed": 0}, "accuracy": 0.9}')
        (folder / "seed=1.json").write_text('{"config": {"data"')
        assert summed(tmp_path).experiments[0].full_data is None
        (folder / "seed=0.json").write_text(
            '{"config": {"data": {"_target_": "torchal.data.digits", "seed": 9}, "seed": 0}, "accuracy": 0.9}'
        )
        assert summed(tmp_path).experiments[0].full_data == 0.9

    def test_samplers_are_compared_over_pairs_only(self, tmp_path):
        for seed in range(4):
            write_run(tmp_path, sampler="uniform", seed=seed, values=(0.5, 0.6, 0.7))
        for seed in (2, 3, 4):
            write_run(tmp_path, sampler="margin", seed=seed, values=(0.5, 0.6 + 0.01 * seed, 0.8))
        summary = summed(tmp_path)
        found = summary.experiments[0].entries["margin"].against["accuracy"]
        assert found.pairs == 2
        assert summary.comparisons["accuracy"][0].pairs == 2
        assert summary.missing == [
            "digits, logistic: margin has no run of seed 0, 1",
            "digits, logistic: uniform has no run of seed 4",
        ]

    def test_a_run_that_goes_on_is_shown_as_it_is(self, tmp_path):
        write_run(tmp_path, sampler="uniform")
        write_run(tmp_path, sampler="uniform", seed=1, values=(0.5, 0.6), labels=(10, 20), finished=False,
                  settings={"schedule": {"budget": 40}})  # fmt: skip
        write_run(tmp_path, sampler="margin", values=(0.5, 0.8), labels=(10, 20), finished=False,
                  settings={"schedule": {"budget": 40}})  # fmt: skip
        summary = summed(tmp_path)
        uniform, margin = (summary.experiments[0].entries[name] for name in ("uniform", "margin"))
        assert (uniform.runs, uniform.unfinished, uniform.curves["accuracy"]["labels"].x) == (1, 1, [10, 20, 40])
        assert (margin.runs, margin.unfinished, margin.curves["accuracy"]["labels"].mean) == (0, 1, [0.5, 0.8])
        assert margin.area == margin.final == margin.against == {}
        assert summary.comparisons["accuracy"] == []
        told = sorted(summary.unfinished)
        assert [line.partition(", last")[0] for line in told] == [
            "digits, logistic: margin, seed 0: 20 labels so far",
            "digits, logistic: uniform, seed 1: 20 labels so far",
        ]

    def test_experiments_are_told_apart_by_what_differs(self, tmp_path):
        for share in (0.0, 0.2):
            write_run(tmp_path, sampler="uniform", settings={"noise": {"share": share}}, suffix=f",noise={share}")
        summary = summed(tmp_path)
        assert [one.settings for one in summary.experiments] == ["noise.share=0.0", "noise.share=0.2"]
        assert all(len(one.entries) == 1 for one in summary.experiments)

    def test_experiments_whose_seeds_alone_differ_are_one(self, tmp_path):
        for seed in (0, 1):
            write_run(tmp_path, sampler="uniform", seed=seed, suffix=f",{seed}")
        (experiment,) = summed(tmp_path).experiments
        assert experiment.entries["uniform"].runs == 2

    def test_what_was_bought_by_class(self, tmp_path):
        about = {"data": {"class_names": ["cat", "dog", "eel"], "class_counts": [50, 30, 20]}}
        runs = [write_run(tmp_path, sampler="uniform", seed=seed, classes=3, environment=about) for seed in (0, 1)]
        (experiment,) = summed(tmp_path).experiments
        assert experiment.class_names == ["cat", "dog", "eel"]
        assert experiment.pool_classes == [50, 30, 20]
        entry = experiment.entries["uniform"]
        assert entry.class_labels == [10, 20, 40]
        assert [sum(row) for row in entry.classes] == pytest.approx([10, 20, 40])
        found = read_runs([tmp_path]).found
        for place in range(3):
            counts = [
                np.bincount(np.concatenate([r.labels.numpy() for r in one.run.rounds[: place + 1]]), minlength=3)
                for one in found
            ]
            assert entry.classes[place] == pytest.approx(np.mean(counts, axis=0).tolist())
        assert len(runs) == 2

    def test_the_rarest_of_many_classes_are_put_together(self, tmp_path):
        about = {"data": {"class_names": [f"c{i}" for i in range(30)], "class_counts": list(range(30))}}
        write_run(tmp_path, sampler="uniform", classes=30, environment=about, labels=(10, 20, 400))
        (experiment,) = summed(tmp_path).experiments
        assert experiment.class_names == [*(f"c{i}" for i in range(11, 30)), "others"]
        assert experiment.pool_classes == [*range(11, 30), sum(range(11))]
        assert sum(experiment.entries["uniform"].classes[-1]) == pytest.approx(400)

    def test_ranks_need_experiments_with_all_samplers(self, tmp_path):
        write_sweep(tmp_path, samplers=("margin", "badge", "uniform"), data=("digits", "iris", "wine"))
        ranking = summed(tmp_path).ranking
        assert (next(iter(ranking.mean_ranks)), ranking.mean_ranks["margin"], ranking.blocks) == ("margin", 1.0, 3)
        areas = [
            [one.entries[name].area["accuracy"].mean for name in ("margin", "badge", "uniform")]
            for one in summed(tmp_path).experiments
        ]
        assert ranking.p == pytest.approx(stats.friedmanchisquare(*np.transpose(areas)).pvalue)
        q = stats.studentized_range.ppf(0.95, 3, np.inf) / math.sqrt(2)
        assert ranking.critical_difference == pytest.approx(q * math.sqrt(3 * 4 / (6 * 3)))
        write_run(tmp_path, data="letter", sampler="uniform")
        ranking = summed(tmp_path).ranking
        assert ranking.left_out == ["letter, logistic"]
        alone = summed(tmp_path / "digits-logistic")
        assert alone.ranking is None
        assert any("they need two samplers and two experiments" in note for note in alone.notes)

    def test_penalties_count_where_one_is_better(self, tmp_path):
        write_sweep(tmp_path, seeds=range(8), gap=0.2)
        penalties = summed(tmp_path).penalties
        assert penalties.samplers == ["margin", "uniform"]
        assert penalties.matrix == [[0, pytest.approx(2 / 3)], [0, 0]]  # all begin with the same labels

    def test_without_the_baseline_nothing_is_compared_with_it(self, tmp_path):
        write_sweep(tmp_path, samplers=("margin", "badge"))
        summary = summed(tmp_path)
        (experiment,) = summary.experiments
        assert experiment.baseline is None
        assert all(not entry.against for entry in experiment.entries.values())
        assert len(summary.comparisons["accuracy"]) == 1
        assert any("there is no uniform to compare with" in note for note in summary.notes)
        assert summed(tmp_path, baseline="badge").experiments[0].baseline == "badge"

    def test_a_metric_that_some_runs_lack(self, tmp_path):
        write_run(tmp_path, sampler="uniform", auc=[0.5, 0.6, 0.7])
        write_run(tmp_path, sampler="margin", auc=[0.5, math.nan, 0.7])
        write_run(tmp_path, data="iris", sampler="margin")
        summary = summed(tmp_path)
        assert summary.metrics == ["accuracy", "auc"]
        digits = summary.experiments[0].entries
        assert set(digits["uniform"].area) == {"accuracy", "auc"}
        assert set(digits["margin"].area) == set(digits["margin"].curves) == {"accuracy"}

    def test_what_was_watched_has_curves_and_is_not_compared(self, tmp_path):
        for seed in (0, 1):
            for sampler in ("uniform", "margin"):
                watched = {"redundancy": [None, 0.5 + seed, 0.7], "kappa": [None, None, 0.9]}
                write_run(tmp_path, sampler=sampler, seed=seed, watched=watched)
        summary = summed(tmp_path)
        assert summary.metrics == ["accuracy", "kappa", "redundancy"]
        assert set(summary.comparisons) == {"accuracy"}
        entry = summary.experiments[0].entries["margin"]
        assert set(entry.against) == {"accuracy"}
        band = entry.curves["redundancy"]["labels"]
        assert (band.x, band.mean) == ([20, 40], [1.0, 0.7])
        assert entry.area["redundancy"].mean == pytest.approx(0.85)
        assert entry.final["kappa"].mean == 0.9
        with pytest.raises(ConfigError, match="no run recorded redundancy on the test part"):
            summed(tmp_path, metric="redundancy")

    def test_rows_that_nobody_else_picked_and_classes_beside_the_pools(self, tmp_path):
        about = {"data": {"class_names": ["a", "b"], "class_counts": [30, 70]}}
        order = [*range(10), *range(20, 50)]
        write_run(tmp_path, sampler="uniform", environment=about)  # picks 10 to 39
        write_run(tmp_path, sampler="margin", rows=order, environment=about)  # picks 20 to 49
        entries = summed(tmp_path).experiments[0].entries
        assert entries["uniform"].sole == entries["margin"].sole == pytest.approx(1 / 3)
        labels = np.concatenate([r.labels.numpy() for r in read_runs([tmp_path]).found[0].run.rounds])
        shares = np.bincount(labels, minlength=2) / len(labels)
        assert entries["margin"].divergence == pytest.approx(stats.entropy(shares, [0.3, 0.7]))
        write_run(tmp_path / "other", sampler="uniform")
        alone = summed(tmp_path / "other").experiments[0].entries["uniform"]
        assert (alone.sole, alone.divergence) == (None, None)

    def test_says_where_areas_are_not_over_the_same_labels(self, tmp_path):
        for seed in range(2):
            write_run(tmp_path, sampler="uniform", seed=seed)
        assert not any("areas" in note for note in summed(tmp_path).notes)
        early = {"settings": {"schedule": {"budget": 40}}, "values": (0.5, 0.7), "labels": (10, 20)}
        write_run(tmp_path, sampler="margin", finished=False, **early)
        assert not any("areas" in note for note in summed(tmp_path).notes)
        write_run(tmp_path, sampler="margin", seed=1, **early)
        told = "digits, logistic: areas are not over the same labels: runs begin at 10 and end at 20 to 40."
        assert told in summed(tmp_path).notes

    def test_one_run(self, tmp_path):
        write_run(tmp_path, sampler="uniform", values=(0.5,), labels=(10,))
        summary = summed(tmp_path)
        entry = summary.experiments[0].entries["uniform"]
        assert ends(entry.area["accuracy"]) == (0.5, None, None)
        assert entry.curves["accuracy"]["labels"].lower == [None]
        assert (summary.ranking, summary.penalties) == (None, None)

    def test_errors(self, tmp_path):
        with pytest.raises(DataError, match="there is no run to report on"):
            summed(tmp_path)
        write_run(tmp_path)
        with pytest.raises(ConfigError, match="no run recorded auc on the test part; they have accuracy"):
            summed(tmp_path, metric="auc")
