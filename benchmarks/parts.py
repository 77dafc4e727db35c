"""How well `k_center_by_parts` covers, beside the exact greedy: `python -m benchmarks.parts`.

Of each pool, number of picks and number of parts: the radius that is reached as a multiple of that of
`k_center_greedy`, and of the bound below which no centres come; and the radius that is promised as a multiple of it.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from benchmarks.ranks import rows_of
from torchal.functional import Cover, k_center_by_parts, k_center_greedy


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--columns", type=int, default=64)
    parser.add_argument("--picks", type=int, nargs="+", default=[100, 1000])
    parser.add_argument("--parts", type=int, nargs="+", default=[2, 8, 32])
    options = parser.parse_args(arguments)
    print(f"{options.rows} x {options.columns}")
    print("| rows | picks | parts | radius / exact | radius / bound | promised / bound |\n|---|---|---|---|---|---|")
    for kind in ("clusters", "normal"):
        x = rows_of(0, options.rows, options.columns, kind)
        for picks in options.picks:
            exact = float(k_center_greedy(x, picks + 1).scores[-1])  # of the row that comes behind the picks
            for parts in options.parts:
                found = k_center_by_parts(x, picks, part_rows=-(-len(x) // parts))
                cover = Cover(x)
                cover.add(found.indices)
                reached, bound = float(cover.distances.max()), float(found.bound)
                shares = f"{reached / exact:.3f} | {reached / bound:.2f} | {float(found.radius) / bound:.2f}"
                print(f"| {kind} | {picks} | {parts} | {shares} |")


if __name__ == "__main__":
    main()
