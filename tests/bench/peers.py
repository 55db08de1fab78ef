#!/usr/bin/env python3
"""Other queues on this machine, measured as run.sh measures ftq: redis (three nodes, every write synced, WAIT 2; it can
lose and fork) and beanstalkd (one node, every write synced), where they are installed. Standard library only. In a pipe
each of 4 clients sends bursts of 256 and waits for their answers. Arguments: bytes of an item, seconds of each."""

import contextlib
import os
import selectors
import shutil
import socket
import subprocess
import sys
import tempfile
import time

SIZE, SECONDS = int(sys.argv[1]), float(sys.argv[2])
SHAPES = [("c1", 1, 1), ("c64", 64, 1), ("pipe", 4, 256)]
ITEM = b"x" * SIZE


class Dry(Exception):
    """There is nothing left to take."""


class Redis:
    name, kinds = "redis", ["push", "pop"]

    def __init__(self, place):
        self.port, self.processes = free_port(), []
        for node, port in enumerate([self.port, free_port(), free_port()]):
            data = os.path.join(place, f"redis{node}")
            os.mkdir(data)
            command = ["redis-server", "--port", str(port), "--dir", data, "--save", "", "--appendonly", "yes",
                       "--appendfsync", "always"]
            self.processes.append(run(command + (["--replicaof", f"127.0.0.1 {self.port}"] if node else [])))
        until(lambda: ask(self.port, b"INFO replication\r\n").count(b"state=online") == 2)

    def steps(self, kind, burst):
        one = command(b"LPUSH", b"q", ITEM) if kind == "push" else command(b"RPOP", b"q")
        lines = (1 if kind == "push" else 2) * burst + 1
        while True:
            answer = yield one * burst + command(b"WAIT", b"2", b"0"), lines
            if b"$-1\r\n" in answer:
                raise Dry
            if b"-ERR" in answer:
                raise RuntimeError(answer[:200])
            yield None


class Beanstalkd:
    name, kinds = "beanstalkd", ["push", "take"]

    def __init__(self, place):
        self.port = free_port()
        data = os.path.join(place, "beanstalkd")
        os.mkdir(data)
        self.processes = [run(["beanstalkd", "-l", "127.0.0.1", "-p", str(self.port), "-b", data, "-f", "0"])]
        until(lambda: ask(self.port, b"stats\r\n"))

    def steps(self, kind, burst):
        while kind == "push":
            answer = yield b"put 0 0 600 %d\r\n%s\r\n" % (SIZE, ITEM) * burst, burst
            if answer.count(b"INSERTED") != burst:
                raise RuntimeError(answer[:200])
            yield None
        while True:
            answer = yield b"reserve-with-timeout 0\r\n" * burst, (2 * burst, b"TIMED_OUT")
            ids = [line.split()[1] for line in answer.split(b"\r\n") if line.startswith(b"RESERVED")]
            if len(ids) < burst:
                raise Dry
            yield b"".join(b"delete %s\r\n" % job for job in ids), burst
            yield None


def command(*words):
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in words)


def run(words):
    return subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def ask(port, words):
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1) as peer:
        peer.sendall(words)
        return peer.recv(65536)
    return b""


def until(holds):
    by = time.monotonic() + 30
    while not holds():
        if time.monotonic() > by:
            raise RuntimeError("it does not start")
        time.sleep(0.05)


class Lane:
    """One client: what it sends and waits for, step by step."""

    def __init__(self, peer, kind, burst):
        self.socket = socket.create_connection(("127.0.0.1", peer.port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.steps, self.burst = peer.steps(kind, burst), burst
        self.begin(None)

    def begin(self, _):
        self.since = time.perf_counter()
        self.send(next(self.steps))

    def send(self, step):
        request, wanted = step
        self.lines, self.dry = wanted if isinstance(wanted, tuple) else (wanted, b"$-1\r\n")
        self.answer = bytearray()
        self.socket.sendall(request)

    def hear(self, latencies):
        self.answer += self.socket.recv(1 << 18)
        if self.answer.count(b"\r\n") < self.lines and self.dry not in self.answer:
            return
        step = self.steps.send(bytes(self.answer))
        if step is None:
            latencies.append(time.perf_counter() - self.since)
            self.begin(None)
        else:
            self.send(step)


def measure(peer, kind, clients, burst):
    """Requests a second, and the sorted latencies of bursts."""
    lanes, latencies = [Lane(peer, kind, burst) for _ in range(clients)], []
    with selectors.DefaultSelector() as selector:
        for lane in lanes:
            selector.register(lane.socket, selectors.EVENT_READ, lane)
        begun = time.perf_counter()
        with contextlib.suppress(Dry):
            while time.perf_counter() < begun + SECONDS:
                for key, _ in selector.select(1):
                    key.data.hear(latencies)
        took = time.perf_counter() - begun
    for lane in lanes:
        lane.socket.close()
    return len(latencies) * burst / took, sorted(latencies) or [0.0]


for peer_class in (Redis, Beanstalkd):
    with tempfile.TemporaryDirectory(prefix="ftq-peers.") as place:
        if not shutil.which("redis-server" if peer_class is Redis else "beanstalkd"):
            print(f"{peer_class.name:<12} not installed")
            continue
        peer = peer_class(place)
        try:
            for kind in peer.kinds:
                for shape, clients, burst in SHAPES:
                    rate, latencies = measure(peer, kind, clients, burst)
                    p50, p99 = (latencies[int(len(latencies) * q)] * 1e3 for q in (0.5, 0.99))
                    print(f"{peer.name:<12} {kind:<6} {shape:<5} {rate:>10.0f} {p50:>9.3f} {p99:>9.3f}", flush=True)
        finally:
            for process in peer.processes:
                process.terminate()
                process.wait()
