from dataclasses import replace

import pytest
import torch

from torchal import ConfigError, data


def test_copies_stand_behind_each_other_and_each_has_noise_of_its_own():
    one = data.iris()
    many = data.with_repeats(one, 3, noise=0.1)
    n = len(one.train.targets)
    assert many.train.targets.equal(one.train.targets.repeat(3))
    assert many.train_rows.equal(one.train_rows.repeat(3))
    assert many.test is one.test
    assert many.validation is one.validation
    off = many.train.inputs - one.train.inputs.repeat(3, 1)
    torch.testing.assert_close(float(off.std()), 0.1 * float(one.train.inputs.std()), rtol=0.1, atol=0)
    parts = off.split(n)
    assert not torch.isclose(parts[0], parts[1]).any()
    assert abs(float(torch.corrcoef(torch.stack([part.flatten() for part in parts]))[0, 1])) < 0.15


def test_seeds_and_no_noise():
    one = data.iris()
    first, again, other = (data.with_repeats(one, 2, seed=seed).train.inputs for seed in (1, 1, 2))
    assert first.equal(again)
    assert not first.equal(other)
    assert data.with_repeats(one, 2, noise=0).train.inputs.equal(one.train.inputs.repeat(2, 1))


def test_images_and_wrong_labels_keep_their_shape():
    noisy = data.with_label_noise(data.iris(), 0.1)
    many = data.with_repeats(noisy, 2)
    assert many.true_targets.equal(noisy.true_targets.repeat(2))
    images = data.make_splits(torch.rand(12, 1, 3, 3), [0, 1] * 6, name="images")
    assert data.with_repeats(images, 2).train.inputs.shape == (16, 1, 3, 3)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"times": 0}, "repeat.times must be a whole number of at least 1, got 0"),
        ({"times": 2, "noise": -1}, "repeat.noise must be a number of at least 0, got -1"),
        ({"times": 2, "noise": "a"}, "repeat.noise must be a number"),
        ({"times": 2, "seed": -1}, "seed must be a whole number"),
    ],
)
def test_impossible_settings(settings, words):
    with pytest.raises(ConfigError, match=words):
        data.with_repeats(data.iris(), **settings)


def test_sparse_inputs_are_refused():
    from scipy.sparse import csr_array

    one = data.iris()
    rows = data.SparseInputs(csr_array(one.train.inputs.numpy()))
    with pytest.raises(ConfigError, match=r"one tensor, iris has SparseInputs"):
        data.with_repeats(replace(one, train=one.train._replace(inputs=rows)), 2)


@pytest.mark.gpu
def test_the_same_numbers_on_a_gpu():
    one = data.iris()
    there = data.with_repeats(one.to("cuda"), 2).train.inputs
    assert there.is_cuda
    torch.testing.assert_close(there.cpu(), data.with_repeats(one, 2).train.inputs)


def test_whole_numbers_get_no_noise():
    one = data.iris()
    images = replace(one, train=one.train._replace(inputs=one.train.inputs.to(torch.uint8)))
    with pytest.raises(ConfigError, match=r"repeat.noise needs inputs of floats, iris has torch.uint8"):
        data.with_repeats(images, 2)
    assert len(data.with_repeats(images, 2, noise=0).train.inputs) == 2 * len(one.train.inputs)
