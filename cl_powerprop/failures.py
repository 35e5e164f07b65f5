"""What the jobs of a command have failed of: each says so in a file, for it may run in another process."""

import json
import traceback
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from cl_powerprop.errors import DivergedError, ProcessDiedError, RankError, SeedError, StorageError, UserError
from cl_powerprop.interrupts import Interrupted
from cl_powerprop.process import exit_code

_MOST_NAMES = 3  # of jobs that have failed of the same


@dataclass(frozen=True)
class Failure:
    """What a job has failed of.

    Attributes:
        message: of the error, on one line.
        code: what the command ends with.
        trace: where it happened; empty for what was foreseen.
        job: what the job is called; empty for a run alone.
    """

    message: str
    code: int
    trace: str = ""
    job: str = ""

    @classmethod
    def of(cls, error: BaseException, job: str = "") -> "Failure":
        """Return the failure that an error is."""
        kinds = UserError | StorageError | DivergedError | RankError | ProcessDiedError | Interrupted
        foreseen = isinstance(error, kinds) or (isinstance(error, SeedError) and error.__cause__ is None)
        message = "; ".join([str(error) or type(error).__name__, *getattr(error, "__notes__", ())])
        return cls(message, exit_code(error), "" if foreseen else "".join(traceback.format_exception(error)), job)


@dataclass(frozen=True)
class Failures:
    """The failures of a command's jobs.

    Attributes:
        folder: that has a file for each; a job on another machine does not see it.
    """

    folder: Path

    def add(self, number: int, failure: Failure) -> None:
        """Write what a job has failed of, in place of what was written before."""
        self._file(number).write_text(json.dumps(asdict(failure)), encoding="utf-8")

    def of(self, number: int) -> Failure | None:
        """Return what a job has failed of; None if it has not."""
        try:
            return Failure(**json.loads(self._file(number).read_text(encoding="utf-8")))
        except FileNotFoundError:
            return None

    def told(self) -> list[Failure]:
        """Return all failures in the order of their jobs, each reason once, with the names of its jobs."""
        jobs: dict[Failure, list[str]] = {}
        for file in sorted(self.folder.glob("*.json")):
            failure = Failure(**json.loads(file.read_text(encoding="utf-8")))
            jobs.setdefault(replace(failure, job=""), []).append(failure.job)
        return [replace(failure, message=_named(failure.message, names)) for failure, names in jobs.items()]

    def _file(self, number: int) -> Path:
        return self.folder / f"{number:06}.json"


def _named(message: str, jobs: list[str]) -> str:
    named = [job for job in jobs if job]
    more = len(named) - _MOST_NAMES
    shown = "; ".join(named[:_MOST_NAMES]) + (f" and {more} more" if more > 0 else "")
    return f"{shown}: {message}" if named else message
