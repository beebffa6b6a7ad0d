"""The steps of a verification, one after the other (spec: audit-log.md section 6). It writes nothing."""

from __future__ import annotations

from typing import Final

from vram_residency.audit.format import note
from vram_residency.audit.format.chain import genesis_id
from vram_residency.audit.format.checkpoint import CheckpointFormatError, SignedCheckpoint, open_signed
from vram_residency.audit.reading import source as reading
from vram_residency.audit.reading import trust
from vram_residency.audit.reading.key_chain import (
    has_signed,
    log_json_fault,
    possible_signers,
    signer_fault,
)
from vram_residency.audit.reading.locator import find_changed, first_difference
from vram_residency.audit.reading.pruned import Start, find_start
from vram_residency.audit.reading.replay import Replay, RootFault
from vram_residency.audit.reading.survey import Progress, Survey, unreadable
from vram_residency.audit.reading.verdict import Checked, Fault, FirstBad, GapFault, Verdict, Word
from vram_residency.audit.store.directory import Directory, LogConfig, LogConfigError
from vram_residency.core.errors import InvalidInputError

_LOG_JSON: Final = "log.json"
_CHECKPOINT: Final = "checkpoint"
_NOTE_ERRORS: Final = (note.NoteFormatError, note.NoteVerificationError, CheckpointFormatError)


class Examination:
    """One run. Faults that do not stop the pass are kept, the first of each kind."""

    def __init__(
        self,
        place: Directory,
        trusted: trust.TrustedKeys,
        outside_note: bytes | None,
        *,
        workers: int | None,
        on_progress: Progress | None,
    ) -> None:
        self._place = place
        self._trusted = trusted
        self._outside_note = outside_note
        self._workers = workers
        self._on_progress = on_progress
        self._outside: SignedCheckpoint | None = None
        self._checkpoint: SignedCheckpoint | None = None
        self._config: LogConfig | None = None
        self._log_json = b""
        #: What came of the entries; None before run(), or where they were not reached.
        self.replay: Replay | None = None
        self._faults: list[Fault] = []
        self._end: tuple[str | None, int] = (None, 0)
        self._torn_bytes = 0
        self._is_read = False
        self._is_tree_checked = False

    def run(self) -> Verdict:
        """Check everything; the worst that was found is the verdict."""
        try:
            # 1. How long the log says it is: first, because a writer may be at work.
            unverified_note = self._read_checkpoint()
            # 2. Whose log it is.
            config = self._read_config()
            # 3. The signatures (section 3).
            self._check_checkpoint(unverified_note, config)
            self._check_outside(config)
            # 4. Every entry (sections 2, 3).
            replay = self._replay_entries(config)
            # 5. What the entries authenticate: log.json, and the keys in it.
            self._check_log_json(replay)
            self._check_signers(replay)
            # 6. The entries against the checkpoints.
            self._check_sizes(replay)
            self._check_roots(replay)
            # 7. What is missing was removed with an authenticated record (section 7).
            self._check_pruned(replay)
        except Fault as fault:
            self._faults.insert(0, fault)
        # 8. The verdict, worst first.
        return self._verdict()

    # --- 1, 2: the small files -------------------------------------------------------------------------

    def _read_checkpoint(self) -> bytes | None:
        try:
            return reading.read_small(self._place.checkpoint)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise unreadable(_CHECKPOINT, error) from None

    def _read_config(self) -> LogConfig:
        try:
            self._log_json = reading.read_small(self._place.log_json)
        except FileNotFoundError:
            raise Fault("tampered", "log.json is missing", file=_LOG_JSON) from None
        except OSError as error:
            raise unreadable(_LOG_JSON, error) from None
        try:
            config = LogConfig.parse(self._log_json)
        except LogConfigError as error:
            raise Fault("tampered", f"log.json is malformed: {error}", file=_LOG_JSON) from None
        self._config = config
        return config

    # --- 3: signatures ---------------------------------------------------------------------------------

    def _check_checkpoint(self, unverified_note: bytes | None, config: LogConfig) -> None:
        trusted_key = self._trusted.vkey
        if trusted_key is not None and str(trusted_key) not in config.vkeys:
            self._add(Fault("tampered", "log.json does not name the trusted key", file=_LOG_JSON))
        genesis_key = self._trusted.genesis_key
        if genesis_key is not None and genesis_id(genesis_key) != config.mac_genesis_id:
            self._add(Fault("tampered", "log.json does not name the trusted K_0", file=_LOG_JSON))
        if unverified_note is None:
            self._add(Fault("truncated", "there is no checkpoint", file=_CHECKPOINT))
            return
        try:
            # Which of the log's keys must have signed it, its entries tell: step 5.
            self._checkpoint = open_signed(
                unverified_note, possible_signers(config, self._trusted.vkey), origin=config.origin
            )
        except _NOTE_ERRORS as error:
            self._add(
                Fault("tampered", f"the checkpoint is malformed or not signed: {error}", file=_CHECKPOINT)
            )

    def _check_outside(self, config: LogConfig) -> None:
        if self._outside_note is None:
            return
        try:
            self._outside = open_signed(
                self._outside_note, possible_signers(config, self._trusted.vkey), origin=config.origin
            )
        except _NOTE_ERRORS as error:
            if self._trusted.trust == "given" and self._trusted.vkey is not None:
                raise InvalidInputError("checkpoint", f"does not belong to the vkey: {error}") from None
            self._add(Fault("tampered", f"the log is not the one of the checkpoint given: {error}"))

    # --- 4: entries ------------------------------------------------------------------------------------

    def _replay_entries(self, config: LogConfig) -> Replay:
        try:
            return self._replay_from(config, None)
        except GapFault as gap:
            # Unverified: step 7 confirms it.
            start = self._find_start(gap)
            if start is None:
                raise
        return self._replay_from(config, start)

    def _find_start(self, gap: GapFault) -> Start | None:
        sizes = [checkpoint.size for checkpoint in self._checkpoints()]
        try:
            return find_start(self._place, at_least=gap.resumes_at, sizes=sizes)
        except OSError as error:
            raise unreadable("entries", error) from None

    def _replay_from(self, config: LogConfig, start: Start | None) -> Replay:
        sizes = [checkpoint.size for checkpoint in self._checkpoints()]
        survey = Survey(
            self._place, config, singles=sizes, workers=self._workers, on_progress=self._on_progress
        )
        replay = self.replay = Replay(
            config,
            genesis_key=self._trusted.genesis_key,
            mac_state=self._trusted.mac_state if self._trusted.uses_mac_state else None,
            sizes=sizes,
            sha256_of=survey.sha256_of,
            start=start,
        )
        try:
            survey.run(replay)
        except GapFault:
            raise
        except RootFault as fault:
            raise self._placed(fault, replay) from None
        except Fault as fault:
            raise self._earliest(fault, replay) from None
        finally:
            self._end, self._torn_bytes = survey.end, survey.torn_bytes
        self._is_read = True
        return replay

    # --- 5, 6: what follows from the entries -------------------------------------------------------------

    def _check_log_json(self, replay: Replay) -> None:
        before = self._log_json
        fault = log_json_fault(replay.log_keys, replay.index, before)
        if fault is not None:
            # A writer at work may have changed keys, and with them log.json, since it was read.
            self._read_config()
            if self._log_json != before:
                fault = log_json_fault(replay.log_keys, replay.index, self._log_json)
        if fault is not None:
            self._add(fault if fault.word == "tampered" else fault.at(replay.index, *self._end))

    def _check_signers(self, replay: Replay) -> None:
        """Each checkpoint bears the signature of the key in force, and the newest one leads to trust."""
        keys = replay.log_keys
        # One that reaches beyond the log tells of entries that are missing, and of keys with them.
        newest, outside = (
            signed if signed is not None and signed.size <= replay.index else None
            for signed in (self._checkpoint, self._outside)
        )
        fault = None if newest is None else signer_fault(keys, self._trusted.vkey, newest)
        if fault is not None:
            self._add(fault)
            self._checkpoint = None
        if outside is not None and not has_signed(keys.in_force(outside.size), outside):
            raise InvalidInputError("checkpoint", "is signed by a key that was not the log's at that size")

    def _check_sizes(self, replay: Replay) -> None:
        state = self._trusted.mac_state
        sizes = {f"the {name} covers": signed.size for name, signed in self._named_checkpoints()}
        if state is not None:
            sizes["mac.key counts"] = state.tree_size
        for words, size in sizes.items():
            if replay.index < size:
                fault = Fault("truncated", f"the log ends after {replay.index} entries, but {words} {size}")
                self._add(fault.at(replay.index, *self._end))

    def _check_roots(self, replay: Replay) -> None:
        for name, signed in self._named_checkpoints():
            root = replay.roots.get(signed.size)
            if root is not None and root != signed.root:
                fault = RootFault(f"the entries do not hash to the root in the {name}")
                fault.file = _CHECKPOINT if signed is self._checkpoint else None
                self._add(self._placed(fault, replay))
        self._is_tree_checked = self._checkpoint is not None and self._checkpoint.size in replay.roots

    def _check_pruned(self, replay: Replay) -> None:
        # Without a trusted key nothing is authentic: that was said.
        if replay.start is None or any(fault.word == "unverifiable" for fault in self._faults):
            return
        record = replay.start_record
        signed_size = max((signed.size for signed in self._checkpoints()), default=0)
        if record is None or not (replay.has_checked_mac(record.index) or record.index < signed_size):
            reason = f"entries 0 to {replay.start_index - 1} are missing without an authenticated record"
            self._add(Fault("truncated", reason).at(0, None, None))
            return
        # What was to be removed and is still there, or there again, must be what was there.
        try:
            found = first_difference(self._place, before=replay.start_index)
        except OSError as error:
            raise unreadable("entries", error) from None
        if found is not None:
            self._add(Fault("tampered", "the entry is not the one that was pruned").at(*found))

    # --- where ------------------------------------------------------------------------------------------

    def _placed(self, fault: RootFault, replay: Replay) -> Fault:
        """A wrong root says that one of many entries is wrong: the signed leaves may say which."""
        if replay.checks_every_mac:
            return fault  # every entry before it has its mac: the number itself is wrong
        found = self._find_changed()
        if found is None:
            fault.index = fault.offset = None
            return fault
        return Fault("tampered", "the entry is not the one that was signed").at(*found)

    def _earliest(self, fault: Fault, replay: Replay) -> Fault:
        """Without macs an earlier entry may have been changed in ways that only its leaf shows."""
        is_other = fault.word != "tampered" or replay.checks_every_mac
        found = None if is_other else self._find_changed()
        if found is None or found[0] >= replay.index:
            return fault
        return Fault("tampered", "the entry is not the one that was signed").at(*found)

    def _find_changed(self) -> tuple[int, str, int] | None:
        places = (
            find_changed(self._place, size=signed.size, root=signed.root) for signed in self._checkpoints()
        )
        return min((place for place in places if place is not None), default=None)

    # --- 8: the verdict -----------------------------------------------------------------------------------

    def _verdict(self) -> Verdict:
        fault = self._worst()
        record = None if self.replay is None or fault is not None else self.replay.start_record
        pruned = None if record is None else record.summary
        word: Word = "intact" if pruned is None else "pruned"
        word = word if fault is None else fault.word
        first_bad: FirstBad | None = None if fault is None else fault.first_bad()
        if fault is None and self._trusted.trust == "self-asserted":
            word = "unverifiable"
        replay = self.replay
        size = 0 if replay is None else replay.index
        entries = 0 if replay is None else size - replay.start_index
        return Verdict(
            verdict=word,
            first_bad=first_bad,
            checked=self._checked(word),
            trust=self._trusted.trust,
            origin=None if self._config is None else self._config.origin,
            entries=entries,
            tree_size=size,
            root_hash=None if replay is None else replay.root().hex(),
            checkpoint_size=None if self._checkpoint is None else self._checkpoint.size,
            unvouched_entries=self._unvouched(entries, size),
            unprotected_entries=min(max(size - (self._outside.size if self._outside else 0), 0), entries),
            recovered_entries=0 if replay is None else replay.recovered_entries,
            torn_bytes=self._torn_bytes,
            pruned=pruned,
        )

    def _worst(self) -> Fault | None:
        unsealed = None if self.replay is None else self.replay.unsealed
        faults = [*self._faults, *([] if unsealed is None else [unsealed])]
        order: tuple[Word, ...] = ("tampered", "truncated", "unsealed", "unverifiable")
        return min(faults, key=lambda fault: order.index(fault.word), default=None)

    def _checked(self, word: Word) -> Checked:
        is_whole = word in {"intact", "pruned", "unsealed", "unverifiable"} and self._is_read
        return Checked(
            mac=is_whole and self.replay is not None and self.replay.checks_every_mac,
            tree=self._is_tree_checked and is_whole,
            checkpoint=self._checkpoint is not None,
        )

    def _unvouched(self, entries: int, size: int) -> int:
        if self._trusted.trust == "self-asserted":
            return entries
        if self.replay is not None and self.replay.mac_checked_from is not None:
            return 0
        return min(max(size - max((signed.size for signed in self._checkpoints()), default=0), 0), entries)

    # --- small things --------------------------------------------------------------------------------------

    def _add(self, fault: Fault) -> None:
        self._faults.append(fault)

    def _named_checkpoints(self) -> list[tuple[str, SignedCheckpoint]]:
        named = (("checkpoint", self._checkpoint), ("checkpoint given", self._outside))
        return [(name, signed) for name, signed in named if signed is not None]

    def _checkpoints(self) -> list[SignedCheckpoint]:
        return [signed for _, signed in self._named_checkpoints()]
