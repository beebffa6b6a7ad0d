"""The manager: one device, its sealed shards, and the only way to them (api.md, residency.md)."""

from __future__ import annotations

import copy
import os
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self, Unpack

from vram_residency.audit.log import AuditLogger
from vram_residency.core import context
from vram_residency.core.clock import rfc3339
from vram_residency.core.errors import InvalidInputError
from vram_residency.core.identifiers import is_count, is_unicode, parse_worker_id
from vram_residency.core.keys import check_seal_token
from vram_residency.core.regular_file import printable_path
from vram_residency.device.base import Device, Progress
from vram_residency.formats import ByteSource
from vram_residency.policy import Mode, Policy
from vram_residency.residency.adoptable import ModuleTensors, NamedTensors
from vram_residency.residency.assembly import Parts, assemble
from vram_residency.residency.budget import Capacity
from vram_residency.residency.content import Ended
from vram_residency.residency.identity import Identity
from vram_residency.residency.lender import Loan, Peer
from vram_residency.residency.opening import device_of, number_of, policy_for
from vram_residency.residency.options import ManagerOptions
from vram_residency.residency.order import Order, SealChoices
from vram_residency.residency.registry import Record
from vram_residency.residency.scope import FAST, FULL, Scope, parse_scope, sample
from vram_residency.residency.scrub import Scrubber
from vram_residency.residency.shard import SealedModel, SealedShard, ShardReport, Verification
from vram_residency.residency.verifier import Verifier
from vram_residency.residency.views import Views
from vram_residency.seal import SealKey


class VramManager:
    """Holds sealed shards on one device. Safe to use from several threads.

    Long work (loading, hashing) releases the interpreter lock; from asyncio, call through
    ``asyncio.to_thread``. Use it as a context manager, or call ``close()``.
    """

    def __init__(self, parts: Parts, *, device: Device, worker_id: str, options: ManagerOptions) -> None:
        """Take assembled parts; ``new_with_token`` is the public way in."""
        self._parts = parts
        self._device = device
        self._worker_id = worker_id
        self._options = options
        # A manager that is dropped without close() still frees and audits what it held.
        weakref.finalize(self, parts.custody.close_abandoned).atexit = False

    @classmethod
    def new_with_token(
        cls,
        worker_token: str,
        gpu_device: int = 0,
        audit_logger: AuditLogger | None = None,
        worker_id: str | None = None,
        *,
        device: str | Device = "auto",
        policy: Mode | Policy | None = None,
        options: ManagerOptions | None = None,
    ) -> Self:
        """Open a device and start a manager on it.

        worker_token: the seal token, at least 16 characters; never an API credential, never logged.
        gpu_device: the number that seals and events carry; a card's own where one is named.
        audit_logger: None keeps no record.
        device: ``auto``, ``host``, ``cuda``, ``cuda:N`` or an open Device. policy: None is ``development``
        on the host device and ``strict`` elsewhere. worker_id: None is ``worker-gpu-<gpu_device>``.

        Raises ConfigurationError, InvalidInputError, and, recorded first, PolicyViolationError and
        DeviceLostError.
        """
        # Everything is checked before the first effect.
        options = options or ManagerOptions()
        if not is_count(gpu_device):
            raise InvalidInputError("gpu_device", "must be a device's number, 0 or above")
        gpu_device = number_of(device, gpu_device)
        worker = parse_worker_id(f"worker-gpu-{gpu_device}" if worker_id is None else worker_id)
        check_seal_token(worker_token)
        logger = AuditLogger.disabled() if audit_logger is None else audit_logger
        opened = device_of(device, logger, worker_id=worker, gpu_device=gpu_device, options=options)
        with ExitStack() as undo:
            if opened is not device:
                undo.callback(opened.close)
            parts = assemble(
                opened,
                SealKey(worker_token, worker_id=worker, device_uuid=opened.info.uuid),
                logger,
                identity=Identity(worker, gpu_device, opened.info),
                policy=policy_for(opened, policy, options),
                options=options,
            )
            manager = cls(parts, device=opened, worker_id=worker, options=options)
            manager._start()
            undo.pop_all()
        return manager

    def seal_file(self, path: str | os.PathLike[str], **choices: Unpack[SealChoices]) -> SealedShard:
        """Load a model file into sealed memory and seal what lies there.

        Choices, all by keyword: shard_id, expect (``blake3:…`` or ``sha256:…``, compared with the memory
        before anything is signed), algorithm, format, model_ref (by default the file's name), shard_index,
        total_shards, on_progress (called with bytes done and bytes in all).
        Raises MalformedModelError, DigestMismatchError, InvalidInputError, DuplicateShardError,
        InsufficientMemoryError, AllocationError, PolicyViolationError.
        """
        choices.setdefault("model_ref", printable_path(Path(path).name))
        with self._operation():
            return self._parts.sealer.seal_file(path, Order(name=printable_path(path), **choices)).handle

    def seal_directory(
        self,
        path: str | os.PathLike[str],
        *,
        expect: str | None = None,
        follow_links: bool = False,
        on_progress: Progress | None = None,
    ) -> SealedModel:
        """Seal an indexed model directory: one shard per file, all of them or none.

        expect: the approved manifest digest, ``blake3:…``; of a single file its own digest will do.
        follow_links: take files that lie elsewhere, as in a model hub's cache.
        Raises as ``seal_file``; the shards sealed before a failure are freed.
        """
        with self._operation(), ExitStack() as undo:
            directory = self._parts.sealer.read_directory(path, follow_links=follow_links)
            records = {}
            for file in directory.files:
                shard = self.seal_file(
                    file.path, shard_index=file.index, total_shards=file.total, on_progress=on_progress
                )
                undo.callback(self.deallocate, shard)
                records[file.name] = self._parts.registry.find(shard.shard_id)
            model = self._parts.sealer.model_of(directory, records, expect)
            undo.pop_all()
            return model

    def seal_source(self, source: ByteSource, *, name: str, **choices: Unpack[SealChoices]) -> SealedShard:
        """Load from anything that can be read from any offset: an open file, a stream with its size known.

        ``name`` stands for it in errors, and its ending says the format. ``source`` stays the caller's.
        Choices and errors as for ``seal_file``.
        """
        with self._operation():
            return self._parts.sealer.seal_source(source, Order(name=name, **choices)).handle

    def seal_model(self, buffer: Any, **choices: Unpack[SealChoices]) -> SealedShard:
        """Copy bytes or any buffer object into sealed memory and seal what lies there.

        Choices and errors as for ``seal_file``; the bytes are raw unless ``format`` or GGUF magic says
        more.
        """
        with self._operation():
            return self._parts.sealer.seal_buffer(buffer, Order(name="buffer", **choices)).handle

    def seal_tensors(
        self,
        tensors: Mapping[str, Any],
        *,
        shard_id: str | None = None,
        expect: str | None = None,
        model_ref: str | None = None,
    ) -> SealedShard:
        """Adopt tensors where they lie: verified in place, never copied.

        NumPy arrays, any host buffer, and whatever speaks DLPack from host memory (PyTorch, JAX). They cannot
        be made read-only; change them lawfully with ``reseal``.
        Raises InvalidInputError, DigestMismatchError, DuplicateShardError.
        """
        order = Order(name="tensors", shard_id=shard_id, expect=expect, model_ref=model_ref)
        with self._operation():
            return self._parts.sealer.seal_tensors(NamedTensors(tensors), order).handle

    def seal_module(
        self,
        module: Any,
        *,
        shard_id: str | None = None,
        expect: str | None = None,
        model_ref: str | None = None,
    ) -> SealedShard:
        """Adopt the parameters and buffers of a live ``torch.nn.Module``, by its own names for them.

        Whatever changes them afterwards is caught and named: a write through ``.data``, an optimizer's step,
        a parameter that was replaced, added or removed. Raises as ``seal_tensors``.
        """
        order = Order(name="module", shard_id=shard_id, expect=expect, model_ref=model_ref)
        with self._operation():
            return self._parts.sealer.seal_tensors(ModuleTensors(module), order).handle

    def reseal(self, shard: SealedShard | str, *, reason: str) -> SealedShard:
        """Seal adopted weights as they are now, under the same id; the old handle ends.

        Raises InvalidInputError for memory of our own, which is read-only, and for an empty reason.
        """
        if not is_unicode(reason) or not reason.strip():
            raise InvalidInputError("reason", "must say why the weights changed")
        with self._operation():
            return self._parts.sealer.reseal(self._parts.verifier.admit(shard), reason).handle

    def verify_sealed(self, shard: SealedShard | str, *, scope: str | Scope = FULL) -> Verification:
        """Check that a shard is, now, what was sealed.

        scope: ``full``, ``fast`` (on host the full pass), ``sample`` or ``sample(fraction)``.
        Raises SealVerificationError on damage, after quarantining the shard; UnknownShardError and
        NotSealedError for a bad handle, without any change of state.
        """
        with self._operation():
            return self._parts.verifier.verify(self._parts.verifier.admit(shard), parse_scope(scope))

    @contextmanager
    def execution(
        self, shard: SealedShard | str, scope: str | Scope | None = None, *, recheck: bool = False
    ) -> Iterator[Views]:
        """Verify, then hand out read-only views by tensor name, valid inside the block.

        scope: None is the gate's own (fast on cuda, sample on host). recheck: verify again before the
        block's results may leave. Raises as ``verify_sealed``.
        """
        chosen = self._gate_scope() if scope is None else parse_scope(scope)
        with self._operation(), self._parts.gate.open(shard, chosen, recheck=recheck) as views:
            yield views

    def attest(self, shard: SealedShard | str, *, nonce: str, scope: str | Scope = FULL) -> dict[str, Any]:
        """Verify now and sign that for a third party: a DSSE envelope around an in-toto statement.

        nonce: 1 to 128 characters chosen by the one who asks. Check it with ``seal.open_attestation`` and
        ``attestation_public_key``. Raises as ``verify_sealed``.
        """
        with self._operation():
            record = self._parts.verifier.admit(shard)
            return self._parts.attester.attest(record, nonce=nonce, scope=parse_scope(scope))

    @property
    def attestation_public_key(self) -> bytes:
        """The 32 bytes of Ed25519 public key that attestations are checked with."""
        return self._parts.attester.public_key

    @contextmanager
    def lend(
        self, shard: SealedShard | str, *, nonce: str, peer: Peer, on_revoked: Callable[[int], object]
    ) -> Iterator[Loan]:
        """Verify a shard and lend it to another process for as long as the block lasts (``sharing`` does)."""
        with self._operation():
            record = self._parts.verifier.admit(shard)
            with self._parts.lender.lend(record, nonce=nonce, peer=peer, on_revoked=on_revoked) as loan:
                yield loan

    def revoke(self, shard: SealedShard | str) -> int:
        """End every loan of a shard and say how many there were. Raises UnknownShardError."""
        with self._operation():
            return self._parts.lender.revoke(self._parts.verifier.find(shard).shard.shard_id)

    def seal_borrowed(
        self, descriptor: int, *, size_bytes: int, ended: Ended, **choices: Unpack[SealChoices]
    ) -> SealedShard:
        """Map, measure and seal memory that another process sealed and lent (``sharing`` does).

        ``descriptor`` stays the caller's. ``ended`` says why the loan ended, or None while it lasts.
        Raises InvalidInputError, MalformedModelError, DigestMismatchError, AllocationError.
        """
        order = Order(name="shared memory", **choices)
        with self._operation():
            label = order.shard_id or order.name
            memory = self._device.borrow(descriptor, size_bytes=size_bytes, label=label)
            return self._parts.sealer.seal_borrowed(memory, ended, order).handle

    def scrub(self, interval_s: float = 3600.0, share: float = 0.05) -> Scrubber:
        """Verify every shard in the background within a bounded share of one thread's time.

        ``describe`` says when each shard was last wholly verified. Ends with ``stop()`` or the manager.
        """
        self._require_open()
        # Not a method of ours: a manager that is dropped must not be kept by its own scrubber.
        verify = partial(_verify_in_background, self._parts.verifier, self._worker_id)
        scrubber = Scrubber(
            self._parts.registry, verify, interval_s=interval_s, share=share, clock=self._options.clock
        )
        self._parts.custody.add_scrubber(scrubber)
        return scrubber

    def deallocate(self, shard: SealedShard | str) -> None:
        """Free a shard. Raises DeviceBusyError while a block or a view of it lives, UnknownShardError."""
        with self._operation():
            self._parts.custody.give_back(self._parts.verifier.find(shard))

    def shards(self) -> list[SealedShard]:
        """Handles of all shards held, quarantined ones included, in the order in which they were sealed."""
        return [record.handle for record in self._parts.registry.records()]

    def describe(self, shard: SealedShard | str) -> ShardReport:
        """Everything that can be said about a shard without reading its memory. Raises UnknownShardError."""
        with self._operation():
            record = self._parts.verifier.find(shard)
        return ShardReport(
            shard=record.handle,
            state=record.state,
            format=record.layout.format,
            statement=record.statement,
            residency=copy.deepcopy(record.residency),
            timings=record.timings,
            fully_verified_at=rfc3339(record.fully_verified_ns),
            tensor_digests=dict(record.tensor_digests),
        )

    def capacity(self) -> Capacity:
        """Total, used, available and headroom bytes at one instant."""
        capacity = self._parts.budget.capacity()
        with context.operation(self._worker_id):
            self._parts.recorder.capacity_asked(capacity)
        return capacity

    def total_vram(self) -> int:
        """Bytes that the device has."""
        return self.capacity().total_bytes

    def used_vram(self) -> int:
        """Bytes that shards use."""
        return self.capacity().used_bytes

    def available_vram(self) -> int:
        """Bytes that a shard may still take."""
        return self.capacity().available_bytes

    @property
    def would_have_blocked(self) -> int:
        """How many executions only the gate's ``log`` mode let through."""
        return self._parts.gate.would_have_blocked

    @property
    def audit_failures(self) -> int:
        """How many audit events could not be recorded."""
        return self._parts.recorder.audit_failures

    def enforce_vram_only_policy(self) -> None:
        """Judge the device now. Raises PolicyViolationError, recorded first."""
        with self._operation():
            self._parts.guard.check_device()

    def close(self) -> None:
        """Free and audit everything; what is still in use is freed when its last view dies. Never raises."""
        self._parts.custody.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"VramManager(worker_id={self._worker_id!r}, device={self._device.info.name!r})"

    def _start(self) -> None:
        with context.operation(self._worker_id):
            try:
                self._parts.guard.check_device()
            except BaseException:
                self.close()
                raise
            self._parts.gate.announce()
            self._parts.recorder.started(self._parts.budget.capacity())

    @contextmanager
    def _operation(self) -> Iterator[None]:
        self._require_open()
        with context.operation(self._worker_id):
            yield

    def _require_open(self) -> None:
        self._parts.registry.require_open()

    def _gate_scope(self) -> Scope:
        if self._options.gate_scope is not None:
            return self._options.gate_scope
        return sample() if self._device.info.kind == "host" else FAST


def _verify_in_background(verifier: Verifier, worker_id: str, record: Record) -> None:
    with context.operation(worker_id):
        verifier.verify(record, FULL)
