"""Keep-alive clients: how many of them each worker gets. Prints for each trial the most that one has, as a multiple of
the mean.

Arguments: the address (HOST:PORT, or the path of a Unix socket), "plain", "tls" or "h2" (HTTP/2 over TLS), "one-by-one"
or "at-once", the number of clients, of workers, of trials. The path /pid tells the worker.
"""

import collections
import socket
import ssl
import sys
import time

address, kind, order, clients, workers, trials = sys.argv[1:]
clients, workers = int(clients), int(workers)
context = None if kind == "plain" else ssl._create_unverified_context()
if kind == "h2":
    import h2.connection
    import h2.events

    context.set_alpn_protocols(["h2"])


def connected():
    if address.startswith("/"):
        client = socket.socket(socket.AF_UNIX)
        client.settimeout(20)
        client.connect(address)
        return client
    host, port = address.rsplit(":", 1)
    return socket.create_connection((host, int(port)), timeout=20)


def secured(client):
    return context.wrap_socket(client) if context else client


def received(client):
    more = client.recv(4096)
    assert more, "closed without an answer"
    return more


def worker_of(client):
    if kind == "h2":
        return worker_over_http_2(client)
    client.sendall(b"GET /pid HTTP/1.1\r\nHost: test\r\n\r\n")
    text = b""
    while not text.partition(b"\r\n\r\n")[2]:
        text += received(client)
    assert b" 200 " in text[:15], text
    return text.partition(b"\r\n\r\n")[2]


def worker_over_http_2(client):
    assert client.selected_alpn_protocol() == "h2"
    connection = h2.connection.H2Connection()
    connection.initiate_connection()
    headers = {":method": "GET", ":path": "/pid", ":scheme": "https", ":authority": "test"}
    connection.send_headers(1, list(headers.items()), end_stream=True)
    body, is_over = b"", False
    while not is_over:
        client.sendall(connection.data_to_send())
        for event in connection.receive_data(received(client)):
            body += event.data if isinstance(event, h2.events.DataReceived) else b""
            is_over = is_over or isinstance(event, h2.events.StreamEnded)
    assert body, "an empty answer"
    return body


def trial():
    counts, all_clients = collections.Counter(), []
    try:
        for _ in range(clients):
            all_clients.append(connected())
            if order == "one-by-one":
                all_clients[-1] = secured(all_clients[-1])
                counts[worker_of(all_clients[-1])] += 1
        if order == "at-once":
            all_clients = [secured(client) for client in all_clients]
            for client in all_clients:
                counts[worker_of(client)] += 1
    finally:
        for client in all_clients:
            client.close()
    time.sleep(0.05)
    return max(counts.values()) * workers / clients


for _ in range(int(trials)):
    print(trial(), flush=True)
