"""Classes of a model and classes of the task, matched by name."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Sequence

from kdcli.errors import Problem, RequestError


def match_labels(
    where: str, head_labels: Sequence[str], names: Sequence[str], raw_names: Sequence[str], teacher: str | None = None
) -> list[int]:
    """For each class of the task, the index of the teacher's output that stands for it.

    Names are compared without regard to case and to the kind of separator, with the task's class names and with what its
    files write. Names that say nothing (``LABEL_0``, …) are taken in order only where the files number their classes from 0.

    Args:
        where: the flag or the model, for messages.
        head_labels: the classes of the head, in the order of its outputs.
        names: of the task's classes.
        raw_names: what its files write for each.
        teacher: the name under which a recipe knows the model, for the way out.

    Raises:
        RequestError: the names do not match; with both lists.
    """
    for known in (names, raw_names):
        order = order_by_name(head_labels, known)
        if order is not None:
            return order
    count = len(names)
    nameless = all(re.fullmatch(r"label \d+", _plain(label)) for label in head_labels)
    if nameless and len(head_labels) == count and list(raw_names) == [str(row) for row in range(count)]:
        return list(range(count))
    remedy = "data with these classes, or the right names under id2label in its config.json"
    if where.startswith("--teachers "):
        called = teacher or where.removeprefix("--teachers ").partition("=")[0]
        retrain = "--set teachers.cofinetune.which=all to drop its head and co-finetune it"
        named = f"--set {shlex.quote(_labels_in_recipe(called, names))} in the order of its outputs, or "
        remedy = named + retrain if len(head_labels) == count else retrain
    raise RequestError(
        Problem(
            where,
            "the classes of its head are not the classes of the task",
            _brief(names),
            _brief(head_labels),
            remedy,
        )
    )


def order_by_name(head_labels: Sequence[str], labels: Sequence[str]) -> list[int] | None:
    """For each of ``labels`` the place of the same name in ``head_labels``; None where the two are not the same names."""
    given, wanted = [_plain(label) for label in head_labels], [_plain(label) for label in labels]
    if sorted(given) != sorted(wanted) or len(set(given)) < len(given):
        return None
    return [given.index(label) for label in wanted]


def _labels_in_recipe(name: str, labels: Sequence[str]) -> str:
    """``teachers.labels.NAME=[…]`` with every class as text, whatever YAML would take it for."""
    listed = json.dumps(list(labels), ensure_ascii=False)
    if re.fullmatch(r"[A-Za-z_][\w-]*", name):
        return f"teachers.labels.{name}={listed}"
    return f"teachers.labels={{{json.dumps(name, ensure_ascii=False)}: {listed}}}"


def _plain(label: str) -> str:
    return re.sub(r"[\s_-]+", " ", str(label).strip().casefold())


def _brief(labels: Sequence[str], most: int = 10) -> str:
    more = f", … ({len(labels)} in all)" if len(labels) > most else ""
    return ", ".join(labels[:most]) + more
