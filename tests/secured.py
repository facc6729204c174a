"""A real Kafka that asks who is there: SASL_SSL with SCRAM, and an authorizer that denies.

Its plain listener stays for the tests themselves: whoever comes that way may do everything.
"""

import datetime
import ipaddress
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from broker import Broker, free_port
from confluent_kafka.admin import (
    AclBinding,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialAlteration,
    UserScramCredentialUpsertion,
)
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from streamer.kafka import clients

PASSWORD = "canary-7f3a"
MECHANISM = "SCRAM-SHA-512"

Grant = tuple[str, str, str]
"""An operation, a type of resource (topic, group, transactional id, cluster), and its name."""

_TYPES = {
    "topic": ResourceType.TOPIC,
    "group": ResourceType.GROUP,
    "transactional id": ResourceType.TRANSACTIONAL_ID,
    "cluster": ResourceType.BROKER,
}


def _operation(name: str) -> AclOperation:
    return AclOperation[re.sub("(?<=[a-z])(?=[A-Z])", "_", name).upper()]


def certificate(folder: Path, name: str, days: int = 2) -> Path:
    """A file with a key and its own certificate for 127.0.0.1 alone, which is its authority too.

    It is valid for so many days from now.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=9))
        .not_valid_after(now + datetime.timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]),
            critical=False,
        )
        .sign(key, hashes.SHA256())
    )
    path = folder / f"{name}.pem"
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        + made.public_bytes(serialization.Encoding.PEM)
    )
    return path


class Secured:
    """The broker's addresses, and who may do what."""

    def __init__(self, plain: str, secure: str, stale: str, authority: Path, data: Path) -> None:
        self.plain, self.secure, self.authority = plain, secure, authority
        self.data = data
        """The folder of the topics."""
        self.stale = stale
        """Where the certificate has expired."""
        self.admin = AdminClient(clients.COMMON | {"bootstrap.servers": plain})

    def client(self, user: str) -> dict[str, str]:
        """The properties of [kafka] with which a user comes in."""
        return {
            "bootstrap.servers": self.secure,
            "security.protocol": "SASL_SSL",
            "ssl.ca.location": str(self.authority),
            "sasl.mechanism": MECHANISM,
            "sasl.username": user,
            "sasl.password": PASSWORD,
        }

    def let_in(self, users: Mapping[str, Iterable[Grant]]) -> None:
        """Make users who may do just this."""
        info = ScramCredentialInfo(ScramMechanism.SCRAM_SHA_512, 4096)
        upserts: list[UserScramCredentialAlteration] = [
            UserScramCredentialUpsertion(user, info, PASSWORD.encode()) for user in users
        ]
        for future in self.admin.alter_user_scram_credentials(upserts).values():
            future.result()
        bindings = [
            AclBinding(
                _TYPES[type_], "kafka-cluster" if type_ == "cluster" else name,
                ResourcePatternType.LITERAL, f"User:{user}", "*",
                _operation(operation), AclPermissionType.ALLOW,
            )
            for user, grants in users.items()
            for operation, type_, name in grants
        ]  # fmt: skip
        for future in self.admin.create_acls(bindings).values() if bindings else ():
            future.result()


@contextmanager
def secured(folder: Path) -> Iterator[Secured]:
    """The broker, as long as the block runs."""
    plain, secure, stale, controller = (f"127.0.0.1:{free_port()}" for _ in range(4))
    authority, expired = certificate(folder, "authority"), certificate(folder, "expired", -1)
    listener = "listener.name.secure"
    settings = {
        "listeners": (
            f"PLAINTEXT://{plain},SECURE://{secure},STALE://{stale},CONTROLLER://{controller}"
        ),
        "advertised.listeners": f"PLAINTEXT://{plain},SECURE://{secure},STALE://{stale}",
        "controller.quorum.voters": f"1@{controller}",
        "listener.security.protocol.map": (
            "PLAINTEXT:PLAINTEXT,SECURE:SASL_SSL,STALE:SSL,CONTROLLER:PLAINTEXT"
        ),
        "inter.broker.listener.name": "PLAINTEXT",
        f"{listener}.sasl.enabled.mechanisms": MECHANISM,
        f"{listener}.{MECHANISM.lower()}.sasl.jaas.config": (
            "org.apache.kafka.common.security.scram.ScramLoginModule required;"
        ),
        f"{listener}.ssl.keystore.type": "PEM",
        f"{listener}.ssl.keystore.location": str(authority),
        "listener.name.stale.ssl.keystore.type": "PEM",
        "listener.name.stale.ssl.keystore.location": str(expired),
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "super.users": "User:ANONYMOUS",
    }
    with Broker(int(plain.rpartition(":")[2]), settings, brief=True) as broker:
        assert broker.bootstrap == plain
        yield Secured(plain, secure, stale, authority, broker.folder / "data")
