import warnings
from collections import Counter
from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.cluster import AgglomerativeClustering

from tests.references import hierarchy as reference
from torchal.errors import BudgetError, ConfigError, DataError, ShapeError
from torchal.functional import ClusterTree, cluster_tree, hierarchy
from torchal.functional.hierarchy import LabelCounts, Pruning, draw_from_nodes, node_weights, propagate_labels


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@st.composite
def trees(draw, max_leaves=9):
    """Any binary tree, chains among them, with one to three rows in a leaf."""
    n_leaves = draw(st.integers(1, max_leaves))
    children, loose = [], list(range(n_leaves))
    while len(loose) > 1:
        pair = [loose.pop(draw(st.integers(0, len(loose) - 1))) for _ in range(2)]
        children.append(pair)
        loose.append(n_leaves + len(children) - 1)
    sizes = draw(st.lists(st.integers(1, 3), min_size=n_leaves, max_size=n_leaves))
    rows = draw(st.permutations(range(sum(sizes))))
    rows_of = [[rows.pop() for _ in range(size)] for size in sizes]
    return children, rows_of


def as_tree(children, rows_of):
    leaf_of = torch.empty(sum(map(len, rows_of)), dtype=torch.int64)
    for leaf, rows in enumerate(rows_of):
        leaf_of[rows] = leaf
    return ClusterTree(torch.tensor(children, dtype=torch.int64).reshape(-1, 2), leaf_of)


@settings(deadline=None)
@given(tree=trees())
def test_arrays_say_what_the_tree_says(tree):
    children, rows_of = tree
    ours, slow = as_tree(children, rows_of), reference.Reference(children, rows_of, 2, 2, finite_correction=False)
    assert (len(ours), ours.n_leaves, ours.n_nodes) == (sum(map(len, rows_of)), len(rows_of), 2 * len(rows_of) - 1)
    for node in range(ours.n_nodes):
        inside = (ours.place_of >= ours.starts[node]) & (ours.place_of < ours.stops[node])
        assert set(inside.nonzero().squeeze(1).tolist()) == set(slow.rows[node])
        assert int(ours.sizes[node]) == len(slow.rows[node])
    seen = set(range(ours.n_leaves))
    for nodes in ours.levels:
        assert seen.issuperset(ours.joined_by(nodes).flatten().tolist())
        seen |= set(nodes.tolist())
    assert len(seen) == ours.n_nodes


@settings(deadline=None, max_examples=200)
@given(data=st.data(), tree=trees(), n_classes=st.integers(1, 4))
def test_prunings_labels_and_weights_agree_with_the_paper_node_by_node(data, tree, n_classes):
    children, rows_of = tree
    beta = data.draw(st.sampled_from([1.5, 2.0, 3.0]))
    finite_correction = data.draw(st.booleans())
    ours = as_tree(children, rows_of)
    slow = reference.Reference(children, rows_of, n_classes, beta, finite_correction)
    # labels that mostly follow the order of the leaves, so that some nodes are pure
    truth = (ours.place_of * n_classes // ours.n_leaves).tolist()
    flips = data.draw(st.lists(st.sampled_from([0, 0, 0, 1]), min_size=len(ours), max_size=len(ours)))
    truth = [(label + flip) % n_classes for label, flip in zip(truth, flips, strict=True)]
    order = data.draw(st.permutations(range(len(ours))))
    sizes = data.draw(st.lists(st.integers(1, 5), min_size=1, max_size=6))
    slow.start(0)
    pruning, targets = hierarchy.root_pruning(ours, 0), torch.full((len(ours),), -1)
    for size in sizes:
        rows, order = torch.tensor(order[:size], dtype=torch.int64), order[size:]
        if not len(rows):
            break
        targets[rows] = torch.tensor(truth)[rows]
        slow.learn({row: truth[row] for row in rows.tolist()})
        counts = LabelCounts(ours, targets, n_classes)
        pruning = hierarchy.refine_pruning(ours, pruning, counts, rows, beta=beta, finite_correction=finite_correction)
        assert pruning.nodes.tolist() == slow.pruning
        assert pruning.labels[pruning.nodes].tolist() == [slow.best[node] for node in slow.pruning]
        weights = node_weights(ours, pruning, counts, finite_correction=finite_correction)
        assert weights.tolist() == pytest.approx(slow.weights(), abs=1e-12)
        assert propagate_labels(ours, pruning).tolist() == slow.propagated(len(ours))


def test_bounds_are_those_of_the_paper():
    counts, totals, sizes = torch.tensor([[9, 1], [0, 0], [4, 0]]), torch.tensor([10, 0, 4]), torch.tensor([50, 8, 4])
    lower, upper = hierarchy.class_bounds(counts, totals, sizes, finite_correction=False)
    reach = 0.1 + (0.09 / 10) ** 0.5
    assert lower.tolist() == [pytest.approx(p) for p in ([0.9 - reach, 0], [0, 0], [0.75, 0])]
    assert upper.tolist() == [pytest.approx(p) for p in ([1, 0.1 + reach], [1, 1], [1, 0.25])]
    lower, upper = hierarchy.class_bounds(counts, totals, sizes, finite_correction=True)
    reach = 0.8 * 0.1 + (0.8 * 0.09 / 10) ** 0.5
    assert lower.tolist() == [pytest.approx(p) for p in ([0.9 - reach, 0], [0, 0], [1, 0])]
    assert upper.tolist() == [pytest.approx(p) for p in ([1, 0.1 + reach], [1, 1], [1, 0])]


def test_many_classes_are_judged_in_chunks(monkeypatch):
    x = torch.randn(200, 3, generator=seeded())
    tree = cluster_tree(x, generator=seeded())
    targets = torch.where(torch.arange(200) % 3 > 0, (x[:, 0] > 0).long() * 40, -1)
    counts = LabelCounts(tree, targets, 50)
    rows = (targets >= 0).nonzero().squeeze(1)
    whole = hierarchy.refine_pruning(tree, hierarchy.root_pruning(tree, 0), counts, rows)
    monkeypatch.setattr(hierarchy, "values_per_chunk", lambda _: 100)
    chunked = hierarchy.refine_pruning(tree, hierarchy.root_pruning(tree, 0), counts, rows)
    assert whole.nodes.equal(chunked.nodes)
    assert whole.labels.equal(chunked.labels)
    assert len(whole.nodes) > 3


@pytest.mark.parametrize("candidates", [[1, 1, 1, 1, 1], [1, 0, 1, 1, 0]])
def test_draws_have_the_distribution_of_drawing_one_after_another(candidates):
    tree = ClusterTree(torch.tensor([[0, 1], [5, 2], [3, 4], [6, 7]]))
    pruning = Pruning(torch.tensor([2, 5, 7]), torch.zeros(9, dtype=torch.int64))
    weights = torch.tensor([0.5, 3.0, 1.0], dtype=torch.float64)
    mask = torch.tensor(candidates, dtype=torch.bool)
    groups = [[row for row in rows if candidates[row]] for rows in ([2], [0, 1], [3, 4])]
    chances = reference.draws(groups, weights.tolist(), 3)
    n_runs = 3000
    counts = Counter(
        tuple(draw_from_nodes(tree, pruning, weights, 3, candidates=mask, generator=seeded(s)).indices.tolist())
        for s in range(n_runs)
    )
    assert counts.keys() <= chances.keys()
    often = [rows for rows, chance in chances.items() if chance * n_runs >= 5]
    observed = [*(counts[rows] for rows in often), n_runs - sum(counts[rows] for rows in often)]
    expected = [*(chances[rows] * n_runs for rows in often), n_runs - sum(chances[rows] * n_runs for rows in often)]
    if expected[-1] < 1e-6:
        observed, expected = observed[:-1], expected[:-1]
    assert stats.chisquare(observed, expected).pvalue > 1e-3


def test_the_first_draws_do_not_depend_on_how_many_there_are():
    tree = cluster_tree(torch.randn(50, 2, generator=seeded()), generator=seeded())
    pruning = hierarchy.root_pruning(tree, 0)
    weights, mask = torch.ones(1, dtype=torch.float64), torch.arange(50) % 2 == 0
    few, all_of_them = (
        draw_from_nodes(tree, pruning, weights, n, candidates=mask, generator=seeded()).indices for n in (7, 25)
    )
    assert few.equal(all_of_them[:7])
    assert all_of_them.sort().values.equal(mask.nonzero().squeeze(1))
    with pytest.raises(BudgetError, match="asked for 26 rows, 25 can"):
        draw_from_nodes(tree, pruning, weights, 26, candidates=mask, generator=seeded())


@pytest.mark.parametrize("linkage", ["ward", "average", "complete", "single"])
def test_the_tree_is_that_of_scikit_learn(linkage):
    x = torch.randn(60, 4, generator=seeded(), dtype=torch.float64)
    tree = cluster_tree(x, linkage=linkage, generator=seeded())
    theirs = AgglomerativeClustering(n_clusters=2, linkage=linkage, compute_full_tree=True).fit(x.numpy())
    assert [set(pair) for pair in tree.children.tolist()] == [set(pair) for pair in theirs.children_.tolist()]


def test_other_metrics_and_principal_components():
    x = torch.randn(40, 6, generator=seeded()) * torch.tensor([9.0, 8, 7, 0.1, 0.1, 0.1])
    for metric in ("cosine", "manhattan"):
        tree = cluster_tree(x, linkage="average", metric=metric, generator=seeded())
        theirs = AgglomerativeClustering(n_clusters=2, linkage="average", metric=metric, compute_full_tree=True)
        theirs.fit(x.double().numpy())
        assert [set(p) for p in tree.children.tolist()] == [set(p) for p in theirs.children_.tolist()]
    fewer = cluster_tree(x, max_features=3, generator=seeded())
    rotated = torch.linalg.svd(x - x.mean(0), full_matrices=False)
    expected = cluster_tree((rotated.U * rotated.S)[:, :3], generator=seeded())
    assert [set(p) for p in fewer.children.tolist()] == [set(p) for p in expected.children.tolist()]


def test_more_rows_than_max_leaves_are_coarsened_with_one_warning():
    centers = 20 * torch.randn(6, 3, generator=seeded())
    x = centers[torch.arange(90) % 6] + torch.randn(90, 3, generator=seeded(1))
    with pytest.warns(
        UserWarning, match="90 rows are more than max_leaves=50: the tree is built on 6 clusters"
    ) as seen:
        tree = cluster_tree(x, max_leaves=50, n_coarse=6, generator=seeded())
    assert len(seen) == 1
    assert (len(tree), tree.n_leaves) == (90, 6)
    assert int(tree.sizes[-1]) == 90
    for leaf in range(6):
        assert len((torch.arange(90) % 6)[tree.leaf_of == leaf].unique()) == 1
    same = torch.ones(30, 2)
    with pytest.warns(UserWarning, match="more than max_leaves"):
        assert cluster_tree(same, max_leaves=10, n_coarse=5, generator=seeded()).n_leaves == 1


def test_few_rows_and_copies():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        one = cluster_tree(torch.rand(1, 3), generator=seeded())
        assert (len(one), one.n_nodes, one.levels) == (1, 1, [])
        assert len(cluster_tree(torch.ones(5, 2), generator=seeded())) == 5


def test_a_chain_is_as_good_as_any_tree():
    n = 300
    children = [[0, 1], *([n + i, i + 2] for i in range(n - 2))]
    tree = ClusterTree(torch.tensor(children))
    assert len(tree.levels) == n - 1
    targets = (tree.place_of >= n // 2).long()
    counts, rows = LabelCounts(tree, targets, 2), torch.arange(n)
    pruning = hierarchy.refine_pruning(tree, hierarchy.root_pruning(tree, 0), counts, rows, finite_correction=True)
    # all labels are known, and the finite correction knows that: the pruning has no error
    assert propagate_labels(tree, pruning).equal(targets)


@pytest.mark.parametrize(
    ("children", "leaf_of"),
    [
        ([[0, 1], [1, 2]], None),
        ([[0, 4], [1, 2], [3, 5]], None),
        ([[0, 1, 2]], None),
        ([[0.0, 1.0]], None),
        ([[0, 1]], [0, 2]),
        ([[0, 1]], [-1, 1]),
    ],
    ids=["twice", "not yet joined", "three", "floats", "unknown leaf", "negative leaf"],
)
def test_refuses_what_is_no_tree(children, leaf_of):
    with pytest.raises(ShapeError, match=r"children must|leaf_of must"):
        ClusterTree(torch.tensor(children), None if leaf_of is None else torch.tensor(leaf_of))


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"linkage": "centroid"}, ConfigError, "linkage must be one of ward, average, complete, single"),
        ({"metric": "cosine"}, ConfigError, "euclidean distances, got metric='cosine'"),
        ({"metric": "l1"}, ConfigError, "metric must be one of"),
        ({"max_leaves": 0}, ConfigError, "max_leaves"),
        ({"n_coarse": 0}, ConfigError, "n_coarse"),
        ({"max_features": 0}, ConfigError, "max_features"),
    ],
)
def test_refuses_settings(settings, error, message):
    with pytest.raises(error, match=message):
        cluster_tree(torch.rand(5, 2), generator=seeded(), **settings)


def test_refuses_features():
    with pytest.raises(DataError, match="finite"):
        cluster_tree(torch.tensor([[0.0], [float("nan")]]), generator=seeded())
    with pytest.raises(DataError, match="at least one row and column"):
        cluster_tree(torch.zeros(0, 2), generator=seeded())
    with pytest.raises(DataError, match="row 1"):
        cluster_tree(torch.tensor([[1.0, 0], [0, 0]]), metric="cosine", linkage="average", generator=seeded())
    with pytest.raises(ShapeError, match="real numbers"):
        cluster_tree(torch.zeros(3, 2, dtype=torch.complex64), generator=seeded())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_any_float_dtype(dtype):
    x = torch.randint(-50, 50, (40, 4), generator=seeded()).to(dtype)
    expected = cluster_tree(x.float(), generator=seeded())
    assert cluster_tree(x, generator=seeded()).children.equal(expected.children)
    assert len(cluster_tree(x, max_features=2, generator=seeded())) == 40


@pytest.mark.parametrize("scale", [2.0**660, 2.0**-660])
@pytest.mark.parametrize(
    ("linkage", "metric"), [("ward", "euclidean"), ("average", "cosine"), ("average", "manhattan")]
)
def test_features_of_any_size(scale, linkage, metric):
    x = torch.randn(30, 3, generator=seeded(), dtype=torch.float64)
    trees = [cluster_tree(y, linkage=linkage, metric=metric, generator=seeded()) for y in (x, x * scale)]
    assert trees[0].children.equal(trees[1].children)


def test_cosine_distances_of_what_has_no_direction_are_refused():
    middle = torch.cat([torch.eye(4), torch.full((1, 4), 0.25)])
    with pytest.raises(DataError, match="principal components or cluster means"):
        cluster_tree(middle, linkage="average", metric="cosine", max_features=2, generator=seeded())


def test_refuses_a_tree_of_no_rows():
    with pytest.raises(ShapeError, match="leaf of each row, got none"):
        ClusterTree(torch.tensor([[0, 1]]), torch.empty(0, dtype=torch.int64))


def test_refuses_labels():
    tree = ClusterTree(torch.tensor([[0, 1]]))
    with pytest.raises(DataError, match="below n_classes=2, got 2"):
        LabelCounts(tree, torch.tensor([0, 2]), 2)
    with pytest.raises(ShapeError, match=r"targets must be \(2,\)"):
        LabelCounts(tree, torch.tensor([0]), 2)


def test_the_reference_is_itself_right_on_a_case_by_hand():
    # rows 0-3 are of class 0 and 4-7 of class 1, each half below a node of its own
    children = [[0, 1], [2, 3], [8, 9], [4, 5], [6, 7], [11, 12], [10, 13]]
    slow = reference.Reference(children, [[i] for i in range(8)], 2, 2, finite_correction=False)
    slow.start(0)
    slow.learn({row: int(row > 3) for row in (0, 1, 2, 4, 5, 6)})
    assert slow.bounds(10) == ([pytest.approx(float(Fraction(2, 3))), 0.0], [1.0, pytest.approx(1 / 3)])
    # the root is no purer than a coin: no admissible label, so it is not split yet
    assert slow.pruning == [14]
    # with nearly all of one class it has one: lower bound 1 - 1/6 - sqrt(5/36/6), and the error 1/6 of not splitting
    slow = reference.Reference(children, [[i] for i in range(8)], 2, 2, finite_correction=False)
    slow.start(1)
    slow.learn({0: 0, 1: 0, 2: 0, 3: 0, 4: 0, 5: 1})
    assert slow.admissible(14) == [0]
    # rows 0-3 are pure, and rows 4-7 have no admissible label: an error of 1/2, which is more than 1/6
    assert slow.pruning == [14]
    assert slow.best[14] == 0
    assert slow.weights() == [pytest.approx(8 * (1 - (5 / 6 - 1 / 6 - (5 / 36 / 6) ** 0.5)))]


@pytest.mark.gpu
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"linkage": "average", "metric": "cosine"},
        {"linkage": "complete", "metric": "manhattan"},
        {"max_features": 3},
        {"max_leaves": 50, "n_coarse": 12},
    ],
    ids=["ward", "cosine", "manhattan", "principal components", "coarse"],
)
@pytest.mark.filterwarnings("ignore:.*rows are more than max_leaves")
def test_cuda_gives_the_tree_of_the_cpu(settings):
    x = torch.randn(120, 8, generator=seeded(), dtype=torch.float64)
    want, found = (cluster_tree(rows, generator=seeded(1), **settings) for rows in (x, x.cuda()))
    parts = ("children", "leaf_of", "starts", "stops", "sizes", "place_of")
    assert all(getattr(found, part).is_cuda for part in parts)
    assert all(getattr(found, part).cpu().equal(getattr(want, part)) for part in parts)
    assert found.digest == want.digest
    assert found.device == torch.device("cuda", 0)
    assert found.to(torch.device("cpu")).children.equal(want.children)
    assert want.to(found.device).leaf_of.is_cuda


@pytest.mark.gpu
@pytest.mark.parametrize("finite_correction", [False, True])
def test_cuda_prunes_and_draws_as_the_cpu_does(finite_correction):
    targets = torch.arange(200) % 3
    x = torch.randn(200, 4, generator=seeded(), dtype=torch.float64) / 2 + 3 * targets[:, None]
    here = cluster_tree(x, generator=seeded(1))
    found = []
    for device in (torch.device("cpu"), torch.device("cuda", 0)):
        tree, known = here.to(device), torch.full((200,), -1, device=device)
        pruning, picks = hierarchy.root_pruning(tree, 0), []
        for step in range(6):
            rows = torch.randperm(200, generator=seeded(step))[:15].to(device)
            known[rows] = targets.to(device)[rows]
            counts = LabelCounts(tree, known, 3)
            pruning = hierarchy.refine_pruning(tree, pruning, counts, rows, finite_correction=finite_correction)
            weights = node_weights(tree, pruning, counts, finite_correction=finite_correction) + 0.1
            drawn = draw_from_nodes(tree, pruning, weights, 10, candidates=known < 0, generator=seeded(step))
            assert drawn.indices.device == drawn.scores.device == device
            picks.append(drawn.indices.tolist())
        labels = propagate_labels(tree, pruning)
        assert labels.device == device
        found.append((picks, pruning.nodes.tolist(), pruning.labels.tolist(), labels.tolist()))
        assert len(pruning.nodes) > 1
    assert found[0] == found[1]
    everything = {"candidates": known < 0, "generator": torch.Generator("cuda").manual_seed(0)}
    drawn = draw_from_nodes(tree, pruning, weights, 10, **everything).indices
    assert len(drawn.unique()) == 10
    assert bool((known[drawn] < 0).all())
