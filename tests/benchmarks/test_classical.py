import numpy as np
import pytest

from benchmarks.classical import PlaygroundKernelSolver, letter, letter_file
from tests.real_data import real_data
from torchal.models import KernelLeastSquares


def test_the_playgrounds_solver_and_ours_solve_the_same_problem():
    (x, y), (x_test, _) = real_data("digits", 200, 500)
    for C in (1e-6, 1e-2, 1.0):
        theirs, ours = PlaygroundKernelSolver(C=C).fit(x, y), KernelLeastSquares(C=C).fit(x, y)
        np.testing.assert_allclose(theirs.coef_, ours.dual_coef_, atol=1e-6 / C)
        np.testing.assert_array_equal(theirs.predict(x_test), ours.predict(x_test))
    with pytest.raises(ValueError, match="does not converge: 200 rows, block_size is 100"):
        PlaygroundKernelSolver(block_size=100).fit(x, y)


def test_letter_is_read_without_its_header():
    if not letter_file().exists():
        pytest.skip(f"{letter_file()} is not there: set TORCHAL_DATA to the folder with the data sets")
    x, y = letter()
    assert x.shape == (20_000, 16)
    assert "".join(np.unique(y)) == "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
    np.testing.assert_allclose([x.mean(), x.std()], [0, 1], atol=1e-9)
