"""What is a secret: by the name of its environment variable, by where it stands, or by its looks.

How a variable's value is found again depends on its length, since a short one may be an ordinary word. One of twelve
characters and more is hidden wherever it stands. One of four and more is hidden where it is a whole word of a value,
and a shorter one, or a number, where it is a whole value. Truth values, numbers of up to three digits, and the words of
the package's own options stay: that `adam` or `true` is somebody's password cannot be learned from an optimizer's name.
"""

import functools
import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import unquote

import yaml

# The end of a word, and then words that are only meant by themselves: TOKENIZERS, AUTHOR and PATH are none.
_NAME = re.compile(
    r"(?:TOKEN|SECRET|PASSWORD|PASSWD|PASSPHRASE|PASS|PWD|CREDENTIAL|API_?KEY|ACCESS_?KEY)S?(?![A-Z])"
    r"|(?<![A-Z])(?:PW|PATS?|KEYS?|AUTH|COOKIES?|DSN|JWT|PIN|OTP)(?![A-Z])",
    re.IGNORECASE,
)
_NO_SECRETS = ("PWD", "OLDPWD")  # folders

_LONG, _WORD = 12, 4  # characters from which a value is hidden everywhere, and where it is a word
_ALWAYS_ORDINARY = {"true", "false", "yes", "no", "on", "off", "none", "null", "task", "class", "domain", "cpu", "cuda"}
_ALWAYS_ORDINARY |= {"complete", "running", "failed", "interrupted", "unknown", "train", "valid", "test"}

_CREDENTIALS = re.compile(r"(?<=://)[^\s/?#@:\"'<>\\]*:([^\s/?#\"'<>\\]*)(?=@)")
_ONLY_USER = re.compile(r"(?<=://)[\w.~%-]{16,}(?=@)")  # a token in place of a name
_ASSIGNED = re.compile(
    r"([?&#;]key|(?<![A-Za-z0-9])sig"
    r"|(?:pass(?:word|wd|phrase)?|pwd|secret|token|api[_-]?key|access[_-]?key|auth|credential|signature))"
    r"=(?![{\[<$])[^\s&#'\"<>,;\\]+",
    re.IGNORECASE,
)
_TOKENS = re.compile(
    r"(?<![A-Za-z0-9])(?:hf_[A-Za-z0-9]{16,}|gh[pousr]_[A-Za-z0-9]{16,}|github_pat_\w{16,}|glpat-[\w-]{16,}"
    r"|sk-(?:ant-|proj-)[\w-]{16,}|sk-[A-Za-z0-9]{20,}|xox[a-z]-[\w-]{10,}|A[KS]IA[A-Z0-9]{16}|AIza[\w-]{35}"
    r"|npm_[A-Za-z0-9]{30,}|pypi-[\w-]{30,}|wandb_v1_\w{16,}|eyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]{8,}"
    r"|(?i:bearer) [\w.~+/-]{16,}=*)"
)


@dataclass(frozen=True)
class Secret:
    """A value that is to be hidden.

    Attributes:
        shown: what stands in its place.
        value: what is hidden.
    """

    shown: str
    value: str

    @property
    def is_long(self) -> bool:
        """Whether it is hidden wherever it stands."""
        return len(self.value) >= _LONG

    @property
    def is_word(self) -> bool:
        """Whether it is hidden where it is a whole word; a number could be one of a date."""
        return len(self.value) >= _WORD and not self.value.isdecimal()


def is_secret_name(name: str) -> bool:
    """Whether a variable, or an option, of this name holds a secret."""
    return name not in _NO_SECRETS and _NAME.search(name) is not None


def without_credentials(text: str) -> str:
    """Return the text without passwords in URLs, tokens in query strings, and what looks like a token."""
    if "://" in text:
        text = _ONLY_USER.sub("<hidden>", _CREDENTIALS.sub("<hidden>", text))
    if "=" in text:
        text = _ASSIGNED.sub(r"\1=<hidden>", text)
    return _TOKENS.sub("<hidden>", text)


def hide_long(text: str) -> str:
    """Return the text without the long secrets of the environment, wherever they stand."""
    for secret in _secrets(tuple(os.environ.items())):
        if secret.is_long:
            for written in spellings(secret.value):
                text = text.replace(written, secret.shown)
    return text


def hide_short(text: str) -> str:
    """Return a value without the short secrets of the environment: as a whole value, or as a word of it."""
    for secret in _secrets(tuple(os.environ.items())):
        if secret.is_long or secret.value not in text:
            continue
        if text == secret.value:
            return secret.shown
        if secret.is_word:
            word = rf"(?<!\w){re.escape(secret.value)}(?!\w)"
            text = re.sub(word, lambda _, shown=secret.shown: shown, text)  # type: ignore[misc]
    return text


@functools.lru_cache(maxsize=4)
def _secrets(environment: tuple[tuple[str, str], ...]) -> tuple[Secret, ...]:
    """Return the secrets of an environment, the longest first."""
    found = {secret.value: secret for name, value in environment for secret in _of_variable(name, value)}
    return tuple(sorted(found.values(), key=lambda secret: -len(secret.value)))


def _of_variable(name: str, value: str) -> Iterator[Secret]:
    for password in _CREDENTIALS.findall(value):
        for spelling in {password, unquote(password)}:
            if not _is_ordinary(spelling):
                yield Secret(f"<{name}>", spelling)
    if is_secret_name(name) and not _is_ordinary(value.strip()):
        yield Secret(f"<{name}>", value.strip())


def _is_ordinary(value: str) -> bool:
    return not value or (value.isdecimal() and len(value) < _WORD) or value.lower() in _own_words()


@functools.cache
def _own_words() -> frozenset[str]:
    """Return our own words: names and values of options, of parts and metrics, and the keys of `run.json`."""
    from cl_powerprop.record import RESERVED
    from cl_powerprop.registry import CONF, metrics

    words = _ALWAYS_ORDINARY | RESERVED | {*metrics()}
    for file in CONF.rglob("*.yaml"):
        words.add(file.stem)
        for token in yaml.scan(file.read_text(encoding="utf-8"), Loader=yaml.SafeLoader):
            if isinstance(token, yaml.ScalarToken):
                words |= {token.value.lower(), *re.findall(r"[\w.-]+", token.value.lower())}
    return frozenset(words)


def spellings(text: str) -> set[str]:
    """Return the forms that a text can have in a file: plain, and escaped in JSON."""
    return {text, json.dumps(text)[1:-1], json.dumps(text, ensure_ascii=False)[1:-1]}
