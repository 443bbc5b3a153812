//! The order of a trace's spans on the screen: depth first, siblings by start, each span exactly once.

use std::collections::{HashMap, HashSet};

use crate::cli::view::{SpanView, TraceView};

/// Levels that are indented; deeper ones say their depth instead.
const LEVELS_MAX: usize = 14;

/// One line of the tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Row {
    /// Why the spans below it hang nowhere.
    Note(&'static str),
    Span(Branch),
}

/// A span's place in the tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Branch {
    /// Position in `TraceView::spans`.
    pub(super) at: usize,
    /// 0 for roots.
    depth: usize,
    /// Bit n: the ancestor at depth n has further siblings below.
    guides: u32,
    last: bool,
}

/// All spans of `trace`, whatever their parents say: first the trees of the roots, then those whose parent is not
/// there, then those that are each other's ancestors. O(n log n), without recursion.
pub(super) fn rows(trace: &TraceView) -> Vec<Row> {
    let ids: HashSet<&str> = trace.spans.iter().map(|span| span.span_id.as_str()).collect();
    let mut order: Vec<usize> = (0..trace.spans.len()).collect();
    let span = |at: usize| trace.spans.get(at);
    order.sort_by_key(|at| span(*at).map(|span| (span.start, span.span_id.as_str())));
    let parent = |at: &usize| span(*at).map_or("", |span: &SpanView| span.parent_span_id.as_str());

    let mut forest = Forest { children: HashMap::new(), seen: vec![false; trace.spans.len()], rows: Vec::new(), trace };
    for at in order.iter().filter(|at| ids.contains(parent(at))) {
        forest.children.entry(parent(at)).or_default().push(*at);
    }
    for root in order.iter().filter(|at| parent(at).is_empty()) {
        forest.grow(&[*root], 0);
    }
    let orphans: Vec<usize> =
        order.iter().filter(|at| !parent(at).is_empty() && !ids.contains(parent(at))).copied().collect();
    forest.grow_below("(parent not stored)", &orphans);
    for at in order {
        // One per circle: growing it takes its members with it.
        if !forest.is_seen(at) {
            forest.grow_below("(parents form a circle)", &[at]);
        }
    }
    forest.rows
}

struct Forest<'a> {
    children: HashMap<&'a str, Vec<usize>>,
    seen: Vec<bool>,
    rows: Vec<Row>,
    trace: &'a TraceView,
}

impl Forest<'_> {
    fn is_seen(&self, at: usize) -> bool {
        self.seen.get(at).copied().unwrap_or(true)
    }

    fn grow_below(&mut self, note: &'static str, spans: &[usize]) {
        if !spans.is_empty() {
            self.rows.push(Row::Note(note));
            self.grow(spans, 1);
        }
    }

    /// Appends the trees of siblings at `depth`.
    fn grow(&mut self, siblings: &[usize], depth: usize) {
        let mut waiting = Vec::new();
        self.push(siblings, depth, 0, &mut waiting);
        while let Some(branch) = waiting.pop() {
            self.rows.push(Row::Span(branch));
            let id = self.trace.spans.get(branch.at).map_or("", |span| span.span_id.as_str());
            // Taken out: of two spans with one id the first has all children.
            let children = self.children.remove(id).unwrap_or_default();
            let more = branch.depth > 0 && branch.depth < LEVELS_MAX && !branch.last;
            let guides = branch.guides | if more { 1 << branch.depth } else { 0 };
            self.push(&children, branch.depth + 1, guides, &mut waiting);
        }
    }

    /// Puts siblings on the stack, the first one on top, and marks them: each span is put there once.
    fn push(&mut self, siblings: &[usize], depth: usize, guides: u32, waiting: &mut Vec<Branch>) {
        let mut last = true;
        for at in siblings.iter().rev().copied() {
            if let Some(seen) = self.seen.get_mut(at).filter(|seen| !**seen) {
                *seen = true;
                waiting.push(Branch { at, depth, guides, last });
                last = false;
            }
        }
    }
}

impl Branch {
    /// The lines that lead to the span, two columns per level.
    pub(super) fn prefix(&self, ascii: bool) -> String {
        let [through, empty, tee, corner] =
            if ascii { ["| ", "  ", "|-", "`-"] } else { ["\u{2502} ", "  ", "\u{251c}\u{2574}", "\u{2514}\u{2574}"] };
        let mut prefix = String::new();
        for level in 1..self.depth.min(LEVELS_MAX) {
            prefix.push_str(if self.guides & (1 << level) == 0 { empty } else { through });
        }
        if self.depth > 0 {
            prefix.push_str(if self.last { corner } else { tee });
        }
        if self.depth > LEVELS_MAX {
            prefix.extend(["[", &self.depth.to_string(), "] "]);
        }
        prefix
    }
}
