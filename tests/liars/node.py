"""A node that sends straight to its peer or through a relay, and that may lie.

Its settings: route is direct, tcp (the same, as a stream) or relay; forward is whom a relay sends on to; known
are addresses of hosts that nobody else tells of; lie is what it does in secret or says falsely:
  claims-direct  says direct while its payload goes through the relay
  two-paths      sends its payload a second time, over TCP
  stripes        has the relay take its payload too, in STRIPES pieces over as many flows
  secret-relay   has the relay carry its media too, beside the direct path
  secret-tap     sends its media to the relay too, which keeps it
"""
import base64, json, socket, sys, threading, time

PEER, FORWARD, MEDIA, SECRET, TAP = 7, 8, 9, 10, 11  # ports
STRIPES = 6
addresses, settings, calls = {}, {}, {}

def udp(port=0):
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.bind(("0.0.0.0", port))
    return s

def start(work, *args):
    threading.Thread(target=work, args=args, daemon=True).start()

def echo(s):
    while True:
        data, source = s.recvfrom(65535)
        s.sendto(data, source)

def sink(s):
    while True:
        s.recvfrom(65535)

def forward(s, port):
    """What comes from anybody goes to the callee, what the callee answers back."""
    client = None
    while True:
        data, source = s.recvfrom(65535)
        callee = addresses[settings["forward"]]
        if source[0] != callee:
            client = source
        s.sendto(data, (callee, port) if source[0] != callee else client)

def streams(listener):
    while True:
        stream, _ = listener.accept()
        while stream.recv(65536):
            pass
        stream.sendall(b"got it")
        stream.close()

def stream(payload, address):
    with socket.create_connection((address, PEER), timeout=2) as s:
        s.sendall(payload)
        s.shutdown(socket.SHUT_WR)
        s.recv(16)

def media(callee, stop):
    """70 packets a second of 67 bytes, which the callee sends back."""
    s = udp()
    start(sink, s)
    began, sent = time.monotonic(), 0
    while not stop.wait(max(0, began + sent / 70 - time.monotonic())):
        s.sendto(bytes(67), (callee, MEDIA))
        if settings["lie"] == "secret-relay":
            s.sendto(bytes(67), (addresses["relay"], SECRET))
        if settings["lie"] == "secret-tap":
            s.sendto(bytes(67), (addresses["relay"], TAP))
        sent += 1

def stripe(payload, address):
    size = -(-len(payload) // STRIPES)
    for at in range(0, len(payload), size):
        with udp() as s:
            s.sendto(payload[at:at + size], address)

def send(callee, payload):
    relayed = settings["route"] == "relay"
    if settings["lie"] == "stripes":
        stripe(payload, (addresses["relay"], TAP))
    if settings["route"] == "tcp":
        stream(payload, addresses[callee])
        return {"path": {"path": "direct"}}
    with udp() as s:
        s.settimeout(1)
        s.sendto(payload, (addresses["relay"], FORWARD) if relayed else (addresses[callee], PEER))
        s.recv(65535)
    if settings["lie"] == "two-paths":
        stream(payload, addresses[callee])
    if relayed and settings["lie"] != "claims-direct":
        return {"path": {"path": "relayed", "hops": 1, "relays": 1, "carrying": 1}}
    return {"path": {"path": "direct"}}

def answer(method, p):
    if method == "prepare":
        settings.update({"route": "direct", "lie": "none"}, **p.get("settings") or {})
        listener = socket.create_server(("0.0.0.0", PEER))
        start(streams, listener)
        start(echo, udp(PEER))
        start(echo, udp(MEDIA))
        start(forward, udp(FORWARD), PEER)
        start(forward, udp(SECRET), SECRET) if "forward" in settings else start(sink, udp(SECRET))
        start(sink, udp(TAP))
        return {"functions": ["send", "call"]}
    if method == "start":
        addresses.update(settings.get("known", {}))
        addresses.update((q["name"], q["addresses"][0]) for q in p["peers"] if q.get("addresses"))
    if method == "send":
        return send(p["callee"], base64.b64decode(p["payload"]))
    if method == "call":
        stream(base64.b64decode(p["payload"]), addresses[p["callee"]])
        calls["1"] = threading.Event()
        start(media, addresses[p["callee"]], calls["1"])
        return {"call": "1", "signalling": {"path": "direct"}, "media": {"path": "direct"}}
    if method == "hangup":
        calls[p["call"]].set()
        return {"sent": 0, "received": 0}
    return {}

for line in sys.stdin:
    request = json.loads(line)
    reply = {"jsonrpc": "2.0", "id": request["id"]}
    try:
        reply["result"] = answer(request["method"], request.get("params"))
    except Exception as e:
        reply["error"] = {"code": 1, "message": repr(e)}
    print(json.dumps(reply), flush=True)
