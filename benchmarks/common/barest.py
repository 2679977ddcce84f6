"""The barest receiver of an upload: what this machine's loopback, hash and disk allow a Python program.

    python barest.py PATH SIZE

Prints its port, takes SIZE bytes from each client in turn, hashes them in one thread and writes them to PATH in another
while the next come, syncs, and answers with the digest. No HTTP, no tokens, no records, no audit.
"""

import hashlib
import os
import socket
import sys
from concurrent.futures import Future, ThreadPoolExecutor

BLOCK = 1 << 20
DROPPED = 32 << 20


def receive(client: socket.socket, file: int, size: int, pool: ThreadPoolExecutor) -> bytes:
    """Digest of the bytes, which are in the file and synced. ConnectionError when the client hangs up before."""
    digest, got, dropped = hashlib.sha256(), 0, 0
    buffers, under_way = [memoryview(bytearray(BLOCK)) for _ in range(2)], list[Future[object]]()
    while got < size:
        buffer, filled = buffers[0], 0
        while filled < min(BLOCK, size - got):
            count = client.recv_into(buffer[filled : size - got])
            if not count:
                raise ConnectionError(f"hung up after {got + filled} bytes")
            filled += count
        for each in under_way:
            each.result()
        under_way = [pool.submit(digest.update, buffer[:filled]), pool.submit(os.write, file, buffer[:filled])]
        buffers.reverse()
        got += filled
        if got - dropped >= DROPPED:  # as our server does: its disk writes while more comes
            os.posix_fadvise(file, dropped, got - dropped, os.POSIX_FADV_DONTNEED)
            dropped = got
    for each in under_way:
        each.result()
    os.fsync(file)
    return digest.digest()


def main() -> None:
    path, size = sys.argv[1], int(sys.argv[2])
    with socket.create_server(("127.0.0.1", 0)) as listener, ThreadPoolExecutor(2) as pool:
        print(listener.getsockname()[1], flush=True)
        while True:
            with listener.accept()[0] as client:
                file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
                client.sendall(receive(client, file, size, pool))
                os.close(file)


if __name__ == "__main__":
    main()
