"""A node that sends over TCP: directly, or by the CONNECT method of the proxy that it is told of."""
import base64, json, os, socket, sys, threading
from urllib.parse import urlsplit

server, peers = socket.socket(), {}

def echo_all():
    while True:
        c, _ = server.accept()
        with c:
            while data := c.recv(65536):
                c.sendall(data)

def there_and_back(c, payload):
    c.sendall(payload)
    back = 0
    while back < len(payload):
        n = len(c.recv(65536))
        if n == 0:
            raise ConnectionError("it ends after %d bytes" % back)
        back += n

def tunnel(peer, payload):
    proxy = urlsplit(os.environ["https_proxy"])
    with socket.create_connection((proxy.hostname, proxy.port), 2) as c:
        c.sendall(b"CONNECT %s:%d HTTP/1.1\r\nHost: %s\r\n\r\n" % (peer[0].encode(), peer[1], peer[0].encode()))
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            byte = c.recv(1)
            if not byte:
                raise ConnectionError(head.decode())
            head += byte
        if head.split()[1] != b"200":
            raise ConnectionError(head.decode())
        there_and_back(c, payload)

def direct(peer, payload):
    with socket.create_connection(peer, 1) as c:
        there_and_back(c, payload)

def answer(method, p):
    if method == "prepare":
        server.bind(("0.0.0.0", 443))
        server.listen()
        threading.Thread(target=echo_all, daemon=True).start()
        return {"functions": ["direct", "tunnel"]}
    if method == "start":
        peers.update((q["name"], (q["addresses"][0], 443)) for q in p["peers"] if q.get("addresses"))
    if method in ("direct", "tunnel"):
        globals()[method](peers[p["callee"]], base64.b64decode(p["payload"]))
    return {}

for line in sys.stdin:
    request = json.loads(line)
    reply = {"jsonrpc": "2.0", "id": request["id"]}
    try:
        reply["result"] = answer(request["method"], request.get("params"))
    except Exception as e:
        reply["error"] = {"code": 1, "message": repr(e)}
    print(json.dumps(reply), flush=True)
