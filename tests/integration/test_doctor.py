"""`storenode doctor` against real brokers and daemons: what is wrong is named, and nothing is changed."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from testbed import commands
from testbed.broker import MOSQUITTO, Broker, free_port, start_mosquitto
from testbed.chain import Chain
from testbed.process import until

real_mosquitto = pytest.mark.skipif(MOSQUITTO is None, reason="mosquitto is not installed")


def doctor(directory: Path, broker: str, *options: str) -> tuple[int, dict[str, dict[str, str]]]:
    """The exit code, and by name the worst of its checks."""
    environ = os.environ | {"STORENODE_DB": str(directory / "replica.db"), "STORENODE_BROKER": broker}
    done = commands.run("storenode", [*options, "doctor", "--json"], environ | {"STORENODE_STORE_ID": "s"})
    assert done.returncode in (0, 1), done.stderr
    document = json.loads(done.stdout)
    order = ["ok", "warn", "fail"]
    found: dict[str, dict[str, str]] = {}
    for check in document["checks"]:
        if check["check"] not in found or order.index(check["verdict"]) > order.index(found[check["check"]]["verdict"]):
            found[check["check"]] = check
    assert document["verdict"] == max((c["verdict"] for c in document["checks"]), key=order.index)
    assert (done.returncode == 1) == (document["verdict"] == "fail")
    return done.returncode, found


def said(found: dict[str, dict[str, str]], name: str) -> tuple[str, str]:
    return found[name]["verdict"], found[name]["sentence"]


def test_a_port_where_nothing_listens(tmp_path: Path) -> None:
    code, found = doctor(tmp_path, f"mqtt://127.0.0.1:{free_port()}")
    verdict, sentence = said(found, "broker")
    assert (code, verdict, "Connection refused" in sentence) == (1, "fail", True)
    assert "credentials" not in found


def test_a_name_that_nobody_knows(tmp_path: Path) -> None:
    _, found = doctor(tmp_path, "mqtt://no-such-host.invalid:1883")
    assert said(found, "broker")[1].startswith("The broker's name no-such-host.invalid is not found")


def test_a_port_that_takes_connections_and_never_answers(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        _, found = doctor(tmp_path, f"mqtt://127.0.0.1:{mute.getsockname()[1]}")
    assert said(found, "broker")[0] == "ok"
    assert "does not answer within 3 s" in said(found, "credentials")[1]


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[Broker]:
    """A broker that lets in the user `s` with the password `right`."""
    passwords = tmp_path / "passwords"
    passwords.touch(mode=0o600)
    subprocess.run(["mosquitto_passwd", "-b", str(passwords), "s", "right"], check=True, timeout=20)
    settings = f"allow_anonymous false\npassword_file {passwords}"
    with start_mosquitto(tmp_path, free_port(), settings=settings) as broker:
        yield broker


@real_mosquitto
def test_a_wrong_password_and_a_missing_one_and_the_right_one(tmp_path: Path, guarded: Broker) -> None:
    place = f"127.0.0.1:{guarded.port}"
    for url in (f"mqtt://s:hunter-77@{place}", f"mqtt://{place}"):
        code, found = doctor(tmp_path, url)
        verdict, sentence = said(found, "credentials")
        assert (code, verdict, "does not let this user in (" in sentence) == (1, "fail", True), sentence
        assert found["credentials"]["todo"] == "check the user and password in broker"
        assert "hunter" not in json.dumps(found)
    _, found = doctor(tmp_path, f"mqtt://s:right@{place}")
    assert said(found, "credentials") == ("ok", f"The broker mqtt://s:***@{place} lets us in.")


@real_mosquitto
def test_a_broker_without_anything_of_hq(tmp_path: Path) -> None:
    with start_mosquitto(tmp_path, free_port()) as broker:
        code, found = doctor(tmp_path, broker.url, "--scopes", "all,zone-west")
    verdict, sentence = said(found, "head")
    assert (code, verdict) == (1, "fail")
    assert "no head on the broker, or this user may not read it: this store cannot be filled" in sentence
    assert said(found, "hq")[0] == "warn"


def certificate(directory: Path) -> None:
    """A certificate that nobody vouches for, `cert.pem`, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name, now = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")]), datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    (directory / "cert.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    (directory / "key.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )


@real_mosquitto
def test_tls_against_a_plain_port_a_strange_certificate_and_plain_against_tls(tmp_path: Path) -> None:
    certificate(tmp_path)
    tls = f"certfile {tmp_path}/cert.pem\nkeyfile {tmp_path}/key.pem"
    with start_mosquitto(tmp_path, free_port()) as plain:
        _, found = doctor(tmp_path, f"mqtts://127.0.0.1:{plain.port}")
    assert said(found, "credentials")[0] == "fail"
    assert "TLS on this port" in said(found, "credentials")[1] + found["credentials"]["todo"]
    with start_mosquitto(tmp_path, free_port(), settings=tls) as broker:
        _, found = doctor(tmp_path, f"mqtts://localhost:{broker.port}")
        assert "its certificate is not one that this machine trusts" in said(found, "credentials")[1]
        _, found = doctor(tmp_path, f"mqtt://127.0.0.1:{broker.port}")
    assert said(found, "credentials")[0] == "fail"
    assert found["credentials"]["todo"].endswith("if its port is a TLS one: mqtts://")


def test_all_mistakes_of_the_configuration_are_told_and_the_rest_is_looked_at(tmp_path: Path) -> None:
    config = tmp_path / "storenode.toml"
    config.write_text('brokr = "x"\nmax_kbps = 3\nscopes = "zone,all"\n')
    environ = os.environ | {"STORENODE_DB": str(tmp_path / "r.db")}
    done = commands.run("storenode", ["--config", str(config), "doctor"], environ)
    lines = done.stdout.splitlines()
    assert done.returncode == 1
    assert [line.split()[:2] for line in lines[:3]] == [["fail", "configuration"]] * 3
    assert "did you mean 'broker'?" in lines[0]
    assert any(line.startswith("ok    sqlite") for line in lines)
    assert "The broker was not probed: broker, root or scopes is wrong." in done.stdout


def contents(directory: Path) -> dict[str, tuple[bytes, float, int]]:
    """Every file but the index of the log, which any reader locks: bytes, time, owner."""
    return {
        str(p): (b"" if p.name.endswith("-shm") else p.read_bytes(), p.stat().st_mtime, p.stat().st_uid)
        for p in directory.rglob("*")
        if p.is_file() and not p.name.endswith("-shm")
    } | {str(p): (b"", 0.0, p.stat().st_uid) for p in directory.rglob("*-shm")}


def test_a_store_that_is_well_and_what_a_visit_leaves_behind(chain: Chain) -> None:
    """Nothing: neither with the daemon at work, which stays on the line, nor with it dead."""
    chain.hq_run.start()
    chain.import_prices(100, "1.00")
    store = chain.add_store("s")
    chain.wait_equal("s")
    until(lambda: chain.store("s", "status").returncode == 0, "the store is live")
    directory, url = chain.replica("s").parent, f"mqtt://127.0.0.1:{chain.port}"
    code, found = doctor(directory, url)
    assert code == 0, found
    assert {name for name, check in found.items() if check["verdict"] == "fail"} == set()
    assert {"configuration", "sqlite", "directory", "permissions", "disk", "daemon", "replica", "outbox"} <= set(found)
    assert {"broker", "credentials", "head", "hq", "clock"} <= set(found)
    assert "line.lost" not in store.log.read_text()

    store.stop(signal.SIGKILL)
    before = contents(directory)
    code, found = doctor(directory, url)
    assert (code, said(found, "daemon")[0]) == (1, "fail")
    assert said(found, "replica")[0] == "ok" or "offline" in said(found, "replica")[1]
    assert contents(directory) == before

    for name in ("replica.db", "outbox.db"):
        for suffix in ("-wal", "-shm"):
            (directory / (name + suffix)).unlink(missing_ok=True)
    before = contents(directory)
    code, found = doctor(directory, url)
    assert said(found, "permissions")[1].endswith("who may not write beside it cannot open it.")
    assert contents(directory) == before, "no -wal, no -shm made"


def hq_doctor(chain: Chain) -> tuple[int, dict[str, list[str]]]:
    """The exit code, and the verdicts by name."""
    done = chain.hq("doctor", "--json", check=False)
    found: dict[str, list[str]] = {}
    for check in json.loads(done.stdout)["checks"]:
        found.setdefault(check["check"], []).append(check["verdict"])
    return done.returncode, found


def test_hq_has_a_doctor_too(chain: Chain) -> None:
    before = contents(chain.directory)
    code, found = hq_doctor(chain)
    assert (code, found["daemon"], found["head"]) == (1, ["fail"], ["fail", "fail"]), "nothing was ever published"
    assert {p for p in contents(chain.directory) if "hq.db" in p} == {p for p in before if "hq.db" in p}
    chain.hq_run.start()
    chain.import_prices(10, "1.00")
    chain.wait_published()
    code, found = hq_doctor(chain)
    assert code == 0
    assert found == {
        "configuration": ["ok"],
        "disk": ["ok"],
        "master": ["ok"],
        "daemon": ["ok"],
        "broker": ["ok"],
        "credentials": ["ok"],
        "head": ["ok", "ok"],
    }
    chain.hq_run.stop()
    chain.import_prices(10, "2.00")
    assert hq_doctor(chain)[1]["head"] == ["fail", "ok"], "nobody publishes what has changed"
    path = chain.directory / "hq.db"
    whole = path.read_bytes()
    path.write_bytes(whole[:8_192] + b"\xff" * (len(whole) - 8_192))
    assert hq_doctor(chain)[1]["master"] == ["fail"]


AS_NOBODY = """
import json, os, pwd, sys
from storenode import commands
from storenode.config import examine
from storenode.core import advice
from storenode.doctor.checks import checks
list(checks(examine({"STORENODE_BROKER": sys.argv[2], "STORENODE_DB": "/nowhere/r.db"})))
nobody = pwd.getpwnam("nobody")
os.setgroups([])
os.setgid(nobody.pw_gid)
os.setuid(nobody.pw_uid)
found = checks(examine({"STORENODE_BROKER": sys.argv[2], "STORENODE_DB": sys.argv[1]}))
print(json.dumps([[c.name, c.finding.verdict, c.finding.sentence] for c in found]))
"""


@pytest.mark.skipif(os.getuid() != 0, reason="becomes another user")
def test_another_user_is_told_what_it_may_not_look_at_and_the_rest(tmp_path: Path) -> None:
    home = tmp_path / "store"
    home.mkdir(mode=0o700)
    (home / "replica.db").touch()
    done = subprocess.run(
        [sys.executable, "-c", AS_NOBODY, str(home / "replica.db"), f"mqtt://127.0.0.1:{free_port()}"],
        env=os.environ | {"PYTHONPATH": os.getcwd()},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = {name: (verdict, sentence) for name, verdict, sentence in json.loads(done.stdout)}
    assert found["directory"][1].endswith("may not be looked at by this user: Permission denied.")
    assert (found["sqlite"][0], found["broker"][0]) == ("ok", "fail")
