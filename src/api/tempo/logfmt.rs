//! `k=v k2="v 2"`: the search of Grafana 10, each pair a condition that some span of the trace meets.

use crate::query::traceql::{AttributeScope, Field, Filter};

/// One filter per pair.
pub(super) fn filters(text: &str) -> Result<Vec<Filter>, String> {
    pairs(text)?.into_iter().map(|(key, value)| filter(&key, &value)).collect()
}

/// Pairs in this form.
pub(super) fn written<'a>(pairs: impl Iterator<Item = (&'a String, &'a String)>) -> String {
    let quoted = |value: &str| value.replace('\\', "\\\\").replace('"', "\\\"");
    pairs.map(|(key, value)| format!("{key}=\"{}\"", quoted(value))).collect::<Vec<_>>().join(" ")
}

/// Texts say nothing of types: `200` is the number as well, `true` the boolean.
fn filter(key: &str, value: &str) -> Result<Filter, String> {
    let field = Field::Attribute { scope: AttributeScope::Unscoped, key: key.to_owned() };
    let quoted = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
    let mut text = format!("{field} = \"{quoted}\"");
    if value.parse::<i64>().is_ok_and(|number| number != i64::MIN) || matches!(value, "true" | "false") {
        text = format!("{text} || {field} = {value}");
    }
    if key == "name" {
        text = format!("{text} || name = \"{quoted}\"");
    }
    text.parse().map_err(|_| format!("invalid tags: {key}={value:?} cannot be searched for"))
}

fn pairs(text: &str) -> Result<Vec<(String, String)>, String> {
    let mut pairs = Vec::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let wrong = || format!("invalid tags: expected key=value at {rest:?}");
        let (key, behind) = rest.split_once('=').ok_or_else(wrong)?;
        if key.is_empty() || key.contains([' ', '"']) {
            return Err(wrong());
        }
        let (value, after) = if let Some(quoted) = behind.strip_prefix('"') {
            unquoted(quoted).ok_or_else(wrong)?
        } else {
            let end = behind.find(' ').unwrap_or(behind.len());
            let (value, after) = behind.split_at(end);
            (value.to_owned(), after)
        };
        pairs.push((key.to_owned(), value));
        rest = after.trim_start();
    }
    Ok(pairs)
}

/// The text up to its closing quote, and what follows.
fn unquoted(text: &str) -> Option<(String, &str)> {
    let (mut value, mut chars) = (String::new(), text.char_indices());
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((value, text.get(at + 1..)?)),
            '\\' => value.push(match chars.next()?.1 {
                'n' => '\n',
                't' => '\t',
                other => other,
            }),
            other => value.push(other),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_become_filters_that_take_the_number_as_well() {
        let written = |text: &str| filters(text).map(|all| all.iter().map(ToString::to_string).collect::<Vec<_>>());
        assert_eq!(written(""), Ok(Vec::new()));
        assert_eq!(
            written("  service.name=shop  http.status_code=200 note=\"a \\\"b\\\" =\"").unwrap(),
            [
                "{ .service.name = \"shop\" }",
                "{ .http.status_code = \"200\" || .http.status_code = 200 }",
                "{ .note = \"a \\\"b\\\" =\" }"
            ]
        );
        assert_eq!(written("name=GET").unwrap(), ["{ .name = \"GET\" || span:name = \"GET\" }"]);
        for bad in ["shop", "=shop", "a b=1", "a=\"open"] {
            assert!(written(bad).is_err(), "{bad}");
        }
    }
}
