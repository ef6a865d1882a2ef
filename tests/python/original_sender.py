"""A sender as the original system has them: original_sender.py MAPPER PEER COUNT DURATION

For each job it asks the mapper for the peer, leaves it alone from a load of 0.9 on, and else sends
it the job. Prints what became of them, as one JSON object.
"""

import json
import sys

import zmq

mapper, peer, count, duration = sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4])
context = zmq.Context()
control = context.socket(zmq.REQ)
control.connect(mapper)
peers, counts = {}, {}

for number in range(count):
    control.send_json({"command": "GET_PEER", "payload": {"name": peer}})
    found = control.recv_json()
    if found["status"] != "ok":
        said = found["message"]
    elif found["peer"]["load"] >= 0.9:
        said = "not asked"
    else:
        assert sorted(found["peer"]) == ["address", "last_seen", "load", "pid"], found
        address = found["peer"]["address"]
        if address not in peers:
            peers[address] = context.socket(zmq.REQ)
            peers[address].connect(address)
        peers[address].send_json({"task": "process_video", "number": number, "duration": duration})
        said = peers[address].recv_json()["message"]
    counts[said] = counts.get(said, 0) + 1
print(json.dumps(counts, sort_keys=True))
