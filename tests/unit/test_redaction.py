"""Secrets in free text: found in all their forms, and nothing else with them."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator
from urllib.parse import quote

import pytest

from vram_residency.core import redaction
from vram_residency.core.errors import InvalidInputError
from vram_residency.core.redaction import forget_secret, redact, register_secret, safe_text

SECRET = "hunter2S3cr3t"
JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.SflKxwRJSMeKKF2QT4fwpMeJf36POk6yJV_adQssw5c"
UUID = "123e4567-e89b-12d3-a456-426614174000"

#: The secret stands for ``%``; what remains of the text is compared too.
FORMS = {
    # key=value
    "password=%": "password=[REDACTED]",
    "PASSWORD=%": "PASSWORD=[REDACTED]",
    "token=%&user=bob": "token=[REDACTED]&user=bob",
    "https://h/?api_key=%&x=1": "https://h/?api_key=[REDACTED]&x=1",
    "api-key=%, retry": "api-key=[REDACTED], retry",
    "apikey=%;next=1": "apikey=[REDACTED];next=1",
    "access_token=%": "access_token=[REDACTED]",
    "accessToken=%": "accessToken=[REDACTED]",
    "AWS_SECRET_ACCESS_KEY=%": "AWS_SECRET_ACCESS_KEY=[REDACTED]",
    "(secret=%) failed": "(secret=[REDACTED]) failed",
    "password=a,b;c&%": "password=[REDACTED]",
    "password==%": "password==[REDACTED]",
    "password = %": "password = [REDACTED]",
    "password=<%>": "password=[REDACTED]",
    "password=[REDACTED]%": "password=[REDACTED]",
    "token%3D%": "token%3D[REDACTED]",
    "secret=>%": "secret=>[REDACTED]",
    # key: value
    "token: %": "token: [REDACTED]",
    "X-Api-Key:%": "X-Api-Key:[REDACTED]",
    "password:\n  %": "password:\n  [REDACTED]",
    "password: |\n  %": "password: |\n  [REDACTED]",
    "client_secret: %, ok": "client_secret: [REDACTED], ok",
    "secret\u200b:\u200b%": "secret\u200b:\u200b[REDACTED]",
    # quoted
    '{"api_key": "%"}': '{"api_key": "[REDACTED]"}',
    '{"password":"a\\"%","user":"bob"}': '{"password":"[REDACTED]","user":"bob"}',
    '{\\"token\\": \\"%\\", \\"n\\": 1}': '{\\"token\\": \\"[REDACTED]\\", \\"n\\": 1}',
    "{'secret': '%'}": "{'secret': '[REDACTED]'}",
    "{b'secret': b'%'}": "{b'secret': b'[REDACTED]'}",
    'config["password"] = "%"': 'config["password"] = "[REDACTED]"',
    'password="two words %" next': 'password="[REDACTED]" next',
    'password="never closed %': 'password="[REDACTED]"',
    # bearer tokens
    "Authorization: Bearer %": "Authorization: Bearer [REDACTED]",
    "bearer a+/~=.%==": "bearer [REDACTED]",
    "BEARER\t%": "BEARER\t[REDACTED]",
    "bearer: %": "bearer: [REDACTED]",
    "token: bearer %": "token: bearer [REDACTED]",
    "Bearer%20%": "Bearer%20[REDACTED]",
    'Authorization: "Basic %"': 'Authorization: "Basic [REDACTED]"',
    # keys
    "-----BEGIN RSA PRIVATE KEY-----\nMII%\n-----END RSA PRIVATE KEY----- end": "[REDACTED] end",
    "-----BEGIN PRIVATE KEY-----\\nMII%\\n-----END PRIVATE KEY-----": "[REDACTED]",
    "-----BEGIN OPENSSH PRIVATE KEY-----\nnever ended %": "[REDACTED]",
    "-----BEGIN PGP PRIVATE KEY BLOCK-----\n%\n-----END PGP PRIVATE KEY BLOCK-----": "[REDACTED]",
    "key PRIVATE+KEY+log+1234abcd+%": "key [REDACTED]",
    # URLs
    "postgres://user:%@db:5432/x": "postgres://[REDACTED]@db:5432/x",
    "http://u:p@%@host/": "http://[REDACTED]@host/",
    "http://u:a/%@host/": "http://[REDACTED]@host/",
    "https://long-lived-%@host/": "https://[REDACTED]@host/",
    "redis://:%@host": "redis://[REDACTED]@host",
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_a_secret_is_found(form: str) -> None:
    """The secret goes, its surroundings stay, and a second pass changes nothing."""
    head, _, tail = form.rpartition("%")
    text = f"{head}{SECRET}{tail}"
    assert redact(text) == FORMS[form]
    assert redact(redact(text)) == FORMS[form]
    assert SECRET not in redact(f"before {text}")


@pytest.mark.parametrize("text", [JWT, f"got {JWT}.", f"x_{JWT}", f"id={JWT}", f"'{JWT}'", f"{JWT}.a.b"])
def test_json_web_tokens_are_found_anywhere(text: str) -> None:
    """Signed ones of three parts and encrypted ones of five."""
    redacted = redact(text)
    assert "eyJ" not in redacted
    assert "SflKxw" not in redacted
    assert redaction.REDACTED in redacted


@pytest.mark.parametrize(
    "text",
    [
        "monkey=x",
        "turkey: x",
        "keyboard=qwerty",
        "secretary: Jo",
        "passwordless=yes",
        "mytoken=x",
        "tokens_in=5 tokens_out=7",
        "max_tokens: 5",
        "token_count=3",
        "token_fingerprint=abc123",
        "token",
        "the bearer of news",
        "missing bearer token",
        "auth_method=bearer_token",
        "Input validation failed for seal_token: has fewer than 16 characters",
        "password: must not be empty",
        "https://huggingface.co:443/org/model",
        "http://host:80/model@v2",
        "ssh://git@github.com/x",
        "git@github.com:org/repo",
        "blake3:d74981efa70a0c880b8d8c1985d075dbcbf679b99a5f9914e5aaf96b831a9e24",
        "-----BEGIN CERTIFICATE-----\nMII\n-----END CERTIFICATE-----",
        "eyJhbGciOi",
        UUID,
        "",
    ],
)
def test_what_is_no_secret_stays(text: str) -> None:
    """Whole words only, and talk of secrets is not a secret."""
    assert redact(text) == text


def test_a_text_without_triggers_is_the_same_object() -> None:
    """The common case copies nothing."""
    text = "/models/llama-7b/model-00001-of-00003.safetensors"
    assert redact(text) is text


def test_uuids_go_on_request() -> None:
    """In either case of letters; longer hex strings stay."""
    assert redact(f"id {UUID} and {UUID.upper()}", uuids=True) == "id [REDACTED] and [REDACTED]"
    assert redact(f"a{UUID}", uuids=True) == f"a{UUID}"


@pytest.fixture
def registered() -> Iterator[str]:
    value = 'pa"ss w+rd/\u00fc'
    register_secret(value)
    yield value
    forget_secret(value)


def test_a_registered_value_is_found_in_its_usual_spellings(registered: str) -> None:
    """As it is, percent-encoded, and escaped as JSON; it is forgotten again on request."""
    for spelling in (registered, quote(registered, safe=""), registered.replace('"', '\\"')):
        assert redact(f"a {spelling} b") == "a [REDACTED] b"
    forget_secret(registered)
    assert redact(f"a {registered} b") == f"a {registered} b"


def test_of_overlapping_registered_values_the_longest_goes_first() -> None:
    """So that no tail of it remains."""
    register_secret("abcdef")
    register_secret("abcdefghij")
    try:
        assert redact("x abcdefghij y abcdef z") == "x [REDACTED] y [REDACTED] z"
    finally:
        forget_secret("abcdef")
        forget_secret("abcdefghij")


def test_a_short_value_cannot_be_registered() -> None:
    """It would blot out ordinary words."""
    with pytest.raises(InvalidInputError, match="fewer than 4 characters"):
        register_secret("abc")


def test_registering_from_several_threads_loses_none() -> None:
    """The registry is replaced as a whole under a lock."""
    values = [f"secret-{number:03}" for number in range(64)]
    threads = [threading.Thread(target=register_secret, args=(value,)) for value in values]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    try:
        assert redact(" ".join(values)) == " ".join(["[REDACTED]"] * 64)
    finally:
        for value in values:
            forget_secret(value)


def test_safe_text_redacts_then_cleans_then_cuts() -> None:
    """A secret in a text with controls goes; the cut names size and hash of the redacted text."""
    assert safe_text("a\npassword=x\u200by") == "a\\u{000A}password=[REDACTED]"
    assert safe_text("-----BEGIN PRIVATE KEY-----\nx\n-----END PRIVATE KEY-----\n") == "[REDACTED]\\u{000A}"
    assert f"…[{2000 + len(' token=[REDACTED]')} bytes" in safe_text("y" * 2000 + f" token={SECRET}")


#: Each is repeated to a hostile text: openings without ends, keys without values, near misses.
HOSTILE = [
    *(
        "password=",
        "password: ",
        "token",
        "token ",
        'token"',
        "token='",
        'token=\\"',
        "api_key=,",
        "secret=a,b=c,",
    ),
    *(
        "bearer ",
        "bearer\t\t",
        "eyJ",
        "eyJ.",
        "eyJa-",
        "a.eyJ",
        "-eyJ.eyJ",
        "://",
        "://a:b",
        "://a@",
        "://u:p/",
    ),
    *("-----BEGIN ", "-----BEGIN PRIVATE KEY-----", "-----END ", "PRIVATE+KEY+", "authorization: basic "),
    *(
        "password=)",
        "password=]}",
        "token=[REDACTED]",
        "token \u200b",
        " ",
        "a",
        "\\",
        '"',
        "=",
        ":",
        "token%3",
    ),
    *(
        "0123abcd-",
        "0123abcd-0000-",
        "accessToken",
        "password=a)b",
        "token=a&b.c-d",
        "token: |\n",
        "secret->",
    ),
]


@pytest.mark.parametrize("piece", HOSTILE)
def test_the_time_grows_with_the_length_and_not_faster(piece: str) -> None:
    """Eight times the text takes well under the 64 times that a quadratic pattern would."""

    def work_ns(characters: int) -> int:
        text = (piece * (characters // len(piece) + 1))[:characters] + "!"
        durations = []
        for _ in range(3):
            start = time.thread_time_ns()
            redact(text, uuids=True)
            durations.append(time.thread_time_ns() - start)
        return max(min(durations), 1)

    assert work_ns(16_000) / work_ns(2_000) < 24


def test_no_pattern_holds_an_unbounded_repeat_inside_another() -> None:
    """What repeats without bound is possessive, a single character's, or a class that cannot meet its end."""
    nested = re.compile(r"[*+]\)[*+](?!\+)")
    sources = [pattern for pattern, _ in redaction._WHOLE_SECRETS + redaction._CREDENTIALS]
    sources += [redaction._key().pattern, redaction._value().pattern, redaction._authority().pattern]
    assert [source for source in sources if nested.search(source)] == []


@pytest.mark.parametrize(
    ("text", "redacted"),
    [
        ('{"token":["hunter2"]}', '{"token":[REDACTED]}'),
        ('{"token": [1, "hun]ter2", "b"], "id": ["ok"]}', '{"token": [REDACTED], "id": ["ok"]}'),
        ('{"password":{"value":"hunter2"}} then', '{"password":[REDACTED]} then'),
        ("{'secret': ['hunter2', 'hunter3']}", "{'secret': [REDACTED]}"),
        ('{\\"token\\":[\\"hunter2\\"]} then', '{\\"token\\":[REDACTED]} then'),
        ('{"token":["hunter2', '{"token":[REDACTED]'),
        ('"tokens": ["fine"]', '"tokens": ["fine"]'),
    ],
)
def test_a_list_or_an_object_of_secrets_goes_as_a_whole(text: str, redacted: str) -> None:
    """JSON may hold the secret one level deeper than the key; twice redacted is the same."""
    assert redact(text) == redacted
    assert redact(redacted) == redacted
