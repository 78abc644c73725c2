"""A program: prints what inotify(7) tells of the directories and files given, a line each; `ready` when it listens.

    python watcher.py PATH...

A line is the path, the event and the name. What is opened or read is left out. It ends when its input does.
"""

import ctypes
import os
import select
import struct
import sys

EVENTS = {
    0x2: "MODIFY",
    0x4: "ATTRIB",
    0x8: "CLOSE_WRITE",
    0x40: "MOVED_FROM",
    0x80: "MOVED_TO",
    0x100: "CREATE",
    0x200: "DELETE",
    0x400: "DELETE_SELF",
    0x800: "MOVE_SELF",
}


def main() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    watch = libc.inotify_init1(0)
    paths = {}
    for path in sys.argv[1:]:
        number = libc.inotify_add_watch(watch, path.encode(), sum(EVENTS))
        if number < 0:
            sys.exit(f"{path}: {os.strerror(ctypes.get_errno())}")
        paths[number] = path
    print("ready", flush=True)
    while select.select([watch, 0], [], [])[0] == [watch]:
        data, place = os.read(watch, 65536), 0
        while place < len(data):
            number, mask, _, length = struct.unpack_from("iIII", data, place)
            place += 16
            name = data[place : place + length].rstrip(b"\0").decode()
            place += length
            if mask & sum(EVENTS):
                print(paths[number], EVENTS[mask & sum(EVENTS)], name, flush=True)


if __name__ == "__main__":
    main()
