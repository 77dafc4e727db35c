"""Hierarchical k-means and balanced sampling, a cluster and a row at a time; k-means itself is given."""

import math


def nearest(point, centers):
    return min(range(len(centers)), key=lambda c: (math.dist(point, centers[c]), c))


def hierarchical_kmeans(points, sizes, resample, n_resamples, kmeans):
    """Return the centres of each level, and what each point, or centre of the level before, belongs to."""
    levels, wanted = [], [True] * len(points)
    for size, near in zip(sizes, resample, strict=True):
        kept = [i for i in range(len(points)) if wanted[i]]
        k = min(size, len(kept))
        centers = kmeans(points, k, wanted)
        assigned = [nearest(point, centers) for point in points]
        for _ in range(n_resamples if near > 1 else 0):
            chosen = []
            for c in range(len(centers)):
                members = [i for i in kept if assigned[i] == c]
                chosen += sorted(members, key=lambda i: (math.dist(points[i], centers[c]), i))[:near]
            some = [points[i] for i in sorted(chosen)]
            centers = kmeans(some, min(k, len(some)), None)
            assigned = [nearest(point, centers) for point in points]
        levels.append((centers, assigned))
        wanted = [any(assigned[i] == c for i in kept) for c in range(len(centers))]
        points = centers
    return levels


def shares(had, room, quota):
    """Return what clusters give together, one row after another from one that has least, as a sorted list of heights.

    Which of several clusters gives the last rows is open, so only what they come to is told.
    """
    height, left = list(had), list(room)
    for _ in range(quota):
        c = min((c for c in range(len(had)) if left[c]), key=lambda c: height[c])
        height[c] += 1
        left[c] -= 1
    return sorted(height)
