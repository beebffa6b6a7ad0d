"""Sealing: from bytes that somebody offers to a shard that can be verified (residency.md sections 1 to 4).

Everything is validated before the first effect, and every effect is undone if a later step fails: an error,
a refusal or an interrupt at any point leaves the memory free, the budget whole and the id unused.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from types import TracebackType
from typing import Any

from vram_residency import formats
from vram_residency.core.clock import Clock
from vram_residency.core.errors import (
    DigestMismatchError,
    InvalidInputError,
    MalformedModelError,
    RefusedError,
)
from vram_residency.core.identifiers import new_shard_id, parse_shard_id
from vram_residency.core.regular_file import printable_path
from vram_residency.device.base import SealedMemory
from vram_residency.digest.value import Digest
from vram_residency.formats import ByteSource, FileSource, Layout, MemorySource, ModelDirectory
from vram_residency.residency.adopted import AdoptedContent, Tensors
from vram_residency.residency.content import Content, Ended, SealedContent
from vram_residency.residency.guard import Guard
from vram_residency.residency.loader import Loader, system_errors_named
from vram_residency.residency.notary import Notary
from vram_residency.residency.order import Order
from vram_residency.residency.recorder import Recorder
from vram_residency.residency.registry import Record, Registry
from vram_residency.residency.shard import SealedModel, Timings


class Sealer:
    """Makes records and hands them to the registry. Safe to use from several threads."""

    def __init__(
        self,
        *,
        loader: Loader,
        notary: Notary,
        registry: Registry,
        guard: Guard,
        recorder: Recorder,
        clock: Clock,
    ) -> None:
        self._loader = loader
        self._notary = notary
        self._registry = registry
        self._guard = guard
        self._recorder = recorder
        self._clock = clock

    def seal_file(self, path: str | os.PathLike[str], order: Order) -> Record:
        """Load and seal a regular file. Raises InvalidInputError where it cannot be read."""
        with self._recording_refusals(order, "path"):
            source = FileSource(path)
        with source:
            return self.seal_source(source, order)

    def seal_buffer(self, buffer: Any, order: Order) -> Record:
        """Copy and seal bytes or any contiguous buffer object."""
        with self._recording_refusals(order, "buffer"):
            source = MemorySource(_bytes_of(buffer))
        with source:
            return self.seal_source(source, order)

    def read_directory(self, path: str | os.PathLike[str], *, follow_links: bool) -> ModelDirectory:
        """Read the index of a model directory. Raises InvalidInputError, MalformedModelError."""
        with self._recording_refusals(Order(name=printable_path(path)), "path"):
            return formats.read_model_directory(path, follow_links=follow_links)

    def model_of(
        self, directory: ModelDirectory, records: Mapping[str, Record], expect: str | None
    ) -> SealedModel:
        """Join the sealed files of a directory, by name, after comparing them with its index and ``expect``.

        Raises MalformedModelError, DigestMismatchError.
        """
        order = Order(name=directory.path, expect=expect)
        with self._recording_refusals(order, "path"):
            directory.require_layouts({name: record.layout for name, record in records.items()})
            approved = order.approved()
        digests = {name: record.shard.digest for name, record in records.items()}
        manifest_digest = directory.manifest_digest(digests)
        if approved is not None and str(approved) not in {manifest_digest, *_only(digests)}:
            self._recorder.digest_mismatched(order.reference, str(approved), manifest_digest)
            raise DigestMismatchError(str(approved), manifest_digest)
        return SealedModel(tuple(record.handle for record in records.values()), manifest_digest)

    def seal_tensors(self, tensors: Tensors, order: Order) -> Record:
        """Adopt arrays that are already in host memory, in place: nothing is copied or allocated."""
        started_ns = self._clock.monotonic_ns()
        with self._claimed(order) as (shard_id, undo):
            with self._recording_refusals(order, "tensors"):
                approved = order.approved()
                if approved is not None and approved.algorithm != "blake3":
                    raise InvalidInputError("expect", "adopted tensors have a blake3 digest alone")
                content = AdoptedContent(tensors)
                self._guard.check_device()
                measured = content.measure(order.on_progress)
            self._recorder.digest_computed("blake3", content.size_bytes, self._since_ms(started_ns))
            self._require_approved(order, approved, content, measured.digest)
            record = self._notary.sign(order, shard_id, content, layout=content.layout, measured=measured)
            record.tensor_digests = content.tensor_digests()
            self._register(record, undo, started_ns)
            return record

    def seal_borrowed(self, memory: SealedMemory, ended: Ended, order: Order) -> Record:
        """Seal memory that another process sealed and lent, after measuring it here."""
        started_ns = self._clock.monotonic_ns()
        with self._claimed(order) as (shard_id, undo):
            undo.callback(memory.free_when_unused, lambda _wiped: None)
            with self._recording_refusals(order, "descriptor"):
                approved = order.approved()
                self._guard.check_device()
                content = self._loader.borrowed(memory, ended, order)
                layout = content.parse(order)
            with system_errors_named():
                measured = content.measure()
            self._recorder.digest_computed(order.algorithm, content.size_bytes, self._since_ms(started_ns))
            self._require_approved(order, approved, content, measured.digest)
            record = self._notary.sign(order, shard_id, content, layout=layout, measured=measured)
            self._register(record, undo, started_ns)
            return record

    def reseal(self, record: Record, reason: str) -> Record:
        """Measure adopted weights as they are now and sign that, under the same id."""
        started_ns, shard = self._clock.monotonic_ns(), record.shard
        order = Order(name="tensors", model_ref=shard.model_ref)
        with self._recording_refusals(order, "shard"):
            if not isinstance(record.content, AdoptedContent):
                hint = "Seal the new model under a new id and free this one."
                raise InvalidInputError("shard", "owns read-only memory, which cannot change", hint=hint)
            content = record.content.adopted_anew()
            self._guard.check_device()
            measured = content.measure()
        self._recorder.digest_computed("blake3", content.size_bytes, self._since_ms(started_ns))
        renewed = self._notary.sign(order, shard.shard_id, content, layout=content.layout, measured=measured)
        renewed.tensor_digests = content.tensor_digests()
        self._registry.replace(record, renewed)
        with ExitStack() as undo:
            undo.callback(self._registry.replace, renewed, record)
            self._recorder.resealed(renewed, shard.digest, reason, self._since_ms(started_ns))
            undo.pop_all()
        return renewed

    def seal_source(self, source: ByteSource, order: Order) -> Record:
        """Load ``source`` into sealed memory of the device.

        Steps: (1) the order and the device are checked, (2) the header is parsed where it lies, so that a
        malformed file costs no memory, (3) memory is reserved, allocated, filled and made immutable,
        (4) it is measured through its final mapping, (5) compared with what was approved, (6) parsed again,
        now from the memory itself, (7) judged by the policy, signed and registered.
        """
        started_ns = self._clock.monotonic_ns()
        with self._claimed(order) as (shard_id, undo):
            with self._recording_refusals(order, "model"):
                # (1), (2)
                approved = order.approved()
                self._guard.check_device()
                announced = formats.parse(source, name=order.name, format=order.format)
                # (3)
                content = self._loader.load(source, order, shard_id, undo)
            loaded_ns = self._clock.monotonic_ns()
            with self._loader.recording_driver_errors(content.size_bytes), system_errors_named():
                # (4)
                measured = content.measure()
                digest_ms = self._since_ms(loaded_ns)
                self._recorder.digest_computed(order.algorithm, content.size_bytes, digest_ms)
                # (5)
                self._require_approved(order, approved, content, measured.digest)
                # (6)
                layout = self._parsed_again(order, content, announced)
                # (7)
                record = self._notary.sign(order, shard_id, content, layout=layout, measured=measured)
            record.timings = Timings(load_s=(loaded_ns - started_ns) / 1e9, digest_s=digest_ms / 1e3)
            self._register(record, undo, started_ns)
            return record

    def _parsed_again(self, order: Order, content: SealedContent, announced: Layout) -> Layout:
        with self._recording_refusals(order, "model"):
            layout = content.parse(order)
            if layout != announced:
                raise MalformedModelError(order.name, 0, "changed while it was read")
            return layout

    @contextmanager
    def _claimed(self, order: Order) -> Iterator[tuple[str, ExitStack]]:
        """Claim an id, and give it back, with all that was put on the stack, unless the block ends well."""
        with ExitStack() as undo:
            undo.push(self._count_failure)
            with self._recording_refusals(order, "shard_id"):
                shard_id = new_shard_id() if order.shard_id is None else parse_shard_id(order.shard_id)
                self._registry.claim(shard_id)
            undo.callback(self._registry.forget_claim, shard_id)
            yield shard_id, undo
            undo.pop_all()

    def _count_failure(
        self, _kind: type[BaseException] | None, error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        if error is not None:
            self._recorder.seal_failed(error)

    @contextmanager
    def _recording_refusals(self, order: Order, what: str) -> Iterator[None]:
        """Bad input is recorded where it is refused, then refused."""
        try:
            yield
        except MalformedModelError as error:
            self._recorder.model_rejected(order.reference, str(error))
            raise
        except RefusedError as error:
            self._recorder.input_refused(what, str(error))
            raise

    def _require_approved(self, order: Order, approved: Digest | None, content: Content, digest: str) -> None:
        """Compare what memory holds with what was approved, before anything is signed."""
        if approved is None:
            return
        is_same_algorithm = digest.startswith(f"{approved.algorithm}:")
        actual = digest if is_same_algorithm else content.digest_by(approved.algorithm)
        if actual != str(approved):
            self._recorder.digest_mismatched(order.reference, str(approved), actual)
            raise DigestMismatchError(str(approved), actual)

    def _register(self, record: Record, undo: ExitStack, started_ns: int) -> None:
        # Undone even if interrupted right after it was added: what stays registered must not be freed twice.
        undo.callback(self._registry.remove, record)
        self._registry.add(record)
        self._recorder.sealed(record, self._since_ms(started_ns))

    def _since_ms(self, started_ns: int) -> float:
        return (self._clock.monotonic_ns() - started_ns) / 1e6


def _only(digests: Mapping[str, str]) -> tuple[str, ...]:
    """The digest of the one file, where there is one."""
    return tuple(digests.values()) if len(digests) == 1 else ()


def _bytes_of(buffer: Any) -> memoryview:
    try:
        return memoryview(buffer).cast("B")
    except (TypeError, ValueError, BufferError) as error:
        raise InvalidInputError("buffer", f"must be a contiguous buffer object: {error}") from None
