"""The tables and the picture of docs/results.md, from benchmarks/quality.json alone.

    python benchmarks/quality_tables.py            # writes them: the tables between the markers of docs/results.md

Differences are over the same test rows. Their intervals and p-values are from a bootstrap that draws rows and seeds anew (2,000
times, seed 0); a pooled difference is the mean over the tasks, which are taken as they are. p is two-sided.
"""

from __future__ import annotations

import base64
import json
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

HERE = Path(__file__).parent
RESULTS, PAGE = HERE / "quality.json", HERE.parent / "docs" / "results.md"
BEGIN, END = "<!-- tables: begin -->", "<!-- tables: end -->"
DRAWS = 2000
Floats = NDArray[np.float64]
PAIRS = {"minilm": ("l6", "bpe"), "mpnet": ("mpnet", "l6"), "single": ("l6",)}
TEACHERS_OF = {"minilm": "minilm-l6 and minilm-bpe", "mpnet": "mpnet and minilm-l6", "single": "minilm-l6 alone"}
HALF = {"minilm": 3, "single": 3, "mpnet": 6}
_QUICK = "kdcli --effort quick"
_INTERNAL = "internal-all --effort quick --set stages.0.epochs=auto"
_TWO_STAGES = "--effort quick --set stages.0.epochs=auto --set stages.1.epochs=auto"


@dataclass(frozen=True)
class Claim:
    """What a paper says, as a comparison of two ways (teachers, method) over the same tasks and seeds."""

    what: str
    ours: tuple[str, str]
    theirs: tuple[str, str]


CLAIMS = (
    Claim("two co-finetuned teachers > the first of them alone", ("minilm", _QUICK), ("one-of-pair", _QUICK)),
    Claim("two co-finetuned teachers > two that are fine-tuned one by one", ("minilm", _QUICK), ("separate", _QUICK)),
    Claim("hard labels help", ("minilm", _QUICK), ("minilm", f"{_QUICK} --set stages.0.objective.0.weight=0")),
    Claim("soft labels help", ("minilm", _QUICK), ("minilm", f"{_QUICK} --set stages.0.objective.1.weight=0")),
    Claim("hidden states help", ("minilm", _QUICK), ("minilm", f"{_QUICK} --set stages.0.objective.2.weight=0")),
    Claim(
        "teachers weighted by 1/(1 + CE), in sample > uniform weights",
        ("minilm", f"{_QUICK} --set stages.0.objective.1.weighting=inverse-error"),
        ("minilm", _QUICK),
    ),
    Claim(
        "attention KL, [CLS] cosine and soft labels > soft labels alone",
        ("single", _INTERNAL),
        ("single", f"{_INTERNAL} --set stages.0.objective.0.weight=0 --set stages.0.objective.1.weight=0"),
    ),
    Claim("KL and cosine > KL alone", ("single", _INTERNAL), ("single", f"{_INTERNAL} --set stages.0.objective.1.weight=0")),
    Claim(
        "KL and cosine > cosine alone", ("single", _INTERNAL), ("single", f"{_INTERNAL} --set stages.0.objective.0.weight=0")
    ),
    Claim("progressive > all layers at once", ("single", f"internal-progressive {_TWO_STAGES}"), ("single", _INTERNAL)),
    Claim(
        "stacked > progressive",
        ("single", f"internal-stacked {_TWO_STAGES}"),
        ("single", f"internal-progressive {_TWO_STAGES}"),
    ),
)


@dataclass(frozen=True)
class Gold:
    """A task's test rows."""

    metric: str
    classes: list[str]
    labels: NDArray[np.int64]

    def scores(self, predicted: Sequence[NDArray[np.int64]], weights: Floats) -> Floats:
        """Mean score over some models for each drawing of rows. Shapes: predicted [S] of [n], weights [R, n] → [R]."""
        return np.asarray(np.mean([self._score(one, weights) for one in predicted], axis=0), dtype=np.float64)

    def _score(self, predicted: NDArray[np.int64], weights: Floats) -> Floats:
        right = predicted == self.labels
        if self.metric == "accuracy":
            return np.asarray(weights @ right / weights.sum(1), dtype=np.float64)
        count = max(len(self.classes), int(predicted.max()) + 1)
        cells = self.labels * count + predicted
        table = np.stack([np.bincount(cells, row, count * count) for row in weights]).reshape(-1, count, count)
        hits, gold, said = np.diagonal(table, axis1=1, axis2=2), table.sum(2), table.sum(1)
        if self.metric == "macro-f1":
            there = gold > 0
            f1 = np.divide(2 * hits, gold + said, out=np.zeros_like(hits), where=gold + said > 0)
            return np.asarray((f1 * there).sum(1) / there.sum(1), dtype=np.float64)
        whole = table.sum((1, 2))
        covered = hits.sum(1) * whole - (gold * said).sum(1)
        spread = np.sqrt((whole**2 - (gold**2).sum(1)) * (whole**2 - (said**2).sum(1)))
        return np.asarray(np.divide(covered, spread, out=np.zeros_like(covered), where=spread > 0), dtype=np.float64)


class Study:
    """What the study has found."""

    def __init__(self, path: Path = RESULTS) -> None:
        self.found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        self.gold = {
            key.split("/")[0]: Gold(about["metric"], about["classes"], _unpacked(about, about["classes"]))
            for key, about in self.found.items()
            if key.endswith("/gold")
        }
        self.tasks = list(self.gold)

    def seeds(self, task: str, teachers: str, layers: int, method: str) -> dict[int, dict[str, Any]]:
        """Seed → what a method gave."""
        begin = f"{task}/{teachers}/{layers}L/{method}/"
        rest = {key.removeprefix(begin): about for key, about in self.found.items() if key.startswith(begin)}
        return {int(key): about for key, about in rest.items() if key.isdigit()}

    def teachers(self, task: str, teachers: str) -> dict[str, dict[str, Any]]:
        """Name → scores of those who taught."""
        if teachers == "single":
            tries = self.trainer(task, PAIRS["single"][0])
            return {"l6": max(tries, key=lambda about: float(about["dev"]))} if tries else {}
        begin = f"{task}/{teachers}/teachers/"
        return {name: self.found[begin + name] for name in PAIRS[teachers] if begin + name in self.found}

    def trainer(self, task: str, name: str) -> list[dict[str, Any]]:
        """What the Hugging Face Trainer's search gave."""
        begin = f"{task}/trainer/{name}/"
        return [about for key, about in self.found.items() if key.startswith(begin)]

    def difference(self, pairs: Iterable[tuple[str, Sequence[dict[str, Any]], Sequence[dict[str, Any]]]]) -> Difference | None:
        """Mean over some (task, models, other models) of the difference of their mean scores."""
        draws, values = [], []
        generator = np.random.default_rng(0)
        for task, ours, theirs in pairs:
            gold = self.gold[task]
            mine, others = ([_unpacked(one, gold.classes) for one in side] for side in (ours, theirs))
            rows = len(gold.labels)
            weights = generator.multinomial(rows, np.full(rows, 1 / rows), size=DRAWS).astype(np.float64)
            sides = []
            for side in (mine, others):
                each = np.stack([gold.scores([one], weights) for one in side])
                chosen = generator.integers(len(side), size=(len(side), DRAWS))
                sides.append(np.take_along_axis(each, chosen, 0).mean(0))
            draws.append(sides[0] - sides[1])
            one = np.ones((1, rows))
            values.append(float(gold.scores(mine, one)[0] - gold.scores(others, one)[0]))
        if not draws:
            return None
        pooled = np.mean(draws, axis=0)
        tail = min((pooled <= 0).mean(), (pooled >= 0).mean())
        low, high = np.quantile(pooled, [0.025, 0.975])
        return Difference(
            float(np.mean(values)), float(low), float(high), min(1.0, max(2 * float(tail), 1 / DRAWS)), len(values)
        )


@dataclass(frozen=True)
class Difference:
    """A difference in score, its interval and its p-value."""

    value: float
    low: float
    high: float
    p: float
    tasks: int

    def __str__(self) -> str:
        p = f"p = {self.p:.3f}" if self.p > 0.001 else "p ≤ 0.001"
        return f"{_points(self.value)} ({_points(self.low)} to {_points(self.high)}, {p})"


def _points(value: float) -> str:
    return f"{100 * value:+.1f}".replace("-", "−")


def _unpacked(about: dict[str, Any], classes: list[str]) -> NDArray[np.int64]:
    """The class of every row, numbered as in ``classes``; those that are not there come behind them."""
    numbers = np.frombuffer(zlib.decompress(base64.b85decode(about["predictions"])), np.uint8).astype(np.int64)
    own = about["classes"]
    more = [name for name in own if name not in classes]
    return np.array([[*classes, *more].index(name) for name in own], dtype=np.int64)[numbers]


def retention(study: Study) -> str:
    """Goal 1: what a student keeps of its best teacher."""
    lines = [
        "| task (test rows, metric) | teachers | best teacher | layers | student, mean over seeds (lowest–highest) | kept |",
        "|---|---|---|---|---|---|",
    ]
    for task in study.tasks:
        gold = study.gold[task]
        for teachers, half in HALF.items():
            known = study.teachers(task, teachers)
            for layers in (half, half * 2 // 3):
                found = [about["test"] for about in study.seeds(task, teachers, layers, "kdcli").values()]
                if found and known:
                    best = max(about["test"] for about in known.values())
                    what = f"{task} ({len(gold.labels):,}, {gold.metric})"
                    lines.append(
                        f"| {what} | {TEACHERS_OF[teachers]} | {100 * best:.1f} | {layers} of {2 * half} | {spread(found)} | "
                        f"{np.mean(found) / best:.1%} |"
                    )
    return "\n".join(lines)


def spread(found: Sequence[float]) -> str:
    """Mean and range, and how many."""
    inside = f" ({100 * min(found):.1f}–{100 * max(found):.1f}; {len(found)} seeds)" if len(found) > 1 else " (1 seed)"
    return f"{100 * np.mean(found):.1f}{inside}"


def against(study: Study, method: str, teachers: Sequence[str] = ("single", "minilm", "mpnet")) -> str:
    """Goal 2: kdcli against another method, task by task and pooled."""
    lines = ["| task | teachers | layers | kdcli | " + method + " | difference (95 % interval) |", "|---|---|---|---|---|---|"]
    pooled: dict[str, list[Any]] = {name: [] for name in teachers}  # apart: the others' models are the same ones
    for task in study.tasks:
        for name in teachers:
            for layers in (HALF[name], HALF[name] * 2 // 3):
                other = "single" if method == "textbrewer" else {"single": "minilm"}.get(name, name)
                ours, theirs = (study.seeds(task, who, layers, how) for who, how in ((name, "kdcli"), (other, method)))
                both = sorted(ours.keys() & theirs.keys())
                if not both:
                    continue
                mine, others = [ours[seed] for seed in both], [theirs[seed] for seed in both]
                pooled[name].append((task, mine, others))
                difference = study.difference([(task, mine, others)])
                lines.append(
                    f"| {task} | {TEACHERS_OF[name]} | {layers} | {spread([one['test'] for one in mine])} | "
                    f"{spread([one['test'] for one in others])} | {difference} |"
                )
    told = [
        f"{TEACHERS_OF[name]}, pooled over {len(rows)} row{'' if len(rows) == 1 else 's'}: {study.difference(rows)}."
        for name, rows in pooled.items()
        if rows
    ]
    return "\n".join([*lines, "", *told])


def seconds(study: Study) -> str:
    """Goal 3: the wall time of the whole command."""
    lines = ["| task | layers | kdcli, minutes | textbrewer, minutes | ratio |", "|---|---|---|---|---|"]
    for task in study.tasks:
        for layers in (3, 2):
            sides = [study.seeds(task, "single", layers, method).values() for method in ("kdcli", "textbrewer")]
            known = [[one["seconds"] / 60 for one in side if one.get("seconds")] for side in sides]
            if all(known):
                mine, others = (float(np.median(side)) for side in known)
                lines.append(f"| {task} | {layers} | {mine:.1f} | {others:.1f} | {mine / others:.2f} |")
    return "\n".join(lines)


def of_teachers(study: Study) -> str:
    """Goal 4: co-finetuned teachers against the Hugging Face Trainer's."""
    lines = [
        "| task | teacher | co-finetuned with | co-finetuned | by the Trainer, best of its search on dev | difference |",
        "|---|---|---|---|---|---|",
    ]
    for task in study.tasks:
        for pair in ("minilm", "mpnet"):
            for name, about in study.teachers(task, pair).items():
                tries = study.trainer(task, name)
                if tries:
                    best = max(tries, key=lambda one: float(one["dev"]))
                    other = next(each for each in PAIRS[pair] if each != name)
                    difference = study.difference([(task, [about], [best])])
                    lines.append(
                        f"| {task} | {name} | {other} | {100 * about['test']:.1f} | {100 * best['test']:.1f} | {difference} |"
                    )
    return "\n".join(lines)


def methods(study: Study) -> str:
    """Every other recipe and flag that was run, against the default recipe on the same teachers, layers and seeds."""
    known = {"kdcli", "textbrewer", "finetune", "kdcli --effort thorough"}
    known |= {method for claim in CLAIMS for _, method in (claim.ours, claim.theirs)}
    by_method: dict[str, list[tuple[str, Any, Any]]] = defaultdict(list)
    for key in study.found:
        parts = key.split("/")
        if len(parts) == 5 and parts[4].isdigit() and parts[3] not in known:
            task, teachers, layers, method, seed = parts
            ours = study.seeds(task, teachers, int(layers[:-1]), "kdcli").get(int(seed))
            if ours is not None:
                by_method[method].append((f"{task}/{teachers}/{layers}", study.found[key], ours))
    lines = ["| recipe and flags | runs | against the default recipe |", "|---|---|---|"]
    for method, runs in sorted(by_method.items()):
        groups: dict[str, tuple[list[Any], list[Any]]] = defaultdict(lambda: ([], []))
        for place, theirs, ours in runs:
            groups[place][0].append(theirs)
            groups[place][1].append(ours)
        difference = study.difference([(place.split("/")[0], a, b) for place, (a, b) in groups.items()])
        lines.append(f"| `{method}` | {len(runs)} on {', '.join(groups)} | {difference} |")
    return "\n".join(lines)


def claims(study: Study) -> str:
    """The papers' claims one by one: holds, fails (the opposite is shown), or neither is shown."""
    lines = ["| claim | tasks | seeds | difference (95 % interval) | |", "|---|---|---|---|---|"]
    for claim in CLAIMS:
        found = []
        for task in study.tasks:
            ours, theirs = (study.seeds(task, teachers, 3, method) for teachers, method in (claim.ours, claim.theirs))
            both = sorted(ours.keys() & theirs.keys())
            if both:
                found.append((task, [ours[seed] for seed in both], [theirs[seed] for seed in both]))
        difference = study.difference(found)
        if difference is not None:
            verdict = "holds" if difference.low > 0 else "fails" if difference.high < 0 else "not shown"
            tasks, most = ", ".join(task for task, *_ in found), max(len(ours) for _, ours, _ in found)
            lines.append(f"| {claim.what} | {tasks} | {most} | {difference} | {verdict} |")
    return "\n".join(lines)


def fewer_rows(study: Study) -> str:
    """The gain over fine-tuning as the training rows become fewer; the teachers have seen all rows."""
    lines = ["| training rows | kdcli | fine-tuned | difference (95 % interval) |", "|---|---|---|---|"]
    for task in ("sst2-10000", "sst2-3000", "sst2-1000", "sst2-300"):
        ours, theirs = (study.seeds(task, "minilm", 3, method) for method in ("kdcli", "finetune"))
        both = sorted(ours.keys() & theirs.keys())
        if both:
            mine, others = ([side[seed] for seed in both] for side in (ours, theirs))
            scores = " | ".join(spread([one["test"] for one in side]) for side in (mine, others))
            lines.append(f"| {task} | {scores} | {study.difference([(task, mine, others)])} |")
    return "\n".join(lines)


def inherited(study: Study) -> str:
    """How often a student says what its best teacher says, where that is right and where it is wrong."""
    lines = [
        "| task | teachers | says what the best teacher says: kdcli, where it is right | where it is wrong | "
        "fine-tuned, where it is right | where it is wrong |",
        "|---|---|---|---|---|---|",
    ]
    for task in study.tasks:
        gold = study.gold[task]
        for teachers in ("single", "minilm"):
            known = study.teachers(task, teachers)
            ours, theirs = study.seeds(task, teachers, 3, "kdcli"), study.seeds(task, "minilm", 3, "finetune")
            both = sorted(ours.keys() & theirs.keys())
            if not known or not both:
                continue
            said = _unpacked(max(known.values(), key=lambda about: float(about["test"])), gold.classes)
            cells = []
            for side in (ours, theirs):
                alike = np.mean([_unpacked(side[seed], gold.classes) == said for seed in both], axis=0)
                cells += [f"{alike[said == gold.labels].mean():.1%}", f"{alike[said != gold.labels].mean():.1%}"]
            lines.append(f"| {task} | {TEACHERS_OF[teachers]} | {' | '.join(cells)} |")
    return "\n".join(lines)


def efforts(study: Study) -> str:
    """What the dial costs and buys."""
    lines = ["| task | teachers | effort | minutes | score | against normal (95 % interval) |", "|---|---|---|---|---|---|"]
    for task in study.tasks:
        for teachers, half in HALF.items():
            normal = study.seeds(task, teachers, half, "kdcli")
            for effort, method in (("quick", _QUICK), ("thorough", "kdcli --effort thorough")):
                found = study.seeds(task, teachers, half, method)
                both = sorted(normal.keys() & found.keys())
                if both:
                    mine, others = ([side[seed] for seed in both] for side in (found, normal))
                    difference = study.difference([(task, mine, others)])
                    lines.append(
                        f"| {task} | {TEACHERS_OF[teachers]} | {effort} | {_minutes(mine)}, normal {_minutes(others)} | "
                        f"{spread([one['test'] for one in mine])} | {difference} |"
                    )
    return "\n".join(lines)


def _minutes(found: Sequence[dict[str, Any]]) -> str:
    known = [one["seconds"] for one in found if one.get("seconds")]
    return f"{float(np.median(known)) / 60:.1f}" if known else "?"


def picture(study: Study) -> bytes:
    """Teachers and students by task, mean over seeds and range, as a PNG."""
    from kdcli.evaluation.report.canvas import FAINT, INK, SERIES, canvas, finished

    rows = [
        ("best co-finetuned teacher", "minilm", None, "|", INK),
        ("kdcli, from the pair", "minilm", "kdcli", "o", SERIES[0]),
        ("kdcli, from one teacher", "single", "kdcli", "o", SERIES[5]),
        ("TextBrewer, from the same one", "single", "textbrewer", "s", SERIES[1]),
        ("fine-tuned", "minilm", "finetune", "^", SERIES[2]),
    ]
    tasks = [task for task in study.tasks if study.seeds(task, "minilm", 3, "kdcli")]
    with canvas("results", 640, 60 + 62 * len(tasks)) as figure:
        axes = figure.add_subplot()
        for place, (label, teachers, method, marker, colour) in enumerate(rows):
            said = False
            for row, task in enumerate(tasks):
                known = study.teachers(task, teachers) if method is None else study.seeds(task, teachers, 3, method)
                found = [100 * about["test"] for about in known.values()]
                if not found:
                    continue
                found = [max(found)] if method is None else found
                height = row + 0.15 * (place - 2)
                axes.plot([min(found), max(found)], [height] * 2, color=colour, linewidth=1.5)
                axes.plot(
                    [np.mean(found)], [height], marker=marker, color=colour, markersize=7, linestyle="none",
                    markerfacecolor=colour if teachers == "minilm" else "white", label=None if said else label,
                )  # fmt: skip
                said = True
        for row in range(1, len(tasks)):
            axes.axhline(row - 0.5, color=FAINT, linewidth=0.4)
        axes.set_yticks(range(len(tasks)), [f"{task}\n{study.gold[task].metric}" for task in tasks])
        axes.set_ylim(len(tasks) - 0.5, -0.5)
        axes.set_xlabel("score on test, in percent; students of 3 of 6 layers, line from the lowest to the highest seed")
        axes.grid(axis="x")
        figure.legend(loc="outside upper left", ncols=3)
        return finished(figure, "results", "scores of teachers and students, by task").png


def _or_nothing(table: str) -> str:
    """A table; in place of one without rows, what that means."""
    table = table.strip()
    return table if table.count("\n") > 1 else "Not measured yet."


SECTIONS: dict[str, Callable[[Study], str]] = {
    "### What is kept of the best teacher": retention,
    "### Against TextBrewer": lambda study: against(study, "textbrewer"),
    "### Against fine-tuning": lambda study: against(study, "finetune"),
    "### Time of the whole command": seconds,
    "### What the effort costs and buys": efforts,
    "### Teachers": of_teachers,
    "### The papers' claims": claims,
    "### Fewer training rows": fewer_rows,
    "### What is inherited": inherited,
    "### Other recipes and flags": methods,
}


def main() -> None:
    """Write the tables into the page."""
    study = Study()
    made = "\n\n".join(f"{title}\n\n{_or_nothing(make(study))}" for title, make in SECTIONS.items())
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    _, _, behind = rest.partition(END)
    PAGE.with_suffix(".png").write_bytes(picture(study))
    PAGE.write_text(f"{before}{BEGIN}\n\n{made}\n\n{END}{behind}", encoding="utf-8")
    print(made)


if __name__ == "__main__":
    main()
