import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

HEAVY = ("sklearn", "scipy", "torchvision", "tensorboard", "torch.utils.tensorboard", "hydra", "faiss", "matplotlib")


def modules_after(code):
    shown = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys\nprint(*sys.modules)"], capture_output=True, text=True, check=True
    )
    return set(shown.stdout.split())


def test_import_torchal_loads_torch_and_nothing_else_heavy():
    loaded = modules_after("import torchal, torchal.data, torchal.models, torchal.runs.charts, torchal.runs.curves")
    assert {"torch", "torchal.runs.trainer", "torchal.pool"} <= loaded
    assert not loaded.intersection(HEAVY)


def test_models_bring_scikit_learn_when_they_are_asked_for():
    assert "sklearn" in modules_after("from torchal import TorchClassifier")


@pytest.mark.parametrize(
    ("package", "code"),
    [
        ("hydra", "import experiments.run"),
        ("matplotlib", "from torchal.runs import charts; charts.learning_curves({})"),
    ],
)
def test_an_absent_package_is_answered_with_its_extra(package, code):
    absent = (
        "import importlib.util as util\n"
        f"whole = util.find_spec\nutil.find_spec = lambda name: None if name == {package!r} else whole(name)\n"
    )
    done = subprocess.run([sys.executable, "-c", absent + code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert done.stderr.strip().endswith(f"{package} is not installed; pip install 'torchal[experiments]' brings it")


def test_every_public_name_is_there():
    import torchal

    for name in dir(torchal):
        assert getattr(torchal, name) is not None
    assert torchal.LogisticRegression is torchal.models.LogisticRegression


def test_an_unknown_name_is_an_attribute_error():
    import torchal

    with pytest.raises(AttributeError, match="'torchal' has no attribute 'Marginal'"):
        _ = torchal.Marginal
