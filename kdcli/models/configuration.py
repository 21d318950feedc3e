"""``config.json``: the one place through which configurations of models pass.

A configuration decides what is allocated, built and run, and it comes from anywhere. It is read here, held against bounds that
no encoder exceeds, built into the class of its architecture, and refused by file and key where it is not one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any

from kdcli.errors import Problem, RequestError, did_you_mean
from kdcli.models.json_file import blamed, brief, read_object, refused, shown
from kdcli.models.json_file import written as values_of

SINGLE_LABEL = "single_label_classification"
CONFIG = "config.json"
_MOST: Mapping[str, int] = {
    "hidden_size": 2**16,
    "num_hidden_layers": 1024,
    "num_attention_heads": 1024,
    "intermediate_size": 2**20,
    "vocab_size": 2**24,
    "max_position_embeddings": 2**24,
    "type_vocab_size": 2**16,
}
_MOST_OF_ANY = 2**24
_NEEDED = ("hidden_size", "num_hidden_layers", "num_attention_heads", "vocab_size")
_MAY_BE_ZERO = frozenset({"type_vocab_size"})
_LEFT_OUT = frozenset(
    {
        # what decides how a model is loaded and what it returns, which is kdcli's to say; its weights are the same
        "_attn_implementation", "attn_implementation", "auto_map", "chunk_size_feed_forward", "configuration_files", "dtype",
        "experts_implementation", "fusion_config", "gradient_checkpointing", "kernel_config", "label2id", "num_labels",
        "output_attentions", "output_hidden_states", "return_dict", "torch_dtype", "torchscript", "use_return_dict",
    }
)  # fmt: skip
_NAMELESS = re.compile(r"LABEL_(\d+)")
_ENCODERS = frozenset({"bert", "bert-generation", "roberta", "xlm-roberta", "xlnet"})  # no need to ask, or no answer there


@dataclass(frozen=True)
class Configuration:
    """A configuration that can be trusted to be one.

    Attributes:
        path: the file.
        written: what stands in it.
        config: transformers' configuration, made from it.
    """

    path: Path
    written: Mapping[str, Any]
    config: Any

    @property
    def architectures(self) -> tuple[str, ...]:
        """The classes that it says it was saved from."""
        return tuple(self.config.architectures or ())

    @property
    def problem_type(self) -> str:
        """What kind of task its head is for; one output, where nothing is said, is a regression as transformers reads it."""
        said: str | None = self.config.problem_type
        return said or ("regression" if self.config.num_labels == 1 else SINGLE_LABEL)

    @property
    def labels(self) -> tuple[str, ...]:
        """Class names in the order of the outputs of its head.

        Raises:
            RequestError: the file says null instead of them.
        """
        if "id2label" in self.written and self.written["id2label"] is None:
            raise refused(self.path, "id2label", "names no classes, and there is a trained head", _LABELS, None)
        return tuple(self.config.id2label[row] for row in range(self.config.num_labels))

    def places(self, size: int) -> str:
        """The keys that say ``size``, for messages."""
        keys = [key for key, value in self.written.items() if type(value) is int and value == size]
        if self.config.num_labels == size:
            keys.append("id2label")
        return " or ".join(keys)


_LABELS = 'a name for each output from 0: {"0": "negative", "1": "positive"}'


def quiet_transformers() -> None:
    """Keep transformers from writing bars and hints to the terminal, which belongs to kdcli."""
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()


def read_configuration(folder: Path, where: str = "") -> Configuration:
    """Read a model folder's configuration; ``where`` names in messages who asked for the folder.

    Raises:
        RequestError: there is none, it is none, or it is that of a model that is no encoder; with file and key.
    """
    path = folder / CONFIG
    if not path.is_file():
        raise _no_checkpoint(folder, where)
    quiet_transformers()
    written = read_object(path)
    kind = _class(path, written)
    _refuse_what_is_not_for_us(path, written)
    _refuse_excess(path, written, kind)
    _refuse_odd_labels(path, written)
    config = _built(path, written, kind)
    config._name_or_path = str(folder)
    _refuse_other_models(path, written, config)
    _refuse_odd_sizes(path, written, config)
    return Configuration(path, written, config)


def _no_checkpoint(folder: Path, where: str) -> RequestError:
    entries = sorted(entry.name for entry in folder.iterdir()) if folder.is_dir() else []
    found = ", ".join(entries[:12]) or "an empty folder"
    where = where or str(folder)
    if "adapter_config.json" in entries:
        return RequestError(
            Problem(
                where, "is an adapter (PEFT), not a model", "a whole checkpoint", found,
                "merge it into its model first: PeftModel.from_pretrained(model, folder).merge_and_unload().save_pretrained(…)",
            )
        )  # fmt: skip
    below = [name for name in entries if (folder / name / CONFIG).is_file()]
    if "modules.json" in entries and below:
        return RequestError(
            Problem(
                where, "is a sentence-transformers folder, whose encoder lies in a folder of its own",
                "config.json in the folder", found, str(folder / below[0]),
            )
        )  # fmt: skip
    return RequestError(Problem(where, "is not a checkpoint", "config.json in the folder", found))


def _class(path: Path, written: Mapping[str, Any]) -> Any:
    """The class of the architecture's configuration; transformers has some hundred of them."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    name = written.get("model_type")
    custom = "auto_map" in written
    if not isinstance(name, str) or name not in CONFIG_MAPPING.keys():  # noqa: SIM118 - a lazy mapping
        why = " (it has code of its own, which is not run)" if custom else ""
        raise refused(
            path, "model_type",
            f"is no architecture that transformers knows{why}: it cannot be read as a model configuration",
            "an encoder such as bert, roberta, deberta-v2", written.get("model_type", "nothing"),
            did_you_mean(name, CONFIG_MAPPING.keys()) if isinstance(name, str) else "",
        )  # fmt: skip
    return CONFIG_MAPPING[name]


def _refuse_what_is_not_for_us(path: Path, written: Mapping[str, Any]) -> None:
    if written.get("quantization_config") or written.get("compression_config"):
        key = "quantization_config" if written.get("quantization_config") else "compression_config"
        raise refused(
            path, key, "the weights are quantised, which cannot be trained or taught from",
            "weights in fp32, fp16 or bf16", written[key], "the checkpoint that it was quantised from",
        )  # fmt: skip
    elsewhere = written.get("transformers_weights")
    if elsewhere not in (None, "model.safetensors"):
        raise refused(
            path, "transformers_weights", "names weights of its own", "the key left out, and model.safetensors", elsewhere
        )


def _refuse_excess(path: Path, written: Mapping[str, Any], kind: Any) -> None:
    """Bounds that hold before anything is built from the numbers, lists of a layer each among them."""
    names = {kind.attribute_map.get(name, name): most for name, most in _MOST.items()} | dict(_MOST)
    own = {field.name for field in fields(kind)} if is_dataclass(kind) else set(written)
    for key, value in written.items():
        if key.startswith("__") or (key not in own and callable(getattr(kind, key, None))):
            raise refused(path, key, "is not a setting of a model")
        if isinstance(value, bool) or not isinstance(value, int | float) or key not in own | set(names):
            continue
        most = names.get(key, _MOST_OF_ANY)
        if abs(value) > most and not key.startswith("rope"):
            raise refused(path, key, "is larger than any encoder's", f"at most {most:,}", value)


def _refuse_odd_labels(path: Path, written: Mapping[str, Any]) -> None:
    """Class names that would be read in another order, twice or not at all."""
    names = written.get("id2label")
    count = written.get("num_labels")
    if count is not None and (type(count) is not int or not 1 <= count <= _MOST_OF_ANY):
        raise refused(path, "num_labels", "is not a number of classes", "1, 2, …", count)
    if names is None:
        _refuse_other_ids(path, written.get("label2id"), None)
        return
    if not isinstance(names, dict) or not names:
        raise refused(path, "id2label", "is not a table of class names", _LABELS, names)
    if sorted(names) != sorted(str(row) for row in range(len(names))):
        raise refused(path, "id2label", "does not number the outputs from 0 on without a gap", _LABELS, ", ".join(names))
    ordered = [names[str(row)] for row in range(len(names))]
    for row, name in enumerate(ordered):
        if not isinstance(name, str) or not name.strip():
            raise refused(path, f"id2label.{row}", "is not the name of a class", "text", name)
    if len(set(ordered)) < len(ordered):
        twice = next(name for name in ordered if ordered.count(name) > 1)
        raise refused(path, "id2label", f"gives the name {shown(twice)} to two outputs", "a name of its own for each output")
    if count is not None and count != len(ordered):
        raise refused(path, "num_labels", "contradicts id2label", str(len(ordered)), count)
    _refuse_other_ids(path, written.get("label2id"), ordered)


def _refuse_other_ids(path: Path, ids: object, ordered: list[str] | None) -> None:
    """``label2id`` says what ``id2label`` says, or nothing: transformers' own LABEL_0, LABEL_1, … say nothing."""
    if ids is None or ids == {}:
        return
    if not isinstance(ids, dict):
        raise refused(path, "label2id", "is not a table of outputs", '{"negative": 0, "positive": 1}', ids)
    matches = [_NAMELESS.fullmatch(name) for name in ids]
    if all(match is not None and str(ids[match[0]]) == match[1] for match in matches):
        return
    expected = {name: str(row) for row, name in enumerate(ordered or ())}
    if {name: str(row) for name, row in ids.items()} != expected:
        raise refused(
            path, "label2id",
            "contradicts id2label" if ordered else "names classes that id2label does not",
            shown({name: int(row) for name, row in expected.items()}) if ordered else "id2label with these names",
            shown(ids), "the right names under id2label, and no label2id",
        )  # fmt: skip


def _built(path: Path, written: Mapping[str, Any], kind: Any) -> Any:
    """The configuration of transformers; whatever it raises is said with the key that it is about."""
    try:
        _check_kinds(path, written)
        return build(kind, written)
    except RequestError:
        raise
    except Exception as error:  # transformers raises errors of every kind
        field = re.search(r"[Ff]ield '(\w+)'", str(error))
        keys = [field[1]] if field and field[1] in written else blamed(written, lambda content: build(kind, content))
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        said = brief(f"{type(error).__name__}: {lines[-1] if lines else ''}")
        raise refused(
            path, " or ".join(keys), "cannot be read as a model configuration",
            "what the architecture takes there" if keys else "", f"{values_of(written, keys)} ({said})" if keys else said,
        ) from error  # fmt: skip


def build(kind: Any, content: Mapping[str, Any]) -> Any:
    """A configuration of the class ``kind`` with that content; raises whatever transformers raises."""
    given = {key: value for key, value in content.items() if key not in _LEFT_OUT}
    given["architectures"] = content.get("architectures") or []  # some classes do not expect null
    if given.get("id2label") is None:
        given.pop("id2label", None)
        given["num_labels"] = content.get("num_labels") or 2
    else:
        given["label2id"] = {name: int(row) for row, name in given["id2label"].items()}
    return kind.from_dict(given)


def _check_kinds(path: Path, written: Mapping[str, Any]) -> None:
    architectures = written.get("architectures")
    if architectures is not None and not (
        isinstance(architectures, list) and all(isinstance(name, str) for name in architectures)
    ):
        raise refused(path, "architectures", "is not a list of names", '["BertModel"]', architectures)


def _refuse_other_models(path: Path, written: Mapping[str, Any], config: Any) -> None:
    """Decoders, encoder-decoders, and models of more than text."""
    why = ""
    if getattr(config, "is_encoder_decoder", False):
        why = "it has an encoder and a decoder"
    elif config.get_text_config() is not config:
        why = "it reads more than text"
    elif getattr(config, "is_decoder", False) or getattr(config, "add_cross_attention", False):
        why = "is_decoder or add_cross_attention is set"
    elif _generates(config.model_type):
        why = "it reads from left to right"
    elif any(not isinstance(getattr(config, name, None), int) for name in _NEEDED):
        missing = next(name for name in _NEEDED if not isinstance(getattr(config, name, None), int))
        why = f"it has no {missing}"
    if why:
        raise RequestError(
            Problem(str(path), f"{config.model_type} is not a transformer encoder of text: {why}", "BERT, RoBERTa, DeBERTa, …")
        )


def _generates(model_type: str) -> bool:
    """Whether the architecture is for writing text alone: it has a head for the next token and none for masked ones."""
    if model_type in _ENCODERS:
        return False
    from transformers.models.auto import modeling_auto

    return (
        model_type in modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
        and model_type not in modeling_auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES
    )


def _refuse_odd_sizes(path: Path, written: Mapping[str, Any], config: Any) -> None:
    for name, most in _MOST.items():
        value = getattr(config, name, None)
        said = name in written or _written_as(config, name) in written
        if name not in _NEEDED and (value is None or (value == -1 and not said)):
            continue  # no such table: XLNet says -1
        least = 0 if name in _MAY_BE_ZERO else 1
        if type(value) is not int or not least <= value <= most:
            raise refused(path, _written_as(config, name), "is not a size that a model can have", f"{least} to {most:,}", value)
    for name, value in list(vars(config).items()):
        if isinstance(value, bool) or not isinstance(value, int | float):
            continue
        if ("dropout" in name or name.endswith("_prob")) and not 0 <= value < 1:
            raise refused(path, name, "is not a probability below 1", "0 to 1", value)
        if name.endswith(("_eps", "epsilon")) and not 0 < value <= 0.1:
            raise refused(path, name, "is not a small number above 0", "such as 1e-12", value)
        if name.startswith("initializer_") and not 0 <= value <= 100:
            raise refused(path, name, "is not a spread of first weights", "such as 0.02", value)
    _refuse_odd_padding(path, config)


def _refuse_odd_padding(path: Path, config: Any) -> None:
    for name in ("pad_token_id", "bos_token_id", "eos_token_id", "cls_token_id", "sep_token_id", "mask_token_id"):
        value = getattr(config, name, None)
        is_pad = name == "pad_token_id"
        if value is not None and (isinstance(value, int) or is_pad):
            odd = type(value) is not int or value < 0 or (is_pad and value >= config.vocab_size)
            if odd:
                expected = f"0 to {config.vocab_size - 1} (vocab_size is {config.vocab_size})"
                raise refused(path, name, "is not in the table of tokens", expected, value)


def _written_as(config: Any, name: str) -> str:
    return str(getattr(type(config), "attribute_map", {}).get(name, name))


def longest_input(config: Any) -> int:
    """Tokens that the table of positions has room for; 512 for a model without such a table."""
    positions = getattr(config, "max_position_embeddings", None) or 512
    if positions < 0:
        return 512
    padded = (getattr(config, "position_embedding_offset", None) or config.pad_token_id or 0) if offsets(config) else -1
    return int(positions - padded - 1)


def offsets(config: Any) -> bool:
    """Whether positions begin behind the padding index, as in RoBERTa and its relatives."""
    return config.model_type in (
        "roberta",
        "xlm-roberta",
        "camembert",
        "mpnet",
        "longformer",
        "xlm-roberta-xl",
        "data2vec-text",
    )
