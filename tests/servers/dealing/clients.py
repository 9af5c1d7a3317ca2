"""Keep-alive clients: how many of them each worker gets. Prints the most that one has, as a multiple of the mean.

Arguments: the address (HOST:PORT, or the path of a Unix socket), "tls" or "plain", "one-by-one" or "at-once", the
number of clients, of workers, of trials. The path /pid tells the worker.
"""

import collections
import socket
import ssl
import statistics
import sys
import time

address, security, order, clients, workers, trials = sys.argv[1:]
clients, workers = int(clients), int(workers)
context = ssl._create_unverified_context() if security == "tls" else None


def connected():
    if address.startswith("/"):
        client = socket.socket(socket.AF_UNIX)
        client.settimeout(20)
        client.connect(address)
        return client
    host, port = address.rsplit(":", 1)
    return socket.create_connection((host, int(port)), timeout=20)


def worker_of(client):
    client.sendall(b"GET /pid HTTP/1.1\r\nHost: test\r\n\r\n")
    text = b""
    while not text.partition(b"\r\n\r\n")[2]:
        more = client.recv(4096)
        assert more, "closed without an answer: %r" % text
        text += more
    assert b" 200 " in text[:15], text
    return text.partition(b"\r\n\r\n")[2]


def trial():
    counts, all_clients = collections.Counter(), []
    try:
        for _ in range(clients):
            client = connected()
            all_clients.append(client)
            if order == "one-by-one":
                all_clients[-1] = client = context.wrap_socket(client) if context else client
                counts[worker_of(client)] += 1
        if order == "at-once":
            all_clients = [context.wrap_socket(client) if context else client for client in all_clients]
            for client in all_clients:
                counts[worker_of(client)] += 1
    finally:
        for client in all_clients:
            client.close()
    time.sleep(0.05)
    return max(counts.values()) * workers / clients


print(statistics.median(trial() for _ in range(int(trials))))
