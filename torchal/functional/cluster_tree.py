"""Clusters of features by joining the nearest ones, again and again: trees and flat clusterings, by scipy."""

from __future__ import annotations

import math
import warnings
from fractions import Fraction
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from torchal._checks import check_at_least, check_finite, check_whole
from torchal._chunks import exact_arithmetic, values_per_chunk
from torchal.engine.distances import Metric, ProductMetric, Rows, Space, check_metric, make_space, survey, unit_rows
from torchal.engine.features import FeatureReader, Features, as_matrix
from torchal.engine.sources import StreamedRows, split
from torchal.errors import ConfigError, DataError
from torchal.functional.hierarchy import ClusterTree
from torchal.functional.kmeans import kmeans

Linkage: TypeAlias = Literal["ward", "average", "complete", "single"]

_SCIPY_METRICS = {"euclidean": "euclidean", "cosine": "cosine", "manhattan": "cityblock"}


def cluster_tree(
    features: Features,
    *,
    linkage: Linkage = "ward",
    metric: Metric = "euclidean",
    max_features: int | None = None,
    max_leaves: int = 10_000,
    n_coarse: int = 1000,
    generator: torch.Generator,
) -> ClusterTree:
    """Cluster the rows of a pool into a binary tree, by scipy.

    All distances between rows are held, 16 bytes for each pair. Above `max_leaves` rows, they are first clustered by
    k-means (by euclidean distances, whatever the metric), and the tree joins its means: with one warning, and with
    leaves that hold many rows and are never split.

    Args:
        features: what is clustered.
        linkage: how clusters are joined: "ward" (euclidean only), "average", "complete" or "single".
        metric: euclidean, cosine or manhattan.
        max_features: cluster on this many principal components, where there are more columns.
        max_leaves: cluster the rows themselves up to this many.
        n_coarse: above that, the number of k-means clusters.
        generator: the randomness of k-means.

    Shapes:
        features: (N, D) float.

    Returns:
        The tree, on the features' device.

    Raises:
        ConfigError: an unknown linkage or metric, "ward" with another metric than euclidean, or a number out of range.
        ShapeError: features is no float matrix.
        DataError: no rows; features that are not finite; a row of zeros with cosine distances.

    Reference:
        Ward, "Hierarchical Grouping to Optimize an Objective Function", Journal of the American Statistical Association
        1963.

    Complexity:
        O(K^2 D) time and 16 K^2 / 2 bytes for K leaves; above `max_leaves` also ten iterations of k-means.

    Example:
        >>> x = torch.tensor([[0.0], [1.0], [8.0], [9.5]])
        >>> cluster_tree(x, generator=torch.Generator()).children
        tensor([[0, 1],
                [2, 3],
                [4, 5]])
    """
    check_linkage(linkage, metric)
    check_whole("max_leaves", max_leaves, least=1)
    check_whole("n_coarse", n_coarse, least=1)
    features = as_matrix("features", features)
    if not features.numel():
        raise DataError(f"features must have at least one row and column, got shape {tuple(features.shape)}")
    check_finite("features", features)
    features = features.detach()
    if metric == "cosine" and bool((features == 0).all(1).any()):
        row = int((features == 0).all(1).nonzero()[0])
        raise DataError(f"a row of zeros has no direction: cosine distances are not defined for row {row}")
    if max_features is not None:
        check_whole("max_features", max_features, least=1)
        if max_features < min(features.shape):
            features = _principal_components(features, max_features)
    leaf_of = None
    if len(features) > max_leaves:
        warnings.warn(
            f"{len(features)} rows are more than max_leaves={max_leaves}: the tree is built on {n_coarse} clusters",
            stacklevel=2,
        )
        features, leaf_of = _coarsened(features, min(n_coarse, len(features)), generator)
    children = _linkage_children(features.double(), linkage, metric)
    return ClusterTree(torch.from_numpy(children).to(features.device), leaf_of)


def _principal_components(features: Tensor, n: int) -> Tensor:
    from sklearn.decomposition import PCA

    wide = features.to(torch.promote_types(features.dtype, torch.float32))
    found: NDArray[Any] = PCA(n, random_state=0).fit_transform(wide.cpu().numpy())
    return torch.from_numpy(np.ascontiguousarray(found)).to(features.device)


def _coarsened(features: Tensor, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return the means of clusters that have rows, and the cluster of each row."""
    clusters = kmeans(features, n, generator=generator, max_iterations=10)
    filled, leaf_of = clusters.assignments.unique(return_inverse=True)
    return clusters.centers[filled], leaf_of


def _linkage_children(rows: Tensor, linkage: Linkage, metric: Metric) -> NDArray[Any]:
    from scipy.cluster import hierarchy

    if len(rows) == 1:
        return np.empty((0, 2), np.int64)
    if metric == "cosine":
        if bool((rows == 0).all(1).any()):
            raise DataError(
                "cosine distances are not defined: a row of zeros, which has no direction, is among the principal "
                "components or cluster means; give no max_features, or a max_leaves of at least the number of rows"
            )
        rows = unit_rows(rows)
    else:  # so that no square overflows or vanishes; by a power of two, which rounds nothing
        rows = rows * 2.0 ** max(-1000, min(1000, -math.frexp(float(rows.abs().max()))[1]))
    joins: NDArray[Any] = hierarchy.linkage(rows.cpu().numpy(), linkage, _SCIPY_METRICS[metric])
    return joins[:, :2].astype(np.int64)


def check_linkage(linkage: object, metric: object) -> None:
    """Require a linkage that is known, and goes with the metric."""
    check_metric(metric)
    if linkage not in get_args(Linkage):
        raise ConfigError(f"linkage must be one of {', '.join(get_args(Linkage))}, got {linkage!r}")
    if linkage == "ward" and metric != "euclidean":
        raise ConfigError(f"linkage='ward' is of euclidean distances, got metric={metric!r}")


def hac_clusters(
    features: Features,
    *,
    mean_size: float = 10.0,
    metric: ProductMetric = "euclidean",
    max_rows: int = 10_000,
    generator: torch.Generator,
    device: torch.device | str | None = None,
    chunk_rows: int | None = None,
) -> Tensor:
    r"""Join the two clusters whose rows are nearest on average, again and again, until clusters are large enough.

    At first each row is a cluster. The threshold, up to which clusters are joined, is the smallest that leaves
    `mean_size` rows to a cluster on average; joins at exactly that distance are all made, so that clusters may be
    larger.

    All distances between rows are held. Above `max_rows` rows only so many, drawn at random, are clustered like this,
    into as many clusters as all rows would be, but no more than half as many as there are rows drawn. Each other row
    then goes to the cluster whose rows have the least mean squared distance from it.

    Args:
        features: a tensor on any device, an array, or a memory-mapped file.
        mean_size: the least number of rows in a cluster, on average, of all rows of the pool.
        metric: euclidean, or cosine, which is 1 - cos.
        max_rows: cluster all rows up to this many; 8 max_rows^2 bytes are needed, 0.8 GB for 10 000.
        generator: the randomness of the rows drawn.
        device: where to compute; where the features are, unless given. Clusters are always joined on the CPU.
        chunk_rows: rows read at once; as many as fit into a cache (CPU) or 128 MiB (GPU), unless given.

    Shapes:
        features: (N, D) float.

    Returns:
        (N,) int64, the number of each row's cluster, on the features' device. Clusters are numbered from 0 on, in the
        order of their first row that was clustered.

    Raises:
        ConfigError: mean_size is no finite number of at least 1, max_rows no whole number of at least 2, or another
            metric.
        ShapeError: features is no float matrix.
        DataError: no rows; features that are not finite; a row of zeros with cosine distances.
        DeviceMemoryError: the smallest chunk does not fit on the device.

    Reference:
        Citovsky, DeSalvo, Gentile, Karydas, Rajagopalan, Rostamizadeh & Kumar, "Batch Active Learning at Scale",
        NeurIPS 2021, where clusters of average linkage are made up to some distance. That it is given by a mean size,
        and what is done above `max_rows`, is ours: the mean squared distance of a row x from those of a cluster is
        |x - mean|^2 + variance; for cosine distances this is average linkage itself.

    Complexity:
        O(M^2 D) multiply-adds for the distances of M = min(N, max_rows) rows, and O(M^2) to join them; above that
        N D K multiply-adds for K clusters, in one pass. O(N + K D) memory beyond the distances, and chunks.

    Example:
        >>> x = torch.tensor([[0.0], [9.0], [0.2], [9.1]])
        >>> hac_clusters(x, mean_size=2, generator=torch.Generator())
        tensor([0, 1, 0, 1])
    """
    check_hac(mean_size, max_rows, metric)
    reader = FeatureReader(features, device=device, chunk_rows=chunk_rows)
    with exact_arithmetic(reader.device):
        seen = survey(reader, metric)
        if metric == "cosine":  # or values of whole numbers would be exact, but not the distances made of them
            seen = seen._replace(whole=False)
        n_rows = len(reader)
        # in whole numbers: 11 // 1.1 is 9 in float arithmetic
        n_clusters = max(1, int(n_rows / Fraction(mean_size).limit_denominator(1_000_000)))
        space = make_space(reader, seen, metric, dtype=torch.float64)
        if n_rows <= max_rows:
            rows = space.prepare(reader.read(0, n_rows))
            return _cut(_condensed(space, rows), n_rows, n_clusters).to(reader.home)
        drawn = torch.randperm(n_rows, generator=generator, device=generator.device)[:max_rows].sort().values
        drawn = drawn.to(reader.device)
        distances = _condensed(space, space.prepare(reader.rows(drawn)))
        found = _cut(distances, max_rows, min(n_clusters, max_rows // 2)).to(reader.device)
        del distances
        space = make_space(reader, seen, metric)
        clusters = _nearest_on_average(StreamedRows(reader, space), space, drawn, found)
        clusters[drawn] = found
        return clusters.to(reader.home)


def _condensed(space: Space, rows: Rows) -> NDArray[np.float64]:
    """Return the distances of all pairs of rows, (M (M - 1) / 2,), those of the first row first, as scipy has them."""
    n_rows = len(rows.x)
    distances = np.empty(n_rows * (n_rows - 1) // 2)
    size = max(1, values_per_chunk(rows.x.device) // n_rows)
    end = 0
    for start in range(0, n_rows, size):
        part = Rows(rows.x[start : start + size], rows.sq[start : start + size])
        behind = Rows(rows.x[start:], rows.sq[start:])
        values = space.distance(space.pairwise(part, behind).clamp_(min=0)).cpu().numpy()
        for i, row in enumerate(values):
            end, begin = end + len(row) - i - 1, end
            distances[begin:end] = row[i + 1 :]
    return distances


def _cut(distances: NDArray[np.float64], n_rows: int, n_clusters: int) -> Tensor:
    """Return the cluster of each row after all joins up to the smallest distance that leaves at most n_clusters."""
    from scipy.cluster import hierarchy

    if n_clusters >= n_rows:
        return torch.arange(n_rows)
    joins = hierarchy.linkage(distances, "average")
    # each join makes one cluster less; scipy's own "maxclust" made too few of them before 1.12
    threshold = joins[n_rows - n_clusters - 1, 2]
    found = torch.from_numpy(hierarchy.fcluster(joins, threshold, "distance").astype(np.int64))
    number = found.unique(return_inverse=True)[1]
    first = torch.full((int(number.max()) + 1,), n_rows)
    first = first.scatter_reduce_(0, number, torch.arange(n_rows), "amin")
    return first.argsort().argsort()[number]


def _nearest_on_average(source: StreamedRows, space: Space, drawn: Tensor, found: Tensor) -> Tensor:
    """Return for each row of the pool the cluster of drawn rows with the least mean squared distance, (N,)."""
    sizes = found.bincount()
    means = torch.zeros(len(sizes), source.n_columns, dtype=torch.float64, device=found.device)
    squares = torch.zeros(len(sizes), dtype=torch.float64, device=found.device)
    size = source.reader.chunk_rows()
    for rows, clusters in zip(drawn.split(size), found.split(size), strict=True):
        some = source.select(rows)
        means.index_add_(0, clusters, some.x.double())
        squares.index_add_(0, clusters, some.sq.double())
    means /= sizes.unsqueeze(1)
    # |x - mean|^2 + the mean of |member - mean|^2 is |x|^2 - 2 x mean + the mean of |member|^2
    centers = Rows(means.to(space.dtype), (squares / sizes).to(space.dtype))
    nearest = torch.empty(len(source), dtype=torch.int64, device=found.device)

    def assign(where: slice, rows: Rows) -> None:
        least = torch.full_like(rows.sq, torch.inf)
        first = 0
        for some in split(centers):
            values, index = torch.addmm(some.sq, rows.x, some.x.T, alpha=-2).min(1)
            nearer = values < least
            nearest[where] = torch.where(nearer, index + first, nearest[where])
            least = torch.where(nearer, values, least)
            first += len(some.x)

    source.each(assign, width=len(sizes))
    return nearest


def check_hac(mean_size: object, max_rows: object, metric: object) -> None:
    """Require settings of `hac_clusters` that are in range."""
    check_at_least("mean_size", mean_size, least=1)
    check_whole("max_rows", max_rows, least=2)
    check_metric(metric, among=ProductMetric)
