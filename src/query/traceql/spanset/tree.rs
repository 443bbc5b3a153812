//! How the spans of a trace hang together.

use std::collections::HashMap;

use crate::model::{Span, SpanId};

/// Not numbered: no root leads to it.
const UNCONNECTED: i64 = 0;
/// Stands for the parent of a root in nested sets.
const ABOVE_ROOTS: i64 = -1;

/// The tree of a trace; several roots make several trees.
#[derive(Debug)]
pub(super) struct Tree {
    /// The row of its parent, when that is stored. Where parents go round in a ring, the earliest span has none.
    parents: Vec<Option<u32>>,
    /// All rows, parents before their children.
    order: Vec<u32>,
    child_counts: Vec<u32>,
    left: Vec<i64>,
    right: Vec<i64>,
    is_root: Vec<bool>,
}

impl Tree {
    /// Rows are in the order of their starts, and siblings are numbered in it. Cost: O(spans), once per trace.
    pub(super) fn of(spans: &[Span]) -> Self {
        let mut rows_by_id: HashMap<SpanId, u32> = HashMap::with_capacity(spans.len());
        for (row, span) in (0..).zip(spans) {
            let _first = rows_by_id.entry(span.span_id).or_insert(row);
        }
        let parent_of = |(row, span): (u32, &Span)| {
            if span.parent_span_id == SpanId::default() {
                return None;
            }
            rows_by_id.get(&span.parent_span_id).copied().filter(|parent| *parent != row)
        };
        let parents: Vec<Option<u32>> = (0..).zip(spans).map(parent_of).collect();
        let (order, parents) = without_rings(parents);
        let children = children_of(&parents);
        let is_root: Vec<bool> = spans.iter().map(|span| span.parent_span_id == SpanId::default()).collect();
        let n = parents.len();
        let mut tree = Self {
            parents,
            order,
            child_counts: children.iter().map(|of| u32::try_from(of.len()).unwrap_or(u32::MAX)).collect(),
            left: vec![UNCONNECTED; n],
            right: vec![UNCONNECTED; n],
            is_root,
        };
        tree.number(&children);
        tree
    }

    /// One walk from the roots down, without recursion: traces can be as deep as they are long.
    fn number(&mut self, children: &[Vec<u32>]) {
        let mut next = 1;
        for root in (0..self.is_root.len()).filter(|row| self.is_root.get(*row) == Some(&true)) {
            let mut path: Vec<(usize, std::slice::Iter<'_, u32>)> = Vec::new();
            let mut entered = Some(root);
            loop {
                if let Some(row) = entered.take() {
                    set(&mut self.left, row, &mut next);
                    path.push((row, children.get(row).map(|of| of.iter()).unwrap_or_default()));
                }
                let Some((row, rest)) = path.last_mut() else { break };
                if let Some(child) = rest.next() {
                    entered = Some(*child as usize);
                } else {
                    set(&mut self.right, *row, &mut next);
                    let _done = path.pop();
                }
            }
        }
    }

    pub(super) fn parent(&self, row: u32) -> Option<u32> {
        self.parents.get(row as usize).copied().flatten()
    }

    pub(super) fn child_count(&self, row: u32) -> u32 {
        self.child_counts.get(row as usize).copied().unwrap_or(0)
    }

    pub(super) fn nested_left(&self, row: u32) -> i64 {
        self.left.get(row as usize).copied().unwrap_or(UNCONNECTED)
    }

    pub(super) fn nested_right(&self, row: u32) -> i64 {
        self.right.get(row as usize).copied().unwrap_or(UNCONNECTED)
    }

    pub(super) fn nested_parent(&self, row: u32) -> i64 {
        if self.is_root.get(row as usize) == Some(&true) {
            return ABOVE_ROOTS;
        }
        self.parent(row).map_or(UNCONNECTED, |parent| self.nested_left(parent))
    }

    /// Per row, whether one of its ancestors is among `rows`. Cost: O(spans), as of the following.
    pub(super) fn below(&self, rows: &[u32]) -> Vec<bool> {
        let among = self.marked(rows);
        let mut found = vec![false; self.parents.len()];
        for row in &self.order {
            let is_below = self.parent(*row).is_some_and(|parent| is(&among, parent) || is(&found, parent));
            if let Some(slot) = found.get_mut(*row as usize) {
                *slot = is_below;
            }
        }
        found
    }

    /// Per row, whether one of its descendants is among `rows`.
    pub(super) fn above(&self, rows: &[u32]) -> Vec<bool> {
        let mut found = vec![false; self.parents.len()];
        for row in rows {
            let mut at = *row;
            while let Some(parent) = self.parent(at) {
                match found.get_mut(parent as usize) {
                    Some(slot) if !*slot => *slot = true,
                    _ => break,
                }
                at = parent;
            }
        }
        found
    }

    /// Per row, whether its parent is among `rows`.
    pub(super) fn children_of(&self, rows: &[u32]) -> Vec<bool> {
        let among = self.marked(rows);
        self.parents.iter().map(|parent| parent.is_some_and(|parent| is(&among, parent))).collect()
    }

    /// Per row, whether one of its children is among `rows`.
    pub(super) fn parents_of(&self, rows: &[u32]) -> Vec<bool> {
        let parents: Vec<u32> = rows.iter().filter_map(|row| self.parent(*row)).collect();
        self.marked(&parents)
    }

    /// Per row, whether another child of its parent is among `rows`.
    pub(super) fn siblings_of(&self, rows: &[u32]) -> Vec<bool> {
        let among = self.marked(rows);
        let mut counts = vec![0_u32; self.parents.len()];
        for parent in rows.iter().filter_map(|row| self.parent(*row)) {
            if let Some(count) = counts.get_mut(parent as usize) {
                *count += 1;
            }
        }
        let has_sibling = |(parent, is_among): (&Option<u32>, bool)| {
            let count = parent.and_then(|parent| counts.get(parent as usize)).copied().unwrap_or(0);
            u32::from(is_among) < count
        };
        self.parents.iter().zip(among).map(has_sibling).collect()
    }

    fn marked(&self, rows: &[u32]) -> Vec<bool> {
        let mut marked = vec![false; self.parents.len()];
        for row in rows {
            if let Some(slot) = marked.get_mut(*row as usize) {
                *slot = true;
            }
        }
        marked
    }
}

fn is(marked: &[bool], row: u32) -> bool {
    marked.get(row as usize).copied().unwrap_or(false)
}

fn children_of(parents: &[Option<u32>]) -> Vec<Vec<u32>> {
    let mut children: Vec<Vec<u32>> = vec![Vec::new(); parents.len()];
    for (row, parent) in (0..).zip(parents) {
        if let Some(of_parent) = parent.and_then(|parent| children.get_mut(parent as usize)) {
            of_parent.push(row);
        }
    }
    children
}

/// Rows in an order in which parents come before their children, once rings of parents are cut open.
fn without_rings(mut parents: Vec<Option<u32>>) -> (Vec<u32>, Vec<Option<u32>>) {
    let children = children_of(&parents);
    let mut is_met = vec![false; parents.len()];
    let mut order: Vec<u32> = (0..).zip(&parents).filter(|(_, parent)| parent.is_none()).map(|(row, _)| row).collect();
    let mut done = 0;
    let mut first_unmet = 0;
    loop {
        while let Some(row) = order.get(done) {
            if let Some(slot) = is_met.get_mut(*row as usize) {
                *slot = true;
            }
            let of_row = children.get(*row as usize).into_iter().flatten();
            // The one that a ring was cut at is met already.
            order.extend(of_row.filter(|child| !is(&is_met, **child)).copied().collect::<Vec<_>>());
            done += 1;
        }
        // What is left hangs on rings.
        let Some(unmet) = (first_unmet..parents.len()).find(|row| is_met.get(*row) == Some(&false)) else {
            return (order, parents);
        };
        first_unmet = unmet;
        let earliest = earliest_of_ring(&parents, u32::try_from(unmet).unwrap_or(u32::MAX));
        if let Some(slot) = parents.get_mut(earliest as usize) {
            *slot = None;
        }
        order.push(earliest);
    }
}

/// The lowest row of the ring that the way up from a row ends in.
fn earliest_of_ring(parents: &[Option<u32>], from: u32) -> u32 {
    let up = |row: &u32| parents.get(*row as usize).copied().flatten();
    // So many steps up, and the way goes round.
    let inside = std::iter::successors(Some(from), up).take(parents.len() + 1).last().unwrap_or(from);
    let others = std::iter::successors(up(&inside), up).take_while(|row| *row != inside);
    others.min().unwrap_or(inside).min(inside)
}

fn set(numbers: &mut [i64], row: usize, next: &mut i64) {
    if let Some(slot) = numbers.get_mut(row) {
        *slot = *next;
    }
    *next += 1;
}
