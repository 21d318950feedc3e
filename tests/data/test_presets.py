"""The known tasks against what is known of them."""

from __future__ import annotations

import pytest

from kdcli.data.presets import PRESETS
from kdcli.data.splits import DEV, TEST, TRAIN
from kdcli.tasks.classification import Classification

# name → classes in the order of the Hub's class numbers, metric, whether a sample is a pair
KNOWN: dict[str, tuple[tuple[str, ...], str, bool]] = {
    "cola": (("unacceptable", "acceptable"), "matthews", False),
    "sst2": (("negative", "positive"), "accuracy", False),
    "mrpc": (("not_equivalent", "equivalent"), "f1", True),
    "qqp": (("not_duplicate", "duplicate"), "f1", True),
    "mnli": (("entailment", "neutral", "contradiction"), "accuracy", True),
    "mnli-mm": (("entailment", "neutral", "contradiction"), "accuracy", True),
    "qnli": (("entailment", "not_entailment"), "accuracy", True),
    "rte": (("entailment", "not_entailment"), "accuracy", True),
    "wnli": (("not_entailment", "entailment"), "accuracy", True),
}


def test_every_classification_task_of_glue_and_mind_is_known() -> None:
    assert set(PRESETS) == set(KNOWN) | {"mind", "stsb", "sick"}
    assert all(name == preset.name for name, preset in PRESETS.items())


@pytest.mark.parametrize("name", KNOWN)
def test_glue_task_has_its_classes_metric_and_columns(name: str) -> None:
    labels, metric, pairs = KNOWN[name]
    preset = PRESETS[name]
    assert preset.kind.output_names == labels
    assert preset.metric == metric
    assert {layout.pair is not None for layout in preset.files.values()} == {pairs}
    assert (preset.hub_columns[1] is not None) == pairs


@pytest.mark.parametrize("name", KNOWN)
def test_glue_task_comes_from_the_hub_and_its_unlabelled_test_split_is_left_alone(name: str) -> None:
    preset = PRESETS[name]
    assert preset.hub == ("nyu-mll/glue", name.removesuffix("-mm"))
    dev = {"mnli": "validation_matched", "mnli-mm": "validation_mismatched"}.get(name, "validation")
    assert preset.hub_splits == {TRAIN: "train", DEV: dev}
    assert set(preset.files) == {TRAIN, DEV}


def test_mind_is_topic_classification_of_titles_from_files_alone() -> None:
    mind = PRESETS["mind"]
    assert mind.hub is None
    assert isinstance(mind.kind, Classification)
    assert len(mind.kind.names) == 18
    assert list(mind.kind.raw_names) == sorted(mind.kind.raw_names) == list(mind.kind.names)
    assert set(mind.files) == {TRAIN, DEV, TEST}
    assert {layout.text for layout in mind.files.values()} == {"title"}
    assert mind.files[TRAIN].patterns == ("MINDsmall_train/news.tsv", "MINDlarge_train/news.tsv", "train/news.tsv")


@pytest.mark.parametrize("name", PRESETS)
def test_preset_has_a_known_metric_a_summary_and_different_classes(name: str) -> None:
    found = PRESETS[name]
    assert found.kind.metric(found.metric).name == found.metric
    assert found.summary
    assert len(set(found.kind.output_names)) == len(found.kind.output_names) >= found.kind.fewest_outputs


@pytest.mark.parametrize("name", PRESETS)
def test_columns_without_a_header_line_hold_the_text_and_the_label(name: str) -> None:
    for layout in PRESETS[name].files.values():
        if layout.header is not None:
            assert {layout.text, layout.label} <= set(layout.header)
            assert layout.pair is None or layout.pair in layout.header
