#!/usr/bin/env python3
"""Checks the dashboard and the alerts. Usage: check.py METRICS PROBE

The two files are the pages of /metrics and of /probe of a service that has scanned. Every metric
and label that a query names must exist, and so must the values of the labels whose values are words
of the service. Prints nothing if there is no fault. `check.py --self-test METRICS PROBE` introduces
each fault once, and fails if it is not detected. `check.py --queries` prints the tests of the
dashboard's queries for `promtool test rules`.
"""

import copy, json, pathlib, re, sys
import yaml

root = pathlib.Path(__file__).resolve().parents[2] / "manifests"
# The labels that Prometheus and its discovery add, and the only metric of Prometheus itself.
SCRAPED = {"le", "namespace", "pod", "job", "instance"}
OWN = {"up"}
WORD = r"\b(?:openports|process|probe)_\w+"


class Pages:
    """The metrics that exist, each with its labels and their values."""

    def __init__(self, text):
        self.names = set(re.findall(r"^# TYPE (\w+)", text, re.M)) | OWN
        self.labels = {}
        for name, words in re.findall(r"^(\w+)\{(.*)\} ", text, re.M):
            name = re.sub("_bucket$", "", name) if name not in self.names else name
            for label, value in re.findall(r'(\w+)="([^"]*)"', words):
                self.labels.setdefault(name, {}).setdefault(label, set()).add(value)

    def faults(self, query):
        """Yields a fault for each name in the query that does not exist."""
        found = re.findall(r"\b((?:openports|process|probe)_\w+)(?:\{([^}]*)\})?", query)
        groups = ",".join(re.findall(r"by \(([^)]*)\)", query)).replace(" ", "").split(",")
        known = set(SCRAPED)
        for name, matchers in found:
            base = name if name in self.names else re.sub("_(bucket|sum|count)$", "", name)
            if base not in self.names:
                yield f"there is no metric {name}"
            known |= set(self.labels.get(base, {}))
            for label, equals, value in re.findall(r'(\w+)(=~?)"([^"]*)"', matchers):
                values = self.labels.get(base, {}).get(label)
                if values is None and label not in SCRAPED:
                    yield f"{name} has no label {label}"
                elif label in {"route", "state", "technique"}:
                    for word in set(value.split("|")) - values:
                        yield f"{name} has no {label} {word}"
        if not found and not re.search(r"\bup\{", query):
            yield "it names no metric"
        for label in set(groups) - {""} - known:
            yield f"no metric here has the label {label}"


def panels(dashboard):
    return [panel for panel in dashboard["panels"] if panel["type"] != "row"]


def dashboard_faults(dashboard, pages):
    variables = {it["name"]: it for it in dashboard["templating"]["list"]}
    for name in {"datasource", "namespace", "job"} - set(variables):
        yield f"there is no variable {name}"
    for variable in variables.values():
        if variable["type"] == "query":
            for fault in pages.faults(variable["definition"]):
                yield f"variable {variable['name']}: {fault}"
    ids, used = set(), set()
    for panel in dashboard["panels"]:
        if panel["id"] in ids:
            yield f"two panels have the id {panel['id']}"
        ids.add(panel["id"])
    for panel in panels(dashboard):
        title = panel["title"]
        if not panel.get("description", "").endswith("."):
            yield f"{title}: it has no description"
        if "noValue" not in panel["fieldConfig"]["defaults"]:
            yield f"{title}: say what it shows without data"
        for target in panel["targets"]:
            query = target["expr"]
            used |= set(re.findall(WORD, query))
            for fault in pages.faults(query):
                yield f"{title}: {fault}: {query}"
            for matchers in re.findall(WORD + r"(?:\{([^}]*)\})?", query):
                if 'namespace=~"$namespace"' not in matchers or "job" not in matchers:
                    yield f"{title}: it ignores the variables: {query}"
            for label in re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]):
                by = re.findall(r"by \(([^)]*)\)", query)
                if by and label not in by[0]:
                    yield f"{title}: the legend names {label}, which the query drops"
    for name in ("probe_success", "openports_scan_loss_ratio_sum"):
        if name not in used:
            yield f"no panel shows {name}"


def rules_faults(plain, operator, tests, pages):
    if plain["groups"] != operator["spec"]["groups"]:
        yield "prometheusrule.yaml and rules.yaml differ"
    cases = [case for test in tests["tests"] for case in test["alert_rule_test"]]
    for alert in (rule for group in plain["groups"] for rule in group["rules"]):
        name = alert["alert"]
        for fault in pages.faults(alert["expr"]):
            yield f"{name}: {fault}: {alert['expr']}"
        for word in re.findall(WORD, " ".join(alert["annotations"].values())):
            if word not in pages.names:
                yield f"{name}: its text names {word}, which is no metric"
        if not {"summary", "description"} <= set(alert["annotations"]):
            yield f"{name}: it has no summary or no description"
        for fires in (True, False):
            if not any(case["alertname"] == name and bool(case["exp_alerts"]) == fires
                       for case in cases):
                yield f"{name}: no test has it {'fire' if fires else 'not fire'}"
    page = (root.parent / "docs/operations.md").read_text()
    for word in set(re.findall(WORD, page)):
        if word not in pages.names and re.sub("_(bucket|sum|count)$", "", word) not in pages.names:
            yield f"docs/operations.md names {word}, which is no metric"
    named = set(re.findall(r"^\| `(Openports\w+)`", page, re.M))
    exist = {rule["alert"] for group in plain["groups"] for rule in group["rules"]}
    for name in named ^ exist:
        yield f"{name} is not both an alert and in docs/operations.md"


def load():
    dashboard = json.loads((root / "overlays/monitoring/openports.json").read_text())
    read = lambda path: yaml.safe_load((root / path).read_text())
    return dashboard, read("prometheus/rules.yaml"), read(
        "overlays/monitoring/prometheusrule.yaml"), read("../.ci/monitoring/rules.test.yaml")


def faults(text, dashboard, plain, operator, tests):
    pages = Pages(text)
    yield from dashboard_faults(dashboard, pages)
    yield from rules_faults(plain, operator, tests, pages)


def self_test(text, parts):
    """Renames each metric that a query names once, and introduces each other fault once."""
    everything = json.dumps(parts)
    names = set(re.findall(r"\b(?:openports|process|probe)_\w+?(?=(?:_bucket|_sum|_count)?\b)",
                           everything)) & Pages(text).names
    assert len(names) > 25, names
    for name in sorted(names):
        renamed = re.sub(rf"\b{name}(?=(_bucket|_sum|_count)?\b)", name + "_renamed", text)
        assert list(faults(renamed, *parts)), f"the new name of {name} is not detected"
    dashboard, plain, operator, tests = parts
    def changed(part, change):
        part = copy.deepcopy(part)
        change(part)
        return part
    first = lambda board: panels(board)[0]
    for broken in [
        (changed(dashboard, lambda it: first(it).pop("description")), plain, operator, tests),
        (changed(dashboard, lambda it: first(it)["fieldConfig"]["defaults"].pop("noValue")),
         plain, operator, tests),
        (changed(dashboard, lambda it: it["templating"]["list"].pop()), plain, operator, tests),
        (changed(dashboard, lambda it: first(it)["targets"][0].update(
            expr="sum(openports_scans_running)")), plain, operator, tests),
        (dashboard, changed(plain, lambda it: it["groups"][0]["rules"].pop()), operator, tests),
        (dashboard, plain, operator, changed(tests, lambda it: it["tests"].pop())),
        (dashboard, plain, operator, changed(tests, lambda it: it["tests"].pop(0))),
    ]:
        assert list(faults(text, *broken)), "a fault is not detected"


def query_tests(dashboard):
    """Returns the tests of the queries. Without any series no query has a value, so each panel shows
    its text for that. A figure of a service without requests has none either, because Grafana would
    show NaN, and the figures of faults are 0 if all is well."""
    def query(text):
        for name, value in {"$namespace": ".*", "$job": ".*", "$__rate_interval": "5m"}.items():
            text = text.replace(name, value)
        return text
    figures = {panel["title"]: query(panel["targets"][0]["expr"])
               for panel in panels(dashboard) if panel["type"] == "stat"}
    queries = [query(target["expr"]) for panel in panels(dashboard) for target in panel["targets"]]
    faults = [figures[title] for title in ("Scans refused", "Packets lost", "Probes that fail")]
    requests = 'openports_requests_total{route="/open-ports",status="200"}'
    loss = "openports_scan_loss_ratio"
    zero = [{"labels": "{}", "value": 0}]
    def test(name, series, cases):
        return {"name": name, "interval": "1m",
                "input_series": [{"series": it, "values": values} for it, values in series.items()],
                "promql_expr_test": [{"expr": it, "eval_time": "20m", "exp_samples": samples}
                                     for it, samples in cases]}
    return {"evaluation_interval": "1m", "tests": [
        test("no data", {}, [(it, []) for it in queries]),
        test("no requests", {requests: "7x30", f"{loss}_sum": "0x30", f"{loss}_count": "3x30"},
             [(it, []) for it in faults]),
        test("no faults", {requests: "0+6x30", f"{loss}_sum": "0x30", f"{loss}_count": "0+6x30",
                           'probe_success{job="openports-probe"}': "1x30"},
             [(it, zero) for it in faults]),
    ]}


if "--queries" in sys.argv:
    print(json.dumps(query_tests(load()[0])))
    sys.exit()
arguments = [it for it in sys.argv[1:] if it != "--self-test"]
text = "\n".join(pathlib.Path(path).read_text() for path in arguments)
parts = load()
if "--self-test" in sys.argv:
    self_test(text, parts)
elif found := list(faults(text, *parts)):
    sys.exit("\n".join(found))
