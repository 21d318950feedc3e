"""The kinds of task that there are: every module of this package that has one."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping
from functools import cache

from kdcli import tasks
from kdcli.tasks.classification import Classification
from kdcli.tasks.kind import Kind
from kdcli.tasks.target_column import Column


@cache
def kinds() -> Mapping[str, type[Kind]]:
    """By name, in alphabetical order."""
    found: dict[str, type[Kind]] = {}
    for module in sorted(about.name for about in pkgutil.iter_modules(tasks.__path__)):
        for value in vars(importlib.import_module(f"{tasks.__name__}.{module}")).values():
            if isinstance(value, type) and issubclass(value, Kind) and value is not Kind:
                found[value.name] = value
    return dict(sorted(found.items()))


def kind_of_head(problem_type: str) -> type[Kind] | None:
    """The kind that a head of that ``problem_type``, as transformers calls it, is for; None where there is none."""
    return next((kind for kind in kinds().values() if kind.problem_type == problem_type), None)


def kind_like(column: Column) -> type[Kind]:
    """The kind that a training file's targets look like; where no other does, classification."""
    others = (kind for kind in kinds().values() if kind is not Classification)
    return next((kind for kind in others if kind.recognises(column)), Classification)
