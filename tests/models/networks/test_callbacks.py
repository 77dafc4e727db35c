import copy

import pytest
import torch
from sklearn.base import clone
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from torchal import ActiveLearner, Pool
from torchal.models import Callback, TensorBoardLog, TorchClassifier, TorchEnsemble
from torchal.pool import interop
from torchal.samplers import Margin

X = torch.randn(60, 5, generator=torch.Generator().manual_seed(0))
Y = (X[:, 0] > 0).long()


def scalars(folder, tag):
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0}).Reload()
    return [(event.step, event.value) for event in events.Scalars(tag)]


class Rounds(Callback):
    def __init__(self):
        self.seen = []

    def __deepcopy__(self, memo):
        return self

    def on_round(self, round):  # noqa: A002
        self.seen.append(round)


class TestTensorBoardLog:
    def test_writes_each_epoch(self, tmp_path):
        model = TorchClassifier(epochs=3, validation_fraction=0.2, callbacks=[TensorBoardLog(tmp_path)]).fit(X, Y)
        assert [step for step, _ in scalars(tmp_path, "fit/loss")] == [1, 2, 3]
        assert [value for _, value in scalars(tmp_path, "fit/loss")] == pytest.approx(list(model.loss_curve_))
        written = [value for _, value in scalars(tmp_path, "fit/validation_accuracy")]
        assert written == pytest.approx(list(model.validation_accuracy_curve_))
        for name in ("accuracy", "validation_loss", "learning_rate", "seconds"):
            assert len(scalars(tmp_path, f"fit/{name}")) == 3

    def test_each_round_of_the_loop_is_a_run(self, tmp_path):
        model = TorchClassifier(epochs=2, callbacks=[TensorBoardLog(tmp_path)])
        learner = ActiveLearner(model, Margin(), Pool.unlabeled(X, n_classes=2))
        learner.tell(torch.arange(10), Y[:10])
        for _ in range(2):
            rows = learner.ask(5)
            learner.tell(rows, Y[rows])
        assert sorted(path.name for path in tmp_path.iterdir()) == ["round=000", "round=001"]
        assert [step for step, _ in scalars(tmp_path / "round=001", "fit/loss")] == [1, 2]

    def test_a_fit_that_is_repeated_takes_the_place_of_what_it_wrote(self, tmp_path):
        log = TensorBoardLog(tmp_path)
        TorchClassifier(epochs=3, callbacks=[log]).fit(X, Y)
        TorchClassifier(epochs=2, callbacks=[log], random_state=1).fit(X, Y)
        assert [step for step, _ in scalars(tmp_path, "fit/loss")] == [1, 2]

    def test_is_closed_after_an_error(self, tmp_path):
        log = TensorBoardLog(tmp_path)
        with pytest.raises(ArithmeticError):
            TorchClassifier(optimizer=lambda p: torch.optim.SGD(p, lr=1e30), callbacks=[log]).fit(X, Y)
        assert log._writer is None
        copy.deepcopy(log)


def test_the_loop_tells_the_round():
    for wrap in (lambda m: m, lambda m: make_pipeline(StandardScaler(), m), lambda m: TorchEnsemble(m, n_members=2)):
        rounds = Rounds()
        model = wrap(TorchClassifier(epochs=1, callbacks=[rounds]))
        learner = ActiveLearner(model, Margin(), Pool.unlabeled(X, n_classes=2))
        learner.tell(torch.arange(10), Y[:10])
        for _ in range(2):
            rows = learner.ask(5)
            learner.tell(rows, Y[rows])
        assert rounds.seen == [0, 1]


def test_fits_that_are_but_tried_are_not_heard_of(tmp_path):
    heard = Rounds()
    model = TorchClassifier(epochs=1, callbacks=[TensorBoardLog(tmp_path), heard], progress=True)
    pool = Pool.unlabeled(X, n_classes=2).with_labels(torch.arange(10), Y[:10])
    interop.fit(model, *pool.training_data())
    written = sorted(tmp_path.iterdir())
    view = pool.view(model, generator=torch.Generator())
    refitted = view.refit(torch.tensor([[20], [30]]), Y[[20, 30]][:, None])
    assert sorted(tmp_path.iterdir()) == written
    settings = refitted.trials[0].model.get_params()
    assert settings["callbacks"] == [heard]  # it does not say that it only looks on, so it may be part of the fit
    assert settings["progress"] is False


def test_progress_bar(capsys):
    model = TorchClassifier(epochs=2, progress=True).fit(X, Y)
    shown = capsys.readouterr().err
    assert "fit 60 rows" in shown
    assert "accuracy" in shown
    clone(model).fit(X, Y)
    TorchClassifier(epochs=2).fit(X, Y)
    assert "fit 60 rows" in capsys.readouterr().err
