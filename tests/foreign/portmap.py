"""A node that has its router map a port to it by NAT-PMP (RFC 6886), and echoes."""
import base64, json, socket, struct, sys, threading

PORT = 6000
server, peers = socket.socket(socket.AF_INET, socket.SOCK_DGRAM), {}

def echo_all():
    while True:
        data, source = server.recvfrom(65535)
        server.sendto(data, source)

def gateway():
    with open("/proc/net/route") as routes:
        for fields in map(str.split, routes):
            if fields[1] == "00000000":
                return socket.inet_ntoa(struct.pack("<L", int(fields[2], 16)))

def ask(request):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        asking.connect((gateway(), 5351))
        for wait in (.25, .5, 1, 2):
            asking.settimeout(wait)
            asking.send(request)
            try:
                answer = asking.recv(64)
            except TimeoutError:
                continue
            if answer[2:4] != b"\0\0":
                raise RuntimeError("NAT-PMP: " + answer.hex())
            return answer
    raise RuntimeError("no answer by NAT-PMP")

def mapped():
    port, = struct.unpack("!H", ask(struct.pack("!BBHHHI", 0, 1, 0, PORT, PORT, 3600))[10:12])
    return [socket.inet_ntoa(ask(b"\0\0")[8:12]), port]

def answer(method, p):
    if method == "prepare":
        server.bind(("0.0.0.0", PORT))
        threading.Thread(target=echo_all, daemon=True).start()
        return {"functions": ["echo"], "public": mapped() if p["role"] == "mapped" else None}
    if method == "start":
        peers.update((q["name"], tuple(q["public"])) for q in p["peers"] if q.get("public"))
    if method == "echo":
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
            asking.settimeout(1)
            asking.sendto(base64.b64decode(p["payload"]), peers[p["callee"]])
            asking.recv(65535)
        return {"path": {"path": "direct", "legs": [{"transport": "udp"}]}}
    return {}

for line in sys.stdin:
    request = json.loads(line)
    reply = {"jsonrpc": "2.0", "id": request["id"]}
    try:
        reply["result"] = answer(request["method"], request.get("params"))
    except Exception as e:
        reply["error"] = {"code": 1, "message": repr(e)}
    print(json.dumps(reply), flush=True)
