"""Compare what every network costs with what was published: python scripts/model_table.py (see --help)."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

from tqdm import tqdm

from kpose.files import replacing
from kpose.models.published import ROWS, Comparison, compare, rounds_to

HEADER = """# Published against built

    python scripts/model_table.py

Parameters in millions, multiply-adds in the giga and by the count of the publication (`kpose.models.counting`; "hrnet" and "lite_hrnet"
are in units of 2^30), what they are here, and the difference in percent. The last figure is the true cost in 10^9: every weight times
the positions it is applied to.
"""


def describe(comparison: Comparison) -> str:
    """The row as Markdown."""
    row = comparison.row
    options = ", ".join(f"{name}={value}" for name, value in row.options.items())
    size = f"{row.input_size[0]}x{row.input_size[1]}"

    def percent(value: float | None) -> str:
        return "-" if value is None else f"{value:+.1f} %"

    cells = [
        f"`{row.network}`" + (f" {options}" if options else ""),
        size,
        row.parameters or "-",
        f"{comparison.parameters:.3f}",
        percent(comparison.parameter_difference),
        row.convention,
        row.multiply_adds or "-",
        f"{comparison.multiply_adds:.3f}",
        percent(comparison.multiply_add_difference),
        f"{comparison.true_multiply_adds:.3f}",
        row.note,
    ]
    return f"| {' | '.join(cells)} |"


def main() -> int:
    """Builds every row's network, prints the table and writes it."""
    parser = argparse.ArgumentParser(description=__doc__.split(":")[0] + ".")
    parser.add_argument("--output", type=Path, default=Path("docs/model_table.md"), help="the Markdown file to write (%(default)s)")
    parser.add_argument("--network", metavar="NAME", help="only the rows of this network; prints them and writes nothing")
    options = parser.parse_args()
    rows = [row for row in ROWS if options.network in (None, row.network)]
    if not rows:
        names = ", ".join(sorted({row.network for row in ROWS}))
        print(f"no row is about {options.network!r}; there are rows of: {names}", file=sys.stderr)
        return 2
    comparisons = [compare(row) for row in tqdm(rows, desc="building", unit="network", leave=False)]
    lines = [HEADER]
    for publication in dict.fromkeys(comparison.row.publication for comparison in comparisons):
        lines += [f"## {publication}", ""]
        lines += ["| network | input | M | here | | count | G | here | | true 10^9 | |", "|---|---|---|---|---|---|---|---|---|---|---|"]
        lines += [describe(comparison) for comparison in comparisons if comparison.row.publication == publication] + [""]
    text = "\n".join(lines)
    print(text)
    figures = [
        (built, printed, difference)
        for one in comparisons
        for built, printed, difference in (
            (one.parameters, one.row.parameters, one.parameter_difference),
            (one.multiply_adds, one.row.multiply_adds, one.multiply_add_difference),
        )
        if printed is not None and difference is not None
    ]
    exact = sum(rounds_to(built, printed) for built, printed, _ in figures)
    close = sum(rounds_to(built, printed) or abs(difference) <= 1.0 for built, printed, difference in figures)
    summary = f"{exact} of {len(figures)} published figures are met to the last printed digit, {close} so or within 1 %"
    if options.network is None:
        with replacing(options.output) as partial:
            partial.write_text(f"{text}\n{summary[0].upper()}{summary[1:]}.\n", encoding="utf-8")
        summary += f"; written to {options.output}"
    print(summary)
    return 0


if __name__ == "__main__":
    sys.exit(main())
