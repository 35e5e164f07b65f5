"""What came of a case."""

from dataclasses import dataclass

from .cases import Case

IDENTICAL = "identical"


@dataclass
class Performed:
    """What came of a case.

    Attributes:
        case: which one.
        problems: what went wrong, in words; empty if the result is that of the undisturbed run.
        repeated: optimizer steps that were done again; None if they were not counted.
        allowed: how many may be.
        seconds: from the signal to the end of the process; None without one that it can handle.
        last_lines: what it printed last, if there is a problem.
    """

    case: Case
    problems: list[str]
    repeated: int | None = None
    allowed: int = 0
    seconds: float | None = None
    last_lines: str = ""

    @property
    def outcome(self) -> str:
        """The problems in a line."""
        return "; ".join(self.problems) or IDENTICAL
