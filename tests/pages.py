"""What the tests of the page share: a worker in a process of its own, and Debian's Chromium to look at it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from tests.page_process import TOKENS

CHROMIUM = shutil.which("chromium")
WIDE = {"width": 1440, "height": 900}
NARROW = {"width": 390, "height": 844}
MIB = 1 << 20


def require_chromium() -> str:
    """Where it is; without it the test is skipped, or fails where tools are needed."""
    if CHROMIUM is None:
        leave_out = pytest.fail if os.environ.get("VRAM_TESTS_NEED_TOOLS") else pytest.skip
        leave_out("Chromium is missing: the page is NOT tested here (Debian: apt install chromium)")
    return CHROMIUM


class PageWorker:
    """The process of tests/page_process.py."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.url: str = self._answer()["url"]

    def seal(self, shard_id: str, size_bytes: int = 100_000, model_ref: str = "a model", *names: str) -> None:
        """Seal a model of one tensor."""
        self._tell("seal", shard_id, size_bytes, model_ref, *names)

    def flip(self, shard_id: str, offset: int) -> None:
        """Damage a sealed shard."""
        self._tell("flip", shard_id, offset)

    def narrate(self, text: str) -> None:
        """Tell something, as a warning."""
        self._tell("narrate", text)

    def end(self) -> int:
        """Ask it to end; its exit code."""
        if self._process.poll() is None:
            self._process.stdin.write('["end"]\n')
            self._process.stdin.flush()
        return self._process.wait(30)

    def _tell(self, *command: Any) -> None:
        self._process.stdin.write(json.dumps(command) + "\n")
        self._process.stdin.flush()
        assert self._answer() == "done"

    def _answer(self) -> Any:
        line = self._process.stdout.readline()
        assert line, "the worker has ended"
        return json.loads(line)


@contextmanager
def page_worker(directory: Path) -> Iterator[PageWorker]:
    """A worker with a page; it must end well."""
    command = [sys.executable, "-W", "ignore", "-m", "tests.page_process", str(directory)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            worker = PageWorker(process)
            yield worker
            assert worker.end() == 0
        finally:
            process.kill()


@dataclass
class Visit:
    """One open page, and everything it did wrong."""

    page: Any
    url: str
    complaints: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def sign_in(self, who: str = "operator") -> None:
        """Type a token, by keyboard alone."""
        self.page.wait_for_selector("#sign-in", state="visible")
        self.page.keyboard.type(TOKENS[who][0])
        self.page.keyboard.press("Enter")
        self.page.wait_for_selector("#board", state="visible")

    def text(self, selector: str) -> str:
        """What an element says."""
        return self.page.inner_text(selector)

    def wait_for(self, selector: str, text: str) -> None:
        """Wait until an element says ``text``."""
        self.page.wait_for_function(
            "([selector, text]) => document.querySelector(selector)?.textContent.includes(text)",
            arg=[selector, text],
        )


@contextmanager
def chromium() -> Iterator[Any]:
    """Debian's Chromium, driven by Playwright."""
    from playwright.sync_api import sync_playwright

    path = require_chromium()
    arguments = ["--disable-gpu", *(["--no-sandbox"] if os.geteuid() == 0 else [])]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=arguments)
        yield browser
        browser.close()


@contextmanager
def visiting(browser: Any, url: str, *, expected: tuple[str, ...] = (), **choices: Any) -> Iterator[Visit]:
    """A page in a context of its own; at the end it must have called nobody but ``url``.

    Nor may it have complained, but of what is ``expected``: Chromium tells its console of every answer that
    is an error.
    """
    context = browser.new_context(**{"viewport": WIDE, "reduced_motion": "reduce", **choices})
    context.set_default_timeout(60_000)
    try:
        visit = Visit(context.new_page(), url)
        visit.page.on("console", lambda said: visit.complaints.append(f"{said.type}: {said.text}"))
        visit.page.on("pageerror", lambda error: visit.complaints.append(str(error)))
        visit.page.on("request", lambda request: visit.requests.append(request.url))
        visit.page.goto(url)
        yield visit
        assert [said for said in visit.complaints if not any(each in said for each in expected)] == []
        assert [each for each in visit.requests if not each.startswith(url)] == []
    finally:
        context.close()
