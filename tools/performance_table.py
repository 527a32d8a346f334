"""Write the tables of a benchmark's JSON file into a page of docs/performance, between that benchmark's markers."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from kernel_bench import report as kernels
from model_bench import picture, settings
from model_bench import report as models

MODELS, KERNELS = "benchmark", "kernels"
PAGES = Path(__file__).parent.parent / "docs" / "performance"


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
    parser.add_argument(
        "results", type=Path, nargs="+", help="JSON files of tools/bench_models.py, or one of tools/bench_kernels.py"
    )
    parser.add_argument("--page", type=Path, help="page to write into (default: models.md or kernels.md there)")
    parser.add_argument("--picture", type=Path, help="SVG of the ratios of tools/bench_models.py; needs matplotlib")
    parser.add_argument(
        "--steady", metavar="MARKER", help="one table of steady state, a column a setting, between these markers"
    )
    arguments = parser.parse_args()
    files = [json.loads(file.read_text()) for file in arguments.results]
    if len(files) > 1 and not arguments.steady:
        parser.error("several files make one table with --steady only")
    results = files[0]
    of_kernels = results.get("kind") == KERNELS
    page = arguments.page or PAGES / ("kernels.md" if of_kernels else "models.md")
    if arguments.steady:
        name, tables = arguments.steady, settings.markdown(files)
    elif of_kernels:
        name, tables = KERNELS, kernels.markdown(results)
    else:
        name, tables = MODELS, models.markdown(results)
    page.write_text(insert(page.read_text(), tables, name))
    if arguments.picture and arguments.steady:
        settings.draw(files, arguments.picture)
    elif arguments.picture and not of_kernels:
        picture.draw(results, arguments.picture)


if __name__ == "__main__":
    main()
