import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.decomposition import PCA

from torchal.errors import ConfigError, DataError, ShapeError
from torchal.report import map_coordinates


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def cloud(n, d, *, seed=0, dtype=torch.float64):
    """Return rows whose directions of variance are far apart, turned at random, away from 0."""
    scales = torch.tensor([12.0, 6.0] + [1.0] * (d - 2), dtype=dtype)
    turn = torch.linalg.qr(torch.randn(d, d, generator=seeded(seed), dtype=dtype)).Q
    return torch.randn(n, d, generator=seeded(seed + 1), dtype=dtype) * scales @ turn + 7


def reference(x):
    """Return what scikit-learn finds, signs aside."""
    pca = PCA(2, svd_solver="full")
    return torch.from_numpy(pca.fit_transform(x.double().numpy())), torch.from_numpy(pca.explained_variance_ratio_)


def assert_same_up_to_signs(ours, theirs, **tolerance):
    signs = (ours * theirs).sum(0).sign()
    torch.testing.assert_close(ours, theirs * signs, **tolerance)


class TestMapCoordinates:
    def test_a_case_by_hand(self):
        # along (3, 4) / 5 lie -5, 0 and 5; across it nothing
        x = torch.tensor([[1.0, 2.0], [4.0, 6.0], [7.0, 10.0]])
        xy, explained = map_coordinates(x, generator=seeded())
        torch.testing.assert_close(xy, torch.tensor([[-5.0, 0.0], [0.0, 0.0], [5.0, 0.0]]))
        assert explained.tolist() == [pytest.approx(1.0), 0.0]

    @pytest.mark.parametrize("d", [2, 3, 40, 600])
    @pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-3), (torch.float64, 1e-5)])
    def test_finds_what_scikit_learn_finds(self, d, dtype, tolerance):
        x = cloud(300, d, dtype=dtype)
        xy, explained = map_coordinates(x, generator=seeded())
        expected, shares = reference(x)
        assert xy.dtype == dtype
        assert_same_up_to_signs(xy.double(), expected, atol=tolerance, rtol=tolerance)
        torch.testing.assert_close(explained, shares, atol=1e-5, rtol=1e-4)

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    def test_half_precision_is_computed_in_float32(self, dtype):
        x = cloud(200, 5).to(dtype)
        assert map_coordinates(x, generator=seeded()).xy.equal(map_coordinates(x.float(), generator=seeded()).xy)

    def test_a_column_of_large_numbers_does_not_drown_the_second_axis(self):
        x = cloud(300, 4, dtype=torch.float32)
        x[:, 0] *= 1e4
        assert_same_up_to_signs(
            map_coordinates(x, generator=seeded()).xy.double(), reference(x)[0], atol=0.1, rtol=1e-3
        )

    @settings(deadline=None, max_examples=50)
    @given(data=st.data(), n=st.integers(2, 12), d=st.integers(1, 6))
    def test_keeps_as_much_variance_as_any_plane(self, data, n, d):
        numbers = data.draw(st.lists(st.integers(-50, 50), min_size=n * d, max_size=n * d))
        x = torch.tensor(numbers, dtype=torch.float64).view(n, d)
        xy, explained = map_coordinates(x, generator=seeded())
        values = torch.linalg.svdvals(x - x.mean(0)).square()
        kept = values[:2].sum()
        torch.testing.assert_close(xy.square().sum(), kept, atol=1e-6, rtol=1e-6)
        torch.testing.assert_close(explained.sum() * values.sum(), kept, atol=1e-6, rtol=1e-6)

    @settings(deadline=None, max_examples=30)
    @given(seed=st.integers(0, 1000))
    def test_signs_do_not_depend_on_the_order_of_the_rows(self, seed):
        x = cloud(60, 5, seed=seed)
        order = torch.randperm(60, generator=seeded(seed))
        xy = map_coordinates(x, generator=seeded()).xy
        torch.testing.assert_close(map_coordinates(x[order], generator=seeded()).xy, xy[order])

    def test_another_sample_does_not_mirror_the_map(self):
        x = cloud(4000, 200, dtype=torch.float32)
        maps = [map_coordinates(x, generator=seeded(seed), sample=500).xy for seed in range(10)]
        for other in maps[1:]:
            assert ((maps[0] * other).sum(0) > 0).all()

    def test_equal_loadings_turn_the_axis_by_the_first(self):
        line = torch.tensor([[0.0, 0.0], [1.0, -1.0], [2.0, -2.0]])
        for x in (line, line + torch.tensor([0.1, 0.7])):
            assert (map_coordinates(x, generator=seeded()).xy[:, 0].diff() > 0).all()

    @pytest.mark.parametrize("x", [torch.full((50, 3), 0.1), torch.full((1, 4), 1e30), torch.full((9, 1), -3.0)])
    def test_rows_that_do_not_differ_lie_at_0(self, x):
        xy, explained = map_coordinates(x, generator=seeded())
        assert xy.tolist() == [[0.0, 0.0]] * len(x)
        assert explained.tolist() == [0.0, 0.0]

    def test_one_column_has_one_axis(self):
        xy, explained = map_coordinates(torch.tensor([[1.0], [2.0], [6.0]]), generator=seeded())
        assert xy.tolist() == [[-2.0, 0.0], [-1.0, 0.0], [3.0, 0.0]]
        assert explained.tolist() == [1.0, 0.0]

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    def test_rounding_is_no_second_axis(self, dtype):
        x = torch.rand(400, 1, generator=seeded(), dtype=dtype) * torch.rand(1, 30, generator=seeded(1), dtype=dtype)
        xy, explained = map_coordinates(x, generator=seeded())
        assert not xy[:, 1].any()
        assert explained.tolist() == [pytest.approx(1.0), 0.0]

    def test_duplicates_lie_on_one_point(self):
        x = cloud(30, 4, dtype=torch.float32)[torch.arange(90) % 30]
        xy = map_coordinates(x, generator=seeded(), chunk_rows=7).xy
        torch.testing.assert_close(xy[:30], xy[60:])

    @pytest.mark.parametrize("scale", [1e-30, 1e30])
    def test_numbers_near_the_ends_of_float32(self, scale):
        x = cloud(100, 3, dtype=torch.float32)
        xy = map_coordinates(x * scale, generator=seeded()).xy
        torch.testing.assert_close(xy / scale, map_coordinates(x, generator=seeded()).xy, atol=1e-3, rtol=1e-3)

    def test_a_sample_of_the_rows_is_enough(self):
        x = cloud(4000, 6, dtype=torch.float32)
        xy, explained = map_coordinates(x, generator=seeded(), sample=1000)
        whole, shares = map_coordinates(x, generator=seeded())
        for axis in range(2):
            assert torch.corrcoef(torch.stack([xy[:, axis], whole[:, axis]]))[0, 1] > 0.99
        torch.testing.assert_close(explained, shares, atol=0.05, rtol=0)
        again = map_coordinates(x, generator=seeded(), sample=1000).xy
        assert again.equal(xy)
        assert not map_coordinates(x, generator=seeded(1), sample=1000).xy.equal(xy)

    @pytest.mark.parametrize("dtype", ["f2", "f4", ">f4", "f8"])
    def test_a_mapped_file_is_as_good_as_a_tensor(self, tmp_path, dtype):
        x = cloud(300, 5).numpy().astype(dtype)
        np.save(tmp_path / "x.npy", x)
        mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
        held = torch.from_numpy(x.astype(x.dtype.newbyteorder("=")))
        for settings_ in ({}, {"chunk_rows": 32, "sample": 100}):
            expected = map_coordinates(held, generator=seeded(), **settings_)
            assert map_coordinates(mapped, generator=seeded(), **settings_).xy.equal(expected.xy)

    @pytest.mark.parametrize("bad", [float("nan"), float("inf")])
    @pytest.mark.parametrize("sample", [100, 10])
    def test_numbers_that_are_none_are_named_by_their_row(self, bad, sample):
        x = cloud(100, 3)
        x[63, 1] = bad
        with pytest.raises(DataError, match=r"features must be finite.*row 63"):
            map_coordinates(x, generator=seeded(3), sample=sample)

    def test_differences_that_overflow_are_refused(self):
        with pytest.raises(DataError, match=r"do not fit torch\.float32; scale them"):
            map_coordinates(torch.tensor([[3e38, 0.0], [-3e38, 1.0]]), generator=seeded())

    def test_bad_input_is_refused(self):
        with pytest.raises(ConfigError, match=r"sample must be a whole number of at least 2, got 1"):
            map_coordinates(cloud(5, 3), generator=seeded(), sample=1)
        with pytest.raises(ShapeError, match=r"features must have 2 axes"):
            map_coordinates(torch.zeros(3), generator=seeded())
        with pytest.raises(DataError, match=r"features has no rows"):
            map_coordinates(torch.zeros(0, 3), generator=seeded())

    @pytest.mark.gpu
    def test_on_a_gpu(self):
        x = cloud(3000, 600, dtype=torch.float32)
        found = map_coordinates(x.cuda(), generator=seeded(), sample=2000)
        assert found.xy.device.type == "cuda"
        expected = map_coordinates(x, generator=seeded(), sample=2000)
        torch.testing.assert_close(found.xy.cpu(), expected.xy, atol=1e-2, rtol=1e-3)
        assert map_coordinates(x, generator=seeded(), device="cuda").xy.device.type == "cpu"
