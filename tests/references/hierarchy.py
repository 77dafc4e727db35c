"""Hierarchical sampling, node by node, from the paper: Dasgupta & Hsu (2008), Algorithm 1.

A tree is `children`: node K + i joins the pair children[i] of smaller nodes; leaf k holds the rows in rows_of[k].
"""

import math


class Reference:
    def __init__(self, children, rows_of, n_classes, beta, finite_correction):
        self.children, self.n_leaves = children, len(rows_of)
        self.n_classes, self.beta, self.finite_correction = n_classes, beta, finite_correction
        self.rows = {}
        for node in range(2 * self.n_leaves - 1):
            below = self.below(node)
            self.rows[node] = rows_of[node] if below is None else self.rows[below[0]] + self.rows[below[1]]
        self.known = {}
        self.best = {}

    def below(self, node):
        return None if node < self.n_leaves else tuple(self.children[node - self.n_leaves])

    @property
    def root(self):
        return 2 * self.n_leaves - 2

    def start(self, label):
        self.pruning = [self.root]
        self.best[self.root] = label

    def share(self, node):
        labels = [self.known[row] for row in self.rows[node] if row in self.known]
        n = len(labels)
        return n, [labels.count(c) / n if n else 0.0 for c in range(self.n_classes)]

    def bounds(self, node):
        n, p = self.share(node)
        if n == 0:
            return [0.0] * self.n_classes, [1.0] * self.n_classes
        factor = 1 - n / len(self.rows[node]) if self.finite_correction else 1.0
        reach = [factor / n + math.sqrt(q * (1 - q) * factor / n) for q in p]
        lower = [max(q - r, 0.0) for q, r in zip(p, reach, strict=True)]
        return lower, [min(q + r, 1.0) for q, r in zip(p, reach, strict=True)]

    def admissible(self, node):
        lower, upper = self.bounds(node)
        return [
            c
            for c in range(self.n_classes)
            if 1 - lower[c]
            < self.beta * min((1 - upper[other] for other in range(self.n_classes) if other != c), default=math.inf)
        ]

    def best_pruning(self, node):
        """Return the score of a subtree, and the nodes of the pruning that has it."""
        _, p = self.share(node)
        labels = self.admissible(node)
        score = min((1 - p[c] for c in labels), default=1.0)
        if labels:
            self.best[node] = min(labels, key=lambda c: (1 - p[c], c))
        if self.below(node) is None:
            return score, [node]
        (left, right), size = self.below(node), len(self.rows[node])
        (left_score, left_nodes), (right_score, right_nodes) = self.best_pruning(left), self.best_pruning(right)
        divided = len(self.rows[left]) / size * left_score + len(self.rows[right]) / size * right_score
        if labels and divided < score:
            return divided, left_nodes + right_nodes
        return score, [node]

    def learn(self, labels):
        """Take new labels {row: label}."""
        self.known |= labels
        found = self.best_pruning(self.root)  # brings the best labels of all nodes up to date
        assert found[0] <= 1
        pruning = []
        for node in self.pruning:
            touched = any(row in labels for row in self.rows[node])
            pruning += self.best_pruning(node)[1] if touched else [node]
        self.pruning = sorted(pruning)
        for node in self.pruning:
            self.inherit(node)

    def inherit(self, node):
        """Give a node without a label that of the nearest ancestor that has one."""
        ancestor = node
        while ancestor not in self.best:
            ancestor = next(i + self.n_leaves for i, pair in enumerate(self.children) if ancestor in pair)
        self.best[node] = self.best[ancestor]

    def weights(self):
        return [len(self.rows[node]) * (1 - self.bounds(node)[0][self.best[node]]) for node in self.pruning]

    def propagated(self, n_rows):
        labels = [None] * n_rows
        for node in self.pruning:
            for row in self.rows[node]:
                labels[row] = self.best[node]
        return labels


def draws(groups, weights, n):
    """Return the probability of each sequence of n rows; groups[g] are the rows of a node with weights[g]."""
    out = {}

    def go(picked, chance):
        if len(picked) == n:
            out[tuple(picked)] = out.get(tuple(picked), 0) + chance
            return
        left = [[row for row in rows if row not in picked] for rows in groups]
        mass = sum(weight for rows, weight in zip(left, weights, strict=True) if rows)
        for rows, weight in zip(left, weights, strict=True):
            for row in rows:
                go([*picked, row], chance * weight / mass / len(rows))

    go([], 1.0)
    return out
