"""The one tree of errors (spec: residency.md section 7).

::

    VramError
    ├── ResidencyError
    │   ├── RetriableError              the same call may succeed later
    │   │   ├── InsufficientMemoryError   requested_bytes, available_bytes
    │   │   ├── AllocationError           operation, reason
    │   │   └── DeviceBusyError           shard_id, use
    │   ├── FatalError                  the worker must stop
    │   │   ├── SealVerificationError     shard_id, reason, finding
    │   │   ├── PolicyViolationError      policy, violation, details
    │   │   └── DeviceLostError           device, details
    │   └── RefusedError                the caller's input is at fault
    │       ├── InvalidInputError         field, rule
    │       ├── MalformedModelError       path, offset, rule
    │       ├── DigestMismatchError       expected, actual
    │       ├── DuplicateShardError       shard_id
    │       ├── UnknownShardError         shard_id
    │       ├── NotSealedError            shard_id, state
    │       └── ConfigurationError        setting, rule
    │           └── MissingKeyError         setting, rule
    ├── AuditError
    │   ├── InvalidEventError             event_type, rule
    │   ├── BufferFullError               capacity
    │   ├── LogClosedError                directory
    │   ├── AuditWriteError               path, operation, reason
    │   ├── LogDamagedError               path, offset, reason
    │   ├── LogLockedError                directory, holder
    │   └── WitnessError                  url, reason
    └── WorkerError                     what a client of a worker hears
        ├── WorkerRefusedError            code, detail
        └── WorkerUnreachableError        address, reason

Every error carries its data as attributes, survives pickling, and says in ``hint`` what to do next.
No message ever holds a device pointer or a secret.
"""

from __future__ import annotations

from typing import ClassVar


class VramError(Exception):
    """The root. ``str(error)`` says what went wrong and where; ``error.hint`` says what to do next."""

    fields: ClassVar[tuple[str, ...]] = ()
    template: ClassVar[str] = ""
    default_hint: ClassVar[str] = "Run `vram --help`."

    def __init__(self, *data: object, hint: str | None = None) -> None:
        if len(data) != len(self.fields):
            raise TypeError(f"{type(self).__name__} takes {', '.join(self.fields)}")
        # args are the data alone, so that the default pickling calls __init__ with them again.
        super().__init__(*data)
        self._hint = hint
        for name, value in zip(self.fields, data, strict=True):
            setattr(self, name, value)

    @property
    def hint(self) -> str:
        """The next step for the person who reads this."""
        return self._hint or self.default_hint.format(**self._data())

    def __str__(self) -> str:
        return self.template.format(**self._data())

    def _data(self) -> dict[str, object]:
        return dict(zip(self.fields, self.args, strict=True))


class ResidencyError(VramError):
    """Something about memory, seals or the models in them."""


class RetriableError(ResidencyError):
    """Nothing is wrong with the input; the same call may succeed later."""


class InsufficientMemoryError(RetriableError):
    """The device has no room for the request."""

    requested_bytes: int
    available_bytes: int
    fields = ("requested_bytes", "available_bytes")
    template = "not enough device memory: {requested_bytes} bytes requested, {available_bytes} available"
    default_hint = "Free a shard, raise the device's capacity, or load a smaller model."


class AllocationError(RetriableError):
    """The driver or the kernel refused memory."""

    operation: str
    reason: str
    fields = ("operation", "reason")
    template = "memory could not be allocated: {operation}: {reason}"
    default_hint = "Check `ulimit -a` and the free memory of the machine, then try again."


class DeviceBusyError(RetriableError):
    """A shard is still in use by live views."""

    shard_id: str
    use: str
    fields = ("shard_id", "use")
    template = "shard '{shard_id}' is in use: {use}"
    default_hint = "Drop the views taken from execution() and call again."


class FatalError(ResidencyError):
    """What was promised about memory no longer holds; stop and look."""


class SealVerificationError(FatalError):
    """A sealed shard is not what was sealed.

    ``reason`` is one of the reasons of ``seal_verification_failed`` (events.md); ``finding`` says in words
    where the damage lies. ``expected_digest``, ``actual_digest``, ``first_bad_offset``,
    ``last_bad_offset`` (bytes, inclusive) and ``tensors`` (names) are set where they are known.
    """

    shard_id: str
    reason: str
    finding: str
    fields = ("shard_id", "reason", "finding")
    template = "shard '{shard_id}' failed verification ({reason}): {finding}"
    default_hint = "Do not serve from this process. Keep it for forensics and load the model again elsewhere."

    expected_digest: str = ""
    actual_digest: str = ""
    first_bad_offset: int | None = None
    last_bad_offset: int | None = None
    tensors: tuple[str, ...] = ()


class PolicyViolationError(FatalError):
    """The memory or the device is not what the policy asks for."""

    policy: str
    violation: str
    details: str
    fields = ("policy", "violation", "details")
    template = "policy '{policy}' violated ({violation}): {details}"
    default_hint = "Use a discrete GPU, or the policy 'development' to run without the guarantee."


class DeviceLostError(FatalError):
    """The device stopped answering, or was never usable."""

    device: str
    details: str
    fields = ("device", "details")
    template = "device '{device}' is not usable: {details}"
    default_hint = "Check the driver with `nvidia-smi`; name --device host to run on the host device."


class RefusedError(ResidencyError):
    """The input breaks a rule; the same call will fail again."""


class InvalidInputError(RefusedError):
    """A value given by the caller breaks a rule."""

    field: str
    rule: str
    fields = ("field", "rule")
    template = "{field}: {rule}"
    default_hint = "Correct {field} and call again."


class MalformedModelError(RefusedError):
    """A model file breaks a rule of its format."""

    path: str
    offset: int
    rule: str
    fields = ("path", "offset", "rule")
    template = "{path}: malformed model at byte {offset}: {rule}"
    default_hint = "Fetch the file again and compare its digest with the publisher's."


class DigestMismatchError(RefusedError):
    """The bytes in memory are not the ones that were expected."""

    expected: str
    actual: str
    fields = ("expected", "actual")
    template = "digest mismatch: expected {expected}, memory holds {actual}"
    default_hint = "The file is not the approved one: fetch it again, or approve the new digest."


class DuplicateShardError(RefusedError):
    """A shard id is used, or was used, in this manager."""

    shard_id: str
    fields = ("shard_id",)
    template = "shard id '{shard_id}' was already used in this manager; ids are never reused"
    default_hint = "Choose another shard_id, or leave it out to have one made."


class UnknownShardError(RefusedError):
    """No such shard lives here, or the handle was altered."""

    shard_id: str
    fields = ("shard_id",)
    template = "no shard '{shard_id}' is held here as the handle describes it"
    default_hint = "List what is held with shards()."


class NotSealedError(RefusedError):
    """The shard is known but cannot be used."""

    shard_id: str
    state: str
    fields = ("shard_id", "state")
    template = "shard '{shard_id}' is {state}"
    default_hint = "Seal the model again under a new id."


class ConfigurationError(RefusedError):
    """A setting is missing, unsafe or contradicts another."""

    setting: str
    rule: str
    fields = ("setting", "rule")
    template = "{setting}: {rule}"
    default_hint = "Correct the setting {setting}."


class MissingKeyError(ConfigurationError):
    """A key that is needed is not where it was named."""

    default_hint = "Name the folder that holds the key, or bring the key back."


class AuditError(VramError):
    """Something about the audit log."""


class InvalidEventError(AuditError):
    """An event has a wrong type or name; nothing was accepted."""

    event_type: str
    rule: str
    fields = ("event_type", "rule")
    template = "event '{event_type}' refused: {rule}"
    default_hint = "See docs/format/events.md for the fields of each event."


class BufferFullError(AuditError):
    """The log's buffer has no slot left; the event was counted as dropped."""

    capacity: int
    fields = ("capacity",)
    template = "the audit buffer is full ({capacity} events); the event was counted as dropped"
    default_hint = "Check that the log's disk accepts writes; raise capacity if bursts are expected."


class LogClosedError(AuditError):
    """The log was closed, or belongs to the parent of this forked process."""

    directory: str
    fields = ("directory",)
    template = "the audit log {directory} is closed"
    default_hint = "Open the log again in this process."


class AuditWriteError(AuditError):
    """The log could not be written; no event was lost, none is acknowledged."""

    path: str
    operation: str
    reason: str
    fields = ("path", "operation", "reason")
    template = "{path}: {operation} failed: {reason}"
    default_hint = "Make room or repair the file system; events stay in the buffer until then."


class LogDamagedError(AuditError):
    """The log on disk contradicts itself: it is evidence and is left as it is."""

    path: str
    offset: int | None
    reason: str
    fields = ("path", "offset", "reason")
    template = "{path}: the log is damaged: {reason}"
    default_hint = (
        "Keep the directory as evidence and run `vram audit verify` on it; open a new log elsewhere."
    )


class LogLockedError(AuditError):
    """Another process writes this log."""

    directory: str
    holder: str
    fields = ("directory", "holder")
    template = "the audit log {directory} is being written by {holder}"
    default_hint = "Stop that process, or give this one a log directory of its own."


class WitnessError(AuditError):
    """A witness gave no cosignature; the log itself is as it was."""

    url: str
    reason: str
    fields = ("url", "reason")
    template = "the witness {url} gave no cosignature: {reason}"
    default_hint = "Ask the witness's operator whether it runs and knows this log's vkey; try again later."


class WorkerError(VramError):
    """A worker was asked over its API, and gave no result."""


class WorkerRefusedError(WorkerError):
    """The worker's own answer: problem details (worker.md, "Endpoints").

    ``code`` is one of the API's error codes. ``status``, ``retriable``, ``retry_after_ms`` and
    ``correlation_id`` are as the worker said.
    """

    code: str
    detail: str
    fields = ("code", "detail")
    template = "{detail}"
    default_hint = "The worker's log and narration have the details."

    status: int = 0
    retriable: bool = False
    retry_after_ms: int | None = None
    correlation_id: str | None = None


class WorkerUnreachableError(WorkerError):
    """No worker answered, or it went away in the middle of its answer."""

    address: str
    reason: str
    fields = ("address", "reason")
    template = "no worker answers at {address}: {reason}"
    default_hint = "Start one with `vram serve`, or name another: --socket PATH, --url URL."
