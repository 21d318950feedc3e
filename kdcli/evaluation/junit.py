"""Gates as JUnit XML, which CI systems show as tests."""

from __future__ import annotations

import re
from xml.etree import ElementTree

from kdcli.evaluation.document import Evaluation, GateResult

_NOT_IN_XML = re.compile(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def junit(evaluation: Evaluation) -> str:
    """One test case per gate and model, and one per model for its score: an error where it has none."""
    broken = [gate for gate in evaluation.gates if not gate.passed]
    cases = len(evaluation.gates) + len(evaluation.judged) + len(evaluation.unscored)
    errors = str(len(evaluation.unscored))
    root = ElementTree.Element("testsuites", tests=str(cases), failures=str(len(broken)), errors=errors)
    suite = ElementTree.SubElement(
        root,
        "testsuite",
        name=_plain(f"kdcli evaluate {evaluation.task} {evaluation.split}"),
        tests=str(cases),
        failures=str(len(broken)),
        errors=errors,
        skipped="0",
    )
    properties = ElementTree.SubElement(suite, "properties")
    for key in ("task", "split", "rows", "metric", "fingerprint", "kdcli"):
        ElementTree.SubElement(properties, "property", name=key, value=_plain(str(getattr(evaluation, key))))
    for model in evaluation.judged:
        case = ElementTree.SubElement(suite, "testcase", classname=_plain(model.name), name=evaluation.metric)
        low, high = model.interval
        output = ElementTree.SubElement(case, "system-out")
        output.text = f"{evaluation.metric} {model.scores[evaluation.metric]:.4f} (95 % interval {low:.4f} to {high:.4f})"
    for without in evaluation.unscored:
        case = ElementTree.SubElement(suite, "testcase", classname=_plain(without.name), name=evaluation.metric)
        error = ElementTree.SubElement(case, "error", message=_plain(without.sentence), type="not-finite")
        error.text = _plain(without.sentence)
    for gate in evaluation.gates:
        _add(suite, gate)
    ElementTree.indent(root)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ElementTree.tostring(root, encoding="unicode") + "\n"


def _add(suite: ElementTree.Element, gate: GateResult) -> None:
    case = ElementTree.SubElement(suite, "testcase", classname=_plain(gate.model), name=_plain(gate.gate))
    kind = "system-out" if gate.passed else "failure"
    told = ElementTree.SubElement(case, kind)
    told.text = _plain(gate.sentence)
    if not gate.passed:
        told.set("message", _plain(gate.sentence))
        told.set("type", "gate")


def _plain(text: str) -> str:
    """Without the characters that XML cannot hold."""
    return _NOT_IN_XML.sub("\N{REPLACEMENT CHARACTER}", text)
