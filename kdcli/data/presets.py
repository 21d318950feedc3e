"""The tasks that kdcli knows by name: files, columns, labels and metric, as the data sets are distributed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from kdcli.data.splits import DEV, TEST, TRAIN
from kdcli.tasks.classification import Classification
from kdcli.tasks.kind import Kind
from kdcli.tasks.regression import Regression


@dataclass(frozen=True)
class FileLayout:
    """Where a split lies and how its columns are called.

    Attributes:
        patterns: file names to look for in the data folder, the first that exists is taken (globs are allowed).
        header: the column names of a file without a header line, or None where the file has one.
        text, pair, label: column names.
    """

    patterns: tuple[str, ...]
    text: str
    label: str
    pair: str | None = None
    header: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Preset:
    """One known task.

    Attributes:
        kind: of task, with its classes.
        metric: the metric by which the task is reported.
        hub: Hub dataset and configuration, or None where there is none.
        hub_columns: text, pair and label columns there.
        hub_splits: our split → the split's name there.
    """

    name: str
    summary: str
    kind: Kind
    metric: str
    files: Mapping[str, FileLayout]
    hub: tuple[str, str] | None = None
    hub_columns: tuple[str, str | None, str] = ("sentence", None, "label")
    hub_splits: Mapping[str, str] = field(default_factory=lambda: {TRAIN: "train", DEV: "validation"})


_ENTAILMENT = {"entailment": "entailment", "not_entailment": "not_entailment"}
_MIND_TOPICS = [
    "autos",
    "entertainment",
    "finance",
    "foodanddrink",
    "games",
    "health",
    "kids",
    "lifestyle",
    "middleeast",
    "movies",
    "music",
    "news",
    "northamerica",
    "sports",
    "travel",
    "tv",
    "video",
    "weather",
]
_COLA_COLUMNS = ("source", "label", "star", "sentence")
_MIND_COLUMNS = (
    "id", "category", "subcategory", "title", "abstract", "url", "title_entities", "abstract_entities"
)  # fmt: skip


def _classes(labels: Mapping[str, str]) -> Classification:
    """Classes by what the files write for each, in order."""
    return Classification(tuple(labels.values()), tuple(labels), closed=True)


def _glue(
    name: str,
    summary: str,
    labels: Mapping[str, str],
    metric: str,
    columns: tuple[str, str | None, str],
    *,
    train: tuple[str, ...] = ("train.tsv",),
    dev: tuple[str, ...] = ("dev.tsv",),
    header: tuple[str, ...] | None = None,
    hub: tuple[str, str],
    hub_columns: tuple[str, str | None, str],
    hub_dev: str = "validation",
) -> Preset:
    text, pair, label = columns
    files = {
        TRAIN: FileLayout(train, text, label, pair, header),
        DEV: FileLayout(dev, text, label, pair, header),
    }
    splits = {TRAIN: "train", DEV: hub_dev}
    return Preset(name, summary, _classes(labels), metric, files, ("nyu-mll/glue", hub[1]), hub_columns, splits)


_PAIR = ("sentence1", "sentence2", "label")
_MNLI = {"entailment": "entailment", "neutral": "neutral", "contradiction": "contradiction"}

PRESETS: dict[str, Preset] = {
    preset.name: preset
    for preset in (
        _glue(
            "cola", "linguistic acceptability, Matthews correlation",
            {"0": "unacceptable", "1": "acceptable"}, "matthews", ("sentence", None, "label"),
            header=_COLA_COLUMNS, hub=("nyu-mll/glue", "cola"), hub_columns=("sentence", None, "label"),
        ),
        _glue(
            "sst2", "sentiment of film reviews, accuracy",
            {"0": "negative", "1": "positive"}, "accuracy", ("sentence", None, "label"),
            hub=("nyu-mll/glue", "sst2"), hub_columns=("sentence", None, "label"),
        ),
        _glue(
            "mrpc", "paraphrase of a sentence pair, F1 of the positive class",
            {"0": "not_equivalent", "1": "equivalent"}, "f1", ("#1 String", "#2 String", "Quality"),
            train=("train.tsv", "msr_paraphrase_train.txt"), dev=("dev.tsv", "msr_paraphrase_test.txt"),
            hub=("nyu-mll/glue", "mrpc"), hub_columns=_PAIR,
        ),
        _glue(
            "qqp", "duplicate questions, F1 of the positive class",
            {"0": "not_duplicate", "1": "duplicate"}, "f1", ("question1", "question2", "is_duplicate"),
            hub=("nyu-mll/glue", "qqp"), hub_columns=("question1", "question2", "label"),
        ),
        _glue(
            "mnli", "natural-language inference, matched dev split, accuracy",
            _MNLI, "accuracy", ("sentence1", "sentence2", "gold_label"), dev=("dev_matched.tsv",),
            hub=("nyu-mll/glue", "mnli"), hub_columns=("premise", "hypothesis", "label"),
            hub_dev="validation_matched",
        ),
        _glue(
            "mnli-mm", "natural-language inference, mismatched dev split, accuracy",
            _MNLI, "accuracy", ("sentence1", "sentence2", "gold_label"), dev=("dev_mismatched.tsv",),
            hub=("nyu-mll/glue", "mnli"), hub_columns=("premise", "hypothesis", "label"),
            hub_dev="validation_mismatched",
        ),
        _glue(
            "qnli", "does the sentence answer the question, accuracy",
            _ENTAILMENT, "accuracy", ("question", "sentence", "label"),
            hub=("nyu-mll/glue", "qnli"), hub_columns=("question", "sentence", "label"),
        ),
        _glue(
            "rte", "entailment of a sentence pair, accuracy",
            _ENTAILMENT, "accuracy", _PAIR, hub=("nyu-mll/glue", "rte"), hub_columns=_PAIR,
        ),
        _glue(
            "wnli", "coreference as entailment, accuracy",
            {"0": "not_entailment", "1": "entailment"}, "accuracy", _PAIR,
            hub=("nyu-mll/glue", "wnli"), hub_columns=_PAIR,
        ),
        Preset(
            "stsb", "similarity of two sentences from 0 to 5 (a number), Pearson's correlation",
            Regression("similarity"), "pearson",
            {split: FileLayout((f"{split}.tsv",), "sentence1", "score", "sentence2") for split in (TRAIN, DEV)},
            ("nyu-mll/glue", "stsb"), _PAIR,
        ),
        Preset(
            "sick", "relatedness of two sentences from 1 to 5 (a number), Pearson's correlation",
            Regression("relatedness"), "pearson",
            {
                split: FileLayout((name,), "sentence_A", "relatedness_score", "sentence_B")
                for split, name in ((TRAIN, "SICK_train.txt"), (DEV, "SICK_trial.txt"), (TEST, "SICK_test_annotated.txt"))
            },
        ),
        Preset(
            "mind", "topic of a news title, macro F1",
            _classes({topic: topic for topic in _MIND_TOPICS}), "macro-f1",
            {
                split: FileLayout(
                    tuple(f"{folder}/news.tsv" for folder in (f"MINDsmall_{split}", f"MINDlarge_{split}", split)),
                    "title", "category", header=_MIND_COLUMNS,
                )
                for split in (TRAIN, DEV, TEST)
            },
        ),
    )
}  # fmt: skip
