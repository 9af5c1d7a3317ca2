"""A Flask app: answers at once, slowly, as a stream, with a file; and tells which worker answered."""

import os
import time

from flask import Flask, Response, request, send_file

app = Flask(__name__)
held = []


@app.get("/")
@app.get("/health")
@app.get("/<int:number>")
def home(number=0):
    return "pid %d" % os.getpid()


@app.get("/slow")
def slow():
    time.sleep(float(request.args.get("s", 1)))
    return "slow, pid %d" % os.getpid()


@app.get("/held")
def held_back():
    """Is answered when the file GATE is there."""
    while not os.path.exists(os.environ["GATE"]):
        time.sleep(0.02)
    return "pid %d" % os.getpid()


@app.post("/upload")
def upload():
    return str(len(request.get_data()))


@app.get("/grow")
def grow():
    held.append(bytearray(os.urandom(1 << 20)) * int(request.args["mib"]))
    return "pid %d" % os.getpid()


@app.get("/file")
def file():
    return send_file(__file__, mimetype="text/plain")


@app.get("/events")
def events():
    def chunks():
        for number in range(1_000_000):
            yield "data: %d\n\n" % number
            time.sleep(0.05)

    return Response(chunks(), mimetype="text/event-stream")


def closed():
    """Tells the test that a stream's generator was closed."""
    with open(os.environ["CLOSED"], "ab", buffering=0) as file:
        file.write(b"x")


@app.get("/halves")
def halves():
    """Events whose halves come one after the other."""

    def chunks():
        try:
            while True:
                yield "data: a\n"
                time.sleep(0.03)
                yield "data: b\n\n"
                time.sleep(0.03)
        finally:
            closed()

    return Response(chunks(), mimetype="text/event-stream")


@app.get("/idle")
def idle():
    """One event, and then none for a long time."""

    def chunks():
        try:
            yield "data: a\ndata: b\n\n"
            time.sleep(600)
        finally:
            closed()

    return Response(chunks(), mimetype="text/event-stream")
