import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.custom_scalar import layout_pb2
from tensorboard.plugins.hparams import plugin_data_pb2

from tests import killed_run
from torchal import ConfigError
from torchal.runs.curves import LearningCurve
from torchal.runs.tensorboard import write_aggregate
from torchal.statistics.curves import area_under_curve, mean_interval


def read(folder):
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0, "tensors": 0})
    events.Reload()
    return events


def scalars(events, tag):
    return [(event.step, event.value) for event in events.Scalars(tag)]


def check_curves(run):
    events = read(run.folder / "tb")
    for part in ("test", "validation"):
        for name in ("accuracy", "log_loss"):
            expected = [(r.n_labeled, getattr(r, part)[name]) for r in run.rounds]
            assert scalars(events, f"{part}/{name}") == [(n, pytest.approx(value)) for n, value in expected]
    for phase in ("fit", "select", "label", "score"):
        expected = [(r.n_labeled, r.seconds[phase]) for r in run.rounds if phase in r.seconds]
        assert scalars(events, f"seconds/{phase}") == [(n, pytest.approx(value)) for n, value in expected]
    return events


def test_the_curves_read_back_against_the_number_of_labels(tmp_path):
    run = killed_run.run(tmp_path, tensorboard=True)
    events = check_curves(run)
    n_labeled, values = run.curve()
    assert scalars(events, "summary/final_accuracy") == [(54, pytest.approx(values[-1]))]
    assert scalars(events, "summary/area_accuracy") == [(54, pytest.approx(area_under_curve(n_labeled, values)))]


def test_a_run_that_was_killed_has_every_point_once(tmp_path):
    killed_run.run_and_be_killed(tmp_path, "line")
    check_curves(killed_run.run(tmp_path, tensorboard=True))
    assert len(list((tmp_path / "tb").iterdir())) == 1


def test_hyperparameters_are_in_the_runs_own_table(tmp_path):
    config = {"names": {"sampler": "drift", "data": "blobs"}}
    run = killed_run.run(tmp_path, tensorboard=True, config=config)
    events = read(run.folder / "tb")
    content = events.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    start = plugin_data_pb2.HParamsPluginData.FromString(content).session_start_info
    shown = {name: value.WhichOneof("kind") for name, value in start.hparams.items()}
    assert start.hparams["sampler"].string_value == "drift"
    assert start.hparams["data"].string_value == "blobs"
    assert start.hparams["schedule"].string_value == "batch_size=6, budget=54"
    assert start.hparams["seed"].number_value == 0
    assert set(shown.values()) == {"string_value", "number_value"}
    assert len(shown) == 5  # as many as the page shows


def test_an_aggregate_is_a_margin_chart_of_mean_and_band(tmp_path):
    values = np.array([[0.4, 0.6], [0.6, 0.8]])
    lower, upper = mean_interval(values)
    curve = LearningCurve(np.array([20, 40]), values, values.mean(0), lower, upper)
    for _ in range(2):  # the second time replaces the first
        write_aggregate(tmp_path, curve, name="accuracy")
    events = read(tmp_path)
    for tag, line in (("accuracy", curve.mean), ("accuracy_lower", lower), ("accuracy_upper", upper)):
        assert scalars(events, f"mean/{tag}") == [(20, pytest.approx(line[0])), (40, pytest.approx(line[1]))]
    content = events.Tensors("custom_scalars__config__")[0].tensor_proto.string_val[0]
    chart = layout_pb2.Layout.FromString(content).category[0].chart[0]
    series = chart.margin.series[0]
    assert (series.value, series.lower, series.upper) == (
        *("mean/accuracy", "mean/accuracy_lower", "mean/accuracy_upper"),
    )


def test_an_aggregate_of_one_run_has_a_band_without_width(tmp_path):
    values = np.array([[0.4, 0.6]])
    write_aggregate(
        tmp_path, LearningCurve(np.array([1, 2]), values, values[0], *mean_interval(values)), name="accuracy"
    )
    events = read(tmp_path)
    assert scalars(events, "mean/accuracy_lower") == scalars(events, "mean/accuracy")


def test_a_metric_that_was_added_when_the_run_went_on_has_no_area(tmp_path):
    killed_run.run_and_be_killed(tmp_path, "line")
    run = killed_run.run(tmp_path, tensorboard=True, metrics={"mine": lambda outcome: 1.0})
    events = read(tmp_path / "tb")
    assert run.finished
    assert len(events.Scalars("test/mine")) == 6
    assert "summary/area_accuracy" in events.Tags()["scalars"]
    assert "summary/area_mine" not in events.Tags()["scalars"]
    with pytest.raises(ConfigError, match="no test 'mine'; it has accuracy, log_loss"):
        run.curve("mine")
