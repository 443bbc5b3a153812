//! Which series the roll-ups of a partition have: the first that come, up to a number per service and one in all. The
//! spans of the others are counted in series named `OVERFLOW`, so that no question misses them.

use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use crate::limits::{OVERFLOW, SERIES_MAX, SERVICE_SERIES_MAX};
use crate::model::{Family, SeriesKey};

/// The series admitted so far.
#[derive(Debug, Default)]
pub(super) struct Admission {
    admitted: BTreeSet<Arc<SeriesKey<'static>>>,
    of_service: HashMap<(String, String), usize>,
}

/// Under what a series that is not admitted is counted, first without a name of its own, then without a service.
fn overflow_forms(key: &SeriesKey<'static>) -> [SeriesKey<'static>; 2] {
    let mut nameless = key.clone();
    match &mut nameless.family {
        Some(Family::Peel { attributes }) => {
            for (_, value) in attributes {
                *value = Cow::Borrowed(OVERFLOW);
            }
        }
        Some(Family::Edge { namespace, client, .. }) => {
            (*namespace, *client) = (Cow::Borrowed(""), Cow::Borrowed(OVERFLOW));
        }
        None | Some(Family::Untimed) => nameless.span_name = Cow::Borrowed(OVERFLOW),
    }
    let (namespace, service) = (Cow::Borrowed(""), Cow::Borrowed(OVERFLOW));
    let homeless = SeriesKey { namespace, service, ..nameless.clone() };
    [nameless, homeless]
}

impl Admission {
    /// Takes the series in, or what it is counted under.
    pub(super) fn admit(&mut self, key: &Arc<SeriesKey<'static>>) {
        if self.admitted.contains(key) {
            return;
        }
        let service = (key.namespace.to_string(), key.service.to_string());
        let of_service = self.of_service.get(&service).copied().unwrap_or(0);
        if SERIES_MAX <= self.admitted.len() || SERVICE_SERIES_MAX <= of_service {
            // A service that is known has a few nameless series: one for each kind and status.
            let [nameless, homeless] = overflow_forms(key);
            let _new = self.admitted.insert(Arc::new(if of_service == 0 { homeless } else { nameless }));
            return;
        }
        let _new = self.admitted.insert(Arc::clone(key));
        *self.of_service.entry(service).or_default() += 1;
    }

    /// All of them, in order.
    pub(super) fn into_series(self) -> Vec<Arc<SeriesKey<'static>>> {
        self.admitted.into_iter().collect()
    }
}

/// The position in `series`, which ascend, under which spans of `key` are counted; `None` when nothing of it was admitted.
pub(super) fn position(series: &[Arc<SeriesKey<'static>>], key: &SeriesKey<'static>) -> Option<usize> {
    let find = |key: &SeriesKey<'static>| series.binary_search_by(|known| (**known).cmp(key)).ok();
    find(key).or_else(|| overflow_forms(key).iter().find_map(find))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{SpanKind, SpanStatus};

    fn key(service: usize, name: usize) -> Arc<SeriesKey<'static>> {
        Arc::new(SeriesKey {
            namespace: "shop".into(),
            service: format!("service-{service:05}").into(),
            span_name: format!("call {name:05}").into(),
            kind: SpanKind::Server,
            status: SpanStatus::Unset,
            entry: true,
            family: None,
        })
    }

    #[test]
    fn every_series_over_the_cap_of_its_service_is_counted_under_one_name() {
        let mut admission = Admission::default();
        (0..SERVICE_SERIES_MAX + 50).for_each(|name| admission.admit(&key(1, name)));
        admission.admit(&key(2, 0));
        let series = admission.into_series();
        assert_eq!(series.len(), SERVICE_SERIES_MAX + 2);
        let name_of = |name| series[position(&series, &key(1, name)).unwrap()].span_name.to_string();
        assert_eq!(name_of(0), "call 00000");
        assert_eq!(name_of(SERVICE_SERIES_MAX), OVERFLOW);
        assert_eq!(position(&series, &key(3, 0)), None, "nothing of it came");
    }

    #[test]
    fn services_over_the_cap_of_all_series_are_counted_under_one_service() {
        let mut admission = Admission::default();
        (0..SERIES_MAX + 50).for_each(|service| admission.admit(&key(service, 0)));
        (0..20).for_each(|name| admission.admit(&key(7, name)));
        let series = admission.into_series();
        assert_eq!(series.len(), SERIES_MAX + 2);
        let of = |service, name| &series[position(&series, &key(service, name)).unwrap()];
        assert_eq!((&*of(SERIES_MAX, 0).service, &*of(7, 0).span_name), (OVERFLOW, "call 00000"));
        assert_eq!((&*of(7, 3).service, &*of(7, 3).span_name), ("service-00007", OVERFLOW));
    }
}
