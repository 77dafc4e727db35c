import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from tests.references import statistics as reference
from torchal.errors import ConfigError, DataError, ShapeError
from torchal.statistics.rankings import cliques, critical_difference, friedman, nemenyi

tables = st.integers(2, 5).flatmap(
    lambda k: st.lists(st.lists(st.integers(0, 4), min_size=k, max_size=k), min_size=1, max_size=6)
)


class TestFriedman:
    def test_by_hand(self):
        # ranks 1 2 3, 1 2 3, 2 1 3
        found = friedman(np.array([[0.9, 0.8, 0.7], [0.9, 0.8, 0.7], [0.8, 0.9, 0.7]]))
        assert found["mean_ranks"] == pytest.approx([4 / 3, 5 / 3, 3])
        assert found["chi2"] == pytest.approx(12 / (3 * 3 * 4) * (16 + 25 + 81) - 3 * 3 * 4)
        assert found["f"] == pytest.approx(2 * found["chi2"] / (3 * 2 - found["chi2"]))
        assert found["p_f"] == pytest.approx(stats.f.sf(found["f"], 2, 4))
        assert (found["blocks"], found["methods"]) == (3, 3)

    @given(table=tables)
    def test_agrees_with_the_textbook(self, table):
        found = friedman(np.array(table))
        assert found["mean_ranks"] == pytest.approx(np.mean([reference.ranks(row) for row in table], 0))
        if any(len(set(row)) > 1 for row in table):
            assert found["chi2"] == pytest.approx(reference.friedman(table), abs=1e-9)
        else:
            assert (found["chi2"], found["p"]) == (0, 1)

    @given(table=tables.filter(lambda table: len(table[0]) > 2 and any(len(set(row)) > 1 for row in table)))
    def test_agrees_with_scipy(self, table):
        found, expected = friedman(np.array(table)), stats.friedmanchisquare(*np.array(table).T)
        assert (found["chi2"], found["p"]) == pytest.approx((expected.statistic, expected.pvalue), abs=1e-9)

    def test_lower_is_better_turns_the_ranks_and_not_the_test(self):
        table = np.array([[0.9, 0.8, 0.7], [0.9, 0.8, 0.8], [0.8, 0.9, 0.7]])
        higher, lower = friedman(table), friedman(table, lower_is_better=True)
        assert np.add(higher["mean_ranks"], lower["mean_ranks"]) == pytest.approx(4)
        assert higher["p"] == pytest.approx(lower["p"])

    def test_all_blocks_alike(self):
        found = friedman(np.array([[3.0, 2.0, 1.0]] * 4))
        assert (found["f"], found["p_f"]) == (math.inf, 0)

    def test_one_block(self):
        found = friedman(np.array([[3.0, 2.0, 1.0]]))
        assert (found["mean_ranks"], found["f"], found["p_f"]) == ([1, 2, 3], None, None)

    def test_refuses_what_has_no_ranks(self):
        with pytest.raises(DataError, match="got 3 blocks of 1 methods"):
            friedman(np.zeros((3, 1)))
        with pytest.raises(DataError, match="got 0 blocks"):
            friedman(np.zeros((0, 3)))
        with pytest.raises(DataError, match="scores must be finite: 1 of 4 are not, the first at 0, 1"):
            friedman(np.array([[1.0, math.nan], [1.0, 2.0]]))
        with pytest.raises(ShapeError, match="2 axes"):
            friedman(np.zeros(3))


class TestCriticalDifference:
    @pytest.mark.parametrize(
        ("n_methods", "q"), [(2, 1.960), (3, 2.343), (4, 2.569), (5, 2.728), (7, 2.949), (10, 3.164)]
    )
    def test_agrees_with_the_table_of_demsar(self, n_methods, q):
        found = critical_difference(n_methods, 14) / math.sqrt(n_methods * (n_methods + 1) / (6 * 14))
        assert found == pytest.approx(q, abs=0.0011)

    def test_alpha(self):
        q = critical_difference(5, 1, alpha=0.1) / math.sqrt(5)
        assert q == pytest.approx(2.459, abs=0.0011)

    def test_refuses_settings_that_are_none(self):
        with pytest.raises(ConfigError, match="n_methods"):
            critical_difference(1, 5)
        with pytest.raises(ConfigError, match="n_blocks"):
            critical_difference(2, 0)
        with pytest.raises(ConfigError, match="alpha"):
            critical_difference(2, 5, alpha=5)


class TestNemenyi:
    def test_says_what_the_critical_difference_says(self):
        table = np.random.default_rng(0).random((12, 5)) + np.arange(5) * 0.2
        ranks, found = friedman(table)["mean_ranks"], np.array(nemenyi(table))
        apart = np.abs(np.subtract.outer(ranks, ranks)) >= critical_difference(5, 12)
        assert ((found < 0.05) == apart).all()
        assert apart.any()
        assert (found == found.T).all()
        assert (found.diagonal() == 1).all()

    def test_two_methods(self):
        # with two, it is the normal test of the mean rank
        table = np.array([[1.0, 0.0]] * 6 + [[0.0, 1.0]] * 2)
        gap = abs(np.diff(friedman(table)["mean_ranks"])[0]) / math.sqrt(2 * 3 / (6 * 8))
        assert nemenyi(table)[0][1] == pytest.approx(2 * stats.norm.sf(gap), abs=1e-6)


class TestCliques:
    def test_by_hand(self):
        assert cliques([1.0, 1.5, 2.9, 3.0], 0.6) == [[0, 1], [2, 3]]
        assert cliques([3.0, 1.0], 2.5) == [[1, 0]]
        assert cliques([1.0, 5.0], 1.0) == []
        assert cliques([2.0], 1.0) == []

    def test_a_gap_of_the_critical_difference_is_one(self):
        assert cliques([1.0, 2.0], 1.0) == []
        assert cliques([0.1, 0.3], 0.3 - 0.1) == []

    @given(ranks=st.lists(st.integers(1, 12), max_size=6), gap=st.integers(1, 6))
    def test_agrees_with_all_sets(self, ranks, gap):
        found = cliques(ranks, gap)
        assert sorted(map(sorted, found)) == sorted(map(sorted, reference.cliques(ranks, gap)))
        for group in found:
            assert [ranks[i] for i in group] == sorted(ranks[i] for i in group)
