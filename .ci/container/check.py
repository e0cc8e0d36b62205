#!/usr/bin/env python3
"""Checks the rendered manifests. Usage: check.py DIRECTORY

The directory contains base.yaml, sidecar.yaml and the others as kustomize renders them; first.yaml,
second.yaml and own-*.yaml, which are the kustomizations of docs/kubernetes.md; changed.yaml, which
is the base with another setting; and serve.help and scan.help, which the image has printed. The
pods that podman runs are written to play-*.yaml.
"""

import copy, json, os, pathlib, re, sys
import kubernetes_validate
import yaml

MINORS = ["1.37", "1.36", "1.35"]  # the current version and the two before it
CUSTOM = {"ServiceMonitor", "PrometheusRule"}  # promtool and the code below check these
here = pathlib.Path(sys.argv[1])
read = lambda name: (here / name).read_text()
documents = {name: list(yaml.safe_load_all(read(name + ".yaml")))
             for name in ("base", "sidecar", "sidecar-unix", "monitoring", "sweep", "first",
                          "second", "own-pod", "own-sweep", "own-syn")}
seconds = lambda text: int(re.fullmatch(r"(\d+)s", text)[1])


def one(name, kind):
    found = [document for document in documents[name] if document["kind"] == kind]
    assert len(found) == 1, f"{name}: {len(found)} of {kind}"
    return found[0]


def config_maps(name):
    return {it["metadata"]["name"]: it for it in documents[name] if it["kind"] == "ConfigMap"}


def ours(spec):
    containers = spec.get("initContainers", []) + spec["containers"]
    return next(it for it in containers if it["name"] == "openports")


def environment(name, container):
    """The variables of the container. A ConfigMap that it names must be rendered."""
    variables = {it["name"]: it["value"] for it in container.get("env", [])}
    for source in container.get("envFrom", []):
        variables |= config_maps(name)[source["configMapRef"]["name"]]["data"]
    return variables


def check_schemas():
    for name, group in documents.items():
        for document in group:
            if document["kind"] in CUSTOM:
                continue
            for minor in MINORS:
                kubernetes_validate.validate(document, minor, strict=True)


# The fields of pods and of containers for which the Pod Security levels "baseline" and "restricted"
# permit only the default. We set none of them, nor the fields that share a namespace of the host.
FOREIGN = {"appArmorProfile", "procMount", "privileged", "seLinuxOptions", "sysctls",
           "windowsOptions"}
HOST = {"hostIPC", "hostNetwork", "hostPID", "hostUsers", "shareProcessNamespace"}
VOLUMES = {"name", "configMap", "secret", "emptyDir", "projected", "persistentVolumeClaim"}
HANDLERS = ("livenessProbe", "readinessProbe", "startupProbe")


def check_restricted(template):
    """Checks the rules of the Pod Security level "restricted", and further rules of our own."""
    spec = template["spec"]
    pod = spec["securityContext"]
    assert pod["runAsNonRoot"] is True
    assert pod["seccompProfile"] == {"type": "RuntimeDefault"}
    assert not FOREIGN & set(pod) and not HOST & set(spec)
    assert not any("apparmor" in it for it in template["metadata"].get("annotations", {}))
    assert spec["automountServiceAccountToken"] is False
    assert spec["enableServiceLinks"] is False
    assert "ephemeralContainers" not in spec
    for volume in spec.get("volumes", []):
        assert set(volume) <= VOLUMES, volume
    for container in spec.get("initContainers", []) + spec["containers"]:
        context = container["securityContext"]
        assert context["allowPrivilegeEscalation"] is False
        assert context["capabilities"] == {"drop": ["ALL"]}
        assert context["readOnlyRootFilesystem"] is True
        assert pod.get("runAsUser") != 0 and context.get("runAsUser") != 0
        assert context.get("runAsNonRoot") is not False
        assert not FOREIGN & set(context) and "seccompProfile" not in context
        assert "memory" in container["resources"]["limits"]
        assert {"cpu", "memory"} <= set(container["resources"]["requests"])
        assert not any("hostPort" in it or "hostIP" in it for it in container.get("ports", []))
        handlers = [container.get(it, {}) for it in HANDLERS]
        for handler in handlers + list(container.get("lifecycle", {}).values()):
            for action in handler.values():
                assert not (isinstance(action, dict) and "host" in action), "since 1.34"


def check_restricted_detects_faults():
    """Breaks each rule once, which `check_restricted` must detect."""
    def broken(*steps, value):
        template = copy.deepcopy(one("base", "Deployment")["spec"]["template"])
        at = template
        for step in steps[:-1]:
            at = at.setdefault(step, {}) if isinstance(at, dict) else at[step]
        at[steps[-1]] = value
        return template
    pod, container = ("spec", "securityContext"), ("spec", "containers", 0)
    context = (*container, "securityContext")
    for steps, value in [
        *(((*at, field), {}) for at in (pod, context) for field in FOREIGN),
        *((("spec", field), True) for field in HOST),
        ((*pod, "runAsNonRoot"), False), ((*context, "runAsNonRoot"), False),
        ((*pod, "runAsUser"), 0), ((*context, "runAsUser"), 0),
        ((*pod, "seccompProfile"), {"type": "Unconfined"}), ((*context, "seccompProfile"), {}),
        ((*context, "capabilities"), {"drop": ["ALL"], "add": ["NET_RAW"]}),
        ((*context, "allowPrivilegeEscalation"), True),
        ((*container, "ports", 0, "hostPort"), 8080),
        ((*container, "livenessProbe", "httpGet", "host"), "127.0.0.1"),
        ((*container, "lifecycle", "postStart"), {"httpGet": {"host": "127.0.0.1"}}),
        (("spec", "volumes", 0, "hostPath"), {"path": "/"}),
        (("metadata", "annotations"), {"container.apparmor.security.beta.kubernetes.io/x": "y"}),
    ]:
        try:
            check_restricted(broken(*steps, value=value))
        except AssertionError:
            continue
        sys.exit(f"{steps} = {value} is not detected")


def check_words(name, command, spec):
    """Each flag and variable is in the help of the command that the container runs."""
    help_text = read(f"{command}.help")
    container = ours(spec)
    variables = environment(name, container)
    assert "OPENPORTS_DENY" in variables, "there is no policy"
    for word in variables:
        assert re.search(rf"\b{word}\b", help_text), f"{word} is none of {command}'s variables"
    for argument in container.get("args", []):
        if argument.startswith("--"):
            flag = argument.split("=")[0]
            assert re.search(rf"^ +{flag}\b", help_text, re.M), f"{flag} is none of {command}'s"


def check_base(name):
    deployment, scaler = one(name, "Deployment"), one(name, "HorizontalPodAutoscaler")
    spec = deployment["spec"]["template"]["spec"]
    check_restricted(deployment["spec"]["template"])
    check_words(name, "serve", spec)
    container = ours(spec)
    settings = environment(name, container)
    drain = seconds(settings["OPENPORTS_DRAIN_TIMEOUT"])
    asleep = container["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert spec["terminationGracePeriodSeconds"] >= asleep + drain + 5, "SIGKILL comes too early"
    assert settings["OPENPORTS_MAX_SCAN_TIME"] == "2m" and drain > 120, "a drain cuts scans short"
    assert "replicas" not in deployment["spec"], "the autoscaler must set the number of replicas"
    assert scaler["spec"]["behavior"]["scaleDown"]["policies"][0]["periodSeconds"] >= drain
    labels = deployment["spec"]["template"]["metadata"]["labels"].items()
    for kind in ("Service", "PodDisruptionBudget", "NetworkPolicy"):
        for it in (it for it in documents[name] if it["kind"] == kind):
            selector = it["spec"].get("podSelector") or it["spec"]["selector"]
            assert selector.get("matchLabels", selector).items() <= labels, kind
    file = pathlib.PurePath(settings["OPENPORTS_TOKEN_FILE"])
    assert file.name == "token" and str(file.parent) == container["volumeMounts"][0]["mountPath"]
    secret = {"secretName": "openports", "defaultMode": 0o440}
    assert spec["volumes"] == [{"name": "token", "secret": secret}]
    port = one(name, "Service")["spec"]["ports"][0]
    assert port["targetPort"] in [it["name"] for it in container["ports"]]
    assert one(name, "ServiceAccount")["metadata"]["name"] == spec["serviceAccountName"]
    # A change of the configuration changes the name of the ConfigMap, which replaces the pods.
    named = lambda group: next(it["metadata"]["name"] for it in group if it["kind"] == "ConfigMap"
                               and "OPENPORTS_LISTEN" in it["data"])
    assert container["envFrom"][0]["configMapRef"]["name"] == named(documents[name])
    assert named(documents[name]) != named(list(yaml.safe_load_all(read("changed.yaml"))))


def check_sidecar(name, listen):
    template = one(name, "Deployment")["spec"]["template"]
    spec = template["spec"]
    check_restricted(template)
    check_words(name, "serve", spec)
    container = ours(spec)
    assert container in spec["initContainers"] and container["restartPolicy"] == "Always"
    at = environment(name, container)["OPENPORTS_LISTEN"]
    assert at.startswith(listen), f"{name} listens at {at}"
    for it in spec["containers"] if at.startswith("unix:") else []:
        mounts = {mount["mountPath"] for mount in it["volumeMounts"]}
        assert os.path.dirname(at.removeprefix("unix:")) in mounts, f"{it['name']} has no socket"
    for probe in ("startupProbe", "livenessProbe"):
        assert container[probe]["exec"]["command"] == ["/openports", "healthcheck"]


def check_sweep():
    job = one("sweep", "Job")["spec"]
    spec = job["template"]["spec"]
    check_restricted(job["template"])
    check_words("sweep", "scan", spec)
    container = ours(spec)
    shards = f"--shard=$(JOB_COMPLETION_INDEX):{job['completions']}"
    assert job["completionMode"] == "Indexed" and shards in container["args"]
    file = next(it for it in container["args"] if it.startswith("--targets=")).split("=")[1]
    mount, volume = container["volumeMounts"][0], spec["volumes"][0]
    path = pathlib.PurePath(file).relative_to(mount["mountPath"])
    assert mount["name"] == volume["name"] and mount["readOnly"]
    assert str(path) in config_maps("sweep")[volume["configMap"]["name"]]["data"]


def check_monitoring():
    """Prometheus can find the service. .ci/monitoring checks the alerts and the dashboard."""
    monitor = one("monitoring", "ServiceMonitor")["spec"]
    service = one("monitoring", "Service")
    assert monitor["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    assert monitor["endpoints"][0]["port"] == service["spec"]["ports"][0]["name"]
    assert monitor["jobLabel"] in service["metadata"]["labels"]
    json.loads(config_maps("monitoring")["openports-dashboard"]["data"]["openports.json"])
    probe = yaml.safe_load(pathlib.Path("manifests/prometheus/probe.yaml").read_text())["spec"]
    host, port = probe["prober"]["url"].split(":")
    assert host.split(".")[0] == service["metadata"]["name"]
    assert int(port) == service["spec"]["ports"][0]["port"]
    secret = one("base", "Deployment")["spec"]["template"]["spec"]["volumes"][0]["secret"]
    assert probe["authorization"]["credentials"] == {"name": secret["secretName"], "key": "token"}
    jobs = pathlib.Path("manifests/prometheus/rules.yaml").read_text()
    assert f'job="{probe["jobName"]}"' in jobs


def selectors(document):
    """Each selector of pods in a document, as a path and its labels."""
    spec = document.get("spec", {})
    if document["kind"] == "Service":
        yield "selector", spec["selector"]
    for field in ("selector", "podSelector"):
        if "matchLabels" in (spec.get(field) or {}):
            yield field, spec[field]["matchLabels"]
    for it in spec.get("template", {}).get("spec", {}).get("topologySpreadConstraints", []):
        yield "topologySpreadConstraints", it["labelSelector"]["matchLabels"]


def check_installations():
    """The two installations of docs/kubernetes.md share a namespace, but no object in it."""
    first, second = documents["first"], documents["second"]
    pods = {name: one(name, "Deployment")["spec"]["template"] for name in ("first", "second")}
    for own, other in (("first", "second"), ("second", "first")):
        for document in documents[own]:
            for path, wanted in selectors(document):
                where = f"{own}: {document['kind']} {path} {wanted}"
                if document["kind"] != "ServiceMonitor":
                    assert wanted.items() <= pods[own]["metadata"]["labels"].items(), where
                    assert not wanted.items() <= pods[other]["metadata"]["labels"].items(), where
                else:
                    service = one(other, "Service")["metadata"]["labels"]
                    assert not wanted.items() <= service.items(), where
    names = lambda group: {(it["kind"], it["metadata"]["name"]) for it in group}
    assert not names(first) & names(second), names(first) & names(second)
    secrets = [pods[name]["spec"]["volumes"][0]["secret"]["secretName"] for name in pods]
    assert secrets[0] != secrets[1] and ("Secret", secrets[1]) in names(second), secrets
    # One label permits a client to use both installations, and no label of one is required.
    for document in first + second:
        if document["kind"] == "NetworkPolicy":
            for peer in document["spec"]["ingress"][0]["from"]:
                assert "matchLabels" not in peer.get("podSelector", {}), peer


def check_own_sweep():
    """The documented kustomization changes the list of targets, but not the arguments."""
    own, job = one("own-sweep", "Job")["spec"], one("sweep", "Job")["spec"]
    assert ours(own["template"]["spec"])["args"] == ours(job["template"]["spec"])["args"]
    lists = [it for it in config_maps("own-sweep").values() if "targets.txt" in it["data"]]
    volume = own["template"]["spec"]["volumes"][0]
    assert [it["metadata"]["name"] for it in lists] == [volume["configMap"]["name"]]


def check_component():
    """The documented kustomization adds the sidecar to a Deployment with the label, and replaces
    only the list of denied networks."""
    found = one("own-pod", "Deployment")["spec"]["template"]["spec"]
    example = one("sidecar", "Deployment")["spec"]["template"]["spec"]
    image = ours(found)["image"]
    assert image == "registry.example/openports:0.1.0", image
    found, example = dict(ours(found)), dict(ours(example))
    variables, usual = environment("own-pod", found), environment("sidecar", example)
    assert variables["OPENPORTS_DENY"] == "192.168.0.0/16", variables
    assert variables.keys() == usual.keys(), variables
    assert found | {"env": []} == example | {"env": [], "image": image}


def check_syn():
    """SYN scans: the base, with one more capability and no other change."""
    found = one("own-syn", "Deployment")["spec"]["template"]
    context = ours(found["spec"])["securityContext"]
    assert context.pop("allowPrivilegeEscalation") is True
    assert context["capabilities"].pop("add") == ["NET_RAW"]
    context["allowPrivilegeEscalation"] = False
    check_restricted(found)


def check_documentation():
    """The variables and flags that docs/kubernetes.md names exist. (A flag of another program is
    quoted together with its command, so it does not begin the quotation.)"""
    text = pathlib.Path("docs/kubernetes.md").read_text()
    known = read("serve.help") + read("scan.help")
    for word in re.findall(r"OPENPORTS_\w+", text):
        assert re.search(rf"\b{word}\b", known), f"docs/kubernetes.md: no {word}"
    for word in re.findall(r"`(--[a-z-]+)", text):
        assert re.search(rf"^ +{word}\b", known, re.M), f"docs/kubernetes.md: no {word}"


def write_play(name, spec, configs=()):
    """Writes a pod that podman 4 can run. podman 4 runs probes through a shell, which the image
    does not have, and supports neither sidecars nor fsGroup nor the mode of a Secret. Directories
    with the owner and the mode that the kubelet sets replace the volumes, the unsupported fields
    are removed, and everything else is unchanged."""
    spec = copy.deepcopy(spec)
    containers = spec.pop("initContainers", []) + spec["containers"]
    spec["containers"] = containers
    spec.pop("serviceAccountName", None)
    group = spec["securityContext"].get("fsGroup")
    for volume in spec.get("volumes", []):
        if secret := volume.pop("secret", None):
            file = (here / secret["secretName"] / "token").absolute()
            file.parent.mkdir()
            file.write_text("a-token-for-tests")
            os.chown(file, 0, group)
            file.chmod(secret["defaultMode"])
            volume["hostPath"] = {"path": str(file.parent), "type": "Directory"}
        if volume.pop("emptyDir", None):
            directory = (here / f"{name}-{volume['name']}").absolute()
            directory.mkdir()
            os.chown(directory, 0, group)
            directory.chmod(0o2770)
            volume["hostPath"] = {"path": str(directory), "type": "Directory"}
    for container in containers:
        for field in ("livenessProbe", "readinessProbe", "startupProbe", "restartPolicy", "ports"):
            container.pop(field, None)
        if group and "runAsUser" in container["securityContext"]:
            container["securityContext"]["runAsGroup"] = group
        image = container["image"].split(":")[0]
        container["image"] = f"localhost/{image}:ci"
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}
    (here / f"{name}.yaml").write_text(yaml.safe_dump_all([*configs, pod]))


def write_plays():
    base = one("base", "Deployment")["spec"]["template"]["spec"]
    write_play("play-base", base, config_maps("base").values())
    for name in ("sidecar", "sidecar-unix"):
        write_play(f"play-{name}", one(name, "Deployment")["spec"]["template"]["spec"])
    job = one("sweep", "Job")["spec"]
    lists = copy.deepcopy(list(config_maps("sweep").values()))
    for it in lists:
        if "targets.txt" in it["data"]:
            it["data"]["targets.txt"] = "203.0.113.1\n203.0.113.2  # both ends of the link\n"
    for index in range(job["completions"]):
        spec = copy.deepcopy(job["template"]["spec"])
        container = ours(spec)
        # The controller of the Job replaces this variable.
        counted = [it.replace("$(JOB_COMPLETION_INDEX)", str(index)) for it in container["args"]]
        container["args"] = counted
        write_play(f"play-sweep-{index}", spec, lists)


check_schemas()
check_restricted_detects_faults()
check_documentation()
check_base("base")
check_base("monitoring")
check_sidecar("sidecar", "127.0.0.1:")
check_sidecar("sidecar-unix", "unix:/")
check_sweep()
check_monitoring()
check_installations()
check_component()
check_own_sweep()
check_syn()
write_plays()
kinds = [document["kind"] for group in documents.values() for document in group]
held = sum(kind not in CUSTOM for kind in kinds)
print(f"   {len(kinds)} documents hold, {held} of them against {', '.join(MINORS)}, strictly")
