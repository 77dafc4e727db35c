"""The measures of SIMILAR, by their formulas, as objectives of a list of rows."""


def nearest(table, row, others):
    return max([0.0, *(table[row][other] for other in others)])


def flqmi(table, query, strength):
    """Return I(A; Q) of the table of all similarities; rows of the query are rows of the table."""
    return lambda picked: (
        sum(nearest(table, q, picked) for q in query) + strength * sum(nearest(table, a, query) for a in picked)
    )


def flvmi(table, pool, query, strength, weights):
    return lambda picked: sum(
        weights[v] * min(nearest(table, v, picked), strength * nearest(table, v, query)) for v in pool
    )


def flcg(table, pool, private, strength, weights):
    return lambda picked: sum(
        weights[v] * max(0.0, nearest(table, v, picked) - strength * nearest(table, v, private)) for v in pool
    )
