"""Checks as JUnit XML, the report that CI systems read."""

from __future__ import annotations

from collections.abc import Sequence
from xml.etree import ElementTree

from libra_edge.parity.gates import Check

_ELEMENTS = {"fail": "failure", "not measured": "error"}


def junit_xml(suite: str, checks: Sequence[Check], left_out: Sequence[str] = ()) -> bytes:
    """One test case per check; a check that was not measured is an error, never a skip.

    Only what was not asked for, `left_out`, is skipped.
    """
    root = ElementTree.Element(
        "testsuite",
        name=suite,
        tests=str(len(checks) + len(left_out)),
        failures=str(sum(check.verdict == "fail" for check in checks)),
        errors=str(sum(check.verdict == "not measured" for check in checks)),
        skipped=str(len(left_out)),
    )
    for check in checks:
        case = ElementTree.SubElement(root, "testcase", classname=check.stage, name=check.metric)
        text = f"value {check.value:g}, gate {check.threshold:g}, N {check.samples}"
        if check.verdict != "pass":
            message = f"{text}; {check.note}" if check.note else text
            ElementTree.SubElement(case, _ELEMENTS[check.verdict], message=message)
        ElementTree.SubElement(case, "system-out").text = text
    for what in left_out:
        case = ElementTree.SubElement(root, "testcase", classname="not asked for", name=what)
        ElementTree.SubElement(case, "skipped", message="not part of what was asked for")
    ElementTree.indent(root)
    xml: bytes = ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)
    return xml + b"\n"
