//! Labels of a series, and what groups do to them.

use std::sync::Arc;

/// The label that holds the name of the metric.
pub const METRIC_NAME: &str = "__name__";
/// The label that holds the upper bound of a bucket.
pub const BUCKET_BOUND: &str = "le";

/// Names and values, ascending by name, each name once. A label with an empty value is one that is missing.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Labels(Vec<(Arc<str>, Arc<str>)>);

impl Labels {
    /// Of pairs in any order; of several with one name the last one counts.
    pub fn of<N: Into<Arc<str>>, V: Into<Arc<str>>>(pairs: impl IntoIterator<Item = (N, V)>) -> Self {
        pairs.into_iter().fold(Self::default(), |labels, (name, value)| labels.with(name, value))
    }

    /// The value, empty where it is missing.
    pub fn get(&self, name: &str) -> &str {
        self.place(name).ok().and_then(|at| self.0.get(at)).map_or("", |(_, value)| value)
    }

    fn place(&self, name: &str) -> Result<usize, usize> {
        self.0.binary_search_by(|(known, _)| (**known).cmp(name))
    }

    /// The same with this label; without it if the value is empty.
    #[must_use]
    pub fn with(mut self, name: impl Into<Arc<str>>, value: impl Into<Arc<str>>) -> Self {
        let (name, value) = (name.into(), value.into());
        match (self.place(&name), value.is_empty()) {
            (Ok(at), true) => drop(self.0.remove(at)),
            (Ok(at), false) => {
                if let Some(label) = self.0.get_mut(at) {
                    label.1 = value;
                }
            }
            (Err(_), true) => {}
            (Err(at), false) => self.0.insert(at, (name, value)),
        }
        self
    }

    /// The same without one of them.
    #[must_use]
    pub fn without(mut self, name: &str) -> Self {
        self.0.retain(|(known, _)| &**known != name);
        self
    }

    /// Names and values, ascending.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (&**name, &**value))
    }

    /// Those of which `stays` is true, by name.
    #[must_use]
    pub fn kept(&self, stays: impl Fn(&str) -> bool) -> Self {
        Self(self.0.iter().filter(|(name, _)| stays(name)).cloned().collect())
    }
}

/// Which labels make a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Grouping {
    /// These.
    By(Vec<String>),
    /// All but these and the name of the metric.
    Without(Vec<String>),
}

impl Grouping {
    /// Whether a label stays.
    pub fn keeps(&self, name: &str) -> bool {
        match self {
            Self::By(names) => names.iter().any(|known| known == name),
            Self::Without(names) => name != METRIC_NAME && names.iter().all(|known| known != name),
        }
    }

    /// The group that a series belongs to.
    pub fn group(&self, labels: &Labels) -> Labels {
        labels.kept(|name| self.keeps(name))
    }
}
