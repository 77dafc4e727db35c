import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.svm import SVC

from tests.real_data import real_data
from tests.references import svm as reference
from torchal import ConfigError, DataError, ShapeError
from torchal.solvers.svm_dual import svm_dual


def double(values):
    return torch.tensor(values, dtype=torch.float64)


def rbf(x, gamma=1.0):
    return (-gamma * (x.unsqueeze(-2) - x.unsqueeze(-3)).square().sum(-1)).exp()


def random_problems(n_problems, n_rows, *, seed=0, cost=1.0, gamma=0.3):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n_problems, n_rows, 3, generator=generator, dtype=torch.float64)
    noise = torch.randn(n_problems, n_rows, generator=generator, dtype=torch.float64)
    signs = torch.where(x[..., 0] + 0.7 * noise > 0, 1.0, -1.0).double()
    signs[:, 0], signs[:, 1] = 1, -1
    weights = 10 ** torch.rand(n_problems, n_rows, generator=generator, dtype=torch.float64)
    return rbf(x, gamma), signs, cost * weights


def assert_feasible(found, signs, upper):
    assert bool(((found.alpha >= 0) & (found.alpha <= upper * signs.abs())).all())
    assert bool(((signs * found.alpha).sum(1).abs() <= 1e-13 * found.alpha.sum(1)).all())


def assert_close(a, b, tolerance):
    assert float((a - b).abs().max()) <= tolerance


def test_by_hand():
    kernel = double([[1.0, -1.0], [-1.0, 1.0]]).expand(2, -1, -1)  # of the points 1 and -1
    signs, upper = double([[1.0, -1.0]] * 2), double([[9.0, 9.0], [0.2, 0.2]])
    found = svm_dual(kernel, signs, upper, tol=1e-10)
    # f(x) = x has both on its margin; with 0.2 each f(x) = 0.4 x
    assert_close(found.alpha, double([[0.5, 0.5], [0.2, 0.2]]), 1e-12)
    assert found.alpha[1].equal(upper[1])
    assert_close(found.bias, double([0.0, 0.0]), 1e-12)
    assert float(found.violation.max()) <= 1e-10


def test_bias_by_hand():
    # rows at 0, 1 and 3, the last of the other class: the margins are at 1 and 3, so f(x) = x - 2
    x = double([[0.0], [1.0], [3.0]])
    found = svm_dual((x @ x.T)[None], double([[-1.0, -1.0, 1.0]]), double([[5.0, 5.0, 5.0]]), tol=1e-10)
    assert_close(found.alpha, double([[0.0, 0.5, 0.5]]), 1e-11)
    assert float(found.alpha[0, 0]) == 0
    assert float(found.bias[0]) == pytest.approx(-2)
    # the classes swapped, all coefficients at their bound: any bias in [-0.4, 1.2] will do
    found = svm_dual((x @ x.T)[None, 1:, 1:], double([[1.0, -1.0]]), double([[0.1, 0.1]]), tol=1e-10)
    assert found.alpha.tolist() == [[0.1, 0.1]]
    assert float(found.bias[0]) == pytest.approx(0.4)


def ragged(n_rows, seed):
    """Return n rows' places among n + 2, out of order."""
    return torch.randperm(n_rows + 2, generator=torch.Generator().manual_seed(seed))[:n_rows]


@settings(max_examples=50, deadline=None, derandomize=True)
@given(
    st.integers(2, 9).flatmap(
        lambda n: st.tuples(
            hnp.arrays(np.float64, (n, 2), elements=st.integers(-3, 3)),  # often equal
            hnp.arrays(np.bool_, n - 2),
            hnp.arrays(np.float64, n, elements=st.sampled_from([0.01, 0.5, 1.0, 3.0, 100.0])),
            st.sampled_from([0.05, 0.5, 5.0]),
        )
    )
)
def test_agrees_with_the_reference(case):
    x, positive, upper, gamma = case
    signs = np.where(np.append([True, False], positive), 1.0, -1.0)
    kernel = rbf(torch.from_numpy(x), gamma).numpy()
    want = reference.smo(kernel, signs, upper)
    n = len(signs)
    places = ragged(n, n)
    padded_kernel = torch.full((1, n + 2, n + 2), 7.0, dtype=torch.float64)
    padded_kernel[0, places[:, None], places] = torch.from_numpy(kernel)
    padded_signs, padded_upper = torch.zeros(2, 1, n + 2, dtype=torch.float64)
    padded_signs[0, places], padded_upper[0, places] = torch.from_numpy(signs), torch.from_numpy(upper)
    found = svm_dual(padded_kernel, padded_signs, padded_upper, tol=1e-9)
    assert_feasible(found, padded_signs, padded_upper)
    alpha = found.alpha[0, places].numpy()
    assert float(found.violation[0]) <= 1e-9
    assert reference.violation(kernel, signs, upper, alpha) == pytest.approx(float(found.violation[0]), abs=1e-12)
    assert float(found.bias[0]) == pytest.approx(reference.bias(kernel, signs, upper, alpha), abs=1e-11)
    least = reference.objective(kernel, signs, want)
    assert reference.objective(kernel, signs, alpha) == pytest.approx(least, rel=1e-9, abs=1e-12)
    # coefficients of equal rows may differ, decision values may not
    np.testing.assert_allclose(kernel @ (signs * alpha), kernel @ (signs * want), atol=1e-6)
    ends = sorted(reference.extremes(kernel, signs, upper, want))
    assert ends[0] - 1e-7 <= float(found.bias[0]) <= ends[1] + 1e-7


@pytest.mark.parametrize("cost", [0.01, 1.0, 100.0])
def test_agrees_with_libsvm(cost):
    kernel, signs, upper = random_problems(6, 40, seed=1, cost=cost)
    kernel = kernel.float().double()  # libsvm keeps kernels in single precision
    found = svm_dual(kernel, signs, upper, tol=1e-10)
    assert float(found.violation.max()) <= 1e-10
    assert_feasible(found, signs, upper)
    for i in range(len(kernel)):
        k, s = kernel[i].numpy(), signs[i].numpy()
        model = SVC(C=1.0, kernel="precomputed", tol=1e-10).fit(k, s, sample_weight=upper[i].numpy())
        want = np.zeros(len(s))
        want[model.support_] = model.dual_coef_[0] * s[model.support_]
        np.testing.assert_allclose(found.alpha[i].numpy(), want, atol=1e-8 * max(cost, 1))
        assert float(found.bias[i]) == pytest.approx(model.intercept_[0], abs=1e-8)
        mine = k @ (s * found.alpha[i].numpy()) + float(found.bias[i])
        np.testing.assert_allclose(mine, model.decision_function(k), atol=1e-8)


def hard_kernels():
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(24, 3, generator=generator, dtype=torch.float64)
    some = torch.where(torch.rand(24, generator=generator) < 0.5, 1.0, -1.0).double()
    apart = torch.where(x[:, 0] > 0, 1.0, -1.0).double()
    few = double([1.0] + [-1.0] * 23)
    twice = x[torch.arange(24) // 4]
    same = torch.where(twice[:, 0] > 0, 1.0, -1.0).double()
    shifted = x + apart[:, None]
    return {
        "any labels": (rbf(x), some),
        "separable": (rbf(shifted), apart),
        "equal rows": (rbf(twice), some),
        "equal rows of equal classes": (rbf(twice), same),
        "singular": (x @ x.T, some),
        "singular and separable": (shifted @ shifted.T, apart),
        "one against all": (rbf(x), few),
        "ones": (torch.ones(24, 24, dtype=torch.float64), some),
        "zeros": (torch.zeros(24, 24, dtype=torch.float64), some),
        "identity": (torch.eye(24, dtype=torch.float64), some),
        "nearly ones": (rbf(x, 1e-5), some),
        "small": (1e-6 * x @ x.T, some),
        "negative eigenvalues by rounding": (rbf(x, 0.01).float().double(), some),
    }


HARD = hard_kernels()


@pytest.mark.parametrize("name", HARD)
def test_hard_problems(name):
    kernel, signs = HARD[name]
    weights = 10 ** (6 * torch.rand(4, 24, generator=torch.Generator().manual_seed(4), dtype=torch.float64) - 3)
    weights = torch.cat([torch.ones(1, 24, dtype=torch.float64), weights])
    upper = (10.0 ** torch.arange(-4.0, 5).double()[:, None, None] * weights).flatten(0, 1)
    n = len(upper)
    kernel, signs = kernel.expand(n, -1, -1), signs.expand(n, -1)
    found = svm_dual(kernel, signs, upper, tol=1e-8)
    assert_feasible(found, signs, upper)
    # coefficients up to 1e7 leave no more digits
    assert bool((found.violation <= torch.where(upper.amax(1) > 1e5, 1e-6, 1e-8)).all())
    assert int(found.n_iter.max()) <= 60
    assert not bool(found.alpha.isnan().any() | found.bias.isnan().any())


def test_two_rows():
    kernel = torch.stack([torch.eye(2), torch.ones(2, 2), torch.zeros(2, 2)]).double()
    upper = double([[0.1, 30.0]] * 3)
    found = svm_dual(kernel, double([[1.0, -1.0]] * 3), upper, tol=1e-9)
    assert found.alpha.tolist() == [[0.1, 0.1]] * 3
    found = svm_dual(kernel, double([[1.0, -1.0]] * 3), 100 * upper, tol=1e-9)
    assert_close(found.alpha, double([[1.0, 1.0], [10.0, 10.0], [10.0, 10.0]]), 1e-12)


def test_all_coefficients_at_balanced_bounds():
    # as with class weights: both classes have the same sum, but for rounding
    kernel, signs, _ = random_problems(5, 37, seed=5)
    counts = torch.stack([(signs > 0).sum(1), (signs < 0).sum(1)]).double()
    for cost in (1e-3, 0.1 / 3):
        upper = torch.where(signs > 0, cost * 37 / (2 * counts[0, :, None]), cost * 37 / (2 * counts[1, :, None]))
        found = svm_dual(kernel, signs, upper, tol=1e-9)
        assert float(found.violation.max()) <= 1e-9
        if cost == 1e-3:
            assert found.alpha.equal(upper)


def test_one_class_or_none():
    kernel = torch.eye(3, dtype=torch.float64).expand(4, -1, -1)
    signs = double([[1.0, 1.0, 0.0], [-1.0, -1.0, -1.0], [0.0, 0.0, 0.0], [0.0, 1.0, -1.0]])
    found = svm_dual(kernel, signs, torch.ones_like(signs), tol=1e-9)
    assert found.alpha[:3].eq(0).all()
    assert_close(found.bias, double([1.0, -1.0, 0.0, 0.0]), 1e-12)
    assert found.violation[:3].tolist() == [0.0, 0.0, 0.0]
    assert found.n_iter[:3].tolist() == [0, 0, 0]
    assert_close(found.alpha[3], double([0.0, 1.0, 1.0]), 1e-12)
    none = svm_dual(kernel[:0], signs[:0], signs[:0], tol=1e-9)
    assert none.alpha.shape == (0, 3)
    assert none.bias.shape == none.violation.shape == none.n_iter.shape == (0,)


def test_a_batch_is_each_alone():
    parts = [random_problems(4, 30, seed=seed, cost=cost) for seed, cost in enumerate((1e-3, 1.0, 30.0, 1e4))]
    kernel, signs, upper = (torch.cat(values) for values in zip(*parts, strict=True))
    together = svm_dual(kernel, signs, upper, tol=1e-9)
    assert int(together.n_iter.min()) < int(together.n_iter.max())  # so that some leave early
    for i in range(len(kernel)):
        alone = svm_dual(kernel[i : i + 1], signs[i : i + 1], upper[i : i + 1], tol=1e-9)
        assert_close(alone.alpha[0], together.alpha[i], 1e-9 * max(1.0, float(together.alpha[i].max())))
        assert_close(alone.bias[0], together.bias[i], 1e-9)
        assert int(alone.n_iter[0]) == int(together.n_iter[i])


def test_the_order_of_rows_and_where_padding_is_do_not_matter():
    kernel, signs, upper = random_problems(8, 25, seed=7, cost=3.0)
    found = svm_dual(kernel, signs, upper, tol=1e-9)
    generator = torch.Generator().manual_seed(8)
    places = torch.stack([torch.randperm(32, generator=generator)[:25] for _ in range(8)])
    problem = torch.arange(8)[:, None]
    wide = 50 * torch.randn(8, 32, 32, generator=generator, dtype=torch.float64)
    wide[problem[..., None], places[:, :, None], places[:, None, :]] = kernel
    wide_signs, wide_upper = torch.zeros(8, 32, dtype=torch.float64), -torch.ones(8, 32, dtype=torch.float64)
    wide_signs[problem, places], wide_upper[problem, places] = signs, upper
    moved = svm_dual(wide, wide_signs, wide_upper, tol=1e-9)
    assert_close(moved.alpha[problem, places], found.alpha, 1e-9)
    assert_close(moved.bias, found.bias, 1e-9)
    assert moved.alpha[wide_signs == 0].eq(0).all()


def test_classes_swapped():
    kernel, signs, upper = random_problems(5, 20, seed=9)
    found, swapped = svm_dual(kernel, signs, upper, tol=1e-9), svm_dual(kernel, -signs, upper, tol=1e-9)
    assert_close(swapped.alpha, found.alpha, 1e-9)
    assert_close(swapped.bias, -found.bias, 1e-9)


def test_inputs_are_left_alone():
    kernel, signs, upper = random_problems(5, 20, seed=10)
    signs[:, -3:] = 0
    before = kernel.clone(), signs.clone(), upper.clone()
    svm_dual(kernel, signs, upper, tol=1e-9)
    assert all(a.equal(b) for a, b in zip(before, (kernel, signs, upper), strict=True))


def test_stops_when_told():
    kernel, signs, upper = random_problems(5, 30, seed=11, cost=10.0)
    exact = svm_dual(kernel, signs, upper, tol=1e-10)
    for steps in (1, 3):
        few = svm_dual(kernel, signs, upper, tol=1e-10, max_iter=steps)
        assert few.n_iter.tolist() == [steps] * 5
        assert float(few.violation.min()) > 1e-10
        assert_feasible(few, signs, upper)
    loose = svm_dual(kernel, signs, upper, tol=0.5)
    assert float(loose.violation.max()) <= 0.5
    assert bool((loose.n_iter < exact.n_iter).all())


def letter_pairs(n_rows):
    ((x, y),) = real_data("letter", n_rows)
    letters = torch.tensor([ord(letter) - ord("A") for letter in y])
    members = [torch.cat([(letters == a).nonzero(), (letters == b).nonzero()]).squeeze(1) for a, b in PAIRS]
    return torch.from_numpy(x), members, letters


PAIRS = [(a, b) for a in range(26) for b in range(a + 1, 26)]


def test_all_pairs_of_letters():
    x, members, letters = letter_pairs(1333)
    n_rows = max(map(len, members))
    rows = torch.stack([torch.nn.functional.pad(member, (0, n_rows - len(member))) for member in members])
    signs = torch.zeros(len(PAIRS), n_rows, dtype=torch.float64)
    for i, member in enumerate(members):
        signs[i, : len(member)] = torch.where(letters[member] == PAIRS[i][0], -1.0, 1.0).double()
    whole = rbf(x, 1 / 16).float().double()
    for first, cost in enumerate((1.0, 100.0)):  # every second pair each
        for chunk in torch.arange(first, len(PAIRS), 2).split(100):
            at = rows[chunk]
            kernel = whole[at[:, :, None], at[:, None, :]]
            found = svm_dual(kernel, signs[chunk], torch.full_like(signs[chunk], cost), tol=1e-8)
            assert float(found.violation.max()) <= 1e-8
            assert int(found.n_iter.max()) <= 20
            for i in range(0, len(chunk), 5):
                live = signs[chunk[i]] != 0
                k, s, alpha = (
                    v.numpy() for v in (kernel[i][live][:, live], signs[chunk[i], live], found.alpha[i, live])
                )
                model = SVC(C=cost, kernel="precomputed", tol=1e-10).fit(k, s)
                want = np.zeros(len(s))
                want[model.support_] = model.dual_coef_[0] * s[model.support_]
                least = reference.objective(k, s, want)
                assert reference.objective(k, s, alpha) == pytest.approx(least, rel=1e-12)
                assert float(found.bias[i]) == pytest.approx(model.intercept_[0], abs=1e-8)


@pytest.mark.gpu
def test_a_gpu_finds_the_same():
    kernel, signs, upper = random_problems(20, 60, seed=12, cost=10.0)
    signs[:7, 40:] = 0
    here = svm_dual(kernel, signs, upper, tol=1e-9)
    there = svm_dual(kernel.cuda(), signs.cuda(), upper.cuda(), tol=1e-9)
    assert_close(there.alpha.cpu(), here.alpha, 1e-8)
    assert_close(there.bias.cpu(), here.bias, 1e-8)
    assert float(there.violation.max()) <= 1e-9


GOOD = random_problems(2, 3)


def call(kernel=GOOD[0], signs=GOOD[1], upper=GOOD[2], tol=1e-6, **settings):
    return svm_dual(kernel, signs, upper, tol=tol, **settings)


@pytest.mark.parametrize(
    ("wrong", "error", "match"),
    [
        ({"kernel": GOOD[0].float()}, ShapeError, "kernel must be torch.float64, got torch.float32"),
        ({"signs": GOOD[1].long()}, ShapeError, "signs must be floating point"),
        ({"signs": GOOD[1][0]}, ShapeError, "signs must have 2 axes"),
        ({"signs": GOOD[1][:, :0]}, ShapeError, "at least one column"),
        ({"upper": GOOD[2][:, :2]}, ShapeError, r"upper must have shape \(2, 3\), got \(2, 2\)"),
        ({"kernel": GOOD[0][:, :2]}, ShapeError, r"kernel must have shape \(2, 3, 3\), got \(2, 2, 3\)"),
        ({"upper": GOOD[2].to("meta")}, ShapeError, "upper must be on cpu, got meta"),
        ({"kernel": GOOD[0] / 0}, DataError, "kernel must be finite"),
        ({"upper": GOOD[2] / 0}, DataError, "upper must be finite"),
        ({"signs": GOOD[1] / 2}, DataError, "signs must be -1, 0 or 1: 6 of 6 are not"),
        ({"signs": GOOD[1] * torch.nan}, DataError, "signs must be -1, 0 or 1"),
        ({"upper": GOOD[2] * double([0.0, 1.0, 1.0])}, DataError, "upper must be positive: 2 of 6 are not"),
        ({"tol": 0.0}, ConfigError, "tol must be positive, got 0.0"),
        ({"max_iter": 0}, ConfigError, "max_iter must be a whole number of at least 1, got 0"),
    ],
)
def test_errors(wrong, error, match):
    with pytest.raises(error, match=match):
        call(**wrong)
