"""More rows than float32 can count, and more numbers than int32 can: a file that is nothing but holes and a few rows.

Every row is zero but for those that were planted, some of them behind 2^24 rows and 2^31 numbers, so that what is
picked is known.
"""

import numpy as np
import pytest
import torch

from torchal import FileRows
from torchal.functional import assign_to_centers, k_center_greedy, kmeans_plus_plus, nearest_rows, top_n, uniform

N, D = (1 << 25) + 77, 65
PLANTED = {5: 1, (1 << 24) + 1: 2, (1 << 24) + 2: 3, (1 << 25) - 1: 4, (1 << 25) + 1: 5, N - 1: 6}


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    """Return rows in a file that takes up nearly no space."""
    path = tmp_path_factory.mktemp("many") / "x.bin"
    with path.open("wb") as file:
        file.truncate(N * D)
        for row, kind in PLANTED.items():
            file.seek(row * D)
            file.write(np.full(D, 10 * kind, np.uint8).tobytes())
    found = FileRows(path, torch.uint8, n_columns=D)
    assert len(found) * D > 2**31
    return found


@pytest.mark.slow
class TestManyRows:
    def test_k_center_picks_those_that_differ(self, rows):
        picked = k_center_greedy(rows, 8)
        planted = sorted(PLANTED, key=lambda row: -PLANTED[row])
        assert picked.indices[0] == planted[0]
        assert set(picked.indices[:7].tolist()) == {*planted, 0}  # the lowest of all zeros
        assert picked.indices[7] == 1  # and then copies, from the lowest on
        assert picked.scores[7] == 0

    def test_draws_are_those_that_differ(self, rows):
        labeled = torch.zeros(N, dtype=torch.bool)
        labeled[0] = True
        drawn = kmeans_plus_plus(rows, 6, labeled=labeled, generator=torch.Generator().manual_seed(0))
        assert set(drawn.indices.tolist()) == set(PLANTED)

    def test_weights_say_what_is_drawn_first(self, rows):
        weights = torch.zeros(N)
        weights[N - 1] = 1
        drawn = kmeans_plus_plus(rows, 1, weights=weights, generator=torch.Generator().manual_seed(0))
        assert drawn.indices.tolist() == [N - 1]

    def test_centres_have_their_rows(self, rows):
        centers = torch.tensor([0, (1 << 25) + 1])
        assigned = assign_to_centers(rows, centers).centers
        of_second = (assigned == centers[1]).nonzero().squeeze(1).tolist()
        assert of_second == sorted(row for row, kind in PLANTED.items() if kind > 2)
        assert nearest_rows(rows, torch.full((1, D), 59.0)).tolist() == [N - 1]

    def test_rows_are_found_wherever_they_are(self, rows):
        index = torch.tensor(list(PLANTED))
        assert rows.rows(index)[:, 0].tolist() == [10 * kind for kind in PLANTED.values()]

    def test_scores_and_masks(self):
        scores = torch.zeros(N)
        scores[N - 1], scores[1 << 24] = 2, 1
        assert top_n(scores, 3).indices.tolist() == [N - 1, 1 << 24, 0]
        candidates = torch.zeros(N, dtype=torch.bool)
        candidates[[1 << 24, (1 << 24) + 1, N - 1]] = True
        picked = uniform(3, candidates=candidates, generator=torch.Generator().manual_seed(0))
        assert picked.indices.sort().values.tolist() == [1 << 24, (1 << 24) + 1, N - 1]
        every = uniform(1000, candidates=torch.ones(N, dtype=torch.bool), generator=torch.Generator().manual_seed(0))
        assert len(every.indices.unique()) == 1000
        assert bool((every.indices % 2 == 1).any())  # float32 has no odd numbers up there
