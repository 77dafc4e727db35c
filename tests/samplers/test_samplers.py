"""Every strategy that has a yaml file keeps the contract; the names, the files and the classes agree."""

from pathlib import Path

import pytest

from tests.contracts import NearestMean, SamplerContract, make_pool
from tests.killed_run import Drift
from torchal import ActiveLearner, ConfigError, LabeledData, Pool, samplers

YAMLS = sorted((Path(__file__).parents[2] / "experiments" / "conf" / "sampler").glob("*.yaml"))


def from_yaml(path):
    from hydra.utils import instantiate
    from omegaconf import OmegaConf

    return instantiate(OmegaConf.load(path), _convert_="object")


class TestEveryYaml(SamplerContract):
    @pytest.fixture(params=YAMLS, ids=[path.stem for path in YAMLS])
    def sampler(self, request):
        return from_yaml(request.param)


@pytest.mark.gpu
@pytest.mark.parametrize("path", YAMLS, ids=[path.stem for path in YAMLS])
def test_picks_on_a_gpu_are_those_on_the_cpu(path):
    picks = []
    for device in ("cpu", "cuda"):
        pool, targets, validation = make_pool()
        sampler = from_yaml(path)
        pool = Pool.unlabeled(pool.inputs.double().to(device), n_classes=3).with_labels(
            pool.labeled.nonzero().squeeze(1), targets[pool.labeled]
        )
        part = LabeledData(validation.inputs.double().to(device), validation.targets.to(device))
        learner = ActiveLearner(NearestMean(), sampler, pool, validation=part)
        picks.append([])
        for _ in range(4):
            rows = learner.ask(6)
            assert rows.device.type == device
            picks[-1].append(rows.tolist())
            learner.tell(rows, targets[rows.cpu()])
        learner.finish_round()
    assert picks[0] == picks[1]


def test_yaml_files_and_names_agree():
    assert [path.stem for path in YAMLS] == samplers.names()
    assert YAMLS


@pytest.mark.parametrize("path", YAMLS, ids=[path.stem for path in YAMLS])
def test_a_yaml_gives_what_its_name_gives(path):
    assert from_yaml(path) == samplers.from_name(path.stem)


def test_an_unknown_name_is_answered_with_the_known_ones():
    with pytest.raises(ConfigError, match=r"'margn'; there are bandit_discrete, .*margin, .*uniform"):
        samplers.from_name("margn")


def test_state_is_refused_where_there_is_none():
    with pytest.raises(ValueError, match="Margin has no state, got weights"):
        samplers.Margin().load_state_dict({"weights": 1})


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
