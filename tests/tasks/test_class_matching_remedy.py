"""The remedy about classes that do not match works as it is printed."""

from __future__ import annotations

import shlex

import numpy as np
import pytest

from kdcli.data.splits import TEST
from kdcli.data.task import Split, Task
from kdcli.errors import RequestError
from kdcli.recipe.yaml_document import Override
from kdcli.tasks.classification import Classification


@pytest.mark.parametrize("name", ["bert", "v1.2", "lr=1e-5", "a b"])
@pytest.mark.parametrize(
    "labels",
    [
        ("no", "yes"),
        ("True", "False"),
        ("0.0", "1.5"),
        ("a, b", "c"),
        ('say "hi"', "it's"),
        ("[x]", "{y: z}", "#"),
        (" ", "null"),
        tuple(f"class {row}" for row in range(77)),
    ],
)
def test_printed_labels_are_read_as_they_were_meant(name: str, labels: tuple[str, ...]) -> None:
    task = Task("t", Classification(labels, labels), "accuracy", {TEST: Split(["x"], None, np.array([0]), "d.csv", "f")})
    with pytest.raises(RequestError) as caught:
        task.kind.order_of(f"--teachers {name}=folder", [f"head {row}" for row in labels], "classification", name)
    flag, value, *_ = shlex.split(caught.value.problems[0].remedy.partition(" in the order")[0])
    assert flag == "--set"
    override = Override.parse(value)
    read = override.value if override.path[-1] == name else override.value[name]
    assert read == list(labels)
