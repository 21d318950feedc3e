"""Which term computes which loss: found in the file of this package that has the loss's name, or registered by others."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from typing import TypeVar

from kdcli.losses.setting import Setting
from kdcli.losses.term import Term
from kdcli.models.output import Wanted
from kdcli.models.student import STUDENT
from kdcli.recipe.loss import LossBlock
from kdcli.recipe.term_plan import TermPlan

_Kind = TypeVar("_Kind", bound=type[Term])
_terms: dict[type[LossBlock], type[Term]] = {}


def computes(block: type[LossBlock]) -> Callable[[_Kind], _Kind]:
    """Let a term compute a loss; a decorator of the term.

    Raises:
        TypeError: another term does.
    """

    def register(term: _Kind) -> _Kind:
        if _terms.get(block, term) is not term:
            raise TypeError(f"{term.__name__} cannot compute {block.loss_name()!r}: {_terms[block].__name__} does")
        _terms[block] = term
        return term

    return register


def term_class(block: type[LossBlock]) -> type[Term]:
    """The term that computes a loss.

    Raises:
        TypeError: there is none.
    """
    if block not in _terms:
        module = f"{__package__}.{block.loss_name().replace('-', '_')}"
        if find_spec(module) is not None:
            import_module(module)
    if block not in _terms:
        raise TypeError(
            f"no term computes the loss {block.loss_name()!r}: one has to be registered by @computes({block.__name__})"
        )
    return _terms[block]


def make_term(planned: TermPlan, setting: Setting) -> Term:
    """The term that a planned term stands for.

    Raises:
        TypeError: nothing computes it, or it looks at more of the student than its block says that it needs.
    """
    term = term_class(type(planned.loss)).planned(planned.loss, planned, setting)
    unsaid = term.may_need().get(STUDENT, Wanted()).kinds() - planned.loss.needs()
    if unsaid:
        raise TypeError(
            f"{type(planned.loss).__name__}.needs() does not say that the loss looks at {', '.join(sorted(unsaid))}"
        )
    return term
