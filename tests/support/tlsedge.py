"""What ends TLS in front of a server: ``python -m support.tlsedge CERTIFICATE KEY HOST PORT``.

Prints the port of 127.0.0.1 on which it listens, and carries bytes to HOST and PORT. Ends with its standard
input.
"""

from __future__ import annotations

import asyncio
import ssl
import subprocess
import sys
from pathlib import Path


def certificate(folder: Path, *names: str) -> tuple[Path, Path]:
    """A certificate that is its own authority, and its key. names: ``IP:127.0.0.1``, ``DNS:lab.example``."""
    made, key = folder / "ca.pem", folder / "key.pem"
    subject = ["-subj", "/CN=lab", "-addext", f"subjectAltName={','.join(names)}", "-days", "2"]
    kind = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    subprocess.run(
        ["openssl", "req", "-x509", *kind, *subject, "-keyout", key, "-out", made],
        check=True,
        capture_output=True,
    )
    return made, key


async def _carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(1 << 18):
        writer.write(data)
        await writer.drain()
    writer.close()


async def serve(made: str, key: str, host: str, port: str) -> None:
    """Serve until standard input ends."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(made, key)

    async def client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far = await asyncio.open_connection(host, int(port))
        ways = (asyncio.create_task(_carry(reader, far[1])), asyncio.create_task(_carry(far[0], writer)))
        await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        for way in (writer, far[1]):
            way.close()

    listener = await asyncio.start_server(client, "127.0.0.1", 0, ssl=context)
    print(listener.sockets[0].getsockname()[1], flush=True)
    await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(serve(*sys.argv[1:]))
