//! Which attributes are stored, and with which values: what a person can filter by. The newest blocks are looked at first, and
//! no longer than a person waits.

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::time::Duration;

use crate::block::{AttributeOwner, BlockSummary};
use crate::clock;
use crate::model::{Rows, SpanBatch, TimeRange, UnixNanos};
use crate::store::{OpenPartition, Partition, Snapshot, StoreError};

use super::traceql::{Field, FieldValue, Filter, SpanScan};
use super::{Coverage, Query, QueryError, coverage_of};

/// After this the answer is what was found so far.
const WITHIN: Duration = Duration::from_secs(5);

/// Sees a block, by its number; a break ends the walk.
type EachBlock<'a> = &'a mut dyn FnMut(&OpenPartition, u64) -> Result<ControlFlow<()>, StoreError>;

/// Whose attributes there are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TagNames {
    /// Of resources.
    pub resource: BTreeSet<String>,
    /// Of spans.
    pub span: BTreeSet<String>,
    /// Of events.
    pub event: BTreeSet<String>,
    /// Of links.
    pub link: BTreeSet<String>,
    /// Of instrumentation scopes.
    pub instrumentation: BTreeSet<String>,
    /// What is missing.
    pub coverage: Coverage,
}

/// Which values are asked for.
#[derive(Clone, Debug)]
pub struct TagValuesQuestion {
    /// Of any of these fields.
    pub fields: Vec<Field>,
    /// Of spans of which this is true; `None` takes all.
    pub filter: Option<Filter>,
    /// When they start.
    pub range: TimeRange,
    /// Values in the answer.
    pub values_max: usize,
}

/// The values of some fields.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TagValues {
    /// Each once; elements of arrays count by themselves.
    pub values: BTreeSet<FieldValue>,
    /// What is missing.
    pub coverage: Coverage,
}

impl Query {
    /// The attributes of spans that start in `range`, to the block, and of what they belong to; at most `names_max` of each
    /// kind. Cost: the tables of the newest blocks, and the spans of the heads.
    ///
    /// # Errors
    /// `Starting`.
    pub fn tag_names(&self, range: TimeRange, names_max: usize) -> Result<TagNames, QueryError> {
        let snapshot = self.store()?.snapshot();
        let mut names = TagNames { coverage: coverage_of(&snapshot), ..TagNames::default() };
        for batch in snapshot.heads.iter().flat_map(|head| &head.batches) {
            names.add_batch(batch, range, names_max);
        }
        let scan = SpanScan { filter: None, range };
        let mut coverage = std::mem::take(&mut names.coverage);
        self.newest_blocks(&snapshot, &scan, &mut coverage, &mut |open, block_no| {
            open.scan(block_no, |block| {
                for (owner, key) in block.attribute_keys() {
                    let of_owner = match owner {
                        AttributeOwner::Span => &mut names.span,
                        AttributeOwner::Event => &mut names.event,
                        AttributeOwner::Link => &mut names.link,
                    };
                    add(of_owner, &String::from_utf8_lossy(key), names_max);
                }
                names.add_scopes(block.scopes()?, names_max);
                Ok(())
            })?;
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(TagNames { coverage, ..names })
    }

    /// The values that spans have of some fields. Cost: the columns of fields and filter in the newest blocks, where each
    /// text of a dictionary is looked at once; fields of events and links need whole spans.
    ///
    /// # Errors
    /// `Starting`.
    pub fn tag_values(&self, question: &TagValuesQuestion) -> Result<TagValues, QueryError> {
        let snapshot = self.store()?.snapshot();
        let mut coverage = coverage_of(&snapshot);
        let mut values = BTreeSet::new();
        let mut add = |value| {
            if values.len() < question.values_max {
                let _new = values.insert(value);
            }
            if values.len() < question.values_max { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        };
        let scan = SpanScan { filter: question.filter.as_ref(), range: question.range };
        for batch in snapshot.heads.iter().flat_map(|head| &head.batches) {
            for field in &question.fields {
                scan.batch_values(batch, field, &mut add);
            }
        }
        self.newest_blocks(&snapshot, &scan, &mut coverage, &mut |open, block_no| {
            for field in &question.fields {
                if scan.block_values(open, block_no, field, &mut add)?.is_break() {
                    return Ok(ControlFlow::Break(()));
                }
            }
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(TagValues { values, coverage })
    }

    /// Calls `each` with the blocks that can hold wanted spans, the newest partition first and its newest block, until it
    /// breaks or takes too long.
    fn newest_blocks(
        &self,
        snapshot: &Snapshot,
        scan: &SpanScan<'_>,
        coverage: &mut Coverage,
        each: EachBlock<'_>,
    ) -> Result<(), QueryError> {
        let began = clock::instant();
        let newest = |partition: &Partition| partition.manifest().map_or(UnixNanos(u64::MAX), |sealed| sealed.max_time);
        let may_be_in = |partition: &Partition| {
            partition.manifest().is_none_or(|sealed| {
                scan.may_lie_between(sealed.min_time, sealed.max_time) && scan.is_among(sealed.counted_services())
            })
        };
        let mut partitions: Vec<_> = snapshot.partitions.iter().filter(|(one, _)| may_be_in(one)).collect();
        partitions.sort_by_key(|(partition, _)| Reverse(newest(partition)));
        for (partition, visible) in partitions {
            let open = match self.store()?.open_partition(partition) {
                Ok(open) => open,
                Err(error) => {
                    self.unreadable(coverage, &format!("partition {}", partition.name()), &error);
                    continue;
                }
            };
            let blocks = open.blocks(*visible).into_iter().rev();
            let wanted = |summary: &BlockSummary| scan.may_be_in(summary);
            for block_no in blocks.filter_map(|(no, block)| wanted(block?.summary()).then_some(no)) {
                match self.is_in_time(began, WITHIN) {
                    Ok(()) => {}
                    Err(QueryError::TooLong { within }) => {
                        coverage.missing(format!("only the newest blocks were looked at, for {}s", within.as_secs()));
                        return Ok(());
                    }
                    Err(error) => return Err(error),
                }
                match each(&open, block_no) {
                    Ok(ControlFlow::Continue(())) => {}
                    Ok(ControlFlow::Break(())) => return Ok(()),
                    Err(error) => self.unreadable(coverage, &format!("block {block_no}"), &error),
                }
            }
        }
        Ok(())
    }
}

impl TagNames {
    fn add_batch(&mut self, batch: &SpanBatch, range: TimeRange, names_max: usize) {
        if !batch.spans.iter().any(|span| range.contains(span.start_time_unix_nano)) {
            return;
        }
        for span in &batch.spans {
            add_all(&mut self.span, batch, span.attributes, names_max);
            batch
                .events(span.events)
                .iter()
                .for_each(|event| add_all(&mut self.event, batch, event.attributes, names_max));
            batch.links(span.links).iter().for_each(|link| add_all(&mut self.link, batch, link.attributes, names_max));
        }
        self.add_scopes(batch, names_max);
    }

    fn add_scopes(&mut self, batch: &SpanBatch, names_max: usize) {
        for scope in &batch.scopes {
            add_all(&mut self.instrumentation, batch, scope.attributes, names_max);
        }
        for resource in &batch.resources {
            add_all(&mut self.resource, batch, resource.attributes, names_max);
        }
    }
}

fn add_all(names: &mut BTreeSet<String>, batch: &SpanBatch, attributes: Rows, names_max: usize) {
    for attribute in batch.attributes(attributes) {
        add(names, &batch.text_lossy(attribute.key), names_max);
    }
}

/// The empty key is no field.
fn add(names: &mut BTreeSet<String>, name: &str, names_max: usize) {
    if names.len() < names_max && !name.is_empty() && !names.contains(name) {
        let _new = names.insert(name.to_owned());
    }
}
