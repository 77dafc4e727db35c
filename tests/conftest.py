import gc
import os
import random

# scikit-learn skips its checks of array API input unless this is set before scipy is imported
os.environ.setdefault("SCIPY_ARRAY_API", "1")

import hypothesis
import pytest
import torch

# No test says how fast something is: on a busy machine anything may take long.
hypothesis.settings.register_profile(
    "without a clock", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("without a clock")

# Tests run in as many processes as there are cores: with more threads than that, each waits for the others.
if "PYTEST_XDIST_WORKER" in os.environ and "OMP_NUM_THREADS" not in os.environ:
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // int(os.environ["PYTEST_XDIST_WORKER_COUNT"])))
    os.environ["OMP_NUM_THREADS"] = str(torch.get_num_threads())  # of the processes that tests start


# Kernels of triton are interpreted where nothing can run them; triton asks for this once, when it is first imported.
if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")


@pytest.fixture(scope="session", autouse=True)
def no_waiting_for_the_disk():
    """Leave it to the system when it writes: a killed process loses nothing by that. Those that tests start wait."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda file: None)
        yield


@pytest.hookimpl(wrapper=True)
def pytest_collection():
    """Look for no garbage while modules and tests come to be, and never among them: they all stay."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def pytest_collection_modifyitems(items):
    if "TORCHAL_SHUFFLE" in os.environ:  # a seed, the same for all processes: no test may need another to go before it
        random.Random(int(os.environ["TORCHAL_SHUFFLE"])).shuffle(items)
    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason="needs a CUDA device, there is none"))
