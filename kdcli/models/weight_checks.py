"""Weights held against the architecture that their ``config.json`` names.

transformers gives random values to whatever a checkpoint lacks, and leaves out what it does not know. What that would be is
found here from names and shapes alone: transformers matches them as it does when it loads, on a model without memory. BERT and
RoBERTa are known by heart: to import what transformers has for them takes longer than all other work on a plan. What they are
known by is compared exactly; whatever differs is left to transformers.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from kdcli.errors import Problem, RequestError
from kdcli.models.configuration import SINGLE_LABEL, Configuration, build
from kdcli.models.json_file import blamed, brief, refused, written
from kdcli.models.weights import Header, renaming
from kdcli.tasks.kinds import kind_of_head

BY_HEART: Mapping[str, str] = {"bert": "bert", "roberta": "roberta", "xlm-roberta": "roberta"}  # and their prefix
_MOST_TENSORS = 20_000
_MOST_NUMBERS = 2**37
_NEVER_TRAINED = re.compile(r"(^|\.)pooler\.|(^|\.)(position_ids|token_type_ids|inv_freq)$")
_BLOCK = re.compile(r"\.\d+\.")
_OTHER_TASKS = (
    "ForTokenClassification", "ForQuestionAnswering", "ForMultipleChoice", "ForNextSentencePrediction", "ForMaskedLM",
    "ForPreTraining",
)  # fmt: skip
_CLASSIFIES = "ForSequenceClassification"


@dataclass(frozen=True)
class Fit:
    """How the tensors of a checkpoint fit a model.

    Attributes:
        missing: parameters that the checkpoint lacks; they would be random.
        mismatched: parameter → shape in the checkpoint, shape in the model.
        unused: tensors that the model has no place for.
        expected: how many tensors the model has.
    """

    missing: tuple[str, ...]
    mismatched: Mapping[str, tuple[tuple[int, ...], tuple[int, ...]]]
    unused: tuple[str, ...]
    expected: int


def is_plain(config: Any) -> bool:
    """Whether it is certain, without looking at its code, that the model can be built, and from what."""
    return (
        config.model_type in BY_HEART
        and config.hidden_size % config.num_attention_heads == 0
        and config.hidden_act in ("gelu", "relu")
        and not (config.is_decoder or config.add_cross_attention)
        and (config.pad_token_id is None or 0 <= config.pad_token_id < min(config.vocab_size, config.max_position_embeddings))
    )


def skeleton(config: Any, *, classifier: bool) -> nn.Module:
    """The model of a configuration without memory for its weights.

    Raises:
        Exception: of any type; the architecture cannot be built in that size, or only in one that no machine holds.
    """
    from transformers import AutoModel, AutoModelForSequenceClassification

    return _skeleton(AutoModelForSequenceClassification if classifier else AutoModel, config)


def _skeleton(factory: Any, config: Any) -> nn.Module:
    with torch.device("meta"), _bounded():
        model: nn.Module = factory.from_config(config)
    return model


@contextmanager
def _bounded() -> Iterator[None]:
    """Stop the building of a model that would never end, whichever number of its configuration is to blame."""
    seen = {"tensors": 0, "numbers": 0}

    def count(module: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        seen["tensors"] += 1
        seen["numbers"] += 0 if parameter is None else parameter.numel()
        if seen["tensors"] > _MOST_TENSORS or seen["numbers"] > _MOST_NUMBERS:
            raise ValueError("the model would be larger than any encoder")

    def count_module(module: nn.Module, name: str, part: nn.Module | None) -> None:
        count(module, name, None)

    handles = [
        nn.modules.module.register_module_parameter_registration_hook(count),
        nn.modules.module.register_module_module_registration_hook(count_module),
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def check_buildable(found: Configuration) -> None:
    """Refuse a configuration from which no model can be built.

    Raises:
        RequestError: with the key that is to blame, where one is.
    """
    if is_plain(found.config):
        return
    try:
        skeleton(found.config, classifier=False)
    except Exception as error:  # whatever an architecture raises about its sizes
        kind = type(found.config)
        keys = blamed(found.written, lambda content: skeleton(build(kind, content), classifier=False), str(error))
        said = brief(f"{type(error).__name__}: {error}")
        value = f"{written(found.written, keys)} ({said})" if keys else said
        raise refused(
            found.path, " or ".join(keys), f"{found.config.model_type} cannot be built from it", found=value
        ) from error


def place(config: Any, tensors: Mapping[str, Any], *, classifier: bool, memory: bool = True) -> tuple[nn.Module, Fit]:
    """A model with the tensors in it, in fp32, as transformers places them, and how they fit.

    Args:
        config: the model's configuration.
        tensors: name → tensor (or a slice of a safetensors file, which is read then).
        classifier: with a classification head, else the bare encoder.
        memory: False leaves the model on torch's ``meta`` device.
    """
    from transformers import AutoModel, AutoModelForSequenceClassification

    factory = AutoModelForSequenceClassification if classifier else AutoModel
    return _placed(factory, config, tensors, memory=memory)


def _placed(factory: Any, config: Any, tensors: Mapping[str, Any], *, memory: bool) -> tuple[nn.Module, Fit]:
    kind: Any = type(_skeleton(factory, config))
    model, report = kind.from_pretrained(
        None,
        config=config,
        state_dict=dict(tensors),
        dtype=torch.float32,
        trust_remote_code=False,
        local_files_only=True,
        ignore_mismatched_sizes=True,
        output_loading_info=True,
        **({} if memory else {"device_map": {"": "meta"}}),
    )
    by_size = sorted(report["mismatched_keys"], key=lambda one: (-len(one[2]), _natural(one[0])))
    mismatched = {name: (tuple(there), tuple(wanted)) for name, there, wanted in by_size}
    fit = Fit(
        tuple(sorted(report["missing_keys"], key=_natural)),
        mismatched,
        tuple(sorted(report["unexpected_keys"], key=_natural)),
        len(model.state_dict()),
    )
    return model, fit


def _natural(name: str) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdigit() else (-1, part) for part in name.split(".")]


def check_weights(folder: Path, found: Configuration, headers: Mapping[str, Header]) -> bool:
    """Hold a checkpoint's weights against its configuration, and say whether they hold a trained classification head.

    Raises:
        RequestError: parameters of the encoder are missing or have other shapes, or half a head is there.
    """
    _refuse_quantised(headers)
    known = _by_heart(found, headers)
    if known is not None:
        return known
    check_buildable(found)
    shapes = {name: torch.empty(header.shape, device="meta") for name, header in headers.items()}
    try:
        with torch.random.fork_rng(devices=[]):
            if _is_whole_classifier(folder, found, shapes):
                return True
            model, fit = place(found.config, shapes, classifier=False, memory=False)
            _refuse_twice(folder, str(model.base_model_prefix), headers)
            check_encoder(folder, found, fit, model, headers)
            return has_head(folder, found, shapes)
    except RequestError:
        raise
    except Exception as error:  # transformers' conversions of older names raise errors of every kind
        said = brief(f"{type(error).__name__}: {error}")
        raise RequestError(
            Problem(str(folder), f"the weights cannot be loaded as {found.config.model_type}", "", said)
        ) from error


def _is_whole_classifier(folder: Path, found: Configuration, shapes: Mapping[str, Tensor]) -> bool:
    """Whether encoder and head are there and nothing is in doubt; some classifiers have another encoder than the bare one."""
    from transformers import AutoModelForSequenceClassification

    if _is_of_another_task(found) or type(found.config) not in AutoModelForSequenceClassification._model_mapping:
        return False
    model, fit = place(found.config, shapes, classifier=True, memory=False)
    base = str(model.base_model_prefix)
    _refuse_twice(folder, base, shapes)
    if any(name.startswith(f"{base}.{base}.") for name in shapes):
        return False  # a classifier would take it, a bare encoder would not
    own = [name.removeprefix(f"{base}.") for name in model.state_dict()]
    return not fit.missing and not fit.mismatched and not _of_more_blocks(own, base, fit.unused)


def check_encoder(folder: Path, found: Configuration, fit: Fit, model: Any, headers: Mapping[str, Any]) -> None:
    """Refuse an encoder of which a part would be random; a pooler, which pre-training may lack, is no such part.

    Raises:
        RequestError: with the names.
    """
    own = [name for name in model.state_dict() if not _NEVER_TRAINED.search(name)]
    missing = [name for name in fit.missing if not _NEVER_TRAINED.search(name)]
    named = f"{found.config.model_type} of {found.config.num_hidden_layers} layers"
    if missing:
        prefix = _prefix(list(headers), model)
        gone = len(missing) == len(own)
        some = "none of" if gone else f"{len(missing)} of"
        raise RequestError(
            Problem(
                str(folder),
                f"{some} the encoder's {len(own)} tensors {'is' if gone else 'are not'} there: not what config.json says",
                f"{named}: {few(missing)}",
                few(fit.unused) if gone and fit.unused else f"{len(own) - len(missing)} of them, {len(headers)} tensors in all",
                _mending(folder, prefix, str(model.base_model_prefix)),
            )
        )
    more = _of_more_blocks(own, str(model.base_model_prefix), fit.unused)
    if more:
        raise RequestError(
            Problem(
                f"{found.path}  num_hidden_layers",
                "the weights have more blocks than it says, which would be left out",
                f"{found.config.num_hidden_layers} blocks in the weights",
                few(more),
                "the configuration that was saved with the weights",
            )
        )
    if fit.mismatched:
        raise _other_shape(found, fit.mismatched)


def _other_shape(found: Configuration, mismatched: Mapping[str, tuple[tuple[int, ...], tuple[int, ...]]]) -> RequestError:
    problems = []
    for name, (there, wanted) in list(mismatched.items())[:3]:
        sizes = [size for place, size in enumerate(wanted) if place >= len(there) or there[place] != size]
        keys = found.places(sizes[0]) if sizes else ""
        said = f"{_shape(wanted)} as {found.path} says" + (f" ({keys})" if keys else "")
        what = f"the tensor {name} has another shape than its configuration says"
        problems.append(Problem(str(found.path.parent), what, said, f"{_shape(there)} in the weights"))
    if len(mismatched) > 3:
        problems.append(Problem(str(found.path.parent), f"{len(mismatched)} tensors have other shapes in all"))
    return RequestError(problems)


def _shape(shape: Iterable[int]) -> str:
    return "[" + ", ".join(map(str, shape)) + "]"


def _prefix(names: list[str], model: Any) -> str:
    """What stands before all names of a checkpoint that would fit without it; an empty string where nothing does."""
    own = [name for name in model.state_dict() if not _NEVER_TRAINED.search(name)]
    base = f"{model.base_model_prefix}."
    ends = [name[: -len(own[0])] for name in names if name.endswith("." + own[0])]
    for end in ends:
        prefix = end.removesuffix(base) if end != base else ""
        without = {name.removeprefix(prefix) for name in names}
        plain = {name.removeprefix(base) for name in without}
        if prefix and len(without) == len(names) and set(own) <= plain:
            return prefix
    return ""


def _mending(folder: Path, prefix: str, base: str) -> str:
    """What to do about a prefix; one that is another architecture's own says that the configuration is not theirs."""
    if not prefix:
        return ""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    last = prefix.rstrip(".").rpartition(".")[2]
    if last != base and last in CONFIG_MAPPING.keys():  # noqa: SIM118 - a lazy mapping
        return f"the configuration that was saved with them: they are named as those of a {last}"
    return f"take {prefix!r} from the names: {renaming(folder, prefix)}"


def _of_more_blocks(own: Iterable[str], base: str, unused: Iterable[str]) -> list[str]:
    """Tensors without a place that are named as those of the model's blocks, but for the number."""
    known = {_BLOCK.sub(".#.", name) for name in own if _BLOCK.search(name)}
    return [name for name in unused if _BLOCK.sub(".#.", name.removeprefix(f"{base}.")) in known]


def has_head(folder: Path, found: Configuration, shapes: Mapping[str, Tensor]) -> bool:
    """Whether a trained classification head is there, as the architecture's own classifier names its parameters.

    Raises:
        RequestError: a part of one is there, or one of another size.
    """
    from transformers import AutoModelForSequenceClassification, AutoModelForTokenClassification

    config = found.config
    named = [name for name in found.architectures if name.endswith(_CLASSIFIES)]
    if _is_of_another_task(found) or type(config) not in AutoModelForSequenceClassification._model_mapping:
        return False
    model, fit = place(config, shapes, classifier=True, memory=False)
    outputs = _outputs(model, config)
    absent = [name for name in fit.missing if not name.endswith(("position_ids", "inv_freq"))]
    if outputs <= set(absent):
        return False
    if not absent:
        if fit.mismatched:
            raise _other_head(found, fit)
        return True
    tagger = AutoModelForTokenClassification
    if not named and type(config) in tagger._model_mapping and not _placed(tagger, config, shapes, memory=False)[1].missing:
        return False
    raise half_a_head(folder, absent)


def half_a_head(folder: Path, absent: Iterable[str]) -> RequestError:
    """The error about a head of which a part would be random."""
    return RequestError(
        Problem(
            str(folder), "has a part of a classification head only", "all of its tensors, or none",
            f"missing: {few(list(absent))}", "the whole checkpoint, or one without a head",
        )
    )  # fmt: skip


def _other_head(found: Configuration, fit: Fit) -> RequestError:
    name, (there, wanted) = next(iter(fit.mismatched.items()))
    count = found.config.num_labels
    said = f"id2label names {count} classes" if "id2label" in found.written else f"without id2label a head has {count} outputs"
    return refused(
        found.path, "id2label", f"the head {name} has another size than it says",
        f"{_shape(wanted)} ({said})", f"{_shape(there)} in the weights",
        f"id2label with a name for each of the {there[0]} outputs" if there else "",
    )  # fmt: skip


def _outputs(model: nn.Module, config: Any) -> frozenset[str]:
    """Names of the parameters that have a row for each class: those whose shape follows the number of classes."""
    import copy

    other = copy.deepcopy(config)
    other.num_labels = config.num_labels + 1
    shapes = {name: parameter.shape for name, parameter in skeleton(other, classifier=True).named_parameters()}
    return frozenset(name for name, parameter in model.named_parameters() if shapes.get(name) != parameter.shape)


def _is_of_another_task(found: Configuration) -> bool:
    named = found.architectures
    return any(name.endswith(_OTHER_TASKS) for name in named) and not any(name.endswith(_CLASSIFIES) for name in named)


def few(names: Iterable[str], most: int = 3) -> str:
    """The first of many names, and how many there are."""
    listed = list(names)
    return ", ".join(brief(name, 80) for name in listed[:most]) + (f", … ({len(listed)} in all)" if len(listed) > most else "")


def _refuse_twice(folder: Path, prefix: str, headers: Mapping[str, object]) -> None:
    """A parameter comes once, not with and without the prefix of its architecture."""
    base = f"{prefix}."
    twice = [name for name in headers if name.startswith(base) and name.removeprefix(base) in headers]
    if twice:
        raise RequestError(
            Problem(
                str(folder), f"holds {len(twice)} tensors under two names, so that it is open which of them count", "each once",
                f"{twice[0]} and {twice[0].removeprefix(base)}",
            )
        )  # fmt: skip


def _refuse_quantised(headers: Mapping[str, Header]) -> None:
    for name, header in headers.items():
        if name.endswith((".weight", ".bias")) and not header.is_float:
            raise RequestError(
                Problem(
                    str(header.file), f"the tensor {brief(name)} is quantised, which cannot be trained or taught from",
                    "weights in fp32, fp16 or bf16", header.kind,
                )
            )  # fmt: skip


def _by_heart(found: Configuration, headers: Mapping[str, Header]) -> bool | None:
    """Whether there is a head, if encoder and head are exactly what is known by heart; None where anything is in doubt."""
    config = found.config
    if not is_plain(config):
        return None
    base = f"{BY_HEART[config.model_type]}."
    there = {name.removeprefix(base): header for name, header in headers.items()}
    if len(there) < len(headers):
        return None  # a name with and without the prefix
    shapes = _encoder_shapes(config)
    if not _holds(there, shapes) or _of_more_blocks(shapes, "", (name for name in there if name not in shapes)):
        return None
    head, pooler = _head_shapes(config), _pooler_shapes(config)
    heads = [name for name in there if name.startswith(("classifier.", "classifier_"))]
    poolers = [name for name in pooler if name in there]
    if poolers and not _holds(there, pooler):
        return None
    if not heads or _is_of_another_task(found):
        return False
    whole = _holds(there, head) and (config.model_type != "bert" or bool(poolers))
    return True if whole and set(heads) == set(head) else None


def _holds(there: Mapping[str, Header], wanted: Mapping[str, tuple[int, ...]]) -> bool:
    return all(name in there and there[name].shape == shape and there[name].is_float for name, shape in wanted.items())


def _encoder_shapes(config: Any) -> dict[str, tuple[int, ...]]:
    width, inner = config.hidden_size, config.intermediate_size
    shapes: dict[str, tuple[int, ...]] = {
        "embeddings.word_embeddings.weight": (config.vocab_size, width),
        "embeddings.position_embeddings.weight": (config.max_position_embeddings, width),
        "embeddings.token_type_embeddings.weight": (config.type_vocab_size, width),
        **_norm("embeddings.LayerNorm", width),
    }
    for row in range(config.num_hidden_layers):
        layer = f"encoder.layer.{row}"
        for part in ("attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense"):
            shapes |= _linear(f"{layer}.{part}", width, width)
        shapes |= _linear(f"{layer}.intermediate.dense", width, inner) | _linear(f"{layer}.output.dense", inner, width)
        shapes |= _norm(f"{layer}.attention.output.LayerNorm", width) | _norm(f"{layer}.output.LayerNorm", width)
    return shapes


def _pooler_shapes(config: Any) -> dict[str, tuple[int, ...]]:
    return _linear("pooler.dense", config.hidden_size, config.hidden_size)


def _head_shapes(config: Any) -> dict[str, tuple[int, ...]]:
    width = config.hidden_size
    if config.model_type == "bert":
        return _linear("classifier", width, config.num_labels)
    return _linear("classifier.dense", width, width) | _linear("classifier.out_proj", width, config.num_labels)


def _linear(name: str, given: int, made: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (made, given), f"{name}.bias": (made,)}


def _norm(name: str, width: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def check_kind_of_task(found: Configuration, remedy: str = "") -> None:
    """Refuse a trained head that is for no kind of task that there is.

    Raises:
        RequestError: it is for another one, or has too few outputs for its own.
    """
    kind = kind_of_head(found.problem_type)
    if kind is not None and found.config.num_labels >= kind.fewest_outputs:
        return
    said = found.config.problem_type
    what = {
        "multi_label_classification": "the head gives a text several labels (multi-label), which is no kind of task yet",
        "regression": "the head predicts a number, and there is no such kind of task",
    }.get(found.problem_type, "the head has one output, which tells no classes apart")
    raise refused(
        found.path, "problem_type" if said else "id2label", what, f"{SINGLE_LABEL}, with two classes or more",
        said or f"{found.config.num_labels} output", remedy,
    )  # fmt: skip
