"""Cluster trees of features, by scipy."""

from __future__ import annotations

import math
import warnings
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from torchal._checks import check_finite, check_float, check_whole
from torchal.engine.distances import Metric, check_metric, unit_rows
from torchal.errors import ConfigError, DataError
from torchal.functional.hierarchy import ClusterTree
from torchal.functional.kmeans import kmeans

Linkage: TypeAlias = Literal["ward", "average", "complete", "single"]

_SCIPY_METRICS = {"euclidean": "euclidean", "cosine": "cosine", "manhattan": "cityblock"}


def cluster_tree(
    features: Tensor,
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
    check_float("features", features, ndim=2)
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
