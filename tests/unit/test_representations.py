"""What a prompt or a log shows of our objects: short, and never an address in memory."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.shards import write_model

from vram_residency import AuditLogger, VramManager


def test_handles_views_and_loggers_are_shown_in_one_short_line(tmp_path: Path) -> None:
    """A real model has hundreds of tensors: their number is shown, not their list."""
    logger = AuditLogger.disabled()
    with VramManager.new_with_token(
        "a token of 16 characters", audit_logger=logger, device="host"
    ) as manager:
        shard = manager.seal_file(write_model(tmp_path, 1000))
        with manager.execution(shard) as views:
            shown = [repr(each) for each in (shard, views, *views.values(), manager, logger)]
    assert shard.shard_id in shown[0]
    assert "tensors=1)" in shown[0]
    assert shown[1] == f"Views(tensors=1, nbytes={shard.vram_bytes})"
    assert shown[-1] == "AuditLogger.disabled()"
    assert [text for text in shown if "0x" in text or len(text) > 300 or "\n" in text] == []


def test_a_logger_shows_where_its_log_lies(tmp_path: Path) -> None:
    """By its path."""
    with (
        pytest.warns(UserWarning, match="genesis key"),
        AuditLogger.open(tmp_path / "audit", service_id="w", create=True) as logger,
    ):
        assert repr(logger) == f"AuditLogger({str(tmp_path / 'audit')!r})"


def test_a_tensor_that_is_not_there_is_named(tmp_path: Path) -> None:
    """And the error says where the names are."""
    logger = AuditLogger.disabled()
    with VramManager.new_with_token(
        "a token of 16 characters", audit_logger=logger, device="host"
    ) as manager:
        shard = manager.seal_file(write_model(tmp_path, 1000))
        with (
            manager.execution(shard) as views,
            pytest.raises(KeyError, match="no tensor 'encoder' among these 1"),
        ):
            views["encoder"]
