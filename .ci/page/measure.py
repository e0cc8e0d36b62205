"""Measures the first paint of the page, and how much the page slows a scan down. Checks no limits.

Usage: PAGE_MEASURE=1 .ci/page/check.sh BINARY AXE
"""

import json
import statistics
import subprocess

import check

ROUNDS = 11
QUERY = "open-ports?domain=127.0.0.1&ports=1-"
PAINTED = "performance.getEntriesByName('first-contentful-paint')[0]?.startTime"


def spread(times):
    return f"median {statistics.median(times):.0f} ms, {min(times):.0f} to {max(times):.0f}"


def paint(page, url):
    times = []
    for _ in range(ROUNDS):
        page.open(url)
        times.append(page.until(PAINTED))
    return spread(times)


def by_curl(url):
    answer = subprocess.run(["curl", "-s", url + QUERY], capture_output=True, text=True, check=True)
    return json.loads(answer.stdout)["elapsed_ms"]


def by_page(page):
    check.scan(page, "127.0.0.1", "1-")
    check.says(page, "Done")
    return page.eval("run.summary.elapsed_ms")


service, page = check.Service(), check.browser.page()
print("first paint:", paint(page, service.url))
print("first paint of /healthz, two letters:", paint(page, service.url + "healthz"))
page.open(service.url)
curl, seen = [], []
for _ in range(ROUNDS):
    curl.append(by_curl(service.url))
    seen.append(by_page(page))
print("65,535 ports of loopback, curl:", spread(curl))
print("65,535 ports of loopback, page:", spread(seen))
print(f"ratio of the medians: {statistics.median(seen) / statistics.median(curl):.2f}")
check.browser.close()
service.close()
