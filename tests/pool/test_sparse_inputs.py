import copy

import numpy as np
import pytest
import scipy.sparse
import torch
from sklearn.ensemble import StackingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import GaussianNB, MultinomialNB
from sklearn.svm import LinearSVC

from tests.contracts import NearestMean
from torchal import (
    ActiveLearner,
    CapabilityError,
    DataError,
    LabeledData,
    Pool,
    RunError,
    Schedule,
    ShapeError,
    Trainer,
    embed,
    rounds,
)
from torchal.data import SparseInputs
from torchal.pool import interop
from torchal.pool.inputs import as_inputs, gather, is_sparse, is_streamed
from torchal.samplers import (
    Bandit,
    Entropy,
    GraphDensity,
    Hierarchical,
    InformativeDiverse,
    KCenterGreedy,
    LeastConfidence,
    Margin,
    MarginClusterMean,
    Mixture,
    SimulateBatch,
    Uniform,
)

ROWS = np.array([[1.0, 0.0, 2.0], [0.0, 0.0, 0.0], [0.0, 3.0, 0.0], [4.0, 0.0, 5.0]])
LAYOUTS = {
    torch.sparse_coo: {},
    torch.sparse_csr: {},
    torch.sparse_csc: {},
    torch.sparse_bsr: {"blocksize": (2, 3)},
    torch.sparse_bsc: {"blocksize": (2, 3)},
}
beta = pytest.mark.filterwarnings("ignore:Sparse (CSR|CSC|BSR|BSC) tensor support is in beta")


def counts(n_rows=120, n_columns=40, n_classes=3, seed=0):
    """Return rows of word counts, mostly zero, and their classes, each of which likes words of its own."""
    rng = np.random.default_rng(seed)
    targets = np.arange(n_rows) % n_classes
    rates = np.random.default_rng(99).gamma(0.2, 1.5, (n_classes, n_columns))  # the same with every seed
    return rng.poisson(0.05 + rates[targets]).astype(float), torch.from_numpy(targets)


class TestSparseInputs:
    @pytest.mark.parametrize("form", ["csr", "csc", "coo", "lil", "dok", "bsr", "dia"])
    @pytest.mark.parametrize("kind", [scipy.sparse.csr_array, scipy.sparse.csr_matrix])
    def test_every_format_of_scipy_becomes_csr_of_the_same_kind(self, kind, form):
        inputs = as_inputs(kind(ROWS).asformat(form))
        assert isinstance(inputs, SparseInputs)
        assert isinstance(inputs.matrix, kind)
        assert (len(inputs), inputs.shape) == (4, (4, 3))
        assert inputs.matrix.toarray().tolist() == ROWS.tolist()

    @beta
    @pytest.mark.parametrize("layout", LAYOUTS, ids=str)
    def test_sparse_tensors_become_csr_arrays(self, layout):
        tensor = torch.tensor(ROWS).to_sparse(layout=layout, **LAYOUTS[layout]).requires_grad_()
        inputs = as_inputs(tensor)
        assert isinstance(inputs.matrix, scipy.sparse.csr_array)
        assert inputs.matrix.toarray().tolist() == ROWS.tolist()
        assert inputs.matrix.indices.dtype == inputs.matrix.indptr.dtype == np.int32

    def test_values_that_scipy_does_not_have_become_float32(self):
        inputs = SparseInputs(torch.tensor(ROWS, dtype=torch.bfloat16).to_sparse())
        assert inputs.matrix.dtype == np.float32
        assert inputs.matrix.toarray().tolist() == ROWS.tolist()

    @pytest.mark.gpu
    def test_a_tensor_is_moved_to_the_cpu(self):
        assert SparseInputs(torch.tensor(ROWS).to_sparse().cuda()).matrix.toarray().tolist() == ROWS.tolist()

    @pytest.mark.parametrize(
        "rows", [torch.tensor([3, 0, 3]), np.array([3, 0, 3]), [3, 0, 3], torch.tensor([3, 0, 3], dtype=torch.int32)]
    )
    def test_rows_come_in_the_order_asked_for(self, rows):
        some = SparseInputs(scipy.sparse.csr_array(ROWS))[rows]
        assert isinstance(some, SparseInputs)
        assert some.matrix.toarray().tolist() == ROWS[[3, 0, 3]].tolist()
        assert gather(some, torch.tensor([1])).matrix.toarray().tolist() == ROWS[:1].tolist()

    def test_slices_masks_and_nothing(self):
        inputs = SparseInputs(scipy.sparse.csr_matrix(ROWS))
        assert inputs[1:3].matrix.toarray().tolist() == ROWS[1:3].tolist()
        assert inputs[torch.tensor([True, False, False, True])].matrix.toarray().tolist() == ROWS[[0, 3]].tolist()
        assert inputs[torch.tensor([], dtype=torch.int64)].shape == (0, 3)
        with pytest.raises(IndexError):
            inputs[torch.tensor([4])]

    def test_a_matrix_in_order_is_shared_and_another_is_left_as_it_was(self):
        plain = scipy.sparse.csr_array(ROWS)
        assert SparseInputs(plain).matrix.data is plain.data
        offsets, columns, values = [0, 3, 3, 4], [2, 0, 2], [1.0, 2.0, 3.0]
        messy = scipy.sparse.csr_array((np.array([*values, 4.0]), [*columns, 1], offsets), shape=(3, 3))
        assert SparseInputs(messy).matrix.has_canonical_format
        assert SparseInputs(messy).matrix.toarray().tolist() == [[2, 0, 4], [0, 0, 0], [0, 4, 0]]
        assert messy.indices.tolist() == [2, 0, 2, 1]

    def test_column_numbers_are_int32_where_these_suffice(self):
        parts = [np.array(part, dtype=np.int64) for part in ([0, 2], [0, 1, 2])]
        wide = scipy.sparse.csr_array((np.ones(2), *parts), shape=(2, 3))
        assert wide.indices.dtype == np.int64
        assert SparseInputs(wide).matrix.indices.dtype == np.int32
        wider = scipy.sparse.csr_array((np.ones(2), *parts), shape=(2, 2**40))
        assert SparseInputs(wider)[torch.tensor([1])].matrix.indices.dtype == np.int64

    def test_other_byte_orders_are_read(self):
        matrix = scipy.sparse.csr_array((np.ones(2, dtype=">f4"), [2, 0], [0, 1, 2]), shape=(2, 3))
        assert SparseInputs(matrix).matrix.dtype.isnative
        assert SparseInputs(matrix).matrix.toarray().tolist() == [[0, 0, 1], [1, 0, 0]]

    @pytest.mark.parametrize(
        ("matrix", "error", "match"),
        [
            (scipy.sparse.csr_array(ROWS * 1j), DataError, "must be numbers, got a sparse matrix of complex128"),
            (scipy.sparse.csr_array((0, 4)), DataError, r"at least one row and one column, got shape \(0, 4\)"),
            (torch.zeros(4, 0).to_sparse(), DataError, r"at least one row and one column, got shape \(4, 0\)"),
            (torch.zeros(4, 2, 2).to_sparse(), ShapeError, r"two axes, got shape \(4, 2, 2\)"),
            (torch.zeros(4, 2).to_sparse(1), ShapeError, r"no dense axes, got 1 in shape \(4, 2\)"),
            (torch.zeros(4, 2), DataError, "got a torch.strided tensor"),
            (ROWS, DataError, "got ndarray"),
        ],
    )
    def test_what_cannot_be_used_is_refused(self, matrix, error, match):
        with pytest.raises(error, match=match):
            SparseInputs(matrix)

    @pytest.mark.parametrize("value", [np.nan, -np.inf])
    def test_values_that_are_not_finite_are_refused(self, value):
        bad = ROWS.copy()
        bad[2:, 1] = bad[3, 0] = value
        with pytest.raises(DataError, match="inputs must be finite: 2 of 4 rows are not, the first is row 2"):
            Pool.unlabeled(scipy.sparse.csr_array(bad), n_classes=2)

    def test_nothing_takes_them_for_an_array(self):
        inputs = SparseInputs(scipy.sparse.csr_array(ROWS))
        assert not is_sparse(inputs)
        assert not is_streamed(inputs)
        for take in (np.asarray, lambda x: MultinomialNB().fit(x, [0, 1, 0, 1])):
            with pytest.raises(CapabilityError, match=r"no array: \.matrix is sparse"):
                take(inputs)
        with pytest.raises(DataError, match="got SparseInputs"):
            embed(torch.nn.Linear(3, 2), inputs, progress=False)


class Reader:
    """A classifier that notes what it is given, and answers as NearestMean does on dense rows."""

    def __init__(self, **attributes):
        self.attributes = attributes
        self.inner = NearestMean()
        self.given = []
        vars(self).update(attributes)

    def __sklearn_clone__(self):
        return Reader(**self.attributes)

    def read(self, X):
        self.given.append(X)
        return torch.as_tensor(X.toarray())

    def fit(self, X, y):
        self.given.append(y)
        self.inner.fit(self.read(X), torch.as_tensor(y))
        self.classes_ = self.inner.classes_

    def predict(self, X):
        return self.inner.predict(self.read(X))

    def decision_function(self, X):
        return self.inner.decision_function(self.read(X))

    def predict_proba(self, X):
        return self.inner.predict_proba(self.read(X))

    def sample_log_probs(self, X, k):
        return self.inner.sample_log_probs(self.read(X), k)


def sparse_pool(n_labeled=30, kind=scipy.sparse.csr_array, **settings):
    rows, targets = counts(**settings)
    pool = Pool.unlabeled(kind(rows), n_classes=3)
    return pool.with_labels(torch.arange(n_labeled), targets[:n_labeled]) if n_labeled else pool, targets


class TestModels:
    @pytest.mark.parametrize(
        ("attributes", "takes"),
        [
            ({}, np.ndarray),
            ({"takes_tensors": True, "takes_sparse": True}, torch.Tensor),
            ({"takes_tensors": True, "takes_sparse": True, "takes_inputs": True}, torch.Tensor),
        ],
        ids=["other", "ours", "ours that reads for itself"],
    )
    def test_a_model_gets_scipy_rows_and_targets_of_its_kind(self, attributes, takes, monkeypatch):
        monkeypatch.setattr(interop, "_ROWS_PER_CALL", 50)
        pool, targets = sparse_pool()
        model = Reader(**attributes)
        interop.fit(model, *pool.training_data())
        assert isinstance(model.given[0], takes)
        view = pool.view(model, generator=torch.Generator(), validation=LabeledData(pool.inputs.matrix, targets))
        assert view.scores.shape == view.log_probs.shape == (120, 3)
        assert view.posterior_log_probs(2).shape == (120, 2, 3)
        assert view.log_probs_of(torch.tensor([7, 3])).shape == (2, 3)
        assert 0.5 < view.validation_score() <= 1
        assert all(isinstance(given, scipy.sparse.csr_array) for given in model.given[1:])
        sizes = [given.shape[0] for given in model.given[2:]]
        assert sizes[:3] == [50, 50, 20] if "takes_inputs" not in attributes else sizes[0] == 120

    def test_a_model_of_tensors_that_are_not_sparse_is_refused_before_anything_is_paid_for(self, tmp_path):
        pool, targets = sparse_pool(n_labeled=0)
        match = "NearestMean cannot read sparse rows; make them dense with .toarray"
        trainer = Trainer(NearestMean(), Margin(), schedule=Schedule(batch_size=5, budget=20), run_dir=tmp_path / "run")
        with pytest.raises(CapabilityError, match=match):
            trainer.fit(pool, lambda rows: pytest.fail(f"asked for {rows}"), start=5)
        assert not (tmp_path / "run").exists()
        dense = Pool.unlabeled(pool.inputs.matrix.toarray(), n_classes=3)
        for part in ("validation", "test"):
            with pytest.raises(CapabilityError, match=match):
                ActiveLearner(NearestMean(), Margin(), dense, **{part: LabeledData(pool.inputs.matrix, targets)})

    def test_it_is_refused_before_a_fit(self):
        class Batched(NearestMean):
            def fit(self, X, y):
                pytest.fail("was fitted")

            def fit_many(self, X, y):
                pytest.fail("were fitted")

        pool, _ = sparse_pool()
        with pytest.raises(CapabilityError, match="Batched cannot read sparse rows"):
            interop.fit(Batched(), *pool.training_data())
        with pytest.raises(CapabilityError, match="cannot read sparse rows"):
            interop.fit_many(Batched(), [pool.training_data()] * 2)

    def test_an_estimator_that_reads_no_sparse_rows_says_so_itself(self):
        pool, _ = sparse_pool()
        with pytest.raises(TypeError, match="dense data is required"):
            ActiveLearner(GaussianNB(), Margin(), pool).finish_round()

    def test_fit_many_and_refit(self):
        pool, targets = sparse_pool()
        x, y = pool.training_data()
        one, two = interop.fit_many(MultinomialNB(), [(x, y), (x[:20], y[:20])])
        assert one.feature_count_.sum() > two.feature_count_.sum()
        model = MultinomialNB()
        interop.fit(model, x, y)
        dense = Pool(pool.inputs.matrix.toarray(), pool.targets)
        rows = torch.tensor([[40, 41], [60, 70]])
        views = [one.view(model, generator=torch.Generator()).refit(rows, targets[rows]) for one in (pool, dense)]
        assert views[0].log_probs.shape == (2, 120, 3)
        torch.testing.assert_close(views[0].log_probs, views[1].log_probs)

    def test_decision_values_of_a_linear_model(self):
        pool, _ = sparse_pool(kind=scipy.sparse.csc_matrix)
        model = LinearSVC()
        interop.fit(model, *pool.training_data())
        scores = pool.view(model, generator=torch.Generator()).scores
        assert scores.numpy() == pytest.approx(model.decision_function(pool.inputs.matrix.toarray()))


class TestFeatures:
    @pytest.mark.parametrize(
        "sampler",
        [KCenterGreedy(), MarginClusterMean(), InformativeDiverse(), GraphDensity(), Hierarchical()],
        ids=lambda sampler: type(sampler).__name__,
    )
    def test_a_sampler_that_needs_dense_features_says_what_to_do(self, sampler):
        pool, _ = sparse_pool()
        learner = ActiveLearner(MultinomialNB(), sampler, pool)
        with pytest.raises(CapabilityError, match=r"a dense 120 x 40 matrix of 3\.58e-05 GiB.*TruncatedSVD.*Margin"):
            learner.ask(3)

    def test_features_and_flat_inputs(self):
        pool = Pool.unlabeled(scipy.sparse.csr_array((200_000, 100_000), dtype=np.int8), n_classes=2)
        view = pool.view(MultinomialNB(), generator=torch.Generator())
        assert view.features_from == "inputs"
        for name in ("features", "flat_inputs"):
            with pytest.raises(CapabilityError, match=r"a dense 200000 x 100000 matrix of 74\.5 GiB"):
                getattr(view, name)

    def test_an_embedding_is_there_if_it_is_dense(self):
        class Embedding(MultinomialNB):
            def transform(self, X):
                return X @ np.eye(X.shape[1], 2)

        pool, _ = sparse_pool()
        view = pool.view(Embedding(), generator=torch.Generator())
        assert view.features.equal(torch.from_numpy(pool.inputs.matrix.toarray()[:, :2]))
        picks = KCenterGreedy().select(view, 4).indices
        assert picks.equal(KCenterGreedy().select(view, 4).indices)

    def test_an_embedding_that_is_sparse_is_not_made_dense(self):
        pool, _ = sparse_pool()
        model = StackingClassifier([("a", MultinomialNB())], LogisticRegression(), cv=2, passthrough=True)
        interop.fit(model, *pool.training_data())
        with pytest.raises(CapabilityError, match=r"answered with a sparse matrix of shape \(120, 43\)"):
            _ = pool.view(model, generator=torch.Generator()).features


def logistic():
    return LogisticRegression(tol=1e-10, max_iter=5000)


SAMPLERS = [
    Margin(),
    Entropy(),
    LeastConfidence(),
    Uniform(),
    Mixture([Margin(), Entropy(), Uniform()], weights=[0.5, 0.25, 0.25]),
    Bandit([Margin(), Uniform()]),
    SimulateBatch([Margin(), Uniform()], n_sims=2, train_per_sim=2),
]


def parts(form):
    """Return a pool, its oracle, and a validation and a test part: sparse, or the same dense."""
    (rows, targets), (other, truth) = counts(), counts(seed=1)
    validation, test = LabeledData(form(other[:60]), truth[:60]), LabeledData(form(other[60:]), truth[60:])
    return Pool.unlabeled(form(rows), n_classes=3), lambda r: targets[r], validation, test


def told(results):
    records = [result.to_json() for result in results]
    return [{name: record[name] for name in ("rows", "labels", "picked_by", "n_labeled")} for record in records]


class TestLoop:
    @pytest.mark.parametrize("model", [logistic(), MultinomialNB()], ids=lambda model: type(model).__name__)
    @pytest.mark.parametrize("sampler", SAMPLERS, ids=lambda sampler: type(sampler).__name__)
    def test_the_picks_are_those_on_the_dense_rows(self, sampler, model):
        runs = []
        for form in (np.asarray, scipy.sparse.csr_matrix, scipy.sparse.coo_array):
            pool, oracle, validation, test = parts(form)
            learner = ActiveLearner(model, copy.deepcopy(sampler), pool, validation=validation, test=test)
            runs.append(list(rounds(learner, oracle, Schedule(batch_size=6, budget=33), start=torch.arange(9))))
        assert [result.n_labeled for result in runs[0]] == [9, 15, 21, 27, 33]
        assert told(runs[0]) == told(runs[1]) == told(runs[2])
        for dense, sparse in zip(runs[0], runs[1], strict=True):
            assert sparse.validation == pytest.approx(dense.validation, rel=1e-6)
            assert sparse.test == pytest.approx(dense.test, rel=1e-6)

    def test_ask_tell_save_and_load(self, tmp_path):
        def learner(form=scipy.sparse.csr_array, rows=slice(None)):
            pool, oracle, validation, _ = parts(form)
            inputs = pool.inputs[rows]
            pool = Pool.unlabeled(inputs, n_classes=3)
            return ActiveLearner(MultinomialNB(), Margin(), pool, validation=validation), oracle

        whole, oracle = learner()
        whole.tell(torch.arange(9), oracle(torch.arange(9)))
        asked = whole.ask(5)
        whole.save(tmp_path / "learner.pt")
        again, _ = learner(scipy.sparse.lil_array)  # another format, and the same rows
        again.load(tmp_path / "learner.pt")
        assert again.asked.equal(asked)
        for one in (whole, again):
            one.tell(asked, oracle(asked))
        assert whole.ask(5).equal(again.ask(5))
        for other in (learner(rows=slice(None, None, -1)), learner(rows=slice(0, 119)), learner(np.asarray)):
            with pytest.raises(RunError, match="of another pool"):
                other[0].load(tmp_path / "learner.pt")

    def test_a_run_that_was_cut_off_goes_on(self, tmp_path):
        def run(folder, *, cut_off=None):
            pool, oracle, validation, test = parts(scipy.sparse.csr_array)
            schedule, sampler = Schedule(batch_size=6, budget=33), Mixture([Margin(), Uniform()])
            settings = {"progress": False, "loggers": []}
            trainer = Trainer(MultinomialNB(), sampler, schedule=schedule, run_dir=tmp_path / folder, **settings)
            n_asked = 0

            def answer(rows):
                nonlocal n_asked
                n_asked += 1
                if n_asked == cut_off:
                    raise KeyboardInterrupt
                return oracle(rows)

            return trainer.fit(pool, answer, validation=validation, test=test, start=9)

        undisturbed = run("whole")
        with pytest.raises(KeyboardInterrupt):
            run("cut", cut_off=4)
        resumed = run("cut")
        assert resumed.finished
        assert told(resumed.rounds) == told(undisturbed.rounds)
        assert [r.test for r in resumed.rounds] == [r.test for r in undisturbed.rounds]
