"""The trials as Optuna keeps them: drawn, reported, pruned and told, so that whoever goes on draws the same.

Everything that is drawn for a trial depends on the sweep's seed, the trial's number and the trials that are finished, never on
what a process has drawn before: an interrupted sweep goes on as if it had not been interrupted.
"""

from __future__ import annotations

import hashlib
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import fmean
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.storages import BaseStorage, RDBStorage, get_storage
from optuna.study import Study
from optuna.trial import FrozenTrial, Trial, TrialState

from kdcli.errors import Problem, RequestError
from kdcli.sweep.space import Combination, Parameter, grid_point, most_trials, same, text
from kdcli.sweep.sweep_schema import OWN_STORAGE, Range, Sweep

PRUNED_AFTER = 5
SCORES, PLACE, MACHINE, MESSAGE, TWIN = "scores", "place", "machine", "message", "same as"
_LEAST_FOR_IMPORTANCE = 4


class SweepStudy:
    """One sweep in one storage."""

    def __init__(self, study: Study, sweep: Sweep, parameters: Sequence[Parameter]) -> None:
        self.study, self.sweep, self.parameters = study, sweep, parameters
        self.most = most_trials(sweep, parameters)
        pruner: Any = optuna.pruners.NopPruner()
        if sweep.prune:
            pruner = optuna.pruners.MedianPruner(n_startup_trials=PRUNED_AFTER, n_warmup_steps=0)
        study.pruner = pruner

    def trials(self) -> list[FrozenTrial]:
        """All trials that count, by number."""
        return [trial for trial in self.study.get_trials(deepcopy=False) if trial.number < self.most]

    def ask(self) -> Trial | None:
        """A new trial, without values yet; None where there are enough."""
        if len(self.study.get_trials(deepcopy=False)) >= self.most:
            return None
        self.study.sampler = RandomSampler()
        trial = self.study.ask()
        if trial.number >= self.most:  # another process has asked at the same moment
            self.study.tell(trial, state=TrialState.FAIL)
            return None
        return trial

    def taken_up(self, number: int) -> Trial:
        """A trial that was not finished, with what is known of it."""
        frozen = next(trial for trial in self.trials() if trial.number == number)
        return Trial(self.study, frozen._trial_id)

    def values(self, trial: Trial) -> Combination:
        """The trial's values; those that were not drawn yet are drawn now."""
        self.study.sampler = self._sampler(trial.number, "")
        whole = Trial(self.study, trial._trial_id)
        for parameter in self.parameters:
            self.study.sampler = self._sampler(trial.number, parameter.key)
            _draw(whole, parameter)
        return decoded(self.parameters, whole.params)

    def _sampler(self, number: int, key: str) -> BaseSampler:
        seed = _seed(self.sweep.sampler_seed, number, key)
        if self.sweep.sampler == "grid":
            return _Fixed(encoded(self.parameters, grid_point(self.sweep, self.parameters, number)))
        return RandomSampler(seed=seed) if self.sweep.sampler == "random" else TPESampler(seed=seed)

    def twin(self, trial: Trial) -> FrozenTrial | None:
        """A finished trial with the same values."""
        trials = self.trials()
        values = next(one.params for one in trials if one.number == trial.number)
        return next((one for one in trials if one.state == TrialState.COMPLETE and one.params == values), None)

    def scored(self, trial: Trial | FrozenTrial) -> dict[int, float]:
        """The scores that a trial has so far, by seed."""
        return {int(seed): score for seed, score in trial.user_attrs.get(SCORES, {}).items()}

    def note_score(self, trial: Trial, scores: Mapping[int, float]) -> None:
        """Keep the scores of a trial that is not finished."""
        trial.set_user_attr(SCORES, {str(seed): score for seed, score in scores.items()})

    def loses(self, trial: Trial, scores: Sequence[float]) -> bool:
        """Whether a trial with so many scores is not worth another one."""
        step = len(scores) - 1
        known = next(one for one in self.trials() if one.number == trial.number).intermediate_values
        if step not in known:
            trial.report(fmean(scores), step)
        return trial.should_prune()

    def complete(self, trial: Trial, scores: Sequence[float]) -> None:
        """The trial has all its scores."""
        self.study.tell(trial, fmean(scores))

    def pruned(self, trial: Trial) -> None:
        """The trial is given no further seed."""
        self.study.tell(trial, state=TrialState.PRUNED)

    def failed(self, trial: Trial, message: str) -> None:
        """The trial has failed."""
        trial.set_user_attr(MESSAGE, message)
        self.study.tell(trial, state=TrialState.FAIL)

    def best(self) -> FrozenTrial | None:
        """The finished trial with the highest mean, the earlier of two."""
        done = [trial for trial in self.trials() if trial.state == TrialState.COMPLETE]
        return max(done, key=lambda trial: (trial.value or 0.0, -trial.number), default=None)

    def importance(self) -> dict[str, float]:
        """How much of the spread of the means each parameter explains; nothing where there is too little to say it from."""
        done = [trial for trial in self.trials() if trial.state == TrialState.COMPLETE]
        varied = [key for key in (p.key for p in self.parameters) if len({str(trial.params[key]) for trial in done}) > 1]
        if len(done) < _LEAST_FOR_IMPORTANCE or len({trial.value for trial in done}) < 2 or not varied:
            return {}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
            found = optuna.importance.get_param_importances(self.study, evaluator=evaluator, params=varied)
        return {key: float(value) for key, value in found.items() if math.isfinite(value)}


class _Fixed(BaseSampler):
    """Gives values that are known."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self.known = values

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Nothing is drawn together."""
        return {}

    def sample_relative(self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]) -> dict[str, Any]:
        """Nothing is drawn together."""
        return {}

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """The value that is known."""
        return self.known[param_name]


def _draw(trial: Trial, parameter: Parameter) -> None:
    """Draw a value of a trial, or find that it is drawn already; choices that are no single values are texts for Optuna."""
    key, values = parameter.key, parameter.values
    if not isinstance(values, Range):
        trial.suggest_categorical(key, _choices(values))
    elif values.whole:
        trial.suggest_int(key, int(values.low), int(values.high), log=values.log, step=int(values.step or 1))
    else:
        trial.suggest_float(key, float(values.low), float(values.high), log=values.log, step=values.step)


def _choices(values: Sequence[Any]) -> list[Any]:
    """The choices as they are, where Optuna can tell each from the others; else as texts."""
    single = all(value is None or isinstance(value, bool | int | float | str) for value in values)
    truths = sum(isinstance(value, bool) for value in values)
    return list(values) if single and truths in (0, len(values)) else [text(value) for value in values]


def decoded(parameters: Sequence[Parameter], params: Mapping[str, Any]) -> dict[str, Any]:
    """Optuna's values as the file has them."""
    return {parameter.key: _decoded(parameter, params[parameter.key]) for parameter in parameters if parameter.key in params}


def _decoded(parameter: Parameter, value: Any) -> Any:
    if isinstance(parameter.values, Range):
        return value
    return parameter.values[_choices(parameter.values).index(value)]


def encoded(parameters: Sequence[Parameter], values: Combination) -> dict[str, Any]:
    """Values of the file as Optuna has them."""
    found = {}
    for parameter in parameters:
        value = values[parameter.key]
        if not isinstance(parameter.values, Range):
            place = next(place for place, other in enumerate(parameter.values) if same(value, other))
            value = _choices(parameter.values)[place]
        found[parameter.key] = value
    return found


def _seed(seed: int, number: int, key: str) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed} {number} {key}".encode()).digest()[:4], "big")


@contextmanager
def opened_study(
    sweep: Sweep, parameters: Sequence[Parameter], name: str, folder: Path | None, where: str, there: bool = False
) -> Iterator[SweepStudy]:
    """The sweep in its storage, made if it is not there.

    Args:
        sweep: what the file says.
        parameters: what is searched.
        name: the study's name in the storage.
        folder: the sweep's; None keeps the trials in memory alone.
        where: what messages about the storage begin with.
        there: it has to be there already.

    Raises:
        RequestError: the storage cannot be opened, or the sweep is not in it.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with _storage(sweep, folder, where) as storage:
        names = [study.study_name for study in storage.get_all_studies()]
        if there and name not in names and (names or sweep.storage != OWN_STORAGE):
            raise RequestError(
                Problem(
                    where,
                    "the sweep is not in this storage",
                    "the storage, recipe, models and data that it was begun with",
                    remedy="another --out begins a new sweep",
                )
            )
        study = optuna.create_study(
            storage=storage, study_name=name, direction="maximize", load_if_exists=True, sampler=RandomSampler()
        )
        yield SweepStudy(study, sweep, parameters)


@contextmanager
def _storage(sweep: Sweep, folder: Path | None, where: str) -> Iterator[BaseStorage]:
    if folder is None:
        yield optuna.storages.InMemoryStorage()
        return
    try:
        storage = RDBStorage(_own_url(folder)) if sweep.storage == OWN_STORAGE else get_storage(sweep.storage)
    except Exception as error:
        raise RequestError(
            Problem(
                where,
                "the storage cannot be opened",
                "sqlite, or a URL that Optuna takes, such as postgresql://user@host/sweeps",
                f"{type(error).__name__}: {str(error).splitlines()[0]}",
            )
        ) from error
    try:
        yield storage
    finally:
        storage.remove_session()
        inner: Any = getattr(storage, "_backend", storage)
        if isinstance(inner, RDBStorage):
            inner.engine.dispose()


def _own_url(folder: Path) -> str:
    from sqlalchemy.engine import URL

    return URL.create("sqlite", database=str(folder.resolve() / "sweep.db")).render_as_string(hide_password=False)
