"""Write the tables of a benchmark's JSON file into docs/performance.md, between its two markers."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from model_bench.report import markdown

BEGIN, END = "<!-- benchmark begin -->", "<!-- benchmark end -->"
PAGE = Path(__file__).parent.parent / "docs" / "performance.md"


def insert(page: str, tables: str) -> str:
    """`page` with everything between the markers replaced. Raises ValueError where a marker is missing."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the page lacks the markers {BEGIN} and {END}: put them where the tables belong")
    return f"{before}{BEGIN}\n\n{tables}\n{END}{after}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("results", type=Path, help="JSON file of tools/bench_models.py")
    parser.add_argument("--page", type=Path, default=PAGE, help="page to write into (default: docs/performance.md)")
    arguments = parser.parse_args()
    tables = markdown(json.loads(arguments.results.read_text()))
    arguments.page.write_text(insert(arguments.page.read_text(), tables))


if __name__ == "__main__":
    main()
