"""deploy/kubernetes: valid for the API server of several versions, and what we promise about the pod."""

from __future__ import annotations

import re
from functools import cache
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from support.promtool import promtool, samples, unknown

from aero_l2.config import load
from aero_l2.errors import ConfigError
from aero_l2.policy.prefixes import SPECIAL_PREFIXES

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "deploy/kubernetes"
NOT_OBJECTS = {"kustomization.yaml", "prometheus-adapter.yaml"}
VERSIONS = ("1.30", "1.32", "1.34")
"""The oldest with status.hostIPs and appArmorProfile, one between, and the newest."""
SITE = {
    "AERO_L2_ALLOWED_ORIGINS": "https://lab.example",
    "AERO_L2_ALLOWED_HOSTS": "lab.example",
    "AERO_L2_TRUSTED_PROXIES": "10.244.0.0/16",
    "AERO_L2_DENIED_CIDRS": "192.0.2.10,2001:db8::10,198.51.100.0/24",
}
Object = dict[str, Any]


@cache
def documents(path: Path) -> list[Object]:
    return [found for found in yaml.safe_load_all(path.read_text()) if found is not None]


def objects() -> list[tuple[str, Object]]:
    files = sorted(path for path in FOLDER.glob("*.yaml") if path.name not in NOT_OBJECTS)
    return [(path.name, found) for path in files for found in documents(path)]


def one(kind: str) -> Object:
    (found,) = (document for _, document in objects() if document["kind"] == kind)
    return found


def pod() -> Object:
    return dict(one("Deployment")["spec"]["template"]["spec"])


def container() -> Object:
    (only,) = pod()["containers"]
    return dict(only)


def settings() -> dict[str, str]:
    return dict(one("ConfigMap")["data"])


def production() -> dict[str, str]:
    lines = (ROOT / "deploy/production.env").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("document", [found for _, found in objects()], ids=lambda found: found["kind"])
def test_every_object_is_valid(document: Object, version: str) -> None:
    kubernetes_validate.validate(document, version, strict=True)


def test_the_validator_finds_what_is_wrong() -> None:
    """Or the test above would say nothing."""
    broken = yaml.safe_load((FOLDER / "deployment.yaml").read_text())
    broken["spec"]["template"]["spec"]["containers"][0]["securityContext"]["readOnlyRoot"] = True
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(broken, VERSIONS[-1], strict=True)


def test_podmans_pod_is_valid() -> None:
    for document in documents(ROOT / "deploy/podman/aero-l2.yaml"):
        kubernetes_validate.validate(document, VERSIONS[-1], strict=True)


def test_kustomization_takes_every_object_but_those_to_be_filled_in() -> None:
    (kustomization,) = documents(FOLDER / "kustomization.yaml")
    files = {path.name for path in FOLDER.glob("*.yaml")} - NOT_OBJECTS
    assert set(kustomization["resources"]) == {name for name in files if ".example." not in name}
    assert [image["name"] for image in kustomization["images"]] == [container()["image"].split(":")[0]]


def test_everything_is_in_one_namespace() -> None:
    name = one("Namespace")["metadata"]["name"]
    others = [document for _, document in objects() if document["kind"] != "Namespace"]
    assert {document["metadata"]["namespace"] for document in others} == {name}


def test_whoever_selects_pods_selects_ours() -> None:
    labels = one("Deployment")["spec"]["template"]["metadata"]["labels"]
    services = [document["spec"]["selector"] for _, document in objects() if document["kind"] == "Service"]
    others = [one("Deployment"), one("PodDisruptionBudget")]
    selectors = [*services, *(found["spec"]["selector"]["matchLabels"] for found in others)]
    selectors.append(one("NetworkPolicy")["spec"]["podSelector"]["matchLabels"])
    assert selectors == [labels] * 5


def test_the_pod_has_no_privilege() -> None:
    security = pod()["securityContext"]
    own = container()["securityContext"]
    assert security["runAsNonRoot"] is True
    assert security["runAsUser"] > 0
    assert security["seccompProfile"] == {
        "type": "Localhost",
        "localhostProfile": "profiles/seccomp-aero.json",
    }
    assert own["capabilities"] == {"drop": ["ALL"]}
    assert own["allowPrivilegeEscalation"] is False
    assert own["readOnlyRootFilesystem"] is True
    assert "privileged" not in own
    assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod())
    assert pod()["automountServiceAccountToken"] is False


def test_the_user_is_that_of_the_image() -> None:
    (user,) = re.findall(r"^USER (\d+):(\d+)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    security = pod()["securityContext"]
    assert (str(security["runAsUser"]), str(security["runAsGroup"])) == user


def test_of_the_node_the_pod_has_the_tun_device_only() -> None:
    volumes = {volume["name"]: volume for volume in pod()["volumes"]}
    paths = [volume["hostPath"] for volume in volumes.values() if "hostPath" in volume]
    assert paths == [{"path": "/dev/net/tun", "type": "CharDevice"}]
    mounts = {mount["name"]: mount for mount in container()["volumeMounts"]}
    assert set(mounts) == set(volumes)
    assert mounts["tun"]["mountPath"] == "/dev/net/tun"


def test_the_sysctls_are_of_those_that_a_kubelet_allows_without_being_asked() -> None:
    safe = {"net.ipv4.ping_group_range", "net.ipv4.ip_local_port_range"}
    assert {sysctl["name"] for sysctl in pod()["securityContext"]["sysctls"]} <= safe


def test_a_services_name_puts_nothing_among_the_settings() -> None:
    assert pod()["enableServiceLinks"] is False


def test_the_settings_are_those_of_production() -> None:
    """Those that are filled in differ in what they say is to be filled in."""
    given, expected = settings(), production()
    more = {
        "AERO_L2_METRICS_ADDR", "AERO_L2_SESSION_SECRET_FILE", "AERO_L2_DRAIN_MS", "AERO_L2_SHUTDOWN_GRACE_MS"
    }  # fmt: skip
    assert set(given) == set(expected) | more
    different = {name for name, value in expected.items() if given[name] != value}
    assert different <= set(SITE)
    assert {name for name, value in given.items() if value.startswith("FILL-IN:")} == set(SITE)


def filled_in(tmp_path: Path) -> dict[str, str]:
    secret = tmp_path / "session-secret"
    secret.write_text("s3cret-of-the-gateway-0123456789")
    return settings() | SITE | {"AERO_L2_SESSION_SECRET_FILE": str(secret)}


def test_filled_in_the_settings_are_accepted_with_the_warning_of_production(tmp_path: Path) -> None:
    (warning,) = load(filled_in(tmp_path)).warnings
    assert warning.startswith("AERO_L2_IDLE_TIMEOUT_MS closes only tunnels whose client is gone")


@pytest.mark.parametrize("name", SITE)
def test_what_is_not_filled_in_is_refused_by_name(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match=name):
        load(filled_in(tmp_path) | {name: settings()[name]})


def test_the_example_of_a_secret_is_refused_until_it_is_filled_in(tmp_path: Path) -> None:
    given = filled_in(tmp_path)
    folder = next(mount for mount in container()["volumeMounts"] if mount["name"] == "secrets")["mountPath"]
    secret = next(volume for volume in pod()["volumes"] if volume["name"] == "secrets")["secret"][
        "secretName"
    ]
    example = one("Secret")
    assert example["metadata"]["name"] == secret
    assert {f"{folder}/{key}" for key in example["stringData"]} == {settings()["AERO_L2_SESSION_SECRET_FILE"]}
    (left,) = example["stringData"].values()
    Path(given["AERO_L2_SESSION_SECRET_FILE"]).write_text(left)
    with pytest.raises(ConfigError, match="AERO_L2_SESSION_SECRET"):
        load(given)


def expanded(fields: dict[str, str]) -> dict[str, str]:
    """`env` as a kubelet makes it: what stands before may be referred to, and counts over envFrom."""
    found: dict[str, str] = {}
    for variable in container()["env"]:
        if "value" in variable:
            found[variable["name"]] = re.sub(r"\$\((\w+)\)", lambda m: found[m[1]], variable["value"])
        elif "fieldRef" in variable["valueFrom"]:
            found[variable["name"]] = fields[variable["valueFrom"]["fieldRef"]["fieldPath"]]
        else:
            found[variable["name"]] = (settings() | SITE)[variable["valueFrom"]["configMapKeyRef"]["key"]]
    return found


def test_a_nodes_own_addresses_are_denied_to_guests(tmp_path: Path) -> None:
    given = filled_in(tmp_path) | expanded({"status.hostIPs": "203.0.113.9,2001:db8::9"})
    denied = {str(prefix) for prefix in load(given).settings.denied_cidrs}
    assert {"203.0.113.9/32", "2001:db8::9/128", "198.51.100.0/24", "192.0.2.10/32"} <= denied


def test_probes_ask_where_the_answers_are(tmp_path: Path) -> None:
    ports = {port["name"]: port["containerPort"] for port in container()["ports"]}
    given = load(filled_in(tmp_path)).settings
    assert given.metrics_listen is not None
    assert ports == {"tunnels": given.listen.port, "metrics": given.metrics_listen.port}
    probes = {
        name: container()[name]["httpGet"] for name in ("startupProbe", "readinessProbe", "livenessProbe")
    }
    assert {name: (probe["path"], probe["port"]) for name, probe in probes.items()} == {
        "startupProbe": ("/readyz", "metrics"),
        "readinessProbe": ("/readyz", "metrics"),
        "livenessProbe": ("/healthz", "metrics"),
    }


def test_there_is_time_to_drain() -> None:
    """docs/operations.md: drain, plus grace, plus ten seconds; and preStop, which comes before the signal."""
    word, seconds = container()["lifecycle"]["preStop"]["exec"]["command"]
    assert word == "sleep"
    milliseconds = int(settings()["AERO_L2_DRAIN_MS"]) + int(settings()["AERO_L2_SHUTDOWN_GRACE_MS"])
    assert pod()["terminationGracePeriodSeconds"] >= int(seconds) + milliseconds / 1000 + 10
    probe = container()["readinessProbe"]
    assert int(seconds) >= probe["periodSeconds"], "a balancer has not asked again by then"


def test_the_memory_is_enough_for_the_tunnels() -> None:
    """docs/capacity.md: 2 MiB each, 64 MiB or a twentieth kept back; 128 MiB for the processes."""
    limit = 1024
    assert container()["resources"]["limits"]["memory"] == "1Gi"
    assert int(settings()["AERO_L2_MAX_CONNECTIONS"]) * 2 + max(64, limit / 20) + 128 <= limit


def test_services_lead_to_ports_of_the_pod_and_none_to_both() -> None:
    found = [document for _, document in objects() if document["kind"] == "Service"]
    targets = {
        service["metadata"]["name"]: [port["targetPort"] for port in service["spec"]["ports"]]
        for service in found
    }
    assert targets == {"aero-l2-proxy": ["tunnels"], "aero-l2-metrics": ["metrics"]}


def test_the_world_gets_to_the_tunnels_and_nothing_else() -> None:
    (rule,) = one("Ingress")["spec"]["rules"]
    paths = [(path["path"], path["backend"]["service"]) for path in rule["http"]["paths"]]
    assert [path for path, _ in paths] == ["/l2", "/eth", "/session", "/healthz"]
    assert all(service == {"name": "aero-l2-proxy", "port": {"name": "tunnels"}} for _, service in paths)


def test_the_network_policy_lets_guests_to_the_same_ports_and_to_no_private_network(tmp_path: Path) -> None:
    names, internet = one("NetworkPolicy")["spec"]["egress"]
    assert {port["port"] for port in names["ports"]} == {53}
    allowed = {(port["protocol"], port["port"]) for port in internet["ports"]}
    tcp, udp = (settings()[f"AERO_L2_ALLOWED_{kind}_PORTS"].split(",") for kind in ("TCP", "UDP"))
    assert allowed == {("TCP", int(port)) for port in tcp} | {("UDP", int(port)) for port in udp}
    (block,) = (peer["ipBlock"] for peer in internet["to"])
    outside = [IPv4Network(prefix) for prefix in block["except"]]
    for special in SPECIAL_PREFIXES:
        assert any(special.network.subnet_of(prefix) for prefix in outside), special


def test_the_autoscaler_asks_for_the_metric_that_the_adapter_makes_of_ours() -> None:
    (values,) = documents(FOLDER / "prometheus-adapter.yaml")
    (rule,) = values["rules"]["custom"]
    (metric,) = one("HorizontalPodAutoscaler")["spec"]["metrics"]
    assert metric["pods"]["metric"]["name"] == rule["name"]["as"]
    query = rule["metricsQuery"].replace("<<.GroupBy>>", "pod").replace("<<.LabelMatchers>>", 'pod="one"')
    known = {name: {**labels, "pod": {"one"}, "namespace": {"aero-l2"}} for name, labels in samples().items()}
    assert not unknown(query, known)
    (series,) = re.findall(r'__name__="(\w+)"', rule["seriesQuery"])
    assert series in samples()


def test_the_adapters_query_is_the_share_of_the_tightest_limit(tmp_path: Path) -> None:
    """As promtool computes it: 30 tunnels of 50 that fit, whatever the other limits are."""
    (values,) = documents(FOLDER / "prometheus-adapter.yaml")
    query = values["rules"]["custom"][0]["metricsQuery"]
    query = query.replace("<<.GroupBy>>", "pod").replace("<<.LabelMatchers>>", 'namespace="aero-l2"')
    labels = 'namespace="aero-l2",pod="one"'
    series = {
        f"l2_sessions_active{{{labels}}}": 30,
        f'aero_l2_capacity_tunnels{{{labels},limit="setting"}}': 200,
        f'aero_l2_capacity_tunnels{{{labels},limit="memory"}}': 50,
        f'aero_l2_capacity_tunnels{{{labels},limit="tcp"}}': "+Inf",
    }
    case = {
        "input_series": [{"series": name, "values": f"{value} {value}"} for name, value in series.items()],
        "promql_expr_test": [
            {"expr": query, "eval_time": "1m", "exp_samples": [{"labels": '{pod="one"}', "value": 0.6}]}
        ],
    }
    file = tmp_path / "test.yaml"
    file.write_text(yaml.safe_dump({"tests": [case]}))
    done = promtool("test", "rules", str(file))
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_autoscaler_and_the_budget_leave_room_for_a_drain() -> None:
    scaler, budget = one("HorizontalPodAutoscaler")["spec"], one("PodDisruptionBudget")["spec"]
    assert scaler["scaleTargetRef"]["name"] == one("Deployment")["metadata"]["name"]
    assert one("Deployment")["spec"]["strategy"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}
    assert budget["maxUnavailable"] == 1
    assert scaler["minReplicas"] > budget["maxUnavailable"]
    (down,) = scaler["behavior"]["scaleDown"]["policies"]
    assert down == {"type": "Pods", "value": 1, "periodSeconds": 900}
    assert down["periodSeconds"] >= pod()["terminationGracePeriodSeconds"]
