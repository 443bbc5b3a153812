//! Which services are stored.

use std::collections::BTreeMap;

use crate::model::UnixNanos;
use crate::store::Snapshot;

use super::{Query, QueryError};

/// One service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceRow {
    /// `service.namespace`, empty when missing.
    pub namespace: String,
    /// `service.name`.
    pub name: String,
    /// Spans that are stored, or were until their retention was over: roll-ups still count them.
    pub span_count: u64,
    /// Latest end of a span.
    pub last_seen: UnixNanos,
}

impl Query {
    /// Every stored service, by namespace and name. Cost: block summaries and one pass over the head.
    ///
    /// # Errors
    /// `Starting`, `Store`.
    pub fn services(&self) -> Result<Vec<ServiceRow>, QueryError> {
        let snapshot = self.store()?.snapshot();
        let mut rows: BTreeMap<(String, String), (u64, UnixNanos)> = BTreeMap::new();
        let mut add = |namespace: &str, name: &str, spans: u64, last_seen: UnixNanos| {
            let (count, last) = rows.entry((namespace.to_owned(), name.to_owned())).or_default();
            *count += spans;
            *last = (*last).max(last_seen);
        };
        self.services_in_blocks(&snapshot, &mut add)?;
        for batch in snapshot.heads.iter().flat_map(|head| &head.batches) {
            for span in &batch.spans {
                let (namespace, service) = batch.service_of(span);
                add(&namespace, &service, 1, span.index_time());
            }
        }
        let rows = rows.into_iter().map(|((namespace, name), (span_count, last_seen))| ServiceRow {
            namespace,
            name,
            span_count,
            last_seen,
        });
        Ok(rows.collect())
    }

    fn services_in_blocks(
        &self,
        snapshot: &Snapshot,
        add: &mut dyn FnMut(&str, &str, u64, UnixNanos),
    ) -> Result<(), QueryError> {
        for (partition, visible) in &snapshot.partitions {
            if let Some(manifest) = partition.manifest() {
                for count in manifest.counted_services() {
                    add(&count.namespace, &count.service, count.spans, count.last_seen);
                }
                continue;
            }
            let open = self.store()?.open_partition(partition)?;
            for block in open.blocks(*visible).into_iter().filter_map(|(_, block)| block) {
                for count in &block.summary().services {
                    add(&count.namespace, &count.service, count.spans, count.last_seen);
                }
            }
        }
        Ok(())
    }

    /// Stored names closest to `service`, best first, at most three.
    pub(super) fn nearest_services(&self, service: &str) -> Result<Vec<String>, QueryError> {
        let mut names: Vec<String> = self.services()?.into_iter().map(|row| row.name).collect();
        names.sort_unstable();
        names.dedup();
        let likeness = |name: &String| strsim::jaro_winkler(&name.to_lowercase(), &service.to_lowercase());
        names.sort_by(|a, b| likeness(b).total_cmp(&likeness(a)));
        names.truncate(3);
        Ok(names)
    }
}
