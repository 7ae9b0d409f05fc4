"""sslyze against a running server with TLS: old versions, weak suites, known holes, and Mozilla's recommendation."""

import datetime
import os
import sys
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID
from sslyze import (
    Scanner,
    ServerNetworkConfiguration,
    ServerNetworkLocation,
    ServerScanRequest,
    ServerScanStatusEnum,
)
from sslyze.mozilla_tls_profile.tls_config_checker import (
    MozillaTlsConfiguration,
    ServerNotCompliantWithTlsConfiguration,
    TlsConfigurationEnum,
    check_server_against_tls_configuration,
)

NAME = "localhost"
OLD_VERSIONS = ["ssl_2_0", "ssl_3_0", "tls_1_0", "tls_1_1"]
# What a certificate of a test must fail.
OF_THE_CERTIFICATE = {"certificate_path_validation"}


def write_pair(directory, key):
    """A certificate for `localhost` that nobody has signed, and its key."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, NAME)])
    now = datetime.datetime.now(datetime.timezone.utc)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now)
        .not_valid_after(now + datetime.timedelta(days=30))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(NAME)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "certificate.pem").write_bytes(certificate.public_bytes(pem))
    form = serialization.PrivateFormat.PKCS8
    (directory / "key.pem").write_bytes(key.private_bytes(pem, form, serialization.NoEncryption()))


def scan(address):
    """What sslyze finds."""
    host, port = address.rsplit(":", 1)
    location = ServerNetworkLocation(hostname=NAME, port=int(port), ip_address=host)
    scanner = Scanner()
    scanner.queue_scans([ServerScanRequest(location, ServerNetworkConfiguration(tls_server_name_indication=NAME))])
    (result,) = scanner.get_results()
    assert result.scan_status == ServerScanStatusEnum.COMPLETED, result.connectivity_error_trace
    return result


class Report:
    def __init__(self, result):
        self.result = result
        self.scans = result.scan_result

    def of(self, name):
        attempt = getattr(self.scans, name)
        assert attempt.result is not None, f"{name}: {attempt.error_trace}"
        return attempt.result

    def old_versions_are_refused(self):
        for version in OLD_VERSIONS:
            accepted = self.of(f"{version}_cipher_suites").accepted_cipher_suites
            assert not accepted, f"{version}: {accepted}"

    def every_suite_has_forward_secrecy(self):
        for version in ["tls_1_2", "tls_1_3"]:
            accepted = self.of(f"{version}_cipher_suites").accepted_cipher_suites
            assert accepted, f"nothing is accepted in {version}"
            for suite in accepted:
                assert suite.ephemeral_key is not None, suite.cipher_suite.name

    def known_holes_are_not_here(self):
        assert not self.of("heartbleed").is_vulnerable_to_heartbleed
        assert not self.of("openssl_ccs_injection").is_vulnerable_to_ccs_injection
        assert self.of("robot").robot_result.name.startswith("NOT_VULNERABLE"), self.of("robot")
        assert not self.of("tls_compression").supports_compression
        assert not self.of("session_renegotiation").is_vulnerable_to_client_renegotiation_dos
        assert self.of("session_renegotiation").supports_secure_renegotiation
        assert self.of("tls_fallback_scsv").supports_fallback_scsv
        assert self.of("tls_extended_master_secret").supports_ems_extension

    def mozilla_objects_to_nothing_but_the_certificate(self):
        profile = MozillaTlsConfiguration.get(TlsConfigurationEnum.MOZILLA_INTERMEDIATE)
        try:
            check_server_against_tls_configuration(self.result, profile)
        except ServerNotCompliantWithTlsConfiguration as objection:
            found = set(objection.issues)
            assert found <= OF_THE_CERTIFICATE, objection.issues


CHECKS = [
    Report.old_versions_are_refused,
    Report.every_suite_has_forward_secrecy,
    Report.known_holes_are_not_here,
    Report.mozilla_objects_to_nothing_but_the_certificate,
]


def main():
    if sys.argv[1] == "pairs":
        directory = Path(sys.argv[2])
        write_pair(directory / "ecdsa", ec.generate_private_key(ec.SECP256R1()))
        write_pair(directory / "rsa", rsa.generate_private_key(public_exponent=65537, key_size=2048))
        return 0
    report = Report(scan(os.environ["TAUTLINE_TEST_DEVICES"]))
    failed = 0
    for check in CHECKS:
        name = check.__name__.replace("_", " ")
        try:
            check(report)
            print(f"ok - {name}")
        except Exception as error:
            failed += 1
            print(f"not ok - {name}: {error!r}")
    return min(failed, 1)


if __name__ == "__main__":
    sys.exit(main())
