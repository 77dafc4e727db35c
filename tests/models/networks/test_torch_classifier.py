import io
import pickle
from functools import partial

import joblib
import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import load_digits, load_iris
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import check_sample_weight_equivalence_on_dense_data
from sklearn.utils.validation import has_fit_parameter
from torch import nn
from torch.utils.data import TensorDataset

from tests.contracts import check_name, scikit_learn_checks
from torchal.errors import CapabilityError, ConfigError, DataError, ShapeError
from torchal.models import MLP, TorchClassifier


class SmallMLP(MLP):
    """A class, not a function: a function's address would be in the test's name."""

    def __init__(self, n_features, n_classes):
        super().__init__(n_features, n_classes, hidden=(32,))


FAST_ADAM = partial(torch.optim.Adam, lr=0.05)
FULL_BATCH = 1000

# In float64 nothing is excluded.
EXACT = TorchClassifier(SmallMLP, precision="fp64", optimizer=FAST_ADAM, batch_size=FULL_BATCH)


@pytest.mark.parametrize(("estimator", "check"), scikit_learn_checks(EXACT), ids=check_name)
def test_scikit_learn_checks(estimator, check):
    check(estimator)


# These ask for seven equal digits, more than float32 has where another order of rows is summed up in another order.
NOT_IN_FLOAT32 = {
    "check_sample_weight_equivalence_on_dense_data",
    "check_methods_sample_order_invariance",
    "check_methods_subset_invariance",
}
WITH_DEFAULTS = [pair for pair in scikit_learn_checks(TorchClassifier()) if check_name(pair[1]) not in NOT_IN_FLOAT32]


@pytest.mark.parametrize(("estimator", "check"), WITH_DEFAULTS, ids=check_name)
def test_scikit_learn_checks_with_defaults(estimator, check):
    check(estimator)


def test_what_float32_leaves_out_exists():
    assert set(map(check_name, (check for _, check in scikit_learn_checks(TorchClassifier())))) >= NOT_IN_FLOAT32


@pytest.mark.parametrize("method", ["predict_proba", "decision_function", "transform"])
def test_rows_have_the_same_outputs_wherever_they_stand(method):
    x, y = load_digits(return_X_y=True)
    x, y = x[:300], y[:300]
    outputs = getattr(TorchClassifier(epochs=2, random_state=0).fit(x, y), method)
    whole, order = outputs(x), np.random.default_rng(0).permutation(len(x))
    scale = np.abs(whole).max()
    np.testing.assert_allclose(outputs(x[order]), whole[order], rtol=0, atol=1e-5 * scale)
    parts = np.concatenate([outputs(x[i : i + 7]) for i in range(0, len(x), 7)])
    np.testing.assert_allclose(parts, whole, rtol=0, atol=1e-5 * scale)


class Float32MLPClassifier(MLPClassifier):
    """scikit-learn's own network, computing in float32 as TorchClassifier does by default."""

    def fit(self, X, y, sample_weight=None):
        return super().fit(np.asarray(X, dtype=np.float32), y, sample_weight)

    def predict_proba(self, X):
        return super().predict_proba(np.asarray(X, dtype=np.float32))


@pytest.mark.skipif(not has_fit_parameter(MLPClassifier, "sample_weight"), reason="came with scikit-learn 1.7")
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_the_excluded_check_fails_on_scikit_learn_in_float32_too():
    with pytest.raises(AssertionError, match="not equivalent"):
        check_sample_weight_equivalence_on_dense_data("MLPClassifier", Float32MLPClassifier(max_iter=20))


def iris(dtype=np.float32):
    x, y = load_iris(return_X_y=True)
    return StandardScaler().fit_transform(x).astype(dtype), y


def digits():
    x, y = load_digits(return_X_y=True)
    return (x / 16).astype(np.float32), y


def weights_of(model):
    return torch.cat([p.detach().flatten() for p in model.module_.parameters()])


def test_learns_digits():
    x, y = digits()
    model = TorchClassifier(epochs=15).fit(x[:1200], y[:1200])
    assert model.score(x[1200:], y[1200:]) > 0.9
    assert model.loss_curve_.shape == (15,)
    assert model.loss_curve_[-1] < 0.2 * model.loss_curve_[0]


def test_same_training_as_a_plain_loop():
    x, y = iris(np.float64)
    model = TorchClassifier(SmallMLP, precision="fp64", epochs=3, batch_size=40, random_state=5, device="cpu").fit(x, y)
    seed = int(np.random.RandomState(5).randint(2**31 - 1))
    order, inputs, targets = torch.Generator().manual_seed(seed), torch.tensor(x), torch.tensor(y)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = SmallMLP(4, 3).double()
    optimizer, curve = torch.optim.Adam(net.parameters()), []
    for _ in range(3):
        losses = []
        for rows in torch.randperm(len(x), generator=order).split(40):
            loss = nn.functional.cross_entropy(net(inputs[rows]), targets[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        curve.append(np.mean(losses))
    np.testing.assert_allclose(model.loss_curve_, curve, rtol=1e-10)
    np.testing.assert_allclose(model.decision_function(x), net(inputs).detach(), rtol=1e-7, atol=1e-9)


def test_same_seed_same_weights_cold_each_time():
    x, y = iris()
    make = partial(TorchClassifier, partial(MLP, dropout=0.5), epochs=2)
    model = make(random_state=1).fit(x, y)
    first = weights_of(model)
    assert torch.equal(weights_of(model.fit(x, y)), first)
    torch.rand(3)
    assert torch.equal(weights_of(make(random_state=1).fit(x, y)), first)
    assert not torch.equal(weights_of(make(random_state=2).fit(x, y)), first)
    drawn = make(random_state=None)
    assert not torch.equal(weights_of(drawn.fit(x, y)), weights_of(drawn.fit(x, y)))
    by_state = [weights_of(make(random_state=np.random.RandomState(3)).fit(x, y)) for _ in range(2)]
    assert torch.equal(*by_state)


@pytest.mark.parametrize("random_state", [0, None])
def test_global_generators_stay(random_state):
    x, y = iris()
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    model = TorchClassifier(partial(MLP, dropout=0.5), epochs=1, random_state=random_state).fit(x, y)
    model.predict_proba(x)
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert (np.random.get_state()[1] == numpy_state).all()  # noqa: NPY002


def test_global_generators_stay_after_an_error():
    x, y = iris()
    state = torch.get_rng_state()
    with pytest.raises(DataError):
        TorchClassifier(optimizer=partial(torch.optim.SGD, lr=1e30)).fit(x, y)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("n_classes", [2, 3])
def test_tensor_in_tensor_out(n_classes):
    x, y = iris()
    x, y = x[y < n_classes], y[y < n_classes] * 10 + 5
    arrays = TorchClassifier(epochs=3, device="cpu").fit(x, y)
    tensors = TorchClassifier(epochs=3, device="cpu").fit(torch.tensor(x), torch.tensor(y))
    assert isinstance(tensors.classes_, np.ndarray)
    for method in ("predict", "predict_proba", "predict_log_proba", "decision_function", "transform"):
        ours, theirs = getattr(tensors, method)(torch.tensor(x)), getattr(arrays, method)(x)
        assert isinstance(ours, torch.Tensor)
        assert not ours.requires_grad
        assert isinstance(theirs, np.ndarray)
        np.testing.assert_array_equal(ours.numpy(), theirs)
    assert tensors.decision_function(torch.tensor(x)).shape == ((len(x),) if n_classes == 2 else (len(x), 3))
    assert tensors.score(torch.tensor(x), torch.tensor(y)) == pytest.approx(arrays.score(x, y))
    weights = np.linspace(0, 1, len(x))
    weighted = tensors.score(torch.tensor(x), torch.tensor(y), sample_weight=torch.tensor(weights))
    assert weighted == pytest.approx(arrays.score(x, y, sample_weight=weights))


def test_binary_decision_is_the_difference_of_logits():
    x, y = iris()
    x, y = x[y > 0], y[y > 0]
    model = TorchClassifier(epochs=3, device="cpu").fit(x, y)
    logits = model.module_(torch.tensor(x)).detach().numpy()
    np.testing.assert_allclose(model.decision_function(x), logits[:, 1] - logits[:, 0])
    np.testing.assert_array_equal(model.predict(x), model.classes_[(model.decision_function(x) > 0).astype(int)])


def test_transform_is_the_input_of_the_last_linear_layer():
    x, y = iris()
    model = TorchClassifier(partial(MLP, hidden=(9, 6)), epochs=1, device="cpu").fit(x, y)
    features = model.transform(torch.tensor(x))
    assert features.shape == (150, 6)
    assert torch.equal(model.module_[-1](features), model.decision_function(torch.tensor(x)))
    assert not any(layer._forward_pre_hooks for layer in model.module_.modules())


class TinyConvolution(nn.Module):
    """Names its last layer first, to show that the order of running counts."""

    def __init__(self, input_shape, n_classes):
        super().__init__()
        self.last = nn.Conv2d(4, n_classes, 1)
        self.first = nn.Conv2d(input_shape[0], 4, 3)

    def forward(self, x):
        return self.last(torch.relu(self.first(x))).mean((2, 3))


def test_rows_of_several_axes():
    x, y = digits()
    images = torch.tensor(x[:100]).reshape(-1, 1, 8, 8)
    model = TorchClassifier(TinyConvolution, epochs=1).fit(images, torch.tensor(y[:100]))
    assert model.input_shape_ == (1, 8, 8)
    assert model.predict(images).shape == (100,)
    assert model.predict_proba(images.numpy()).shape == (100, 10)
    with pytest.raises(CapabilityError, match=r"TinyConvolution has no nn\.Linear"):
        model.transform(images)
    with pytest.raises(ShapeError, match=r"\(1, 4, 16\)"):
        model.predict(images.reshape(-1, 1, 4, 16))


@pytest.mark.parametrize(
    "module",
    [
        MLP,
        partial(MLP, hidden=(5,)),
        lambda n_features, n_classes: nn.Linear(n_features, n_classes),
        lambda n_classes: nn.Sequential(nn.LazyLinear(n_classes)),
        lambda: nn.Linear(4, 3),
        partial(lambda n_features, n_classes: nn.Linear(n_features, n_classes), n_features=4),
        lambda input_shape, n_classes=7, **_: nn.Linear(*input_shape, n_classes),
    ],
)
def test_recipes_of_a_module(module):
    x, y = iris()
    if not isinstance(module, partial | type) and module.__code__.co_varnames[:1] == ("n_classes",):
        make, module = module, lambda n_classes: first_run(make(n_classes))
    assert TorchClassifier(module, epochs=1).fit(x, y).predict_proba(x).shape == (150, 3)


def first_run(net):
    net(torch.zeros(1, 4))
    return net


def test_what_a_partial_has_bound_is_kept():
    x, y = iris()
    with pytest.raises(ShapeError, match=r"logits \(n, 3\), got shape \(32, 4\)"):
        TorchClassifier(partial(MLP, n_classes=4)).fit(x, y)


def test_float64_network_computes_in_float64():
    x, y = iris(np.float64)
    model = TorchClassifier(SmallMLP, precision="fp64", epochs=1).fit(x, y)
    assert model.predict_proba(x).dtype == np.float64
    assert model.predict_proba(x.astype(np.float32)).dtype == np.float64
    assert TorchClassifier(epochs=1).fit(x, y).predict_proba(x).dtype == np.float32


@pytest.mark.parametrize("batch_size", [16, 1000])
def test_rows_of_weight_zero_are_no_rows(batch_size):
    x, y = iris()
    weights = np.random.default_rng(0).integers(0, 2, len(x))
    model = TorchClassifier(epochs=3, batch_size=batch_size)
    weighted = weights_of(clone(model).fit(x, y, sample_weight=weights))
    torch.testing.assert_close(weighted, weights_of(clone(model).fit(x[weights > 0], y[weights > 0])))


def test_full_batch_weights_are_repeated_rows():
    x, y = iris(np.float64)
    weights = np.random.default_rng(0).integers(0, 4, len(x))
    model = TorchClassifier(SmallMLP, precision="fp64", epochs=30, batch_size=FULL_BATCH)
    weighted = clone(model).fit(x, y, sample_weight=weights)
    repeated = clone(model).fit(np.repeat(x, weights, 0), np.repeat(y, weights))
    np.testing.assert_allclose(weights_of(weighted), weights_of(repeated), rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(weighted.loss_curve_, repeated.loss_curve_)
    scaled = clone(model).fit(x, y, sample_weight=weights * 7.0)
    np.testing.assert_allclose(weights_of(scaled), weights_of(weighted), rtol=1e-6, atol=1e-9)


def test_whole_numbers_reach_an_embedding_as_they_are():
    generator = torch.Generator().manual_seed(0)
    words = torch.randint(0, 30, (80, 6), generator=generator)
    y = (words == 3).any(1).long()

    def net(n_classes):
        return nn.Sequential(nn.EmbeddingBag(30, 8), nn.Linear(8, n_classes))

    model = TorchClassifier(net, optimizer=FAST_ADAM, epochs=30, cast_inputs=False, validation_fraction=0.2).fit(
        words, y
    )
    assert model.score(words, y) > 0.8
    arrays = clone(model).fit(words.numpy(), y.numpy())
    np.testing.assert_array_equal(arrays.predict_proba(words.numpy()), model.predict_proba(words).numpy())
    many = clone(model).set_params(validation_fraction=None).fit_many(words.view(2, 40, 6), y.view(2, 40))
    assert many[1].predict(words).shape == (80,)
    with pytest.raises(RuntimeError, match="Long, Int"):
        clone(model).set_params(cast_inputs=True).fit(words, y)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.bool, torch.int64, torch.float16, torch.bfloat16, torch.float64])
def test_inputs_of_any_dtype(dtype):
    x, y = iris()
    x = torch.tensor(x * 3).round().abs().to(dtype)
    expected = TorchClassifier(epochs=2).fit(x.float(), torch.tensor(y))
    model = TorchClassifier(epochs=2).fit(x, torch.tensor(y))
    torch.testing.assert_close(model.predict_proba(x), expected.predict_proba(x.float()))


def test_small_numbers_in_an_array_stay_small():
    pixels = np.random.default_rng(0).integers(0, 255, (20, 3, 4, 4), dtype=np.uint8)
    data = TorchClassifier()._training_data(pixels, np.arange(20) % 2, None)
    assert data.inputs.dtype == torch.uint8


def test_the_callers_modes_change_nothing():
    x, y = iris()
    x, y = torch.tensor(x), torch.tensor(y)
    model = TorchClassifier(partial(MLP, dropout=0.5), epochs=2, device="cpu")
    expected = model.fit(x, y).predict_proba(x)
    many = model.fit_many(x.view(2, 75, 4), y.view(2, 75))[1].predict_proba(x)
    for context in (torch.no_grad(), torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16)):
        with context:
            fitted = clone(model).fit(x, y)
            assert fitted.predict_proba(x).equal(expected)
            assert model.fit_many(x.view(2, 75, 4), y.view(2, 75))[1].predict_proba(x).equal(many)
        loss = nn.functional.cross_entropy(fitted.module_(x), y)
        loss.backward()  # its weights are ordinary ones
    torch.set_default_dtype(torch.float64)
    try:
        assert clone(model).fit(x, y).predict_proba(x).dtype == torch.float32
    finally:
        torch.set_default_dtype(torch.float32)


def test_a_fit_that_fails_leaves_no_model_of_other_data():
    x, y = iris()

    def interrupted(parameters):
        raise KeyboardInterrupt

    model = TorchClassifier(epochs=1).fit(x, y)
    with pytest.raises(KeyboardInterrupt):
        model.set_params(optimizer=interrupted).fit(x[:100], y[:100] + 5)
    with pytest.raises(NotFittedError):
        model.predict(x)


def test_loss_is_a_recipe():
    x, y = iris()
    smooth = TorchClassifier(loss=partial(nn.CrossEntropyLoss, label_smoothing=0.2), epochs=30).fit(x, y)
    sharp = TorchClassifier(epochs=30).fit(x, y)
    assert smooth.predict_proba(x).max() < sharp.predict_proba(x).max()


def test_string_labels():
    x, y = iris()
    names = np.array(["virginica", "setosa", "versicolor"])
    model = TorchClassifier(optimizer=FAST_ADAM).fit(x, names[y])
    assert list(model.classes_) == ["setosa", "versicolor", "virginica"]
    assert (model.predict(x) == names[y]).mean() > 0.9
    assert model.score(torch.tensor(x), names[y]) > 0.9
    assert TorchClassifier(epochs=1).fit(torch.tensor(x), names[y]).predict_proba(torch.tensor(x)).shape == (150, 3)
    with pytest.raises(DataError, match="do not fit in a tensor"):
        model.predict(torch.tensor(x))


def test_prediction_in_chunks_is_the_same(monkeypatch):
    x, y = iris()
    model = TorchClassifier(epochs=1).fit(x, y)
    whole = model.predict_proba(x)
    monkeypatch.setattr("torchal.models.rows._CHUNK_ROWS", (1, 7))
    np.testing.assert_allclose(model.predict_proba(x), whole, rtol=1e-5)
    with pytest.raises(DataError, match="first is row 20"):
        model.predict(torch.tensor(x).index_fill(0, torch.tensor([20, 90]), torch.nan))


def test_inside_scikit_learn():
    x, y = iris()
    model = TorchClassifier(optimizer=FAST_ADAM, epochs=5)
    grid = {"module": [partial(MLP, hidden=(4,)), MLP], "batch_size": [16, 64]}
    assert GridSearchCV(model, grid, cv=2).fit(x, y).best_score_ > 0.8
    assert cross_val_score(make_pipeline(StandardScaler(), model), x, y, cv=3).min() > 0.8
    assert make_pipeline(StandardScaler(), model, MLPClassifier(max_iter=300, tol=0.1)).fit(x, y).score(x, y) > 0.8


def test_pickle_and_joblib():
    x, y = iris()
    model = TorchClassifier(epochs=1).fit(x, y)
    assert all(p.grad is None for p in model.module_.parameters())
    buffer = io.BytesIO()
    joblib.dump(model, buffer)
    buffer.seek(0)
    for copy in (pickle.loads(pickle.dumps(model)), joblib.load(buffer)):
        np.testing.assert_array_equal(copy.predict_proba(x), model.predict_proba(x))


def test_diverging_training_names_epoch_and_batch():
    x, y = iris()
    with pytest.raises(DataError, match=r"the loss is (nan|inf) in epoch \d of 20, batch \d of 5"):
        TorchClassifier(optimizer=partial(torch.optim.SGD, lr=1e30)).fit(x, y)


X, Y = torch.rand(6, 2), torch.tensor([0, 1, 2, 0, 1, 2])
NAN = X.index_fill(0, torch.tensor([4]), torch.nan)


@pytest.mark.parametrize("kind", ["tensor", "array"])
@pytest.mark.parametrize(
    ("x", "y", "match"),
    [
        (NAN, Y, "NaN|first is row 4"),
        (X * torch.inf, Y, "infinity|first is row 0"),
        (X[:0], Y[:0], "0 sample|at least one row"),
        (X, torch.zeros(6, dtype=torch.int64), "1 class"),
        (X, Y[:4], "6 rows and y has 4|inconsistent numbers of samples"),
        (X[:, 0], Y, "at least 2 axes|Expected 2D array"),
    ],
)
def test_data_that_cannot_be_used(kind, x, y, match):
    if kind == "array":
        x, y = x.numpy(), y.numpy()
    with pytest.raises((DataError, ShapeError), match=match):
        TorchClassifier(epochs=1).fit(x, y)


@pytest.mark.parametrize(
    ("y", "weights", "error", "match"),
    [
        (Y.float(), None, ShapeError, "whole numbers, got torch.float32"),
        (Y.unsqueeze(1), None, ShapeError, r"\(6, 1\)"),
        (np.linspace(0, 1, 6), None, DataError, "continuous"),
        (Y, torch.ones(5), ShapeError, r"sample_weight must have shape \(6,\), got \(5,\)"),
        (Y, -torch.ones(6), DataError, "not be negative: 6 of 6"),
        (Y, torch.zeros(6), DataError, "all 6 are zero"),
        (Y, [1, 1, 1, 1, 1, np.nan], DataError, "sample_weight must be finite"),
        (Y, (Y == 1).float(), DataError, "got 1 class"),
    ],
)
def test_labels_and_weights_that_cannot_be_used(y, weights, error, match):
    with pytest.raises(error, match=match):
        TorchClassifier(epochs=1).fit(X, y, sample_weight=weights)


def test_prediction_of_other_columns():
    model = TorchClassifier(epochs=1).fit(X, Y)
    for x in (torch.rand(2, 3), np.random.default_rng(0).random((2, 3))):
        with pytest.raises((ShapeError, DataError), match="X has 3 features, but TorchClassifier is expecting 2"):
            model.predict(x)


@pytest.mark.parametrize(
    ("setting", "match"),
    [
        ({"epochs": 0}, "epochs must be"),
        ({"batch_size": 2.5}, "batch_size must be"),
        ({"module": MLP(2, 3)}, "made already"),
        ({"device": "nowhere"}, "nowhere"),
        ({"device": "cuda:99"}, "cuda:99"),
        ({"device": "mps"}, "no device 'mps' here"),
        ({"device": "meta"}, "nothing is computed"),
    ],
)
def test_impossible_settings(setting, match):
    with pytest.raises(ConfigError, match=match):
        TorchClassifier(**setting).fit(X, Y)


def test_tensor_on_another_accelerator():
    # the meta device stands for an accelerator that the model is not on
    model = TorchClassifier(epochs=1, device="cpu")
    with pytest.raises(ShapeError, match="X is on meta and the model on cpu"):
        model.fit(X.to("meta"), Y)
    with pytest.raises(ShapeError, match="y is on meta and the model on cpu"):
        model.fit(X, Y.to("meta"))
    with pytest.raises(ShapeError, match="X is on meta and the model on cpu"):
        model.fit(X, Y).predict(X.to("meta"))


@pytest.mark.gpu
def test_stays_on_the_gpu(monkeypatch):
    x, y = iris()
    cuda_state = torch.cuda.get_rng_state()
    gpu, labels = torch.tensor(x).cuda(), torch.tensor(y).cuda()
    model = TorchClassifier(partial(MLP, dropout=0.5), epochs=2).fit(gpu, labels)
    assert torch.equal(torch.cuda.get_rng_state(), cuda_state)
    monkeypatch.setattr(torch.Tensor, "cpu", None)  # would break a copy to the host
    monkeypatch.setattr(torch.Tensor, "numpy", None)
    for method in ("predict", "predict_proba", "predict_log_proba", "decision_function", "transform"):
        assert getattr(model, method)(gpu).is_cuda
    with pytest.raises(ShapeError, match="X is on cuda:0 and the model on cpu"):
        TorchClassifier(device="cpu").fit(gpu, labels)


@pytest.mark.gpu
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"validation_fraction": 0.2, "patience": 2},
        {"class_weight": "balanced", "max_grad_norm": 0.1},
        {"scheduler": torch.optim.lr_scheduler.CosineAnnealingLR, "scheduler_step": "batch"},
        {"optimizer": partial(torch.optim.SGD, lr=0.05, momentum=0.9)},
        {"optimizer": partial(torch.optim.RMSprop, lr=1e-3, alpha=0.9, eps=1e-7)},
        {"augment": lambda batch: batch + 0.01},
        {"loss": partial(nn.CrossEntropyLoss, label_smoothing=0.1)},
    ],
    ids=["plain", "patience", "class weights", "schedule", "sgd", "rmsprop", "augment", "loss"],
)
def test_cuda_trains_as_the_cpu_does(settings):
    x, y = map(torch.tensor, iris(np.float64))
    make = partial(TorchClassifier, SmallMLP, precision="fp64", epochs=4, **settings)
    want, found = make(device="cpu").fit(x, y), make().fit(x.cuda(), y.cuda())
    for name in ("loss_curve_", "validation_loss_curve_", "validation_accuracy_curve_"):
        if getattr(want, name) is not None:
            np.testing.assert_allclose(getattr(found, name), getattr(want, name), rtol=1e-6)
    torch.testing.assert_close(weights_of(found).cpu(), weights_of(want), rtol=1e-5, atol=1e-6)


@pytest.mark.gpu
def test_cuda_goes_on_from_the_last_weights_and_judges_on_a_part_there():
    x, y = map(torch.tensor, iris(np.float64))
    found = []
    for device in ("cpu", "cuda"):
        rows, labels = x.to(device), y.to(device)
        model = TorchClassifier(SmallMLP, precision="fp64", epochs=2, warm_start=True, device=device)
        for n in (90, 120):
            order = torch.arange(n) * 149 % 150
            some = order.to(device)
            model.fit(rows[some], labels[some], validation=(rows[120:], labels[120:]))
        found.append((weights_of(model).cpu(), torch.tensor(model.validation_loss_curve_)))
    torch.testing.assert_close(found[1], found[0], rtol=1e-5, atol=1e-6)


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["bf16-mixed", "fp16-mixed"])
def test_cuda_trains_in_mixed_precision(precision):
    x, y = map(torch.tensor, iris())
    model = TorchClassifier(SmallMLP, precision=precision, epochs=30, optimizer=FAST_ADAM).fit(x.cuda(), y.cuda())
    assert weights_of(model).dtype == torch.float32
    assert model.decision_function(x.cuda()).dtype == torch.float32
    assert model.score(x.cuda(), y.cuda()) > 0.9


@pytest.mark.gpu
@pytest.mark.parametrize("kind", ["rows here", "rows there"])
def test_cuda_reads_a_data_set(kind):
    x, y = map(torch.tensor, iris(np.float64))
    make = partial(TorchClassifier, SmallMLP, precision="fp64", epochs=3)
    rows = TensorDataset(x if kind == "rows here" else x.cuda())
    want, found = make(device="cpu").fit(x, y), make(device="cuda").fit(rows, y.cuda())
    torch.testing.assert_close(weights_of(found).cpu(), weights_of(want), rtol=1e-5, atol=1e-6)
    assert found.predict(rows).cpu().equal(want.predict(x))
