"""A worker as the original system has them: original_worker.py MAPPER NAME ROOM REPORT_S

It registers, reports its load every REPORT_S seconds (the original: 5), and answers each job at
once: accepted, or queue full. A job takes as many seconds as its "duration" says, and is then
printed, a line each.
"""

import json
import os
import queue
import sys
import threading
import time

import zmq

mapper, name, room, report_s = sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4])
context = zmq.Context()
jobs = queue.Queue(room)
inbox = context.socket(zmq.REP)
port = inbox.bind_to_random_port("tcp://127.0.0.1")


def ask(control, command, payload):
    control.send_json({"command": command, "payload": payload})
    return control.recv_json()


def run():
    while True:
        job = jobs.get()
        time.sleep(job.get("duration", 0))
        print(json.dumps(job, sort_keys=True), flush=True)


def report():
    control = context.socket(zmq.REQ)
    control.connect(mapper)
    me = {"name": name, "address": f"tcp://127.0.0.1:{port}", "pid": os.getpid()}
    assert ask(control, "REGISTER", me) == {"status": "ok", "message": f"registered {name}"}
    while True:
        time.sleep(report_s)
        health = {"name": name, "load": jobs.qsize() / room}
        assert ask(control, "UPDATE_HEALTH", health) == {"status": "ok"}


threading.Thread(target=run, daemon=True).start()
threading.Thread(target=report, daemon=True).start()
while True:
    job = inbox.recv_json()
    try:
        jobs.put_nowait(job)
        inbox.send_json({"status": "ok", "message": "job accepted"})
    except queue.Full:
        inbox.send_json({"status": "error", "message": "queue full"})
