"""``vram check``: one shot from a file to a verdict, leaving nothing behind."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vram_residency.cli import output
from vram_residency.cli.options import device_option, json_option, narration_option, policy_option

if TYPE_CHECKING:
    from vram_residency.audit import AuditLogger
    from vram_residency.residency import SealedModel, SealedShard, VramManager

WORKER_ID = "vram-check"


@click.command()
@click.argument("path", type=click.Path(path_type=Path))
@click.option(
    "--expect",
    metavar="DIGEST",
    help="The approved digest of the file, blake3:… or sha256:…; of a directory, its manifest digest.",
)
@click.option(
    "--algorithm",
    type=click.Choice(["blake3", "sha256"]),
    default="blake3",
    show_default=True,
    help="Of the seal's digest.",
)
@click.option(
    "--format",
    "model_format",
    type=click.Choice(["safetensors", "gguf", "raw"]),
    help="Overrides what the file's name and first bytes say.",
)
@click.option(
    "--audit",
    "audit_directory",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Record the operations in this audit log; made where there is none.",
)
@click.option(
    "--keys",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Folder of that log's keys [default: the log's DIR.keys].",
)
@click.option("--follow-links", is_flag=True, help="Take files that lie elsewhere, as in hub caches.")
@device_option
@policy_option
@narration_option
@json_option
def check(
    path: Path,
    *,
    expect: str | None,
    algorithm: Any,
    model_format: Any,
    audit_directory: Path | None,
    keys: Path | None,
    follow_links: bool,
    device: str,
    policy: Any,
    as_json: bool,
) -> None:
    """Load a model, seal it, verify it, report, free it.

    PATH is a safetensors or GGUF file, a directory with an indexed model, or any other file (raw bytes).

    \b
    Examples:
      vram check model.safetensors
      vram check model.gguf --expect blake3:0123… --audit ./audit --json
    """
    import secrets

    from vram_residency.residency import VramManager

    is_directory = path.is_dir()
    if is_directory and (model_format or algorithm != "blake3"):
        raise click.UsageError("--format and --algorithm are about one file; PATH is a directory")
    with (
        _audit_log(audit_directory, keys) as audit_logger,
        VramManager.new_with_token(
            secrets.token_hex(32), 0, audit_logger, WORKER_ID, device=device, policy=policy
        ) as manager,
    ):
        with output.progress("loading") as report:
            if is_directory:
                model = manager.seal_directory(
                    path, expect=expect, follow_links=follow_links, on_progress=report
                )
            else:
                model = _seal_file(
                    manager, path, expect=expect, algorithm=algorithm, format=model_format, on_progress=report
                )
        documents = [_verified(manager, shard) for shard in model.shards]
    if as_json:
        alone = documents[0] if len(documents) == 1 else {}
        output.document({"shards": documents, "manifest_digest": model.manifest_digest, **alone})
    else:
        _print(path, documents, model.manifest_digest)
        _conclude(documents, model.manifest_digest, expect)


def _seal_file(manager: VramManager, path: Path, **choices: Any) -> SealedModel:
    from vram_residency.residency import SealedModel

    shard = manager.seal_file(path, **choices)
    return SealedModel((shard,), shard.digest)


def _audit_log(directory: Path | None, keys: Path | None) -> AbstractContextManager[AuditLogger]:
    """The log to record in: one that is there keeps its own service, whoever made it."""
    from vram_residency.audit import AuditLogger
    from vram_residency.audit.store.directory import Directory

    if directory is None:
        return AuditLogger.disabled()
    place = Directory(directory)
    service_id = place.read_config()[0].service_id if place.is_log else WORKER_ID
    return AuditLogger.open(directory, service_id=service_id, keys=keys, create=not place.is_log)


def _verified(manager: VramManager, shard: SealedShard) -> dict[str, Any]:
    verification = manager.verify_sealed(shard)
    report = manager.describe(shard)
    return {
        "shard_id": shard.shard_id,
        "model_ref": shard.model_ref,
        "device": _device_of(report.residency["device"]),
        "vram_bytes": shard.vram_bytes,
        "digest": shard.digest,
        "format": report.format,
        "tensors": len(shard.tensors),
        "sealed_at": shard.sealed_at,
        "verified": True,
        "scope": verification.scope,
        "residency": report.residency,
        "timings_s": {
            "load": report.timings.load_s,
            "digest": report.timings.digest_s,
            "verify": verification.duration_s,
        },
    }


def _print(path: Path, documents: list[dict[str, Any]], manifest_digest: str) -> None:
    for each in documents:
        timings = each["timings_s"]
        plural = "" if each["tensors"] == 1 else "s"
        tensors = f"{each['tensors']} tensor{plural}, " if each["format"] != "raw" else ""
        output.line(output.style(output.safe(str(each["model_ref"] or path)), "bold"))
        output.line(f"  format {each['format']}, {tensors}{output.size(each['vram_bytes'])}")
        output.line(f"  digest {each['digest']}")
        output.line(f"  memory {_memory(each['residency']['facts'])}")
        output.line(f"  policy {_policy(each['residency']['policy'])}")
        parts = (f"{name} {_duration(seconds)}" for name, seconds in timings.items())
        output.line(f"  time   {', '.join(parts)}")
    if len(documents) > 1:
        output.line("manifest digest of all files")
        output.line(f"  digest {manifest_digest}")


def _conclude(documents: list[dict[str, Any]], manifest_digest: str, expect: str | None) -> None:
    what = "this shard is" if len(documents) == 1 else f"all {len(documents)} shards are"
    how = "sealed" if expect is None else "approved"
    output.line(output.style(f"VERIFIED: {what} in memory exactly as {how}.", "green"))
    if expect is None:
        output.advice("if this is the model you approve, say so from now on:")
        output.line(f"--expect {manifest_digest}")


def _duration(seconds: float) -> str:
    from vram_residency.narration import units

    return units.milliseconds(seconds * 1e3)


def _device_of(facts: dict[str, Any]) -> str:
    """The name by which ``--device`` knows it, as in ``vram devices``."""
    return "host" if facts["kind"] == "host" else f"cuda:{facts.get('index', 0)}"


def _memory(facts: dict[str, Any]) -> str:
    lock = "locked" if facts.get("locked") else "not locked (it may be swapped)"
    return f"{facts.get('kind')}, read-only, {lock}"


def _policy(policy: dict[str, Any]) -> str:
    if policy["holds"]:
        return f"{policy['name']} holds"
    violations = ", ".join(policy["violations"])
    return f"{policy['name']} does not hold ({violations}), allowed by mode '{policy['mode']}'"
