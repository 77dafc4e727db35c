import os
import signal

import numpy as np
import pytest
import torch

from tests import forks
from torchal import ActiveLearner, Pool, RunError, Schedule, Trainer
from torchal.errors import CapabilityError, DataError
from torchal.models import MLP, Callback, TorchClassifier
from torchal.samplers import Margin

X = torch.randn(60, 5, generator=torch.Generator().manual_seed(0))
Y = (X[:, 0] > 0).long()


@pytest.mark.parametrize(
    "labels",
    [
        Y.numpy(),
        (Y * 2.0).numpy(),
        Y.bool().numpy(),
        np.array(["no", "yes"])[Y],
        np.array(["no", "yes"], dtype=object)[Y],
    ],
)
def test_round_trip(tmp_path, labels):
    model = TorchClassifier(epochs=2, validation_fraction=0.2).fit(X.numpy(), labels)
    model.save(tmp_path / "model.pt")
    loaded = TorchClassifier(epochs=2, validation_fraction=0.2).load(tmp_path / "model.pt")
    assert loaded.classes_.dtype == model.classes_.dtype
    for method in ("predict", "predict_proba", "transform"):
        np.testing.assert_array_equal(getattr(loaded, method)(X.numpy()), getattr(model, method)(X.numpy()))
    np.testing.assert_array_equal(loaded.validation_loss_curve_, model.validation_loss_curve_)
    assert (loaded.n_epochs_, loaded.n_features_in_, loaded.input_shape_) == (2, 5, (5,))
    assert not loaded.module_.training


def test_files_that_cannot_be_loaded(tmp_path):
    path = tmp_path / "model.pt"
    TorchClassifier(epochs=1).fit(X, Y).save(path)
    with pytest.raises(DataError, match=r"model\.pt: the weights are not of the network that module= makes"):
        TorchClassifier(lambda: MLP(5, 2, hidden=(3,))).load(path)
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(DataError, match=r"model\.pt is not a saved classifier, or is damaged"):
        TorchClassifier().load(path)
    torch.save({"weights": 5}, path)
    with pytest.raises(DataError, match="this is no saved classifier: it has no classes, "):
        TorchClassifier().load(path)
    with pytest.raises(FileNotFoundError):
        TorchClassifier().load(tmp_path / "nothing.pt")


def test_names_of_columns_and_extra_state(tmp_path):
    class WithExtra(MLP):
        extra = {"note": "kept"}

        def get_extra_state(self):
            return self.extra

        def set_extra_state(self, state):
            self.extra = state

    import pandas as pd

    frame = pd.DataFrame(X.numpy(), columns=list("abcde"))
    model = TorchClassifier(WithExtra, epochs=1).fit(frame, Y.numpy())
    model.save(tmp_path / "model.pt")
    loaded = TorchClassifier(WithExtra, epochs=1).load(tmp_path / "model.pt")
    assert list(loaded.feature_names_in_) == list("abcde")
    np.testing.assert_array_equal(loaded.predict(frame), model.predict(frame))


@pytest.mark.parametrize(
    "damage", [{"curves": {}}, {"seed": "x"}, {"input_shape": []}, {"module": 3}, {"classes_dtype": "q8"}]
)
def test_a_damaged_state_changes_nothing(damage):
    model = TorchClassifier(epochs=1).fit(X, Y)
    before = dict(model.__dict__)
    with pytest.raises(DataError, match=r"damaged|not of the network"):
        model.load_state_dict(model.state_dict() | damage)
    assert model.__dict__ == before


def test_a_pickle_is_not_run(tmp_path):
    class Evil:
        def __reduce__(self):
            return (print, ("ran",))

    torch.save({"module": Evil()}, tmp_path / "model.pt")
    with pytest.raises(DataError, match="is not a saved classifier"):
        TorchClassifier().load(tmp_path / "model.pt")


class TestWarmStartInTheLoop:
    def learner(self, **settings):
        model = TorchClassifier(epochs=2, warm_start=True, device="cpu", **settings)
        return ActiveLearner(model, Margin(), Pool.unlabeled(X, n_classes=2))

    def go_on(self, learner, rounds):
        asked = []
        for _ in range(rounds):
            rows = learner.ask(4)
            asked.append(rows.tolist())
            learner.tell(rows, Y[rows])
        return asked

    def test_weights_go_from_round_to_round(self):
        learner = self.learner()
        learner.tell(torch.arange(10), Y[:10])
        first = learner.model
        rows = learner.ask(4)
        learner.tell(rows[:2], Y[rows[:2]])
        learner.tell(rows[2:], Y[rows[2:]])
        rows = learner.pool.labeled.nonzero().squeeze(1)
        assert learner.model is not first
        expected = first.fit(X[rows], Y[rows])
        assert learner.model.predict_proba(X).equal(expected.predict_proba(X))

    @pytest.mark.parametrize("fitted", [False, True])
    @pytest.mark.parametrize("random_state", [0, np.random.RandomState(3)])
    def test_goes_on_from_a_file_as_if_never_stopped(self, tmp_path, fitted, random_state):
        whole, cut = self.learner(random_state=random_state), self.learner(random_state=random_state)
        for learner in (whole, cut):
            learner.tell(torch.arange(10), Y[:10])
        asked = self.go_on(whole, 5)
        assert self.go_on(cut, 3) == asked[:3]
        if fitted:
            assert cut.model
        cut.save(tmp_path / "learner.pt")
        resumed = self.learner(random_state=random_state)
        resumed.load(tmp_path / "learner.pt")
        assert self.go_on(resumed, 2) == asked[3:]
        assert resumed.model.predict_proba(X).equal(whole.model.predict_proba(X))

    def test_a_learner_of_another_network_is_refused(self, tmp_path):
        learner = self.learner()
        learner.tell(torch.arange(10), Y[:10])
        self.go_on(learner, 1)
        learner.save(tmp_path / "learner.pt")
        with pytest.raises(RunError, match=r"the saved model cannot be loaded: .*not of the network"):
            self.learner(module=lambda: MLP(5, 2, hidden=(3,))).load(tmp_path / "learner.pt")

    def test_models_whose_weights_cannot_be_saved_are_refused(self):
        from sklearn.linear_model import SGDClassifier

        with pytest.raises(CapabilityError, match=r"SGDClassifier with warm_start .* set warm_start=False"):
            ActiveLearner(SGDClassifier(warm_start=True), Margin(), Pool.unlabeled(X, n_classes=2))


class Kill(Callback):
    """Ends the process in the middle of the fourth fit."""

    fits = 0

    def on_epoch_end(self, epoch):
        Kill.fits += epoch.number == 1
        if Kill.fits == 4 and epoch.number == 2:
            os.kill(os.getpid(), signal.SIGKILL)


def run(folder, warm, callbacks=()):
    model = TorchClassifier(epochs=3, warm_start=warm, callbacks=callbacks, device="cpu")
    schedule, config = Schedule(batch_size=5, budget=40), {"the": "same"}
    trainer = Trainer(model, Margin(), schedule=schedule, run_dir=folder, config=config, progress=False)
    return trainer.fit(Pool.unlabeled(X, n_classes=2), lambda rows: Y[rows], start=torch.arange(10))


def run_and_be_killed(folder, warm):
    run(folder, warm, [Kill()])


@pytest.mark.parametrize("warm", [False, True])
def test_killed_in_the_middle_of_a_fit_a_run_goes_on_with_the_same_picks(tmp_path, warm):
    assert forks.exit_code(run_and_be_killed, tmp_path / "killed", warm) == -signal.SIGKILL
    whole, resumed = run(tmp_path / "whole", warm), run(tmp_path / "killed", warm)
    assert resumed.finished
    for one, other in zip(whole.rounds, resumed.rounds, strict=True):
        assert one.rows.equal(other.rows)
        assert one.scores.nan_to_num().equal(other.scores.nan_to_num())
