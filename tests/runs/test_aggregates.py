import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.event_multiplexer import EventMultiplexer
from tensorboard.plugins.custom_scalar import layout_pb2
from tensorboard.plugins.hparams import plugin_data_pb2

from tests import killed_run
from torchal import ConfigError, DataError
from torchal.runs.aggregates import TableLine, address, curves_of, table_lines, write_aggregates
from torchal.runs.curves import LearningCurve, learning_curve
from torchal.statistics.curves import area_under_curve, labels_to_reach, mean_interval


def make_curve(values, n_labeled=(20, 40)):
    values = np.array(values, dtype=np.float64)
    return LearningCurve(np.array(n_labeled), values, values.mean(0), *mean_interval(values))


MARGIN = make_curve([[0.4, 0.6], [0.6, 0.8]])
UNIFORM = make_curve([[0.3, 0.5], [0.4, 0.5]])
LOSS = make_curve([[1.0, 0.5], [1.2, 0.7]])


def read(folder):
    return EventAccumulator(str(folder), size_guidance={"scalars": 0, "tensors": 0}).Reload()


def points(events, tag):
    return [(event.step, event.value) for event in events.Scalars(tag)]


def line(curve, values):
    return [(n, pytest.approx(value)) for n, value in zip(curve.n_labeled.tolist(), values.tolist(), strict=True)]


def settings_of(events):
    content = events.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    found = plugin_data_pb2.HParamsPluginData.FromString(content).session_start_info.hparams
    return {name: value.string_value or value.number_value for name, value in found.items()}


class TestCurves:
    def test_a_run_for_each_sampler_with_mean_and_band(self, tmp_path):
        curves = {"accuracy": {"margin": MARGIN, "uniform": UNIFORM}, "log_loss": {"margin": LOSS}}
        for _ in range(2):  # the second time replaces the first
            write_aggregates(tmp_path, curves)
        assert sorted(EventMultiplexer().AddRunsFromDirectory(str(tmp_path)).Runs()) == ["margin", "uniform"]
        for sampler, curve in (("margin", MARGIN), ("uniform", UNIFORM)):
            events = read(tmp_path / sampler)
            assert points(events, "accuracy") == line(curve, curve.mean)
            assert points(events, "~interval/accuracy_lower") == line(curve, curve.lower)
            assert points(events, "~interval/accuracy_upper") == line(curve, curve.upper)
        assert points(read(tmp_path / "margin"), "log_loss") == line(LOSS, LOSS.mean)
        assert "log_loss" not in read(tmp_path / "uniform").Tags()["scalars"]

    def test_one_margin_chart_for_each_metric(self, tmp_path):
        write_aggregates(tmp_path, {"accuracy": {"margin": MARGIN}, "log_loss": {"margin": LOSS}})
        content = read(tmp_path / "margin").Tensors("custom_scalars__config__")[0].tensor_proto.string_val[0]
        charts = layout_pb2.Layout.FromString(content).category[0].chart
        assert [chart.title for chart in charts] == ["log_loss", "accuracy"]  # drawn from the last to the first
        (series,) = charts[1].margin.series
        assert (series.value, series.lower, series.upper) == (
            *("accuracy", "~interval/accuracy_lower", "~interval/accuracy_upper"),
        )

    def test_a_single_run_has_a_band_without_width(self, tmp_path):
        write_aggregates(tmp_path, {"accuracy": {"margin": make_curve([[0.4, 0.6]])}})
        events = read(tmp_path / "margin")
        assert points(events, "~interval/accuracy_lower") == points(events, "accuracy")
        assert points(events, "~interval/accuracy_upper") == points(events, "accuracy")

    def test_what_was_there_is_replaced_and_other_files_stay(self, tmp_path):
        write_aggregates(
            tmp_path, {"accuracy": {"margin": MARGIN, "old": UNIFORM}}, table={"old 0": TableLine({"a": 1}, {"b": 2.0})}
        )
        (tmp_path / "old" / "notes.txt").write_text("mine")
        write_aggregates(tmp_path, {"accuracy": {"margin": MARGIN}})
        assert sorted(path.name for path in tmp_path.rglob("*") if path.is_dir()) == ["margin", "old"]
        assert [path.name for path in (tmp_path / "old").iterdir()] == ["notes.txt"]
        assert len(list((tmp_path / "margin").iterdir())) == 1

    def test_samplers_keep_their_order(self, tmp_path):
        names = ["uniform", "margin", "entropy"]  # TensorBoard lists runs by when they began
        write_aggregates(tmp_path, {"accuracy": dict.fromkeys(names, MARGIN)})
        began = {name: read(tmp_path / name).FirstEventTimestamp() for name in names}
        assert sorted(names, key=began.__getitem__) == names

    @pytest.mark.parametrize("name", ["", "a/b", "..", "~runs", "~mine"])
    def test_names_that_are_no_runs_are_refused_before_anything_is_deleted(self, name, tmp_path):
        write_aggregates(tmp_path, {"accuracy": {"margin": MARGIN}})
        with pytest.raises(ConfigError, match="cannot be the name of a run"):
            write_aggregates(tmp_path, {"accuracy": {name: MARGIN}})
        with pytest.raises(ConfigError, match="cannot be the name of a run"):
            write_aggregates(tmp_path, {"accuracy": {"uniform": MARGIN}}, table={name: TableLine({}, {})})
        assert read(tmp_path / "margin").Tags()["scalars"]

    def test_no_curve_is_refused(self, tmp_path):
        with pytest.raises(ConfigError, match="there is no curve"):
            write_aggregates(tmp_path, {"accuracy": {}})


class TestTable:
    def test_a_line_for_each_run(self, tmp_path):
        table = {
            "margin seed=0": TableLine({"sampler": "margin", "seed": 0}, {"summary/final_accuracy": 0.75}),
            "margin seed=1": TableLine(
                {"sampler": "margin", "seed": 1}, {"summary/final_accuracy": 0.5, "never": None}
            ),
        }
        write_aggregates(tmp_path, {"accuracy": {"margin": MARGIN}}, table=table)
        for name, seed, final in (("margin seed=0", 0, 0.75), ("margin seed=1", 1, 0.5)):
            events = read(tmp_path / "~runs" / name)
            assert settings_of(events) == {"sampler": "margin", "seed": seed}
            assert points(events, "summary/final_accuracy") == [(0, final)]
            assert events.Tags()["scalars"] == ["summary/final_accuracy"]

    def test_lines_of_runs(self, tmp_path):
        runs = {
            "drift": [
                killed_run.run(tmp_path / f"{seed}", seed=seed, config={"seed": seed}, metrics={"half": lambda _: 0.5})
                for seed in (0, 1)
            ]
        }
        targets = {0: 0.5, 1: 2.0}
        lines = table_lines(runs, targets=targets)
        assert list(lines) == ["drift seed=0", "drift seed=1"]
        for run, (settings, metrics) in zip(runs["drift"], lines.values(), strict=True):
            n_labeled, values = run.curve()
            seed = run.config["seed"]
            assert settings == {"sampler": "drift", "seed": seed}
            assert metrics == {
                "summary/final_accuracy": values[-1],
                "summary/area_accuracy": area_under_curve(n_labeled, values),
                "summary/labels_to_target": labels_to_reach(n_labeled, values, targets[seed]),
            }
        assert lines["drift seed=1"].metrics["summary/labels_to_target"] is None
        assert table_lines(runs, metric="half")["drift seed=0"].metrics == {
            "summary/final_half": 0.5,
            "summary/area_half": pytest.approx(0.5),
        }

    def test_curves_of_the_metrics_that_all_rounds_have(self, tmp_path):
        some = killed_run.run(tmp_path / "a")
        more = killed_run.run(tmp_path / "b", metrics={"half": lambda _: 0.5})
        found = curves_of({"one": [some, more], "two": [more]})
        assert list(found) == ["accuracy", "log_loss"]
        assert found["accuracy"]["one"].mean.tolist() == learning_curve([some, more]).mean.tolist()
        assert list(curves_of({"two": [more]})) == ["accuracy", "log_loss", "half"]
        assert curves_of({}) == {}
        with pytest.raises(DataError, match="at least one run"):
            curves_of({"one": [some], "none": []})


def test_an_address_selects_the_samplers():
    for page in ("timeseries", "custom_scalars", "scalars", "hparams"):
        assert address(page, port=1).startswith("http://localhost:1/?smoothing=0&runFilter=%5E%5B%5E~%5D#" + page)
