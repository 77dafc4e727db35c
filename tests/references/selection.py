"""The rows with the largest scores, by sorting Python tuples."""


def top_n(scores, n, candidates):
    rows = [row for row in range(len(scores)) if candidates[row]]
    return sorted(rows, key=lambda row: (-scores[row], row))[:n]
