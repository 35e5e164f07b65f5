"""Overrides as a user types them: put so that Hydra reads text as text, and explained where it cannot read them.

Hydra's grammar takes `1_1` for a number, `true` for a truth value, and knows neither `~` nor letters with accents.
"""

import re
from collections.abc import Iterator, Sequence

from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

from cl_powerprop.options import Text, text_type, type_name
from cl_powerprop.registry import BY_NAME, PACKAGES, others, parts

_OVERRIDE = re.compile(r"(?P<key>\+{0,2}[^=@~-][^=@]*)=(?P<value>.*)", re.DOTALL)
_CALL = re.compile(r"\s*(choice|shuffle|sort|tag)\((.*)\)\s*", re.DOTALL)  # what the user's own values can stand in
_LIST = re.compile(r"\s*\[(.*)\]\s*", re.DOTALL)
_ESCAPED = re.compile(r"\\([\\()\[\]{}:=, \t])")  # a character that would else have a meaning
_NAMED = re.compile(r"\s*\w+\s*=")  # an argument of a call that is given by name


def prepare(words: Sequence[str]) -> list[str]:
    """Make the parts of others known to Hydra, and return the words of a command as Hydra is to read them.

    Options given by a part's name (`epn.gamma=0.95`) become keys of their own; the config is parsed with them. Those of
    a group that is swept need not be options of its default: Hydra composes with that before it looks at the sweep.
    """
    store = ConfigStore.instance()
    for group in PACKAGES:
        for part in others(group):
            package = f"logger.{part.name}" if group == "logger" else None
            for name in (part.name, *part.aliases):
                store.store(group=group, name=name, node=part.defaults(), package=package, provider=part.origin)
    dotted = [word for word in words if "=" in word and "." in word.partition("=")[0]]
    named = {name for group in BY_NAME for name in parts(group)} if dotted else set()
    swept = {key for key, _, value in (word.partition("=") for word in words) if len(list(_pieces(value))) > 1}
    added = named | swept & set(BY_NAME)
    found = [f"++{word}" if word in dotted and word.partition(".")[0] in added else word for word in words]
    return [word if word.startswith("-") else keep_text(word) for word in found]


def keep_text(word: str) -> str:
    """Return an override that Hydra reads as it was meant: the value of an option that is text is put in quotes.

    Only where that is needed: where Hydra would read a number or a truth value, or nothing at all. Commas still
    separate the values of a sweep, what has quotes keeps them, and `null` is no value wherever there can be none.
    """
    match = _OVERRIDE.fullmatch(word)
    text = match and text_type(match["key"].lstrip("+"))
    return word if match is None or text is None else f"{match['key']}={_kept(match['value'], text)}"


def _kept(value: str, text: Text, called: bool = False) -> str:
    return ",".join(_piece(piece, text, called) for piece in _pieces(value))


def _piece(piece: str, text: Text, called: bool) -> str:
    if not piece.strip() or (called and _NAMED.match(piece)):
        return piece
    if call := _CALL.fullmatch(piece):
        return f"{call[1]}({_kept(call[2], text, called=True)})"
    if text.depth and (listed := _LIST.fullmatch(piece)):
        return f"[{_kept(listed[1], text.item)}]"
    return piece if _is_text(piece, text.optional) else _quoted(_ESCAPED.sub(r"\1", piece.strip()))


def _pieces(value: str) -> Iterator[str]:
    """Yield what commas separate, outside of quotes and brackets."""
    start = position = depth = 0
    while position < len(value):
        character = value[position]
        before = value[start:position].rstrip()
        if character == "\\":
            position += 1
        elif character in "'\"" and (not before or before[-1] in "([{,:=") and (end := _closing(value, position)):
            position = end
        elif character in "([{":
            depth += 1
        elif character in ")]}":
            depth = max(0, depth - 1)
        elif character == "," and not depth:
            yield value[start:position]
            start = position + 1
        position += 1
    yield value[start:]


def _closing(value: str, opening: int) -> int:
    """Return the position of the quote that closes one; 0 if there is none."""
    match = re.compile(rf"(?:[^\\{value[opening]}]|\\.)*{value[opening]}", re.DOTALL).match(value, opening + 1)
    return match.end() - 1 if match else 0


def _is_text(piece: str, optional: bool) -> bool:
    """Whether Hydra reads text, what a sweep goes through, or no value where there can be none."""
    try:
        read = OverridesParser.create().parse_override(f"key={piece}")
    except HydraException:
        return False
    return read.is_sweep_override() or isinstance(read.value(), str) or (optional and read.value() is None)


def _quoted(text: str) -> str:
    quote = '"' if "'" in text else "'"
    text = re.sub(rf"(\\*)({quote}|$)", lambda match: match[1] * 2 + ("\\" + quote if match[2] else ""), text)
    return f"{quote}{text}{quote}"


def explain_unreadable(word: str) -> str | None:
    """Say in one line what Hydra cannot read in an override: which character it stops at, and what to do.

    None if Hydra reads it.
    """
    key = word.partition("=")[0]
    if key == word:
        return f"cannot read {word!r}: an option is given as {word}=VALUE"
    try:
        OverridesParser.create().parse_rule(word, "override")
        return None
    except HydraException as error:
        place = _place(error)
        if place is None:  # a call of a function, for example
            return f"cannot read {word!r}: {' '.join(str(error).split())}"
    stop = f"cannot read {word!r}: it stops at character {place + 1}, {word[place : place + 1]!r}"
    if place >= len(word):
        stop = f"cannot read {word!r}: something is missing at its end"
    if place < len(key):
        return f"{stop}; the name of an option has letters, digits, _ . and - only"
    wanted = type_name(key.lstrip("+~"))
    if wanted is not None:
        return f"{stop}; {key.lstrip('+~')} is {wanted}"
    return f"{stop}; text that is not plain needs quotes, and the shell needs others around them: '{_in_quotes(word)}'"


def explain_several(word: str) -> str:
    """Say in one line what to do about an override with several values where one run was asked for."""
    text = text_type(word.partition("=")[0].lstrip("+"))
    hint = f"; text with a comma needs quotes, and the shell needs others around them: '{_in_quotes(word)}'"
    return f"{word} has several values: add -m to run with each of them, or brackets for a list" + (
        hint if text else ""
    )


def _in_quotes(word: str) -> str:
    key, _, value = word.partition("=")
    return f'{key}="' + value.strip("\"'").replace('"', '\\"') + '"'


def _place(error: HydraException) -> int | None:
    """Return the position of the character at which Hydra stopped; None if it stopped at none."""
    token = getattr(error.__cause__, "offendingToken", None)  # of its parser; its lexer has made no token
    place = getattr(error.__cause__, "startIndex", None) if token is None else token.start
    return None if place is None else int(place)
