//! Which row groups of a block can hold spans of which a filter is true, as far as the block's skip index tells.

use super::ast::{AttributeScope, Expression, Field};
use super::bounds;
use crate::block::{AttributeOwner, BlockError, BlockScan, SkipIndex};
use crate::model::{DurationNanos, SeriesKey};

/// For each row group, whether it may; none may where the index excludes the whole block.
pub(super) fn groups(filter: &Expression, index: &SkipIndex<'_>) -> Result<Vec<bool>, BlockError> {
    let series = bounds::service(filter).and_then(|name| index.series_of_services(|count| count.service == name));
    let mut groups = index.groups(series.as_deref(), latency_min(filter));
    // The cheaper question came first.
    if groups.contains(&true) && !may_have_texts(filter, index)? {
        groups.fill(false);
    }
    Ok(groups)
}

/// The same of a block whose table of series is read.
pub(super) fn groups_of_series(filter: &Expression, scan: &BlockScan<'_>) -> Result<Option<Vec<bool>>, BlockError> {
    let Some(name) = bounds::name(filter) else { return Ok(None) };
    let service = bounds::service(filter);
    let is_wanted = |key: &SeriesKey<'_>| key.span_name == name && service.is_none_or(|service| key.service == service);
    let series: Vec<bool> = scan.series()?.iter().map(is_wanted).collect();
    Ok(Some(scan.skip_index().groups(Some(&series), latency_min(filter))))
}

fn latency_min(filter: &Expression) -> Option<DurationNanos> {
    let latencies = bounds::latencies(filter);
    (latencies != bounds::ANY).then_some(*latencies.start())
}

/// Whether the block may have the texts that the filter demands of attributes.
fn may_have_texts(expression: &Expression, index: &SkipIndex<'_>) -> Result<bool, BlockError> {
    match expression {
        Expression::All(parts) => {
            for part in parts {
                if !may_have_texts(part, index)? {
                    return Ok(false);
                }
            }
            Ok(true)
        }
        Expression::Any(parts) => {
            for part in parts {
                if may_have_texts(part, index)? {
                    return Ok(true);
                }
            }
            Ok(false)
        }
        comparison => match bounds::equal_text(comparison) {
            Some((Field::Attribute { scope: AttributeScope::Span, key }, text)) => {
                may_have_text(AttributeOwner::Span, key, text, index)
            }
            Some((Field::Attribute { scope: AttributeScope::Event, key }, text)) => {
                may_have_text(AttributeOwner::Event, key, text, index)
            }
            Some((Field::Attribute { scope: AttributeScope::Link, key }, text)) => {
                may_have_text(AttributeOwner::Link, key, text, index)
            }
            _ => Ok(true),
        },
    }
}

/// Whether an attribute may have the text.
pub(super) fn may_have_text(
    owner: AttributeOwner,
    key: &str,
    text: &str,
    index: &SkipIndex<'_>,
) -> Result<bool, BlockError> {
    // What is no UTF-8 reads as this character.
    if text.contains(char::REPLACEMENT_CHARACTER) {
        return Ok(true);
    }
    index.may_have_text(owner, key.as_bytes(), text.as_bytes())
}
