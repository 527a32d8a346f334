"""Write the tables of a benchmark's JSON file into docs/performance.md, between the markers of that benchmark."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from kernel_bench import report as kernels
from model_bench import report as models

MODELS, KERNELS = "benchmark", "kernels"
PAGE = Path(__file__).parent.parent / "docs" / "performance.md"


def insert(page: str, tables: str, name: str) -> str:
    """`page` with everything between `name`'s markers replaced. Raises ValueError where a marker is missing."""
    first, last = f"<!-- {name} begin -->", f"<!-- {name} end -->"
    before, begin, rest = page.partition(first)
    _, end, after = rest.partition(last)
    if not begin or not end:
        raise ValueError(f"the page lacks the markers {first} and {last}: put them where the tables belong")
    return f"{before}{first}\n\n{tables}\n{last}{after}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("results", type=Path, help="JSON file of tools/bench_models.py or tools/bench_kernels.py")
    parser.add_argument("--page", type=Path, default=PAGE, help="page to write into (default: docs/performance.md)")
    arguments = parser.parse_args()
    results = json.loads(arguments.results.read_text())
    if results.get("kind") == KERNELS:
        page = insert(arguments.page.read_text(), kernels.markdown(results), KERNELS)
    else:
        page = insert(arguments.page.read_text(), models.markdown(results), MODELS)
    arguments.page.write_text(page)


if __name__ == "__main__":
    main()
