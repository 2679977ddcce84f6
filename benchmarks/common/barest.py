"""The barest receiver of an upload: what this machine's loopback, hash and disk allow a Python program.

    python barest.py PATH SIZE

Prints its port, takes SIZE bytes from each client in turn, hashes them in one thread and writes them to PATH in another
while the next come, syncs, and answers with the digest. No HTTP, no tokens, no records, no audit.
"""

import hashlib
import os
import socket
import sys
from collections import deque
from concurrent.futures import Executor, Future, ThreadPoolExecutor

BLOCK, BLOCKS = 1 << 20, 16
DROPPED = 32 << 20


def receive(client: socket.socket, file: int, size: int, hashing: Executor, writing: Executor) -> bytes:
    """Digest of the bytes, which are in the file and synced. ConnectionError when the client hangs up before."""
    digest, got = hashlib.sha256(), 0
    buffers = deque((memoryview(bytearray(BLOCK)), list[Future[None]]()) for _ in range(BLOCKS))
    while got < size:
        buffer, under_way = buffers.popleft()
        for each in under_way:
            each.result()
        filled = 0
        while filled < min(BLOCK, size - got):
            count = client.recv_into(buffer[filled : size - got])
            if not count:
                raise ConnectionError(f"hung up after {got + filled} bytes")
            filled += count
        block = buffer[:filled]
        buffers.append((buffer, [hashing.submit(digest.update, block), writing.submit(write, file, block, got)]))
        got += filled
    for _, under_way in buffers:
        for each in under_way:
            each.result()
    os.fsync(file)
    return digest.digest()


def write(file: int, block: memoryview, offset: int) -> None:
    os.pwrite(file, block, offset)
    if (offset + BLOCK) % DROPPED == 0:  # as our server does: Linux begins to write what it is told that nobody needs
        os.posix_fadvise(file, offset + BLOCK - DROPPED, DROPPED, os.POSIX_FADV_DONTNEED)


def main() -> None:
    path, size = sys.argv[1], int(sys.argv[2])
    one, other = ThreadPoolExecutor(1), ThreadPoolExecutor(1)
    with socket.create_server(("127.0.0.1", 0)) as listener, one, other:
        print(listener.getsockname()[1], flush=True)
        while True:
            with listener.accept()[0] as client:
                file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
                client.sendall(receive(client, file, size, one, other))
                os.close(file)


if __name__ == "__main__":
    main()
