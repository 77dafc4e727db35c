"""Rows inside a margin, and the rows nearest to centres, one at a time."""

from tests.references.k_center import as_fractions, distance


def inside(values, labeled):
    reach = [
        min((abs(row[c]) for row, is_labeled in zip(values, labeled, strict=True) if is_labeled), default=None)
        for c in range(len(values[0]))
    ]
    return [any(r is None or abs(v) < r for v, r in zip(row, reach, strict=True)) for row in values]


def nearest_rows(features, centers):
    rows, points = as_fractions(features), as_fractions(centers)
    return [min(range(len(rows)), key=lambda row: (distance(rows[row], point, "euclidean"), row)) for point in points]


def cluster_mean(features, centers, n, uncertainty, inside, candidates):
    """Return the picks, given the centres of the clusters of the candidates inside."""

    def by_margin(rows):
        return sorted(rows, key=lambda row: (-uncertainty[row], row))

    allowed = [row for row in range(len(features)) if candidates[row]]
    there = [row for row in allowed if inside[row]]
    if len(there) < n:
        return by_margin(allowed)[:n]
    chosen = {there[i] for i in nearest_rows([features[row] for row in there], centers)}
    rest = [row for row in by_margin(allowed) if row not in chosen]
    return by_margin([*chosen, *rest[: n - len(chosen)]])
