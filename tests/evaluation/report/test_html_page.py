"""The report: every section with its data and none without, names that are markup, the same bytes twice, nothing fetched."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from kdcli.evaluation.comparison import ModelOutputs, compare
from kdcli.evaluation.document import AgreementTable, Evaluation, LayerComparison, TeacherSimilarity
from kdcli.evaluation.report.html_page import Material, write_report
from tests.evaluation.report.material import (
    MARKUP,
    answer,
    benchmark_of,
    compare_layers,
    evaluation_of,
    family,
    lost,
    metrics_lines,
    seeds_of,
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
        "scores": ["student", "majority class", "138", "34.5M", "The same on dev", "McNemar's exact test"],
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
        ({"layers": compare_layers({"bert": 3}, 2, 4)}, "insides"),
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


def test_teachers_alone_have_a_diagram_each(tmp_path: Path) -> None:
    task = task_of(["bad", "good"], 60)
    found = compare(task, "dev", [answer(task, "weak", "teacher", 1.0, 1), answer(task, "strong", "teacher", 3.0, 2)])
    write_report(Material("teachers", [found]), tmp_path)
    diagrams = [path.read_text(encoding="utf-8") for path in sorted((tmp_path / "report").glob("calibration-*.svg"))]
    assert [re.findall(">(weak|strong)<", each) for each in diagrams] == [["weak"], ["strong"]]


def test_diagrams_of_calibration_are_of_the_first_models_and_say_so(tmp_path: Path) -> None:
    task = task_of(["bad", "good"], 60)
    students = seeds_of(task, range(6), good=3.0)
    teacher = answer(task, "bert", "teacher", 2.0, 90)

    def said(count: int, *others: ModelOutputs) -> list[str]:
        page = Reader(page_of(Material("many", [compare(task, "test", [*students[:count], *others])]), tmp_path))
        return re.findall("The diagrams are of [^.]*", page.sections["calibration"])

    assert said(4) == []
    assert said(6) == ["The diagrams are of the first 4 of 6 models; the table has all"]
    assert said(5, teacher) == ["The diagrams are of the first 4 of 5 models and of the best teacher; the table has all"]


def test_a_slice_that_stands_out_is_shown_and_the_others_are_folded_away(plain: Evaluation, tmp_path: Path) -> None:
    def inherited(p_value: float) -> tuple[str, str]:
        slices = [lost("why", -0.3, p_value), lost("length", -0.1, 0.6), lost("how", 0.0, 1.0)]
        counts = {"both_right": 9, "lost": 3, "gained": 1, "both_wrong": 2, "changed": 4}
        table = AgreementTable(student="mine", teacher="bert", **counts, slices=slices)
        page = page_of(Material("slices", [plain.model_copy(update={"agreements": [table]})]), tmp_path)
        section = page.partition('id="inherited"')[2].partition("</section>")[0]
        shown, _, folded = section.partition("<details>")
        return Reader(shown.rpartition("</h2>")[2]).text, Reader("<details>" + folded).text

    shown, folded = inherited(0.01)
    assert "Where mine lost clearly more than elsewhere against bert" in shown
    assert ("why" in shown, "length" in shown, "nowhere" in shown) == (True, False, False)
    assert "Other slices in which mine lost against bert" in folded
    assert ("why" in folded, "length" in folded, "how" in folded) == (False, True, False)
    shown, folded = inherited(0.06)
    assert "mine lost nowhere clearly more than elsewhere." in shown
    assert "Where mine lost most against bert" in folded
    assert "why" in folded


def test_caption_of_latencies_names_the_split_of_the_check_where_it_is_another(tmp_path: Path) -> None:
    task = task_of(["bad", "good"], 60)
    found = evaluation_of(task, family(task))
    for split, words in (("test", "check on dev found"), ("dev", "check found")):
        evaluation = found.model_copy(update={"split": split})
        assert words in Reader(page_of(Material("files", [evaluation], benchmark=benchmark_of()), tmp_path)).sections["costs"]


def test_recipes_have_a_table_and_a_picture_of_their_seeds(tmp_path: Path) -> None:
    task = task_of(["a", "b", "c"], 90)
    material = Material("recipes", [compare(task, "test", seeds_of(task, good=3.0, poor=1.0))])
    assert "± standard deviation" in Reader(page_of(material, tmp_path)).sections["scores"]
    assert (tmp_path / "report" / "seeds-1.svg").is_file()


def test_figures_that_are_missing_leave_gaps(plain: Evaluation, tmp_path: Path) -> None:
    nothing = float("nan")
    inside = TeacherSimilarity(
        teacher="bert",
        cka=[[nothing, nothing], [nothing, 0.5]],
        cls_cosine=None,
        attention_kl=[[nothing]],
        head_kl=None,
        suggested={1: 1},
        suggested_cka=0.5,
    )
    insides = LayerComparison(student="student", split="dev", rows=2, tokens=9, teachers=[inside])
    lines = [{"kind": "train", "phase": "distill", "step": 1, "values": {"loss": nothing}}]
    page = Reader(page_of(Material("gaps", [plain], layers=insides, metrics=lines), tmp_path))
    assert "KL of attention" in page.sections["insides"]
    assert "[CLS]" not in page.sections["insides"]
    assert "curves" not in page.sections


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
    insides = compare_layers({f"teacher {MARKUP}": 12})
    page = page_of(Material(f"title {MARKUP}", [found], layers=insides, **extra), tmp_path)
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
    material = Material("long", [plain], layers=compare_layers({"large": 24}, 12, 16), metrics=metrics_lines(5000))
    path = write_report(material, tmp_path)
    assert path.stat().st_size < 2_000_000
    assert "A point is the mean of 32 logged values." in path.read_text(encoding="utf-8")
