"""Every error of the library has a code, and no other error says anything of itself."""

from __future__ import annotations

from copy import copy

import pytest

from vram_residency.core import errors
from vram_residency.worker import problem
from vram_residency.worker.problem import Refused, problem_of

CODES = {
    "INVALID_PARAMS", "AUTH_FAILED", "VRAM_OOM", "DEVICE_ERROR", "MODEL_REJECTED", "DIGEST_MISMATCH",
    "SEAL_VERIFICATION_FAILED", "POLICY_VIOLATION", "WORKER_STOPPED", "BUSY", "DEADLINE_EXCEEDED", "INTERNAL",
}  # fmt: skip


def every_error(kind: type[errors.VramError] = errors.VramError) -> list[type[errors.VramError]]:
    """The whole tree."""
    return [kind, *(each for child in kind.__subclasses__() for each in every_error(child))]


@pytest.mark.parametrize("kind", every_error(), ids=lambda kind: kind.__name__)
def test_every_error_has_a_code_of_the_specification(kind: type[errors.VramError]):
    error = kind(*("x" for _ in kind.fields))
    found = problem_of(error, correlation_id="c")
    assert found.code in CODES
    assert (found.title, found.correlation_id) != ("", None)
    assert found.retriable == (found.retry_after_ms is not None)
    if issubclass(kind, errors.FatalError):
        assert not found.retriable
        assert found.status == 503
    if issubclass(kind, errors.RefusedError):
        assert 400 <= found.status < 500


def test_every_code_is_used():
    kinds = [each for each in vars(problem).values() if isinstance(each, problem.Kind)]
    assert {each.code for each in kinds} == CODES


def test_a_foreign_error_says_nothing_of_itself():
    found = problem_of(RuntimeError("a secret"), correlation_id=None)
    assert (found.code, found.status) == ("INTERNAL", 500)
    assert "secret" not in repr(found)


def test_a_refusal_can_be_copied():
    first = Refused(problem.BUSY, "come again", hint="later")
    assert problem_of(copy(first), correlation_id=None) == problem_of(first, correlation_id=None)
