//! The attribute columns of a row group, as far as the wanted rows need them.

use super::super::codec::{Contexts, Ints, Malformed, Texts, unzigzag};
use super::super::columns::{ColumnId, GROUP_VALUES_MAX, Kind, ValueType};
use super::super::error::BlockError;
use super::group::Group;
use super::tables::{AttributeRow, Shapes, damaged, n_rows, push_text};
use crate::model::{Attribute, Rows, SpanBatch, Text, Value};

/// Values of a column.
enum Values {
    Numbers(Ints),
    Texts(Texts),
}

/// A column that wanted rows have values in.
struct Wanted {
    kind: Kind,
    /// Row of each value, ascending.
    owners: Vec<u16>,
    values: Values,
    /// The next value.
    next: usize,
}

/// The shapes of a group's rows, events and links: `of_rows` says which of them belong to a row.
pub(super) struct ShapeLists {
    pub(super) spans: Ints,
    pub(super) events: Ints,
    pub(super) links: Ints,
    /// Events of each row.
    pub(super) event_ends: Vec<usize>,
    /// Links of each row.
    pub(super) link_ends: Vec<usize>,
}

impl ShapeLists {
    /// Shapes of a row: its own, those of its events, those of its links. Their values follow each other in that order.
    fn of_row(&self, row: usize) -> impl Iterator<Item = usize> {
        let events = range_of(&self.event_ends, row).map(|event| self.events.index(event));
        let links = range_of(&self.link_ends, row).map(|link| self.links.index(link));
        std::iter::once(self.spans.index(row)).chain(events).chain(links)
    }
}

/// The items of a row when those of all rows follow each other.
pub(super) fn range_of(ends: &[usize], row: usize) -> std::ops::Range<usize> {
    let start = row.checked_sub(1).and_then(|before| ends.get(before)).copied().unwrap_or(0);
    start..ends.get(row).copied().unwrap_or(start)
}

/// Attribute columns of one row group.
pub(super) struct AttributeColumns<'a> {
    shapes: &'a Shapes<'a>,
    /// By column number; `None` for those not wanted.
    columns: Vec<Option<Wanted>>,
}

impl<'a> AttributeColumns<'a> {
    /// Reads the columns in which `rows` have values.
    pub(super) fn read(
        group: &mut Group<'_>,
        rows: &[usize],
        shapes: &'a Shapes<'a>,
        lists: &ShapeLists,
        contexts: Contexts<'_>,
    ) -> Result<Self, BlockError> {
        let mut columns = wanted_columns(rows, shapes, lists).map_err(damaged)?;
        group.fetch(|column| columns.get(usize::from(column)).is_some_and(Option::is_some))?;
        want_predictors(&mut columns, group, shapes)?;
        collect_owners(&mut columns, group.n_rows, shapes, lists).map_err(damaged)?;
        for (number, at) in (0..).zip(0..columns.len()) {
            let (before, rest) = columns.split_at_mut(at);
            let Some(Some(column)) = rest.first_mut() else { continue };
            let (n, contexts) = (column.owners.len(), contexts.of(&column.owners));
            column.values = match (column.kind, group.predictor(number)) {
                (Kind::Texts, Some(by)) => {
                    let by = before.get(usize::from(by)).and_then(Option::as_ref);
                    let told_by = by.filter(|by| by.owners == column.owners).and_then(Wanted::as_numbers);
                    let told_by =
                        told_by.ok_or_else(|| group.damaged(Malformed("a column is told by none like it")))?;
                    Values::Texts(group.texts_told(number, &told_by)?)
                }
                (Kind::Texts, None) => Values::Texts(group.texts(number, n, contexts)?),
                (Kind::Raw | Kind::Ints | Kind::Numbers | Kind::Scopes, _) => {
                    Values::Numbers(group.numbers(number, n, contexts)?)
                }
            };
        }
        Ok(Self { shapes, columns })
    }

    /// Appends the attributes of one span, event or link of `row` to the answer; `keys` holds what it has of keys.
    pub(super) fn copy(
        &mut self,
        row: u16,
        shape: usize,
        keys: &mut [Option<Text>],
        out: &mut SpanBatch,
    ) -> Result<Rows, BlockError> {
        let start = n_rows(&out.attributes)?;
        for member in self.shapes.members(shape).map_err(damaged)? {
            let at = *member as usize;
            let Some(attribute) = self.shapes.attributes.get(at) else { continue };
            let known = keys.get(at).copied().flatten();
            let key = known.map_or_else(|| push_text(out, attribute.key), Ok)?;
            if let Some(slot) = keys.get_mut(at) {
                *slot = Some(key);
            }
            let column = attribute.column.and_then(|(column, _)| self.columns.get_mut(usize::from(column)));
            let value = read_value(attribute, column.and_then(Option::as_mut), row, out)?;
            out.attributes.push(Attribute { key, value });
        }
        Ok(Rows { start, len: n_rows(&out.attributes)? - start })
    }
}

fn wanted_columns(rows: &[usize], shapes: &Shapes<'_>, lists: &ShapeLists) -> Result<Vec<Option<Wanted>>, Malformed> {
    let mut columns = Vec::new();
    for shape in rows.iter().flat_map(|row| lists.of_row(*row)) {
        for member in shapes.members(shape)? {
            let Some((column, kind)) = shapes.attributes.get(*member as usize).and_then(|row| row.column) else {
                continue;
            };
            let at = usize::from(column);
            if columns.len() <= at {
                columns.resize_with(at + 1, || None);
            }
            if let Some(slot @ None) = columns.get_mut(at) {
                *slot = Some(Wanted::new(kind));
            }
        }
    }
    Ok(columns)
}

impl Wanted {
    fn new(kind: Kind) -> Self {
        Self { kind, owners: Vec::new(), values: Values::Texts(Texts::Empty), next: 0 }
    }

    /// The values, as far as they can tell those of another column: numbers, or codes.
    fn as_numbers(&self) -> Option<Vec<u64>> {
        match &self.values {
            Values::Numbers(numbers) | Values::Texts(Texts::Coded { codes: numbers, .. }) => {
                Some((0..self.owners.len()).map(|idx| numbers.get(idx)).collect())
            }
            Values::Texts(_) => None,
        }
    }
}

/// Adds the columns that tell those wanted; they stand before them, and are told by none themselves.
fn want_predictors(
    columns: &mut [Option<Wanted>],
    group: &mut Group<'_>,
    shapes: &Shapes<'_>,
) -> Result<(), BlockError> {
    let mut missing: Vec<ColumnId> = Vec::new();
    for (number, at) in (0..).zip(0..columns.len()) {
        let wanted = columns.get(at).is_some_and(Option::is_some);
        let Some(by) = group.predictor(number).filter(|by| wanted && *by < number) else { continue };
        let kind = shapes.attributes.iter().filter_map(|row| row.column).find(|(column, _)| *column == by);
        if let (Some(slot @ None), Some((_, kind))) = (columns.get_mut(usize::from(by)), kind) {
            *slot = Some(Wanted::new(kind));
            missing.push(by);
        }
    }
    group.fetch(|column| missing.contains(&column))
}

/// Which row each value of the wanted columns is of; rows that are not wanted count too.
fn collect_owners(
    columns: &mut [Option<Wanted>],
    n_group_rows: usize,
    shapes: &Shapes<'_>,
    lists: &ShapeLists,
) -> Result<(), Malformed> {
    // The wanted columns of each shape met, so that a row costs no look-ups.
    let mut of_shapes: Vec<Option<(Vec<usize>, usize)>> = Vec::new();
    let mut n_values = 0_usize;
    for (row, owner) in (0..n_group_rows).zip(0_u16..) {
        for shape in lists.of_row(row) {
            if of_shapes.get(shape).is_none_or(Option::is_none) {
                // Fails for a shape that does not exist, before the list grows up to it.
                let wanted = wanted_of(columns, shapes, shape)?;
                of_shapes.resize_with(of_shapes.len().max(shape + 1), || None);
                if let Some(slot) = of_shapes.get_mut(shape) {
                    *slot = Some(wanted);
                }
            }
            let Some(Some((wanted, n_members))) = of_shapes.get(shape) else { continue };
            n_values = n_values.saturating_add(*n_members);
            if GROUP_VALUES_MAX < n_values {
                return Err(Malformed("shapes claim more values than a row group holds"));
            }
            for at in wanted {
                if let Some(Some(column)) = columns.get_mut(*at) {
                    column.owners.push(owner);
                }
            }
        }
    }
    Ok(())
}

/// The wanted columns of a shape, and its number of attributes.
fn wanted_of(columns: &[Option<Wanted>], shapes: &Shapes<'_>, shape: usize) -> Result<(Vec<usize>, usize), Malformed> {
    let members = shapes.members(shape)?;
    let rows = members.iter().filter_map(|member| shapes.attributes.get(*member as usize));
    let of_shape = rows.filter_map(|row| row.column).map(|(column, _)| usize::from(column));
    Ok((of_shape.filter(|at| columns.get(*at).is_some_and(Option::is_some)).collect(), members.len()))
}

fn read_value(
    attribute: &AttributeRow<'_>,
    column: Option<&mut Wanted>,
    row: u16,
    out: &mut SpanBatch,
) -> Result<Value, BlockError> {
    let Some(column) = column else { return Ok(Value::Empty) };
    if column.owners.get(column.next) != Some(&row) {
        column.next = column.owners.partition_point(|owner| *owner < row);
    }
    let idx = column.next;
    column.next += 1;
    let value = match (&column.values, attribute.value_type) {
        (Values::Numbers(numbers), ValueType::Bool) => Value::Bool(numbers.get(idx) != 0),
        (Values::Numbers(numbers), ValueType::Int) => Value::Int(unzigzag(numbers.get(idx)).cast_signed()),
        (Values::Numbers(numbers), ValueType::Double) => Value::Double(f64::from_bits(numbers.get(idx))),
        (Values::Texts(texts), ValueType::String) => Value::String(write_text(texts, idx, out)?),
        (Values::Texts(texts), ValueType::Bytes) => Value::Bytes(write_text(texts, idx, out)?),
        (Values::Texts(texts), ValueType::Nested) => Value::Nested(write_text(texts, idx, out)?),
        _ => return Err(damaged(Malformed("two attributes of different types share a column"))),
    };
    Ok(value)
}

/// Appends a value of a column to the answer.
pub(super) fn write_text(texts: &Texts, idx: usize, out: &mut SpanBatch) -> Result<Text, BlockError> {
    const TOO_LARGE: BlockError = BlockError::TooLarge { what: "an answer" };
    let start = u32::try_from(out.bytes.len()).map_err(|_| TOO_LARGE)?;
    texts.write(idx, &mut out.bytes).map_err(damaged)?;
    let end = u32::try_from(out.bytes.len()).map_err(|_| TOO_LARGE)?;
    Ok(if start == end { Text::default() } else { Text { start, len: end - start } })
}
