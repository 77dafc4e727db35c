"""Every strategy that has a yaml file keeps the contract; the names, the files and the classes agree."""

from pathlib import Path

import pytest
import torch
from sklearn.naive_bayes import GaussianNB

from tests.contracts import NearestMean, SamplerContract, make_pool
from tests.killed_run import Drift
from torchal import ActiveLearner, CapabilityError, ConfigError, LabeledData, Pool, samplers
from torchal.protocols import provides

YAMLS = sorted((Path(__file__).parents[2] / "experiments" / "conf" / "sampler").glob("*.yaml"))


def from_yaml(path):
    from hydra.utils import instantiate
    from omegaconf import OmegaConf

    return instantiate(OmegaConf.load(path), _convert_="object")


class TestEveryYaml(SamplerContract):
    @pytest.fixture(params=YAMLS, ids=[path.stem for path in YAMLS])
    def sampler(self, request):
        return from_yaml(request.param)


def to_device(device, pool, targets, validation):
    """Return the pool, in float64, and its validation part on a device."""
    rows = pool.labeled.nonzero().squeeze(1)
    there = Pool.unlabeled(pool.inputs.double().to(device), n_classes=3).with_labels(rows, targets[rows])
    return there, LabeledData(validation.inputs.double().to(device), validation.targets.to(device))


def asked_of(learner, targets, n_rounds=4, n=6):
    """Ask and tell, and return what was asked."""
    asked = []
    for _ in range(n_rounds):
        rows = learner.asked if len(learner.asked) else learner.ask(n)
        assert rows.device == learner.pool.device
        asked.append(rows.tolist())
        learner.tell(rows, targets[rows.cpu()])
    learner.finish_round()
    return asked


class OnCuda(NearestMean):
    """Computes on CUDA, wherever the rows are, as a network does."""

    def __sklearn_clone__(self):
        return OnCuda(self.sharpness)

    def fit(self, X, y):
        super().fit(X.cuda(), y.cuda())

    def decision_function(self, X):
        return super().decision_function(X.cuda())

    def transform(self, X):
        return super().transform(X.cuda())


def has_all(model, name):
    """Tell whether a model has what a sampler requires."""
    return all(provides(model, capability) for capability in samplers.from_name(name).requires)


PAIRS = [(name, model) for name in samplers.names() for model in (NearestMean, GaussianNB) if has_all(model(), name)]
REFUSED = sorted({name for name in samplers.names() if not has_all(GaussianNB(), name)})


@pytest.mark.gpu
@pytest.mark.parametrize(("name", "model"), PAIRS, ids=[f"{name}-{model.__name__}" for name, model in PAIRS])
def test_picks_are_those_on_the_cpu(name, model):
    asked = []
    for device in ("cpu", "cuda"):
        pool, targets, validation = make_pool()
        there, part = to_device(device, pool, targets, validation)
        learner = ActiveLearner(model(), samplers.from_name(name), there, validation=part)
        asked.append(asked_of(learner, targets))
    assert asked[0] == asked[1]


@pytest.mark.parametrize("name", REFUSED)
def test_a_model_that_lacks_something_is_refused_at_once_and_others_are_named(name):
    pool, _, validation = make_pool()
    with pytest.raises(CapabilityError, match=r"needs a model with \w+; GaussianNB has none .*torchal\."):
        ActiveLearner(GaussianNB(), samplers.from_name(name), pool, validation=validation)


@pytest.mark.gpu
@pytest.mark.parametrize("name", samplers.names())
class TestOnAGpu:
    @pytest.mark.parametrize("device", ["cpu", "cuda"])
    def test_picks_by_a_model_there_of_a_pool_here_or_there(self, name, device):
        pool, targets, validation = make_pool()
        asked = []
        for model, home in ((NearestMean(), "cpu"), (OnCuda(), device)):
            there, part = to_device(home, pool, targets, validation)
            learner = ActiveLearner(model, samplers.from_name(name), there, validation=part)
            asked.append(asked_of(learner, targets))
        assert asked[0] == asked[1]

    @pytest.mark.parametrize("device", ["cpu", "cuda"])
    def test_a_run_that_was_saved_there_goes_on_there_and_on_the_cpu(self, name, device, tmp_path):
        pool, targets, validation = make_pool()

        def learner(home):
            there, part = to_device(home, pool, targets, validation)
            return ActiveLearner(NearestMean(), samplers.from_name(name), there, validation=part)

        whole = asked_of(learner("cuda"), targets, n_rounds=5)
        cut = learner("cuda")
        assert asked_of(cut, targets, n_rounds=2) == whole[:2]
        assert cut.ask(6).tolist() == whole[2]
        cut.save(tmp_path / "learner.pt")
        resumed = learner(device)
        resumed.load(tmp_path / "learner.pt")
        assert asked_of(resumed, targets, n_rounds=3) == whole[2:]

    @pytest.mark.parametrize("n", [1, 9, 54])
    def test_a_generator_there_draws_distinct_candidates(self, name, n):
        there, part = to_device("cuda", *make_pool())
        model = NearestMean()
        model.fit(*there.training_data())
        view = there.view(model, generator=torch.Generator("cuda").manual_seed(0), validation=part)
        first, again = (samplers.from_name(name).select(view, n) for _ in range(2))
        assert first.indices.is_cuda
        assert first.scores.is_cuda
        assert first.indices.equal(again.indices)
        assert first.scores.equal(again.scores)
        assert len(first.indices.unique()) == n
        assert bool(view.candidates[first.indices].all())


def test_yaml_files_and_names_agree():
    assert [path.stem for path in YAMLS] == samplers.names()
    assert YAMLS


@pytest.mark.parametrize("path", YAMLS, ids=[path.stem for path in YAMLS])
def test_a_yaml_gives_what_its_name_gives(path):
    assert from_yaml(path) == samplers.from_name(path.stem)


def test_an_unknown_name_is_answered_with_the_known_ones():
    with pytest.raises(ConfigError, match=r"'margn'; there are .*bandit_discrete, .*margin, .*uniform"):
        samplers.from_name("margn")


def test_state_is_refused_where_there_is_none():
    with pytest.raises(ValueError, match="Margin has no state, got weights"):
        samplers.Margin().load_state_dict({"weights": 1})


class TestWeightedKCenter(SamplerContract):
    @pytest.fixture
    def sampler(self):
        return samplers.KCenterGreedy(weights="margin", outliers=0.1)


class TestOneWithState(SamplerContract):
    """The contract itself, on a sampler whose state matters."""

    @pytest.fixture
    def sampler(self):
        return Drift()


class Forgetful(Drift):
    def load_state_dict(self, state):
        pass


def test_the_contract_notices_lost_state(tmp_path):
    with pytest.raises(AssertionError):
        SamplerContract().test_state_goes_through_a_file(Forgetful(), tmp_path)
