"""What one would write first: asyncio streams, TLS, and a line from one is a line for all others.

python asyncio_broadcast.py PORT CERTIFICATE KEY
"""

import asyncio
import ssl
import sys


class Broadcast:
    """Everybody who is connected, by name."""

    def __init__(self) -> None:
        self._writers: dict[str, asyncio.StreamWriter] = {}

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection: its first line is a name, every other is for the rest."""
        name = (await reader.readline()).decode().strip()
        if not name:
            writer.close()
            return
        self._writers[name] = writer
        writer.write(f"welcome {name}\n".encode())
        try:
            while line := await reader.readline():
                self._tell_others(name, line)
                await writer.drain()
        except OSError:
            pass
        finally:
            self._writers.pop(name, None)
            writer.close()

    def _tell_others(self, name: str, line: bytes) -> None:
        data = f"{name}: ".encode() + line
        for other, writer in list(self._writers.items()):
            if other != name:
                writer.write(data)


async def main(port: int, certificate: str, key: str) -> None:
    """Serve until killed."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    serve = Broadcast().serve
    server = await asyncio.start_server(serve, "127.0.0.1", port, ssl=context, backlog=1024)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), *sys.argv[2:4]))
