"""Hostile contents, drawn by hypothesis: values in trees, pieces of YAML, bytes, and things in a file's place."""

import json
import math
import os
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from hypothesis import strategies as st

from .guard import PAYLOAD, Place

_THERE = "<secret>"  # stands for the path of the secret

_deep: list[Any] = []
for _ in range(150):
    _deep = [_deep]

VALUES: dict[str, Any] = {
    **{"null": None, "true": True, "false": False, "0": 0, "-1": -1, "1": 1, "2**31": 2**31, "2**63": 2**63},
    **{"99,999,999": 99_999_999, "1e18": 10**18, "1e400": 10**400, "-1e400": -(10**400), "0.5": 0.5, "5.0": 5.0},
    **{"1e308": 1e308, "nan": math.nan, "inf": math.inf, "-inf": -math.inf, "tiny": 5e-324, "-0.0": -0.0},
    **{"nothing": "", "space": " ", "long": "x" * 100_000, "surrogate": "\ud800", "NUL": "a\0b", "lines": "a\r\nb"},
    **{"escape": "\x1b]0;x\x07\x1b[2J", "direction": "\u202egnp.exe", "markup": "<script>alert(1)</script>"},
    **{"formula": "=cmd|'/C calc'!A0", "link": "[x](https://example.com)", "address": "https://u:p@example.com/"},
    **{"environment": "${oc.env:FUZZ_SECRET}", "hydra's": "${hydra:runtime.cwd}", "itself": "${.}"},
    **{"up": "../../outside/secret", "secret": _THERE, "zeros": "/dev/zero", "file": f"file://{_THERE}"},
    **{"shell": "x;touch outside;$(touch outside)", "an option": "--help", "a date": "2024-99-99", "text 1": "1"},
    **{"digits": "9" * 5000, "sexagesimal": "1:" * 2000 + "1", "text nan": "nan", "module": PAYLOAD},
    **{"list": [], "dict": {}, "nested": [[[[]]]], "no name": {"": None}, "numbers": [0] * 20_000, "deep": _deep},
    **{"target": {"_target_": f"{PAYLOAD}.run"}, "popen": {"_target_": "subprocess.Popen", "args": ["true"]}},
    **{"many": {str(number): number for number in range(3000)}, "mixed": [1, "a", None, {}], "of lists": {"a": [{}]}},
    "call": {"_call_": "os.system", "_args_": ["true"], "_partial_": False},
}

SNIPPETS: dict[str, str] = {
    "hydra": f"hydra:\n  callbacks:\n    x:\n      _target_: {PAYLOAD}.run\n",
    "hydra with capitals": f"HYDRA:\n  callbacks:\n    x:\n      _target_: {PAYLOAD}.run\n",
    "sweeper": f"hydra:\n  sweeper:\n    _target_: {PAYLOAD}.run\n",
    "searchpath": "hydra:\n  searchpath: [pkg://fuzz_payload, file://..]\n",
    "package": f"# @package hydra\nlauncher:\n  _target_: {PAYLOAD}.run\n",
    "defaults": "defaults:\n  - hydra/launcher: joblib\n  - override hydra/sweeper: x\n",
    "defaults up": "defaults:\n  - ../../outside/secret\n",
    "apply": '!!python/object/apply:os.system ["true"]\n',
    "applied value": f"more: !!python/object/apply:{PAYLOAD}.run []\n",
    "name": f"more: !!python/name:{PAYLOAD}.run\n",
    "new": "more: !!python/object/new:subprocess.Popen [[true]]\n",
    "module": f"more: !!python/module:{PAYLOAD}\n",
    "bomb": "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9) if n else '1'}]\n" for n in range(12)),
    "merged": "a: &a {seed: 1}\nb:\n  <<: [*a, *a]\n  <<: *a\n",
    "itself": "a: &a\n  b: *a\n",
    "binary": "seed: !!binary aGVsbG8=\n",
    "set": "seed: !!set {a, b}\n",
    "ordered": "seed: !!omap [a: 1]\n",
    "documents": "---\nseed: 1\n---\nseed: 2\n",
    "directive": "%YAML 9.9\n---\nseed: 1\n",
    "brackets": "seed: " + "[" * 50_000 + "\n",
    "braces": "seed: " + "{a: " * 5000 + "\n",
    "indents": "".join(" " * depth + "a:\n" for depth in range(800)),
    "tab": "\tseed: 1\n",
    "twice": "seed: 1\nseed: 2\n",
    "complex key": "? [a, b]\n: 1\n? {a: b}\n: 2\n",
    "numbers as keys": "1: a\n1.5: b\nnull: c\ntrue: d\n2024-01-01: e\n",
    "environment": "data:\n  root: ${oc.env:FUZZ_SECRET}\n",
    "resolver": "data:\n  root: ${oc.decode:${oc.env:FUZZ_SECRET}}\n",
    "create": "data:\n  root: ${oc.create:{_target_:subprocess.Popen}}\n",
    "BOM": "\ufeffseed: 1\n",
    "long name": "x" * 100_000 + ": 1\n",
    "block": "seed: |\n" + "  x\n" * 30_000,
}

EXECUTING = ("hydra", "defaults", "apply", "applied value", "name", "new", "module", "environment", "resolver", "bomb")
some_snippet = st.sampled_from(sorted(SNIPPETS)) | st.sampled_from(EXECUTING)

PIECES = (b"", b"\0", b"\r", b"\n", b",", b'"', b"'", b"{", b"]", b"\xff\xfe", b"nan", b"-", b"9" * 30, b"1e308")


@dataclass(frozen=True)
class Change:
    """What is done to one value of a tree.

    Attributes:
        how: set, delete, rename, swap, wrap, repeat, add or increase.
        where, other: which values, counted from the root and modulo how many there are.
        value: the name of one of `VALUES`.
    """

    how: str
    where: int
    other: int
    value: str

    def apply(self, tree: Any, place: Place) -> Any:
        """Return the tree with the change; lists and dicts in it are changed in place."""
        value = _filled(VALUES[self.value], place)
        spots = list(_spots(tree))
        if not spots:
            return value
        holder, key = spots[self.where % len(spots)]
        match self.how:
            case "root":
                return value
            case "set":
                holder[key] = value
            case "delete":
                del holder[key]
            case "rename" if isinstance(holder, dict):
                holder[value if isinstance(value, str) else str(value)[:300]] = holder.pop(key)
            case "swap":
                that, there = spots[self.other % len(spots)]
                if not (_contains(holder[key], that) or _contains(that[there], holder)):  # no file holds itself
                    holder[key], that[there] = that[there], holder[key]
            case "wrap":
                holder[key] = [holder[key], value]
            case "repeat":
                holder[key] = [holder[key]] * (10 if isinstance(holder[key], dict | list) else 300)
            case "add" if isinstance(holder, dict):
                holder[self.value] = value
            case "increase" if isinstance(holder[key], int | float):
                holder[key] = holder[key] * 10 ** (self.other % 20) + self.other
            case _:
                holder[key] = value
        return tree


HOWS = ("set", "set", "set", "set", "delete", "rename", "swap", "wrap", "repeat", "add", "increase", "root")
changes = st.builds(
    Change, st.sampled_from(HOWS), st.integers(0, 999), st.integers(0, 999), st.sampled_from(sorted(VALUES))
)
few_changes = st.lists(changes, min_size=1, max_size=3)


def _spots(tree: Any) -> Any:
    """Yield (holder, key) of every value below the root."""
    items = list(tree.items()) if isinstance(tree, dict) else list(enumerate(tree)) if isinstance(tree, list) else []
    for key, value in items[:200]:
        yield tree, key
        yield from _spots(value)


def _contains(tree: Any, wanted: Any) -> bool:
    return tree is wanted or any(holder[key] is wanted for holder, key in _spots(tree))


def _filled(value: Any, place: Place) -> Any:
    if isinstance(value, dict):
        return {key: _filled(each, place) for key, each in value.items()}
    if isinstance(value, list):
        return [_filled(each, place) for each in value]
    return value.replace(_THERE, str(place.secret)) if isinstance(value, str) else value


def changed(tree: Any, drawn: list[Change], place: Place) -> Any:
    for change in drawn:
        tree = change.apply(tree, place)
    return tree


def as_json(tree: Any) -> bytes:
    return json.dumps(tree).encode()


def as_yaml(tree: Any) -> bytes:
    class Dumper(yaml.SafeDumper):
        def ignore_aliases(self, data: Any) -> bool:
            return True

    return yaml.dump(tree, Dumper=Dumper, sort_keys=False).encode(errors="surrogatepass")


Damage = Callable[[Path, Place], None]
"""Does something to a file."""


@dataclass(frozen=True)
class OfBytes:
    """Some bytes of a file are flipped, cut out, put in, repeated or made zeros.

    Attributes:
        start, length: where, as shares of the file.
    """

    how: str
    start: float
    length: float
    put: bytes

    def __call__(self, path: Path, place: Place) -> None:
        path.write_bytes(self.apply(path.read_bytes()))

    def apply(self, content: bytes) -> bytes:
        at = int(self.start * len(content))
        end = at + int(self.length * (len(content) - at))
        match self.how:
            case "flip":
                bits = 1 << len(self.put) % 8
                return content[:at] + bytes([byte ^ bits for byte in content[at : at + 1]]) + content[at + 1 :]
            case "end":
                return content[:at]
            case "cut":
                return content[:at] + content[end:]
            case "put":
                return content[:at] + self.put + content[at:]
            case "overwrite":
                return content[:at] + self.put + content[at + len(self.put) :]
            case "repeat":
                return content[:end] + content[at:end] * 3 + content[end:]
            case _:
                return content[:at] + bytes(end - at) + content[end:]


@dataclass(frozen=True)
class InItsPlace:
    """Something that is no file, or no ordinary one, lies in a file's place."""

    what: str

    def __call__(self, path: Path, place: Place) -> None:
        content = path.read_bytes()
        path.unlink()
        match self.what:
            case "nothing":
                pass
            case "a folder":
                path.mkdir()
            case "a full folder":
                path.mkdir()
                (path / path.name).write_bytes(content)
            case "a link to the secret":
                path.symlink_to(place.secret)
            case "a relative link to the secret":
                path.symlink_to(os.path.relpath(place.secret, path.parent))
            case "a link to itself":
                path.symlink_to(path.name)
            case "a dangling link":
                path.symlink_to(place.outside / "new")
            case "a link to a device":
                path.symlink_to("/dev/zero")
            case "a link to the environment":
                path.symlink_to("/proc/self/environ")
            case "a hard link":
                os.link(place.startup, path)
            case "a pipe":
                os.mkfifo(path)
            case "a socket":
                with socket.socket(socket.AF_UNIX) as unix:
                    os.chdir(path.parent)  # names of sockets are short
                    unix.bind(path.name)
                    os.chdir(place.inside / f"case{place.number}")
            case "a sparse giant":
                path.write_bytes(content)
                os.truncate(path, 10 * 2**30)
            case "zeros":
                path.write_bytes(bytes(len(content)))
            case "an empty file":
                path.write_bytes(b"")


THINGS = (
    *("nothing", "a folder", "a full folder", "a link to the secret", "a relative link to the secret"),
    *("a link to itself", "a dangling link", "a link to a device", "a link to the environment", "a hard link"),
    *("a pipe", "a socket", "a sparse giant", "zeros", "an empty file"),
)
of_bytes = st.builds(
    OfBytes,
    st.sampled_from(["flip", "end", "cut", "put", "overwrite", "repeat", "zeros"]),
    st.floats(0, 1),
    st.floats(0, 1),
    st.sampled_from(PIECES) | st.binary(max_size=12),
)
in_its_place = st.sampled_from(THINGS).map(InItsPlace)
any_damage: st.SearchStrategy[Damage] = of_bytes | in_its_place
