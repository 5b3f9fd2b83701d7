"""Apache Kafka as it stands in production: TLS both ways, SCRAM-SHA-512, ACLs, and a user for each process."""

from __future__ import annotations

from pathlib import Path

from services.local.supervisor import free_port
from streams.acls import processes
from tests.certificates import Authority
from tests.kafka_broker import SETTINGS, KafkaBroker

ADMIN = "admin"
_LISTENERS = ("listeners=", "advertised.listeners=", "listener.security.protocol.map=", "controller.quorum.voters=")
_COMMON = "\n".join(line for line in SETTINGS.splitlines() if not line.startswith(_LISTENERS))
SECURE = (
    _COMMON
    + """
controller.quorum.voters=1@localhost:{controller}
listeners=SASL_SSL://localhost:{port},CONTROLLER://localhost:{controller}
advertised.listeners=SASL_SSL://localhost:{port}
listener.security.protocol.map=CONTROLLER:SSL,SASL_SSL:SASL_SSL
inter.broker.listener.name=SASL_SSL
sasl.enabled.mechanisms=SCRAM-SHA-512
sasl.mechanism.inter.broker.protocol=SCRAM-SHA-512
listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config=\
org.apache.kafka.common.security.scram.ScramLoginModule required username="admin" password="of-admin";
listener.name.sasl_ssl.ssl.client.auth=required
listener.name.controller.ssl.client.auth=required
ssl.keystore.type=PEM
ssl.keystore.location={directory}/broker.pem
ssl.truststore.type=PEM
ssl.truststore.location={directory}/ca.pem
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
super.users=User:admin;User:CN=broker
allow.everyone.if.no.acl.found=false
"""
)


class SecureKafka:
    """The broker with its authority; a user's password is `of-<user>`, a process's user `driftline-<process>`."""

    def __init__(self, libs: Path, folder: Path) -> None:
        self._authority = Authority(folder)
        self._authority.issue("broker")
        self._client = self._authority.issue("client")
        users = [ADMIN, *(f"driftline-{process}" for process in processes())]
        self.broker = KafkaBroker(
            libs, folder, free_port(), free_port(), host="localhost", settings=SECURE,
            scram={user: f"of-{user}" for user in users}, extra=self.credentials(ADMIN),
        )  # fmt: skip

    def credentials(self, user: str, **more: str) -> dict[str, str]:
        """The section kafka.extra of one user; `more` with `_` for `.` overrides it."""
        right = {
            "security.protocol": "SASL_SSL", "sasl.mechanism": "SCRAM-SHA-512",
            "sasl.username": user, "sasl.password": f"of-{user}",
            "ssl.ca.location": str(self._authority.ca),
            "ssl.certificate.location": str(self._client), "ssl.key.location": str(self._client),
        }  # fmt: skip
        return {**right, **{name.replace("_", "."): value for name, value in more.items()}}

    def client(self, user: str, **more: str) -> dict[str, str]:
        """librdkafka settings of one user."""
        return {"bootstrap.servers": self.broker.bootstrap, "log_level": "0", **self.credentials(user, **more)}
