"""Run folders that somebody has damaged, or made to do harm: each is a good one with one file changed."""

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

Change = Callable[[Path], object]

TABLES = ("curves.csv", "capacity.csv", "reuse.csv", "mask_overlap.csv", "weights.csv")
FILES = ("run.json", "config.yaml", "accuracy_matrix.csv", *TABLES)
OUTSIDE = "outside"  # the name of a file beside the folder of the runs, and of a folder with a run
TOKEN = "hf_SECRETsecretSECRETsecret"  # what stands in it

LINK = '<a href="https://evil.example">x</a>'
TEXTS = {
    "markup": LINK,
    "a script": "</script><script>document.title=1</script><img src=x onerror=alert(1)>",
    "a template of Plotly": f"%{{meta.group}}%{{customdata}}{LINK}",
    "a template of Jinja": "{{ 7*7 }}{% for a in b %}",
    "a link of Markdown": "[x](https://evil.example) https://evil.example www.evil.example",
    "a table of Markdown": "a | b `c` **d** <br>",
    "a formula": '=HYPERLINK("https://evil.example")',
    "another formula": "@SUM(1+1)*cmd|' /C calc'!A0",
    "a formula of minus": "-2+3+cmd",
    "rich": "[red]a[/red] :smile: [link=https://evil.example]b[/link] \\",
    "mathematics": "$\\frac{1}{0}$ _{^",
    "a shell's": "x;touch P;$(touch P)`touch P`",
    "an attribute": '" onmouseover="alert(1)" x=\'',
    "long": "a" * 150,
}
UNPRINTABLE = {
    "a carriage return": "a\rb",
    "NUL": "a\0b",
    "an escape sequence": "\x1b]0;owned\x07\x1b[2Ja",
    "C1": "\x9b2Ja",
    "right to left": "a\u202eb",
    "a lone surrogate": "a\ud800b",
    "lines": "a\nb\u2028c",
    "very long": "a" * 100_000,
}


def put(content: bytes) -> Change:
    return lambda path: path.write_bytes(content)


def edited(change: Callable[[bytes], bytes]) -> Change:
    return lambda path: path.write_bytes(change(path.read_bytes()))


def instead(make: Change) -> Change:
    def change(path: Path) -> None:
        path.unlink(missing_ok=True)
        make(path)

    return change


def enlarged(path: Path) -> None:
    os.truncate(path, 10 * 2**30)  # sparse: it takes no room


def outside(path: Path) -> Path:
    return path.parent.parent.parent / OUTSIDE


ANY_FILE: dict[str, Change] = {
    "a link out": instead(lambda path: path.symlink_to(outside(path) / "secret")),
    "a link to its like": instead(lambda path: path.symlink_to(outside(path) / "run" / path.name)),
    "a link beside it": instead(lambda path: path.symlink_to(Path("..") / "epn-0" / path.name)),
    "a pipe": instead(os.mkfifo),
    "a device": instead(lambda path: path.symlink_to("/dev/zero")),
    "10 GB": enlarged,
    "UTF-16": edited(lambda content: content.decode().encode("utf-16")),
    "a byte order mark": edited(lambda content: b"\xef\xbb\xbf" + content),
    "nothing": put(b""),
    "NUL": edited(lambda content: content.replace(b",", b"\0", 1)),
    "carriage returns": edited(lambda content: content.replace(b"\n", b"\r")),
    "surrogates": edited(lambda content: content.replace(b"e", b"\xed\xa0\x80", 1)),
}
RUN_JSON: dict[str, bytes] = {
    "nested": b'{"schema_version": 1, "x": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "nested objects": b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    "nested less": b'{"schema_version": 1, "strategy": ' + b"[" * 900 + b"]" * 900 + b"}",
    "10,000 digits": b'{"schema_version": 1, "seed": ' + b"9" * 10_000 + b"}",
    "4,000 digits": b'{"schema_version": ' + b"9" * 4000 + b"}",
    "a key twice": b'{"schema_version": 1, "strategy": "a", "strategy": "b"}',
    "a text": b'"' + b"a" * 1_000_000 + b'"',
}
VALUES: dict[str, Any] = {
    "metrics/average_accuracy": 5,
    "metrics/learning_accuracy": -0.5,
    "metrics/capacity_used": float("inf"),
    "metrics/average_forgetting": float("nan"),
    "metrics/mine": 10**300,
    "metrics": {f"m{index}": 0.5 for index in range(100_000)},
    "metrics/seed": 1.0,
    "seconds/total": -3.0,
    "n_tasks": 99_999_999,
    "trained_tasks": 99_999_999,
    "diverged_tasks": [99_999_999],
    "seed": 10**30,
    "alpha": 10**400,
    "messages": ["x"] * 100_000,
    "error": {"a": 1},
    "status": ["complete"],
}
TABLE_ROWS: dict[str, dict[str, bytes]] = {
    "an index far out": {
        "curves.csv": b"x,99999999,1,100,99999999,test,accuracy,0.5\n",
        "capacity.csv": b"99999999,fc,masked,100,10,10,0,90\n",
        "reuse.csv": b"99999999,fc,99999998,10\n",
        "mask_overlap.csv": b"99999999,0,10\n199999,199999,10\n",
        "weights.csv": b"fc,used,1e-300,1e300,1\n",
    },
    "a number of 10,000 digits": {
        "curves.csv": b"x,1,1,%s,0,test,accuracy,0.5\n" % (b"9" * 10_000),
        "capacity.csv": b"0,other,masked,%s,10,10,0,90\n" % (b"9" * 10_000),
        "weights.csv": b"fc,used,0.5,%s,1\n" % (b"9" * 10_000),
    },
    "an accuracy that is none": {
        "curves.csv": b"x,1,1,100,0,test,accuracy,inf\n",
        "weights.csv": b"fc,used,nan,inf,1\n",
    },
}
CONFIGS: dict[str, bytes] = {
    "billions": b"".join(
        b"a%d: &a%d [%s]\n" % (i, i, b", ".join([b"*a%d" % (i - 1)] * 9) if i else b"1") for i in range(12)
    ),
    "billions of keys": b"a0: &a0 {k0: 1, k1: 2}\n"
    + b"".join(b"a%d: &a%d {<<: [%s]}\n" % (i, i, b", ".join([b"*a%d" % (i - 1)] * 9)) for i in range(1, 12)),
    "nested": b"a: " + b"[" * 100_000 + b"]" * 100_000 + b"\n",
    "nested lists": b"- " * 100_000 + b"a\n",
    "a number of 10,000 digits": b"a: %s\n" % (b"9" * 10_000),
    "a hexadecimal one": b"a: 0x%s\n" % (b"f" * 9_000),
    "sexagesimal": b"a: 1%s\n" % (b":59" * 100_000),
    "a key twice": b"model: {name: mlp}\nmodel: {name: cnn}\n",
    "an object": b"a: !!python/object/apply:os.system ['touch P']\n",
    "a call": b"hydra:\n  callbacks:\n    a:\n      _target_: os.system\n",
    "the environment": b"optimizer:\n  lr: ${oc.env:HOSTILE_PASS}\n",
    "itself": b"a: &a {b: *a}\n",
    "many keys": b"".join(b"k%d: 1\n" % index for index in range(20_000)),
    "not a number": b"optimizer: {lr: .nan, momentum: .inf, a: -.inf}\n",
    "documents": b"a: 1\n---\nb: 2\n",
    "a directive": b"%TAG ! tag:evil.example,2000:\n---\na: !x 1\n",
}


def set_value(path: Path, key: str, value: Any) -> None:
    """Set a value of a JSON file; ``a/b`` is the key b of the object a."""
    content = json.loads(path.read_text())
    *outer, last = key.split("/")
    (content[outer[0]] if outer else content)[last] = value
    path.write_text(json.dumps(content))


def with_value(key: str, value: Any) -> Change:
    """Set a value of `run.json`."""
    return lambda run: set_value(run / "run.json", key, value)


def with_fact(key: str, value: Any) -> Change:
    """Set the strategy or the seed, in `run.json` and in `config.yaml`, which agree."""
    before = r"(?<=^strategy:\n  name: ).*" if key == "strategy" else rf"(?<=^{key}: ).*"

    def change(run: Path) -> None:
        set_value(run / "run.json", key, value)
        config = (run / "config.yaml").read_text()
        (run / "config.yaml").write_text(re.sub(before, lambda _: json.dumps(value), config, count=1, flags=re.M))

    return change


def with_name(file: str, old: str, text: str) -> Change:
    """Put a text in place of a name in a CSV file."""
    written = ('"' + text.replace('"', '""') + '"').encode(errors="surrogatepass")
    return _in(file, edited(lambda content: content.replace(old.encode(), written)))


def with_setting(text: str) -> Change:
    """Put a text in place of a number in `config.yaml`."""
    return _in("config.yaml", edited(lambda content: content.replace(b"lr: 0.1", b"lr: " + json.dumps(text).encode())))


def _in(file: str, change: Change) -> Change:
    return lambda run: change(run / file)


def _extended(file: str, rows: bytes) -> Change:
    return _in(file, edited(lambda content: content + rows))


def cases() -> dict[str, Change]:
    """Return what is done to a run folder, by a name for it."""
    found: dict[str, Change] = {}
    for name, change in ANY_FILE.items():
        found |= {f"{file}: {name}": _in(file, change) for file in FILES}
    found |= {f"run.json: {name}": _in("run.json", put(content)) for name, content in RUN_JSON.items()}
    found |= {f"run.json: {key}": with_value(key, value) for key, value in VALUES.items()}
    found |= {f"config.yaml: {name}": _in("config.yaml", put(content)) for name, content in CONFIGS.items()}
    for name, rows in TABLE_ROWS.items():
        found |= {f"{file}: {name}": _extended(file, row) for file, row in rows.items()}
    for name, text in {**TEXTS, **UNPRINTABLE}.items():
        found |= {f"{key}: {name}": with_value(key, text) for key in ("strategy", "model", "host", "error", "run_id")}
        found[f"messages: {name}"] = with_value("messages", [text])
        found[f"a metric: {name}"] = with_value(f"metrics/{text.replace('/', '_')}", 0.5)
        found[f"a setting: {name}"] = with_setting(text)
        found[f"a task: {name}"] = with_name("accuracy_matrix.csv", "permutation_0", text)
        found[f"a layer: {name}"] = with_layer(text)
    return found


def with_layer(text: str) -> Change:
    """Give the layer another name in all files."""

    def change(run: Path) -> None:
        for file in ("capacity.csv", "reuse.csv", "weights.csv"):
            with_name(file, "fc", text)(run)

    return change
