"""One YAML file, read strictly: keys stand once, nothing is aliased, references are resolved.

`${NAME}` in any text is an environment variable, `${file:PATH}` a file's content without its
last line end (a relative path counts from the configuration's folder), `${secret:ENGINE/NAME}` a
secret that a crypto engine of this file holds, `$${` a plain `${`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import yaml

from lamassu.platform.config.faults import ConfigurationFaults, Fault

LARGEST_FILE = 1024 * 1024  # bytes
LARGEST_SECRET = 64 * 1024
DEEPEST = 32

_REFERENCE = re.compile(r"\$\$\{|\$\{([^}]*)\}")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")

Tree = Mapping[str, object] | Sequence[object] | str | int | float | bool | None


@dataclass
class Document:
    """The file's content as plain values, which of them came from a reference, what went wrong."""

    values: dict[str, object]
    referred: set[str] = field(default_factory=set)
    faults: list[Fault] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class SecretReference:
    """`${secret:name}`, where `path` is the field that it stands in."""

    path: str
    name: str


@dataclass(frozen=True, slots=True)
class Unresolved:
    """Why a secret could not be had, for people."""

    reason: str


Resolve = Callable[[Document, Sequence[SecretReference]], Mapping[str, str | Unresolved]]
"""Given the document with its secrets left empty, their values by name."""


def no_secrets(
    document: Document, references: Sequence[SecretReference]
) -> Mapping[str, str | Unresolved]:
    """For who may not ask engines."""
    reason = Unresolved("secrets of engines are not read here")
    return {reference.name: reason for reference in references}


def read(path: Path, resolve: Resolve = no_secrets) -> Document:
    """Read the file. Raises `ConfigurationFaults` where it is no YAML; smaller faults are kept,
    so that they can be told together with those of the values.

    Where secrets of engines are named it is read twice: first for the engines.
    """
    text = _text_of(path)
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except RecursionError:
        raise ConfigurationFaults(
            str(path), [Fault("the file", "deeper nesting", f"at most {DEEPEST} levels")]
        ) from None
    except yaml.YAMLError as error:
        raise ConfigurationFaults(str(path), [_yaml_fault(error, text)]) from None
    document, wanted = _document(node, path, {})
    if not wanted:
        return document
    found = resolve(document, wanted)
    return _document(node, path, found)[0]


def _document(
    node: yaml.Node | None, path: Path, secrets: Mapping[str, str | Unresolved]
) -> tuple[Document, Sequence[SecretReference]]:
    reader = _Reader(path.parent, secrets)
    values = reader.value(node, "", 0) if node is not None else {}
    if not isinstance(values, dict):
        reader.faults.append(Fault("the file", "no mapping", "sections by name (http:, ...)"))
        raise ConfigurationFaults(str(path), reader.faults)
    document = Document(cast("dict[str, object]", values), reader.referred, reader.faults)
    return document, reader.wanted


def _yaml_fault(error: yaml.YAMLError, text: str) -> Fault:
    if isinstance(error, yaml.reader.ReaderError):
        line = text.count("\n", 0, error.position) + 1
        return Fault(f"line {line}", "a character that YAML forbids", "printable text")
    mark = getattr(error, "problem_mark", None)
    where = f"line {mark.line + 1}, column {mark.column + 1}" if mark else "the file"
    problem = getattr(error, "problem", None) or "no YAML"
    return Fault(where, str(problem), "valid YAML")


def _text_of(path: Path) -> str:
    try:
        with path.open("rb") as file:
            raw = file.read(LARGEST_FILE + 1)
        if len(raw) > LARGEST_FILE:
            raise ConfigurationFaults(
                str(path), [Fault("the file", "more than 1 MiB", "at most 1 MiB")]
            )
        return raw.decode("utf-8")
    except FileNotFoundError:
        raise ConfigurationFaults(
            str(path), [Fault("the file", "nothing", "what `lamassu init` writes")]
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "no UTF-8"
        raise ConfigurationFaults(
            str(path), [Fault("the file", str(reason), "a readable UTF-8 file")]
        ) from None


class _Reader:
    """Turns nodes into values and gathers every fault on the way."""

    def __init__(self, folder: Path, secrets: Mapping[str, str | Unresolved]) -> None:
        self.faults: list[Fault] = []
        self.referred: set[str] = set()
        self.wanted: list[SecretReference] = []
        self._secrets = secrets
        self._folder = folder
        self._seen: set[int] = set()
        self._constructor = yaml.SafeLoader("")

    def value(self, node: yaml.Node, path: str, depth: int) -> object:
        if depth > DEEPEST:
            self.faults.append(Fault(path, "deeper nesting", f"at most {DEEPEST} levels"))
            return None
        if id(node) in self._seen:
            self.faults.append(Fault(path or "the file", "an alias", "the value itself"))
            return None
        if not isinstance(node, yaml.ScalarNode):
            self._seen.add(id(node))
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path, depth)
        if isinstance(node, yaml.SequenceNode):
            return [
                self.value(item, f"{path}[{index}]", depth + 1)
                for index, item in enumerate(node.value)
            ]
        return self._scalar(cast("yaml.ScalarNode", node), path)

    def _mapping(self, node: yaml.MappingNode, path: str, depth: int) -> dict[str, object]:
        values: dict[str, object] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            key = self._key(key_node)
            if key is None:
                where = path or "the file"
                self.faults.append(Fault(where, f"a key that is no text (line {line})", "a name"))
                continue
            inner = f"{path}.{key}" if path else key
            if key in values:
                self.faults.append(Fault(inner, f"the key again in line {line}", "each key once"))
                continue
            values[key] = self.value(value_node, inner, depth + 1)
        return values

    def _key(self, node: yaml.Node) -> str | None:
        """The key's text. `None` for a merge (`<<`), a number, a list and the like."""
        is_text = isinstance(node, yaml.ScalarNode) and node.tag == "tag:yaml.org,2002:str"
        return cast("str", node.value) if is_text else None

    def _scalar(self, node: yaml.ScalarNode, path: str) -> object:
        if "${" in node.value:
            return self._resolved(node.value, path)
        try:
            return cast("object", self._constructor.construct_object(node))
        except (yaml.YAMLError, ValueError):
            self.faults.append(Fault(path, f"the tag {node.tag}", "a plain value"))
            return None

    def _resolved(self, text: str, path: str) -> str:
        def replace(match: re.Match[str]) -> str:
            name = match[1]
            if name is None:
                return "${"
            self.referred.add(path)
            if name.startswith("file:"):
                return self._file(name[5:], path)
            if name.startswith("secret:"):
                return self._secret(name[7:], path)
            return self._env(name, path)

        if "${" in _REFERENCE.sub("", text):
            self.faults.append(
                Fault(path, "${ without its }", "${VARIABLE}, or $${ for a plain ${")
            )
            return ""
        return _REFERENCE.sub(replace, text)

    def _env(self, name: str, path: str) -> str:
        if not _NAME.fullmatch(name):
            wanted = "${VARIABLE}, ${file:PATH} or ${secret:ENGINE/NAME}"
            self.faults.append(Fault(path, f"${{{name}}}", wanted))
            return ""
        value = os.environ.get(name)
        if not value:
            state = "is not set" if value is None else "is empty"
            self.faults.append(
                Fault(path, f"${{{name}}}, which {state}", "a variable with a value")
            )
            return ""
        return value

    def _secret(self, name: str, path: str) -> str:
        value = self._secrets.get(name)
        if value is None:
            self.wanted.append(SecretReference(path, name))
            return ""
        if isinstance(value, str) and value and len(value) <= LARGEST_SECRET:
            return value
        reason = value.reason if isinstance(value, Unresolved) else "it is empty, or over 64 KiB"
        self.faults.append(Fault(path, f"${{secret:{name}}}: {reason}", "a secret to be read"))
        return ""

    def _file(self, name: str, path: str) -> str:
        try:
            with (self._folder / name).open("rb") as file:
                raw = file.read(LARGEST_SECRET + 1)
            text = raw.decode("utf-8").removesuffix("\n").removesuffix("\r")
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "is no UTF-8"
            self.faults.append(Fault(path, f"${{file:{name}}}: {reason}", "a readable text file"))
            return ""
        if not text or len(raw) > LARGEST_SECRET:
            state = "which is empty" if not text else "which exceeds 64 KiB"
            self.faults.append(Fault(path, f"${{file:{name}}}, {state}", "a file with one value"))
            return ""
        return text
