//! The running processes of the shop: each service has one in every zone, and each process is one OTLP resource.

use std::sync::Arc;

use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::resource::v1::Resource;

use super::attributes::{int, text};
use super::rng::Rng;
use super::topology::{SERVICES, Service};

/// Where the shop runs. The second one is the slow one, see `SLOW_ZONE`.
const ZONES: [&str; 3] = ["eu-1a", "eu-1b", "eu-1c"];
/// The zone in which `payment` is slow now and then.
pub(super) const SLOW_ZONE: &str = "eu-1b";

/// One process of a service.
#[derive(Debug)]
pub(super) struct Process {
    pub(super) service: &'static Service,
    /// Position in the fleet.
    pub(super) number: usize,
    pub(super) zone: &'static str,
    pub(super) address: String,
    pub(super) resource: Resource,
}

/// All processes; a service's stand together.
#[derive(Clone, Debug)]
pub(super) struct Fleet {
    processes: Vec<Arc<Process>>,
}

impl Fleet {
    pub(super) fn new(rng: &mut Rng) -> Self {
        let places = SERVICES.iter().flat_map(|service| ZONES.iter().map(move |zone| (*service, *zone)));
        let processes =
            places.enumerate().map(|(number, (service, zone))| Arc::new(process(rng, number, service, zone)));
        Self { processes: processes.collect() }
    }

    /// A process of `service`, any zone alike; `None` for a service outside the shop.
    pub(super) fn any_of(&self, service: &Service, rng: &mut Rng) -> Option<Arc<Process>> {
        let first = self.processes.iter().position(|process| std::ptr::eq(process.service, service))?;
        let chosen = first + usize::try_from(rng.below(ZONES.len() as u64)).unwrap_or(0);
        self.processes.get(chosen).cloned()
    }

    /// The process of `service` in `zone`.
    pub(super) fn in_zone(&self, service: &Service, zone: &str) -> Option<Arc<Process>> {
        self.processes.iter().find(|process| std::ptr::eq(process.service, service) && process.zone == zone).cloned()
    }
}

fn process(rng: &mut Rng, number: usize, service: &'static Service, zone: &'static str) -> Process {
    let address = format!("10.{}.{}.{}", rng.between(16, 31), number, rng.between(2, 250));
    let resource = Resource { attributes: resource_attributes(rng, service, zone), ..Resource::default() };
    Process { service, number, zone, address, resource }
}

fn resource_attributes(rng: &mut Rng, service: &Service, zone: &str) -> Vec<KeyValue> {
    let node = format!("ip-10-{}-{}-{}.{zone}.internal", rng.between(16, 31), rng.below(256), rng.below(256));
    let pod = format!("{}-{:08x}-{:05x}", service.name, rng.below(1 << 32), rng.below(1 << 20));
    let runtime = service.runtime;
    vec![
        text("service.name", service.name),
        text("service.namespace", service.namespace),
        text("service.version", service.version),
        text("service.instance.id", rng.uuid()),
        text("deployment.environment.name", "production"),
        text("telemetry.sdk.name", "opentelemetry"),
        text("telemetry.sdk.language", runtime.language),
        text("telemetry.sdk.version", runtime.sdk_version),
        text("host.name", pod.as_str()),
        text("k8s.cluster.name", "shop-eu-1"),
        text("k8s.namespace.name", service.namespace),
        text("k8s.deployment.name", service.name),
        text("k8s.pod.name", pod),
        text("k8s.node.name", node),
        text("cloud.provider", "example_cloud"),
        text("cloud.region", "eu-1"),
        text("cloud.availability_zone", zone),
        int("process.pid", rng.int(1, 40)),
        text("process.runtime.name", runtime.name),
        text("process.runtime.version", runtime.version),
    ]
}
