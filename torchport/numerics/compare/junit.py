"""A comparison as JUnit XML for CI systems: every difference of the programs and every launch is a test case."""

from __future__ import annotations

from collections.abc import Collection
from xml.etree import ElementTree

from torchport.numerics.compare.diff import Diff
from torchport.numerics.programs.provenance import title_of

__all__ = ["junit"]


def junit(diff: Diff, failing: Collection[str]) -> bytes:
    """The XML in UTF-8.

    Failures are what differs between the programs, and launches with a level in ``failing``. Launches without a verdict
    are skipped.
    """
    root = ElementTree.Element("testsuites", name="torchport diff")
    _programs(diff, root)
    for name, run in (("A", diff.a), ("B", diff.b)):
        suite = ElementTree.SubElement(root, "testsuite", name=f"{name} {title_of(run)}")
        counts = {"tests": 0, "failures": 0, "skipped": 0}
        seen: set[int] = set()
        for row in diff.rows:
            side = row.side(name)
            if side is None or side.seq in seen:
                continue
            seen.add(side.seq)
            counts["tests"] += 1
            place = row.module or row.direction
            case = ElementTree.SubElement(
                suite, "testcase", name=_text(f"launch {side.seq}: {side.kernel}"), classname=_text(place), time="0"
            )
            if side.launch_level in failing:
                counts["failures"] += 1
                failure = ElementTree.SubElement(
                    case, "failure", type=side.launch_level, message=_text("; ".join(side.reasons))
                )
                source = row.source or {}
                failure.text = _text(f"{source.get('file', '')}:{source.get('line', '')} {source.get('code', '')}")
            elif side.launch_level == "UNVERIFIED":
                counts["skipped"] += 1
                ElementTree.SubElement(case, "skipped", message=_text("; ".join(side.reasons)))
        for what, count in counts.items():
            suite.set(what, str(count))
    data: bytes = ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)
    return data


def _programs(diff: Diff, root: ElementTree.Element) -> None:
    """A suite with the differences of the programs as failures; one test that passes where there are none."""
    differences = diff.programs.differences
    count = str(max(1, len(differences)))
    suite = ElementTree.SubElement(
        root, "testsuite", name="programs", tests=count, failures=str(len(differences)), skipped="0"
    )
    for one in differences:
        case = ElementTree.SubElement(
            suite, "testcase", name=_text(f"{one.kind} {one.name}"), classname="programs", time="0"
        )
        failure = ElementTree.SubElement(case, "failure", type="PROGRAMS DIFFER", message=_text(one.summary))
        failure.text = _text("\n".join([*one.places, *one.diff]))
    if not differences:
        ElementTree.SubElement(suite, "testcase", name="same program", classname="programs", time="0")


def _text(text: str) -> str:
    """Replace characters that XML 1.0 forbids."""
    return "".join(char if char in "\t\n\r" or ord(char) >= 0x20 else "?" for char in text)
