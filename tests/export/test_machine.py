"""The machine as it is told in reports, on systems that tell much and on systems that tell little."""

from __future__ import annotations

import json
import os
import platform
from pathlib import Path

import pytest
import torch

from kdcli.export import machine
from kdcli.export.machine import describe, has_bf16, has_vnni, instructions


@pytest.fixture
def old_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """A torch before 2.11."""
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)


@pytest.fixture
def no_cpuinfo(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A system that is not Linux."""
    monkeypatch.setattr(machine, "_CPUINFO", tmp_path / "missing")


def tell(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """Make torch name these instruction sets."""
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: dict.fromkeys(names, True), raising=False)


def test_description_says_what_figures_depend_on_and_is_json() -> None:
    about = describe(3)
    assert json.loads(json.dumps(about)) == about
    assert about["threads"] == 3
    assert about["torch"] == torch.__version__
    assert about["python"] == platform.python_version()
    assert about["processor"]
    assert {"physical_cores", "instructions", "system", "onnxruntime", "transformers"} <= set(about)
    assert about["logical_cores"] >= 1
    assert "gpu" not in about


def test_gpu_is_named_when_it_is_used() -> None:
    about = describe(1, "cuda")
    assert about["cuda"] == torch.version.cuda
    assert bool(about["gpu"]) == torch.cuda.is_available()
    assert describe(1, torch.device("cuda", 0)) == about


@pytest.mark.parametrize(
    ("names", "vnni", "bf16"),
    [
        ((), False, False),
        (("avx2", "avx512_f"), False, False),
        (("avx2", "avx_vnni"), True, False),
        (("avx2", "avx512_f", "avx512_vnni", "avx512_bf16"), True, True),
        (("amx_int8", "amx_bf16"), True, True),
        (("neon", "dot"), True, False),
        (("neon", "dot", "i8mm", "bf16"), True, True),
        (("neon",), False, False),
    ],
)
def test_instructions_for_8_bit_and_bf16_products_are_known(
    names: tuple[str, ...], vnni: bool, bf16: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    tell(monkeypatch, *names, "clflush")
    assert sorted(instructions()) == sorted(names)
    assert (has_vnni(), has_bf16()) == (vnni, bf16)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("flags\t\t: fpu avx2 avx512f avx512_vnni amx_int8", ["avx2", "avx512_f", "avx512_vnni", "amx_int8"]),
        ("Features\t: fp asimd asimddp asimdhp i8mm bf16 sve", ["neon", "dot", "i8mm", "bf16", "fp16_arith", "sve"]),
    ],
)
@pytest.mark.usefixtures("old_torch")
def test_old_torch_leaves_it_to_what_linux_tells(
    line: str, expected: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = tmp_path / "cpuinfo"
    path.write_text(f"processor\t: 0\nmodel name\t: Some Processor\n{line}\n", encoding="utf-8")
    monkeypatch.setattr(machine, "_CPUINFO", path)
    about = describe(1)
    assert about["instructions"] == expected
    assert about["processor"] == "Some Processor"
    assert about["physical_cores"] is None
    assert about["logical_cores"] == os.cpu_count()
    assert has_vnni()


@pytest.mark.usefixtures("old_torch")
@pytest.mark.skipif(not Path("/proc/cpuinfo").is_file(), reason="there is nothing to compare with")
def test_linux_and_torch_agree_on_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    from_linux = set(instructions())
    monkeypatch.undo()
    if not hasattr(torch.cpu, "get_capabilities"):
        pytest.skip("this torch does not tell")
    assert from_linux == set(instructions())


@pytest.mark.parametrize(("system", "processor"), [("Windows", "AMD64"), ("Darwin", "x86_64"), ("Darwin", "arm64")])
@pytest.mark.usefixtures("old_torch", "no_cpuinfo")
def test_other_systems_are_described_by_what_is_known(
    system: str, processor: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(platform, "system", lambda: system)
    monkeypatch.setattr(platform, "machine", lambda: processor)
    monkeypatch.setattr(platform, "processor", lambda: "")
    monkeypatch.setenv("PATH", str(tmp_path))
    about = describe(1)
    assert about["processor"] == processor
    assert has_vnni() == (processor == "arm64")
    assert not has_bf16()
