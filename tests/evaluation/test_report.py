"""The report: every section with its data and none without, names that are markup, the same bytes twice, nothing fetched."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from kdcli.evaluation.comparison import compare
from kdcli.evaluation.document import Evaluation, Insides, Retention, TeacherInsides
from kdcli.evaluation.report import Material, latencies, methods, timed_points, verdict, write_report
from kdcli.evaluation.significance import ModelDifference
from tests.evaluation.report_material import (
    MARKUP,
    answer,
    benchmark_of,
    evaluation_of,
    family,
    insides_of,
    metrics_lines,
    task_of,
    whole_material,
)

SECTIONS = [
    "scores", "inherited", "calibration", "classes", "insides", "curves", "costs", "recipe", "environment", "notes", "methods",
]  # fmt: skip
SECTIONS_OF_ONE_MODEL = ["scores", "calibration", "classes", "methods"]
VOID = {"meta", "link", "br", "path", "use"}


class Reader(HTMLParser):
    """A page's sections, headings, texts and attributes; checks that every element is closed."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.sections: dict[str, str] = {}
        self.headings: list[int] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.text = ""
        self._section = ""
        self.feed(page)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)
        if tag == "section":
            self._section = dict(attrs)["id"] or ""
            self.sections[self._section] = ""
        if re.fullmatch("h[1-6]", tag):
            self.headings.append(int(tag[1]))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag
        self._section = "" if tag == "section" else self._section

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("style", "title"):
            self.text += data
            if self._section:
                self.sections[self._section] += data


def page_of(material: Material, folder: Path) -> str:
    return write_report(material, folder).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Reader]:
    folder = tmp_path_factory.mktemp("whole")
    return folder, Reader(page_of(whole_material(), folder))


@pytest.fixture(scope="module")
def plain() -> Evaluation:
    task = task_of(["bad", "good"], 60)
    return compare(task, "test", [answer(task, "mine", "model", 1.5, 1)])


def test_every_section_appears_with_its_data(whole: tuple[Path, Reader]) -> None:
    sections = whole[1].sections
    assert list(sections) == SECTIONS
    expected = {
        "scores": ["student", "majority class", "138", "34.5\u00a0M", "The same on dev", "McNemar's exact test"],
        "inherited": ["teacher right", "student wrong", "answered differently", "words"],
        "calibration": ["best temperature", "right, %", "confidence, %"],
        "classes": ["negative", "positive", "precision", "F1 of", "Confusions of student"],
        "insides": [
            "student beside bert",
            "1→3, 2→6, 3→9, 4→12",
            "mean CKA 0.81",
            "12,345 aligned tokens",
            "per head",
            "[CLS]",
        ],
        "curves": ["cofinetune: losses", "distill: dev accuracy × 100", "loss/hidden-mse", "second from step 155"],
        "costs": ["million parameters", "MB on the disk", "milliseconds", "onnx int8", "8 with 64 tokens", "Some Processor"],
        "recipe": ["name: mt-bert\nstages:"],
        "environment": ["2 cores", "4 layers, width 312"],
        "notes": ["The labels were made up."],
        "methods": ["Holm", "0123456789abcdef", "Wilson", "bootstrap", "power", "CKA"],
    }
    for name, parts in expected.items():
        assert [part for part in parts if part not in sections[name]] == [], name


def test_verdict_and_gates_stand_on_top(whole: tuple[Path, Reader]) -> None:
    top = whole[1].text.partition("Scores")[0]
    assert re.search(
        r"The student keeps \d+\.\d\s% \(\d+\.\d–\d+\.\d\) of the best teacher’s accuracy, with 3\.2 times fewer", top
    )
    assert "can only show differences above" in top
    assert "✓ passed" in top
    assert "✗ not met" in top
    assert "--min-retention 0.99" in top


@pytest.mark.parametrize(
    ("more", "section"),
    [
        ({"insides": insides_of({"bert": 3}, 2, 4)}, "insides"),
        ({"metrics": metrics_lines(10)}, "curves"),
        ({"recipe": "name: mt-bert"}, "recipe"),
        ({"environment": {"seed": "0"}}, "environment"),
        ({"facts": [("student", "4 layers")]}, "environment"),
        ({"benchmark": benchmark_of()}, "costs"),
    ],
)
def test_a_section_is_there_only_with_its_data(more: dict[str, Any], section: str, plain: Evaluation, tmp_path: Path) -> None:
    page = Reader(page_of(Material("alone", [plain], **more), tmp_path))
    assert set(page.sections) == {*SECTIONS_OF_ONE_MODEL, section}
    links = {value[1:] for tag, name, value in page.attributes if (tag, name) == ("a", "href")}
    assert links == set(page.sections)


def test_one_model_alone_is_a_report_too(plain: Evaluation, tmp_path: Path) -> None:
    page = Reader(page_of(Material("alone", [plain]), tmp_path))
    assert list(page.sections) == SECTIONS_OF_ONE_MODEL
    assert re.search(
        r"mine scores \d\d\.\d \(\d\d\.\d–\d\d\.\d\) points of accuracy on 60 samples; always answering", page.text
    )
    assert sorted(path.name for path in (tmp_path / "report").iterdir() if path.suffix == ".svg") == [
        "calibration-1.svg", "confusion.svg", "scores-1.svg",
    ]  # fmt: skip


def test_predictions_without_logits_have_no_calibration(tmp_path: Path) -> None:
    task = task_of(["bad", "good"], 40)
    bare = answer(task, "mine", "model", 1.5, 1, kind="predictions")
    found = compare(task, "test", [type(bare)(bare.name, bare.role, bare.kind, bare.predictions)])
    assert "calibration" not in Reader(page_of(Material("alone", [found]), tmp_path)).sections


def test_teachers_alone_are_judged_themselves(tmp_path: Path) -> None:
    task = task_of(["bad", "good"], 60)
    found = compare(task, "dev", [answer(task, "weak", "teacher", 1.0, 1), answer(task, "strong", "teacher", 3.0, 2)])
    assert verdict(found)[0].startswith("strong scores")
    write_report(Material("teachers", [found]), tmp_path)
    diagrams = [path.read_text(encoding="utf-8") for path in sorted((tmp_path / "report").glob("calibration-*.svg"))]
    assert [re.findall(">(weak|strong)<", each) for each in diagrams] == [["weak"], ["strong"]]


def test_figures_that_are_missing_leave_gaps(plain: Evaluation, tmp_path: Path) -> None:
    nothing = float("nan")
    inside = TeacherInsides(
        teacher="bert",
        cka=[[nothing, nothing], [nothing, 0.5]],
        cls_cosine=None,
        attention_kl=[[nothing]],
        head_kl=None,
        suggested={1: 1},
        suggested_cka=0.5,
    )
    insides = Insides(student="student", split="dev", rows=2, tokens=9, teachers=[inside])
    lines = [{"kind": "train", "phase": "distill", "step": 1, "values": {"loss": nothing}}]
    page = Reader(page_of(Material("gaps", [plain], insides=insides, metrics=lines), tmp_path))
    assert "KL of attention" in page.sections["insides"]
    assert "[CLS]" not in page.sections["insides"]
    assert "curves" not in page.sections


def test_several_seeds_of_recipes_lead_the_verdict(tmp_path: Path) -> None:
    task = task_of(["a", "b", "c"], 90)
    runs = [
        answer(task, f"{recipe}-{seed}", "student", skill, 10 * seed + int(skill), recipe=recipe, seed=seed)
        for recipe, skill in (("good", 3.0), ("poor", 1.0)) for seed in (0, 1, 2)
    ]  # fmt: skip
    found = compare(task, "test", runs)
    assert verdict(found)[0].startswith("The recipe with the highest mean is good: it scores")
    assert "over 3 seeds" in verdict(found)[0]
    assert verdict(found)[1].startswith("Its difference from poor, +")
    page = Reader(page_of(Material("recipes", [found]), tmp_path))
    assert "± standard deviation" in page.sections["scores"]
    assert (tmp_path / "report" / "seeds-1.svg").is_file()


def test_verdict_says_what_the_test_found() -> None:
    task = task_of(["a", "b"], 60)
    found = evaluation_of(task, family(task))
    fields: dict[str, Any] = {
        "metric": "accuracy", "ours": "student", "theirs": "roberta", "low": -0.09, "high": -0.01, "smallest": 0.04,
        "test": "McNemar's exact test", "why": "", "samples": 60, "only_ours": 1, "only_theirs": 9,
    }  # fmt: skip
    models = [
        model.model_copy(
            update={
                "scores": {"accuracy": {"roberta": 0.9}.get(model.name, 0.85)},
                "parameters": 50_000_000 if model.name == "student" else 40_000_000,
                "retention": Retention(of="roberta", value=0.945, low=0.9, high=0.99),
            }
        )
        for model in found.models
    ]

    def sentences(p_value: float) -> list[str]:
        difference = ModelDifference(**fields, difference=-0.05, p_value=p_value)
        return verdict(found.model_copy(update={"models": models, "differences": [difference]}))

    assert sentences(0.021) == [
        "The student keeps 94.5\u00a0% (90.0–99.0) of the best teacher’s accuracy, with 1.2 times as many parameters.",
        "The difference from the best teacher (roberta), −5.0 points (−9.0 to −1.0), is significant (p = 0.021). "
        "These 60 samples can only show differences above 4.0 points (80 % power, 5 % level).",
    ]
    assert "is not significant (p = 0.200)" in sentences(0.2)[1]
    assert "(p < 0.001)" in sentences(0.0001)[1]


def test_methods_tell_of_nothing_that_was_not_done(plain: Evaluation) -> None:
    told = " ".join(methods(Material("alone", [plain])))
    assert "Wilson" in told
    assert not [word for word in ("Holm", "McNemar", "Retention", "CKA", "Latency", "power", "seeds of") if word in told]


def test_names_are_shown_and_never_run(tmp_path: Path) -> None:
    task = task_of([MARKUP, "good", "long " + "Donaudampfschifffahrtsgesellschaft" * 3], 90)
    found = evaluation_of(task, family(task, MARKUP, (f"teacher {MARKUP}", "roberta")))
    notes = [f"note {MARKUP}"]
    found = found.model_copy(update={"task": f"task {MARKUP}", "source": f"source {MARKUP}", "notes": notes})
    extra: dict[str, Any] = {
        "recipe": f"# recipe {MARKUP}",
        "environment": {f"key {MARKUP}": f"value {MARKUP}"},
        "facts": [(MARKUP, MARKUP)],
    }
    insides = insides_of({f"teacher {MARKUP}": 12})
    page = page_of(Material(f"title {MARKUP}", [found], insides=insides, **extra), tmp_path)
    assert "<script" not in page
    read = Reader(page)
    for what in ("title", "task", "source", "note", "# recipe", "key", "value", "teacher"):
        assert f"{what} {MARKUP}" in read.text, what


def test_the_same_material_gives_the_same_bytes(whole: tuple[Path, Reader], tmp_path: Path) -> None:
    write_report(whole_material(), tmp_path)
    files = {path.relative_to(tmp_path): path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert files == {path: (whole[0] / path).read_bytes() for path in files}


def test_page_fetches_nothing(whole: tuple[Path, Reader]) -> None:
    page = (whole[0] / "report.html").read_text(encoding="utf-8")
    loading = [value for _, name, value in whole[1].attributes if name in ("src", "href", "srcset", "data", "action", "poster")]
    assert [value for value in loading if not value.startswith(("#", "data:,"))] == []
    assert re.findall(r"https?://|@import|url\((?!#)|<script|<iframe", page) == []


def test_ids_are_unique_and_every_reference_has_its_target(whole: tuple[Path, Reader]) -> None:
    attributes = whole[1].attributes
    ids = [value for _, name, value in attributes if name == "id"]
    assert len(ids) == len(set(ids))
    referred = {value[1:] for _, name, value in attributes if name == "href" and value.startswith("#")}
    referred |= {value for _, name, value in attributes if name == "aria-labelledby"}
    assert referred <= set(ids)


def test_headings_go_down_one_step_at_a_time_and_tables_are_labelled(whole: tuple[Path, Reader]) -> None:
    headings = whole[1].headings
    assert headings.count(1) == 1
    assert all(later - sooner <= 1 for sooner, later in pairwise(headings))
    page = (whole[0] / "report.html").read_text(encoding="utf-8")
    assert page.count("<table") == page.count("<caption>") > 5
    assert re.findall(r"<th(?![^>]*scope=)[ >]", page) == []
    svgs = re.findall(r"<svg[^>]*>", page)
    assert all('role="img"' in svg and "aria-label=" in svg for svg in svgs)


def test_every_picture_lies_beside_the_page_as_svg_and_png(whole: tuple[Path, Reader]) -> None:
    names = set(re.findall(r"url\(#([a-z0-9-]+)-p[0-9a-f]{10}\)", (whole[0] / "report.html").read_text(encoding="utf-8")))
    assert len(names) == 19
    files = {path.name for path in (whole[0] / "report").iterdir()}
    assert files == {f"{name}.{end}" for name in names for end in ("svg", "png")}


def test_pictures_of_an_earlier_report_are_gone(plain: Evaluation, tmp_path: Path) -> None:
    (tmp_path / "report").mkdir()
    (tmp_path / "report" / "old.svg").write_text("", encoding="utf-8")
    write_report(Material("alone", [plain]), tmp_path)
    assert not (tmp_path / "report" / "old.svg").exists()
    assert {path.name for path in tmp_path.iterdir()} == {"report", "report.html"}


def test_many_classes_are_a_closed_table_and_their_confusions_a_short_one(tmp_path: Path) -> None:
    task = task_of([f"class {number}" for number in range(77)], 231)
    material = Material("classes", [compare(task, "test", [answer(task, "mine", "model", 2.0, 1)])])
    page = page_of(material, tmp_path)
    assert "<details><summary>77 classes, one by one" in page
    assert "Most frequent confusions of mine" in page
    assert not (tmp_path / "report" / "confusion.svg").exists()


def test_a_long_training_stays_a_small_page(plain: Evaluation, tmp_path: Path) -> None:
    material = Material("long", [plain], insides=insides_of({"large": 24}, 12, 16), metrics=metrics_lines(5000))
    path = write_report(material, tmp_path)
    assert path.stat().st_size < 2_000_000
    assert "A point is the mean of 32 logged values." in path.read_text(encoding="utf-8")


def test_exported_file_has_its_own_score_or_the_students_less_what_it_lost() -> None:
    task, benchmark = task_of(["bad", "good"], 80), benchmark_of()
    found, shape = compare(task, "test", family(task)), latencies(benchmark)
    assert shape is not None
    assert (shape.batch, shape.length) == (8, 64)
    scores = {point.label: point.score for point in timed_points(found, benchmark)}
    assert scores["student, onnx int8"] == found.model("student int8").scores["accuracy"]
    assert scores["student, onnx fp32"] == pytest.approx(found.model("student").scores["accuracy"] - 0.004)
    assert scores["bert, torch"] == found.model("bert").scores["accuracy"]
