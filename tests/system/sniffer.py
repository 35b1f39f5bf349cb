"""Writes every frame that passes a switch to a file, until it is ended: `python sniffer.py FILE`, as root."""

from __future__ import annotations

import socket
import sys

ETH_P_ALL = 3
LARGEST = 1 << 17


def main(path: str) -> None:
    """Sniff."""
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL)) as wire:
        wire.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 24)
        with open(path, "wb", buffering=0) as file:
            print("sniffing", flush=True)
            while True:
                file.write(wire.recv(LARGEST))


if __name__ == "__main__":
    main(sys.argv[1])
