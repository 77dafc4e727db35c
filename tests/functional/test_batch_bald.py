import importlib
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.functional.test_epig import draws
from tests.references import batch_bald as reference
from torchal import BudgetError, ConfigError, DataError, ShapeError
from torchal.engine import information
from torchal.functional.batch_bald import batch_bald, joint_mutual_information

module = importlib.import_module("torchal.functional.batch_bald")


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@st.composite
def pools(draw):
    n_rows, n_draws, n_classes = draw(st.integers(1, 6)), draw(st.integers(1, 4)), draw(st.integers(1, 3))
    some = draws(n_rows, n_draws, n_classes, seed=draw(st.integers(0, 999)), scale=draw(st.floats(0.5, 9)))
    if draw(st.booleans()):  # probabilities of 0 and 1
        sure = some.exp().round()
        some = torch.where(sure.sum(2, keepdim=True) == 1, sure.log(), some)
    if draw(st.booleans()):  # copies
        some = some[torch.arange(n_rows) // 2]
    return some


def bits(*rows):
    """Return log-probabilities of two classes, given the probability of the first under each draw."""
    first = torch.tensor(rows, dtype=torch.float64)
    return torch.stack([first, 1 - first], 2).log()


FIRST_BIT, SECOND_BIT = [1.0, 1.0, 0.0, 0.0], [0.9, 0.1, 0.9, 0.1]  # under four draws


def test_literal():
    # the first two labels tell one half of the draws from the other; the third does so for other halves, with errors
    picks = batch_bald(bits(FIRST_BIT, FIRST_BIT, SECOND_BIT), 3, generator=seeded())
    assert picks.indices.tolist() == [0, 2, 1]
    noisy = math.log(2) + 0.9 * math.log(0.9) + 0.1 * math.log(0.1)
    assert picks.scores.tolist() == pytest.approx([math.log(2), noisy, 0.0], abs=1e-12)


def test_a_copy_of_a_picked_row_gains_what_a_second_label_says():
    one = draws(1, 6, 3)
    picks = batch_bald(one.expand(3, 6, 3), 3, generator=seeded())
    assert picks.indices.tolist() == [0, 1, 2]
    assert picks.scores[0] > picks.scores[1] > picks.scores[2] > 0


def test_a_doubtful_row_scores_higher_than_a_sure_one_and_than_noise():
    picks = batch_bald(bits([0.99] * 4, [0.5] * 4, SECOND_BIT), 3, generator=seeded())
    assert picks.indices.tolist() == [2, 0, 1]


@given(pools(), st.data())
def test_picks_and_gains_are_those_of_the_definition(log_probs, data):
    candidates = torch.tensor(data.draw(st.lists(st.booleans(), min_size=len(log_probs), max_size=len(log_probs))))
    candidates[data.draw(st.integers(0, len(log_probs) - 1))] = True
    n = data.draw(st.integers(1, min(4, int(candidates.sum()))))
    picks = batch_bald(log_probs, n, generator=seeded(), candidates=candidates)
    rows, gains = reference.batch_bald(log_probs.exp().tolist(), n, candidates.nonzero().squeeze(1).tolist())
    assert picks.scores.tolist() == pytest.approx(gains, abs=1e-9)
    nearly = any(abs(a - b) < 1e-9 for a, b in zip(picks.scores.tolist(), gains[1:], strict=False))
    if not nearly:  # else two gains may be equal but for the rounding of the definition
        assert picks.indices.tolist() == rows


@given(pools())
def test_the_joint_mutual_information_is_that_of_the_definition(log_probs):
    batch = log_probs[:4]
    joint = joint_mutual_information(batch, generator=seeded())
    expected = [reference.joint_mutual_information(batch[: n + 1].exp().tolist()) for n in range(len(batch))]
    assert joint.values.tolist() == pytest.approx(expected, abs=1e-9)
    assert not joint.standard_errors.any()


def plain_picks(log_probs, n):
    """Return the greedy picks, with every gain computed for every pick."""
    picks = []
    for _ in range(n):
        values = [
            -1.0
            if row in picks
            else float(joint_mutual_information(log_probs[[*picks, row]], generator=seeded()).values[-1])
            for row in range(len(log_probs))
        ]
        picks.append(max(range(len(values)), key=values.__getitem__))
    return picks


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("seed", range(3))
def test_stale_bounds_pick_what_a_look_at_every_row_picks(seed, dtype, monkeypatch):
    log_probs = draws(60, 12, 4, seed=seed, scale=1.0).to(dtype)
    monkeypatch.setattr(module, "_FIRST_BLOCK", 1)
    monkeypatch.setattr(module, "values_per_chunk", lambda device: 1)
    assert batch_bald(log_probs, 5, generator=seeded()).indices.tolist() == plain_picks(log_probs, 5)


def test_few_gains_are_computed_again(monkeypatch):
    computed = []
    gains = module._Pool._gains

    def counted(self, places, picked, dtype):
        computed.append(len(places))
        return gains(self, places, picked, dtype)

    monkeypatch.setattr(module._Pool, "_gains", counted)
    monkeypatch.setattr(module, "values_per_chunk", lambda device: 1)
    batch_bald(draws(3000, 20, 4, scale=1.0, agree=0.7, n_features=8), 6, generator=seeded())
    assert sum(computed) < 6 * 3000 / 10


@pytest.mark.parametrize("n_values", [1, 50, 2000])
def test_chunks_do_not_change_the_picks(n_values, monkeypatch):
    log_probs = draws(40, 5, 3)
    whole = batch_bald(log_probs, 5, generator=seeded(), max_configurations=30)
    monkeypatch.setattr(information, "_CACHED_VALUES", n_values)
    for place in (information, module):
        monkeypatch.setattr(place, "values_per_chunk", lambda device: n_values)
    again = batch_bald(log_probs, 5, generator=seeded(), max_configurations=30)
    assert again.indices.equal(whole.indices)
    assert again.scores.tolist() == pytest.approx(whole.scores.tolist(), abs=1e-12)


def test_scores_add_up_to_the_joint_mutual_information():
    log_probs = draws(40, 6, 3)
    picks = batch_bald(log_probs, 7, generator=seeded())
    joint = joint_mutual_information(log_probs[picks.indices], generator=seeded())
    assert picks.scores.cumsum(0).tolist() == pytest.approx(joint.values.tolist(), abs=1e-10)
    assert float(joint.values[-1]) < math.log(6)


def test_sampled_configurations_are_unbiased_and_their_standard_error_is_no_less_than_it_is_said_to_be():
    batch = draws(9, 10, 3, scale=1.0)
    exact = joint_mutual_information(batch, generator=seeded(), max_configurations=3**9).values
    found = [joint_mutual_information(batch, generator=seeded(s), max_configurations=60) for s in range(200)]
    values, errors = (torch.stack(parts) for parts in zip(*found, strict=True))
    assert not errors[:, :4].any()  # the gain of row 4 is that over the 27 configurations of the rows before
    assert values[:, :4].allclose(exact[:4])
    spread = (values - exact).square().mean(0).sqrt()[4:]
    assert ((values - exact).mean(0)[4:].abs() < 5 * spread / math.sqrt(200)).all()
    assert (errors.mean(0)[4:] > 0).all()
    assert (spread < 1.25 * errors.mean(0)[4:]).all()


def test_more_configurations_err_less():
    batch = draws(8, 10, 3, scale=1.0)
    exact = joint_mutual_information(batch, generator=seeded(), max_configurations=3**8).values[-1]
    spread = []
    for most in (30, 3000):
        found = [joint_mutual_information(batch, generator=seeded(s), max_configurations=most) for s in range(20)]
        spread.append(sum(float(joint.values[-1] - exact) ** 2 for joint in found))
    assert spread[1] < spread[0] / 50


def test_thinning_keeps_the_largest_and_the_expectation_of_all():
    weights = torch.tensor([0.02, 0.5, 0.03, 0.2, 0.1, 0.05, 0.1], dtype=torch.float64)
    mean = torch.zeros(7, dtype=torch.float64)
    for seed in range(2000):
        places, now, _ = module._thinned(weights, 4, seeded(seed))
        assert len(places) == 4
        assert {1, 3} <= set(places.tolist())
        assert float(now.sum()) == pytest.approx(1.0)
        mean += torch.zeros_like(mean).scatter_add(0, places, now) / 2000
    assert mean[[1, 3]].tolist() == pytest.approx([0.5, 0.2])
    assert mean.tolist() == pytest.approx(weights.tolist(), abs=0.015)  # 4 standard deviations at least


def test_batches_larger_than_all_configurations_go_on():
    log_probs = draws(60, 5, 4, dtype=torch.float32)
    picks = batch_bald(log_probs, 60, generator=seeded(), max_configurations=7)
    assert picks.indices.sort().values.equal(torch.arange(60))
    assert picks.scores.isfinite().all()
    again = batch_bald(log_probs, 60, generator=seeded(), max_configurations=7)
    assert picks.indices.equal(again.indices)
    assert picks.scores.equal(again.scores)


def test_the_generator_is_left_alone_while_all_configurations_fit():
    generator = seeded()
    state = generator.get_state()
    batch_bald(draws(30, 5, 3), 5, generator=generator, max_configurations=81)
    assert generator.get_state().equal(state)
    batch_bald(draws(30, 5, 3), 5, generator=generator, max_configurations=20)
    assert not generator.get_state().equal(state)


@pytest.mark.parametrize("case", ["one draw", "one class", "equal draws", "sure"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_labels_that_say_nothing_are_picked_in_order(case, dtype):
    some = {
        "one draw": draws(700, 1, 3),
        "one class": torch.zeros(700, 4, 1),
        "equal draws": draws(700, 1, 3).expand(700, 5, 3),
        "sure": torch.tensor([1.0, 0.0, 0.0]).log().expand(700, 5, 3),
    }[case].to(dtype)
    picks = batch_bald(some, 4, generator=seeded())
    assert picks.indices.tolist() == [0, 1, 2, 3]
    assert picks.scores.tolist() == pytest.approx([0.0] * 4, abs=1e-12)


def test_draws_that_exclude_each_other_make_no_nan():
    log_probs = torch.eye(4).log().expand(6, 4, 4)  # draw k says label k of every row
    picks = batch_bald(log_probs, 6, generator=seeded())
    assert picks.scores.tolist() == pytest.approx([math.log(4), 0, 0, 0, 0, 0], abs=1e-5)
    assert picks.indices.tolist() == list(range(6))


def test_equal_rows_go_to_the_lowest_whatever_the_block(monkeypatch):
    log_probs = draws(5, 6, 3).repeat_interleave(20, 0).float()[torch.randperm(100, generator=seeded(3))]
    whole = batch_bald(log_probs, 8, generator=seeded())
    first_equal = [int((log_probs == log_probs[row]).flatten(1).all(1).nonzero()[0]) for row in whole.indices]
    seen = set()
    for row, first in zip(whole.indices.tolist(), first_equal, strict=True):
        copies = (log_probs == log_probs[first]).flatten(1).all(1).nonzero().squeeze(1).tolist()
        assert row == next(copy for copy in copies if copy not in seen)
        seen.add(row)
    monkeypatch.setattr(module, "_FIRST_BLOCK", 3)
    monkeypatch.setattr(module, "values_per_chunk", lambda device: 1)
    assert batch_bald(log_probs, 8, generator=seeded()).indices.equal(whole.indices)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_rows_that_say_no_more_go_to_the_lowest(dtype):
    other = [1 - p for p in FIRST_BIT]  # says the same, by other roundings
    picks = batch_bald(bits(FIRST_BIT, [1.0] * 4, FIRST_BIT, other).to(dtype), 4, generator=seeded())
    assert picks.indices.tolist() == [0, 1, 2, 3]


def test_one_row_and_all_rows():
    assert batch_bald(draws(1, 3, 2), 1, generator=seeded()).indices.tolist() == [0]
    log_probs, candidates = draws(8, 3, 2), torch.arange(8) % 2 == 0
    picks = batch_bald(log_probs, 4, generator=seeded(), candidates=candidates)
    assert sorted(picks.indices.tolist()) == [0, 2, 4, 6]
    assert joint_mutual_information(log_probs[:0], generator=seeded()).values.shape == (0,)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_taken_and_scored_in_float32(dtype):
    log_probs = draws(40, 5, 4, scale=1.0)
    picks, exact = (batch_bald(some, 3, generator=seeded()) for some in (log_probs.to(dtype), log_probs))
    assert picks.scores.dtype == torch.float32
    assert picks.scores.tolist() == pytest.approx(exact.scores.tolist(), abs=0.05)


def test_rows_that_sum_to_one_but_nearly_do_not_add_up_over_a_batch():
    log_probs = draws(12, 5, 3, scale=0.5)
    exact = joint_mutual_information(log_probs, generator=seeded())
    found = joint_mutual_information(log_probs + 9e-4, generator=seeded())
    assert found.values.tolist() == pytest.approx(exact.values.tolist(), abs=1e-9)


def test_settings_of_the_caller_do_not_matter():
    log_probs = draws(30, 5, 3).requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        picks = batch_bald(log_probs, 3, generator=seeded())
    assert not picks.scores.requires_grad
    assert picks.indices.equal(batch_bald(log_probs.detach(), 3, generator=seeded()).indices)


@pytest.mark.parametrize("n", [0, -1, 4, 2.0, True])
def test_refuses_a_batch_that_the_pool_cannot_give(n):
    with pytest.raises(BudgetError):
        batch_bald(draws(6, 3, 2), n, generator=seeded(), candidates=torch.arange(6) < 3)


@pytest.mark.parametrize("most", [1, 0, -1, 2.5, True])
def test_refuses_no_configurations(most):
    message = "max_configurations must be a whole number of at least 2"
    with pytest.raises(ConfigError, match=message):
        batch_bald(draws(3, 3, 2), 1, generator=seeded(), max_configurations=most)
    with pytest.raises(ConfigError, match=message):
        joint_mutual_information(draws(3, 3, 2), generator=seeded(), max_configurations=most)


@pytest.mark.parametrize(
    ("log_probs", "candidates", "message"),
    [
        (torch.zeros(2, 3), None, r"log_probs must have 3 axes, got shape \(2, 3\)"),
        (torch.zeros(2, 3, 1).long(), None, "floating point"),
        (torch.zeros(2, 3, 0), None, r"at least one draw and one class, got shape \(2, 3, 0\)"),
        (torch.zeros(2, 3, 1), torch.ones(3, dtype=torch.bool), r"candidates must have shape \(2,\), got \(3,\)"),
        (torch.zeros(2, 3, 1), torch.ones(2), "candidates must be a bool tensor"),
    ],
)
def test_refuses_wrong_shapes(log_probs, candidates, message):
    with pytest.raises(ShapeError, match=message):
        batch_bald(log_probs, 1, generator=seeded(), candidates=candidates)


@pytest.mark.parametrize("bad", [math.nan, math.inf, 0.5])
def test_refuses_what_is_not_a_log_probability(bad, monkeypatch):
    monkeypatch.setattr(information, "values_per_chunk", lambda device: 12)
    log_probs = draws(9, 3, 2)
    log_probs[7, 1, 0] = bad
    with pytest.raises(DataError, match=r"row 7 sums to .* under draw 1, not to 1"):
        batch_bald(log_probs, 1, generator=seeded(), candidates=torch.arange(9) % 2 == 1)
    with pytest.raises(DataError, match="row 7 sums to"):
        joint_mutual_information(log_probs, generator=seeded())
    batch_bald(log_probs, 1, generator=seeded(), candidates=torch.arange(9) % 2 == 0)  # nobody asks about it


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_cuda_picks_the_rows_of_the_cpu(dtype):
    log_probs, candidates = draws(400, 8, 4, scale=1.0, dtype=dtype), torch.arange(400) % 3 > 0
    want = batch_bald(log_probs, 6, generator=seeded(), candidates=candidates)
    found = batch_bald(log_probs.cuda(), 6, generator=seeded(), candidates=candidates.cuda())
    assert found.indices.is_cuda
    assert found.indices.cpu().equal(want.indices)
    torch.testing.assert_close(found.scores.cpu(), want.scores, atol=1e-6, rtol=1e-5)


@pytest.mark.gpu
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_a_generator_there_thins_configurations_here_and_there(device):
    log_probs = draws(200, 8, 4, scale=1.0).to(device)
    first, again = (
        batch_bald(log_probs, 8, generator=torch.Generator("cuda").manual_seed(0), max_configurations=50)
        for _ in range(2)
    )
    assert first.indices.device.type == device
    assert first.indices.equal(again.indices)
    here = batch_bald(log_probs.cpu(), 8, generator=seeded(1), max_configurations=50)
    there = batch_bald(log_probs, 8, generator=seeded(1), max_configurations=50)
    assert there.scores.cpu().tolist() == pytest.approx(here.scores.tolist(), abs=1e-6)
