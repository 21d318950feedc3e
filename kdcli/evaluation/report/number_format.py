"""Numbers as the report writes them."""

from __future__ import annotations

NBSP = "\u00a0"


def hundredfold(value: float | None) -> str:
    """``0.9842`` as ``98.4``."""
    return "–" if value is None else f"{100 * value:.1f}".replace("-", "−")


def signed(value: float) -> str:
    """``-0.012`` as ``−1.2``, ``0.012`` as ``+1.2``."""
    return f"{100 * value:+.1f}".replace("-", "−")


def p_value(value: float) -> str:
    """``p < 0.001`` or ``p = 0.042``."""
    return "p < 0.001" if value < 0.001 else f"p = {value:.3f}"


def parameters_text(value: int | None) -> str:
    """A number of parameters, the same in the terminal, the report and the model card: ``22.7M``, ``48k``, ``512``."""
    if value is None:
        return "–"
    return f"{value / 1e6:.1f}M" if value >= 1e5 else f"{value / 1e3:.0f}k" if value >= 1e3 else str(value)


def megabytes(value: int | None) -> str:
    """``4319032`` as ``4.32``."""
    return "–" if value is None else f"{value / 1e6:,.0f}" if value >= 1e8 else f"{value / 1e6:.3g}"


def together(sentence: str) -> str:
    """``95 %`` so that no line ends between number and sign."""
    return sentence.replace(" %", f"{NBSP}%")
