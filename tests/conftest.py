import os

# scikit-learn skips its checks of array API input unless this is set before scipy is imported
os.environ.setdefault("SCIPY_ARRAY_API", "1")

import pytest
import torch


def pytest_collection_modifyitems(items):
    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason="needs a CUDA device, there is none"))
