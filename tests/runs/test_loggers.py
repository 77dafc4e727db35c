import csv
import itertools
import math

import pytest
import torch

from tests import killed_run
from torchal import ConfigError, CsvLog, RoundResult, RunError, Schedule, TensorBoard, Trainer
from torchal.models import LogisticRegression
from torchal.runs.loggers import RunLogger, final_scalars, scalars
from torchal.runs.results import RunFolder
from torchal.samplers import Margin


class Writer:
    """What another library's writer of scalars looks like from outside."""

    def __init__(self, *, fails_at=math.inf, error=None):
        self.points, self.calls = [], []
        self.fails_at, self.error = fails_at, error or ConnectionError("nobody listens")

    def add_scalar(self, tag, value, step):
        if step >= self.fails_at:
            raise self.error
        self.points.append((tag, value, step))

    def flush(self):
        self.calls.append("flush")

    def close(self):
        self.calls.append("close")

    def of(self, tag):
        return [(step, value) for name, value, step in self.points if name == tag]


class Bare:
    def __init__(self):
        self.points = []

    def add_scalar(self, tag, scalar_value, global_step):
        self.points.append((tag, scalar_value, global_step))


class Own:
    """A logger of the protocol, which counts what it is told."""

    def __init__(self):
        self.told = []

    def open_run(self, folder, learner):
        self.told.append(("open", [result.n_labeled for result in learner.history]))
        return self

    def add(self, result):
        self.told.append(("add", result.n_labeled))

    def finish(self, hparams):
        self.told.append(("finish", dict(hparams)))

    def close(self):
        self.told.append(("close",))


def read_csv(folder, name="metrics.csv"):
    with (folder / name).open(newline="") as file:
        return list(csv.DictReader(file))


def check_csv(run, name="metrics.csv"):
    rows = read_csv(run.folder, name)
    assert [int(row["labels"]) for row in rows] == [result.n_labeled for result in run.rounds]
    for row, result in zip(rows, run.rounds, strict=True):
        assert (int(row["round"]), float(row["cost"])) == (result.round, result.cost)
        for tag, value in scalars(result):
            if tag != "pool/cost":
                assert float(row[tag]) == value
    return rows


class TestScalars:
    def test_numbers_of_all_parts_and_no_lists(self):
        rows = torch.tensor([3])
        result = RoundResult(
            1, 12, rows, rows, rows, rows.double(), "Bandit", test={"accuracy": 0.5}, validation={"auc": 0.25},
            seconds={"fit": 2.0}, peak_mib={"fit": 8.0}, pool={"kappa": 0.75}, cost=3.5, model={"C": 10.0},
            report={"probabilities": {"a": 0.25, "b": 0.75}, "clusters": [1, 2], "is_full": True, "why": "text"},
            select_model={"C": 1.0},
            calibration={"confidence": [0.5, 0.75], "accuracy": [0.5, 1.0], "rows": [2.0, 2.0]},
        )  # fmt: skip
        assert dict(scalars(result)) == {
            "test/accuracy": 0.5,
            "test/calibration_error": 0.125,
            "validation/auc": 0.25,
            "pool/cost": 3.5,
            "pool/kappa": 0.75,
            "seconds/fit": 2.0,
            "peak_mib/fit": 8.0,
            "sampler/probabilities/a": 0.25,
            "sampler/probabilities/b": 0.75,
            "model/C": 10.0,
            "select_model/C": 1.0,
        }

    def test_a_run_without_rounds_came_to_nothing(self):
        assert final_scalars([]) == {}


class TestCsvLog:
    def test_a_row_for_each_round(self, tmp_path):
        run = killed_run.run(tmp_path, loggers=[CsvLog()])
        rows = check_csv(run)
        assert list(rows[0])[:5] == ["round", "labels", "cost", "test/accuracy", "test/log_loss"]
        assert rows[0]["seconds/select"] == ""  # the start set was given
        assert float(rows[1]["seconds/select"]) > 0
        kinds = [column.split("/")[0] for column in rows[0]]
        assert [kind for kind, _ in itertools.groupby(kinds)] == list(dict.fromkeys(kinds))  # like stands beside like

    @pytest.mark.parametrize("moment", ["line", "checkpoint"])
    def test_a_run_that_was_killed_has_every_row_once(self, moment, tmp_path):
        killed_run.run_and_be_killed(tmp_path, moment, loggers=[CsvLog("mine.csv")])
        with (tmp_path / "mine.csv").open("a") as file:
            file.write("3,24,half a li")
        check_csv(killed_run.run(tmp_path, loggers=[CsvLog("mine.csv")]), "mine.csv")

    def test_a_metric_with_a_comma_in_its_name(self, tmp_path):
        run = killed_run.run(tmp_path, loggers=[CsvLog()], metrics={'a, "b"': lambda outcome: math.nan})
        assert {row['test/a, "b"'] for row in read_csv(run.folder)} == {"nan"}

    @pytest.mark.parametrize("name", ["", "..", "../metrics.csv", "a/b.csv", None])
    def test_a_name_that_is_no_file_of_the_folder_is_refused(self, name):
        with pytest.raises(ConfigError, match=r"name must be that of a file in the run's folder, got"):
            CsvLog(name)


class TestForeignWriters:
    def test_get_the_same_scalars(self, tmp_path):
        writer, bare = Writer(), Bare()
        run = killed_run.run(tmp_path, loggers=[writer, bare])
        assert writer.of("test/accuracy") == [(r.n_labeled, r.test["accuracy"]) for r in run.rounds]
        expected = [(tag, value, r.n_labeled) for r in run.rounds for tag, value in scalars(r)]
        assert writer.points[: len(expected)] == expected
        assert writer.of("summary/final_accuracy") == [(54, run.rounds[-1].test["accuracy"])]
        assert bare.points == writer.points
        assert writer.calls == ["flush"] * 10 + ["close"]

    def test_a_summary_writer_of_torch(self, tmp_path):
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
        from torch.utils.tensorboard import SummaryWriter

        run = killed_run.run(tmp_path / "run", loggers=[SummaryWriter(str(tmp_path / "elsewhere"))])
        events = EventAccumulator(str(tmp_path / "elsewhere")).Reload()
        assert [event.step for event in events.Scalars("test/accuracy")] == [r.n_labeled for r in run.rounds]

    def test_a_run_that_goes_on_tells_the_new_rounds_only(self, tmp_path):
        killed_run.run_and_be_killed(tmp_path, "checkpoint")
        writer = Writer()
        killed_run.run(tmp_path, loggers=[writer])
        assert [step for step, _ in writer.of("test/accuracy")] == [30, 36, 42, 48, 54]

    def test_a_finished_run_tells_nothing(self, tmp_path):
        killed_run.run(tmp_path)
        writer = Writer()
        killed_run.run(tmp_path, loggers=[writer])
        assert (writer.points, writer.calls) == ([], [])


class TestOwnLoggers:
    def test_are_told_all(self, tmp_path):
        own = Own()
        assert isinstance(own, RunLogger)
        killed_run.run(tmp_path, loggers=[own], config={"names": {"sampler": "drift"}})
        rounds = [("add", n) for n in range(6, 55, 6)]
        assert own.told[:-2] == [("open", []), *rounds]
        assert own.told[-2][0] == "finish"
        assert own.told[-2][1]["sampler"] == "drift"
        assert own.told[-1] == ("close",)

    def test_hear_what_was_before(self, tmp_path):
        killed_run.run_and_be_killed(tmp_path, "checkpoint")
        own = Own()
        killed_run.run(tmp_path, loggers=[own])
        assert own.told[:2] == [("open", [6, 12, 18, 24]), ("add", 30)]


class TestFailures:
    @pytest.mark.parametrize("error", [ConnectionError("nobody listens"), ValueError("no number")])
    def test_what_was_saved_stays_and_the_others_are_told(self, error, tmp_path):
        failing, other = Writer(fails_at=24, error=error), Writer()
        said = rf"the logger Writer failed: {type(error).__name__}: {error}. 4 rounds are saved in {tmp_path} and stay"
        with pytest.raises(RunError, match=said) as caught:
            killed_run.run(tmp_path, loggers=[failing, other, CsvLog()])
        assert caught.value.__cause__ is error
        assert [step for step, _ in other.of("test/accuracy")] == [6, 12, 18, 24]
        assert len(read_csv(tmp_path)) == 4
        assert (failing.calls[-1], other.calls[-1]) == ("close", "close")
        assert len(RunFolder(tmp_path).read().rounds) == 4
        undisturbed = killed_run.run(tmp_path.parent / "undisturbed")
        goes_on = killed_run.run(tmp_path, loggers=[CsvLog()])
        assert [r.rows.tolist() for r in goes_on.rounds] == [r.rows.tolist() for r in undisturbed.rounds]
        check_csv(goes_on)

    def test_one_that_cannot_be_closed_is_named_and_the_run_is_whole(self, tmp_path):
        writer = Writer()
        writer.close = lambda: 1 / 0
        with pytest.raises(RunError, match=r"the logger Writer failed: ZeroDivisionError.* 9 rounds are saved"):
            killed_run.run(tmp_path, loggers=[writer])
        assert RunFolder(tmp_path).read().finished

    def test_the_first_error_is_the_one_to_hear_of(self, tmp_path):
        writer = Writer(fails_at=12)
        writer.close = lambda: 1 / 0
        with pytest.raises(RunError, match="nobody listens"):
            killed_run.run(tmp_path, loggers=[writer])

    def test_an_oracle_that_fails_closes_the_loggers(self, tmp_path):
        writer = Writer()

        def oracle(rows):
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            killed_run.run(tmp_path, loggers=[writer], oracle=oracle)
        assert writer.calls == ["close"]

    def test_one_that_cannot_be_opened_closes_the_others(self, tmp_path):
        (tmp_path / "metrics.csv").mkdir()
        writer = Writer()
        with pytest.raises(RunError, match=r"the logger CsvLog failed: .*0 rounds are saved"):
            killed_run.run(tmp_path, loggers=[writer, CsvLog()])
        assert writer.calls == ["close"]


class TestAtTheDoor:
    @pytest.mark.parametrize(
        ("loggers", "said"),
        [
            (TensorBoard(), r"loggers must be a list of TensorBoard\(\).* got TensorBoard\(thumbnails=16"),
            (True, r"loggers must be a list .* got True"),
            ("csv", r"loggers must be a list .* got 'csv'"),
            ([TensorBoard], r"number 0 is the class TensorBoard: give TensorBoard\(\)"),
            ([CsvLog(), "csv"], r"number 1 is 'csv' \(str\), which has neither that nor open_run"),
            ([None], r"number 0 is None \(NoneType\)"),
            ([TensorBoard(), TensorBoard(thumbnails=3)], r"loggers has TensorBoard twice"),
            ([CsvLog(), CsvLog()], r"loggers has CsvLog twice"),
        ],
    )
    def test_what_is_no_logger_is_refused_by_name(self, loggers, said, tmp_path):
        with pytest.raises(ConfigError, match=said):
            Trainer(LogisticRegression(), Margin(), schedule=Schedule(batch_size=5), run_dir=tmp_path, loggers=loggers)

    def test_the_same_writer_twice_is_refused(self, tmp_path):
        writer = Writer()
        with pytest.raises(ConfigError, match="loggers has Writer twice"):
            killed_run.trainer(tmp_path, loggers=[writer, writer])

    def test_two_files_and_two_writers_are_fine(self, tmp_path):
        run = killed_run.run(tmp_path, loggers=[CsvLog("a.csv"), CsvLog("b.csv"), Writer(), Writer()])
        assert (run.folder / "a.csv").read_bytes() == (run.folder / "b.csv").read_bytes()

    def test_tensorboard_is_there_unless_others_are_given(self, tmp_path):
        trainer = Trainer(LogisticRegression(), Margin(), schedule=Schedule(batch_size=5), run_dir=tmp_path)
        assert trainer.loggers == (TensorBoard(),)

    @pytest.mark.parametrize("settings", [{"thumbnails": -1}, {"projector_rows": 0.5}, {"charts": "no"}])
    def test_settings_of_tensorboard(self, settings):
        with pytest.raises(ConfigError, match=next(iter(settings))):
            TensorBoard(**settings)


def test_loggers_of_a_run_that_was_killed_at_any_moment(tmp_path):
    for moment in ("labeled", "half a line"):
        folder = tmp_path / moment
        killed_run.run_and_be_killed(folder, moment, loggers=[CsvLog(), TensorBoard()])
        check_csv(killed_run.run(folder, loggers=[TensorBoard(), CsvLog()]))
