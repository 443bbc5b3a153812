//! Is a later generation what it says? Its spans are counted by its roll-ups, its roll-ups agree with each other, and its
//! exemplars lead to spans that are here.

use std::collections::{BTreeMap, HashMap};
use std::ops::ControlFlow;
use std::sync::Arc;

use crate::latency::{Bucket, Resolution, SeriesWanted, Slot, Take};
use crate::model::{DurationNanos, SeriesKey};

use super::super::seal::{self, Tally};
use super::super::{Manifest, OpenPartition, StoreError};
use super::tables;

type Wrong = Result<(), String>;

/// Compares a later generation with what its manifest says and with itself.
///
/// # Errors
/// `Unverified`, and whatever reading it meets.
pub(in crate::store) fn verify(open: &OpenPartition, manifest: &Manifest) -> Result<(), StoreError> {
    open.pages.verify_pages()?;
    // Families are counted when their block is made first, with what came before: a copy of it may count fewer calls.
    let mut recounted = seal::as_admitted(seal::recount(open)?, open)?;
    recounted.retain(|(key, _), _| key.family.is_none());
    let checks = [
        spans(open, manifest)?,
        histograms(open, manifest, &recounted)?,
        resolutions_agree(open, manifest)?,
        exemplars(open)?,
    ];
    match checks.into_iter().collect::<Wrong>() {
        Ok(()) => Ok(()),
        Err(what) => Err(StoreError::Unverified { path: open.pages.path().to_path_buf(), what }),
    }
}

/// Services that stay have all their spans, the others at most those that are counted.
fn spans(open: &OpenPartition, manifest: &Manifest) -> Result<Wrong, StoreError> {
    let (checkpoint, mut stored) = (open.checkpoint(), 0);
    for block_no in open.block_numbers() {
        stored += u64::from(open.readable_block(block_no)?.summary().spans);
    }
    if [checkpoint.spans, manifest.spans] != [stored; 2] || checkpoint.blocks != manifest.blocks {
        return Ok(Err(format!("blocks hold {stored} spans, SEALED says {}", manifest.spans)));
    }
    let found = seal::merge_services(open);
    for count in &manifest.services {
        if !found.contains(count) {
            return Ok(Err(format!("of {:?}, which stays, not every span is here", count.service)));
        }
    }
    let counts_all = manifest.finest.is_some();
    let known = |name: &(&str, &str)| {
        manifest.counted_services().find(|count| (count.namespace.as_str(), count.service.as_str()) == *name)
    };
    for count in found.iter().filter(|_| counts_all) {
        let name = (count.namespace.as_str(), count.service.as_str());
        if known(&name).is_none_or(|known| known.spans < count.spans) {
            return Ok(Err(format!("{:?} has more spans than SEALED knows of", count.service)));
        }
    }
    Ok(Ok(()))
}

/// What is stored is counted: of services that stay all and nothing else, of others at least that.
fn histograms(open: &OpenPartition, manifest: &Manifest, recounted: &Tally) -> Result<Wrong, StoreError> {
    let stays = |key: &SeriesKey<'_>| {
        key.family.is_none() && manifest.services.iter().any(|count| count.service == *key.service)
    };
    let rolled_up = seal::tally_rollups(open, Resolution::TenSeconds)?;
    let of_staying = |tally: &Tally| tally.iter().filter(|((key, _), _)| stays(key)).count();
    let differ = recounted.iter().find(|(at, count)| stays(&at.0) && rolled_up.get(at) != Some(count));
    if differ.is_some() || of_staying(recounted) != of_staying(&rolled_up) {
        return Ok(Err("the 10 s histograms of a service that stays differ from a recount".to_owned()));
    }
    let Some(finest) = manifest.finest else { return Ok(Ok(())) };
    for resolution in Resolution::ALL.into_iter().filter(|resolution| finest <= *resolution) {
        let rolled_up = seal::tally_rollups(open, resolution)?;
        let mut coarse = Tally::new();
        for ((key, slot), (count, sum)) in recounted {
            let slot = Resolution::TenSeconds.coarsen(*slot, resolution).unwrap_or_default();
            let (all, total) = coarse.entry((Arc::clone(key), slot)).or_default();
            (*all, *total) = (*all + count, *total + sum);
        }
        let counts = |at: &(Arc<SeriesKey<'static>>, Slot), count: &(u64, u128)| {
            rolled_up.get(at).is_some_and(|known| count.0 <= known.0 && count.1 <= known.1)
        };
        if coarse.iter().any(|(at, count)| !counts(at, count)) {
            let secs = resolution.secs();
            return Ok(Err(format!("the roll-ups of {secs} s count less than what is stored")));
        }
    }
    Ok(Ok(()))
}

/// Each series counts the same at all resolutions that it has.
fn resolutions_agree(open: &OpenPartition, manifest: &Manifest) -> Result<Wrong, StoreError> {
    let totals = tables::totals(open)?;
    let days = || totals.iter().filter(|((resolution, _), _)| *resolution == Resolution::Day);
    for ((_, key), total) in days() {
        let stays = manifest.services.iter().any(|count| count.service == *key.service);
        let finest = if stays { Some(Resolution::TenSeconds) } else { manifest.finest };
        let has = |resolution: &Resolution| finest.is_some_and(|finest| finest <= *resolution);
        let mut finer = Resolution::ALL.into_iter().filter(has);
        if let Some(differs) = finer.find(|finer| totals.get(&(*finer, Arc::clone(key))) != Some(total)) {
            let secs = differs.secs();
            return Ok(Err(format!("roll-ups of {secs} s count otherwise than those of a day")));
        }
    }
    let n_series = |resolution| totals.keys().filter(|(of, _)| *of == resolution).count();
    let known = n_series(Resolution::Day);
    Ok(match Resolution::ALL.into_iter().find(|resolution| known < n_series(*resolution)) {
        Some(more) => Err(format!("roll-ups of {} s know series that those of a day do not", more.secs())),
        None => Ok(()),
    })
}

/// Every exemplar is a span of its series, with a latency of its bucket, of a pinned trace or of a service that stays.
fn exemplars(open: &OpenPartition) -> Result<Wrong, StoreError> {
    let mut wanted: BTreeMap<u64, HashMap<u32, (Bucket, Arc<SeriesKey<'static>>)>> = BTreeMap::new();
    let series = open.rollup_series()?;
    let mut twice = false;
    for window in Resolution::ALL.into_iter().flat_map(|resolution| open.rollup_windows(resolution)) {
        open.rollup(window).read(
            &SeriesWanted::ALL,
            Slot::ALL,
            Take::Exemplars(&mut |number, _, latency| {
                // Families show spans that their own series may show too.
                let Some(key) = series.get(number as usize).filter(|key| key.family.is_none()) else { return };
                for exemplar in &latency.exemplars {
                    let of_block = wanted.entry(u64::from(exemplar.block)).or_default();
                    let before = of_block.insert(exemplar.row, (exemplar.bucket(), Arc::clone(key)));
                    twice |= before.is_some_and(|before| before != (exemplar.bucket(), Arc::clone(key)));
                }
            }),
        )?;
    }
    if twice {
        return Ok(Err("one span is shown for two series or buckets".to_owned()));
    }
    for (block_no, mut rows) in wanted {
        if !open.block_numbers().contains(&block_no) {
            return Ok(Err(format!("an exemplar lies in block {block_no}, which there is not")));
        }
        let keys = open.series(block_no)?;
        open.scan_latency(block_no, &(DurationNanos(0)..=DurationNanos(u64::MAX)), &mut |row, number, _, latency| {
            if let Some((bucket, key)) = rows.get(&row)
                && *bucket == Bucket::of(latency)
                && keys.get(number as usize) == Some(key)
            {
                let _found = rows.remove(&row);
            }
            ControlFlow::Continue(())
        })?;
        if let Some((row, _)) = rows.into_iter().next() {
            return Ok(Err(format!("the exemplar in row {row} of block {block_no} is another span")));
        }
    }
    Ok(Ok(()))
}
