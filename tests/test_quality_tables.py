"""The figures of docs/results.md: scores under weights against scikit-learn, differences against what is known of them."""

from __future__ import annotations

import base64
import importlib.util
import json
import sys
import zlib
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
CLASSES = ["a", "b", "c"]


@pytest.fixture(scope="module")
def tables() -> ModuleType:
    """``benchmarks/quality_tables.py``."""
    about = importlib.util.spec_from_file_location("quality_tables", BENCHMARKS / "quality_tables.py")
    assert about is not None
    assert about.loader is not None
    module = importlib.util.module_from_spec(about)
    sys.modules["quality_tables"] = module
    about.loader.exec_module(module)
    return module


def packed(names: list[str], classes: list[str] | None = None) -> dict[str, Any]:
    """As ``quality.py`` writes the classes of all rows."""
    classes = classes or sorted(set(names))
    numbers = bytes(classes.index(name) for name in names)
    return {"classes": classes, "predictions": base64.b85encode(zlib.compress(numbers)).decode()}


def noisy(labels: list[str], share: float, seed: int) -> list[str]:
    """The labels, some of them replaced."""
    generator = np.random.default_rng(seed)
    return [str(generator.choice([*CLASSES, "d"])) if generator.random() < share else label for label in labels]


LABELS = [CLASSES[row % 3] if row % 7 else "a" for row in range(60)]


@pytest.mark.parametrize("metric", ["accuracy", "macro-f1", "matthews"])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_scores_under_weights_are_those_of_the_repeated_rows(metric: str, seed: int, tables: ModuleType) -> None:
    gold = tables.Gold(metric, CLASSES, np.array([CLASSES.index(label) for label in LABELS]))
    said = noisy(LABELS, 0.5, seed)
    numbers = tables._unpacked(packed(said), CLASSES)
    weights = np.random.default_rng(seed).multinomial(60, np.full(60, 1 / 60), size=5).astype(float)
    found = gold.scores([numbers], weights)
    for value, times in zip(found, weights.astype(int), strict=True):
        rows = np.repeat(np.arange(60), times)
        true, mine = [LABELS[row] for row in rows], [said[row] for row in rows]
        expected = {
            "accuracy": lambda true=true, mine=mine: accuracy_score(true, mine),
            "macro-f1": lambda true=true, mine=mine: f1_score(
                true, mine, labels=sorted(set(true)), average="macro", zero_division=0
            ),
            "matthews": lambda true=true, mine=mine: matthews_corrcoef(true, mine),
        }[metric]()
        assert value == pytest.approx(expected)


def study(tables: ModuleType, folder: Path, share: float) -> Any:
    """Three seeds of a method whose predictions are wrong so often, beside one with a fifth of wrong ones."""
    found = {"mine/gold": {"metric": "accuracy", **packed(LABELS)}}
    for seed in range(3):
        found[f"mine/single/3L/kdcli/{seed}"] = {"test": 0.5, "dev": 0.5, **packed(noisy(LABELS, 0.2, seed))}
        found[f"mine/single/3L/textbrewer/{seed}"] = {"test": 0.5, "dev": 0.5, **packed(noisy(LABELS, share, 10 + seed))}
    path = folder / "quality.json"
    path.write_text(json.dumps(found))
    return tables.Study(path)


@pytest.mark.parametrize(("share", "low", "high"), [(0.9, 0.0, 0.05), (0.2, 0.05, 1.0)])
def test_a_difference_is_told_with_its_interval_and_chance(
    share: float, low: float, high: float, tables: ModuleType, tmp_path: Path
) -> None:
    found = study(tables, tmp_path, share)
    ours, theirs = (list(found.seeds("mine", "single", 3, method).values()) for method in ("kdcli", "textbrewer"))
    difference = found.difference([("mine", ours, theirs)])
    right = [
        np.mean(
            [np.mean([said == label for said, label in zip(noisy(LABELS, part, seed), LABELS, strict=True)]) for seed in seeds]
        )
        for part, seeds in ((0.2, range(3)), (share, range(10, 13)))
    ]
    assert difference.value == pytest.approx(right[0] - right[1])
    assert difference.low <= difference.value <= difference.high
    assert low <= difference.p <= high


def test_without_runs_there_is_no_difference(tables: ModuleType, tmp_path: Path) -> None:
    assert study(tables, tmp_path, 0.5).difference([]) is None


@pytest.mark.parametrize(("ours", "theirs", "verdict"), [(0.1, 0.8, "holds"), (0.8, 0.1, "fails"), (0.4, 0.4, "not shown")])
def test_a_claim_holds_fails_or_is_not_shown(
    ours: float, theirs: float, verdict: str, tables: ModuleType, tmp_path: Path
) -> None:
    claim = tables.CLAIMS[0]
    found = {"mine/gold": {"metric": "accuracy", **packed(LABELS)}}
    for share, (teachers, method), first in ((ours, claim.ours, 0), (theirs, claim.theirs, 10)):
        for seed in range(3):
            found[f"mine/{teachers}/3L/{method}/{seed}"] = packed(noisy(LABELS, share, first + seed))
    (tmp_path / "quality.json").write_text(json.dumps(found))
    rows = tables.claims(tables.Study(tmp_path / "quality.json")).splitlines()[2:]
    assert len(rows) == 1
    assert rows[0].startswith(f"| {claim.what} | mine | 3 |")
    assert rows[0].endswith(f"| {verdict} |")


def test_what_is_inherited_is_counted_where_the_teacher_is_right_and_where_it_is_wrong(
    tables: ModuleType, tmp_path: Path
) -> None:
    gold, teacher = list("aabbcc"), list("aabbab")  # wrong on the last two
    student, tuned = list("aabcac"), list("abbbcc")  # says it on 3 of 4 and 1 of 2; on 3 of 4 and none of 2
    found = {
        "mine/gold": {"metric": "accuracy", **packed(gold)},
        "mine/trainer/l6/0.1": {"dev": 0.5, "test": 0.5, **packed(teacher)},
        "mine/single/3L/kdcli/0": packed(student),
        "mine/minilm/3L/finetune/0": packed(tuned),
    }
    (tmp_path / "quality.json").write_text(json.dumps(found))
    row = tables.inherited(tables.Study(tmp_path / "quality.json")).splitlines()[2]
    assert row == "| mine | minilm-l6 alone | 75.0% | 50.0% | 75.0% | 0.0% |"


def test_an_unknown_time_is_left_out(tables: ModuleType, tmp_path: Path) -> None:
    found: dict[str, Any] = {"mine/gold": {"metric": "accuracy", **packed(LABELS)}}
    for method, seconds in (("kdcli", [60, None]), ("textbrewer", [120, 180])):
        for seed, taken in enumerate(seconds):
            found[f"mine/single/3L/{method}/{seed}"] = {"seconds": taken, **packed(LABELS)}
    (tmp_path / "quality.json").write_text(json.dumps(found))
    assert tables.seconds(tables.Study(tmp_path / "quality.json")).splitlines()[2:] == ["| mine | 3 | 1.0 | 2.5 | 0.40 |"]


def test_differences_are_pooled_for_each_set_of_teachers_by_itself(tables: ModuleType, tmp_path: Path) -> None:
    found = {"mine/gold": {"metric": "accuracy", **packed(LABELS)}}
    for place, (teachers, method) in enumerate((("single", "kdcli"), ("minilm", "kdcli"), ("single", "textbrewer"))):
        found[f"mine/{teachers}/3L/{method}/0"] = {"test": 0.5, **packed(noisy(LABELS, 0.2, place))}
    (tmp_path / "quality.json").write_text(json.dumps(found))
    told = tables.against(tables.Study(tmp_path / "quality.json"), "textbrewer").splitlines()
    assert [line.split(", pooled")[0] for line in told if "pooled" in line] == [
        "minilm-l6 alone", "minilm-l6 and minilm-bpe"
    ]  # fmt: skip
    assert all("pooled over 1 row:" in line for line in told if "pooled" in line)
