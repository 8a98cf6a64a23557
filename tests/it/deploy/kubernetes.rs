//! The manifests: Kubernetes takes them, their parts know each other, their configurations load and start, and a drain has its time.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;
use tidegate::config;

use super::{RESERVE, check, deploy, documents, drain_of, project, read, said};
use crate::support::program::Program;
use crate::support::tools;

/// Each rendering, and the oldest Kubernetes that takes it: unhealthyPodEvictionPolicy came with 1.26, and a restartPolicy of init
/// containers with 1.28 (on by default from 1.29).
const RENDERED: &[(&str, &str)] = &[
    ("base", "1.26"),
    ("overlays/deployment", "1.26"),
    ("overlays/gateway-api", "1.26"),
    ("overlays/sidecar", "1.28"),
];

fn render(folder: &Path) -> String {
    said(Command::new(tools::kustomize()).arg("build").arg(folder))
}

/// The objects of one rendering.
fn objects(name: &str) -> Vec<Value> {
    documents(&render(&deploy("kubernetes").join(name)))
}

fn of_kind<'a>(objects: &'a [Value], kind: &str) -> Vec<&'a Value> {
    objects
        .iter()
        .filter(|object| object["kind"] == kind)
        .collect()
}

/// What `tests/deploy/manifests.py` says of it.
pub(super) fn validated(yaml: &str, arguments: &[&str]) -> String {
    let mut child = Command::new(tools::python())
        .arg(project().join("tests/deploy/manifests.py"))
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(yaml.as_bytes())
        .unwrap();
    let output = child.wait_with_output().unwrap();
    let told = String::from_utf8(output.stdout).unwrap();
    let errors = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{arguments:?}: {errors}");
    told
}

/// The workloads with their Pod templates.
fn workloads(objects: &[Value]) -> Vec<&Value> {
    let found: Vec<_> = objects
        .iter()
        .filter(|object| object["spec"]["template"].is_object())
        .collect();
    assert_eq!(found.len(), 1);
    found
}

/// Every container of a Pod, init containers too.
fn containers(pod: &Value) -> Vec<&Value> {
    let lists = [&pod["initContainers"], &pod["containers"]];
    lists
        .into_iter()
        .filter_map(Value::as_array)
        .flatten()
        .collect()
}

fn gateway(pod: &Value) -> &Value {
    let mut found = containers(pod);
    found.retain(|container| container["name"] == "tidegate");
    found[0]
}

pub(super) fn array(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// The text of the ConfigMap that the gateway mounts.
fn configuration(objects: &[Value]) -> String {
    let mut maps = of_kind(objects, "ConfigMap");
    // Its name is the one in the volume: a hash behind it would roll every Pod at each change.
    maps.retain(|map| map["metadata"]["name"] == "tidegate");
    maps[0]["data"]["tidegate.yaml"]
        .as_str()
        .unwrap()
        .to_owned()
}

#[test]
fn kubernetes_takes_every_rendering_from_its_oldest_version_to_the_newest() {
    for (name, oldest) in RENDERED {
        let told = validated(&render(&deploy("kubernetes").join(name)), &[oldest]);
        assert!(
            told.contains(" good by ") && told.contains("1.37"),
            "{name}: {told}"
        );
    }
}

/// An overlay of an operator's own, with what is optional.
#[test]
fn components_fit_the_deployment() {
    let folder = TempDir::new().unwrap();
    let copied = folder.path().join("kubernetes");
    said(
        Command::new("cp")
            .arg("-r")
            .args([&deploy("kubernetes"), &copied]),
    );
    let own = copied.join("overlays/own");
    std::fs::create_dir(&own).unwrap();
    let components = std::fs::read_dir(copied.join("components")).unwrap();
    let mut yaml = "resources: [../deployment]\ncomponents:\n".to_owned();
    for component in components.map(|entry| entry.unwrap().file_name()) {
        // The overlay has it already.
        if component != "servicemonitor" {
            yaml.push_str(&format!("  - ../../components/{}\n", component.display()));
        }
    }
    std::fs::write(own.join("kustomization.yaml"), yaml).unwrap();
    let rendered = render(&own);
    validated(&rendered, &["1.26"]);
    let objects = documents(&rendered);
    let metrics = &of_kind(&objects, "HorizontalPodAutoscaler")[0]["spec"]["metrics"];
    assert_eq!(metrics[1]["pods"]["metric"]["name"], "tidegate_sessions");
}

/// https://kubernetes.io/docs/concepts/security/pod-security-standards/, the profile Restricted, control by control.
#[test]
fn every_pod_is_restricted() {
    for (name, _) in RENDERED {
        for workload in workloads(&objects(name)) {
            let pod = &workload["spec"]["template"]["spec"];
            for shared in ["hostNetwork", "hostPID", "hostIPC", "hostUsers"] {
                assert!(pod[shared].is_null(), "{name}: {shared}");
            }
            let volumes = [
                "configMap",
                "secret",
                "emptyDir",
                "projected",
                "persistentVolumeClaim",
            ];
            for volume in array(&pod["volumes"]) {
                let known = volumes.iter().any(|kind| volume[kind].is_object());
                assert!(
                    known && volume.as_object().unwrap().len() == 2,
                    "{name}: {volume}"
                );
            }
            let context = &pod["securityContext"];
            assert_eq!(context["seccompProfile"]["type"], "RuntimeDefault");
            assert_eq!(context["runAsNonRoot"], true);
            assert_eq!(
                (&context["runAsUser"], &context["fsGroup"]),
                (&json!(65532), &json!(65532))
            );
            let safe = [
                "net.ipv4.ip_local_port_range",
                "net.ipv4.ip_unprivileged_port_start",
            ];
            for sysctl in array(&context["sysctls"]) {
                assert!(
                    safe.contains(&sysctl["name"].as_str().unwrap()),
                    "{name}: {sysctl}"
                );
            }
            for other in ["seLinuxOptions", "appArmorProfile", "windowsOptions"] {
                assert!(context[other].is_null(), "{name}: {other}");
            }
            for container in containers(pod) {
                let expected = json!({
                    "allowPrivilegeEscalation": false,
                    "readOnlyRootFilesystem": true,
                    "capabilities": { "drop": ["ALL"] },
                });
                assert_eq!(container["securityContext"], expected, "{name}");
                for port in array(&container["ports"]) {
                    assert!(port["hostPort"].is_null(), "{name}: {port}");
                }
                assert!(
                    container["resources"]["limits"]["memory"].is_string(),
                    "{name}"
                );
            }
            assert_eq!(pod["automountServiceAccountToken"], false, "{name}");
        }
    }
}

#[test]
fn the_configuration_in_each_config_map_loads_and_fits_its_container() {
    for (name, _) in RENDERED {
        let objects = objects(name);
        let text = configuration(&objects);
        check(&text);
        let loaded = config::parse(Path::new("tidegate.yaml"), &text).unwrap();
        let mut listened: BTreeSet<u16> = loaded
            .config
            .listeners
            .iter()
            .map(|listener| listener.address.port())
            .collect();
        listened.insert(loaded.config.admin.unwrap().address.port());
        let pod = &workloads(&objects)[0]["spec"]["template"]["spec"];
        let ports = array(&gateway(pod)["ports"]);
        let exposed = ports
            .iter()
            .map(|port| port["containerPort"].as_u64().unwrap());
        let exposed: BTreeSet<u16> = exposed.map(|port| port.try_into().unwrap()).collect();
        assert_eq!(exposed, listened, "{name}");
        let sysctls = array(&pod["securityContext"]["sysctls"]);
        let first = sysctls
            .iter()
            .find(|sysctl| sysctl["name"] == "net.ipv4.ip_unprivileged_port_start");
        let first: u16 = first.unwrap()["value"].as_str().unwrap().parse().unwrap();
        assert!(listened.iter().all(|&port| port >= first), "{name}");
    }
}

/// Without its broker, and without the cluster's name server: what a Pod finds on its first start.
#[tokio::test]
async fn each_gateway_is_started_and_ready_before_its_broker() {
    for (name, _) in RENDERED {
        let mut text = configuration(&objects(name));
        for port in ["443", "80", "9090"] {
            text = text.replace(&format!("\"[::]:{port}\""), "\"127.0.0.1:0\"");
        }
        let authority = TempDir::new().unwrap();
        let files = crate::support::authority::Authority::make(authority.path());
        let tickets = authority.path().join("ticket.keys");
        std::fs::write(&tickets, super::TICKET_KEY).unwrap();
        text = text
            .replace("/etc/tidegate-tls/tls.crt", files.chain.to_str().unwrap())
            .replace("/etc/tidegate-tls/tls.key", files.key.to_str().unwrap())
            .replace(
                "/etc/tidegate-tickets/ticket.keys",
                tickets.to_str().unwrap(),
            )
            .replace("format: json", "format: text")
            .replace("127.0.0.1:1883", "127.0.0.1:1");
        let program = Program::run(&text).await;
        let pod = workloads(&objects(name))[0]["spec"]["template"]["spec"].clone();
        for (probe, limit) in [
            ("startupProbe", 60),
            ("readinessProbe", 10),
            ("livenessProbe", 60),
        ] {
            let probe = &gateway(&pod)[probe];
            assert_eq!(probe["httpGet"]["port"], "admin");
            let path = probe["httpGet"]["path"].as_str().unwrap();
            assert_eq!(program.admin.get(path).await.0, 200, "{name}: {path}");
            let patience = probe["periodSeconds"].as_u64().unwrap()
                * probe["failureThreshold"].as_u64().unwrap();
            assert_eq!(patience, limit, "{name}: {path}");
        }
        assert_eq!(
            gateway(&pod)["startupProbe"]["httpGet"]["path"],
            "/startupz"
        );
    }
}

fn grace(pod: &Value) -> Duration {
    Duration::from_secs(pod["terminationGracePeriodSeconds"].as_u64().unwrap())
}

#[test]
fn the_grace_period_is_longer_than_the_drain() {
    for (name, _) in RENDERED
        .iter()
        .filter(|(name, _)| !name.ends_with("sidecar"))
    {
        let objects = objects(name);
        let pod = &workloads(&objects)[0]["spec"]["template"]["spec"];
        let needed = drain_of(&configuration(&objects)) + RESERVE;
        assert!(grace(pod) >= needed, "{name} needs {needed:?}");
        // The announcement is the gateway's own; a preStop beside it would wait twice.
        assert!(gateway(pod)["lifecycle"].is_null(), "{name}");
    }
}

/// SIGTERM reaches a sidecar when the broker has ended: too late for a drain.
#[test]
fn the_broker_of_a_sidecar_waits_for_the_drain_before_it_ends() {
    let objects = objects("overlays/sidecar");
    let pod = &workloads(&objects)[0]["spec"]["template"]["spec"];
    assert_eq!(pod["initContainers"][0]["name"], "tidegate");
    assert_eq!(pod["initContainers"][0]["restartPolicy"], "Always");
    let command = array(&pod["containers"][0]["lifecycle"]["preStop"]["exec"]["command"]);
    let url = command.last().unwrap().as_str().unwrap();
    let wait = url
        .strip_prefix("http://127.0.0.1:9090/drain?wait=")
        .unwrap();
    let wait = Duration::from_secs(wait.strip_suffix('s').unwrap().parse().unwrap());
    let drain = drain_of(&configuration(&objects));
    assert!(wait > drain, "it would leave before the drain's {drain:?}");
    assert!(
        grace(pod) >= wait + 2 * RESERVE,
        "after the wait, two more programs end"
    );
}

/// Whether every pair of the selector is in the labels.
fn selects(selector: &Value, labels: &Value) -> bool {
    let pairs = selector.as_object().unwrap();
    !pairs.is_empty() && pairs.iter().all(|(key, value)| labels[key] == *value)
}

#[test]
fn what_names_another_object_names_one_that_is_there() {
    for (name, _) in RENDERED {
        let objects = objects(name);
        let workload = workloads(&objects)[0];
        let template = &workload["spec"]["template"];
        let labels = &template["metadata"]["labels"];
        let pod = &template["spec"];
        let ports: BTreeSet<&str> = containers(pod)
            .iter()
            .flat_map(|container| array(&container["ports"]))
            .map(|port| port["name"].as_str().unwrap())
            .collect();
        assert!(
            selects(&workload["spec"]["selector"]["matchLabels"], labels),
            "{name}"
        );
        for service in of_kind(&objects, "Service") {
            assert!(
                selects(&service["spec"]["selector"], labels),
                "{name}: {service}"
            );
            for port in array(&service["spec"]["ports"]) {
                let target = port["targetPort"].as_str().unwrap();
                assert!(ports.contains(target), "{name}: {target}");
            }
        }
        for policy in ["PodDisruptionBudget", "NetworkPolicy"] {
            for object in of_kind(&objects, policy) {
                let selector = [&object["spec"]["selector"], &object["spec"]["podSelector"]];
                let selector = selector
                    .iter()
                    .find(|selector| selector.is_object())
                    .unwrap();
                assert!(
                    selects(&selector["matchLabels"], labels),
                    "{name}: {object}"
                );
            }
        }
        for spread in array(&pod["topologySpreadConstraints"]) {
            assert!(
                selects(&spread["labelSelector"]["matchLabels"], labels),
                "{name}"
            );
        }
        for volume in array(&pod["volumes"]) {
            if let Some(map) = volume["configMap"]["name"].as_str() {
                let found = of_kind(&objects, "ConfigMap");
                assert!(
                    found.iter().any(|object| object["metadata"]["name"] == map),
                    "{map}"
                );
            }
        }
        let version = env!("CARGO_PKG_VERSION");
        assert_eq!(
            gateway(pod)["image"],
            format!("tidegate:{version}"),
            "{name}"
        );
    }
}

#[test]
fn the_deployment_is_scaled_watched_and_certified_as_one() {
    let objects = objects("overlays/gateway-api");
    let one = |kind: &str| {
        let found = of_kind(&objects, kind);
        assert_eq!(found.len(), 1, "{kind}");
        found[0].clone()
    };
    let deployment = one("Deployment");
    let scaler = one("HorizontalPodAutoscaler");
    assert_eq!(
        scaler["spec"]["scaleTargetRef"]["name"],
        deployment["metadata"]["name"]
    );
    // Two owners of one number would scale it to and fro.
    assert!(deployment["spec"]["replicas"].is_null());
    let pod = &deployment["spec"]["template"]["spec"];
    let certificate = one("Certificate");
    let secret = &certificate["spec"]["secretName"];
    let mounted = array(&pod["volumes"])
        .iter()
        .any(|volume| volume["secret"]["secretName"] == *secret);
    assert!(mounted, "{secret}");
    // Nobody ships a secret: the page says how to make it, by the names that are mounted here.
    let page = read(&project().join("docs/deploy.md"));
    let tickets = "create secret generic tidegate-ticket-keys --from-literal=ticket.keys=";
    let named = array(&pod["volumes"])
        .iter()
        .any(|volume| volume["secret"]["secretName"] == "tidegate-ticket-keys");
    assert!(page.contains(tickets) && named);
    let monitor = one("ServiceMonitor");
    let services = of_kind(&objects, "Service");
    let watched: Vec<_> = services
        .iter()
        .filter(|service| {
            selects(
                &monitor["spec"]["selector"]["matchLabels"],
                &service["metadata"]["labels"],
            )
        })
        .collect();
    assert_eq!(watched.len(), 1);
    let port = &monitor["spec"]["endpoints"][0]["port"];
    assert_eq!(watched[0]["spec"]["ports"][0]["name"], *port);
    let route = one("TLSRoute");
    let backend = &route["spec"]["rules"][0]["backendRefs"][0];
    let service = services
        .iter()
        .find(|service| service["metadata"]["name"] == backend["name"])
        .unwrap();
    let found = array(&service["spec"]["ports"])
        .iter()
        .any(|port| port["port"] == backend["port"]);
    assert!(found && service["spec"]["type"] == "ClusterIP", "{service}");
    for host in array(&route["spec"]["hostnames"]) {
        assert!(
            array(&certificate["spec"]["dnsNames"]).contains(host),
            "{host}"
        );
    }
    // The balancer must not carry the port that starts drains.
    for service in services
        .iter()
        .filter(|service| service["metadata"]["name"] == "tidegate")
    {
        assert!(
            array(&service["spec"]["ports"])
                .iter()
                .all(|port| port["targetPort"] != "admin")
        );
    }
}
