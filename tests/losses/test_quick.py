import pytest
from tests.losses.cases import ALL
from tests.losses.checks import *

@pytest.mark.parametrize("make", ALL.values(), ids=ALL)
def test_value(make): assert_value_is_the_reference(make())
@pytest.mark.parametrize("make", ALL.values(), ids=ALL)
def test_grad(make): assert_gradient_is_that_of_the_reference(make())
@pytest.mark.parametrize("make", ALL.values(), ids=ALL)
def test_pad(make): assert_padding_changes_nothing(make())
@pytest.mark.parametrize("make", ALL.values(), ids=ALL)
def test_needs(make): assert_needs_are_what_is_used(make())
@pytest.mark.parametrize("make", ALL.values(), ids=ALL)
def test_cuts(make):
    c=make()
    if c.term.group and len(c.samples)==8: assert_cuts_change_nothing(c)
