import numpy as np
import pytest

from tests.study.runs import write_sweep
from tests.study.summaries import hostile, large, minimal, rich, unfinished
from torchal.study import read_runs, sum_up
from torchal.study.looks import sampler_order

pytest.importorskip("matplotlib", reason="charts need matplotlib")

from torchal.study import charts


def texts(figure):
    return [text.get_text() for axes in figure.axes for text in axes.texts]


class TestCurves:
    def test_a_panel_for_each_experiment_and_one_legend(self):
        summary = rich()
        figure = charts.small_multiples(summary, metric="log_loss", against="cost")
        titles = [axes.get_title().replace("\n", " ") for axes in figure.axes if axes.get_visible()]
        assert titles == [experiment.name for experiment in summary.experiments]
        for axes, experiment in zip(figure.axes, summary.experiments, strict=False):
            drawn = [line.get_ydata().tolist() for line in axes.lines]
            bands = [experiment.entries[name].curves["log_loss"]["cost"].mean for name in experiment.ordered]
            assert drawn == bands
        (legend,) = figure.legends
        assert {text.get_text() for text in legend.get_texts()} == set(sampler_order(summary))

    def test_a_sampler_looks_the_same_in_all_panels(self):
        summary = rich()
        figure = charts.small_multiples(summary)
        looks = {}
        for axes, experiment in zip(figure.axes, summary.experiments, strict=False):
            for line, name in zip(axes.lines, experiment.ordered, strict=False):
                looks.setdefault(name, set()).add((line.get_color(), line.get_linestyle(), line.get_marker()))
        assert all(len(found) == 1 for found in looks.values())
        assert len(set.union(*looks.values())) == len(looks)

    def test_full_data_is_a_line_of_the_main_metric_only(self):
        summary = rich()
        of_main = charts.small_multiples(summary)
        known = [one.full_data for one in summary.experiments if one.full_data is not None]
        levels = [line.get_ydata()[0] for axes in of_main.axes for line in axes.lines if len(line.get_ydata()) == 2]
        assert levels == pytest.approx(known)


class TestOthers:
    def test_differences_are_those_of_the_comparisons(self):
        summary = rich()
        figure = charts.comparison_matrix(summary)
        shown = texts(figure)
        for found in summary.comparisons[summary.metric]:
            assert f"{found.difference.mean:+.3f}" in shown
            assert f"{-found.difference.mean:+.3f}" in shown

    def test_ranks_and_their_critical_difference(self):
        ranking = rich().ranking
        shown = texts(charts.critical_difference(ranking))
        for name, rank in ranking.mean_ranks.items():
            assert f"{name}  {rank:.2f}" in shown
        assert any(f"critical difference {ranking.critical_difference:.2f}" in text for text in shown)

    def test_bars_are_as_long_as_the_seconds(self, tmp_path):
        write_sweep(tmp_path)
        summary = sum_up(read_runs([tmp_path]))
        (axes,) = charts.seconds_bars(summary).axes
        lengths = {round(patch.get_width(), 6) for patch in axes.patches}
        assert lengths == {1.5, 0.75}  # three fits, and selections of 0, 1 and 2 quarters
        assert texts(charts.seconds_bars(summary)) == [" 2.25", " 2.25"]

    def test_many_experiments_have_one_panel_of_means(self):
        summary = large(n_experiments=8, n_samplers=3, n_points=4)
        (axes,) = charts.seconds_bars(summary).axes
        assert axes.get_title() == "mean of 8 experiments"
        totals = [sum(sum(one.entries[name].seconds.values()) for one in summary.experiments) / 8
                  for name in sampler_order(summary)]  # fmt: skip
        ends = [max(p.get_x() + p.get_width() for p in axes.patches if abs(p.get_y() + 0.36 - place) < 0.1)
                for place in range(3)]  # fmt: skip
        assert np.allclose(ends, totals)


@pytest.mark.parametrize("make", [rich, minimal, hostile, unfinished])
def test_any_summary_can_be_drawn(make, tmp_path):
    written = charts.write_charts(make(), tmp_path, formats=["svg", "pdf"])
    assert all(file.stat().st_size > 500 for file in written.values())
    assert (tmp_path / "curves.pdf").read_bytes().startswith(b"%PDF")


def test_a_page_for_each_score_model(tmp_path):
    write_sweep(tmp_path / "runs", models=("logistic", "mlp"), data=("digits", "iris"), seeds=range(2))
    summary = sum_up(read_runs([tmp_path / "runs"]))
    pages = charts.pages_of(summary)
    assert [{one.model for one in page} for page in pages] == [{"logistic"}, {"mlp"}]
    charts.write_charts(summary, tmp_path, formats=["pdf"])
    assert (tmp_path / "curves.pdf").read_bytes().count(b"/Type /Page\n") + (
        tmp_path / "curves.pdf"
    ).read_bytes().count(b"/Type /Page ") == 2
