"""Names of the machine and its boot."""

from __future__ import annotations

import uuid
from pathlib import Path

from vram_residency.device.identity import current_boot_id, host_uuid


def test_the_uuid_is_that_of_the_machine(tmp_path: Path) -> None:
    """The same for the same machine id, whatever the boot; another for another; a well-formed UUID."""
    machine_id = tmp_path / "machine-id"
    machine_id.write_text("0123456789abcdef0123456789abcdef\n")
    first = host_uuid(machine_ids=(tmp_path / "missing", machine_id), boot_id="a")
    assert first == host_uuid(machine_ids=(machine_id,), boot_id="b")
    machine_id.write_text("f123456789abcdef0123456789abcdef\n")
    assert first != host_uuid(machine_ids=(machine_id,))
    parsed = uuid.UUID(first)
    assert (parsed.version, parsed.variant) == (8, uuid.RFC_4122)


def test_the_machine_id_itself_does_not_show(tmp_path: Path) -> None:
    """machine-id(5) asks that it is not published."""
    machine_id = tmp_path / "machine-id"
    machine_id.write_text("0123456789abcdef0123456789abcdef\n")
    assert "0123456789abcdef" not in host_uuid(machine_ids=(machine_id,)).replace("-", "")


def test_without_a_machine_id_the_uuid_holds_for_a_boot(tmp_path: Path) -> None:
    """An empty file counts as none."""
    empty = tmp_path / "empty"
    empty.write_text("\n")
    paths = (tmp_path / "missing", empty)
    assert host_uuid(machine_ids=paths, boot_id="a") == host_uuid(machine_ids=paths, boot_id="a")
    assert host_uuid(machine_ids=paths, boot_id="a") != host_uuid(machine_ids=paths, boot_id="b")


def test_the_boot_id_is_the_kernel_s() -> None:
    """A UUID of /proc."""
    assert current_boot_id() == Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def test_without_a_kernel_s_boot_id_it_ends_with_the_process(tmp_path: Path) -> None:
    """One and the same inside the process."""
    made = current_boot_id(tmp_path / "missing")
    assert made == current_boot_id(tmp_path / "missing")
    assert uuid.UUID(made).version == 4
