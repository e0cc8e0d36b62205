"""Tests the page in a real browser. Every claim of docs/page.md has a case.

Usage: check.py BINARY AXE [CASE…], in the lab of benches/lab. The only host of the lab, HOST, has
the open ports OPEN, and all its others are silent. No packet leaves this network, and no other
program listens in it, so the expected state of every port on the map is known.
"""

import http.server
import itertools
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.parse
import urllib.request

import stub
from browser import Browser, DEADLINE

HOST = os.environ["PAGE_HOST"]
OPEN = {int(port) for port in os.environ["PAGE_OPEN"].split(",")}
BINARY, AXE = sys.argv[1], open(sys.argv[2]).read()
STATES = ["not asked for", "open", "closed", "filtered", "unreachable", "untested"]
# A long task takes 50 ms or more (W3C Long Tasks). The longest task takes 21 ms, or twice as much
# while other programs use the processors. A task whose work grows with the number of ports takes
# far more.
TASK_MS_MAX = 200
browser = Browser()


class Service:
    """An openports on loopback, and its metrics."""

    def __init__(self, *flags):
        self.process = subprocess.Popen([BINARY, "--listen", "127.0.0.1:0", *flags],
                                        stderr=subprocess.PIPE, text=True)
        self.url = None
        while not self.url:
            line = self.process.stderr.readline()
            if not line:
                raise RuntimeError("the service did not start")
            found = re.search(r"msg=listening address=(\S+)", line)
            self.url = found and f"http://{found[1]}/"
        threading.Thread(target=self.process.stderr.read, daemon=True).start()
        self.port = int(self.url.rsplit(":", 1)[1].strip("/"))

    def metric(self, name):
        with urllib.request.urlopen(f"{self.url}metrics") as answer:
            found = re.search(rf"^openports_{re.escape(name)} (\d+)", answer.read().decode(), re.M)
        return int(found[1]) if found else 0

    def until(self, name, wanted):
        end = time.monotonic() + DEADLINE
        while not wanted(self.metric(name)):
            if time.monotonic() > end:
                raise AssertionError(f"{name} is {self.metric(name)}")
            time.sleep(0.02)

    def ask(self, query):
        """Sends a request without the page, and returns the status and the document."""
        try:
            with urllib.request.urlopen(f"{self.url}open-ports?{query}") as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)

    def close(self, how=signal.SIGKILL):
        self.process.send_signal(how)
        self.process.wait()


def listeners(count):
    """Returns this number of listening sockets, and their ports."""
    held = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    return held, {server.getsockname()[1] for server in held}


def fill(page, target, ports, **more):
    page.fill("domain", target)
    page.fill("ports", ports)
    if more:
        page.eval("document.getElementById('rest').open = true")
    for name, value in more.items():
        page.fill(name, value)


def scan(page, target, ports, **more):
    fill(page, target, ports, **more)
    page.click("scan")


def says(page, beginning, seconds=DEADLINE):
    page.until(f"document.getElementById('say').textContent.startsWith({json.dumps(beginning)})", seconds)


def shown(page):
    """Returns the state of each port, from the colour of its cell on the map or in the list."""
    page.call("Page.bringToFront")
    # Waits until frames have been drawn and, for a list of ports, a tick of 250 ms has passed.
    page.eval("new Promise((done) => setTimeout(() => requestAnimationFrame(() => requestAnimationFrame(done)), 300))")
    digits = page.eval("""(() => {
        const known = [document.getElementById('map'), ...document.querySelectorAll('#legend i')]
            .map((element) => getComputedStyle(element).backgroundColor.match(/\\d+/g).slice(0, 3).join())
        const states = new Array(65536).fill(0), canvas = document.getElementById('map')
        const few = [...document.querySelectorAll('#few:not([hidden]) li')]
        if (few.length) for (const item of few) {
            const colour = getComputedStyle(item.firstChild).backgroundColor.match(/\\d+/g).slice(0, 3).join()
            states[item.value] = known.indexOf(colour)
            if (item.lastChild.textContent !== STATES[states[item.value]]) throw new Error(item.textContent)
        } else {
            const copy = new OffscreenCanvas(canvas.width, canvas.height).getContext('2d', { willReadFrequently: true })
            copy.drawImage(canvas, 0, 0)
            const { data } = copy.getImageData(0, 0, canvas.width, canvas.height)
            for (let at = 0; at < data.length / 4 && base + at < 65536; at++) {
                states[base + at] = known.indexOf(data.slice(4 * at, 4 * at + 3).join())
            }
        }
        return states.map((state) => state < 0 ? '?' : state).join('')
    })()""")
    return [STATES[int(digit)] if digit != "?" else "no colour of the legend" for digit in digits]


def expect_map(page, requested, rest, **states):
    """Each requested port has the state `rest`, except for the ports in `states`."""
    wrong = []
    wanted = {port: state for state, ports in states.items() for port in ports}
    for port, state in enumerate(shown(page)):
        right = wanted.get(port, rest) if port in requested else "not asked for"
        if state != right:
            wrong.append(f"{port} is {state}, not {right}")
    assert not wrong, f"{len(wrong)} ports: {wrong[:5]}"


def alert(page):
    return page.until("!document.getElementById('problem').hidden && document.getElementById('problem').innerText")


# -- The cases. Each has a new tab. An error that a tab reports fails the case.


def one_request_paints_the_page(page, service):
    page.open(service.url)
    first = page.until("performance.getEntriesByName('first-contentful-paint')[0]?.startTime")
    before = page.eval(f"performance.getEntriesByType('resource').filter(({{startTime}}) => startTime < {first}).length")
    assert before == 0, f"{before} requests before the first paint"
    print(f"   first contentful paint after {first:.0f} ms")
    page.until("document.getElementById('service').textContent.includes('ready')")


def the_map_of_loopback_shows_every_listener(page, service):
    held, ports = listeners(40)
    page.open(service.url)
    scan(page, "127.0.0.1", "1-")
    says(page, f"Done: {len(ports) + 1} of 65,535")
    expect_map(page, range(1, 65536), "closed", open=ports | {service.port})
    rows = page.eval("[...document.querySelectorAll('#rows tr')].map(({cells}) => +cells[0].textContent)")
    assert rows == sorted(ports | {service.port}), rows
    del held


def the_map_fills_while_the_scan_runs(page, service):
    page.open(service.url)
    scan(page, "127.0.0.1", "1-3000", rate="1500")
    page.until("[...document.querySelectorAll('#legend dd')][1].textContent.replace(',', '') > 100")
    some = shown(page)
    assert 0 < some.count("closed") < 3000 and some.count("untested") > 0, some.count("closed")
    assert set(some) == {"closed", "untested", "not asked for"}, set(some)
    says(page, "Done")
    expect_map(page, range(1, 3001), "closed")


def a_silent_host_is_filtered_but_for_its_open_ports(page, service):
    page.open(service.url)
    scan(page, HOST, "1-2000,40000-40100", timeout="400ms", exclude="100-199")
    says(page, "Done")
    requested = {*range(1, 100), *range(200, 2001), *range(40000, 40101)}
    expect_map(page, requested, "filtered", open=OPEN & requested)
    names = page.eval("[...document.querySelectorAll('#rows tr')].map((row) => row.textContent).join()")
    assert "22ssh" in names and "80http" in names, names


def an_address_without_a_route_is_unreachable(page, service):
    page.open(service.url)
    scan(page, "203.0.113.9", "1-300")
    says(page, "Done")
    expect_map(page, range(1, 301), "unreachable")


def stop_releases_the_descriptors(page, service):
    page.open(service.url)
    idle = service.metric("descriptors_used")
    scan(page, HOST, "1000-3000", timeout="60s")
    service.until("connects_in_flight", lambda count: count > 1900)
    page.click("stop")
    says(page, "Stopped")
    service.until("scans_running", lambda count: count == 0)
    service.until("connects_in_flight", lambda count: count == 0)
    service.until("descriptors_used", lambda count: count <= idle + 2)
    assert page.eval("document.activeElement.id") == "scan"


def reload_scans_again_and_a_link_does_not(page, service):
    page.open(service.url)
    scan(page, "127.0.0.1", "1-50", timeout="1s")
    says(page, "Done: 0 of 50")
    link = page.eval("location.href")
    assert link.endswith("/?domain=127.0.0.1&ports=1-50&timeout=1s"), link
    page.reload()
    says(page, "Done: 0 of 50")
    scans = service.metric('scans_total{technique="connect",result="complete"}')
    other = browser.page()
    other.open(link)
    other.until("document.getElementById('service').textContent")
    assert other.eval("[domain.value, ports.value, timeout.value].join()") == "127.0.0.1,1-50,1s"
    assert service.metric('scans_total{technique="connect",result="complete"}') == scans
    assert not any("open-ports" in url for url in other.requests), other.requests


def back_and_forward_show_the_scan_of_the_address(page, service):
    page.open(service.url)
    scan(page, "127.0.0.1", "1-20")
    says(page, "Done: 0 of 20")
    scan(page, "localhost", "1-30")
    says(page, "Done: 0 of 30")
    page.eval("history.back()")
    says(page, "Done: 0 of 20")
    assert page.eval("[domain.value, ports.value].join()") == "127.0.0.1,1-20"
    page.eval("history.forward()")
    says(page, "Done: 0 of 30")
    page.eval("history.go(-2)")
    says(page, "Name a target")
    assert page.eval("document.getElementById('answer').hidden")


def two_tabs_scan_side_by_side(page, service):
    other = browser.page()
    for tab in (page, other):
        tab.open(service.url)
    scan(page, HOST, "1-300", timeout="1500ms")
    scan(other, "127.0.0.1", "1-1000", rate="1000")
    says(other, "Done: 0 of 1,000")
    says(page, "Done")
    expect_map(page, range(1, 301), "filtered", open=OPEN & set(range(1, 301)))
    expect_map(other, range(1, 1001), "closed")


def a_shutdown_during_the_scan_is_reported(page, _):
    service = Service("--drain-timeout", "300ms")
    page.open(service.url)
    scan(page, HOST, "1-1000", timeout="60s")
    service.until("connects_in_flight", lambda count: count > 900)
    service.process.terminate()
    says(page, "Cut short")
    assert "untested" in page.text("say"), page.text("say")
    assert json.loads(page.eval("run.json"))["complete"] is False
    assert service.process.wait() == 0
    page.until("document.getElementById('service').textContent.includes('not answer')")


def a_stream_that_breaks_keeps_its_results(page, _):
    service = Service()
    page.open(service.url)
    scan(page, HOST, "1-1000", timeout="60s")
    page.until(f"document.querySelectorAll('#rows tr').length === {len([port for port in OPEN if port <= 1000])}")
    service.close()
    assert "The connection broke" in alert(page)
    says(page, "Broken off")
    found = sorted(port for port in OPEN if port <= 1000)
    assert page.text("found") == f"{len(found)} open ports so far"
    saved = {}
    for name in ("JSON", "CSV"):
        saved[name] = page.eval(f"""new Promise((done) => {{ URL.createObjectURL = (blob) => blob.text().then(done) && '#'
            const save = document.querySelector('[aria-label="Save {name}"]'); if (save.checkVisibility({{visibilityProperty: true}})) save.click(); else done('') }})""")
    assert json.loads(saved["JSON"]) == {"domain": HOST, "address": HOST, "open_ports": found, "complete": False}, saved
    assert len(saved["CSV"].splitlines()) == 1 + len(found), saved
    expect_map(page, range(1, 1001), "untested", open={port for port in OPEN if port <= 1000})
    page.click("scan")
    page.until("document.getElementById('problem').textContent.includes('does not answer')")
    expect_map(page, range(1, 1001), "untested", open={port for port in OPEN if port <= 1000})


def a_token_is_requested_and_kept_in_the_tab(page, _):
    with tempfile.NamedTemporaryFile("w", delete=False) as file:
        file.write("swordfish")
    service = Service("--token-file", file.name)
    page.open(service.url)
    scan(page, "127.0.0.1", "1-10")
    page.until("document.activeElement.id === 'token'")
    assert page.text("token-error") == ""
    for word in ("shark", "swordfish"):
        page.fill("token", word)
        page.key("Enter")
        page.until("ask.hidden") if word == "swordfish" else page.until("document.getElementById('token-error').textContent")
    says(page, "Done: 0 of 10")
    assert page.eval("document.cookie + localStorage.length") == "0"
    assert "swordfish" not in page.eval("location.href + curl()")
    page.reload()
    says(page, "Done: 0 of 10")
    other = browser.page()
    other.open(service.url)
    scan(other, "127.0.0.1", "1-10")
    other.until("!ask.hidden")
    service.close()
    os.unlink(file.name)


def a_denied_target_is_reported_beside_its_input_and_the_last_result_stays(page, service):
    page.open(service.url)
    scan(page, "127.0.0.1", "1-300")
    says(page, "Done: 0 of 300")
    for target, words in (("169.254.169.254", "This service does not scan this target."), ("no-such-name.invalid", "")):
        scan(page, target, "80")
        status, document = service.ask(f"domain={target}&ports=80")
        page.until("domain.ariaInvalid === 'true'")
        error = page.text("domain-error")
        assert status >= 400 and error.startswith(words) and document["detail"].rstrip(".") in error, (document, error)
        expect_map(page, range(1, 301), "closed")
        assert page.eval("document.getElementById('about').textContent") == "of 300 on 127.0.0.1"
        assert page.eval("location.search") == "?domain=127.0.0.1&ports=1-300"


def a_wrong_query_in_the_address_is_reported_beside_its_input(page, service):
    query = "domain=127.0.0.1&ports=9-x&timeout=3&retries=99&toport=80"
    page.open(f"{service.url}?{query}")
    page.click("scan")
    faults = service.ask(query)[1]["invalid_fields"]
    assert f"toport ({faults['toport'][0]})" in alert(page)
    for name, form in (("ports", "22,80,8000-8100"), ("timeout", "500ms or auto"), ("retries", "0 to 10 or auto")):
        assert page.text(f"{name}-error").startswith(f"Use this form: {form}."), page.text(f"{name}-error")
        # The page does not show the message that a value is not a decimal number.
        message = faults[name][0].rstrip(".")
        assert "decimal" in message or message in page.text(f"{name}-error"), page.text(f"{name}-error")
        assert page.eval(f"document.getElementById('{name}').ariaInvalid") == "true"
    assert page.eval("document.activeElement.id") == "ports"
    assert page.eval("document.getElementById('answer').hidden")
    scan(page, "127.0.0.1", "1-9", timeout="1s", retries="1")
    says(page, "Done: 0 of 9")
    assert "toport" not in page.eval("location.search")
    page.open(f"{service.url}?domain=127.0.0.1&fromPort=5&toPort=8")
    page.click("scan")
    says(page, "Done: 0 of 4")
    page.fill("domain", "")
    page.click("scan")
    page.until("document.getElementById('domain-error').textContent === 'Fill this in: example.com or 192.0.2.7.'")
    expect_map(page, range(5, 9), "closed")


def a_typing_error_ends_no_scan(page, service):
    page.open(service.url)
    scan(page, HOST, "1-1000", timeout="3s", retries="0")
    service.until("connects_in_flight", lambda count: count > 900)
    scan(page, HOST, "1-x")
    page.until("ports.ariaInvalid === 'true'")
    assert service.metric("scans_running") == 1
    says(page, "Done")
    expect_map(page, range(1, 1001), "filtered", open={port for port in OPEN if port <= 1000})
    assert page.text("found") == f"{len([port for port in OPEN if port <= 1000])} open ports"


def an_answer_that_is_not_of_the_service_is_reported(page, _):
    server = stub.start()
    page.open(server.url)
    scan(page, "shop.example", "1-1024")
    says(page, "Done")
    for target, words in (("html200.example", "Status 200, text/html: is there a proxy"), ("html502.example", "Status 502, text/html: is there a proxy"),
                          ("full.example", "Too many of your scans are under way"), ("leaving.example", "The service is shutting down")):
        scan(page, target, "1-1024")
        page.until(f"document.getElementById('problem').innerText.includes({json.dumps(words)})")
        assert "10 open ports" in page.text("found"), page.text("found")
    scan(page, "hangs.example", "1-1024")
    page.until("document.getElementById('facts').textContent.startsWith('Waiting for the service')")
    page.click("stop")
    says(page, "Stopped")
    assert "10 open ports" in page.text("found") and page.text("facts").startswith("Done"), page.text("facts")
    server.shutdown()
    server.server_close()
    scan(page, "shop.example", "1-1024")
    page.until("document.getElementById('problem').innerText.includes('The service does not answer')")


def the_answer_names_technique_loss_and_progress(page, _):
    server = stub.start(pause=.02)
    page.open(server.url)
    scan(page, "shop.example.held", "1-")
    page.until("/^[67]\\d\\u00a0% · shop/.test(document.title)")
    server.released.set()
    says(page, "Done: 20 of 65,535")
    assert page.eval("document.title").replace("\xa0", " ") == "20 open · shop.example.held · openports"
    facts = page.text("facts").replace("\xa0", " ")
    assert "SYN scan" in facts and "1.3 % loss" in facts, facts
    scan(page, "quiet.example", "1-1024")
    says(page, "Done: 0 of 1,024")
    assert page.text("found") == "No open ports" and "nothing listens there" in page.text("none")
    assert "scan" not in page.text("facts") and "loss" not in page.text("facts"), page.text("facts")
    server.shutdown()


def a_target_of_253_characters_fits(page, _):
    server, target = stub.start(), ".".join(["a" * 61] * 4) + ".tests"
    assert len(target) == 253
    for width in (360, 1440):
        page.look(width, 800)
        page.open(server.url)
        scan(page, target, "1-")
        says(page, "Done")
        assert page.eval("document.documentElement.scrollWidth <= innerWidth")
        # The line ends with an ellipsis, and the address precedes it.
        assert page.text("about").startswith("of 65,535 on 192.0.2.7 · aaa"), page.text("about")
    name = page.eval("""(() => { let name; HTMLAnchorElement.prototype.click = function () { name = this.download }
        document.querySelector('[aria-label="Save CSV"]').click(); return name })()""")
    assert name.startswith("openports-aaa") and name.endswith(".csv") and len(name) < 255, name
    server.shutdown()


def a_preset_fills_in_the_ports(page, service):
    page.open(service.url)
    for name, ports in (("Web", "80,443,3000,5000,8000,8080,8443,8888"), ("Top 100", "top:100"), ("1–1024", "1-1024"), ("All", "1-")):
        page.eval(f"[...document.querySelectorAll('#presets button')].find((button) => button.textContent === {json.dumps(name)}).click()")
        assert page.eval("ports.value") == ports
        assert page.eval("document.querySelector('[aria-pressed=true]').textContent") == name


def marks_are_whole_in_the_first_row_and_cells_two_pixels_wide(page, _):
    server = stub.start()
    # At 1009 pixels, which is 1024 less a scroll bar, the last label of the columns had no room.
    for width in (360, 768, 1009, 1024, 1440):
        page.look(width, 800, scale=3 if width == 360 else 1)
        page.open(server.url)
        scan(page, "shop.example", "1-")
        says(page, "Done")
        page.eval("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
        across, above, clipped = page.eval("""(() => {
            const { marks, map } = $, ratio = devicePixelRatio, x = LEFT * ratio + (80 % columns + .5) * cell
            const copy = new OffscreenCanvas(marks.width, marks.height).getContext('2d', { willReadFrequently: true })
            copy.drawImage(marks, 0, 0)
            return [map.getBoundingClientRect().width / columns, copy.getImageData(x, (TOP - 2) * ratio, 1, 1).data[3],
                copy.getImageData(marks.width - 1, 0, 1, (TOP - 6) * ratio).data.some(Boolean)] })()""")
        assert across >= 2 and above == 255, (width, across, above)
        assert not clipped, f"at {width} pixels a label ends at the edge"
    server.shutdown()


def a_list_keeps_its_states_when_the_window_changes(page, service):
    held, ports = listeners(2)
    page.open(service.url)
    scan(page, "127.0.0.1", f"1-9,{','.join(map(str, ports))}")
    says(page, "Done: 2 of 11")
    requested = {*range(1, 10), *ports}
    expect_map(page, requested, "closed", open=ports)
    page.look(500, 700)
    expect_map(page, requested, "closed", open=ports)
    del held


def no_example_in_an_input_is_cut(page, service):
    page.open(service.url)
    page.eval("document.getElementById('rest').open = true")
    for width in (360, 768, 1024, 1440):
        page.look(width, 800)
        cut = page.eval("""[...document.querySelectorAll('#form input')].filter((input) => {
            const { value } = input
            input.value = input.placeholder
            const isCut = input.scrollWidth > input.clientWidth
            input.value = value
            return isCut
        }).map(({placeholder}) => placeholder)""")
        assert not cut, (width, cut)


def a_hundred_scans_of_one_page_are_one(page, service):
    page.open(service.url)
    fill(page, HOST, "1000-1499", timeout="60s")
    page.eval("for (let times = 0; times < 100; times++) document.getElementById('scan').click()")
    says(page, "Scanning")
    service.until("scans_running", lambda count: count == 1)
    service.until("connects_in_flight", lambda count: count == 500)
    page.click("stop")
    service.until("scans_running", lambda count: count == 0)


def a_service_that_is_full_says_when_to_try_again(page, _):
    service = Service("--max-scans-per-client", "1")
    held = socket.create_connection(("127.0.0.1", service.port))
    held.sendall(f"GET /open-ports?domain={HOST}&ports=1000&timeout=60s HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    service.until("scans_running", lambda count: count == 1)
    page.open(service.url)
    scan(page, "127.0.0.1", "1-10")
    assert "Try again in 1 s." in alert(page), alert(page)
    held.close()
    service.close()


def a_page_of_another_origin_scans_nothing(page, service):
    link = f"{service.url}?domain=127.0.0.1&ports=1-10"
    foreign = f"""<a id=link href="{link}">x</a><iframe src="{link}"></iframe>
        <script>fetch('{service.url}open-ports?domain=127.0.0.1&ports=1-10', {{mode: 'no-cors'}}).then(() => document.title = 'answered')</script>"""

    class Foreign(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(foreign.encode())

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.2", 0), Foreign)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    before = [service.metric(f'scans_total{{technique="connect",result="{result}"}}') for result in ("complete", "cancelled")]
    page.open(f"http://127.0.0.2:{server.server_port}/")
    page.until("document.title === 'answered'")
    assert service.metric('requests_total{route="/open-ports",status="403"}') >= 1
    # The browser refuses the frame, and logs this as an error.
    assert page.faults and all("frame" in fault for fault in page.faults), page.faults
    page.faults.clear()
    page.load(lambda: page.eval("document.getElementById('link').click()"))
    page.until("domain.value === '127.0.0.1' && document.getElementById('service').textContent")
    assert before == [service.metric(f'scans_total{{technique="connect",result="{result}"}}') for result in ("complete", "cancelled")]
    page.requests.clear()
    server.shutdown()


def without_script_a_form_answers_with_text(page, service):
    page.call("Emulation.setScriptExecutionDisabled", value=True)
    page.open(service.url)
    root = page.call("DOM.getDocument")["root"]["nodeId"]

    def node(selector):
        return page.call("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]

    page.call("DOM.focus", nodeId=node("noscript input[name=domain]"))
    page.call("Input.insertText", text="127.0.0.1")
    page.load(lambda: page.key("Enter"))
    root = page.call("DOM.getDocument")["root"]["nodeId"]
    assert '"from_port":1,"to_port":1024' in page.call("DOM.getOuterHTML", nodeId=node("body"))["outerHTML"]


def the_result_can_be_copied(page, service):
    held, ports = listeners(3)
    browser.call("Browser.grantPermissions", permissions=["clipboardReadWrite", "clipboardSanitizedWrite"])
    page.call("Page.bringToFront")
    page.open(service.url)
    listed = ",".join(map(str, sorted(ports)))
    scan(page, "127.0.0.1", f"1-9,{listed}")
    says(page, "Done: 3 of 12")
    copied = {}
    for name in ("JSON", "CSV", "curl"):
        page.eval(f"document.querySelector(`[aria-label='Copy {name}']`).click()")
        copied[name] = page.eval("navigator.clipboard.readText()")
    assert json.loads(copied["JSON"])["open_ports"] == sorted(ports), copied
    lines = copied["CSV"].splitlines()
    assert lines[0] == "address,port,rtt_ms,service" and len(lines) == 4, lines
    assert {int(line.split(",")[1]) for line in lines[1:]} == ports, lines
    answer = subprocess.run(["bash", "-c", copied["curl"].replace("curl ", "curl -sS ")], capture_output=True, text=True)
    assert json.loads(answer.stdout)["open_ports"] == sorted(ports), (copied["curl"], answer)
    del held


def the_keyboard_reaches_everything(page, service):
    held, ports = listeners(2)
    page.open(service.url)
    assert page.eval("document.activeElement.id") == "domain"
    page.call("Input.insertText", text="127.0.0.1")
    page.key("Tab")
    page.call("Input.insertText", text="1-")
    page.key("Enter")
    says(page, "Done")
    order = []
    for _ in range(14):
        order.append(page.eval("document.activeElement.id || document.activeElement.textContent"))
        page.key("Tab")
    assert [name for name in order if name in ("ports", "Web", "All", "scan", "Options", "list", "JSON", "map")] == \
        ["ports", "Web", "All", "scan", "Options", "list", "JSON", "JSON", "map"], order
    page.eval("document.getElementById('map').focus()")
    width = page.eval("columns")

    def value():
        return page.eval("document.getElementById('map').ariaValueText").replace("\xa0", " ")

    for key, port in (("Home", 1), ("ArrowRight", 2), ("ArrowDown", 2 + width), ("ArrowLeft", 1 + width), ("ArrowUp", 1), ("End", 65535)):
        page.key(key)
        assert value().startswith(f"Port {port} · "), (key, value())
    found = sorted(ports | {service.port})
    page.key("Home")
    for port in [*found, found[0]]:
        page.key("n")
        assert value().startswith(f"Port {port} · open"), value()
    page.eval("document.getElementById('map').scrollIntoView({block: 'center'})")
    x, y, across, down = page.eval("(() => { const {x, y, width, height} = document.getElementById('map').getBoundingClientRect(); return [x, y, width, height] })()")
    page.press(x + across / 2, y + down / 2)
    port = int(re.match(r"Port.(\d+)", page.text("spot"))[1])
    assert page.eval("cursor") == port
    assert abs(port - 32768) < 2 * width, port
    del held


def the_live_region_does_not_flood(page, service):
    page.open(service.url)
    page.eval("window.changes = 0; new MutationObserver(() => changes++).observe(say_, { childList: true })"
              .replace("say_", "document.getElementById('say')"))
    scan(page, HOST, "1-200", timeout="3s")
    says(page, "Done")
    assert page.eval("changes") <= 4, page.eval("changes")


def a_hidden_tab_sends_no_requests(page, service):
    page.open(service.url)
    page.until("document.getElementById('service').textContent")
    page.eval("Object.defineProperty(document, 'hidden', { value: true, configurable: true })")
    page.eval("new Promise((done) => setTimeout(done, 2300))")
    before = len(page.requests)
    page.eval("new Promise((done) => setTimeout(done, 2300))")
    assert len(page.requests) == before, page.requests
    page.eval("Object.defineProperty(document, 'hidden', { value: false }); document.dispatchEvent(new Event('visibilitychange'))")
    page.until("true")
    end = time.monotonic() + DEADLINE
    while len(page.requests) == before:
        assert browser.next(end) is not None, "the visible tab sends no request"


def axe_finds_nothing(page, service):
    for width, height, scheme in ((1440, 900, "light"), (1024, 768, "dark"), (768, 1024, "light"), (360, 780, "light"), (360, 780, "dark")):
        page.look(width, height, scheme, mobile=width < 500)
        page.open(service.url)
        page.until("document.getElementById('service').textContent")
        page.eval(AXE + "; 0")
        examine(page, f"{width} {scheme} idle")
        scan(page, "127.0.0.1", "1-x", timeout="3")
        page.until("ports.ariaInvalid === 'true'")
        examine(page, f"{width} {scheme} refused")
        scan(page, HOST, "1-300", timeout="30s")
        page.until("document.querySelectorAll('#rows tr').length")
        examine(page, f"{width} {scheme} running")
        page.click("stop")
        scan(page, HOST, "1-300", timeout="200ms")
        says(page, "Done")
        examine(page, f"{width} {scheme} done")
        scan(page, "127.0.0.1", "1-100")
        says(page, "Done: 0 of 100")
        examine(page, f"{width} {scheme} few")
        page.eval("document.getElementById('ask').hidden = false")
        examine(page, f"{width} {scheme} token")
        assert page.eval("document.documentElement.scrollWidth <= innerWidth"), f"{width} scrolls sideways"


def examine(page, where):
    found = page.eval("axe.run().then(({violations}) => violations.map(({id, nodes}) => `${id}: ${nodes.map((node) => node.html + node.failureSummary)}`))")
    assert not found, f"{where}: {found}"


# The matrices of Machado, Oliveira and Fernandes 2009, for linear colours: normal sight,
# protanopia, deuteranopia and tritanopia.
SIGHTS = [[[1, 0, 0], [0, 1, 0], [0, 0, 1]],
          [[.152286, 1.052583, -.204868], [.114503, .786281, .099216], [-.003882, -.048116, 1.051998]],
          [[.367322, .860646, -.227968], [.280085, .672501, .047413], [-.01182, .04294, .968881]],
          [[1.255528, -.076749, -.178779], [-.078411, .930809, .147602], [.004733, .691367, .3039]]]


def lab_colour(rgb, sight):
    linear = [(value / 255 / 12.92 if value <= 10 else ((value / 255 + .055) / 1.055) ** 2.4) for value in rgb]
    red, green, blue = (min(1, max(0, sum(factor * part for factor, part in zip(row, linear)))) for row in sight)
    tristimulus = ((.4124 * red + .3576 * green + .1805 * blue) / .9505, .2126 * red + .7152 * green + .0722 * blue,
                   (.0193 * red + .1192 * green + .9505 * blue) / 1.089)
    x, y, z = (t ** (1 / 3) if t > .008856 else 7.787 * t + 16 / 116 for t in tristimulus)
    return 116 * y - 16, 500 * (x - y), 200 * (y - z)


def colour_blind_people_tell_the_states_apart(page, service):
    for scheme in ("light", "dark"):
        page.look(1280, 900, scheme)
        page.open(service.url)
        colours = page.eval("[...document.querySelectorAll('#legend i')].map((swatch) => getComputedStyle(swatch).backgroundColor.match(/\\d+/g).map(Number))")
        assert len(colours) == 5
        for sight in SIGHTS:
            for one, other in itertools.combinations(colours, 2):
                apart = sum((a - b) ** 2 for a, b in zip(lab_colour(one, sight), lab_colour(other, sight))) ** .5
                assert apart > 20, f"{scheme}: {one} and {other} are {apart:.0f} apart"


def every_port_leaves_no_long_task(page, service):
    """The processor time of each task counts, which other programs on the machine do not change."""
    page.open(service.url)
    fill(page, os.environ.get("PAGE_SWEEP", "127.0.0.1"), "1-")
    tasks = []
    page.call("Tracing.start", transferMode="ReportEvents", traceConfig={"includedCategories": ["toplevel", "devtools.timeline"]})
    page.click("scan")
    # The lab, the service and the browser share the processors, so the scan may take a long time.
    says(page, "Done", 5 * DEADLINE)
    page.until("document.querySelectorAll('#rows tr').length >= Math.min(1000, run.found.length)")
    end = time.monotonic() + 5 * DEADLINE
    original = page.handle_event
    state = {"over": False}

    def handle_event(method, params):
        if method == "Tracing.dataCollected":
            tasks.extend(params["value"])
        state["over"] |= method == "Tracing.tracingComplete"
        original(method, params)

    page.handle_event = handle_event
    page.call("Tracing.end")
    while not state["over"]:
        assert browser.next(end) is not None
    main = {event["tid"] for event in tasks if event.get("name") == "thread_name" and event["args"]["name"] == "CrRendererMain"}
    page_pid = page.eval("0") or None
    times = sorted((event["tdur"] / 1000, event["dur"] / 1000) for event in tasks
                   if event["name"].endswith("RunTask") and event["tid"] in main and "tdur" in event)
    assert len(times) > 20, f"{len(times)} tasks seen, {page_pid}"
    print(f"   {page.text('say')} the longest of {len(times)} tasks: {times[-1][0]:.1f} ms of the processor; "
          f"by the clock {max(wall for _, wall in times):.1f} ms")
    assert times[-1][0] < TASK_MS_MAX, times[-5:]


CASES = [case for name, case in list(globals().items()) if callable(case) and getattr(case, "__code__", None)
         and case.__code__.co_varnames[:2] in (("page", "service"), ("page", "_")) and case.__code__.co_argcount == 2]


def run(case, service):
    page, began = browser.page(), time.monotonic()
    try:
        case(page, service)
        for tab in browser.pages.values():
            assert not tab.faults, tab.faults
            strange = [url for url in tab.requests if not re.match(r"(http://127\.0\.0\.1:\d+/|about:|data:)", url)]
            assert not strange, f"requests to other hosts: {strange}"
        print(f"ok {case.__name__} ({time.monotonic() - began:.1f} s)")
        return True
    except Exception as error:  # noqa: BLE001, the other cases run after any error
        print(f"FAILED {case.__name__}: {type(error).__name__} {error}")
        return False
    finally:
        for tab in list(browser.pages.values()):
            browser.call("Target.closeTarget", targetId=tab.target)
        browser.pages.clear()


def main():
    service = Service()
    wanted = sys.argv[3:]
    cases = [case for case in CASES if not wanted or any(word in case.__name__ for word in wanted)]
    try:
        results = [run(case, service) for case in cases]
    finally:
        browser.close()
        service.close()
    print(f"test result: {sum(results)} passed; {results.count(False)} failed")
    return 0 if all(results) and results else 1


if __name__ == "__main__":
    sys.exit(main())
