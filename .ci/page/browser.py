"""Controls Debian's chromium over a pipe with the DevTools protocol. No package is needed.

A message is JSON and a zero byte. The browser reads commands from descriptor 3, and writes answers
and events to descriptor 4 (--remote-debugging-pipe). A wait is a loop with a deadline, not a sleep.
"""

import base64
import json
import os
import select
import shutil
import subprocess
import tempfile
import time

DEADLINE = 20.0
KEYS = {"ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40, "Home": 36, "End": 35,
        "PageUp": 33, "PageDown": 34, "Enter": 13, "Tab": 9}


class Browser:
    """A chromium with its own profile."""

    def __init__(self, binary="chromium", scrollbars=False):
        self.profile = tempfile.mkdtemp(prefix="page-")
        self.pages, self.last, self.rest = {}, 0, b""
        to_read, self.to = os.pipe()
        self.come, to_write = os.pipe()
        flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--mute-audio",
                 "--no-first-run", "--disable-background-networking", "--disable-component-update",
                 "--disable-features=Translate,OptimizationHints,MediaRouter", "--disable-sync",
                 "--disable-dev-shm-usage", "--force-color-profile=srgb", "--no-proxy-server",
                 "--remote-debugging-pipe", f"--user-data-dir={self.profile}"]
        flags += [] if scrollbars else ["--hide-scrollbars"]
        # A shell duplicates the ends of the pipes to descriptors 3 and 4, and executes chromium.
        line = f'exec "$0" "$@" 3<&{to_read} 4>&{to_write}'
        self.process = subprocess.Popen(["bash", "-c", line, binary, *flags], stderr=subprocess.DEVNULL,
                                        stdout=subprocess.DEVNULL, pass_fds=(to_read, to_write))
        os.close(to_read)
        os.close(to_write)

    def call(self, method, session=None, **params):
        self.last += 1
        number = self.last
        message = {"id": number, "method": method, "params": params}
        if session:
            message["sessionId"] = session
        os.write(self.to, json.dumps(message).encode() + b"\0")
        end = time.monotonic() + DEADLINE
        while True:
            answer = self.next(end)
            if answer is None:
                raise TimeoutError(f"{method} was not answered")
            if answer.get("id") == number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                return answer["result"]

    def next(self, end):
        """Returns the next message, or None at the deadline. Passes an event to its page."""
        while b"\0" not in self.rest:
            left = end - time.monotonic()
            if left <= 0 or not select.select([self.come], [], [], left)[0]:
                return None
            data = os.read(self.come, 1 << 16)
            if not data:
                raise RuntimeError("the browser is gone")
            self.rest += data
        line, _, self.rest = self.rest.partition(b"\0")
        message = json.loads(line)
        page = self.pages.get(message.get("sessionId"))
        if page and "method" in message:
            page.handle_event(message["method"], message["params"])
        return message

    def page(self, context=None, **options):
        where = {"browserContextId": context} if context else {}
        target = self.call("Target.createTarget", url="about:blank", **where)["targetId"]
        return self.attach(target, **options)

    def attach(self, target, **options):
        session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        page = self.pages[session] = Page(self, session, target)
        page.prepare(**options)
        return page

    def close(self):
        self.process.terminate()
        self.process.wait()
        shutil.rmtree(self.profile, ignore_errors=True)


class Page:
    """A tab. It collects its errors in `faults`, and the requested URLs in `requests`."""

    def __init__(self, browser, session, target):
        self.browser, self.session, self.target = browser, session, target
        self.faults, self.requests, self.failed, self.loaded = [], [], [], 0

    def prepare(self, width=1280, height=900, scheme="light", mobile=False, script=True):
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")
        self.look(width, height, scheme, mobile)
        if not script:
            self.call("Emulation.setScriptExecutionDisabled", value=True)

    def look(self, width, height, scheme="light", mobile=False, scale=1):
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height,
                  deviceScaleFactor=scale, mobile=mobile)
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme},
                                                          {"name": "prefers-reduced-motion", "value": "reduce"}])

    def call(self, method, **params):
        return self.browser.call(method, self.session, **params)

    def handle_event(self, method, params):
        if method == "Runtime.exceptionThrown":
            details = params["exceptionDetails"]
            self.faults.append(details.get("exception", {}).get("description", details["text"]))
        elif method == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning", "assert"):
            self.faults.append(f"console: {params['args']}")
        elif method == "Log.entryAdded":
            entry = params["entry"]
            # Some cases expect a status of 400 or above, which browsers log as an error.
            kept = self.failed if entry["source"] == "network" else self.faults
            if entry["level"] in ("error", "warning"):
                kept.append(f"{entry['source']}: {entry['text']} {entry.get('url', '')}")
        elif method == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])
        elif method == "Page.loadEventFired":
            self.loaded += 1

    def eval(self, expression):
        result = self.call("Runtime.evaluate", expression=expression, awaitPromise=True,
                           returnByValue=True, userGesture=True)
        if "exceptionDetails" in result:
            raise RuntimeError(f"{expression}: {result['exceptionDetails']}")
        return result["result"].get("value")

    def until(self, expression, seconds=DEADLINE):
        """Waits until the expression is true. An error contains it and the text of the page."""
        end = time.monotonic() + seconds
        while True:
            value = self.eval(expression)
            if value:
                return value
            if time.monotonic() > end:
                raise AssertionError(f"never true: {expression}\n{self.eval('document.body.innerText')}")
            self.browser.next(time.monotonic() + 0.03)

    def load(self, act):
        """Calls `act`, and waits until the page that it causes is loaded."""
        before, end = self.loaded, time.monotonic() + DEADLINE
        act()
        while self.loaded == before:
            if self.browser.next(end) is None:
                raise TimeoutError("the page did not load")
        return self

    def open(self, url):
        return self.load(lambda: self.call("Page.navigate", url=url))

    def reload(self):
        return self.load(lambda: self.call("Page.reload"))

    def key(self, key):
        text = {} if len(key) > 1 else {"text": key}
        code = KEYS.get(key, ord(key[0].upper()))
        self.call("Input.dispatchKeyEvent", type="keyDown", key=key, windowsVirtualKeyCode=code,
                  **(text or ({"text": "\r"} if key == "Enter" else {})))
        self.call("Input.dispatchKeyEvent", type="keyUp", key=key, windowsVirtualKeyCode=code)

    def fill(self, field, text):
        """Types the text, as a user would."""
        self.eval(f"(() => {{ const field = document.getElementById('{field}'); field.focus(); field.select() }})()")
        self.call("Input.insertText", text=text)

    def click(self, field):
        box = self.eval(f"(() => {{ const at = document.getElementById('{field}'); at.scrollIntoView({{block: 'center'}});"
                        " const {x, y, width, height} = at.getBoundingClientRect(); return [x + width / 2, y + height / 2] })()")
        self.press(*box)

    def press(self, x, y):
        for kind in ("mouseMoved", "mousePressed", "mouseReleased"):
            button = {} if kind == "mouseMoved" else {"button": "left", "clickCount": 1}
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, **button)

    def text(self, field):
        return self.eval(f"document.getElementById('{field}').textContent")

    def picture(self, path):
        data = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=False)["data"]
        with open(path, "wb") as file:
            file.write(base64.b64decode(data))
