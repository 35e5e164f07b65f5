"""What is a secret: by the name of its environment variable, by where it stands, or by its looks.

How a variable's value is found again depends on its length, since a short one may be an ordinary word. One of twelve
characters and more is hidden wherever it stands. One of four and more is hidden where it is a whole word of a value,
and also of a whole text if it has at least six characters, with letters and digits; a shorter one, or a number, where
it is a whole value. Truth values, numbers of up to three digits, and the words of the package's own options stay: that
`adam` or `true` is somebody's password cannot be learned from an optimizer's name.
"""

import base64
import contextlib
import functools
import hashlib
import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import quote, quote_plus, unquote

import yaml

# The end of a word, and then words that are only meant by themselves: TOKENIZERS, AUTHOR and PATH are none.
_OTHER_PASSES = ("BY", "COM", "LOW", "HIGH", "BAND", "SUR", "TRES", "MULTI", "SINGLE")
_OTHER_KEYS = ("MON", "DON", "TUR", "HOC", "JOC", "WHIS", "HOT", "SMO", "LAC", "FLUN", "SORT", "PRIMARY", "FOREIGN")
_NAME = re.compile(
    r"(?:TOKEN|PASSWD|PASSPHRASE|PWD)S?(?![A-Z])"
    rf"|{''.join(f'(?<!{word})' for word in _OTHER_PASSES)}PASS(?:ES)?(?![A-Z])|PASSWORD(?!LESS)"
    r"|SECRET(?!AR)|CREDENTIAL"
    rf"|{''.join(f'(?<!{word})' for word in _OTHER_KEYS)}KEYS?(?![A-Z])"
    r"|(?<![A-Z])(?:PW|PATS?|AUTH|COOKIES?|DSN|JWT|PIN|OTP)(?![A-Z])",
    re.IGNORECASE,
)
_NO_SECRETS = ("PWD", "OLDPWD")  # folders

_MARK = re.compile(r"<([^\s<>]+)>")
_MARKED = re.compile(r"<(?:hidden|[^\s<>]+ [0-9a-f]{6})>")

_LONG, _WORD = 12, 4  # characters from which a value is hidden everywhere, and where it is a word
_MIXED = re.compile(r"(?=.*[^\W\d_])(?=.*\d).{6,}")  # what is hidden as a word of whole texts too
_ALWAYS_ORDINARY = {"true", "false", "yes", "no", "on", "off", "none", "null", "task", "class", "domain", "cpu", "cuda"}
_ALWAYS_ORDINARY |= {"complete", "running", "failed", "interrupted", "unknown", "train", "valid", "test"}

# The password may have /, ? and # in it, but what begins like a port is one.
_CREDENTIALS = re.compile(
    r"(?<=://)(?!\[)[^\s/?#@:\"'<>\\]*:([^\s/?#\"'<>\\]*(?=@)|(?!\d{1,5}[/?#])[^\s@\"'<>\\]{0,200}(?=@))"
)
_ONLY_USER = re.compile(r"(?<=://)[\w.~%-]{16,}(?=@)")  # a token in place of a name
_TRIVIAL = r"(?:none|null|true|false|yes|no|on|off|\d{1,3})"
_ASSIGNED = re.compile(
    r"([?&#;]key|(?<![A-Za-z0-9])sig|(?<=[?&#;-])signature"
    r"|pass(?:word|wd|phrase)|secret|api[_-]?key|access[_-]?key|credential"
    r"|(?<![A-Za-z0-9])(?<!max_)(?<!min_)(?<!num_)(?<!n_)(?:pass|pwd|token|auth))"
    rf"=(?![{{\[<$])(?!{_TRIVIAL}(?:[\s&#'\"<>,;\\]|$))[^\s&#'\"<>,;\\]+",
    re.IGNORECASE,
)
_OPTION = re.compile(r"(--(?:[a-z]+-)?(?:password|passwd|passphrase|token|secret|api-?key) +)(?![-<$])[^\s'\"]+")
_HEADER = re.compile(
    r"((?:authorization|x-api-key|private-token)[\"']?: ?[\"']?(?:(?:basic|token|digest|negotiate) )?)"
    r"(?![<$]|bearer )[\w.~+/=-]{4,}",
    re.IGNORECASE,
)
_BASIC = re.compile(r"(?<=\bbasic )[a-z0-9+/]{6,}={0,2}", re.IGNORECASE)  # user:password, in base 64
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

    @property
    def is_mixed(self) -> bool:
        """Whether it has letters and digits, as few words have: it is hidden as a word of whole texts too."""
        return _MIXED.fullmatch(self.value) is not None


def is_secret_name(name: str) -> bool:
    """Whether a variable of this name holds a secret."""
    return name not in _NO_SECRETS and _NAME.search(name) is not None


def is_secret_option(name: str) -> bool:
    """Whether an option of this name holds a secret: what its last word says, as in `api_key`, not in `key_init`."""
    return is_secret_name(re.split(r"[\W_]+", name)[-1])


def told_apart(value: str, shown: str) -> str:
    """Return what stands in place of a value, with six digits of its hash where something is hidden.

    By these, equal values are told from different ones. A guess at the value costs a slow hash (scrypt), and one in
    16 million wrong ones passes.
    """
    if value == shown:
        return shown
    return _MARK.sub(lambda mark: _with_digits(mark, value), shown)


def is_left_out(value: object) -> bool:
    """Whether something is hidden in a value that was read from a run folder."""
    return isinstance(value, str) and _MARKED.search(value) is not None


def _with_digits(mark: re.Match[str], value: str) -> str:
    is_secret = mark[1] == "hidden" or mark[1] in os.environ  # and not a place, as `<tmp>`
    return f"<{mark[1]} {_digits(value)}>" if is_secret else mark[0]


@functools.lru_cache(maxsize=256)
def _digits(value: str) -> str:
    salt = b"cl-powerprop"
    return hashlib.scrypt(value.encode("utf-8", "surrogatepass"), salt=salt, n=2**14, r=8, p=1, dklen=3).hex()


def without_credentials(text: str) -> str:
    """Return the text without passwords in URLs, tokens in query strings, and what looks like a token."""
    if "://" in text:
        text = _ONLY_USER.sub("<hidden>", _CREDENTIALS.sub("<hidden>", text))
    if "=" in text:
        text = _ASSIGNED.sub(r"\1=<hidden>", text)
    if "--" in text:
        text = _OPTION.sub(r"\1<hidden>", text)
    if ":" in text:
        text = _HEADER.sub(r"\1<hidden>", text)
    text = _BASIC.sub(_without_basic, text)
    return _TOKENS.sub("<hidden>", text)


def _without_basic(found: re.Match[str]) -> str:
    with contextlib.suppress(ValueError):
        if ":" in base64.b64decode(found[0], validate=True).decode():
            return "<hidden>"
    return found[0]


def is_trivial(value: str) -> bool:
    """Whether a value says nothing, whatever its option is called: a truth value, or a number of up to three digits."""
    return re.fullmatch(_TRIVIAL, value, re.IGNORECASE) is not None


def hide_long(text: str) -> str:
    """Return the text without those secrets of the environment that are told from words wherever they stand."""
    for secret in _secrets(tuple(os.environ.items())):
        if secret.is_long:
            for written in _written(secret.value):
                text = text.replace(written, secret.shown)
        elif secret.is_mixed and secret.value in text:
            text = _without_word(text, secret)
    return text


def hide_short(text: str) -> str:
    """Return a value without the short secrets of the environment: as a whole value, or as a word of it."""
    for secret in _secrets(tuple(os.environ.items())):
        if secret.is_long or secret.value not in text:
            continue
        if text == secret.value:
            return secret.shown
        if secret.is_word:
            text = _without_word(text, secret)
    return text


def _without_word(text: str, secret: Secret) -> str:
    return re.sub(rf"(?<!\w){re.escape(secret.value)}(?!\w)", lambda _: secret.shown, text)


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


def _written(secret: str) -> set[str]:
    """Return the forms that a secret can have in a file, in an address, and in a form that is sent."""
    return spellings(secret) | {quote(secret, safe=""), quote(secret), quote_plus(secret)}
