"""What comes first of many values, in parts of any size, beside what torch says of them as a whole."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from torchal.engine import draws, order_statistics
from torchal.engine.order_statistics import Largest, first_between, nth_largest, nth_true

few_values = st.lists(st.sampled_from([-torch.inf, -1.0, 0.0, 0.5, 0.5, 2.0]), min_size=1, max_size=40)


@pytest.fixture(params=[1, 3, 1 << 20])
def size(request, monkeypatch):
    """Play that a temporary may hold so few numbers."""
    for module in (order_statistics, draws):
        monkeypatch.setattr(module, "values_per_chunk", lambda _: request.param)


def largest(values, n, among=None):
    """Return the rows of the n largest, the lowest of equal ones, ascending."""
    rows = [row for row in range(len(values)) if among is None or among[row]]
    return sorted(sorted(rows, key=lambda row: (-float(values[row]), row))[:n])


@settings(max_examples=200, deadline=None)
@given(few_values, st.integers(1, 45), st.integers(1, 9), st.booleans(), st.randoms())
def test_the_largest_come_first_and_the_lowest_of_equal_ones(values, n, size, masked, draw):
    values = torch.tensor(values)
    among = torch.tensor([draw.random() < 0.5 for _ in values]) if masked else None
    found = Largest(n, values)
    for start in range(0, len(values), size):
        part = slice(start, start + size)
        found.add(values[part], start, None if among is None else among[part])
    want = largest(values, n, among)
    assert found.rows.tolist() == want
    assert found.values.tolist() == values[want].tolist()
    if want:
        assert found.least == values[want].min()


def test_it_keeps_no_more_than_a_few(monkeypatch):
    found, most = Largest(5, torch.empty(0)), 0
    for start in range(0, 10_000, 100):
        found.add(torch.arange(start, start + 100.0), start)  # each part is larger than all before
        most = max(most, sum(map(len, found._rows)))
    assert most <= 100 + 2 * 5
    assert found.rows.tolist() == list(range(9995, 10_000))


def test_functions_of_all_values_are_those_of_parts(size):
    draw = torch.Generator().manual_seed(0)
    values = torch.randint(0, 9, (50,), generator=draw).float()
    mask = torch.rand(50, generator=draw) < 0.3
    for n in (1, 7, 50):
        assert nth_largest(values, n) == values.sort(descending=True).values[n - 1]
        between = ((values >= 2) & (values <= 4)).nonzero().squeeze(1)
        assert first_between(values, 2, 4, n).equal(between[:n])
    places = torch.randint(0, int(mask.sum()), (20,), generator=draw)
    assert nth_true(mask, places).equal(mask.nonzero().squeeze(1)[places])
    assert not len(nth_true(mask & False, places[:0]))


@pytest.mark.parametrize("start", [0, 1, 127, 128, 500])
@pytest.mark.parametrize("n", [0, 1, 28, 129, 1000, 1024])
def test_sums_of_groups_are_those_of_the_whole(start, n, monkeypatch):
    draw = torch.Generator().manual_seed(n)
    values, weights = (torch.randint(-2, 9, (n,), generator=draw).float() for _ in range(2))
    weights = weights.abs()
    whole = torch.zeros(((start + n) // 128 + 1) * 128)
    whole[start : start + n] = values.clamp(min=0) * weights
    want = whole.double().view(-1, 128).sum(1)
    for size in (1, 300, 1 << 20):
        monkeypatch.setattr(draws, "values_per_chunk", lambda _, size=size: size)
        sums, first = draws._sums(values, start, weights)
        assert first == start // 128
        assert sums.tolist() == want[first : first + len(sums)].tolist()
        assert not want[first + len(sums) :].any()


def test_weights_make_no_other_draws_than_products(size):
    draw = torch.Generator().manual_seed(0)
    for n_rows in (100, 20_000):
        values = torch.rand(n_rows, generator=draw) - 0.3
        weights = torch.rand(n_rows, generator=draw)
        want = draws.draw(values.clamp(min=0) * weights, 50, torch.Generator().manual_seed(1))
        got = draws.draw(values, 50, torch.Generator().manual_seed(1), weights=weights)
        assert got.equal(want)
        one = torch.ones(()).expand(n_rows)
        assert draws.draw(values, 50, torch.Generator().manual_seed(1), weights=one).equal(
            draws.draw(values.clamp(min=0), 50, torch.Generator().manual_seed(1))
        )


def test_a_race_is_that_of_all_rows_at_once(size):
    chances = torch.rand(200, generator=torch.Generator().manual_seed(0))
    chances[::3] = 0
    uniform = torch.rand(200, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    want = (-(1 - uniform).log() / chances).topk(100, largest=False).indices
    assert draws.draw_without_replacement(chances, 100, torch.Generator().manual_seed(5)).equal(want)
