"""The doors of a cluster: what each pod of infra/kuberay may do, and who may speak to whom."""

from __future__ import annotations

import configparser
import functools
import re
from pathlib import Path

import pytest
import yaml

INFRA = Path(__file__).resolve().parents[2] / "infra"


@functools.cache
def documents(*kinds: str) -> list[dict]:
    """The objects of some kinds, of all manifests."""
    paths = sorted((INFRA / "kuberay").glob("*.yaml"))
    return [d for p in paths for d in yaml.safe_load_all(p.read_text()) if d["kind"] in kinds]


def autoscaler(spec: dict) -> dict:
    """The container that KubeRay adds to the pod of a head."""
    options = dict(spec["autoscalerOptions"])
    del options["version"], options["idleTimeoutSeconds"]
    return {"name": "autoscaler", **options}


def ray_pods(name: str, spec: dict) -> dict[str, dict]:
    """The pods of a cluster, with the labels and the container that KubeRay adds."""
    found = {}
    for group in [spec["headGroupSpec"], *spec["workerGroupSpecs"]]:
        kind = group.get("groupName", "head")
        node = "head" if kind == "head" else "worker"
        own = group["template"]
        labels = own["metadata"]["labels"] | {"ray.io/node-type": node}
        added = [autoscaler(spec)] if node == "head" else []
        pod = own["spec"] | {"containers": [*own["spec"]["containers"], *added]}
        found[f"{name} {kind}"] = {"metadata": {"labels": labels}, "spec": pod}
    return found


def all_pods() -> dict[str, dict]:
    """Every pod that the manifests make, by a name."""
    found = {}
    kinds = ("RayCluster", "RayJob", "RayCronJob", "StatefulSet", "Deployment")
    for value in documents(*kinds):
        name, spec = value["metadata"]["name"], value["spec"]
        if value["kind"] == "RayCronJob":
            found[f"{name} submitter"] = spec["jobTemplate"]["submitterPodTemplate"]
            continue
        if value["kind"] == "RayJob":
            found[f"{name} submitter"] = spec["submitterPodTemplate"]
            spec = spec["rayClusterSpec"]
        if "headGroupSpec" in spec:
            found |= ray_pods(name, spec)
        else:
            found[name] = spec["template"]
    return found


PODS = all_pods()
CONTAINERS = {
    f"{name}: {container['name']}": (pod["spec"], container)
    for name, pod in PODS.items()
    for container in pod["spec"]["containers"]
}


def test_every_pod_is_looked_at():
    # Head, CPU and GPU workers, twice; two submitters, Redis, MLflow, PostgreSQL.
    assert len(PODS) == 11
    assert len(CONTAINERS) == 13  # and the autoscaler, twice


# What a container may do


@pytest.fixture(params=CONTAINERS, ids=lambda name: name.replace(" ", "-"))
def container(request) -> tuple[dict, dict]:
    """A pod's spec, and one of its containers."""
    return CONTAINERS[request.param]


def test_a_container_is_nobody_special_and_can_become_nobody_else(container):
    pod, own = container
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] > 0
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert own["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.keys()
    assert not any("hostPath" in volume for volume in pod.get("volumes", ()))


def test_a_container_writes_to_volumes_alone_and_they_have_a_size(container):
    pod, own = container
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    limit = mebibytes(own["resources"]["limits"]["ephemeral-storage"])
    for mount in own["volumeMounts"]:
        volume = volumes.get(mount["name"], {})
        assert volume or mount["name"] == "data", "a claim of a StatefulSet"
        if {"secret", "configMap", "projected"} & volume.keys():
            assert mount["readOnly"] is True
        if "emptyDir" in volume and own["name"] != "autoscaler":  # it shares the head's
            assert mebibytes(volume["emptyDir"]["sizeLimit"]) <= limit
    if "soilweave" in own.get("image", "soilweave"):
        environment = {each["name"]: each.get("value") for each in own["env"]}
        (tmp,) = [m for m in own["volumeMounts"] if m["mountPath"] == "/tmp"]
        assert "emptyDir" in volumes[tmp["name"]]
        assert environment["HOME"] == environment["TMPDIR"] == "/tmp"


def test_a_container_asks_for_what_it_needs_and_gets_no_more(container):
    resources = container[1]["resources"]
    assert {"cpu", "memory", "ephemeral-storage"} <= resources["requests"].keys()
    assert {"memory", "ephemeral-storage"} <= resources["limits"].keys()
    for name in ("memory", "ephemeral-storage"):
        assert mebibytes(resources["requests"][name]) <= mebibytes(resources["limits"][name])


def test_the_autoscaler_alone_can_speak_to_kubernetes(container):
    pod, own = container
    assert pod["automountServiceAccountToken"] is False
    tokens = {
        volume["name"]
        for volume in pod["volumes"]
        for source in volume.get("projected", {}).get("sources", ())
        if "serviceAccountToken" in source
    }
    mounted = [m["mountPath"] for m in own["volumeMounts"] if m["name"] in tokens]
    expected = ["/var/run/secrets/kubernetes.io/serviceaccount"]
    assert mounted == (expected if own["name"] == "autoscaler" else [])


def mebibytes(quantity: str) -> int:
    number, unit = re.fullmatch(r"(\d+)(Mi|Gi)", quantity).groups()
    return int(number) * {"Mi": 1, "Gi": 1024}[unit]


# Passwords


@pytest.mark.parametrize("name", ["soilweave-redis", "soilweave-postgres"])
def test_the_password_of_a_database_is_a_file(name):
    pod = PODS[name]["spec"]
    (own,) = pod["containers"]
    (secret,) = [v["name"] for v in pod["volumes"] if v.get("secret") == {"secretName": name}]
    (folder,) = [m["mountPath"] for m in own["volumeMounts"] if m["name"] == secret]
    assert not any("valueFrom" in each for each in own.get("env", ()))
    assert f"{folder}/password" in yaml.safe_dump(own)


def test_no_password_stands_in_a_manifest_or_in_a_command():
    for pod, own in CONTAINERS.values():
        for each in own.get("env", ()):
            if re.search("PASSWORD$|SECRET|TOKEN|ACCESS_KEY", each["name"]):
                assert "secretKeyRef" in each["valueFrom"], each["name"]
        words = [str(word) for word in [*own.get("command", ()), *own.get("args", ())]]
        assert not re.search(r"\$\(\w*(PASSWORD|SECRET|TOKEN|KEY)", " ".join(words))
        assert pod is not None


# The login of MLflow


def test_mlflow_asks_for_the_login_that_nodes_have():
    (own,) = PODS["soilweave-mlflow"]["spec"]["containers"]
    compose = yaml.safe_load((INFRA / "compose.yaml").read_text())["services"]
    assert "--app-name=basic-auth" in own["command"]
    assert "--app-name=basic-auth" in compose["mlflow"]["entrypoint"]
    given = {each["name"]: each.get("valueFrom") or each["value"] for each in own["env"]}
    for part in ("USERNAME", "PASSWORD"):
        reference = given[f"MLFLOW_AUTH_ADMIN_{part}"]["secretKeyRef"]
        assert reference == {"name": "soilweave-storage", "key": f"MLFLOW_TRACKING_{part}"}
        server = compose["mlflow"]["environment"][f"MLFLOW_AUTH_ADMIN_{part}"]
        assert server == compose["ray-head"]["environment"][f"MLFLOW_TRACKING_{part}"]
    for name, pod in PODS.items():
        if "head" in name or "cpu" in name or "gpu" in name:
            sources = pod["spec"]["containers"][0]["envFrom"]
            assert {"secretRef": {"name": "soilweave-storage"}} in sources
    readme = (INFRA / "README.md").read_text()
    assert "--from-literal=MLFLOW_TRACKING_PASSWORD=" in readme


def test_the_two_settings_of_the_login_are_the_same_but_for_the_host():
    (config,) = documents("ConfigMap")
    cluster, compose = configparser.ConfigParser(), configparser.ConfigParser()
    cluster.read_string(config["data"]["mlflow-auth.ini"])
    compose.read(INFRA / "mlflow-auth.ini")
    pod, own = CONTAINERS["soilweave-mlflow: mlflow"]
    (folder,) = [m["mountPath"] for m in own["volumeMounts"] if m["name"] == "login"]
    given = {each["name"]: each.get("value") for each in own["env"]}
    assert given["MLFLOW_AUTH_CONFIG_PATH"] == f"{folder}/mlflow-auth.ini"
    assert {"name": "login", "configMap": {"name": config["metadata"]["name"]}} in pod["volumes"]
    one, other = dict(cluster["mlflow"]), dict(compose["mlflow"])
    assert one.pop("database_uri").replace("soilweave-postgres", "postgres") == other.pop(
        "database_uri"
    )
    assert one == other == {"default_permission": "NO_PERMISSIONS"}


def test_only_mlflow_reaches_the_database_of_compose():
    compose = yaml.safe_load((INFRA / "compose.yaml").read_text())
    assert compose["networks"]["database"] == {"internal": True}
    inside = {
        name for name, s in compose["services"].items() if "database" in s.get("networks", ())
    }
    assert inside == {"mlflow", "postgres"}
    assert compose["services"]["postgres"]["networks"] == ["database"]


@pytest.mark.parametrize("name", ["mlflow", "ray-head", "ray-worker", "ray-worker-gpu", "bucket"])
def test_what_we_build_has_no_capabilities_in_compose(name):
    service = yaml.safe_load((INFRA / "compose.yaml").read_text())["services"][name]
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]


# Who may speak to whom

OPERATOR = {"metadata": {"labels": {"app.kubernetes.io/name": "kuberay-operator"}}}
STRANGER = {"metadata": {"labels": {"app": "stranger"}}}
CLEANUP = {
    "metadata": {
        "labels": PODS["soilweave head"]["metadata"]["labels"]
        | {"ray.io/node-type": "redis-cleanup"}
    }
}
DNS = {"metadata": {"labels": {"k8s-app": "kube-dns"}}, "namespace": "kube-system"}
PROMETHEUS = {"metadata": {"labels": {}}, "namespace": "monitoring"}
PEERS = {
    "head": PODS["soilweave head"],
    "worker": PODS["soilweave cpu"],
    "GPU worker": PODS["soilweave gpu"],
    "submitter": PODS["soilweave-demo submitter"],
    "Redis": PODS["soilweave-redis"],
    "MLflow": PODS["soilweave-mlflow"],
    "PostgreSQL": PODS["soilweave-postgres"],
    "operator": OPERATOR,
    "cleanup": CLEANUP,
    "DNS": DNS,
    "Prometheus": PROMETHEUS,
    "stranger": STRANGER,
    "the same elsewhere": PODS["soilweave cpu"] | {"namespace": "elsewhere"},
    "web": None,
}


def selects(selector: dict, labels: dict) -> bool:
    """Whether a label selector takes these labels."""
    wanted = selector.get("matchLabels", {}).items() <= labels.items()
    for rule in selector.get("matchExpressions", ()):
        assert rule["operator"] == "In"
        wanted = wanted and labels.get(rule["key"]) in rule["values"]
    return wanted


def is_meant(peer: dict, pod: dict | None) -> bool:
    """Whether a rule's peer is this pod; None is an address outside of the cluster."""
    if "ipBlock" in peer:
        return pod is None and peer["ipBlock"]["cidr"] in ("0.0.0.0/0", "::/0")
    if pod is None:
        return False
    namespace = pod.get("namespace", "here")
    there = {"kubernetes.io/metadata.name": namespace}
    inside = selects(peer["namespaceSelector"], there) if "namespaceSelector" in peer else False
    near = inside or ("namespaceSelector" not in peer and namespace == "here")
    return near and selects(peer.get("podSelector", {}), pod["metadata"]["labels"])


def lets(pod: dict | None, other: dict | None, port: int, way: str) -> bool:
    """Whether the policies of a pod let it speak (egress) or be spoken to (ingress)."""
    if pod is None or pod.get("namespace", "here") != "here":
        return True
    own = [
        policy["spec"]
        for policy in documents("NetworkPolicy")
        if selects(policy["spec"]["podSelector"], pod["metadata"]["labels"])
    ]
    side = {"egress": "to", "ingress": "from"}[way]
    rules = [rule for spec in own for rule in spec.get(way, ())]
    return not own or any(
        any(is_meant(peer, other) for peer in rule[side])
        and port in ([each["port"] for each in rule.get("ports", ())] or [port])
        for rule in rules
    )


def may(who: str, whom: str, port: int) -> bool:
    one, other = PEERS[who], PEERS[whom]
    return lets(one, other, port, "egress") and lets(other, one, port, "ingress")


RAY = ("head", "worker", "GPU worker")
PORTS = (6379, 8080, 8265, 10001, 30123)  # GCS, metrics, dashboard, Ray Client, one of a worker
SERVED = (*RAY, "submitter", "Redis", "MLflow", "PostgreSQL")
OUTSIDE = ("stranger", "the same elsewhere", "MLflow", "Redis", "web")


def promises() -> list[tuple[str, str, int, bool]]:
    """Who, to whom, on which port, and whether that is allowed."""
    every = [(one, other, port, True) for one in RAY for other in RAY for port in PORTS]
    for port in PORTS:
        every += [(who, "head", port, port == 8265) for who in ("submitter", "operator")]
        every += [("Prometheus", node, port, port == 8080) for node in RAY]
        every += [(who, "head", port, False) for who in OUTSIDE]
        every += [(who, "worker", port, False) for who in ("submitter", "operator", *OUTSIDE)]
    every += [(who, "MLflow", 5000, who in (*RAY, "cleanup")) for who in PEERS if who != "MLflow"]
    every += [(who, "PostgreSQL", 5432, who == "MLflow") for who in PEERS if who != "PostgreSQL"]
    every += [(who, "Redis", 6379, who in ("head", "cleanup")) for who in PEERS if who != "Redis"]
    every += [(who, "DNS", 53, True) for who in SERVED]
    every += [(who, "web", 443, who in (*RAY, "MLflow")) for who in SERVED]
    every += [(who, "web", 6443, who == "head") for who in SERVED]
    return every + [(who, "web", port, False) for who in SERVED for port in (22, 25, 80, 5432)]


@pytest.mark.parametrize(("who", "whom", "port", "allowed"), promises())
def test_a_promise_of_the_network(who, whom, port, allowed):
    assert may(who, whom, port) == allowed


def test_every_pod_has_a_policy_and_the_head_opens_no_other_port():
    for name, pod in PODS.items():
        labels = pod["metadata"]["labels"]
        assert labels["app.kubernetes.io/part-of"] == "soilweave", name
    ways = [set(policy["spec"]["policyTypes"]) for policy in documents("NetworkPolicy")]
    assert ways == [{"Ingress", "Egress"}] * len(ways)
    rules = [rule for p in documents("NetworkPolicy") for rule in p["spec"].get("ingress", ())]
    named = {each["port"] for rule in rules for each in rule.get("ports", ())}
    assert named == {5000, 5432, 6379, 8080, 8265}
