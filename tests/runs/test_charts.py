import numpy as np
import pytest

from torchal import ConfigError
from torchal.runs import charts
from torchal.runs.curves import LearningCurve
from torchal.statistics.curves import mean_interval


def make_curve(n_runs):
    values = np.linspace(0.5, 0.9, 12)[None] + np.linspace(0, 0.05, n_runs)[:, None]
    return LearningCurve(np.arange(20, 260, 20), values, values.mean(0), *mean_interval(values))


@pytest.mark.parametrize(("suffix", "begins"), [(".png", b"\x89PNG"), (".pdf", b"%PDF"), (".svg", b"<?xml")])
def test_writes_the_format_that_the_name_says(suffix, begins, tmp_path):
    figure = charts.learning_curves({"margin": make_curve(3)})
    path = charts.save(figure, tmp_path / "new" / f"chart{suffix}")
    assert path.read_bytes().startswith(begins)


def test_refuses_other_formats(tmp_path):
    figure = charts.learning_curves({"margin": make_curve(3)})
    with pytest.raises(ConfigError, match=r"\.pdf, \.png, \.svg; got 'chart.bmp'"):
        charts.save(figure, tmp_path / "chart.bmp")
    assert not list(tmp_path.iterdir())


def test_draws_line_band_and_level_with_names_and_units():
    curves = {"margin": make_curve(3), "uniform": make_curve(1)}
    axes = charts.learning_curves(curves, title="digits", full_data=0.95).axes[0]
    margin, uniform, level = axes.lines
    assert margin.get_ydata() == pytest.approx(curves["margin"].mean)
    assert margin.get_xdata().tolist() == curves["margin"].n_labeled.tolist()
    assert level.get_ydata()[0] == 0.95
    assert len(axes.collections) == 1  # a single run has no band
    band = axes.collections[0].get_paths()[0].vertices[:, 1]
    assert band.min() == pytest.approx(curves["margin"].lower.min())
    assert (axes.get_xlabel(), axes.get_ylabel(), axes.get_title()) == ("labels", "test accuracy", "digits")
    names = [text.get_text() for text in axes.get_legend().get_texts()]
    assert names == ["margin (3 seeds)", "uniform (1 seed)", "all training data"]
    for look in ("get_color", "get_marker", "get_linestyle"):
        assert getattr(margin, look)() != getattr(uniform, look)()


def test_a_long_legend_stands_beside_the_curves():
    for n_curves, inside in ((3, True), (12, False)):
        figure = charts.learning_curves({str(i): make_curve(2) for i in range(n_curves)})
        figure.draw_without_rendering()
        axes = figure.axes[0]
        assert (axes.get_legend().get_window_extent().x0 < axes.get_window_extent().x1) == inside


def test_refuses_no_curves():
    with pytest.raises(ConfigError, match="at least one curve"):
        charts.learning_curves({})


def test_a_wide_band_does_not_flatten_the_lines():
    curve = make_curve(3)
    wide = LearningCurve(curve.n_labeled, curve.values, curve.mean, curve.mean - 9, curve.mean + 9)
    low, high = charts.learning_curves({"margin": wide}).axes[0].get_ylim()
    assert high - low < 4 * np.ptp(curve.mean)
    assert low < curve.mean.min() < curve.mean.max() < high


def test_values_that_are_missing_are_left_out():
    curve = make_curve(3)
    gaps = LearningCurve(
        curve.n_labeled, curve.values, np.where(curve.mean > 0.6, curve.mean, np.nan), curve.lower, curve.upper
    )
    assert charts.learning_curves({"auc": gaps}).axes[0].get_ylim()[1] > 0.9
    nothing = LearningCurve(curve.n_labeled, curve.values, curve.mean * np.nan, curve.lower, curve.upper)
    with pytest.raises(ConfigError, match="no finite value"):
        charts.learning_curves({"auc": nothing})
