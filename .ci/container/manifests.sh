#!/usr/bin/env bash
# Renders the manifests, checks them, and runs them with podman. Needs the image of build.sh.
. "$(dirname "$0")/lib.sh"

pods=$work/pods
names=(base sidecar sidecar-unix sweep-0 sweep-1 sweep-2 sweep-3)
down() {
    for name in "${names[@]}"; do
        podman kube down "$pods/play-$name.yaml" >/dev/null 2>&1 || true
    done
    # podman keeps a volume for a mounted ConfigMap.
    podman volume ls -q --filter name=openports-sweep-targets |
        while read -r volume; do podman volume rm "$volume" >/dev/null; done
}
trap 'down; unplug' EXIT
rm -rf "$pods" && mkdir "$pods"
plug
podman image exists "$image" || { build_image && build ci .; }

render() { kubectl kustomize "$1"; }

# snippet N: prints the N-th kustomization in docs/kubernetes.md.
snippet() {
    awk -v wanted="$1" '
        /^```/ { inside = 0 }
        inside && count == wanted
        /^```yaml$/ { inside = 1; count++ }' docs/kubernetes.md
}

echo "-- rendered, and every document checked"
render manifests/base >"$pods/base.yaml"
render manifests/overlays/sidecar >"$pods/sidecar.yaml"
render manifests/overlays/sidecar-unix >"$pods/sidecar-unix.yaml"
render manifests/overlays/monitoring >"$pods/monitoring.yaml"
render manifests/sweep >"$pods/sweep.yaml"
# The kustomizations of docs/kubernetes.md, beside a checkout, as the page describes.
rm -rf "$work/own" && mkdir -p "$work/own"/{openports,first,second,own-pod,own-sweep,own-syn}
cp -r manifests "$work/own/openports"
snippet 1 >"$work/own/first/kustomization.yaml"
snippet 2 >"$work/own/second/kustomization.yaml"
snippet 3 >"$work/own/own-sweep/kustomization.yaml"
snippet 4 >"$work/own/own-pod/kustomization.yaml"
snippet 5 >"$work/own/own-syn/kustomization.yaml"
cp manifests/sweep/targets.txt "$work/own/own-sweep"
# The second installation also gets the component for monitoring, as the page describes.
fields='fields: [{path: spec\/selector\/matchLabels, kind: ServiceMonitor}]'
sed -i -e "s/^labels: .*includeSelectors: true/&, $fields/" \
    -e '$a components: [../openports/manifests/components/monitoring]' \
    "$work/own/second/kustomization.yaml"
for name in first second; do echo a-token-for-tests >"$work/own/$name/token"; done
cat >"$work/own/own-pod/app.yaml" <<'A'
apiVersion: apps/v1
kind: Deployment
metadata: {name: my-app, labels: {openports-sidecar: "true"}}
spec:
  selector: {matchLabels: {app: my-app}}
  template:
    metadata: {labels: {app: my-app}}
    spec: {containers: [{name: app, image: my-app}]}
A
for name in first second own-pod own-sweep own-syn; do render "$work/own/$name" >"$pods/$name.yaml"; done
# The base with another setting, which must cause a rollout of its pods.
rm -rf "$work/changed-base" && cp -r manifests/base "$work/changed-base"
sed -i 's/OPENPORTS_LOG_FORMAT=json/OPENPORTS_LOG_FORMAT=logfmt/' \
    "$work/changed-base/kustomization.yaml"
render "$work/changed-base" >"$pods/changed.yaml"
for command in serve scan; do
    podman run --rm --network none "$image" "$command" --help >"$pods/$command.help"
done
python=$work/venv/bin/python
[ -x "$python" ] || python3 -m venv "$work/venv"
"$python" -c 'import kubernetes_validate' 2>/dev/null ||
    "$python" -m pip install -q 'kubernetes-validate==1.37.*' PyYAML
"$python" .ci/container/check.py "$pods"

# The images that the examples of sidecars use, with only busybox and curl.
root=$(mktemp -d)
mkdir "$root/bin"
cp "$(command -v busybox)" "$root/bin/busybox"
for tool in sh wget sleep; do ln -s busybox "$root/bin/$tool"; done
cp --parents $(ldd "$(command -v curl)" | grep -o '/[^ ]*') "$root"
cp "$(command -v curl)" "$root/bin/curl"
for app in busybox curlimages/curl; do
    tar -C "$root" -c . | podman import -q --change ENV=PATH=/bin - "localhost/$app:ci" >/dev/null
done
rm -rf "$root"

# The pod uses the network of the namespace, because a network of podman would need a bridge and a
# firewall.
play() { inside podman kube play --network host "$pods/play-$1.yaml" >/dev/null; }

echo "-- base: played, used, taken down"
play base
within 10 outside curl -sf http://203.0.113.1:8080/readyz
url=http://203.0.113.1:8080/open-ports
scan() { outside curl -sS "$@" "$url?domain=203.0.113.2&toPort=1024"; }
check "without the token" '*"status":401*' "$(scan)"
token='Authorization: Bearer a-token-for-tests'
answer=$(scan -H "$token")
check "a scan" '*"closed":1024,*"complete":true*' "$answer"
answer=$(outside curl -sS -H "$token" "$url?domain=10.0.0.1&toPort=1")
check "the policy of the ConfigMap" '*TARGET_DENIED*' "$answer"
# The equivalent of `kubectl exec` in docs/kubernetes.md, which also has the variables of the
# service. The command uses the network of its caller, so it is called in `op-in`.
answer=$(inside podman exec play-base-openports /openports scan --json 203.0.113.2 1-1024)
check "a scan from its shell" '*"closed":1024,*"complete":true*' "$answer"
inspect() { podman inspect play-base-openports --format "{{$1}}"; }
check "read-only" true "$(inspect .HostConfig.ReadonlyRootfs)"
check "capabilities" 0000000000000000 \
    "$(awk '/CapBnd/ { print $2 }' "/proc/$(inspect .State.Pid)/status")"
check "memory limit" 134217728 "$(inspect .HostConfig.Memory)"
podman kube down "$pods/play-base.yaml" >/dev/null

# Prints the addresses on which a container listens.
ports_of() {
    local pid
    pid=$(podman inspect "$1" --format '{{.State.Pid}}')
    inside ss -H -ltnp | awk -v pid="pid=$pid," 'index($0, pid) { print $4 }'
}

echo "-- sidecar: only the app can send it requests"
play sidecar
app() { podman logs play-sidecar-app 2>&1; }
within 15 eval 'app | grep -q open_ports'
check "the answer to the app" '*"domain":"127.0.0.1","open_ports":?8080?,*"complete":true*' "$(app)"
if outside curl -s --max-time 2 http://203.0.113.1:8080/healthz; then
    fail "the sidecar answers outside"
fi
check "ports of its own" "127.0.0.1:8080" "$(ports_of play-sidecar-openports)"
podman kube down "$pods/play-sidecar.yaml" >/dev/null

echo "-- sidecar on a Unix socket: only a container with the socket can reach it"
play sidecar-unix
app() { podman logs play-sidecar-unix-app 2>&1; }
within 15 eval 'app | grep -q open_ports'
check "the answer to the app" '*"domain":"127.0.0.1",*"complete":true*' "$(app)"
check "ports of its own" "" "$(ports_of play-sidecar-unix-openports)"
podman exec play-sidecar-unix-openports /openports healthcheck || fail "its probe"
podman kube down "$pods/play-sidecar-unix.yaml" >/dev/null

echo "-- sweep: every index, and the sum of their logs"
for index in 0 1 2 3; do
    play "sweep-$index"
    check "index $index: exit code" 0 "$(timeout 30 podman wait "play-sweep-$index-openports")"
    podman logs "play-sweep-$index-openports" >>"$pods/sweep.ndjson" 2>&1
done
merged=$(manifests/sweep/merge.sh "$pods/sweep.ndjson")
for target in 203.0.113.1 203.0.113.2; do
    counts=$(jq -c "select(.domain == \"$target\") | [.complete, (.counts | add)]" <<<"$merged")
    check "ports of $target, each probed once" '?true,3?' "$counts"
done
