"""Reading YAML that a user wrote: what is read is bounded in length, depth and size before it is built."""

from __future__ import annotations

import codecs
import os
import re
import stat
from pathlib import Path
from typing import Any

import yaml

from pneumo.spec.errors import RequestError, quote

LONGEST_TEXT = 64 * 1024
"""Largest number of bytes of a file, and of characters of a setting. PyYAML reads that in less than a second."""

DEEPEST_NESTING = 50
"""Largest number of blocks and lists inside each other, aliases included."""

LARGEST_EXPANSION = 1_000_000
"""Largest number of values and their characters after each alias is replaced by what it stands for."""

LARGEST_INTEGER_BITS = 1000
"""Largest number of bits of an integer: longer ones are no setting, and Python refuses to print them."""

_BOOLEAN, _TEXT = "tag:yaml.org,2002:bool", "tag:yaml.org,2002:str"

_UNTYPED_KEYS = ("tag:yaml.org,2002:merge", "tag:yaml.org,2002:value")
"""Tags of the keys `<<` and `=`, which PyYAML handles when it constructs the mapping."""


def read_text(path: Path) -> str:
    """Return the text of a file: UTF-8, or UTF-16 if it begins with a byte order mark.

    Raises:
        FileNotFoundError: There is no such file.
        RequestError: It cannot be read, is too long, or is no text.
    """
    try:
        content = _read_bytes(path, LONGEST_TEXT + 1)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise RequestError(f"{path}: cannot be read: {error.strerror}") from None
    has_mark = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        text = content.decode("utf-16" if has_mark else "utf-8-sig")
    except UnicodeDecodeError as error:
        if len(content) <= LONGEST_TEXT or error.end < LONGEST_TEXT - 8:
            line = content.count(b"\n", 0, error.start) + 1
            raise RequestError(
                f"{path}:{line}: is not a text in UTF-8; an experiment is a YAML file, and pictures are given with --data"
            ) from None
    if len(content) > LONGEST_TEXT:
        raise RequestError(f"{path}: is longer than the {LONGEST_TEXT // 1024} KiB that an experiment may have")
    return text


def _read_bytes(path: Path, most: int) -> bytes:
    """Return the first bytes of a file or of a pipe. A pipe into which nothing writes is empty; a device is refused."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # does not wait until something opens a pipe to write
    try:
        mode = os.fstat(descriptor).st_mode
        if not stat.S_ISREG(mode) and not stat.S_ISFIFO(mode):
            kind = "folder" if stat.S_ISDIR(mode) else "device"
            raise RequestError(f"{path}: is a {kind}; expected an experiment, which is a YAML file")
        os.set_blocking(descriptor, True)
        content = b""
        while len(content) < most and (part := os.read(descriptor, most - len(content))):
            content += part
        return content
    finally:
        os.close(descriptor)


def parse_yaml(text: str, where: str) -> Any:
    """Return the values of a YAML text, or raise `RequestError`, whose message `where` starts."""
    return _parse(text, where)[0]


def parse_value(text: str, where: str) -> Any:
    """Return the value of a setting that was typed on a command line, or raise `RequestError`.

    The text is one value: an empty text and a comment are refused, because a shell variable that is not set, or a `#`
    in a sentence, was hardly meant so.
    """
    if not text.strip():
        raise RequestError(f"{where}: has no value; null stands for the default")
    if len(text) > LONGEST_TEXT:
        raise RequestError(f"{where}: is longer than the {LONGEST_TEXT // 1024} KiB that a setting may have")
    value, end = _parse(text, where)
    if text[end:].strip():
        raise RequestError(f"{where}: YAML reads the text from # on as a comment; put the value into quotes")
    return value


def _parse(text: str, where: str) -> tuple[Any, int]:
    """Return the value of a YAML text and the index of its end."""
    loader = None
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        return (None, 0) if node is None else (loader.construct_document(node), node.end_mark.index)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f":{mark.line + 1}" if mark else ""
        context = error.context or ""
        problem = f"{context}, {error.problem}" if context.startswith(("found", "expected")) else error.problem
    except yaml.reader.ReaderError as error:
        line = f":{text.count(chr(10), 0, error.position) + 1}"
        problem = f"the character #x{error.character:04x} is not allowed"
    finally:
        if loader is not None:
            loader.dispose()
    # A setting has one line, which its text shows.
    raise RequestError(f"{where}{'' if where.startswith('--') else line}: not valid YAML: {quote(str(problem))}")


class _Loader(yaml.SafeLoader):
    """A YAML loader with bounds, which reads numbers as YAML 1.2 does (`1e-4` is a number) and rejects duplicate keys."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._depth = 0
        self._measures: dict[int, tuple[int, int]] = {}  # expanded size and height of complete nodes, by id

    def fetch_flow_collection_start(self, TokenClass: Any) -> None:  # noqa: N803  (PyYAML's name)
        """Scan a bracket, unless too many are open: PyYAML scans ahead, in time that grows with the square of the depth."""
        if self.flow_level >= DEEPEST_NESTING:
            raise yaml.scanner.ScannerError(None, None, f"nested more than {DEEPEST_NESTING} deep", self.get_mark())
        super().fetch_flow_collection_start(TokenClass)

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """Compose a node, unless it would be too deep or too large once its aliases are replaced."""
        mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
        is_alias = self.check_event(yaml.AliasEvent)
        if self._depth >= DEEPEST_NESTING:
            raise yaml.composer.ComposerError(None, None, f"nested more than {DEEPEST_NESTING} deep", mark)
        self._depth += 1
        node = super().compose_node(parent, index)
        self._depth -= 1
        if node is None:
            return None
        if not is_alias:
            self._measures[id(node)] = self._measure(node)
        elif id(node) not in self._measures:
            raise yaml.composer.ComposerError(None, None, "an alias stands inside of what it stands for", mark)
        size, height = self._measures[id(node)]
        if self._depth + height > DEEPEST_NESTING:
            raise yaml.composer.ComposerError(None, None, f"nested more than {DEEPEST_NESTING} deep", mark)
        if size > LARGEST_EXPANSION:
            raise yaml.composer.ComposerError(None, None, "its aliases stand for too many values", mark)
        return node

    def _measure(self, node: yaml.Node) -> tuple[int, int]:
        if isinstance(node, yaml.ScalarNode):
            return len(node.value) + 1, 1
        pairs = node.value if isinstance(node, yaml.MappingNode) else [(child,) for child in node.value]
        measures = [self._measures[id(child)] for pair in pairs for child in pair]
        return 1 + sum(size for size, _ in measures), 1 + max((height for _, height in measures), default=0)

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        """Compose a mapping. Its own keys are checked here, because merging (`<<`) adds keys later."""
        node = super().compose_mapping_node(anchor)
        seen: set[Any] = set()
        for key_node, _ in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                raise yaml.composer.ComposerError(
                    None, None, "a key is a name, not a list or block", key_node.start_mark
                )
            if key_node.tag == _BOOLEAN:
                key_node.tag = _TEXT  # The key `on` is a name, but a truth value in YAML 1.1.
            key = key_node.value if key_node.tag in _UNTYPED_KEYS else self.construct_object(key_node)
            if key in seen:
                raise yaml.composer.ComposerError(
                    None, None, f"key {quote(repr(key))} appears twice", key_node.start_mark
                )
            seen.add(key)
        return node

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        """Construct a value. A text that does not fit its tag raises an error with its line."""
        try:
            value = super().construct_object(node, deep)
            if isinstance(value, int) and value.bit_length() > LARGEST_INTEGER_BITS:
                raise ValueError("too many digits")
            return value
        except (ValueError, LookupError, TypeError, AttributeError, ArithmeticError):
            name = node.tag.rpartition(":")[2]
            raise yaml.constructor.ConstructorError(
                None, None, f"{quote(repr(node.value))} is no valid {name}", node.start_mark
            ) from None


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)[eE][-+]?[0-9]+$"),
    list("-+.0123456789"),
)
