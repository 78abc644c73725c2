"""Run by a guest's own Python: floods its network with what no honest card says, until it is ended.

The arguments are an interface, and the beginning of the addresses on its network: `10.77.0.`.
"""

import os
import random
import socket
import struct
import sys

HUB = bytes.fromhex("020000000001")
SIZES = (0, 1, 20, 100, 1400, 8900)


def checksum(head: bytes) -> int:
    """Of an IPv4 header that has none yet."""
    total: int = sum(struct.unpack(">10H", head))
    total = (total & 0xFFFF) + (total >> 16)
    return ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF


def datagram(target: str, port: int, data: bytes) -> bytes:
    """What an IPv4 frame holds after its addresses: rubbish for a server, from anybody."""
    addresses = os.urandom(4) + socket.inet_aton(target)
    head = struct.pack(">BBHHHBBH", 0x45, 0, 28 + len(data), 0, 0, 64, 17, 0) + addresses
    head = head[:10] + struct.pack(">H", checksum(head)) + head[12:]
    return b"\x08\x00" + head + struct.pack(">HHHH", 4000, port, 8 + len(data), 0) + data


def frame(own: bytes, network: str) -> bytes:
    """A runt, a giant, rubbish by ARP or in a VLAN, questions for DNS and DHCP; in the name of whoever."""
    target = random.choice((b"\xff" * 6, os.urandom(6), HUB))
    data = os.urandom(random.choice(SIZES))
    server = f"{network}{random.choice((1, 2, 3, 255))}"
    kinds = b"\x08\x06" + data, b"\x81\x00" + data, data, datagram(server, 53, data), datagram(server, 67, data)
    return target + random.choice((own, os.urandom(6))) + random.choice(kinds)


def main(interface: str, network: str) -> None:
    """Say when it begins."""
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as card:
        card.bind((interface, 0))
        own = card.getsockname()[4]
        print("flooding", flush=True)
        while True:
            try:
                card.send(frame(own, network))
            except OSError:  # larger than the card takes, or more than it has room for
                continue


if __name__ == "__main__":
    main(*sys.argv[1:])
