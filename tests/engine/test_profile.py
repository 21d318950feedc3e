"""Where the time went."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

import kdcli
from kdcli.engine import profile
from kdcli.engine.events import CheckpointWritten, Event, Logged, PhaseDone, PhaseStarted
from kdcli.engine.profile import SECTIONS, Profile
from kdcli.engine.teacher_outputs import Teaching
from tests.engine.keeping import EPOCH, Desk
from tests.engine.phases import Material, Part, Told, all_terms, labels_alone, phase, stopping_at, trainer
from tests.engine.resuming import Course


class Clock:
    """Shows what it is told to."""

    now = 100.0

    def perf_counter(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(profile, "time", made)
    return made


def test_a_section_inside_another_one_is_taken_out_of_it(clock: Clock) -> None:
    """At any depth, also one of the same name."""
    measured = Profile()
    with measured.section("other"):
        clock.now += 1
        with measured.section("student"):
            clock.now += 2
            with measured.section("losses"):
                clock.now += 4
            clock.now += 8
            with measured.section("student"):
                clock.now += 16
        clock.now += 32
        with measured.section("losses"):
            clock.now += 64
    assert measured.take() == {"student": 26.0, "losses": 68.0, "other": 33.0}


def test_time_outside_of_all_sections_is_nobodys(clock: Clock) -> None:
    measured = Profile()
    clock.now += 1
    with measured.section("dev"):
        clock.now += 2
    clock.now += 4
    with measured.section("dev"):
        clock.now += 8
    clock.now += 16
    assert measured.take() == {"dev": 10.0}


def test_taking_begins_anew_also_inside_a_section(clock: Clock) -> None:
    measured = Profile()
    with measured.section("other"):
        clock.now += 1
        with measured.section("data"):
            clock.now += 2
            assert measured.take() == {"data": 2.0, "other": 1.0}
            clock.now += 4
        clock.now += 8
    assert measured.take() == {"data": 4.0, "other": 8.0}
    assert measured.take() == {}


def test_sections_come_in_the_order_in_which_they_are_explained(clock: Clock) -> None:
    measured = Profile()
    for name in reversed(SECTIONS):
        with measured.section(name):
            clock.now += 1
    assert list(measured.take()) == list(SECTIONS)


def test_an_error_ends_its_sections(clock: Clock) -> None:
    measured = Profile()

    def fail() -> None:
        with measured.section("other"), measured.section("student"):
            clock.now += 1
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    clock.now += 2
    with measured.section("dev"):
        clock.now += 4
    assert measured.take() == {"student": 1.0, "dev": 4.0, "other": 0.0}


def test_all_sections_that_are_measured_are_explained() -> None:
    """One that is not would be left out without a word."""
    sources = Path(kdcli.__file__).parent.rglob("*.py")
    named = {name for source in sources for name in re.findall(r'\.section\("([a-z]+)"\)', source.read_text(encoding="utf-8"))}
    assert named == set(SECTIONS)


# Of a training


@pytest.fixture
def desk(material: Material, tmp_path: Path) -> Iterator[Desk]:
    made = Desk(material, tmp_path)
    yield made
    made.close()


def test_a_training_says_of_every_section_how_long_it_took(desk: Desk, tmp_path: Path) -> None:
    """In every entry of its log and, with what came after the last one, at its end."""
    told, made = Told(), desk.phase(all_terms, steps=2 * EPOCH)
    running = trainer(tmp_path, told, evaluations_per_epoch=1)
    assert isinstance(made.ensemble, Teaching)
    made.ensemble.profile = running.profile
    running.run(made)
    logged, (done,) = told.of(Logged), told.of(PhaseDone)
    summed: Counter[str] = Counter()
    for event in logged:
        summed.update(event.seconds)
    assert set(done.seconds) == set(SECTIONS)
    assert set(logged[0].seconds) == set(SECTIONS) - {"dev", "checkpoint"}
    assert not {"teachers", "cache"} & set(logged[-1].seconds)
    for name, seconds in done.seconds.items():
        rest = seconds - summed[name]
        assert rest == pytest.approx(0, abs=1e-4) if name not in ("dev", "checkpoint", "other") else rest > -1e-4
    assert done.seconds["dev"] > 0
    assert done.samples == sum(event.samples for event in logged) == 2 * len(made.train)


def test_the_seconds_of_a_log_entry_are_those_since_the_one_before(material: Material, tmp_path: Path) -> None:
    """All of them: nothing of the loop is outside of the sections, and nothing is counted twice."""
    at: list[float] = []

    def look(event: Event) -> None:
        if isinstance(event, PhaseStarted | Logged | PhaseDone):
            at.append(time.perf_counter())

    told = Told(look)
    trainer(tmp_path, told).run(phase(material, [Part(9, all_terms)]))
    spent = [later - earlier for earlier, later in pairwise(at)]
    summed = [sum(event.seconds.values()) for event in told.of(Logged)[1:]]
    assert len(summed) == len(spent[1:-1])
    assert sum(summed) == pytest.approx(sum(spent[1:-1]), rel=0.1, abs=0.01)  # each alone waits for other work
    (done,) = told.of(PhaseDone)
    assert sum(done.seconds.values()) <= sum(spent)
    assert sum(done.seconds.values()) == pytest.approx(sum(spent[1:-1]) + sum(told.of(Logged)[0].seconds.values()), rel=0.3)


def test_a_stage_does_not_answer_for_what_was_before_the_trainer_ran(material: Material, tmp_path: Path) -> None:
    """One trainer trains several phases."""
    told = Told()
    running = trainer(tmp_path, told)
    running.run(phase(material, [Part(3, labels_alone)], teachers=False))
    before = sum(told.of(PhaseDone)[0].seconds.values())
    assert running.profile.take() == {}
    time.sleep(3 * before)
    again = phase(material, [Part(3, labels_alone)], teachers=False)
    again.name = "again"
    running.run(again)
    assert sum(told.of(PhaseDone)[1].seconds.values()) < 3 * before


def test_a_resumed_run_counts_its_own_seconds_and_samples(material: Material, tmp_path: Path) -> None:
    course = Course(lambda: phase(material, (4, 5), terms=labels_alone, teachers=False))
    first = course.run(tmp_path, stopping_at(5))
    assert first.told.of(CheckpointWritten)[-1].step == 5
    rest = course.run(tmp_path)
    (done,) = rest.told.of(PhaseDone)
    assert done.samples == 4 * 8
    assert sum(event.samples for event in rest.told.of(Logged)) == 4 * 8
    summed = sum(sum(event.seconds.values()) for event in rest.told.of(Logged))
    assert summed <= sum(done.seconds.values()) + 1e-4
