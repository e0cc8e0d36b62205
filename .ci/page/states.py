"""Makes a picture of every state of the page, for a visual check. Usage: states.py FOLDER [WORD…]

The answers come from stub.py, so two runs differ only in the behaviour of the page. It fails if an
element moves while a scan runs, or if the page is wider than its window. A WORD selects a state in
light colours, or one picture, such as done-360-dark.
"""

import os
import sys
from concurrent.futures import ThreadPoolExecutor

import stub
from browser import Browser

SIZES = {"360": (360, 780, True), "768": (768, 1024, False), "1024": (1024, 768, False), "1440": (1440, 900, False)}
DONE = "document.getElementById('say').textContent.startsWith('Done') || document.getElementById('say').textContent.startsWith('Cut')"
HALF = "bar.ariaValueNow >= 60"
PROBLEM = "!document.getElementById('problem').hidden || !!document.querySelector('[aria-invalid=true]') || !ask.hidden"
LONG = ".".join(["a" * 61] * 4) + ".tests"
# Name, target, ports, and the condition for the picture.
STATES = [("idle", None, None, "true"), ("running", "shop.example.held", "1-", HALF), ("done", "shop.example", "1-", DONE),
          ("range", "late.example", "1-1024", DONE), ("few", "shop.example", "80,443,3000,5000,8000,8008,8080,8443,8888,9443", DONE),
          ("none", "silent.example", "1-1024", DONE), ("refusing", "quiet.example", "top:100", DONE),
          ("unreachable", "gone.example", "1-1024", DONE), ("all", "wide.example", "1-", DONE),
          ("drained", "drains.example", "1-", DONE), ("broken", "breaks.example", "1-", PROBLEM),
          ("waiting", "hangs.example", "1-", "document.getElementById('facts').textContent.startsWith('Waiting')"), ("html", "html502.example", "1-", PROBLEM),
          ("denied", "denied.example", "80", PROBLEM), ("busy", "full.example", "1-", PROBLEM), ("wrong", "wrong.example", "9-x", PROBLEM),
          ("token", "token.example", "1-", PROBLEM), ("long", LONG, "1-", DONE)]


def fill(page, target, ports):
    for name, value in (("domain", target), ("ports", ports)):
        page.fill(name, value)


def see(page, name, target, ports, when, folder):
    server = stub.start(pause=.03)
    page.open(server.url)
    page.eval("window.moved = []; new PerformanceObserver((list) => moved.push(...list.getEntries().filter((entry) => !entry.hadRecentInput)"
              ".map(({value, startTime, sources}) => `${value} ${startTime | 0} ${sources.map(({node, previousRect: from, currentRect: to}) => `${node?.id || node?.nodeName} ${from.x},${from.y} to ${to.x},${to.y}`)}`))).observe({type: 'layout-shift'}); 0")
    if name in ("wrong", "busy", "denied"):
        # The result of an earlier scan remains visible.
        fill(page, "shop.example", "1-")
        page.click("scan")
        page.until(DONE)
    edge = "document.getElementById('scan').getBoundingClientRect().right"
    before = page.eval(edge)
    if target:
        fill(page, target, ports)
        page.click("scan")
    page.until(when)
    page.eval("document.activeElement.blur(), scrollTo(0, 0), new Promise(requestAnimationFrame)")
    page.eval("new Promise((done) => setTimeout(done, 300))")
    # A message appears after the scan, and may move the elements below it.
    moved = [] if name in ("wrong", "busy", "denied", "token", "html", "broken") else page.eval("moved")
    is_wide = page.eval("document.documentElement.scrollWidth > innerWidth")
    aside = page.eval(edge) - before
    page.picture(f"{folder}/{name}.png")
    server.released.set()
    server.shutdown()
    assert not moved and not is_wide, f"{folder}/{name}: moved {moved}, wider than the window: {is_wide}"
    # The scroll bar that appears with the answer must not move the form.
    assert not aside, f"{folder}/{name}: the button has moved {aside} pixels aside"


def photograph(size, scheme, words, folder):
    """Makes the pictures of one size and colour scheme with its own browser."""
    width, height, mobile = SIZES[size]
    into = f"{folder}/{size}-{scheme}"
    os.makedirs(into, exist_ok=True)
    browser = Browser(scrollbars=True)
    try:
        page = browser.page()
        page.look(width, height, scheme, mobile, 3 if mobile else 1)
        for state in STATES:
            if not words or f"{state[0]}-{size}-{scheme}" in words or state[0] in words and scheme == "light":
                see(page, *state, into)
        assert not page.faults, page.faults
    finally:
        browser.close()


def main():
    folder, words = sys.argv[1], sys.argv[2:]
    looks = [(size, scheme) for size in SIZES for scheme in ("light", "dark")
             if words or scheme == "light" or size not in ("768", "1024")]
    # Two browsers run at a time, one for each processor.
    with ThreadPoolExecutor(2) as pool:
        for done in [pool.submit(photograph, *look, words, folder) for look in looks]:
            done.result()
    print(f"test result: {sum(len(files) for _, _, files in os.walk(folder))} passed; the pictures are in {folder}")


if __name__ == "__main__":
    main()
