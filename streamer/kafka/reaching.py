"""Why no broker could be talked to, in the words of the setting that is wrong.

librdkafka says so to its error callback alone, and calls every bad certificate the same. So one
connection is made here with the same settings, to hear what is wrong with it; nothing is sent.
"""

import socket
import ssl
from collections.abc import Sequence
from pathlib import Path

from confluent_kafka import KafkaError

from streamer.errors import WalkstreamError
from streamer.settings.secrets import hidden
from streamer.settings.sections import Config

LOOK_SECONDS = 3.0
"""How long the look at one broker may take."""

_REFUSALS = (KafkaError._AUTHENTICATION, KafkaError._SSL)
_OTHER_NAME = (62, 64)
"""What OpenSSL calls a certificate that is for another host, or for another address."""


def is_refusal(seen: Sequence[KafkaError]) -> bool:
    """Whether a broker, or this client, refused the other: waiting does not help."""
    return any(error.code() in _REFUSALS for error in seen)


def unreachable(
    config: Config, seen: Sequence[KafkaError], last: KafkaError, seconds: float
) -> WalkstreamError:
    """What to say after `seconds` without an answer; `seen` is what the client complained of."""
    servers = str(config.kafka.get("bootstrap.servers"))
    why = _refused_login(config, seen) or _wrong_line(config, servers, seen)
    if why is None:
        # That all brokers are down says less than what was said of one of them.
        said = [e.str() for e in seen if e.code() != KafkaError._ALL_BROKERS_DOWN]
        why = (
            f"({said[-1] if said else last.str()}): check kafka.bootstrap.servers, and that it runs"
        )
        return WalkstreamError(
            hidden(f"no Kafka answered at {servers} within {seconds:.0f} s {why}", config.kafka)
        )
    return WalkstreamError(hidden(f"Kafka at {servers}: {why}", config.kafka))


def _refused_login(config: Config, seen: Sequence[KafkaError]) -> str | None:
    """Of SASL: the mechanism, or the name and the password."""
    said = next((e.str() for e in seen if e.code() == KafkaError._AUTHENTICATION), None)
    mechanism = config.kafka.get("sasl.mechanism", config.kafka.get("sasl.mechanisms"))
    if said is None:
        if mechanism == "OAUTHBEARER" and not config.kafka.get("sasl.oauthbearer.method"):
            return (
                "no token to log in with: OAUTHBEARER needs kafka.sasl.oauthbearer.method = "
                '"oidc", with the client id, the secret and the token endpoint'
            )
        return None
    if "OAUTHBEARER token" in said:
        return f"no token to log in with ({said}): check the kafka.sasl.oauthbearer.* settings"
    if "handshake failed" not in said:
        return (
            f"the login was refused ({said}): check kafka.sasl.username and kafka.sasl.password, "
            "and that the user exists for this mechanism"
        )
    offered = said.partition("supported mechanisms:")[2].partition("(")[0].strip()
    if offered:
        return (
            f"it does not take kafka.sasl.mechanism {mechanism}: set one that it offers ({offered})"
        )
    return (
        f"this listener takes no login ({said}): set kafka.security.protocol to what it is (SSL or "
        "PLAINTEXT), or name the port of another listener"
    )


def _wrong_line(config: Config, servers: str, seen: Sequence[KafkaError]) -> str | None:
    """Of TLS: the certificate, the name in it, or that only one side speaks it."""
    protocol = str(config.kafka.get("security.protocol", "plaintext")).lower()
    wants_tls = protocol.endswith("ssl")
    said = next((e.str() for e in seen if "SSL" in e.str()), "")
    for server in servers.split(","):
        host, _, port = server.strip().rpartition("://")[2].rpartition(":")
        if not host or not port.isdigit():
            continue
        address = host.strip("[]"), int(port)
        if wants_tls:
            why = _certificate(config, address)
        elif _speaks_tls(address):
            login = "SASL_SSL" if protocol.startswith("sasl") else "SSL, or SASL_SSL with a login"
            why = f"port {port} of {host} speaks TLS: set kafka.security.protocol to {login}"
        else:
            why = None
        if why:
            return why
    if said:
        return f"TLS failed ({said}): check kafka.security.protocol and the kafka.ssl.* settings"
    if protocol == "ssl" and seen:
        return (
            "TLS was agreed on, and then the broker hung up: if it wants a login, set "
            "kafka.security.protocol to SASL_SSL; if it wants a certificate of yours, set "
            "kafka.ssl.certificate.location and kafka.ssl.key.location"
        )
    return None


def _certificate(config: Config, address: tuple[str, int]) -> str | None:
    """What is wrong with the certificate of a broker, or that it shows none; None if nothing is."""
    host, port = address
    try:
        context = _context(config)
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        return f"the kafka.ssl.* settings cannot be used ({error})"
    try:
        with socket.create_connection(address, LOOK_SECONDS) as line:
            line.settimeout(LOOK_SECONDS)
            context.wrap_socket(line, server_hostname=host).close()
    except ssl.SSLCertVerificationError as error:
        if error.verify_code in _OTHER_NAME:
            return (
                f"its certificate is for another name than {host} ({error.verify_message}): name "
                "the broker in kafka.bootstrap.servers as its certificate does, or have one made "
                "for this name"
            )
        return (
            f"its certificate is not trusted ({error.verify_message}): check "
            "kafka.ssl.ca.location, and whether the certificate is still valid"
        )
    except ssl.SSLError as error:
        # A broker without TLS answers with something else, or hangs up.
        if error.reason in ("WRONG_VERSION_NUMBER", "UNEXPECTED_EOF_WHILE_READING"):
            return _no_tls(host, port)
        return f"TLS failed ({error.reason}): check the kafka.ssl.* settings"
    except ConnectionResetError:
        return _no_tls(host, port)
    except OSError:
        return None
    return None


def _no_tls(host: str, port: int) -> str:
    return (
        f"port {port} of {host} does not speak TLS: set kafka.security.protocol to PLAINTEXT or "
        "SASL_PLAINTEXT, or name the port of its TLS listener"
    )


def _context(config: Config) -> ssl.SSLContext:
    """The settings of librdkafka, as far as they say what is trusted."""
    kafka = config.kafka
    authority, text = kafka.get("ssl.ca.location"), kafka.get("ssl.ca.pem")
    context = ssl.create_default_context()
    if authority and authority != "probe":
        path = Path(str(authority))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(
            cafile=None if path.is_dir() else path, capath=path if path.is_dir() else None
        )
    elif text:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(cadata=str(text))
    if str(kafka.get("ssl.endpoint.identification.algorithm", "https")).lower() == "none":
        context.check_hostname = False
    if str(kafka.get("enable.ssl.certificate.verification", "true")).lower() == "false":
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def _speaks_tls(address: tuple[str, int]) -> bool:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        with socket.create_connection(address, LOOK_SECONDS) as line:
            line.settimeout(LOOK_SECONDS)
            context.wrap_socket(line, server_hostname=address[0]).close()
    except ssl.SSLError as error:
        # Whoever wants a certificate of the client speaks TLS too.
        return "ALERT" in (error.reason or "")
    except OSError:
        return False
    return True
