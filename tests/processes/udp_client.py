#!/usr/bin/env python3
"""A client of ftq in one file, written from ftq(7) alone: each request one UDP datagram, sent again under its number
until its answer comes, and executed once. Arguments: HOST:PORT,... of the replicas, a label, how many items. Pushes that
many, pops them all again, and says `N items, M datagrams sent` if each came out once and in order."""

import os
import socket
import struct
import sys

MAGIC, VERSION = b"ftqu", 1
HELLO, OPEN, REQUEST, QUERY, ADMIN, PING = 1, 2, 4, 5, 6, 7
WELCOME, OPENED, REPLY, FOUND, TOLD, REFUSED, PONG = 64, 65, 66, 67, 68, 69, 70
ANSWERS = {WELCOME: HELLO, OPENED: OPEN, REPLY: REQUEST, FOUND: QUERY, TOLD: ADMIN, PONG: PING}
OK, EMPTY, NO_QUEUE, TOO_LARGE, EXPIRED = 0, 1, 2, 9, 15
NOT_NOW = {10, 11, 12, 13, 14}
NO_SESSION = bytes(20)


class Refused(Exception):
    def __init__(self, code, message):
        super().__init__(f"{code}: {message}")
        self.code = code


class Client:
    """One session with the group, whichever replica answers."""

    def __init__(self, servers, attempts=400):
        self.servers, self.attempts, self.at = servers, attempts, 0
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.session, self.number, self.query_number, self.room = NO_SESSION, 0, 0, 512
        self.sent = 0
        token = os.urandom(8)
        _, fields = self.exchange(OPEN, int.from_bytes(token, "big"), token)
        self.session = fields[8:28]

    def exchange(self, kind, number, fields):
        """Sends a frame until its answer comes: the answer's kind and fields."""
        body = bytes([kind]) + fields
        frame = struct.pack(">I", len(body)) + body
        for attempt in range(self.attempts):
            datagram = MAGIC + struct.pack(">HB", VERSION, 0) + self.session + frame
            datagram += bytes(max(0, self.room - len(datagram)))
            self.socket.sendto(datagram, self.servers[self.at])
            self.sent += 1
            told = self.hear(kind, number, len(datagram), 0.05 * (1 + attempt % 4))
            if told is None or told[0] == REFUSED and told[1][9] in NOT_NOW:
                # Nobody answers, or not now and not here: the next one, under the same number.
                self.at = (self.at + (attempt % 3 == 2 or told is not None)) % len(self.servers)
            elif told[0] == REFUSED:
                raise Refused(told[1][9], told[1][12:].decode())
            elif told[0] == "longer":
                self.room = told[1]
            else:
                return told
        raise TimeoutError(f"frame {kind} {number} was not answered")

    def hear(self, kind, number, room, patience):
        """The answer to a frame, if one comes in time; what belongs to others is passed over."""
        self.socket.settimeout(patience)
        try:
            while True:
                answer, _ = self.socket.recvfrom(65536)
                assert len(answer) <= room or answer[14] == kind, f"{len(answer)} bytes for {room}"
                magic, version, needed, length = struct.unpack_from(">4sHII", answer)
                assert magic == MAGIC and version == VERSION and length == len(answer) - 14, answer
                told, fields = answer[14], answer[15:]
                if told == REFUSED:
                    about = fields[0], int.from_bytes(fields[1:9], "big")
                else:
                    about = ANSWERS[told], 0 if told == WELCOME else int.from_bytes(fields[:8], "big")
                if about == (kind, number):
                    return ("longer", needed) if needed else (told, fields)
        except socket.timeout:
            return None

    def request(self, operation):
        """Executes an operation once: its answer."""
        while True:
            self.number += 1
            fields = struct.pack(">QQ", self.number, self.number - 1) + operation
            _, told = self.exchange(REQUEST, self.number, fields)
            code, rest = told[16], told[17:]
            if code == OK:
                return rest
            if code not in NOT_NOW:
                raise Refused(code, rest.decode())

    def query(self, query):
        self.query_number += 1
        fields = struct.pack(">QB", self.query_number, 0) + query
        _, told = self.exchange(QUERY, self.query_number, fields)
        if told[16] != OK:
            raise Refused(told[16], told[17:].decode())
        return told[17:]

    # ---- the queue

    def push(self, label, item):
        self.request(b"\x01\x03" + target(label) + varint(1) + text(item))

    def pop(self, label, count=1):
        return items(self.request(b"\x01\x04" + target(label) + varint(count)))

    def size(self, label):
        return read_varint(self.query(b"\x01\x82" + target(label)), 0)[0]

    def end(self):
        try:
            self.request(b"\x00\x02")
        except Refused as refused:
            # Asked again after it was done: the session and its answers are gone.
            if refused.code != EXPIRED:
                raise


def varint(number):
    out = bytearray()
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes(out + bytes([number]))


def read_varint(data, at):
    number = shift = 0
    while True:
        number |= (data[at] & 0x7F) << shift
        shift, at = shift + 7, at + 1
        if data[at - 1] < 0x80:
            return number, at


def text(data):
    return varint(len(data)) + data


def target(label):
    return b"\x01" + text(label.encode())


def items(data):
    count, at = read_varint(data, 0)
    out = []
    for _ in range(count):
        length, at = read_varint(data, at)
        out.append(data[at:at + length])
        at += length
    return out


def main():
    servers = [(host, int(port)) for host, port in (one.rsplit(":", 1) for one in sys.argv[1].split(","))]
    label, count = sys.argv[2], int(sys.argv[3])
    client = Client(servers)
    for k in range(count):
        client.push(label, b"item %d" % k)
    assert client.size(label) == count, client.size(label)
    popped = []
    while len(popped) < count:
        # The answer of the first one is longer than any request was so far.
        popped += client.pop(label, 100)
    assert popped == [b"item %d" % k for k in range(count)], popped
    try:
        client.pop(label)
        raise AssertionError("something is left")
    except Refused as refused:
        assert refused.code == EMPTY, refused
    client.end()
    print(f"{count} items, {client.sent} datagrams sent")


if __name__ == "__main__":
    main()
