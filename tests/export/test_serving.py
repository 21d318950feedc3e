"""predict.py beside an exported model says what transformers says, where neither it nor torch is installed."""

from __future__ import annotations

import ast
import importlib.util
import json
import os
import subprocess
import sys
import venv
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer, pipeline

from kdcli.engine.events import Events
from kdcli.export.serving import write_predict
from kdcli.jobs.export import ExportRequest, export

PACKAGES = ("onnxruntime", "tokenizers", "numpy")
LABELS = ["très bon", "awful, boring", "neither"]
TEXTS = ["great", "", "The plot was awful, and its actor hopeless!", "Überraschend ☕ music; " * 8]
PAIRS = ["The story was splendid.", "a scene", "?", "dreadful ending " * 5]
ASK = """\
import json, sys
sys.path.insert(0, sys.argv[1])
import onnxruntime
from predict import HERE, predict
session = onnxruntime.InferenceSession(HERE / "onnx" / "model.onnx")
print(json.dumps([predict(session, *asked) for asked in json.load(sys.stdin)]))
"""


@dataclass(frozen=True)
class Served:
    """An export folder, and transformers' own pipeline on the checkpoint that it was made from."""

    folder: Path
    pipeline: Any

    def expected(self, texts: list[str], pairs: list[str] | None = None) -> list[tuple[str, float]]:
        """What the pipeline answers, one text at a time."""
        samples = [{"text": text, "text_pair": pairs[row] if pairs else None} for row, text in enumerate(texts)]
        answers = [self.pipeline(sample, truncation=True) for sample in samples]
        return [(answer["label"], answer["score"]) for answer in answers]


@pytest.fixture(scope="module", params=["wordpiece", "byte-level BPE"])
def served(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Served:
    encoder = request.getfixturevalue("tiny_bert" if request.param == "wordpiece" else "tiny_roberta")
    folder = tmp_path_factory.mktemp("served")
    names: dict[str, Any] = {"id2label": dict(enumerate(LABELS)), "label2id": {name: row for row, name in enumerate(LABELS)}}
    model: Any = AutoModelForSequenceClassification.from_pretrained(encoder, **names)
    tokenizer: Any = AutoTokenizer.from_pretrained(encoder)
    give_opinions(model, tokenizer(TEXTS, PAIRS, padding=True, truncation=True, return_tensors="pt"))
    model.save_pretrained(folder / "checkpoint")
    tokenizer.save_pretrained(folder / "checkpoint")
    done = export(ExportRequest(target=folder / "checkpoint", out=folder / "export", benchmark="off"), Events())
    write_predict(done.folder, "onnx/model.onnx")
    return Served(done.folder, pipeline("text-classification", model=str(folder / "checkpoint"), device="cpu"))


def give_opinions(model: Any, inputs: Any) -> None:
    """Weights of the head such that it does not say the same of everything."""
    torch.manual_seed(0)
    for name, values in model.named_parameters():
        if "classifier" in name or "pooler" in name:
            torch.nn.init.normal_(values, std=0.7)
    *_, last = model.named_parameters()
    assert last[0].endswith("bias")
    with torch.no_grad():
        last[1].sub_(model.eval()(**inputs).logits.mean(0))


@pytest.fixture(scope="module")
def bare_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of an environment that has the three packages and nothing else."""
    folder = tmp_path_factory.mktemp("bare")
    venv.create(folder, with_pip=False, symlinks=True)
    site = next(folder.glob("lib/python*/site-packages"))
    for package in PACKAGES:
        found = importlib.util.find_spec(package)
        assert found is not None
        assert found.origin is not None
        place = Path(found.origin).parent
        for part in (place, place.with_name(f"{package}.libs")):
            if part.is_dir():
                (site / part.name).symlink_to(part)
    return folder / "bin" / "python"


def run(python: Path, *words: object, stdin: str = "") -> str:
    done = run_bytes(python, *map(str, words), stdin=stdin.encode())
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode()


def run_bytes(python: Path, *words: str | bytes, stdin: bytes) -> subprocess.CompletedProcess[bytes]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    return subprocess.run(
        [python, "-s", *words], input=stdin, env=environment | {"PYTHONUTF8": "1"}, capture_output=True, timeout=60
    )


def assert_same(found: list[Any], expected: list[tuple[str, float]]) -> None:
    assert [label for label, _ in found] == [label for label, _ in expected]
    assert [score for _, score in found] == pytest.approx([score for _, score in expected], abs=2e-4)


def test_script_is_short_and_imports_three_packages(served: Served) -> None:
    source = (served.folder / "predict.py").read_text(encoding="utf-8")
    assert len(source.splitlines()) < 75
    imported = {
        name.split(".")[0]
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in ([node.module or ""] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names])
    }
    assert imported - sys.stdlib_module_names == set(PACKAGES)


@pytest.mark.parametrize("package", ["torch", "transformers", "huggingface_hub", "onnx"])
def test_environment_is_bare(package: str, bare_python: Path) -> None:
    assert run(bare_python, "-c", f"import importlib.util as u; print(u.find_spec({package!r}))") == "None\n"


def test_texts_and_pairs_are_answered_as_by_the_pipeline(served: Served, bare_python: Path) -> None:
    texts, pairs, none = json.loads(
        run(bare_python, "-c", ASK, served.folder, stdin=json.dumps([[TEXTS], [TEXTS, PAIRS], [[]]]))
    )
    assert_same(texts, served.expected(TEXTS))
    assert_same(pairs, served.expected(TEXTS, PAIRS))
    assert none == []
    assert len({label for label, _ in pairs}) > 1


def test_long_text_is_cut_and_many_texts_are_answered_in_order(served: Served, bare_python: Path) -> None:
    many = [f"{TEXTS[row % 4]} {'music ' * (row % 9)}" for row in range(40)]
    long = ["scene " * 1000, "a " * 100]
    pairs = ["b", "plot " * 400]
    found = json.loads(run(bare_python, "-c", ASK, served.folder, stdin=json.dumps([[many], [long], [long, pairs]])))
    assert_same(found[0], served.expected(many))
    assert_same(found[1], served.expected(long))
    assert_same(found[2], served.expected(long, pairs))


def test_command_line_takes_arguments_or_lines(served: Served, bare_python: Path) -> None:
    script = served.folder / "predict.py"
    written = run(bare_python, script, *TEXTS)
    rows = [line.split("\t") for line in written.splitlines()]
    assert [text for _, _, text in rows] == TEXTS
    assert_same([(label, float(score)) for label, score, _ in rows], served.expected(TEXTS))
    assert run(bare_python, script, stdin="\n".join(TEXTS) + "\n") == written
    assert run(bare_python, script, stdin="") == ""


def test_lines_end_as_universal_newlines_do_and_one_line_out_answers_one_line_in(served: Served, bare_python: Path) -> None:
    script = str(served.folder / "predict.py")
    lines = ["great", "", "awful\u2028music\x85ending", "a\ttab", "The plot"]
    plain = run_bytes(bare_python, script, stdin="\n".join(lines).encode()).stdout
    assert [row.split("\t")[2] for row in plain.decode().split("\n")[:-1]] == [line.replace("\t", "\\t") for line in lines]
    for other in ("\r\n".join(lines), "\r".join(lines) + "\r", "\ufeff" + "\n".join(lines)):
        assert run_bytes(bare_python, script, stdin=other.encode()).stdout == plain


def test_text_that_is_not_utf8_is_refused_with_its_line(served: Served, bare_python: Path) -> None:
    script = str(served.folder / "predict.py")
    done = run_bytes(bare_python, script, stdin=b"great\nna\xefve\n")
    assert done.returncode == 2
    assert done.stdout == b""
    assert b"line 2 of the text is not UTF-8: byte 0xef" in done.stderr
    assert b"Traceback" not in done.stderr
    assert run_bytes(bare_python, script, b"na\xefve", stdin=b"").returncode == 2


def test_arguments_with_line_breaks_keep_to_one_line_of_output(served: Served, bare_python: Path) -> None:
    written = run(bare_python, served.folder / "predict.py", "two\nlines", "a\r\tb")
    assert [row.split("\t")[2:] for row in written.split("\n")] == [["two\\nlines"], ["a\\r\\tb"], []]


def test_closed_pipe_ends_the_script_without_a_word(served: Served, bare_python: Path) -> None:
    script = served.folder / "predict.py"
    line = f"yes great | head -3000 | '{bare_python}' -s '{script}' | head -1"
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, timeout=60)
    assert done.stderr == ""
    assert done.stdout.endswith("\tgreat\n")


def test_texts_far_longer_than_the_model_sees_are_answered_as_their_beginning(served: Served, bare_python: Path) -> None:
    texts = ["a scene of music " * 1000, "a scene of music " * 100_000, " " * 100_000 + "great", "z" * 100_000]
    found = json.loads(run(bare_python, "-c", ASK, served.folder, stdin=json.dumps([[texts]])))[0]
    assert found[0] == found[1]
    assert_same(found[2:], served.expected(texts[2:]))
    assert_same(found[:1], served.expected(texts[:1]))


def test_another_file_beside_the_script_can_be_asked(served: Served, bare_python: Path) -> None:
    other = served.folder / "onnx" / "model_int8.onnx"
    other.write_bytes((served.folder / "onnx" / "model.onnx").read_bytes())
    script = served.folder / "predict.py"
    try:
        assert run(bare_python, script, "--model", "onnx/model_int8.onnx", "great") == run(bare_python, script, "great")
    finally:
        other.unlink()


def test_a_model_that_is_not_finite_answers_nothing(served: Served, bare_python: Path) -> None:
    import onnx
    from onnx import numpy_helper

    broken = served.folder / "onnx" / "broken.onnx"
    model = onnx.load(served.folder / "onnx" / "model.onnx")
    for tensor in model.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if values.dtype.kind == "f":
            tensor.CopyFrom(numpy_helper.from_array(values * float("nan"), tensor.name))
    onnx.save(model, broken)
    try:
        done = run_bytes(bare_python, str(served.folder / "predict.py"), "--model", "onnx/broken.onnx", "great", stdin=b"")
        assert (done.returncode, done.stdout) == (3, b"")
        assert done.stderr == b"the model's outputs are not finite\n"
    finally:
        broken.unlink()


def test_labels_that_the_configuration_leaves_out_have_their_usual_names(served: Served, bare_python: Path) -> None:
    config = served.folder / "config.json"
    before = config.read_text(encoding="utf-8")
    try:
        config.write_text(json.dumps({key: value for key, value in json.loads(before).items() if key != "id2label"}))
        names = "import sys; sys.path.insert(0, sys.argv[1]); from predict import LABELS; print(list(LABELS.values()))"
        assert run(bare_python, "-c", names, served.folder) == "['LABEL_0', 'LABEL_1']\n"
    finally:
        config.write_text(before, encoding="utf-8")
