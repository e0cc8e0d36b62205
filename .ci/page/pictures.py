"""Makes the pictures of docs/page: a running scan in light and dark colours, and on a phone.

Usage: pictures.py BINARY AXE FOLDER, in a lab whose host loses packets, so that the pictures have
every colour of a long scan. The name of the host is shop.example.
"""

import os
import sys
import tempfile

import check


def main():
    folder = sys.argv[3]
    with tempfile.NamedTemporaryFile("w", delete=False) as hosts:
        hosts.write(f"{check.HOST} shop.example\n")
    service = check.Service("--hosts", hosts.name)
    page = check.browser.page(width=1180, height=930)
    try:
        page.open(service.url)
        check.scan(page, "shop.example", "1-", timeout="500ms", retries="0", rate="9000")
        page.eval("document.getElementById('rest').open = false; document.activeElement.blur(); go(443); scrollTo(0, 0)")
        page.until("document.getElementById('bar').ariaValueNow > 62", 60)
        for scheme in ("light", "dark"):
            page.look(1180, 930, scheme)
            page.eval("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
            page.picture(f"{folder}/{scheme}.png")
        check.says(page, "Done")
        page.look(390, 844, "light", mobile=True)
        page.eval("scrollTo(0, 0), new Promise((done) => setTimeout(done, 300))")
        page.picture(f"{folder}/phone.png")
    finally:
        check.browser.close()
        service.close()
        os.unlink(hosts.name)


if __name__ == "__main__":
    main()
