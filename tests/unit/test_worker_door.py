"""The pure parts of the door: coalescing, rates, tokens, scopes, hosts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vram_residency.core.errors import ConfigurationError
from vram_residency.testing import MemoryLog
from vram_residency.worker import access
from vram_residency.worker.caller import Caller, Connection
from vram_residency.worker.coalescing import OTHERS, Coalescer, Summary
from vram_residency.worker.limits import Buckets, Limits, Rate
from vram_residency.worker.reporter import Reporter
from vram_residency.worker.tokens import new_token, parse_tokens, sha256_of, table_of

addresses = st.sampled_from(["10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4"])


@given(st.lists(st.tuples(st.sampled_from("ab"), addresses, st.floats(0, 30)), max_size=60))
def test_every_event_is_recorded_or_counted_once(events: list[tuple[str, str, float]]) -> None:
    """Whatever comes when: those admitted and those in summaries are all there were."""
    coalescer = Coalescer(window_s=20.0, addresses_max=5)
    now_s, admitted, counted = 0.0, 0, 0
    for event_type, address, pause_s in events:
        now_s += pause_s
        counted += sum(summary.count for summary in coalescer.due(now_s))
        admitted += coalescer.admit(event_type, address, now_s)
    counted += sum(summary.count for summary in coalescer.rest(now_s))
    assert admitted + counted == len(events)


def test_the_first_is_recorded_the_rest_is_a_number() -> None:
    """Per type and address, and anew in the next window."""
    coalescer = Coalescer(window_s=60.0)
    assert [coalescer.admit("auth_failure", "a", float(second)) for second in range(3)] == [
        True,
        False,
        False,
    ]
    assert coalescer.admit("auth_failure", "b", 3.0)
    assert coalescer.admit("rate_limit_exceeded", "a", 3.0)
    assert coalescer.due(59.0) == []
    assert coalescer.due(60.0) == [Summary("auth_failure", "a", 2, 60.0)]
    assert coalescer.admit("auth_failure", "a", 61.0)


def test_many_addresses_are_one_beyond_the_bound() -> None:
    """A botnet fills neither memory nor log."""
    coalescer = Coalescer(window_s=60.0, addresses_max=10)
    admitted = sum(
        coalescer.admit("auth_failure", f"10.0.{number // 256}.{number % 256}", 0.0) for number in range(5000)
    )
    assert admitted == 11
    assert coalescer.rest(1.0) == [Summary("auth_failure", OTHERS, 4989, 1.0)]


def test_the_reporter_tells_counts_when_a_window_ends_and_at_its_own_end() -> None:
    """One entry as it was, one with how many more."""
    from vram_residency.audit.events import AuthFailure

    now_s = [0.0]
    log = MemoryLog()
    reporter = Reporter(log, monotonic_s=lambda: now_s[0])
    event = AuthFailure(reason="no credentials", ip="10.0.0.1", path="/")
    for _ in range(100):
        reporter.report(event, "10.0.0.1")
    now_s[0] = 61.0
    reporter.tick()
    reporter.report(event, "10.0.0.1")
    reporter.report(event, "10.0.0.1")
    reporter.close()
    assert [each.event_type for each in log.recorded] == [
        "auth_failure", "suspicious_activity", "auth_failure", "suspicious_activity",
    ]  # fmt: skip
    first, last = log.of_type("suspicious_activity")
    assert first["activity_type"] == "auth_failure"
    assert first["details"] == "99 more within 61 s, from 10.0.0.1"
    assert last["details"].startswith("1 more")


def test_a_caller_is_recorded_once_in_a_while() -> None:
    """A client that asks every second does not fill the log."""
    now_s = [0.0]
    log = MemoryLog()
    reporter = Reporter(log, monotonic_s=lambda: now_s[0])
    caller = Caller(user_id="uid:7", auth_method="peer_uid", scopes=frozenset())
    for second in range(120):
        now_s[0] = float(second)
        reporter.succeeded(caller, "uid:7", "/v1/status")
    assert [each["actor"]["user_id"] for each in log.of_type("auth_success")] == ["uid:7", "uid:7"]


@given(st.lists(st.floats(0, 2), max_size=200))
def test_nobody_gets_more_than_the_burst_and_the_rate(pauses: list[float]) -> None:
    """In any span of time."""
    buckets = Buckets(Rate(per_s=5, burst=10))
    now_s, taken = 0.0, 0
    for pause in pauses:
        now_s += pause
        taken += buckets.take("a", now_s)
    assert taken <= 10 + 5 * now_s + 1e-6


def test_one_peer_does_not_slow_down_another() -> None:
    """Each has a bucket of its own, and buckets are not kept for ever."""
    buckets = Buckets(Rate(per_s=1, burst=1))
    assert buckets.take("a", 0.0)
    assert not buckets.take("a", 0.5)
    assert buckets.take("b", 0.5)
    for number in range(5000):
        buckets.take(f"peer-{number}", 0.5)
    assert len(buckets._levels) <= 4096


def test_a_token_is_known_by_its_hash_until_it_ends() -> None:
    """And by nothing else: not by its hash, its name or a part of it."""
    token = new_token()
    text = table_of("ci", token, frozenset({"read", "audit"}), "2030-01-01T00:00:00Z")
    assert token not in text
    tokens = parse_tokens(text)
    found = tokens.find(token, 0.0)
    assert found is not None
    assert (found.name, found.scopes, found.fingerprint) == ("ci", {"read", "audit"}, sha256_of(token)[:6])
    for wrong in ("", "ci", sha256_of(token), token[:-1], token + "x", "\udcff"):
        assert tokens.find(wrong, 0.0) is None
    assert tokens.find(token, 1_893_456_000.0) is None


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        pytest.param(("name = ", 'nam = "x"\nname = '), "unknown field `nam`", id="slip"),
        pytest.param(('"read"', '"root"'), "Invalid enum value 'root'", id="scope"),
        pytest.param(('["read"]', "[]"), "length >= 1", id="no scope"),
        pytest.param(('name = "ci"', 'name = "c i"'), "matching regex", id="name"),
        pytest.param(("scopes", "expires = 2030-01-01T00:00:00\nscopes"), "timezone", id="no zone"),
        pytest.param(("[[token]]", "[[token]"), "no file of tokens", id="no TOML"),
    ],
)
def test_a_token_file_is_read_strictly(change: tuple[str, str], rule: str) -> None:
    """A slip must not quietly mean more rights."""
    text = table_of("ci", "secret", frozenset({"read"}), None)
    with pytest.raises(ConfigurationError, match=rule):
        parse_tokens(text.replace(*change))


@pytest.mark.parametrize(
    ("method", "path", "query", "is_open"),
    [
        pytest.param("GET", "/livez", b"", True, id="alive"),
        pytest.param("GET", "/readyz", b"", True, id="ready"),
        pytest.param("GET", "/readyz", b"verbose", False, id="reasons"),
        pytest.param("POST", "/livez", b"", False, id="a method that changes"),
        pytest.param("GET", "/page/app.js", b"", True, id="page"),
        pytest.param("GET", "/livez/", b"", False, id="nearly"),
        pytest.param("GET", "/v1/status", b"", False, id="status"),
    ],
)
def test_only_signs_of_life_and_the_page_are_open(
    *, method: str, path: str, query: bytes, is_open: bool
) -> None:
    """Everything else takes credentials."""
    assert access.is_open(method, path, query) is is_open


def test_a_route_that_declares_nothing_takes_the_most() -> None:
    """What somebody forgets is closed."""
    assert access.scope_needed("GET", None) == "read"
    assert access.scope_needed("POST", None) == "admin"
    assert access.scope_needed("POST", "execute") == "execute"


def test_only_a_model_may_be_large() -> None:
    """JSON is small, whatever the route."""
    limits = Limits(body_bytes_max=1000, json_bytes_max=10)
    assert access.body_limit("POST", "/v1/commit", "application/octet-stream", limits) == 1000
    assert access.body_limit("POST", "/v1/commit", "application/json; charset=utf-8", limits) == 10
    assert access.body_limit("POST", "/v1/commit", "", limits) == 10
    assert access.body_limit("POST", "/v1/execute", "application/octet-stream", limits) == 10


@pytest.mark.parametrize(
    "query", [b"token=x", b"a=1&access_token=", b"%74oken=x", b"API_KEY=1", b"a=1;token=2&token=3"]
)
def test_credentials_in_a_query_are_found(query: bytes) -> None:
    """However they are written."""
    assert access.has_secret(query)
    assert not access.has_secret(b"nonce=abc&scope=full&shard=token")


def test_strangers_are_counted_by_what_the_transport_says() -> None:
    """An address over TCP, a user over the Unix socket."""
    assert Connection(uid=1000).address == "uid:1000"
    assert Connection(ip="10.0.0.1").address == "10.0.0.1"
