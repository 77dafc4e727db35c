import copy

import pytest
import torch

from tests.contracts import NearestMean, make_pool, make_view
from torchal import ActiveLearner, ConfigError, DataError, Pool, PoolView, RoundResult, Schedule, Trainer, rounds
from torchal.functional import ClusterTree, cluster_tree
from torchal.runs.results import find_runs
from torchal.samplers import Hierarchical


def labels_needed(n_clusters, n_classes, most, seed):
    """Return how many labels the sampler asks for until its propagated labels are right for every row.

    Clusters are pure and far apart, the more so those of different classes.
    """
    generator = torch.Generator().manual_seed(seed)
    centers = 20 * torch.randn(n_clusters, 2, generator=generator)
    centers[:, 0] += 500 * (torch.arange(n_clusters) % n_classes)
    cluster = torch.arange(20 * n_clusters) % n_clusters
    inputs = centers[cluster] + 0.3 * torch.randn(len(cluster), 2, generator=generator)
    targets = cluster % n_classes
    sampler = Hierarchical()
    learner = ActiveLearner(NearestMean(), sampler, Pool.unlabeled(inputs, n_classes=n_classes), seed=seed)
    schedule = Schedule(batch_size=1, budget=most)
    for result in rounds(learner, lambda rows: targets[rows], schedule, start=1):
        sampler.select(make_view(learner.pool), 1)  # there is no tree before
        if sampler.propagated_labels().equal(targets):
            return result.n_labeled
    return None


@pytest.mark.parametrize("seed", range(20))
def test_pure_clusters_are_all_labeled_right_from_two_labels_for_each(seed):
    assert labels_needed(20, n_classes=2, most=40, seed=seed) is not None


@pytest.mark.parametrize("seed", range(3))
def test_where_each_cluster_is_a_class_of_its_own_more_labels_are_needed(seed):
    # Two clusters with two labels each have bounds of 0 and 1 at the node that joins them: it is not split yet.
    assert labels_needed(6, n_classes=6, most=12, seed=seed) is None
    assert labels_needed(6, n_classes=6, most=60, seed=seed) is not None


def test_asks_where_clusters_are_not_pure():
    generator = torch.Generator().manual_seed(0)
    inputs = torch.cat([torch.randn(100, 2, generator=generator), torch.randn(100, 2, generator=generator) + 60])
    targets = torch.cat([torch.zeros(100), torch.randint(0, 2, (100,), generator=generator)]).long()
    learner = ActiveLearner(NearestMean(), Hierarchical(), Pool.unlabeled(inputs, n_classes=2))
    start = torch.cat([torch.arange(20), torch.arange(100, 120)])
    *_, last = rounds(learner, lambda rows: targets[rows], Schedule(batch_size=20, max_rounds=4), start=start)
    asked = torch.cat([result.rows for result in learner.history[1:]])
    assert (asked >= 100).double().mean() > 0.8
    assert last.report["n_nodes"] > 1
    assert 0 < last.report["error_bound"] < 0.6


def test_the_pruning_only_gets_finer_and_all_labels_count():
    pool, targets, _ = make_pool(n_rows=200, n_labeled=6)
    sampler, before = Hierarchical(), None
    learner = ActiveLearner(NearestMean(), sampler, pool)
    for _ in range(6):
        rows = learner.ask(12)
        others = pool.candidates.nonzero().squeeze(1)
        others = others[~learner.pool.labeled[others] & ~torch.isin(others, rows)][:3]  # bought by somebody else
        learner.tell(torch.cat([rows, others]), targets[torch.cat([rows, others])])
        learner.finish_round()
        nodes, tree = sampler.pruning.nodes, sampler._tree
        runs = sorted(zip(tree.starts[nodes].tolist(), tree.stops[nodes].tolist(), strict=True))
        assert [runs[0][0], *(stop for _, stop in runs)] == [*(start for start, _ in runs), tree.n_leaves]
        if before is not None:
            assert all(any(a <= start and stop <= b for a, b in before) for start, stop in runs)
        before = runs
    assert len(before) > 3
    assert int((sampler._known >= 0).sum()) == learner.pool.n_labeled


@pytest.mark.filterwarnings("ignore:.* was not told of")  # labels that were taken back and come again
def test_labels_that_were_not_observed_count_for_one_selection_only():
    pool = make_pool(n_rows=100, n_labeled=33)[0]
    sampler = Hierarchical()
    with_labels = sampler.select(make_view(pool), 9)
    report = sampler.report()
    assert report["n_nodes"] > 1
    sampler.select(make_view(make_pool(n_rows=100, n_labeled=4)[0]), 9)
    assert sampler.select(make_view(pool), 9).indices.equal(with_labels.indices)
    with pytest.raises(DataError, match="no pruning before"):
        sampler.propagated_labels()


def test_one_class_and_a_class_never_seen():
    features = torch.rand(30, 2, generator=torch.Generator().manual_seed(0))
    targets = torch.where(torch.arange(30) < 10, 0, -1)
    for scores in (None, torch.rand(30, 3)):
        view = PoolView.from_tensors(features=features, scores=scores, targets=targets)
        assert len(Hierarchical().select(view, 20).indices.unique()) == 20
    nothing = PoolView.from_tensors(features=features)
    assert len(Hierarchical().select(nothing, 30).indices.unique()) == 30


def test_images():
    inputs = torch.rand(40, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    targets = torch.arange(40) % 2

    class Flat(NearestMean):
        def __sklearn_clone__(self):
            return Flat()

        def fit(self, X, y):
            super().fit(X.flatten(1), y)

        def decision_function(self, X):
            return super().decision_function(X.flatten(1))

    learner = ActiveLearner(Flat(), Hierarchical(), Pool.unlabeled(inputs, n_classes=2))
    *_, last = rounds(learner, lambda rows: targets[rows], Schedule(batch_size=10), start=torch.arange(6))
    assert last.n_labeled == 40


def test_a_tree_that_is_given():
    pool, _, _ = make_pool()
    tree = cluster_tree(pool.inputs, generator=torch.Generator())
    view = make_view(pool)
    assert Hierarchical(tree=tree).select(view, 9).indices.equal(Hierarchical().select(view, 9).indices)
    assert "60 rows in 60 leaves" in repr(Hierarchical(tree=tree))
    with pytest.raises(DataError, match="tree given is of 60 rows, the pool has 50"):
        Hierarchical(tree=tree).select(make_view(make_pool(n_rows=50)[0]), 3)
    with pytest.raises(ConfigError, match="tree must be a ClusterTree, got list"):
        Hierarchical(tree=[[0, 1]])


def test_a_large_pool_is_coarsened():
    pool, targets, _ = make_pool(n_rows=300)
    sampler = Hierarchical(max_leaves=100, n_coarse=20)
    learner = ActiveLearner(NearestMean(), sampler, pool)
    with pytest.warns(UserWarning, match="300 rows are more than max_leaves=100") as seen:
        *_, last = rounds(learner, lambda rows: targets[rows], Schedule(batch_size=50))
    assert len(seen) == 1
    assert last.n_labeled == 300
    fresh = Hierarchical(max_leaves=100, n_coarse=20)
    fresh.load_state_dict(sampler.state_dict())  # with the leaf of each row
    assert fresh.propagated_labels().equal(sampler.propagated_labels())


def test_another_pool_is_refused_once_there_are_labels():
    pool, targets, _ = make_pool()
    sampler = Hierarchical()
    learner = ActiveLearner(NearestMean(), sampler, pool)
    for _ in range(2):
        rows = learner.ask(4)
        learner.tell(rows, targets[rows])
    learner.finish_round()
    assert len(copy.deepcopy(sampler).select(make_view(learner.pool), 4).indices) == 4
    for other in (make_pool(n_rows=50)[0], make_pool(seed=1)[0]):
        with pytest.raises(DataError, match="Use a new sampler for each pool"):
            sampler.select(make_view(other), 4)


@pytest.mark.parametrize("kind", ["equal copies", "inference", "given tree"])
def test_the_same_pool_in_other_memory_is_the_same_pool(kind):
    x = make_pool()[0].inputs
    with torch.inference_mode():
        inference = x * 1.0
    sampler = Hierarchical(tree=cluster_tree(x, generator=torch.Generator()) if kind == "given tree" else None)
    targets = torch.where(torch.arange(60) < 6, torch.arange(60) % 3, -1)
    for number in range(3):
        if kind == "given tree":  # new outputs of a model each round
            view = PoolView.from_tensors(log_probs=torch.rand(60, 3).log_softmax(1), targets=targets.clone())
        else:
            view = PoolView.from_tensors(features=x.clone() if kind == "equal copies" else inference, targets=targets)
        rows = sampler.select(view, 5).indices
        assert (0 if sampler._known is None else int((sampler._known >= 0).sum())) == 5 * number
        targets = targets.clone()
        targets[rows] = rows % 3
        sampler.observe(RoundResult(number, 6, rows, rows, rows % 3, rows.double(), "Hierarchical"))
    assert sampler.propagated_labels().min() >= 0
    assert int((sampler._known >= 0).sum()) == 15


def test_a_label_above_those_of_the_view():
    x = make_pool()[0].inputs
    sampler = Hierarchical()
    sampler.select(PoolView.from_tensors(features=x, targets=torch.where(torch.arange(60) < 4, 1, -1)), 3)
    rows = torch.tensor([10, 11])
    sampler.observe(RoundResult(1, 6, rows, rows, torch.tensor([0, 2]), rows.double(), "Hierarchical"))
    assert sampler.propagated_labels().unique().tolist() == [0]


def test_the_seed_is_that_of_the_coarsening():
    trees = []
    for seed in (0, 0, 5):
        view = make_view(make_pool(n_rows=300)[0])  # anew, or the second tree would be the first
        sampler = Hierarchical(max_leaves=100, n_coarse=20, seed=seed)
        with pytest.warns(UserWarning, match="max_leaves"):
            sampler.select(view, 5)
        trees.append(sampler._tree.leaf_of)
    assert trees[0].equal(trees[1])
    assert not trees[0].equal(trees[2])


def test_the_tree_is_that_of_the_inputs():
    view = make_view(make_pool()[0])
    sampler = Hierarchical()
    sampler.select(view, 5)
    assert sampler._tree.children.equal(cluster_tree(view.inputs, generator=torch.Generator()).children)
    assert not sampler._tree.children.equal(cluster_tree(view.features, generator=torch.Generator()).children)


def test_labeled_rows_without_a_label_are_refused():
    view = PoolView.from_tensors(features=torch.rand(20, 2), labeled=torch.arange(20) < 5)
    with pytest.raises(DataError, match="reads the labels: the view has 5 labeled rows without one"):
        Hierarchical().select(view, 3)


def test_the_state_of_another_tree_is_refused():
    with pytest.raises(DataError, match=r"made with .*'ward'.*, this sampler has .*'average'"):
        Hierarchical(linkage="average").load_state_dict(Hierarchical().state_dict())


def test_another_tree_given_is_another_sampler():
    trees = [cluster_tree(make_pool(seed=seed)[0].inputs, generator=torch.Generator()) for seed in (0, 1)]
    first, second = (Hierarchical(tree=tree) for tree in trees)
    assert repr(first) != repr(second)
    with pytest.raises(DataError, match="tree was made with"):
        second.load_state_dict(first.state_dict())


def test_what_a_trainer_has_run_can_be_looked_at(tmp_path):
    pool, targets, _ = make_pool()
    trainer = Trainer(
        NearestMean(),
        Hierarchical(),
        schedule=Schedule(batch_size=9),
        run_dir=tmp_path,
        progress=False,
        loggers=[],
    )
    run = trainer.fit(pool, lambda rows: targets[rows])
    sampler = Hierarchical()
    sampler.load_state_dict(run.sampler_state)
    assert (sampler.propagated_labels() == targets).double().mean() > 0.8
    again = Hierarchical()
    again.load_state_dict(find_runs(tmp_path)[0].sampler_state)
    assert again.propagated_labels().equal(sampler.propagated_labels())


def test_any_model_will_do():
    class Least:
        def fit(self, X, y):
            pass

        def predict(self, X):
            return torch.zeros(len(X), dtype=torch.int64).numpy()

    pool, targets, _ = make_pool()
    learner = ActiveLearner(Least(), Hierarchical(), pool)
    *_, last = rounds(learner, lambda rows: targets[rows], Schedule(batch_size=20))
    assert last.n_labeled == 60


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"linkage": "centroid"}, "linkage must be one of"),
        ({"metric": "manhattan"}, "linkage='ward' is of euclidean"),
        ({"beta": 0}, "beta must be a positive number, got 0"),
        ({"beta": float("nan")}, "beta"),
        ({"finite_correction": "no"}, "true or false, got 'no'"),
        ({"max_features": 0}, "max_features"),
        ({"max_leaves": 0}, "max_leaves"),
        ({"n_coarse": 1.5}, "n_coarse"),
        ({"seed": -1}, "seed"),
    ],
)
def test_refuses_settings(settings, message):
    with pytest.raises(ConfigError, match=message):
        Hierarchical(**settings)


def test_a_cluster_tree_of_scikit_learn_is_taken():
    from sklearn.cluster import AgglomerativeClustering

    pool, _, _ = make_pool()
    theirs = AgglomerativeClustering(compute_full_tree=True).fit(pool.inputs.numpy())
    tree = ClusterTree(torch.from_numpy(theirs.children_))
    assert len(Hierarchical(tree=tree).select(make_view(pool), 9).indices) == 9


def test_rows_of_one_node_are_equally_likely():
    features = torch.rand(12, 1, generator=torch.Generator().manual_seed(0))
    counts = torch.zeros(12)
    sampler = Hierarchical()
    for seed in range(500):
        view = PoolView.from_tensors(
            features=features,
            labeled=torch.arange(12) < 2,
            generator=torch.Generator().manual_seed(seed),
            targets=torch.where(torch.arange(12) < 2, 0, -1),
        )
        counts[sampler.select(view, 2).indices] += 1
    expected = 500 * 2 / 10
    assert ((counts[2:] - expected) ** 2 / expected).sum() < 27.9  # 9 degrees of freedom, p = 0.001
