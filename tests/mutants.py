"""Deliberate faults in losses, engine, evaluation and kinds of task, one at a time: the tests have to notice.

    python tests/mutants.py                 # all of them; exit code 1 if fewer than 97 % are caught
    python tests/mutants.py losses engine   # those in these rooms

Each fault is written into a copy of the checkout and the tests that stand beside it are run there.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
COPIED = ("kdcli", "tests", "recipes", "docs", "benchmarks", "pyproject.toml", "README.md", "CHANGELOG.md")
WANTED = 0.97
_SECONDS = 600


@dataclass(frozen=True)
class Mutant:
    """One fault.

    Attributes:
        file: below ``kdcli/``.
        right: what stands there, once.
        wrong: what is put in its place.
        tests: below ``tests/``.
    """

    file: str
    right: str
    wrong: str
    tests: str


LABELS, HIDDEN, ATTENTION = "losses/test_label_losses.py", "losses/test_hidden_losses.py", "losses/test_attention_losses.py"
RELATIONAL, WEIGHTING, DIVERGENCES = (
    "losses/test_relational_losses.py", "losses/test_weighting.py", "losses/test_divergences.py"
)  # fmt: skip
MUTANTS = (
    # losses
    Mutant("losses/soft_labels.py", "temperature**2 if self.squared", "temperature if self.squared", LABELS),
    Mutant("losses/soft_labels.py", "self.factor = share_of(asked", "self.factor = share_of(1", LABELS),
    Mutant("losses/soft_labels.py", "~self.kind.labelled(batch.labels)", "self.kind.labelled(batch.labels)", LABELS),
    Mutant("losses/soft_labels.py", "kept = judged.unsure >= ", "kept = judged.unsure < ", LABELS),
    Mutant(
        "losses/divergences.py",
        "return -(teacher.exp() * student).sum(-1)",
        "return -(student.exp() * teacher).sum(-1)",
        DIVERGENCES,
    ),
    Mutant("losses/divergences.py", "return kl(teacher, student)", "return kl(student, teacher)", DIVERGENCES),
    Mutant("losses/divergences.py", "- math.log(2)", "", DIVERGENCES),
    Mutant("losses/divergences.py", "return 0.5 * (student.exp()", "return (student.exp()", DIVERGENCES),
    Mutant("losses/weighting.py", "return 1.0 / (1.0 + errors(", "return 1.0 / (2.0 + errors(", WEIGHTING),
    Mutant("losses/weighting.py", "functional.softmax(-errors(", "functional.softmax(errors(", WEIGHTING),
    Mutant("losses/weighting.py", "/ (len(logits) - 1)\n", "/ len(logits)\n", WEIGHTING),
    Mutant("losses/weighting.py", "(1.0 - uncertainty)[None, :]", "uncertainty[None, :]", WEIGHTING),
    Mutant("losses/hidden_mse.py", "/ ours.shape[-1]", "", HIDDEN),
    Mutant("losses/hidden_mse.py", "slope = difference * (2.0 * gradient)", "slope = difference * gradient", HIDDEN),
    Mutant("losses/hidden_cosine.py", "return 1.0 - functional", "return -functional", HIDDEN),
    Mutant("losses/hidden.py", "distances.masked_fill(~mask, 0.0).sum()", "distances.sum()", HIDDEN),
    Mutant("losses/hidden.py", "theirs = batch.runs[teacher].pull(theirs)\n", "", HIDDEN),
    Mutant("losses/layer_term.py", "(states * real).sum(1) / real.sum(1)", "states.mean(1)", HIDDEN),
    Mutant("losses/layer_term.py", "share * share_of(len(rows), layer_reduction)", "share", HIDDEN),
    Mutant("losses/attention.py", ".sum(-1).mean(1)", ".mean(-1).mean(1)", ATTENTION),
    Mutant("losses/attention.py", "rows.masked_fill(~mask, 0.0).sum()", "rows.sum()", ATTENTION),
    Mutant(
        "losses/attention_kl.py", "wanted = wanted.mean(1, keepdim=True)", "wanted = wanted.sum(1, keepdim=True)", ATTENTION
    ),
    Mutant("losses/relation_kl.py", "states.shape[-1] ** -0.5", "states.shape[-1] ** -1", ATTENTION),
    Mutant("losses/relational.py", "size * (size - 1) * (size - 2)", "size * (size - 1) * (size - 1)", RELATIONAL),
    Mutant("losses/relational.py", "lengths / lengths.mean()", "lengths / lengths.sum()", RELATIONAL),
    Mutant("losses/relational.py", "angles.masked_fill(~distinct, 0.0).sum()", "angles.sum()", RELATIONAL),
    # kinds of task
    Mutant("tasks/classification.py", "return targets != NO_CLASS", "return targets > NO_CLASS + 1", LABELS),
    Mutant("tasks/classification.py", "outputs.float() / temperature", "outputs.float() * temperature", LABELS),
    Mutant("tasks/classification.py", "- math.log(len(outputs))", "", WEIGHTING),
    Mutant(
        "tasks/class_metrics.py",
        "ratio(2 * hits, given + present)",
        "ratio(hits, given + present)",
        "evaluation/test_resampling.py",
    ),
    Mutant("tasks/class_metrics.py", "(f1 * occurs).sum(-1) / occurs.sum(-1)", "f1.mean(-1)", "evaluation/test_resampling.py"),
    Mutant("tasks/class_metrics.py", "total**2 - (given**2).sum(-1)", "total**2", "evaluation/test_resampling.py"),
    Mutant(
        "tasks/class_metrics.py", "2 * counts.cumsum(-1) - counts", "2 * counts.cumsum(-1)", "evaluation/test_resampling.py"
    ),
    Mutant(
        "tasks/class_matching.py",
        "[given.index(label) for label in wanted]",
        "[wanted.index(label) for label in given]",
        "tasks/test_class_matching.py",
    ),
    Mutant("tasks/regression.py", "alike.cumsum(-1) - alike / 2", "alike.cumsum(-1)", "tasks/test_regression.py"),
    Mutant("tasks/regression.py", "* self.labelled(wanted)", "", "tasks/test_regression.py"),
    Mutant("tasks/calibration.py", "each.count / total * abs", "abs", "tasks/test_calibration.py"),
    # engine
    Mutant("engine/loop.py", "whole = whole.clamp(min=1.0)", "whole = torch.ones_like(whole)", "engine/test_loop.py"),
    Mutant("engine/loop.py", "values * objective.weights", "values", "engine/test_loop.py"),
    Mutant("engine/loop.py", "run.optimizer.zero_grad()", "pass", "engine/test_loop.py"),
    Mutant("engine/dev_scoring.py", "score > position.top_score", "score < position.top_score", "engine/test_loop.py"),
    Mutant(
        "engine/dev_scoring.py",
        "position.stale = 0 if rises else position.stale + 1",
        "position.stale = 0",
        "engine/test_stage_end.py",
    ),
    Mutant("engine/optimisation.py", "(step + 1) / rising", "step / rising", "engine/test_optimisation.py"),
    Mutant("engine/optimisation.py", "settings.layer_decay**below", "settings.layer_decay", "engine/test_optimisation.py"),
    Mutant(
        "engine/optimisation.py", "own.get(owner, learning_rates[kind])", "learning_rates[kind]", "engine/test_optimisation.py"
    ),
    Mutant("engine/objective.py", "0 if 0 in groups else math.lcm(*groups)", "max(groups)", "engine/test_objective.py"),
    Mutant("engine/objective.py", "depths[name] not in stays", "depths[name] in stays", "engine/test_freezing.py"),
    # evaluation
    Mutant("evaluation/significance.py", "(1 + as_much) / (1 + _TIMES)", "as_much / _TIMES", "evaluation/test_significance.py"),
    Mutant("evaluation/significance.py", "np.arange(len(values), 0, -1)", "len(values)", "evaluation/test_significance.py"),
    Mutant("evaluation/significance.py", "(right & ~also).sum()", "right.sum()", "evaluation/test_significance.py"),
    Mutant("evaluation/paired.py", "- 2 * self.covariance, 0.0", ", 0.0", "evaluation/test_significance.py"),
    Mutant("evaluation/paired.py", "square * self.covariance", "0.0", "evaluation/test_retention.py"),
    Mutant(
        "evaluation/resampling.py", "self.theirs, self.ours, half", "self.ours, self.theirs, half", "evaluation/test_power.py"
    ),
    Mutant("evaluation/intervals.py", "quantile**2 / 2", "quantile**2", "evaluation/test_intervals.py"),
    Mutant("evaluation/chance.py", "(1 + as_good) / (1 + _SHUFFLES)", "as_good / _SHUFFLES", "evaluation/test_chance.py"),
    Mutant(
        "evaluation/retention.py", "scores.ours / scores.theirs", "scores.theirs / scores.ours", "evaluation/test_retention.py"
    ),
    Mutant(
        "evaluation/agreement.py",
        "~right & also, ~right & ~also",
        "right & also, ~right & ~also",
        "evaluation/test_agreement.py",
    ),
    Mutant("evaluation/gates.py", "value >= self.limit - 1e-12", "value > self.limit + 1e-3", "evaluation/test_gates.py"),
)


def caught(mutant: Mutant, copy: Path) -> bool:
    """Whether the tests fail on a fault."""
    path = copy / "kdcli" / mutant.file
    text = path.read_text(encoding="utf-8")
    if text.count(mutant.right) < 1:
        raise SystemExit(f"{mutant.file}: {mutant.right!r} is not there")
    path.write_text(text.replace(mutant.right, mutant.wrong, 1), encoding="utf-8")
    try:
        words = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", str(copy / "tests" / mutant.tests)]
        settings = {**os.environ, "PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"}
        done = subprocess.run(words, cwd=copy, env=settings, capture_output=True, timeout=_SECONDS, check=False)
        return done.returncode == 1
    except subprocess.TimeoutExpired:
        return True
    finally:
        path.write_text(text, encoding="utf-8")


def main() -> None:
    """Run them."""
    rooms = sys.argv[1:]
    chosen = [mutant for mutant in MUTANTS if not rooms or mutant.file.split("/")[0] in rooms]
    survivors = []
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder)
        for name in COPIED:
            place = ROOT / name
            (shutil.copytree if place.is_dir() else shutil.copy)(place, copy / name)
        for number, mutant in enumerate(chosen, 1):
            found = caught(mutant, copy)
            survivors += [] if found else [mutant]
            print(f"{number}/{len(chosen)} {'caught' if found else 'SURVIVED'}  {mutant.file}: {mutant.wrong!r}", flush=True)  # noqa: T201
    share = 1 - len(survivors) / max(len(chosen), 1)
    print(f"{share:.1%} of {len(chosen)} faults are caught")  # noqa: T201
    sys.exit(share < WANTED)


if __name__ == "__main__":
    main()
