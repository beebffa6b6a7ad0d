"""``vram demo``: the whole story on a real model, in under a minute, each step with real effects."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vram_residency.cli import output
from vram_residency.cli.errors import ExitCode
from vram_residency.cli.options import device_option, json_option, narration_option

if TYPE_CHECKING:
    from vram_residency.audit import AuditLogger
    from vram_residency.cli.demo_models import DemoModel
    from vram_residency.core.errors import SealVerificationError
    from vram_residency.device.fault import FaultDevice
    from vram_residency.residency import SealedShard, Verification, VramManager

WORKER_ID = "vram-demo"
FACT_COLUMN = 11


class Story:
    """What happened so far: told to people as it happens, kept for ``--json``."""

    def __init__(self, *, as_json: bool) -> None:
        self.facts: dict[str, Any] = {}
        self._as_json = as_json

    def chapter(self, number: int, title: str) -> None:
        """Begin the next step."""
        self._say(f"\n{output.style(f'{number}  {title}', 'bold')}")

    def tell(self, label: str, text: str, *, look: str | None = None) -> None:
        """One line of the current step."""
        shown = output.style(output.safe(text), look) if look else output.safe(text)
        self._say(f"   {label:<{FACT_COLUMN}}{shown}".rstrip())

    def keep(self, **facts: Any) -> None:
        """Remember facts for the JSON document."""
        self.facts.update(facts)

    def title(self, text: str) -> None:
        """A line of its own."""
        self._say(output.style(text, "bold"))

    def advise(self, text: str) -> None:
        """The next step for whoever reads this."""
        if not self._as_json:
            output.advice(text)

    def _say(self, line: str) -> None:
        if not self._as_json:
            output.line(line)


@click.command()
@click.option(
    "--model",
    "model_path",
    type=click.Path(path_type=Path),
    metavar="PATH",
    help="A safetensors or GGUF file; by default the packaged MiniLM model.",
)
@device_option
@narration_option
@json_option
def demo(model_path: Path | None, *, device: str, as_json: bool) -> ExitCode:
    """The whole story on a real model, in under a minute.

    Seals a model, verifies it, computes with it, flips one bit in a second copy of it, catches that by
    name, and verifies the audit log of it all. Nothing is left behind.

    \b
    Examples:
      vram demo
      vram demo --model model.gguf --json
    """
    from vram_residency.cli import demo_models

    started = time.monotonic()
    story = Story(as_json=as_json)
    model = demo_models.find(model_path)
    story.title("Are the weights in this memory, right now, exactly the ones we approved?")
    with tempfile.TemporaryDirectory(prefix="vram-demo-") as directory:
        log_directory = Path(directory) / "audit"
        with _new_log(log_directory) as audit_logger:
            _sound_copy(story, model, audit_logger, device)
            is_caught = _damaged_copy(story, model, audit_logger)
        is_intact = _show_log(story, log_directory)
    seconds = time.monotonic() - started
    is_good = is_caught and is_intact
    story.keep(caught=is_caught, seconds=round(seconds, 3))
    _conclude(story, is_good=is_good, seconds=seconds)
    if as_json:
        output.document(story.facts)
    return ExitCode.DONE if is_good else ExitCode.NO


def _new_log(directory: Path) -> AuditLogger:
    import warnings

    from vram_residency.audit import AuditLogger, KeyPlacementWarning

    with warnings.catch_warnings():
        # The log and its keys live for a minute in a private directory.
        warnings.simplefilter("ignore", KeyPlacementWarning)
        return AuditLogger.open(directory, service_id=WORKER_ID, create=True)


def _sound_copy(story: Story, model: DemoModel, audit_logger: AuditLogger, device: str) -> None:
    """Steps 1 to 4: load, seal, verify, execute."""
    with _manager(audit_logger, device) as manager:
        shard = _seal(story, manager, model)
        _try_to_write(story, shard)
        _verify(story, manager, shard)
        story.chapter(4, "Execute: computed straight from the sealed pages, nothing copied")
        with manager.execution(shard) as views:
            results = model.execute(views)
            for label, text in results.items():
                story.tell(label, text)
        story.keep(execution=results)


def _seal(story: Story, manager: VramManager, model: DemoModel) -> SealedShard:
    story.chapter(1, "Load: a real model into memory that nobody can write any more")
    with output.progress("loading") as report:
        shard = manager.seal_file(model.path, shard_id="demo-model", on_progress=report)
    seal = manager.describe(shard)
    tensors = f", {len(shard.tensors)} tensors" if shard.tensors else ""
    seconds = seal.timings.load_s + seal.timings.digest_s
    story.tell("model", f"{shard.model_ref} ({seal.format}, {output.size(shard.vram_bytes)}{tensors})")
    story.tell("memory", _memory_of(seal.residency["facts"]))
    story.tell("policy", _policy_of(seal.residency["policy"]))
    algorithm, _, hex_digits = shard.digest.partition(":")
    story.tell(algorithm, hex_digits)
    story.tell("", "(of the bytes in memory; `b3sum` prints the same for the file)")
    story.tell("time", f"{seconds * 1e3:.0f} ms to load and hash")
    story.keep(model=str(shard.model_ref), vram_bytes=shard.vram_bytes, digest=shard.digest)
    story.keep(tensors=len(shard.tensors), residency=seal.residency)
    return shard


def _memory_of(facts: dict[str, Any]) -> str:
    lock = "locked" if facts.get("locked") else "not locked"
    return f"{facts.get('kind')}, read-only, {lock}"


def _policy_of(policy: dict[str, Any]) -> str:
    if policy["holds"]:
        return f"{policy['name']} holds"
    return f"host memory, not VRAM: allowed by mode '{policy['mode']}', and recorded"


def _try_to_write(story: Story, shard: SealedShard) -> None:
    story.chapter(2, "Attack: try to change the sealed bytes from inside this very process")
    if shard.path is None:
        story.tell("skipped", "this device offers no path to its memory")
        return
    try:
        with Path(shard.path).open("r+b") as file:
            file.write(b"X")
    except OSError as error:
        story.tell("refused", f"by the kernel: {error.strerror}", look="green")
        story.keep(write_refused=True)
    else:
        story.tell("WRITTEN", "the sealed memory was changed", look="red")
        story.keep(write_refused=False)


def _verify(story: Story, manager: VramManager, shard: SealedShard) -> None:
    story.chapter(3, "Verify: is the memory, now, what was sealed?")
    scopes = {}
    for scope in ("full", "fast", "sample"):
        result = manager.verify_sealed(shard, scope=scope)
        scopes[scope] = result
        how = f"{output.size(result.bytes_checked)} read in {result.duration_s * 1e3:.0f} ms"
        story.tell(scope, f"{how}; {_promise(scope, result)}")
    story.keep(verifications=scopes)


def _promise(scope: str, result: Verification) -> str:
    if result.miss_probability:
        return f"misses one bad 128 KB group with p = {result.miss_probability:.2f}"
    if scope == "fast":
        return "on the host device the same full pass"
    return "every byte"


def _damaged_copy(story: Story, model: DemoModel, audit_logger: AuditLogger) -> bool:
    """Step 5: one bit flipped in a second copy, on a device made for deliberate faults."""
    from vram_residency.core.errors import NotSealedError, SealVerificationError
    from vram_residency.device.fault import FaultDevice

    story.chapter(5, "Damage: one bit flips in a second copy (on the fault-injection device)")
    device = FaultDevice()
    with _manager(audit_logger, device) as manager:
        shard = manager.seal_file(model.path, shard_id="demo-damaged")
        offset = shard.vram_bytes // 2
        device.flip_bit(shard.shard_id, offset)
        story.tell("flipped", f"bit 0 of byte {offset:,}")
        try:
            manager.verify_sealed(shard)
        except SealVerificationError as error:
            damage = error
        else:
            story.tell("MISSED", "the verification did not see it", look="red")
            return False
        _tell_damage(story, damage)
        try:
            with manager.execution(shard):
                story.tell("EXECUTED", "a damaged shard was handed out", look="red")
                return False
        except NotSealedError as error:
            story.tell("blocked", f"execution refused: {error}", look="green")
    story.keep(flipped_offset=offset, tensors_damaged=damage.tensors, reason=damage.reason)
    return True


def _tell_damage(story: Story, damage: SealVerificationError) -> None:
    where = f"damage in bytes {damage.first_bad_offset:,} to {damage.last_bad_offset:,}"
    story.tell("CAUGHT", f"{damage.reason}: {where}", look="red")
    for name in damage.tensors:
        story.tell("in tensor", name, look="red")


def _manager(audit_logger: AuditLogger, device: str | FaultDevice) -> VramManager:
    import secrets

    from vram_residency.residency import VramManager

    return VramManager.new_with_token(secrets.token_hex(32), 0, audit_logger, WORKER_ID, device=device)


def _show_log(story: Story, directory: Path) -> bool:
    """Step 6: what the log says of all this, and whether the log itself can be believed."""
    import json

    from vram_residency.audit import verify
    from vram_residency.audit.reading.query import query

    verdict = verify(directory)
    is_intact = verdict.verdict == "intact"
    story.chapter(6, "Prove: the audit log of all this, verified")
    entries = [json.loads(line) for line in query(directory)]
    for entry in entries:
        what = str(entry.get("shard_id") or entry.get("violation") or "")
        reason = f"  {entry['reason']}" if entry["event_type"] == "seal_verification_failed" else ""
        story.tell(f"#{entry['index']}", f"{entry['event_type']:<26} {what}{reason}")
    look = "green" if is_intact else "red"
    story.tell("verdict", f"{verdict.verdict}: {verdict.entries} entries, chained and signed", look=look)
    story.keep(audit={"verdict": verdict.verdict, "entries": len(entries)})
    return is_intact


def _conclude(story: Story, *, is_good: bool, seconds: float) -> None:
    if is_good:
        story.title(f"\nDone in {seconds:.1f} s: sealed, verified, executed, damage caught, log intact.")
        story.advise("`vram check MODEL` does steps 1 and 3 for a model of yours.")
    else:
        story.title("\nFAILED: see above.")
        story.advise("keep this output, and run `vram demo --narrate debug` to see each operation.")
