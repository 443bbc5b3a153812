//! The element budget of a request: what its elements may take in memory, charged before it is taken.

use super::outcome::Undecodable;
use crate::limits::{ELEMENT_COST_BASE, ELEMENT_COST_PER_BYTE};

/// The budget is used up.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OverBudget;

/// What one request may cost, and what is left of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ElementBudget {
    max: u64,
    left: u64,
    /// The bound is that of the process, not of the size of the request.
    of_process: bool,
}

impl ElementBudget {
    /// For a request of `body_bytes`; `process_max` bounds every request, whatever its size.
    pub(crate) fn new(body_bytes: usize, process_max: Option<u64>) -> Self {
        let per_byte = (body_bytes as u64).saturating_mul(ELEMENT_COST_PER_BYTE as u64);
        let own = per_byte.saturating_add(ELEMENT_COST_BASE as u64);
        let process = process_max.unwrap_or(u64::MAX);
        let max = own.min(process);
        Self { max, left: max, of_process: process < own }
    }

    /// For what was acknowledged: it comes back, also after a change of limits.
    pub(crate) fn unlimited() -> Self {
        Self { max: u64::MAX, left: u64::MAX, of_process: false }
    }

    /// Takes `cost` off, before the memory is used.
    pub(crate) fn charge(&mut self, cost: u64) -> Result<(), OverBudget> {
        self.left = self.left.checked_sub(cost).ok_or(OverBudget)?;
        Ok(())
    }

    /// Charged so far.
    pub(crate) fn used(&self) -> u64 {
        self.max - self.left
    }

    /// The answer when `charge` refused.
    pub(crate) fn refusal(&self) -> Undecodable {
        if self.of_process {
            return Undecodable::NeverFits { cost_max: self.max };
        }
        Undecodable::TooManyElements { cost_max: self.max }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smaller_bound_counts_and_is_named() {
        for (process_max, max, named) in [
            (None, (16 << 20) + 800, "smaller batches"),
            (Some(1 << 30), (16 << 20) + 800, "smaller batches"),
            (Some(1_000), 1_000, "--memory"),
        ] {
            let mut budget = ElementBudget::new(100, process_max);
            assert!(budget.charge(max + 1).is_err() && budget.charge(max).is_ok() && budget.charge(1).is_err());
            assert_eq!(budget.used(), max);
            let message = budget.refusal().to_string();
            assert!(message.contains(named) && message.contains(&max.to_string()), "{message}");
        }
        assert!(ElementBudget::unlimited().charge(u64::MAX).is_ok());
    }
}
