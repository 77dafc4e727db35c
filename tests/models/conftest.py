import pytest


@pytest.fixture
def stay_sparse(monkeypatch):
    """Small matrices are not solved as dense ones."""
    monkeypatch.setattr("torchal.models.classical.linear.dense_where_small", lambda X: X)
    monkeypatch.setattr("torchal.models.classical.linear_svm._FEW_NUMBERS", 0)
