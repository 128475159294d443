"""Reading YAML: what is too much is refused before it is built, and each text is either read or refused in one line."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pneumo.spec.errors import LONGEST_QUOTE, RequestError
from pneumo.spec.experiment_file import build_experiment, parse_experiment, read_experiment
from pneumo.spec.yaml_text import LONGEST_TEXT, parse_value, parse_yaml
from tests.conftest import ROOT

LONGEST_LINE = 2 * LONGEST_QUOTE + 300
"""A line of an error: the place and what was got, both cut, and what would be right."""


def nines(first: str, item: str) -> str:
    """Return ten anchored values, each of which has the one before nine times."""
    lines = [f"a: &a {first}"]
    for before, name in pairwise("abcdefghij"):
        lines.append(f"{name}: &{name} {item.format(','.join([f'*{before}'] * 9))}")
    return "\n".join(lines)


HOSTILE = {
    "deep lists": ("name: " + "[" * 3000 + "]" * 3000, ":1: not valid YAML: nested more than 50 deep"),
    "deep mappings": ("name: " + "{a: " * 3000 + "}" * 3000, ":1: not valid YAML: nested more than 50 deep"),
    "deep blocks": ("".join(f"{' ' * n}a:\n" for n in range(300)), ":50: not valid YAML: nested more than 50 deep"),
    "deep dashes": ("- " * 3000, ":1: not valid YAML: nested more than 50 deep"),
    "brackets that do not end": ("[" * 60_000, ":1: not valid YAML: nested more than 50 deep"),
    "deep aliases": (
        "a0: &a0 []\n" + "".join(f"a{n + 1}: &a{n + 1} [*a{n}]\n" for n in range(60)),
        "not valid YAML: nested more than 50 deep",
    ),
    "deep merges": (
        "l: [[[&a0 {x: 1}" + "".join(f", &a{n + 1} {{<<: *a{n}}}" for n in range(2000)) + "]]]\nm: *a2000",
        "not valid YAML: nested more than 50 deep",
    ),
    "alias bomb in name": (
        nines("[x,x,x,x,x,x,x,x,x]", "[{}]") + "\nname: *j",
        "its aliases stand for too many values",
    ),
    "alias bomb of mappings": (nines("{k: 1}", "{{k: [{}]}}"), "its aliases stand for too many values"),
    "alias bomb of merges": (nines("{k: 1}", "{{<<: [{}]}}"), "its aliases stand for too many values"),
    "alias bomb of a text": (
        f"name: &s {'x' * 50_000}\nl: [{','.join(['*s'] * 100)}]",
        ":2: not valid YAML: its aliases stand for too many values",
    ),
    "an alias in itself": ("name: &a [*a]", ":1: not valid YAML: an alias stands inside of what it stands for"),
    "a merge of itself": ("name: x\nm: &a {<<: *a}", ":2: not valid YAML: an alias stands inside"),
    "no such anchor": ("name: *x", ":1: not valid YAML: found undefined alias 'x'"),
    "an anchor twice": ("name: &a x\nsearch: &a {}", ":2: not valid YAML: found duplicate anchor 'a'"),
    "a tiny step": (
        "name: x\nhyperparameters: {dropout: {low: 0, high: 0.5, step: 1e-9}}",
        "hyperparameters.dropout.step: gives 500,000,001 values, got 1e-09; at most 100,000 values",
    ),
    "the smallest step": (
        "name: x\nhyperparameters: {dropout: {low: 0, high: 0.5, step: 5e-324}}",
        "hyperparameters.dropout.step: gives 100,",
    ),
    "a step that is no number": (
        "name: x\nhyperparameters: {dropout: {low: 0, high: 0.5, step: .nan}}",
        "hyperparameters.dropout.step: a number above 0",
    ),
    "an infinite step": (
        "name: x\nhyperparameters: {dropout: {low: 0, high: 0.5, step: .inf}}",
        "hyperparameters.dropout.step: a number above 0",
    ),
    "a grid of tiny steps": (
        "name: x\nsearch: {algorithm: grid}\nhyperparameters: {"
        + ", ".join(
            f"{name}: {{low: 0, high: 0.5, step: 0.00001}}" for name in ("dropout", "zoom", "shear", "rotation")
        )
        + "}",
        "a grid has at most 10000 combinations",
    ),
    "many digits": (f"name: x\nsearch: {{trials: {'9' * 5000}}}", ":2: not valid YAML: '999"),
    "many hexadecimal digits": (f"name: x\nsearch: {{trials: 0x{'f' * 5000}}}", ":2: not valid YAML: '0xfff"),
    "more digits than a float has": (
        f"name: x\nhyperparameters: {{dropout: {'9' * 300}}}",
        "dropout: input should be less",
    ),
    "a float without end": ("name: x\nhyperparameters: {dropout: 1e400}", "dropout: a finite number, got inf"),
    "a fraction that is no number": ("name: x\ndata: {test: .nan}", "data.test: input should be"),
    "a date for a name": (
        "name: 2020-01-01",
        "name: input should be a valid string, got datetime.date(2020, 1, 1); put",
    ),
    "a number for a name": ("name: 2020", "name: input should be a valid string, got 2020; put it into quotes"),
    "a date that does not exist": ("name: 2020-13-45", ":1: not valid YAML: '2020-13-45' is no valid timestamp"),
    "binary": ("name: !!binary 'a'", ":1: not valid YAML: failed to decode base64"),
    "a tag that does not fit": ("name: !!int abc", ":1: not valid YAML: 'abc' is no valid int"),
    "a tag of a list": ("name: !!omap 3", ":1: not valid YAML: expected a sequence"),
    "a set": ("name: x\nsearch: !!set {a}", "search: needs keys with values, got {'a'}"),
    "code": ("name: !!python/object/apply:os.getcwd []", ":1: not valid YAML: could not determine a constructor"),
    "a key twice": ("name: x\nname: y", ":2: not valid YAML: key 'name' appears twice"),
    "a key twice in another notation": ("name: x\nsearch: {2: 1, 0x2: 1}", ":2: not valid YAML: key 2 appears twice"),
    "a key twice beside a merge": (
        "name: x\nsearch: {<<: {seed: 1}, trials: 3, trials: 4}",
        ":2: not valid YAML: key 'trials' appears twice",
    ),
    "two merges": ("name: x\nsearch: {<<: {seed: 1}, <<: {trials: 3}}", ":2: not valid YAML: key '<<' appears twice"),
    "a merge of a number": ("name: x\nsearch: {<<: 3}", ":2: not valid YAML: expected a mapping"),
    "a list as a key": ("name: x\n? [a, b]\n: 3", ":2: not valid YAML: a key is a name"),
    "a number as a key": ("name: x\npromote: {floors: {3: 0.5}}", "promote.floors[3]: input should be a valid string"),
    "a tab": ("name: x\n\tsearch: {}", ":2: not valid YAML: found character '\\t'"),
    "a NUL": ("name: x\nsearch: \0", ":2: not valid YAML: the character #x0000 is not allowed"),
    "an escape sequence": ('name: x\npromote: {floors: {"\\e[31m": 0.5}}', "there is no '\\x1b[31m'"),
    "a surrogate": ('name: "\\uD800"', "name: input should be a valid string"),
    "a long name": ("name: " + "x" * 60_000, "name: string should have at most 100 characters, got 'xxx"),
    "a long key": ("name: x\n? " + "k" * 60_000 + "\n: 3", "there is no 'kkk"),
    "a long threshold": (
        f"name: x\npromote: {{threshold: 'sensitivity>={'9' * 60_000}x'}}",
        "promote.threshold: needs youden",
    ),
    "a long time": (f"name: x\nsearch: {{timeout: '1{' ' * 60_000}x'}}", "search.timeout: seconds, or a text"),
    "two documents": ("name: x\n---\nname: y", ":2: not valid YAML: expected a single document"),
    "nothing": ("", "needs keys with values, starting with 'name: ...'"),
    "a comment": ("# nothing", "needs keys with values"),
    "a list": ("[name, x]", "needs keys with values"),
    "blanks for a path": ("name: x\ndata: {path: ' '}", "data.path: is empty"),
    "blanks for a reason": ("name: x\ndata: {allow_leaks: '          '}", "data.allow_leaks: is empty"),
    "lists for names": ("name: x\nsearch: {engine: [1]}\n", "search.engine: there is no [1]; there is optuna"),
    "a mapping for names": ("name: x\nsearch: {objective: {a: 1}}\n", "search.objective: there is no {'a': 1}"),
}


@pytest.mark.parametrize(("text", "message"), HOSTILE.values(), ids=HOSTILE.keys())
def test_a_hostile_text_is_refused_in_one_line(text: str, message: str, tmp_path: Path) -> None:
    file = tmp_path / "x.yaml"
    file.write_text(text)
    with pytest.raises(RequestError) as caught:
        read_experiment(file)
    (line,) = caught.value.lines
    assert line.startswith(str(file))
    assert message in line
    assert len(line) < LONGEST_LINE
    assert line.isprintable()


FILES = {
    "Latin-1": (b"name: x\n# \xe9", ":2: is not a text in UTF-8; an experiment is a YAML file"),
    "half of UTF-16": ("name: x".encode("utf-16") + b"\0", ":1: is not a text in UTF-8"),
    "UTF-32": ("name: x".encode("utf-32"), "not valid YAML"),
    "a picture": (b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 4000, ":1: is not a text in UTF-8"),
    "an archive": (b"PK\x03\x04" + bytes(200_000), "is longer than the 64 KiB"),
    "a long text": (b"name: x\n" + b"#" * LONGEST_TEXT, "is longer than the 64 KiB that an experiment may have"),
    "a long text of two-byte letters": ("name: x\n#" + "é" * LONGEST_TEXT).encode(),
}


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_is_no_text_is_refused(name: str, tmp_path: Path) -> None:
    content = FILES[name]
    data, message = content if isinstance(content, tuple) else (content, "is longer than the 64 KiB")
    file = tmp_path / "x.yaml"
    file.write_bytes(data)
    with pytest.raises(RequestError) as caught:
        read_experiment(file)
    (line,) = caught.value.lines
    assert line.startswith(str(file))
    assert message in line


def test_a_path_that_is_no_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to(tmp_path / "link")
    with socket.socket(socket.AF_UNIX) as listening:
        os.chdir(tmp_path)  # the path of a socket is short
        listening.bind("socket")
    expected = {
        tmp_path: "is a folder; expected an experiment, which is a YAML file",
        tmp_path / "pipe": "needs keys with values",
        tmp_path / "socket": "cannot be read: No such device",
        tmp_path / "link": "cannot be read: Too many levels of symbolic links",
        tmp_path / ("x" * 300): "cannot be read: File name too long",
        tmp_path / "absent": "there is no such experiment file",
        Path("/dev/zero"): "is a device; expected an experiment",
        Path("/dev/null"): "is a device; expected an experiment",
    }
    for path, message in expected.items():
        with pytest.raises(RequestError) as caught:
            read_experiment(path)
        (line,) = caught.value.lines
        assert line.startswith(f"{path}: {message}")


def test_an_experiment_comes_from_a_pipe_too() -> None:
    reading, writing = os.pipe()
    os.write(writing, b"name: piped")
    os.close(writing)
    try:
        assert read_experiment(Path(f"/dev/fd/{reading}")).name == "piped"
    finally:
        os.close(reading)


@pytest.mark.parametrize(
    "content",
    [
        "name: x".encode("utf-8-sig"),
        "name: x".encode("utf-16"),
        b"name: x\r\nsearch:\r\n",
        b'{"name": "x", "search": {}}',
        b"---\nname: x\n...\n",
        b"name: &n x\nsearch: {from: 'y'}",
        b"name: x\n" + b"#" * (LONGEST_TEXT - 8),
    ],
)
def test_a_text_is_read_as_editors_write_it(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "x.yaml"
    file.write_bytes(content)
    assert read_experiment(file).name == "x"


MERGES = {
    "one": ("{<<: *a, trials: 3}", {"trials": 3, "seed": 4}),
    "its own keys count, wherever they are": ("{trials: 3, <<: *a}", {"trials": 3, "seed": 4}),
    "a list": ("{<<: [*b, *a]}", {"trials": 9, "seed": 4, "workers": 2}),
    "a list, the other way round": ("{<<: [*a, *b]}", {"trials": 2, "seed": 4, "workers": 2}),
    "of a merge": ("{<<: *c}", {"trials": 2, "seed": 5}),
    "inline": ("{<<: {trials: 8}}", {"trials": 8}),
}


@pytest.mark.parametrize(("search", "expected"), MERGES.values(), ids=MERGES.keys())
def test_mappings_are_merged(search: str, expected: dict[str, int]) -> None:
    anchors = "&a {trials: 2, seed: 4}, &b {trials: 9, workers: 2}, &c {<<: *a, seed: 5}"
    assert parse_yaml(f"anchors: [{anchors}]\nsearch: {search}", "x")["search"] == expected


def test_an_experiment_merges_candidates() -> None:
    text = "name: x\nhyperparameters: {layers: [1, 2], dropout: [0, 0.5]}\n"
    text += "search: {try: [&a {layers: 2}, {<<: *a, dropout: 0.5}]}"
    assert parse_experiment(text, "x").search.try_ == ({"layers": 2}, {"layers": 2, "dropout": 0.5})


def test_aliases_are_no_fault() -> None:
    names = ", ".join(["*a"] * 200)
    assert parse_yaml(f"a: &a [1, 2]\nb: [{names}]", "x")["b"] == [[1, 2]] * 200


WORDS = st.sampled_from(
    [
        "name",
        "search",
        "trials",
        "hyperparameters",
        "layers",
        "dropout",
        "low",
        "high",
        "step",
        "values",
        "when",
        "promote",
        "data",
        "path",
        "floors",
        "auc",
        "try",
        "from",
        "objective",
        "val_auc",
        "timeout",
        "<<",
        "=",
        "~",
        "true",
        "1e-9",
        "-1",
        "0x1f",
        "1:30",
        "2020-01-01",
        ".inf",
        "!!int",
        "!!set",
        "&a",
        "*a",
        "&b",
        "*b",
        "x",
        "''",
        '"\\e"',
        "é",
    ]
)
MARKS = st.sampled_from([": ", ", ", *"{}[]", "\n", "\n  ", "\n- ", "? ", "# ", "|\n ", "---\n", "%YAML 1.2\n", "\t"])
TEXTS = st.lists(WORDS | MARKS, max_size=40).map("".join) | st.text(max_size=200)


def refusal(read: Callable[[], object]) -> tuple[str, ...]:
    """Return the lines of the `RequestError` that a function raises, or none."""
    try:
        read()
    except RequestError as error:
        return error.lines
    return ()


@given(TEXTS)
@example("name: x\nsearch: {timeout: 1_1e5}")
@example("? !!set {a}\n: b")
@example("!!omap [name: x]")
def test_every_text_is_read_or_refused(text: str) -> None:
    lines = refusal(lambda: parse_experiment(f"name: x\n{text}", "x.yaml").to_yaml())
    assert all(line.startswith("x.yaml") and len(line) < LONGEST_LINE for line in lines)
    lines = refusal(lambda: parse_value(text, "--set x"))
    assert all(line.startswith("--set x: ") and len(line) < LONGEST_LINE for line in lines)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | WORDS | st.dates(),
    lambda children: st.lists(children, max_size=4) | st.dictionaries(WORDS | st.integers(), children, max_size=4),
    max_leaves=12,
)
BLOCK = st.dictionaries(
    st.sampled_from(
        [
            "source",
            "path",
            "classes",
            "test",
            "engine",
            "algorithm",
            "algorithm_settings",
            "pruner",
            "objective",
            "trials",
            "timeout",
            "try",
            "from",
            "confirm",
            "keep",
            "threshold",
            "floors",
            "max",
            "subject_to",
            "layers",
            "dropout",
            "image_size",
            "optimizer",
            "momentum",
            "channels",
            "batch_norm",
        ]
    ),
    VALUES,
    max_size=6,
)


@given(
    st.dictionaries(st.sampled_from(["name", "data", "search", "hyperparameters", "promote"]), BLOCK | VALUES), BLOCK
)
def test_every_document_is_read_or_refused(document: dict[str, Any], block: dict[str, Any]) -> None:
    for made in (
        document,
        {"name": "x"} | document,
        {"name": "x", "hyperparameters": block},
        {"name": "x", "search": block},
    ):
        lines = refusal(lambda made=made: build_experiment(made, "x.yaml").to_yaml())  # type: ignore[misc]
        assert all(line.startswith("x.yaml: ") for line in lines)


@pytest.mark.parametrize("text", ["[" * 60_000, "name: {a: " + "[" * 3000, "a: &a [x]\nb: &b [*a, *a]\nname: *b"])
def test_the_command_ends_with_status_2_and_its_lines(text: str, tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text(text)
    done = subprocess.run(
        [sys.executable, "-m", "pneumo.search", "x.yaml", "--set", "foo=1"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr
    assert all(
        line.startswith(("pneumo.search: x.yaml", "pneumo.search: --set foo=1: ")) for line in done.stderr.splitlines()
    )
    assert [path.name for path in tmp_path.iterdir()] == ["x.yaml"]
