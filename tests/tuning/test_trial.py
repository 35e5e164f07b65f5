"""What a trial's process says."""

import logging

import pytest

from cl_powerprop.record import Job
from cl_powerprop.tuning.trial import _named


def test_warnings_say_which_trial_they_are_of(caplog: pytest.LogCaptureFixture) -> None:
    log = logging.getLogger("cl_powerprop")
    title = Job(8, "lr 0.1", kind="trial").title
    with _named(title):
        log.warning("task %d: capacity exhausted: 50 %% of the accuracy", 2)
        log.warning("trial 8: lr 0.1: has said so itself")
    log.warning("later")
    assert caplog.messages == [
        "trial 8: lr 0.1: task 2: capacity exhausted: 50 % of the accuracy",
        "trial 8: lr 0.1: has said so itself",
        "later",
    ]
