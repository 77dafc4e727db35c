import math

import pytest
import torch

from torchal import DataError, MissingExtraError, ShapeError
from torchal._checks import as_rows, check_finite, check_installed


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_finite_finds_one_bad_value_wherever_it_is(bad, dtype):
    for row in (0, 3, 6):
        values = torch.ones(7, 2, 3, dtype=dtype)
        values[row, 1, 2] = bad
        with pytest.raises(DataError, match=f"x must be finite: 1 of 7 rows are not, the first is row {row}"):
            check_finite("x", values)


@pytest.mark.parametrize(
    "values", [torch.zeros(0, 3), torch.zeros(3, 0), torch.tensor([3.4e38, -3.4e38]), torch.tensor([1, 2])]
)
def test_finite_accepts_empty_large_and_whole_numbers(values):
    check_finite("x", values)


@pytest.mark.parametrize("rows", [[], torch.empty(0), torch.empty(0, dtype=torch.int32)])
def test_no_rows_are_rows(rows):
    assert as_rows("rows", rows, n_rows=3, device=torch.device("cpu")).dtype == torch.int64


@pytest.mark.parametrize("rows", [[0.5], [True], [[1]], [1 + 1j], "ab", None, ["a"], torch.empty(0, 2)])
def test_what_is_no_row_numbers_is_refused(rows):
    with pytest.raises(ShapeError, match=r"rows must be \(n,\) integers"):
        as_rows("rows", rows, n_rows=3, device=torch.device("cpu"))


def test_a_missing_package_names_its_extra():
    check_installed("torch", extra="none")
    with pytest.raises(
        MissingExtraError, match=r"hydra_of_lerna is not installed; pip install 'torchal\[experiments\]'"
    ):
        check_installed("hydra_of_lerna", extra="experiments")
    assert issubclass(MissingExtraError, ImportError)
