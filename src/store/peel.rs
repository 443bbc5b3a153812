//! Where the entry spans of a block ran: the families that split a service by its peel dimensions.
//!
//! Resources alike in every dimension are one *spot*. Dimensions that split the spots of a service alike share their
//! families: pod and host usually do, and so do all that have a single value (environment, region, version). Which ones do
//! is decided block by block, and no reader has to care: within a block every dimension is in exactly one family of a
//! span, so counts add up over blocks whatever else their families name.

use std::borrow::Cow;
use std::collections::HashMap;

use crate::limits::{OVERFLOW, PEEL_VALUES_MAX};
use crate::model::{Conventions, Family, Rows, SeriesKey, SpanBatch, SpanKind, SpanStatus};

/// The number that stands for all values over the cap.
const OVER_THE_CAP: Option<u32> = Some(PEEL_VALUES_MAX);

/// For each peel dimension the number of its value, numbered as values of the service came: so dimensions that split its
/// spots alike have equal numbers in all of them.
type Values = Vec<Option<u32>>;

/// The spots of a block, numbered as they come.
#[derive(Debug)]
pub(super) struct Spots<'a> {
    conventions: &'a Conventions,
    /// By namespace and name.
    services: HashMap<(String, String), Service>,
    /// By batch, and resource of that.
    by_resource: HashMap<(u32, u32), Spot>,
    count: u32,
}

/// A spot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Spot {
    pub(super) number: u32,
    /// Whether one of its values is over the cap.
    pub(super) is_over: bool,
}

#[derive(Debug, Default)]
struct Service {
    /// Numbers by value, for each dimension.
    numbers: Vec<HashMap<String, u32>>,
    spots: HashMap<Values, Spot>,
}

impl<'a> Spots<'a> {
    pub(super) fn new(conventions: &'a Conventions) -> Self {
        Self { conventions, services: HashMap::new(), by_resource: HashMap::new(), count: 0 }
    }

    /// The spot of a resource of a batch (number and row in that), which is of the service of `key`.
    pub(super) fn spot(
        &mut self,
        resource: (u32, u32),
        batch: &SpanBatch,
        attributes: Rows,
        key: &SeriesKey<'static>,
    ) -> Spot {
        if let Some(known) = self.by_resource.get(&resource) {
            return *known;
        }
        let dimensions = self.conventions.peel_dimensions.iter();
        let values: Vec<_> = dimensions.map(|dimension| batch.string_attribute(attributes, dimension)).collect();
        let spot = self.of_values(&key.namespace, &key.service, &values);
        let _new = self.by_resource.insert(resource, spot);
        spot
    }

    fn of_values(&mut self, namespace: &str, service: &str, values: &[Option<Cow<'_, str>>]) -> Spot {
        let service = self.services.entry((namespace.to_owned(), service.to_owned())).or_default();
        service.numbers.resize_with(values.len(), HashMap::new);
        let numbers = service.numbers.iter_mut().zip(values);
        let values: Values = numbers.map(|(known, value)| number(known, value.as_deref()?)).collect();
        let next = Spot { number: self.count, is_over: values.contains(&OVER_THE_CAP) };
        let spot = *service.spots.entry(values).or_insert(next);
        self.count += u32::from(spot == next);
        spot
    }

    /// The series that count the entry spans of each spot, but for their status.
    pub(super) fn families(&self) -> HashMap<u32, Vec<SeriesKey<'static>>> {
        let of_service = |((namespace, name), service): (&(String, String), &Service)| {
            let series = |attributes| SeriesKey {
                namespace: Cow::Owned(namespace.clone()),
                service: Cow::Owned(name.clone()),
                span_name: Cow::Borrowed(""),
                kind: SpanKind::Internal,
                status: SpanStatus::Unset,
                entry: true,
                family: Some(Family::Peel { attributes }),
            };
            let by_spot = service.attributes(&self.conventions.peel_dimensions).into_iter();
            by_spot.map(|(spot, families)| (spot, families.into_iter().map(series).collect())).collect::<Vec<_>>()
        };
        self.services.iter().flat_map(of_service).collect()
    }
}

fn number(known: &mut HashMap<String, u32>, value: &str) -> Option<u32> {
    if let Some(number) = known.get(value) {
        return Some(*number);
    }
    let next = u32::try_from(known.len()).unwrap_or(u32::MAX);
    if PEEL_VALUES_MAX <= next {
        return OVER_THE_CAP;
    }
    let _new = known.insert(value.to_owned(), next);
    Some(next)
}

/// Keys and values of one family.
type Attributes = Vec<(Cow<'static, str>, Cow<'static, str>)>;

impl Service {
    /// The families of each spot.
    fn attributes(&self, dimensions: &[String]) -> Vec<(u32, Vec<Attributes>)> {
        // Dimensions by the numbers that they have in the spots.
        let mut splits: HashMap<Values, usize> = HashMap::new();
        let mut alike: Vec<Vec<usize>> = Vec::new();
        for dimension in 0..dimensions.len() {
            let split = self.spots.keys().map(|values| values.get(dimension).copied().flatten()).collect();
            let class = *splits.entry(split).or_insert(alike.len());
            match alike.get_mut(class) {
                Some(known) => known.push(dimension),
                None => alike.push(vec![dimension]),
            }
        }
        let texts = self.numbers.iter().map(|numbers| numbers.iter().map(|(text, number)| (*number, text.as_str())));
        let texts: Vec<HashMap<u32, &str>> = texts.map(Iterator::collect).collect();
        let attribute = |dimension: usize, values: &Values| {
            let number = values.get(dimension).copied().flatten()?;
            let text = texts.get(dimension).and_then(|texts| texts.get(&number)).copied().unwrap_or(OVERFLOW);
            Some((Cow::Owned(dimensions.get(dimension)?.clone()), Cow::Owned(text.to_owned())))
        };
        let of_spot = |(values, spot): (&Values, &Spot)| {
            let family =
                |alike: &Vec<usize>| alike.iter().filter_map(|dimension| attribute(*dimension, values)).collect();
            let families = alike.iter().map(family).filter(|attributes: &Attributes| !attributes.is_empty());
            (spot.number, families.collect())
        };
        self.spots.iter().map(of_spot).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn conventions(dimensions: &[&str]) -> Conventions {
        Conventions { peel_dimensions: dimensions.iter().map(ToString::to_string).collect(), ..Conventions::default() }
    }

    /// The families of each spot of a service, as `key=value` joined by commas.
    fn families(dimensions: &[&str], spots: &[&[&str]]) -> Vec<Vec<String>> {
        let conventions = conventions(dimensions);
        let mut known = Spots::new(&conventions);
        for values in spots {
            let values: Vec<_> = values.iter().map(|text| (!text.is_empty()).then_some(Cow::Borrowed(*text))).collect();
            let _spot = known.of_values("", "cart", &values);
        }
        let shown = |key: &SeriesKey<'_>| match &key.family {
            Some(Family::Peel { attributes }) => {
                attributes.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(",")
            }
            other => panic!("{other:?}"),
        };
        let by_spot: BTreeMap<u32, Vec<String>> =
            known.families().into_iter().map(|(spot, families)| (spot, families.iter().map(shown).collect())).collect();
        by_spot.into_values().collect()
    }

    #[test]
    fn dimensions_that_split_the_spots_alike_share_their_families() {
        let spots: [&[&str]; 3] =
            [&["a", "h1", "p1", "eu", "1"], &["a", "h2", "p2", "eu", "1"], &["b", "h3", "p3", "eu", "1"]];
        let expected = [
            vec!["zone=a", "host=h1,pod=p1", "region=eu,version=1"],
            vec!["zone=a", "host=h2,pod=p2", "region=eu,version=1"],
            vec!["zone=b", "host=h3,pod=p3", "region=eu,version=1"],
        ];
        assert_eq!(families(&["zone", "host", "pod", "region", "version"], &spots), expected);
    }

    #[test]
    fn a_dimension_that_some_spots_lack_is_apart_from_one_that_all_have() {
        let expected = [vec!["host=h"], vec!["host=h", "pod=p"], vec!["host=i", "pod=q"]];
        assert_eq!(families(&["host", "pod"], &[&["h", ""], &["h", "p"], &["i", "q"]]), expected);
        assert_eq!(families(&["host", "pod"], &[&["h", ""]]), [vec!["host=h"]], "a value is never missing: not empty");
    }

    #[test]
    fn equal_spots_are_one_and_those_of_other_services_are_not() {
        let conventions = conventions(&["zone"]);
        let mut spots = Spots::new(&conventions);
        let mut of = |service, zone| spots.of_values("shop", service, &[Some(Cow::Borrowed(zone))]).number;
        assert_eq!([of("cart", "a"), of("cart", "b"), of("cart", "a"), of("pay", "a")], [0, 1, 0, 2]);
    }

    #[test]
    fn values_of_a_dimension_over_the_cap_share_one_family_and_are_no_one_elses_trouble() {
        let conventions = conventions(&["host"]);
        let mut spots = Spots::new(&conventions);
        let mut of = |service, host: u32| spots.of_values("", service, &[Some(format!("host-{host}").into())]);
        let first: Vec<Spot> = (0..PEEL_VALUES_MAX).map(|host| of("many", host)).collect();
        let over: Vec<Spot> = (PEEL_VALUES_MAX..PEEL_VALUES_MAX + 50).map(|host| of("many", host)).collect();
        assert!(over.iter().all(|spot| *spot == over[0] && spot.is_over && !first.contains(spot)));
        assert_eq!(of("many", 3), first[3], "known ones stay apart");
        assert!(!of("few", 1).is_over);
        let families = spots.families();
        let attributes = vec![(Cow::Borrowed("host"), Cow::Borrowed(OVERFLOW))];
        assert_eq!(families[&over[0].number][0].family, Some(Family::Peel { attributes }));
    }
}
