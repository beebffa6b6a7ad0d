"""The page in a real browser, over a real worker: what people on call see, and what they can do with keys."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.page_process import TOKENS
from tests.pages import MIB, NARROW, WIDE, PageWorker, Visit, chromium, page_worker, visiting

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]

HOSTILE = "<img src=x onerror=alert(1)>\u202e</script><script>alert(2)</script>"
SIZES = {"wide": WIDE, "narrow": NARROW}
DAMAGE_EXPECTED = ("503 (Service Unavailable)",)

#: The contrast of every text with what lies behind it (WCAG 2.2, section 1.4.3).
CONTRAST = """() => {
  const parts = (text) => text.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b].map((c) => c / 255)
    .map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4))
    .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = (node) => {
    for (let each = node; each; each = each.parentElement) {
      const colour = parts(getComputedStyle(each).backgroundColor);
      if (colour.length === 3 || colour[3] === 1) return colour;
    }
    return [255, 255, 255];
  };
  const poor = [];
  for (const node of document.querySelectorAll("body *")) {
    const own = [...node.childNodes].some((each) => each.nodeType === 3 && each.textContent.trim());
    if (!own || !node.checkVisibility() || node.closest("svg")) continue;
    const [a, b] = [light(parts(getComputedStyle(node).color)), light(behind(node))];
    const contrast = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (contrast >= 4.5) continue;
    poor.push(`${contrast.toFixed(2)} ${node.id || node.className}: ${node.textContent.slice(0, 40)}`);
  }
  return poor;
}"""

#: What sticks out at the side, where anything does.
OVERFLOW = """() => {
  const width = document.documentElement.clientWidth;
  if (document.documentElement.scrollWidth <= width) return [];
  return [...document.querySelectorAll("body *")]
    .filter((node) => node.getBoundingClientRect().right > width)
    .map((node) => `${node.tagName} ${node.id} ${node.className}: ${node.textContent.slice(0, 40)}`);
}"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as found:
        yield found


@pytest.fixture
def worker(tmp_path: Path) -> Iterator[PageWorker]:
    with page_worker(tmp_path) as running:
        yield running


@pytest.fixture
def visit(browser: Any, worker: PageWorker) -> Iterator[Visit]:
    """The page of a worker without shards, as an operator sees it."""
    with visiting(browser, worker.url) as open_page:
        open_page.sign_in()
        yield open_page


def looks_right(visit: Visit) -> None:
    """Nothing sticks out at the side, and every text can be read."""
    assert visit.page.evaluate(OVERFLOW) == []
    assert visit.page.evaluate(CONTRAST) == []


def rows(visit: Visit) -> list[str]:
    return [row.split("\t")[0].strip() for row in visit.page.locator("#rows tr").all_inner_texts()]


def test_without_shards_the_page_says_so(visit: Visit) -> None:
    """Nothing to vouch for, no forecast, and what is not guaranteed here."""
    assert visit.text("#verdict").startswith("!")
    assert "Ready, but empty" in visit.text("#verdict-says")
    assert "No shard is held." in visit.text("#shards")
    assert "too little to tell" in visit.text("#forecast")
    assert "not in VRAM" in visit.text("#caveats")
    visit.wait_for("#feed-list", "worker_state_changed")
    looks_right(visit)


def test_what_is_sealed_appears_without_a_reload(visit: Visit, worker: PageWorker) -> None:
    """The verdict, the map, the list, the memory and both feeds follow what happens."""
    worker.seal("first", 2 * MIB, "llama-7b")
    visit.wait_for("#verdict-says", "The only shard is verified")
    worker.seal("second", 1 * MIB)
    visit.wait_for("#verdict-says", "All 2 shards are verified")
    assert "oldest full verification" in visit.text("#verdict-age")
    assert rows(visit) == ["first", "second"]
    assert "3.0 MiB of 64 MiB used" in visit.text("#capacity-says")
    assert visit.page.get_attribute("#map", "aria-label").startswith("Map of 2 shards: 0 damaged")
    visit.wait_for("#feed-list", "Sealed model shard 'second'")
    visit.wait_for("#feed-list", "vram_sealed: second")


def test_five_hundred_shards_are_legible(browser: Any, worker: PageWorker) -> None:
    """All are in the list and on the map, wide and narrow, light and dark; one can be found."""
    for number in range(500):
        worker.seal(f"expert-{number:03}", 10_000 + number * 131, "mixtral-8x7b")
    for scheme, size in (("light", WIDE), ("dark", NARROW)):
        with visiting(browser, worker.url, viewport=size, color_scheme=scheme) as visit:
            visit.sign_in()
            assert "All 500 shards are verified" in visit.text("#verdict-says")
            assert len(rows(visit)) == 500
            assert visit.page.locator("#map rect").count() >= 500
            visit.page.fill("#find", "expert-321")
            assert rows(visit) == ["expert-321"]
            looks_right(visit)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", SIZES)
def test_damage_is_found_by_keyboard_alone_and_everything_agrees(
    browser: Any, worker: PageWorker, size: str, scheme: str
) -> None:
    """From the token to the verdict with Tab, arrows and Enter; all that the page shows says the same."""
    for number in range(3):
        worker.seal(f"shard-{number}", MIB, "llama", "model.layers.17.weight")
    worker.flip("shard-1", MIB // 2)
    with visiting(
        browser, worker.url, viewport=SIZES[size], color_scheme=scheme, expected=DAMAGE_EXPECTED
    ) as visit:
        visit.sign_in()
        keys = visit.page.keyboard
        tab_to(visit, "#rows tr")
        keys.press("ArrowDown")
        assert "shard-1: 1.0 MiB" in visit.text("#chosen-says")
        tab_to(visit, "#verify")
        keys.press("Enter")
        assert visit.text("#confirm-title") == "Verify shard-1 in full?"
        keys.press("Enter")
        visit.wait_for(
            "#verdict-says", "STOPPED: shard shard-1 is damaged in tensor model.layers.17.weight, found at"
        )
        assert "Send requests to another worker" in visit.text("#verdict-next")
        assert visit.text("#state") == "stopped"
        assert rows(visit)[0] == "shard-1"
        assert visit.page.get_attribute("#map", "aria-label").startswith("Map of 3 shards: 1 damaged")
        assert "in bytes 524288 to 655359" in visit.text("#chosen-says")
        visit.wait_for("#feed-list", "seal_verification_failed: shard-1")
        visit.wait_for("#feed-list", "Seal verification failed for shard 'shard-1'")
        assert httpx.get(f"{worker.url}readyz").status_code == 503
        looks_right(visit)


def test_a_sound_shard_is_verified_and_freed(visit: Visit, worker: PageWorker) -> None:
    """Both ask first; the safe answer has the focus before what cannot be undone, and Escape is no."""
    worker.seal("s1", MIB)
    visit.wait_for("#rows", "s1")
    visit.page.click("#rows tr")
    visit.page.click("#verify")
    visit.page.click("#confirm-yes")
    visit.wait_for("#outcome", "s1 is what was sealed: 1.0 MiB read")
    for way_out in ("Enter", "Escape"):
        visit.page.click("#free")
        assert visit.page.evaluate("document.activeElement.id") == "confirm-no"
        visit.page.keyboard.press(way_out)
        assert not visit.page.is_visible("#confirm")
        assert visit.page.evaluate("document.activeElement.id") == "free"
    assert rows(visit) == ["s1"]
    visit.page.click("#free")
    visit.page.click("#confirm-yes")
    visit.wait_for("#outcome", "s1 is freed.")
    visit.wait_for("#verdict-says", "Ready, but empty")
    assert rows(visit) == []


def test_who_may_only_read_sees_no_evidence_and_frees_nothing(browser: Any, worker: PageWorker) -> None:
    """The page shows the worker's own refusal."""
    worker.seal("s1", MIB)
    with visiting(browser, worker.url, expected=("403 (Forbidden)",)) as visit:
        visit.sign_in("reader")
        visit.page.click("#rows tr")
        visit.page.click("#free")
        visit.page.click("#confirm-yes")
        visit.page.wait_for_selector("#sign-in", state="hidden")
        visit.wait_for("#outcome", "this needs the scope admin")
        visit.wait_for("#feed-list", "Sealed model shard 's1'")
        assert "evidence," not in visit.text("#feed-list")


def test_hostile_names_stay_text(visit: Visit, worker: PageWorker) -> None:
    """Markup in a model's name, a tensor's name or a sentence becomes no element."""
    worker.seal("s1", MIB, HOSTILE, HOSTILE)
    worker.narrate(HOSTILE)
    visit.wait_for("#rows", "<img src=x onerror=alert(1)>\\u{202e}</script>")
    visit.wait_for("#feed-list", "<img src=x onerror=alert(1)>")
    worker.flip("s1", 0)
    visit.page.evaluate(
        "document.querySelectorAll('#feed-list details').forEach((each) => { each.open = true; })"
    )
    assert visit.page.locator("img").count() == 0
    assert visit.page.locator("script").count() == 1


def test_the_feed_is_filtered_and_paused(visit: Visit, worker: PageWorker) -> None:
    """By source, by gravity and by word; what comes while it is paused is counted."""
    worker.seal("s1", MIB)
    visit.wait_for("#feed-list", "vram_sealed: s1")
    visit.page.uncheck("#show-evidence")
    assert "evidence," not in visit.text("#feed-list")
    visit.page.check("#show-evidence")
    visit.page.uncheck("#show-story")
    assert "· story" not in visit.text("#feed-list")
    visit.page.check("#show-story")
    visit.page.fill("#feed-find", "no such word")
    assert visit.text("#feed-note") == "Nothing matches."
    visit.page.fill("#feed-find", "")
    visit.page.check("#only-grave")
    assert "vram_sealed" not in visit.text("#feed-list")
    visit.page.uncheck("#only-grave")
    visit.page.click("#pause")
    worker.narrate("while it was paused")
    visit.wait_for("#feed-note", "Paused: 1 event")
    assert "while it was paused" not in visit.text("#feed-list")
    visit.page.click("#pause")
    visit.wait_for("#feed-list", "while it was paused")


def test_a_wrong_token_is_refused_in_words(browser: Any, worker: PageWorker) -> None:
    """And the page goes on asking for the right one."""
    with visiting(browser, worker.url, expected=("401 (Unauthorized)",)) as visit:
        visit.page.wait_for_selector("#sign-in", state="visible")
        looks_right(visit)
        visit.page.keyboard.type("vrt_wrong")
        visit.page.keyboard.press("Enter")
        visit.wait_for("#sign-in-error", "the token is not known")
        visit.sign_in()
        assert visit.page.is_hidden("#sign-in")


def test_the_token_is_kept_in_memory_alone(visit: Visit) -> None:
    """No storage, no cookie, no address; and it can be forgotten."""
    token = TOKENS["operator"][0]
    kept = visit.page.evaluate(
        "JSON.stringify([Object.entries(localStorage), Object.entries(sessionStorage), document.cookie,"
        " location.href, document.documentElement.outerHTML, document.getElementById('token').value])"
    )
    assert token not in kept
    assert all(token not in url for url in visit.requests)
    visit.page.click("#forget")
    visit.page.wait_for_selector("#sign-in", state="visible")
    assert visit.page.is_hidden("#board")


def test_a_worker_that_is_gone_is_not_shown_as_well(browser: Any, tmp_path: Path) -> None:
    """The last verdict is marked as old, with the time that it is from."""
    with (
        page_worker(tmp_path) as worker,
        visiting(browser, worker.url, expected=("Failed to load", "ERR_")) as visit,
    ):
        visit.sign_in()
        assert worker.end() == 0
        visit.wait_for("#connection", "The worker does not answer: all this is from")
        assert "old" in visit.page.get_attribute("#verdict", "class")


def test_foreign_scripts_do_not_run(browser: Any, worker: PageWorker) -> None:
    """The content security policy holds in the browser, not only in the header."""
    page = browser.new_page()
    page.goto(worker.url)
    with pytest.raises(Exception, match=r"Content Security Policy|inline script"):
        page.add_script_tag(content="document.title = 'owned'")
    assert page.title() != "owned"
    page.close()


def test_everything_of_the_page_is_served_with_the_policy(worker: PageWorker) -> None:
    """Every file, without a token, and nothing but the page's own files."""
    names = ["", "page/style.css", "page/app.js", "page/words.js", "page/door"]
    for name in names:
        answer = httpx.get(worker.url + name)
        assert answer.status_code == 200
        policy = dict(
            part.strip().split(" ", 1) for part in answer.headers["content-security-policy"].split(";")
        )
        assert {policy[each] for each in ("default-src", "base-uri", "form-action", "frame-ancestors")} == {
            "'none'"
        }
        assert {policy[each] for each in ("script-src", "style-src", "connect-src")} == {"'self'"}
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["x-content-type-options"] == "nosniff"
    for name in (
        "page/../board.py",
        "page/..%2fboard.py",
        "page/%2e%2e/board.py",
        "page/",
        "page/nothing.js",
    ):
        assert httpx.get(worker.url + name).status_code in {401, 404}
    assert httpx.get(f"{worker.url}v1/overview").status_code == 401
    assert httpx.get(f"{worker.url}v1/events").status_code == 401


def test_an_open_stream_does_not_hold_up_the_end(tmp_path: Path) -> None:
    """Whoever follows is let go first; the worker ends well."""
    with page_worker(tmp_path) as worker:
        headers = {"Authorization": f"Bearer {TOKENS['operator'][0]}"}
        with httpx.stream("GET", f"{worker.url}v1/events", headers=headers, timeout=60) as answer:
            assert answer.headers["content-type"].startswith("text/event-stream")
            lines = answer.iter_lines()
            assert next(lines) == "retry: 2000"
            assert worker.end() == 0
            assert "event: evidence" in list(lines)


def tab_to(visit: Visit, selector: str) -> None:
    """Press Tab until the focus is there; it must be seen, and there must be a way."""
    for _ in range(30):
        visit.page.keyboard.press("Tab")
        if visit.page.evaluate("selector => document.activeElement.matches(selector)", selector):
            outline = visit.page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
            assert outline == "solid"
            return
    raise AssertionError(f"Tab does not lead to {selector}")
