//! The critical path of a trace: the spans, and how much of each, that its end-to-end time is made of.
//!
//! The walk is the one of Uber's CRISP (Zhang et al., USENIX ATC 2022) and of Jaeger's page. It goes backwards from the
//! end of the root: what a span waited for is the child that finished last; before that child began, the one that had
//! finished last by then; and so on. What no child explains (`#`) is the span's own time.
//!
//! ```text
//! root #####------------------#####--------##############
//! a         #####-------######  finished last before c began
//! a1             #######
//! b           .......................  still ran when c began, so c did not wait for it
//! c                                ########  finished last
//! ```
//!
//! Stored times are taken as they are (SD-33), but a child counts only within its parent: what lies outside, because of
//! another clock or because nobody waited for it, is cut off. A span without a latency (a time is not set, or the clock
//! ran backwards) has no place on an axis and counts as not stored. Deliberately absent: links between traces.

#[cfg(test)]
mod tests;

use std::collections::HashMap;

use crate::model::{DurationNanos, SpanBatch, SpanId};

/// What the duration of one root is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CriticalPath {
    /// Its row in the batch: a span without a parent that is stored, or the first one of a circle of parents.
    pub root: usize,
    /// The spans on the path by start, the root among them. Their times add up to the root's duration, exactly.
    pub spans: Vec<PathSpan>,
}

/// A span on a critical path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PathSpan {
    /// Its row in the batch.
    pub row: usize,
    /// How long the end-to-end time depended on this span itself and not on a child of it; at most its duration. Zero
    /// when children explain all of it.
    pub self_time: DurationNanos,
}

/// The critical path of every tree of a trace, by the start of its root. Spans may stand in any order, each once.
/// Cost: O(n log n), without recursion.
///
/// Of several spans with one id the first one is the parent of all that name it.
pub fn critical_paths(batch: &SpanBatch) -> Vec<CriticalPath> {
    let forest = Forest::of(batch);
    let roots = (0..).zip(&forest.nodes).filter(|(_, node)| node.parent.is_none());
    roots.map(|(root, node)| forest.path_from(root, node)).collect()
}

/// A span with a latency.
struct Node {
    row: usize,
    start: u64,
    end: u64, // >= start
    /// A node's number.
    parent: Option<usize>,
}

/// Nodes are numbered by start.
struct Forest {
    nodes: Vec<Node>,
    /// The last to finish first; of those the first to start.
    children: Vec<Vec<usize>>,
}

impl Forest {
    fn of(batch: &SpanBatch) -> Self {
        let mut spans: Vec<_> = batch.spans.iter().enumerate().filter(|(_, span)| span.latency().is_some()).collect();
        spans.sort_by_key(|(_, span)| span.key());
        let mut numbers: HashMap<SpanId, usize> = HashMap::with_capacity(spans.len());
        for (number, (_, span)) in spans.iter().enumerate() {
            let _first = *numbers.entry(span.span_id).or_insert(number);
        }
        let nodes = spans.iter().map(|(row, span)| Node {
            row: *row,
            start: span.start_time_unix_nano.0,
            end: span.end_time_unix_nano.0,
            parent: numbers.get(&span.parent_span_id).copied(),
        });
        let mut nodes: Vec<Node> = nodes.collect();
        cut_circles(&mut nodes);

        let mut order: Vec<usize> = (0..nodes.len()).collect();
        order.sort_by_key(|number| (std::cmp::Reverse(nodes.get(*number).map(|node| node.end)), *number));
        let mut children = vec![Vec::new(); nodes.len()];
        for number in order {
            let parent = nodes.get(number).and_then(|node| node.parent);
            if let Some(siblings) = parent.and_then(|parent| children.get_mut(parent)) {
                siblings.push(number);
            }
        }
        Self { nodes, children }
    }

    fn path_from(&self, root: usize, node: &Node) -> CriticalPath {
        let mut found = Vec::new();
        let mut walks = vec![Walk::through(root, node.start, node.end)];
        while let Some(walk) = walks.last_mut() {
            if let Some(child) = self.waited_for(walk) {
                walk.self_time += walk.cursor - child.cursor;
                walk.cursor = child.low;
                walks.push(child);
                continue;
            }
            found.push((walk.number, walk.self_time + (walk.cursor - walk.low)));
            let _done = walks.pop();
        }
        found.sort_unstable();
        let row = |number: usize| self.nodes.get(number).map(|node| node.row);
        let spans = found.into_iter().filter_map(|(number, self_time)| {
            Some(PathSpan { row: row(number)?, self_time: DurationNanos(self_time) })
        });
        CriticalPath { root: node.row, spans: spans.collect() }
    }

    /// The child that finished last before the walk's cursor, within the span.
    fn waited_for(&self, walk: &mut Walk) -> Option<Walk> {
        let siblings = self.children.get(walk.number)?;
        while let Some(number) = siblings.get(walk.next_child) {
            walk.next_child += 1;
            let child = self.nodes.get(*number)?;
            let (low, high) = (child.start.max(walk.low), child.end.min(walk.high));
            if low < high && high <= walk.cursor {
                return Some(Walk::through(*number, low, high));
            }
        }
        None
    }
}

/// On its way back through a span, as far as it lies within its parent.
struct Walk {
    number: usize,
    low: u64,
    high: u64,
    /// Everything from here to `high` is explained; in `[low, high]`.
    cursor: u64,
    /// Children before this one were looked at.
    next_child: usize,
    self_time: u64,
}

impl Walk {
    fn through(number: usize, low: u64, high: u64) -> Self {
        Self { number, low, high, cursor: high, next_child: 0, self_time: 0 }
    }
}

/// Makes the first span of each circle of parents a root, so that a forest is left.
fn cut_circles(nodes: &mut [Node]) {
    let parent = |nodes: &[Node], number: usize| nodes.get(number).and_then(|node| node.parent);
    // By number: from where it was reached first.
    let mut reached_from: Vec<Option<usize>> = vec![None; nodes.len()];
    for first in 0..nodes.len() {
        let mut at = Some(first);
        while let Some(number) = at {
            let Some(reached) = reached_from.get_mut(number) else { break };
            if *reached == Some(first) {
                let circle = std::iter::successors(parent(nodes, number), |on| parent(nodes, *on));
                let earliest = circle.take_while(|on| *on != number).min().unwrap_or(number).min(number);
                if let Some(node) = nodes.get_mut(earliest) {
                    node.parent = None;
                }
                break;
            }
            if reached.is_some() {
                break;
            }
            *reached = Some(first);
            at = parent(nodes, number);
        }
    }
}
