"""Serve Python functions with svcmap, and have them called wherever there is room: see docs/python.md.

This file is all there is. It needs Python 3.8 or later, and pyzmq.
"""
import base64, collections, concurrent.futures, itertools, json, logging, os, queue, random
import signal, socket, sys, threading, time, zmq
from zmq.utils.monitor import recv_monitor_message
from zmq.utils.z85 import encode

log, served = logging.getLogger("svcmap"), {}
current = threading.local()  # current.job: what was said of the job that a function is called for
EXPIRY_S, LIST_S, TICK_S, LATE_S, TRIES_MAX = 3.0, 0.5, 0.1, 1.0, 5
PASSING = ("full", "queue full", "no credit", "draining", "not here")  # what a worker is for now
FINAL = ("too large", "not JSON", "expired", "cancelled")  # what every other would say as well
RANKS = {"high": 0, "normal": 1, "low": 2}

class Reject(Exception):
    """For a function to raise that has not begun its job: another worker may do it."""

class JobError(Exception):
    """A job is not done."""
    code = None

class JobFailed(JobError):
    """It ran, and its function raised this; or a program ended with this `code`."""

class JobRefused(JobError):
    """It has not run, and will not: it can safely be submitted again."""

class JobUnknown(JobError):
    """It may have run. With `idempotent=True` such jobs are tried again."""

def serve(service):
    """Makes a function of one JSON value one that `run` serves under that name."""
    def named(function):
        function.service, served[service] = service, function
        return function
    return named

def _json(value):
    return json.dumps(value, allow_nan=False).encode()

def _deployment(file, mappers):
    """The mappers' keys by their addresses, and one's own: those of the deployment file that is named,
    or of the one that lies where svcmap finds it, if it knows these mappers."""
    named = file or os.environ.get("SVCMAP_DEPLOYMENT")
    settings = os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")
    path = named or os.path.join(settings, "svcmap", "svcmap.toml")
    if not (named or os.path.exists(path)):
        return {}, None
    try:
        import tomllib
    except ImportError:  # before Python 3.11
        import tomli as tomllib
    with open(path, "rb") as opened:
        said = tomllib.load(opened)
    keys = {known["address"]: known["key"].encode() for known in said["mapper"]}
    missing = [address for address in mappers if address not in keys]
    if missing and named:
        raise ValueError(f"{path} has no key of {missing[0]}")
    own = said["own"]["public"].encode(), said["own"]["secret"].encode()
    return ({}, None) if missing else (keys, own)

class _Loop:
    """What one thread waits for: sockets, and others that wake it."""
    def __init__(self, mapper, deployment=None):
        mapper = mapper or os.environ.get("SVCMAP_MAPPER") or ""
        named = [address.strip() for address in mapper.split(",") if address.strip()]
        keys, self.own = _deployment(deployment, named)
        named = named or [*keys] or ["tcp://127.0.0.1:5555"]
        self.context, self.poller, self.lock = zmq.Context(), zmq.Poller(), threading.Lock()
        self.mappers = {self.dealer(keys.get(address)): address for address in named}
        self.woken, self.waker = socket.socketpair()
        self.waker.setblocking(False)
        self.poller.register(self.woken, zmq.POLLIN)
        for dealer, address in self.mappers.items():
            try:
                dealer.connect(address)
            except zmq.ZMQError:
                raise ValueError(f"{address!r} is no mapper: write tcp://HOST:PORT") from None

    def dealer(self, key):
        """A socket that sends where there is a connection, and else nowhere. With a key, it speaks with
        whoever has that."""
        dealer = self.context.socket(zmq.DEALER)
        if key:
            dealer.curve_serverkey = key
            dealer.curve_publickey, dealer.curve_secretkey = self.own
        dealer.linger, dealer.immediate, dealer.sndhwm, dealer.rcvhwm = 0, 1, 0, 0
        self.poller.register(dealer, zmq.POLLIN)
        return dealer

    def wake(self):
        try:
            self.waker.send(b".")
        except OSError:
            pass  # it was woken often enough, or has ended

    def wait(self, seconds=None):
        """Where something has come."""
        events = dict(self.poller.poll(None if seconds is None else seconds * 1000))
        if events.pop(self.woken.fileno(), None):
            self.woken.recv(4096)
        return events

    def end(self, linger_ms=0):
        self.context.destroy(linger_ms)
        self.woken.close()
        self.waker.close()

def _say(dealer, tag, command, payload):
    """Sends a request, whose reply has the same tag. False if there is no connection."""
    body = b'{"command": "%s", "payload": %s}' % (command.encode(), payload)
    try:
        dealer.send_multipart([tag, b"", body], zmq.NOBLOCK)
        return True
    except zmq.Again:
        return False

def _replies(dealer):
    """The replies that have come: their tags, and objects; an empty one if it is none."""
    while dealer.poll(0):
        frames = dealer.recv_multipart()
        try:
            said = json.loads(frames[-1])
        except ValueError:
            said = None
        yield frames[0], said if isinstance(said, dict) else {}

# Workers.

def run(*functions, mapper=None, concurrency=4, waiting=None, host=None, deployment=None):
    """Serves these functions, or all that have `serve`, until SIGTERM or SIGINT: then it finishes what
    runs, and returns. So many jobs run at once, each in a thread, and so many may wait: as many as run,
    unless `waiting` says otherwise. `host` is this machine as others reach it, `deployment` a file."""
    functions = functions or tuple(served.values())
    if not functions:
        raise ValueError("nothing to serve: put @svcmap.serve(NAME) before a function")
    waiting = concurrency if waiting is None else waiting
    _Worker(functions, mapper, concurrency, concurrency + waiting, host, deployment).run()

class _Worker(_Loop):
    def __init__(self, functions, mapper, concurrency, slots, host, deployment):
        super().__init__(mapper, deployment)
        self.guard, self.admitted, self.lists = None, {}, {}
        if self.own:  # libzmq asks it about each connection, and lets everybody in if there is none
            self.guard = self.context.socket(zmq.REP)
            self.guard.bind("inproc://zeromq.zap.01")
            self.poller.register(self.guard, zmq.POLLIN)
        self.slots, self.under_way, self.known = slots, 0, set()
        self.signal, self.quiet_at = None, 0  # from then on, senders have heard that it ends
        self.jobs, self.done = queue.PriorityQueue(), collections.deque()
        self.numbers, self.inboxes, self.workers = itertools.count(), {}, {}
        host = host or self.own_host(next(iter(self.mappers.values())))
        node = "".join(c for c in socket.gethostname() if c.isascii() and c.isalnum())[:30]
        for function in functions:
            inbox = self.context.socket(zmq.ROUTER)
            if self.own:
                inbox.curve_server, inbox.curve_secretkey = True, self.own[1]
                inbox.zap_domain = function.service.encode()
            address = f"tcp://{host}:{inbox.bind_to_random_port(f'tcp://{host}')}"
            self.inboxes[inbox] = function
            self.poller.register(inbox, zmq.POLLIN)
            name = f"{node}-{os.getpid()}-{random.getrandbits(24):06x}"
            self.workers[name.encode()] = dict(
                name=name, service=function.service, pid=os.getpid(), address=address, slots=slots,
                concurrency=concurrency, expiry_s=EXPIRY_S, results=True)
        for _ in range(concurrency):
            threading.Thread(target=self.work, daemon=True).start()

    def own_host(self, mapper):
        host, port = mapper[len("tcp://"):].rsplit(":", 1)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect((host, int(port)))  # sends nothing: which address of ours leads there?
            return probe.getsockname()[0]

    def run(self):
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, self.stop)
        beat_at, is_draining, warn_at = 0, False, time.monotonic() + 2
        while self.under_way or not self.signal or time.monotonic() < self.quiet_at:
            if self.signal and not is_draining:
                is_draining, beat_at = True, 0
                self.hand_back()
            if time.monotonic() >= beat_at:
                beat_at = time.monotonic() + EXPIRY_S / 6
                self.ask_for_keys()
                self.tell("UPDATE_HEALTH")
                if not self.known and beat_at > warn_at:
                    log.warning("no mapper answers yet at %s", ", ".join(self.mappers.values()))
                    warn_at = float("inf")
            for each in self.wait(max(0, beat_at - time.monotonic())):
                if each is self.guard:
                    self.let_in()
                else:
                    self.take(each) if each in self.inboxes else self.hear(each)
            while self.done:
                inbox, envelope, reply = self.done.popleft()
                self.under_way -= 1
                load = b'{"load": %.3f, ' % self.load()
                inbox.send_multipart([*envelope, load + reply[1:]])
        self.tell("DEREGISTER")  # only now: nobody waits for words of who has left
        self.end(linger_ms=1000)

    def stop(self, number, _):
        if self.signal:
            os._exit(128 + number)
        self.signal, self.quiet_at = number, time.monotonic() + LIST_S
        self.wake()

    def tell(self, command):
        load = self.load()
        for mapper, (name, worker) in itertools.product(self.mappers, self.workers.items()):
            is_known = (mapper, name) in self.known or command == "DEREGISTER"
            said = command if is_known else "REGISTER"
            _say(mapper, name, said, _json({**worker, "load": load}))

    def ask_for_keys(self):
        """Before anybody hears of this worker, and again and again: keys are revoked."""
        for service in {function.service for function in self.inboxes.values()} if self.own else ():
            for mapper in self.mappers:
                _say(mapper, b"keys " + service.encode(), "LIST_KEYS", _json({"service": service}))

    def learn_keys(self, mapper, service, said):
        """Good is a key that one mapper names and none has revoked."""
        self.lists[mapper, service] = set(said["keys"]), set(said["revoked"])
        lists = [both for (_, of), both in self.lists.items() if of == service]
        good = set().union(*(keys for keys, _ in lists))
        self.admitted[service] = good.difference(*(revoked for _, revoked in lists))

    def let_in(self):
        """RFC 27: whether that key may come in. Who may not may try again later."""
        version, request, service, *_, mechanism, key = self.guard.recv_multipart()
        key = encode(key).decode() if mechanism == b"CURVE" else ""
        is_good = key in self.admitted.get(service.decode(), ())
        code, user = (b"200", key.encode()) if is_good else (b"300", b"")
        self.guard.send_multipart([version, request, code, b"", user, b""])

    def load(self):
        """The share of its room that is taken; at its end, all of it."""
        return 1.0 if self.signal else self.under_way / self.slots

    def hear(self, mapper):
        for name, said in _replies(mapper):
            if name.startswith(b"keys "):
                if said.get("status") == "ok":
                    self.learn_keys(mapper, name[5:].decode(), said)
            elif said.get("status") == "ok":
                if (mapper, name) not in self.known:
                    worker = self.workers[name]
                    print(f"serving {worker['service']} on {worker['address']}, registered with "
                          f"{self.mappers[mapper]}", file=sys.stderr, flush=True)
                self.known.add((mapper, name))
            elif said.get("message") == "not found":  # it was started again
                self.known.discard((mapper, name))
            else:
                log.error("%s: %s", self.mappers[mapper], said.get("message"))

    def take(self, inbox):
        """A job is for a thread; what is none, or finds no room, is answered at once."""
        frames = inbox.recv_multipart(copy=False)
        if self.own and frames[-1].get("User-Id") not in self.admitted.get(self.inboxes[inbox].service, ()):
            return  # it was let in before its key was revoked
        *envelope, body = (frame.bytes for frame in frames)
        try:
            job = json.loads(body)["payload"]
            job["body"], rank = job["body"], RANKS[job.get("priority") or "normal"]
            ms = job.get("deadline_ms")
            deadline = float("inf") if ms is None else time.monotonic() + ms / 1000
        except Exception as error:
            said = {"status": "error", "message": f"SUBMIT with a body is expected: {error!r}"}
            return inbox.send_multipart([*envelope, _json(said)])
        if self.signal or self.under_way >= self.slots:
            reason = "draining" if self.signal else "full"
            self.quiet_at = time.monotonic() + LIST_S
            said = {"status": "refused", "reason": reason, "load": 1.0}
            return inbox.send_multipart([*envelope, _json(said)])
        self.under_way += 1
        self.jobs.put((rank, next(self.numbers), deadline, inbox, envelope, job))

    def hand_back(self):
        """What nobody has begun, other workers may do."""
        while not self.jobs.empty():
            *_, inbox, envelope, _ = self.jobs.get()
            self.done.append((inbox, envelope, _json({"status": "refused", "reason": "draining"})))

    def work(self):
        while True:
            *_, deadline, inbox, envelope, job = self.jobs.get()
            began, current.job = time.monotonic(), job
            try:
                if began < deadline:
                    reply = _json({"status": "done", "result": self.inboxes[inbox](job["body"])})
                else:
                    reply = _json({"status": "refused", "reason": "expired"})
            except Reject as error:
                log.warning("a job for %s is rejected: %s", self.inboxes[inbox].service, error)
                reply = _json({"status": "rejected", "message": str(error)})
            except BaseException as error:  # whatever it is, the next job is done
                log.exception("a job for %s failed", self.inboxes[inbox].service)
                message = f"{type(error).__name__}: {error}"
                reply = _json({"status": "failed", "message": message})
            ran = b'{"ran_ms": %.3f, ' % ((time.monotonic() - began) * 1000)
            self.done.append((inbox, envelope, ran + reply[1:]))
            self.wake()

# Clients.

class _Job:
    def __init__(self, service, value, deadline_s, hold_s, idempotent):
        self.service, self.body, self.future = service, _json(value), concurrent.futures.Future()
        self.deadline = float("inf") if deadline_s is None else time.monotonic() + deadline_s
        self.hold_s, self.idempotent, self.tries, self.avoided = hold_s, idempotent, 0, set()
        self.refused_at, self.why = None, None

    def begin(self):
        """Whether it is still wanted."""
        return self.future.running() or self.future.set_running_or_notify_cancel()

    def fail(self, kind, why, code=None):
        if not self.future.done() and self.begin():
            error = kind(f"{self.service}: {why}")
            error.code = code
            self.future.set_exception(error)

class _Service:
    """The jobs that wait for it, and its workers."""
    def __init__(self):
        self.waiting, self.peers, self.is_known, self.ask_at = collections.deque(), {}, False, 0
        self.alone_since, self.why = None, "no mapper answers: start one, or name another"

class _Peer:
    """A worker, and the jobs that it has."""
    def __init__(self, client, service, key, told):
        self.service, self.key, self.open, self.is_connected = service, key, {}, False
        self.slots, self.load, self.rest_until, self.pause, self.missing_since = 1, 0, 0, 0, None
        self.socket = client.dealer(client.own and told.get("key", "").encode())
        self.monitor = self.socket.get_monitor_socket(
            zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_DISCONNECTED)
        client.poller.register(self.monitor, zmq.POLLIN)
        client.peers[self.socket] = client.peers[self.monitor] = service.peers[key] = self
        self.socket.connect(key[0])

    def has_room(self, now):
        is_there = self.is_connected and not self.missing_since
        return is_there and len(self.open) < self.slots and self.rest_until <= now

    def busyness(self):
        return max(len(self.open) / self.slots, self.load), random.random()

class Client(_Loop, concurrent.futures.Executor):
    """An executor that sends jobs to whoever serves them, many at a time. One that no worker takes for
    `hold_s` is refused; `deadline_s` limits all of it, if it is set. `idempotent` jobs may run twice."""
    def __init__(self, mapper=None, *, deadline_s=None, hold_s=30.0, idempotent=False,
                 deployment=None):
        super().__init__(mapper, deployment)
        self.terms = deadline_s, hold_s, idempotent
        self.inbox, self.futures = queue.SimpleQueue(), set()
        self.services, self.peers, self.numbers = {}, {}, itertools.count(1)
        self.tick_at, self.is_ending = 0, False
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def submit(self, function, /, value):
        """A `Future` of what a function that has `serve`, or a service of that name, returns."""
        service = getattr(function, "service", function)
        if not isinstance(service, str):
            raise TypeError(f"{function!r} has no service: put @svcmap.serve(NAME) before it")
        job = _Job(service, value, *self.terms)
        with self.lock:
            if self.is_ending:
                raise RuntimeError("this client is closed: make another one")
            self.futures.add(job.future)
            self.inbox.put(job)
        job.future.add_done_callback(self._settled)
        self.wake()
        return job.future

    def shutdown(self, wait=True, *, cancel_futures=False):
        """Takes no more jobs, and cancels those that no worker has, if that is wanted."""
        with self.lock:
            self.is_ending, futures = True, [*self.futures]
        for future in futures if cancel_futures else ():
            future.cancel()
        self.wake()
        if wait:
            self.thread.join()

    def _settled(self, future):
        with self.lock:
            self.futures.discard(future)
        self.wake()

    def _run(self):
        try:
            while self.futures or not self.is_ending:
                self._turn(self.wait(TICK_S if self.futures else None))
        finally:
            with self.lock:
                self.is_ending, left = True, [*self.futures]
            for future in left:  # only after an error of this thread
                future.running() or future.set_running_or_notify_cancel()
                future.set_exception(JobUnknown("its client has ended"))
            self.end()

    def _turn(self, events):
        for each in events:
            self._hear(self.peers[each], each) if each in self.peers else self._learn(each)
        while not self.inbox.empty():
            job = self.inbox.get()
            self.services.setdefault(job.service, _Service()).waiting.append(job)
        now = time.monotonic()
        if now >= self.tick_at:
            self.tick_at = now + TICK_S
            for name, service in self.services.items():
                self._tick(name, service, now)
        for service in self.services.values():
            self._dispatch(service, now)

    def _dispatch(self, service, now):
        """Gives jobs to workers that have room: each to the one that is least busy."""
        while service.waiting:
            ready = [peer for peer in service.peers.values() if peer.has_room(now)]
            if not ready:
                return
            job = service.waiting.popleft()
            if job.begin():
                able = [peer for peer in ready if peer.key not in job.avoided]
                peer, tag = min(able or ready, key=_Peer.busyness), b"%d" % next(self.numbers)
                ms = max(1, min(job.deadline - now, 4e6) * 1000)  # at most what 32 bits hold
                payload = b'{"deadline_ms": %d, "body": %s}' % (ms, job.body)
                if _say(peer.socket, tag, "SUBMIT", payload):
                    peer.open[tag] = job
                else:
                    peer.rest_until = now + TICK_S
                    service.waiting.appendleft(job)

    def _tick(self, name, service, now):
        """What time brings: a question for the mappers, and an end to waits."""
        if not (service.waiting or any(peer.open for peer in service.peers.values())):
            return
        if now >= service.ask_at:
            question = name.encode(), "LIST_PEERS", _json({"service": name})
            asked = [_say(mapper, *question) for mapper in self.mappers]
            service.ask_at = now + (LIST_S if any(asked) else 0)
        is_served = any(peer.is_connected for peer in service.peers.values())
        service.alone_since = None if is_served else service.alone_since or now
        waiting, service.waiting = service.waiting, collections.deque()
        for job in waiting:
            since = job.refused_at or service.alone_since or now
            if job.deadline <= now or since + job.hold_s <= now:
                job.fail(JobRefused, job.why or service.why)
            elif not job.future.cancelled():
                service.waiting.append(job)
        for peer in [*service.peers.values()]:
            for tag in [tag for tag, job in peer.open.items() if job.deadline + LATE_S <= now]:
                peer.open.pop(tag).fail(JobUnknown, "no answer by its deadline: it may have run")
            if peer.missing_since and peer.missing_since + EXPIRY_S <= now:
                self._lose(peer, "its worker is gone")
                self._forget(peer)

    def _learn(self, mapper):
        """A mapper tells who serves a service."""
        for name, said in _replies(mapper):
            service = self.services.get(name.decode(errors="replace"))
            if service is None or said.get("status") != "ok":
                continue
            found = {(told["address"], told["pid"]): told for told in said["peers"].values()}
            service.is_known |= bool(found)
            service.why = ("none of its workers can be reached: see `svcmap status`" if found else
                           "nobody serves it: start a worker, or see `svcmap status`")
            for key, told in found.items():
                peer = service.peers.get(key) or _Peer(self, service, key, told)
                peer.slots, peer.load, peer.missing_since = max(1, told["slots"]), told["load"], None
            if said["warming"]:
                continue  # who is not listed may be there all the same
            for key in service.peers.keys() - found.keys():
                peer = service.peers[key]
                peer.missing_since = peer.missing_since or time.monotonic()
            while service.waiting and not service.is_known:
                service.waiting.popleft().fail(JobRefused, service.why)

    def _hear(self, peer, socket):
        for tag, said in _replies(peer.socket):
            job = peer.open.pop(tag, None)
            try:
                if job:  # else nobody waits for it any more
                    self._answered(peer, job, said)
            except (TypeError, ValueError) as error:
                job.fail(JobFailed, f"a reply that is not understood: {error}")
        if socket is peer.monitor:
            event = recv_monitor_message(socket)["event"]
            peer.is_connected = event == zmq.EVENT_HANDSHAKE_SUCCEEDED
            if not peer.is_connected:
                self._lose(peer, "the connection to its worker is lost")

    def _answered(self, peer, job, said):
        status, message = said.get("status"), said.get("message") or said.get("reason")
        if isinstance(said.get("load"), (int, float)):
            peer.load = said["load"]
        if status in ("refused", "rejected") or message == "queue full":
            return self._refused(peer, job, message)
        peer.pause = 0
        if status == "done" and "result_base64" in said:
            job.future.set_result(base64.b64decode(said["result_base64"]))
        elif status == "done":
            job.future.set_result(said.get("result"))
        elif status == "unknown":
            self._unknown(job, message)
        elif status == "ok":
            job.fail(JobUnknown, "taken by a worker that gives no results")
        else:
            job.fail(JobFailed, message or f"a reply that is not understood: {said}", said.get("code"))

    def _refused(self, peer, job, reason):
        now = time.monotonic()
        if reason in PASSING:
            job.why = f"no worker takes it ({reason}): start more, or let it wait longer (hold_s)"
            job.refused_at = job.refused_at or now
            peer.pause = min(1.0, max(0.02, 2 * peer.pause))
            peer.rest_until = now + peer.pause
        else:
            job.tries, job.avoided = job.tries + 1, job.avoided | {peer.key}
            if reason in FINAL or job.tries >= TRIES_MAX:
                return job.fail(JobRefused, reason)
        peer.service.waiting.appendleft(job)

    def _unknown(self, job, cause):
        job.tries += 1
        if job.idempotent and job.tries < TRIES_MAX:
            self.services[job.service].waiting.appendleft(job)
        else:
            job.fail(JobUnknown, f"{cause}: it may have run")

    def _lose(self, peer, cause):
        jobs, peer.open = [*peer.open.values()], {}
        for job in jobs:
            self._unknown(job, cause)

    def _forget(self, peer):
        del peer.service.peers[peer.key], self.peers[peer.socket], self.peers[peer.monitor]
        for each in (peer.monitor, peer.socket):
            self.poller.unregister(each)
        peer.socket.disable_monitor()
        peer.monitor.close()
        peer.socket.close()

Executor = Client  # it is one: `map`, `with` and all else are those of the standard library
