"""The model card in the student's folder."""

from __future__ import annotations

from kdcli import __version__
from kdcli.evaluation.comparison import Evaluation
from kdcli.plan.plan import Plan


def model_card(plan: Plan, evaluation: Evaluation) -> str:
    """README.md of a student: what it is, what it was made from, what it scores, how it is used."""
    student = plan.student_or_fail
    recipe = plan.recipe
    teachers = "\n".join(
        f"- `{teacher.name}`: {teacher.model_type}, {teacher.layers} layers of width {teacher.width}, from "
        f"`{teacher.reference}` ({_kind(teacher.kind)})"
        for teacher in plan.teachers
    )
    rows = "\n".join(
        f"| {model.name} | {model.parameters / 1e6:.1f}M | {model.scores[evaluation.metric]:.4f} | "
        f"{'' if model.retention is None else f'{model.retention:.1%}'} |"
        if model.parameters is not None
        else f"| {model.name} | | {model.scores[evaluation.metric]:.4f} | |"
        for model in evaluation.models
    )
    paper = f" ({recipe.paper})" if recipe.paper else ""
    return f"""---
library_name: transformers
pipeline_tag: text-classification
tags: [knowledge-distillation, kdcli]
---

# {student.layers}-layer {student.model_type} student for {evaluation.task}

Distilled with kdcli {__version__}, recipe `{recipe.name}`{paper}, seed {plan.request["seed"]}.
{student.layers} layers, width {student.width}, {student.heads} attention heads, {student.parameters / 1e6:.1f}M parameters.

## Teachers

{teachers}

## Scores

{evaluation.metric} on the {evaluation.split} split of {evaluation.task} ({evaluation.rows} rows). The checkpoint was chosen on
the dev split.

| model | parameters | {evaluation.metric} | of the best teacher |
|---|---|---|---|
{rows}

## Use

```python
from transformers import pipeline

classify = pipeline("text-classification", "PATH OF THIS FOLDER")
classify("some text", truncation=True, max_length={recipe.training.max_length})
```

Classes, in output order: {", ".join(plan.task.labels)}. Texts were cut to {recipe.training.max_length} tokens in training.
"""


def _kind(kind: str) -> str:
    return {"cofinetune": "co-finetuned here", "cofinetuned": "co-finetuned before"}.get(kind, "fine-tuned before")
