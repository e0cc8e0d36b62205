"""A service with fixed answers, for states that a real service reaches only by chance.

It sends the page with its policy. The target selects the answer to a scan: an entry of FINDINGS or
of FAULTS, or else the findings of shop.example. A stream whose target ends in `.held` stops in the
middle until `released` is set.
"""

import base64
import hashlib
import http.server
import json
import pathlib
import re
import threading
import time
import urllib.parse

PAGE = pathlib.Path(__file__).parent / "../../src/api/page/index.html"
WEB = [21, 22, 25, 53, 80, 110, 143, 443, 587, 993, 3306, 5432, 6379, 8080, 8443, 9090, 9200, 27017, 32400, 50051]
NAMES = {21: "ftp", 22: "ssh", 25: "smtp", 53: "domain", 80: "http", 110: "pop3", 143: "imap2", 443: "https",
         587: "submission", 993: "imaps", 3306: "mysql", 5432: "postgresql", 6379: "redis", 8080: "http-alt"}
METRICS = """openports_scans_running 1
openports_connects_in_flight 313
openports_connects_in_flight_max 18838
openports_descriptors_used 315
openports_descriptors_max 19990
openports_draining 0
"""
# By target: the open ports, and the state of most others.
FINDINGS = {"shop.example": (WEB, "closed"), "quiet.example": ([], "closed"), "silent.example": ([], "filtered"),
            "gone.example": ([], "unreachable"), "wide.example": (range(1, 65536), "closed"),
            "drains.example": (WEB, "filtered"), "breaks.example": (WEB, "filtered"), "late.example": (WEB, "closed")}
# By target: the status, the cause, and the other fields of the answer.
FAULTS = {"denied.example": (403, "TARGET_DENIED", {"detail": "169.254.169.254 is link-local, which this service does not scan."}),
          "unknown.example": (422, "UNKNOWN_HOST", {"detail": "The name unknown.example does not exist."}),
          "full.example": (429, "TOO_MANY_SCANS", {"detail": "Wait for one of your running scans to end, or close its connection."}),
          "leaving.example": (503, "DRAINING", {"detail": "The service is shutting down: try again, another may take its place."}),
          "token.example": (401, "UNAUTHORIZED", {"detail": "Send the token."}),
          "wrong.example": (400, "INVALID_REQUEST", {"detail": "Correct the query parameters.", "invalid_fields": {
              "ports": ["9-x is no port or range"], "timeout": ["needs a unit: 3s or 3ms"], "toport": ["unknown parameter, did you mean toPort?"]}})}


def policy(page):
    def digests(element):
        for text in re.findall(rf"<{element}>(.*?)</{element}>", page, re.S):
            yield f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
    return (f"default-src 'none'; script-src {' '.join(digests('script'))}; style-src {' '.join(digests('style'))}; "
            "connect-src 'self'; img-src data:; form-action 'self'; base-uri 'none'; frame-ancestors 'none'")


def parse(text):
    text = ",".join(map(str, range(1, 101))) if text == "top:100" else text
    ports = set()
    for part in filter(None, text.split(",")):
        first, _, last = part.partition("-")
        ports.update(range(int(first or 1), (int(last or 65535) if "-" in part else int(first)) + 1))
    return sorted(ports)


def ranges(ports):
    runs = []
    for port in ports:
        if runs and runs[-1][1] == port - 1:
            runs[-1][1] = port
        else:
            runs.append([port, port])
    return ",".join(f"{first}-{last}" if last > first else str(first) for first, last in runs)


class Stub(http.server.BaseHTTPRequestHandler):
    """Sends chunks, so that a connection that ends too early is detected."""

    protocol_version = "HTTP/1.1"

    def do_HEAD(self):
        self.send(400 if "wrong" in self.path else 200, "text/plain", b"")

    def do_GET(self):
        path, _, query = self.path.partition("?")
        query = dict(urllib.parse.parse_qsl(query))
        if path == "/metrics":
            return self.send(200, "text/plain", METRICS.encode())
        if path != "/open-ports":
            page = PAGE.read_text()
            return self.send(200, "text/html; charset=utf-8", page.encode(), {"Content-Security-Policy": policy(page)})
        target = query.get("domain", "")
        name = target.removesuffix(".held")
        if name in FAULTS:
            status, cause, more = FAULTS[name]
            after = {"Retry-After": "3"} if status in (429, 503) else {}
            return self.send(status, "application/problem+json", json.dumps({"title": "No", "cause": cause, **more}).encode(), after)
        if name.startswith("html"):
            return self.send(502 if name == "html502.example" else 200, "text/html", b"<h1>502 Bad Gateway</h1>")
        if name == "hangs.example":
            self.server.released.wait(60)
        try:
            self.stream(query, target, *FINDINGS.get(name, (WEB, "closed")))
        except (BrokenPipeError, ConnectionResetError):
            pass

    def send(self, status, kind, body, more={}):
        self.send_response(status)
        for field, value in {"Content-Type": kind, "Content-Length": str(len(body)), "Connection": "close", **more}.items():
            self.send_header(field, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def line(self, event):
        data = json.dumps(event).encode() + b"\n"
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))

    def stream(self, query, target, found, rest):
        requested = [port for port in parse(query.get("ports", "1-")) if port not in parse(query.get("exclude", ""))]
        self.send_response(200)
        self.send_header("Content-Type", "application/x-ndjson")
        self.send_header("Transfer-Encoding", "chunked")
        self.send_header("Connection", "close")
        self.end_headers()
        if target == "late.example":
            # Chromium excuses what moves within half a second after a click.
            self.wfile.flush()
            time.sleep(.7)
        half = len(requested) * 62 // 100
        self.line({"event": "start", "domain": target, "address": "192.0.2.7", "total": len(requested), "ports": ranges(requested)})
        states, other = {"open": [], "closed": [], "filtered": [], "unreachable": []}, "closed" if rest == "filtered" else "filtered"
        isolated = rest in ("closed", "filtered") and target.startswith(("shop", "late", "drains", "breaks"))
        step = max(1, len(requested) // 20)
        held = False
        for at in range(0, len(requested), step):
            part = requested[at:at + step]
            news = {"open": [port for port in part if port in found]}
            news[other] = [port for port in part if isolated and port * 2654435761 % 67 == 0 and port not in found]
            news[rest] = [port for port in part if port not in news["open"] and port not in news[other]]
            # The order is not ascending, like that of a real scan.
            for port in sorted(news["open"], key=lambda port: port * 2654435761 % 97):
                self.line({"event": "open", "port": port, "rtt_ms": 20 + port % 13 / 10})
            for state, ports in news.items():
                states[state] += ports
            self.line({"event": "progress", "done": at + len(part), "total": len(requested), "open": len(states["open"]),
                       **{f"{state}_ports": ranges(ports) for state, ports in news.items() if state != "open" and ports}})
            self.server.pause and time.sleep(self.server.pause)
            if at >= half and not held:
                held = True
                if target.endswith(".held"):
                    self.server.released.wait(60)
                if target.startswith("breaks"):
                    self.wfile.flush()
                    self.close_connection = True
                    return
                if target.startswith("drains"):
                    break
        counts = {state: len(ports) for state, ports in states.items()}
        counts["untested"] = len(requested) - sum(counts.values())
        summary = {"from_port": requested[0], "to_port": requested[-1], "domain": target, "open_ports": states["open"], "address": "192.0.2.7",
                   "counts": counts, "complete": not counts["untested"], "retried": 1214 if isolated else 0,
                   "loss_suspected": False, "elapsed_ms": 9412, "services": {str(port): NAMES[port] for port in states["open"] if port in NAMES},
                   **{f"{state}_ports": ranges(ports) for state, ports in states.items() if state != "open"}}
        if target.startswith(("shop", "late", "silent")):
            summary |= {"loss": .013 if isolated else None, "technique": "syn"}
        self.line({"event": "end", **summary})
        self.wfile.write(b"0\r\n\r\n")

    def log_message(self, *_):
        pass


def start(pause=0):
    """Starts the server. `url` is its address; setting `released` continues held answers."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Stub)
    server.daemon_threads = True
    server.pause, server.released = pause, threading.Event()
    server.url = f"http://127.0.0.1:{server.server_port}/"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server
