"""The TCP port of `vram serve`: who is let in, and what strangers can and cannot do."""

from __future__ import annotations

import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.daemons import Daemon, daemon, vram, write_config
from tests.shards import TOKEN

TCP = {"enabled": True, "port": 0}


def token_of(root: Path, name: str, *scopes: str, expires: str | None = None) -> str:
    """Make a token as a person does."""
    words = [word for scope in scopes for word in ("--scope", scope)]
    words += ["--expires", expires] if expires else []
    done = vram("serve", "new-token", root / "tokens.toml", "--name", name, *words)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def tcp(root: Path, **more: Any) -> dict[str, Any]:
    return {**TCP, "tokens_file": str(root / "tokens.toml"), **more}


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def test_loopback_needs_a_token_too(tmp_path: Path) -> None:
    """Nothing but signs of life is told without one; the file keeps a hash, the log a fingerprint."""
    token = token_of(tmp_path, "ci", "read")
    assert token not in (tmp_path / "tokens.toml").read_text()
    with daemon(tmp_path, tcp=tcp(tmp_path)) as worker, httpx.Client(base_url=worker.url) as client:
        for path in ("/v1/status", "/v1/shards", "/readyz?verbose", "/metrics", "/nothing"):
            refused = client.get(path)
            assert (path, refused.status_code, refused.json()["code"]) == (path, 401, "AUTH_FAILED")
            assert refused.headers["www-authenticate"] == "Bearer"
        assert client.get("/livez").status_code == 200
        assert client.get("/v1/status", headers=bearer(token)).json()["state"] == "ready"
        worker.end()
    (success,) = worker.events("auth_success")
    assert success["actor"]["user_id"] == "client:ci"
    assert success["actor"]["auth_method"] == "bearer_token"
    assert success["actor"]["ip"] == "127.0.0.1"
    assert len(success["actor"]["session_id"]) == 6
    assert token not in "".join(path.read_text() for path in (tmp_path / "audit" / "entries").iterdir())


def test_scopes_bound_what_a_token_does(tmp_path: Path) -> None:
    """Reading does not execute, and neither frees; each refusal is on the record with its actor."""
    read, admin = token_of(tmp_path, "reader", "read"), token_of(tmp_path, "boss", "admin", "audit")
    with daemon(tmp_path, tcp=tcp(tmp_path)) as worker, httpx.Client(base_url=worker.url) as client:
        attempts = [
            client.post("/v1/execute", json={"handle_id": "x"}, headers=bearer(read)),
            client.post("/v1/commit", json={"path": "x"}, headers=bearer(read)),
            client.delete("/v1/shards/x", headers=bearer(read)),
            client.get("/v1/audit", headers=bearer(read)),
            client.get("/v1/status", headers=bearer(admin)),
        ]
        assert [each.status_code for each in attempts] == [403] * 5
        assert {each.json()["code"] for each in attempts} == {"AUTH_FAILED"}
        assert client.delete("/v1/shards/x", headers=bearer(admin)).status_code == 404
        worker.end()
    denied = worker.events("authorization_denied")
    assert {entry["actor"]["user_id"] for entry in denied} == {"client:reader"}
    assert denied[0]["reason"] == "needs the scope execute"


def test_an_ended_token_a_wrong_scheme_and_the_seal_token_are_refused(tmp_path: Path) -> None:
    """None of them says more than that it is not known."""
    ended = token_of(tmp_path, "old", "read", expires="2020-01-01T00:00:00Z")
    with daemon(tmp_path, tcp=tcp(tmp_path)) as worker, httpx.Client(base_url=worker.url) as client:
        attempts = [bearer(ended), bearer(TOKEN), {"Authorization": f"Basic {ended}"}]
        answers = [client.get("/v1/status", headers=each) for each in attempts]
        assert {(each.status_code, each.json()["detail"]) for each in answers} == {
            (401, "the token is not known, or it has ended")
        }


def test_queries_hosts_and_origins_of_strangers_are_refused(tmp_path: Path) -> None:
    """Even with the right token: DNS that was bent, pages of others, tokens in a query."""
    token = token_of(tmp_path, "ci", "read")
    with daemon(tmp_path, tcp=tcp(tmp_path)) as worker, httpx.Client(base_url=worker.url) as client:
        host = worker.listening["tcp"]

        def ask(path: str = "/v1/status", **headers: str) -> tuple[int, httpx.Headers]:
            answer = client.get(path, headers={**bearer(token), **headers})
            return answer.status_code, answer.headers

        assert ask(Host="evil.example")[0] == 421
        assert ask(Origin="https://evil.example")[0] == 403
        assert ask(Origin="null")[0] == 403
        assert ask(f"/v1/status?access_token={token}")[0] == 400
        assert ask(f"/v1/status?%74oken={token}")[0] == 400
        status, headers = ask(Origin=f"http://{host}")
        assert status == 200
        assert not [name for name in headers if name.startswith("access-control-")]
        assert client.get("/livez", headers={"Host": "evil.example"}).status_code == 421
        assert client.options("/v1/status", headers={"Origin": "https://evil.example"}).status_code == 403


def test_ten_thousand_bad_tokens_leave_it_ready_and_its_log_small(tmp_path: Path) -> None:
    """The first is recorded, the rest counted; who has a token is not slowed down by who has none."""
    token = token_of(tmp_path, "ci", "read")
    with daemon(tmp_path, tcp=tcp(tmp_path)) as worker:
        with ThreadPoolExecutor(8) as pool:
            counts = list(pool.map(lambda number: _try_tokens(worker, number, 1250), range(8)))
        assert sum(sum(count.values()) for count in counts) == 10_000
        assert {status for count in counts for status in count} <= {401, 429}
        with httpx.Client(base_url=worker.url, headers=bearer(token)) as client:
            assert client.get("/v1/status").json()["state"] == "ready"
        assert worker.end() == 0
    entries = worker.events()
    assert len(entries) < 30
    (first,) = worker.events("invalid_token_used")
    assert (first["ip"], len(first["token_prefix"])) == ("127.0.0.1", 6)
    more = {entry["activity_type"]: entry["details"] for entry in worker.events("suspicious_activity")}
    assert more["invalid_token_used"].startswith("9999 more within ")
    assert worker.events("rate_limit_exceeded")


def _try_tokens(worker: Daemon, number: int, count: int) -> dict[int, int]:
    """Raw requests on connections that stay: a client library would be the slowest part."""
    found: dict[int, int] = {}
    host, port = worker.listening["tcp"].rsplit(":", 1)
    done = 0
    while done < count:
        with socket.create_connection((host, int(port))) as connection, connection.makefile("rb") as answers:
            while done < count:
                head = f"Host: {host}:{port}\r\nAuthorization: Bearer wrong-{number}-{done}"
                connection.sendall(f"GET /v1/status HTTP/1.1\r\n{head}\r\n\r\n".encode())
                status = int(answers.readline().split()[1])
                found[status] = found.get(status, 0) + 1
                done += 1
                closes = _skip(answers)
                if closes:
                    break
    return found


def _skip(answers: Any) -> bool:
    """Read the rest of an answer; whether the connection ends with it."""
    length, closes = 0, False
    while (line := answers.readline().strip().lower()) != b"":
        name, _, value = line.partition(b":")
        length = int(value) if name == b"content-length" else length
        closes = closes or (name == b"connection" and value.strip() == b"close")
    answers.read(length)
    return closes


@pytest.mark.parametrize(
    ("more", "named"),
    [
        pytest.param({"host": "0.0.0.0"}, "tcp.certificate: is missing", id="no TLS beyond loopback"),
        pytest.param({"host": "::"}, "tcp.certificate: is missing", id="nor over IPv6"),
        pytest.param({"host": "localhost"}, "tcp.host: must be an IP address", id="a name is no address"),
        pytest.param({"client_ca": "/ca.pem"}, "tcp.client_ca: needs tcp.certificate", id="mTLS without TLS"),
        pytest.param({"certificate": "/c.pem"}, "tcp.key: certificate and key come together", id="no key"),
    ],
)
def test_an_unsafe_port_is_refused_at_the_start(tmp_path: Path, more: dict[str, str], named: str) -> None:
    """Before anything is opened."""
    token_of(tmp_path, "ci", "read")
    done = vram("serve", "--config", write_config(tmp_path, tcp=tcp(tmp_path, **more)))
    assert done.returncode == 2
    assert named in done.stderr


def test_token_files_that_are_unsafe_are_refused(tmp_path: Path) -> None:
    """Readable by others, empty, with a token in the clear, or with the seal token among them."""
    token_of(tmp_path, "ci", "read")
    config = write_config(tmp_path, tcp=tcp(tmp_path))
    tokens = tmp_path / "tokens.toml"
    tokens.chmod(0o644)
    assert f"chmod 600 {tokens}" in vram("serve", "--config", config).stderr
    tokens.chmod(0o600)
    good = tokens.read_text()
    for text, named in (
        ("", "holds no token"),
        (good + good, "two tokens of one name"),
        (good + 'secret = "x"\n', "unknown field"),
        (good.replace('sha256 = "', 'sha256 = "x'), "no file of tokens"),
    ):
        tokens.write_text(text)
        assert named in vram("serve", "--config", config).stderr
    from vram_residency.worker.tokens import table_of

    tokens.write_text(table_of("seal", TOKEN, frozenset({"read"}), None))
    assert "holds the seal token" in vram("serve", "--config", config).stderr


def test_a_client_certificate_is_a_credential_where_its_authority_is_named(tmp_path: Path) -> None:
    """mTLS: the subject is the actor; without a certificate the handshake fails."""
    authority = _certificates(tmp_path)
    more = {
        "certificate": str(tmp_path / "server.pem"),
        "key": str(tmp_path / "server.key"),
        "client_ca": str(authority),
    }
    import ssl

    tls = ssl.create_default_context(cafile=authority)
    with daemon(tmp_path, tcp={**TCP, **more}) as worker:
        url = worker.url.replace("http:", "https:")
        with httpx.Client(verify=tls) as stranger, pytest.raises(httpx.TransportError):
            stranger.get(f"{url}/v1/status")
        known = ssl.create_default_context(cafile=authority)
        known.load_cert_chain(tmp_path / "client.pem", tmp_path / "client.key")
        with httpx.Client(verify=known) as client:
            assert client.get(f"{url}/v1/status").status_code == 200
            assert client.post(f"{url}/v1/execute", json={"handle_id": "x"}).status_code == 403
        worker.end()
    (success,) = worker.events("auth_success")
    assert success["actor"]["user_id"] == "certificate:commonName=the client"
    assert success["actor"]["auth_method"] == "m_tls"


def _certificates(folder: Path) -> Path:
    """An authority, and certificates of a server and a client that it signed."""
    import datetime as dt
    import ipaddress

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    now = dt.datetime.now(dt.UTC)

    def make(name: str, common_name: str, issuer: tuple[Any, Any] | None) -> tuple[Any, Any]:
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(subject if issuer is None else issuer[0].subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(days=1))
            .not_valid_after(now + dt.timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
            .add_extension(
                x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]),
                critical=False,
            )
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        )
        if issuer is None:
            usage = x509.KeyUsage(*[index in {5, 6} for index in range(9)])  # certificates and lists of them
            builder = builder.add_extension(usage, critical=True)
        else:
            signer = x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer[1].public_key())
            builder = builder.add_extension(signer, critical=False)
        certificate = builder.sign(key if issuer is None else issuer[1], hashes.SHA256())
        (folder / f"{name}.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        plain = serialization.NoEncryption()
        form = serialization.PrivateFormat.PKCS8
        (folder / f"{name}.key").write_bytes(key.private_bytes(serialization.Encoding.PEM, form, plain))
        return certificate, key

    authority = make("authority", "the authority", None)
    make("server", "the server", authority)
    make("client", "the client", authority)
    return folder / "authority.pem"
