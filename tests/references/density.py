"""Graph density, edge by edge and pick by pick."""

import math


def graph(neighbors, n_features):
    """Return the edges {(i, j): weight} of lists of neighbours [[(distance, row), ...], ...]."""
    edges = {}
    for i, near in enumerate(neighbors):
        for distance, j in near:
            weight = math.exp(-float(distance) / n_features)
            if weight > 0:
                edges[i, j] = edges[j, i] = weight
    return edges


def density(edges, n_rows):
    out = []
    for row in range(n_rows):
        weights = [weight for (i, _), weight in edges.items() if i == row]
        out.append(sum(weights) / len(weights) if weights else 0.0)
    return out


def greedy(edges, values, n, candidates):
    values, left, picked, scores = list(values), [r for r in range(len(values)) if candidates[r]], [], []
    for _ in range(n):
        best = max(left, key=lambda row: (values[row], -row))
        left.remove(best)
        picked.append(best)
        scores.append(values[best])
        for i, j in edges:
            if i == best:
                values[j] -= scores[-1]
    return picked, scores, values
