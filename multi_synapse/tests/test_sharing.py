"""What tenants hold together, or not at all: patches/tls.py and patches/series.py."""

from __future__ import annotations

import weakref
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from OpenSSL import SSL, crypto
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.metrics import MetricWrapperBase
from synapse.crypto import context_factory
from twisted.internet.ssl import Certificate, trustRootFromCertificates

from multi_synapse import metrics
from multi_synapse.metrics import LONGEST_LABEL, MOST_CHILDREN, READ_FAMILIES, SUMMED_FAMILIES
from multi_synapse.options.families import Families
from multi_synapse.patches.series import UNREAD, keep_read_families_only
from multi_synapse.patches.tls import share_tls_contexts


@pytest.fixture
def shared(monkeypatch: pytest.MonkeyPatch) -> None:
    # To be undone at the end of the test, which the patch itself does not.
    monkeypatch.setattr(context_factory, "CertificateOptions", context_factory.CertificateOptions)
    share_tls_contexts()


def federation_policy(minimum: str = "1", trust_root: Any = None) -> Any:
    tls = SimpleNamespace(
        federation_ca_trust_root=trust_root,
        federation_client_minimum_tls_version=minimum,
        federation_verify_certificates=True,
        federation_certificate_verification_whitelist=[],
    )
    return context_factory.FederationPolicyForHTTPS(SimpleNamespace(tls=tls))  # type: ignore[arg-type]


def authority(name: str) -> tuple[Any, Any, bytes]:
    """A certificate that signs itself, and is good for the server `name`: key, certificate, certificate as PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(subject).public_key(key.public_key())
    builder = builder.serial_number(x509.random_serial_number()).not_valid_before(now - timedelta(1)).not_valid_after(now + timedelta(1))
    builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    certificate = builder.sign(key, hashes.SHA256())
    return key, certificate, certificate.public_bytes(serialization.Encoding.PEM)


class Protocol:
    """What Synapse's verifier wants of a TLSMemoryBIOProtocol."""

    failure: Any = None

    def failVerification(self, failure: Any) -> None:
        self.failure = failure


def connect(policy: Any, host: str) -> tuple[Any, Protocol]:
    protocol = Protocol()
    connection = policy.creatorForNetloc(host.encode(), 443).clientConnectionForTLS(protocol)
    connection.set_connect_state()
    return connection, protocol


def shake_hands(client: Any, key: Any, certificate: Any) -> None:
    """@raises SSL.Error where the client does not trust the certificate"""
    context = SSL.Context(SSL.TLS_SERVER_METHOD)
    context.use_privatekey(crypto.PKey.from_cryptography_key(key))
    context.use_certificate(crypto.X509.from_cryptography(certificate))
    server = SSL.Connection(context, None)
    server.set_accept_state()
    done: set[Any] = set()
    while len(done) < 2:
        for one, other in ((client, server), (server, client)):
            try:
                one.do_handshake()
                done.add(one)
            except SSL.WantReadError:
                pass
            try:
                other.bio_write(one.bio_read(2**16))
            except SSL.WantReadError:
                pass


def test_tenants_share_the_platforms_authorities(shared: None) -> None:
    # Guards against: every tenant holds all authorities twice, which is more memory than the rest of it.
    regular = [context_factory.RegularPolicyForHTTPS()._ssl_context for _ in range(2)]
    federation = [federation_policy() for _ in range(2)]
    assert regular[0] is regular[1]
    assert federation[0]._verify_ssl_context is federation[1]._verify_ssl_context
    assert federation[0]._no_verify_ssl_context is federation[1]._no_verify_ssl_context
    contexts = {regular[0], federation[0]._verify_ssl_context, federation[0]._no_verify_ssl_context}
    assert len(contexts) == 3


def test_settings_of_a_tenants_own_are_not_shared(shared: None) -> None:
    # Guards against: one tenant's minimum of TLS, or its authorities, become another's.
    stricter = federation_policy(minimum="1.3")
    assert stricter._verify_ssl_context is not federation_policy()._verify_ssl_context
    assert stricter._no_verify_ssl_context is not federation_policy()._no_verify_ssl_context
    key, certificate, pem = authority("matrix.example")
    with_own, without = federation_policy(trust_root=trustRootFromCertificates([Certificate.loadPEM(pem)])), federation_policy()
    connection, protocol = connect(with_own, "matrix.example")
    shake_hands(connection, key, certificate)
    assert protocol.failure is None
    connection, _ = connect(without, "matrix.example")
    with pytest.raises(SSL.Error):
        shake_hands(connection, key, certificate)


def test_each_connection_verifies_its_own_name(shared: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    # Guards against: a connection that is being made when another tenant starts crashes the process, or is verified as another's.
    key, certificate, pem = authority("right.example")
    file = tmp_path / "authorities.pem"
    file.write_bytes(pem)
    monkeypatch.setenv("SSL_CERT_FILE", str(file))
    right, good = connect(context_factory.RegularPolicyForHTTPS(), "right.example")
    wrong, bad = connect(context_factory.RegularPolicyForHTTPS(), "wrong.example")
    context_factory.RegularPolicyForHTTPS()
    shake_hands(right, key, certificate)
    shake_hands(wrong, key, certificate)
    assert good.failure is None
    assert bad.failure is not None


def test_new_authorities_of_the_platform_are_used(shared: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    # Guards against: certificates that were brought up to date reach no tenant until the whole shard is restarted.
    file = tmp_path / "authorities.pem"
    file.write_bytes(authority("old.example")[2])
    monkeypatch.setenv("SSL_CERT_FILE", str(file))
    before = context_factory.RegularPolicyForHTTPS()
    key, certificate, pem = authority("new.example")
    newer = tmp_path / "newer.pem"
    newer.write_bytes(pem)
    newer.replace(file)
    after = context_factory.RegularPolicyForHTTPS()
    assert after._ssl_context is not before._ssl_context
    connection, protocol = connect(after, "new.example")
    shake_hands(connection, key, certificate)
    assert protocol.failure is None


def test_only_metrics_that_are_read_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    # Guards against: hundreds of counters for each tenant that nobody can read; or a metric that is read is lost.
    monkeypatch.setattr(MetricWrapperBase, "labels", MetricWrapperBase.labels)
    keep_read_families_only()
    metrics.begin_series("s")
    registry = CollectorRegistry()
    read = Counter(min(READ_FAMILIES - SUMMED_FAMILIES), "read", ["name", "server_name"], registry=registry)
    summed = Counter(min(SUMMED_FAMILIES), "summed up", ["name", "server_name"], registry=registry)
    of_process = Counter("of_process", "without a tenant", ["name"], registry=registry)
    unread: list[Any] = [kind("unread", "not read", ["name", "server_name"], registry=None) for kind in (Counter, Gauge, Histogram)]
    read.labels(name="a", server_name="s").inc()
    of_process.labels("a").inc()
    summed.labels(name="a", server_name="s").inc(1)
    summed.labels("b", "s").inc(2)
    assert summed._metrics.keys() == {("", "s")}
    assert [sample.value for sample in next(iter(summed.collect())).samples if sample.name.endswith("_total")] == [3]
    assert read._metrics.keys() == {("a", "s")}
    assert of_process._metrics.keys() == {("a",)}
    for family in unread:
        child = family.labels(name="a", server_name="s")
        assert child is UNREAD is family.labels("a", "s")
        with child.time(), child.track_inprogress(), child.count_exceptions():
            child.inc()
            child.inc(2.0, exemplar={})
            child.set(1)
            child.observe(1)
        assert not family._metrics
    metrics.drop_series("s")


def test_work_that_ends_after_its_tenant_brings_no_series_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MetricWrapperBase, "labels", MetricWrapperBase.labels)
    keep_read_families_only()
    families = [Counter(name, "read", ["name", "server_name"], registry=None) for name in sorted(READ_FAMILIES)]
    metrics.begin_series("s")
    for family in families:
        family.labels("a", "s").inc()
        assert len(family._metrics) == 1
        family.clear()
    metrics.drop_series("s")
    for family in families:
        family.labels("a", "s").inc()
        family.labels(name="a", server_name="s").inc()
        assert not family._metrics


def test_a_client_that_names_labels_makes_no_series_without_end(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    # Guards against: each push gateway that a user makes up is a series for good, in memory and in each scrape.
    monkeypatch.setattr(MetricWrapperBase, "labels", MetricWrapperBase.labels)
    keep_read_families_only()
    pushers: Any = Gauge("synapse_pushers", "by app", ["kind", "app_id", "server_name"], registry=None)
    for name in ("s", "t"):
        metrics.begin_series(name, Families(["synapse_pushers"]))
    assert pushers.labels("http", "x" * (LONGEST_LABEL + 1), "s") is UNREAD
    for number in range(MOST_CHILDREN + 10):
        pushers.labels(kind="http", app_id=f"app{number}", server_name="s").inc()
    assert len(pushers._metrics) == MOST_CHILDREN
    # What is there goes on counting, and a neighbour has a number of its own.
    pushers.labels("http", "app0", "s").inc()
    assert pushers.labels("http", "app0", "s")._value.get() == 2
    assert pushers.labels("http", "app0", "t") is not UNREAD
    assert caplog.text.count("s: of synapse_pushers") == 1
    # Synapse clears some families, after which there is room again.
    pushers.clear()
    assert pushers.labels("http", "another", "s") is not UNREAD
    for name in ("s", "t"):
        metrics.drop_series(name)


def test_an_unread_metric_does_not_keep_its_tenant() -> None:
    # Guards against: a stopped tenant stays in memory because a gauge would ask it for a number.
    class Queue:
        pass

    queue = Queue()
    UNREAD.set_function(lambda queue=queue: len(queue.items))
    gone = weakref.ref(queue)
    del queue
    assert gone() is None
