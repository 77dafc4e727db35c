import subprocess
import sys

import pytest
import torch
from torch import nn

from torchal.models import MLP


def test_mlp_flattens_and_answers_with_logits():
    net = MLP(12, 3, hidden=(7, 5), dropout=0.5)
    assert net(torch.zeros(4, 3, 2, 2)).shape == (4, 3)
    widths = [(layer.in_features, layer.out_features) for layer in net if isinstance(layer, nn.Linear)]
    assert widths == [(12, 7), (7, 5), (5, 3)]
    assert sum(isinstance(layer, nn.Dropout) for layer in net) == 2


def test_mlp_without_hidden_layers_is_linear():
    net = MLP(2, 3, hidden=())
    assert sum(p.numel() for p in net.parameters()) == 9


def test_importing_models_loads_no_sklearn():
    code = "import sys, torchal.models as m; assert 'sklearn' not in sys.modules; print(*dir(m))"
    names = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    assert {"MLP", "LogisticRegression", "TorchClassifier"} <= set(names)


def test_unknown_name():
    import torchal.models

    with pytest.raises(AttributeError, match="no attribute 'Forest'"):
        torchal.models.Forest  # noqa: B018
