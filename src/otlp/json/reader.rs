//! A pull parser for JSON text. Does not recurse and does not build values; skipping allocates nothing per value.

use crate::limits::JSON_DEPTH_MAX;

/// What stood in the text instead of JSON, or of what the schema asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct JsonFault {
    /// Byte offset.
    pub(crate) at: usize,
    pub(crate) expected: &'static str,
}

/// What kind of value comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    Object,
    Array,
    String,
    Number,
    Bool,
    Null,
}

/// Position in a text.
#[derive(Debug)]
pub(crate) struct JsonReader<'a> {
    text: &'a str,
    at: usize,
    /// A string with its escapes resolved.
    unescaped: String,
    /// Lone surrogates replaced by U+FFFD so far.
    pub(crate) n_replaced: u32,
    /// Closing bytes of what is open inside a skipped value.
    skipping: Vec<u8>,
}

/// Where a string that was read stands.
enum Place {
    Text(usize, usize),
    Unescaped,
}

impl<'a> JsonReader<'a> {
    pub(crate) fn new(text: &'a str) -> Self {
        Self { text, at: 0, unescaped: String::new(), n_replaced: 0, skipping: Vec::new() }
    }

    pub(crate) fn at(&self) -> usize {
        self.at
    }

    /// The text from byte `from` up to here.
    pub(crate) fn since(&self, from: usize) -> &'a str {
        self.text.get(from..self.at).unwrap_or_default()
    }

    fn fault(&self, expected: &'static str) -> JsonFault {
        JsonFault { at: self.at, expected }
    }

    /// The next byte that is no white space; it is not taken.
    fn peek(&mut self) -> Option<u8> {
        let rest = self.text.as_bytes().get(self.at..).unwrap_or_default();
        let blank = rest.iter().take_while(|byte| matches!(byte, b' ' | b'\t' | b'\n' | b'\r')).count();
        self.at += blank;
        rest.get(blank).copied()
    }

    fn eat(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    fn expect(&mut self, byte: u8, expected: &'static str) -> Result<(), JsonFault> {
        if self.eat(byte) { Ok(()) } else { Err(self.fault(expected)) }
    }

    /// What comes next, by its first byte.
    pub(crate) fn next(&mut self) -> Result<Next, JsonFault> {
        match self.peek() {
            Some(b'{') => Ok(Next::Object),
            Some(b'[') => Ok(Next::Array),
            Some(b'"') => Ok(Next::String),
            Some(b'-' | b'0'..=b'9') => Ok(Next::Number),
            Some(b't' | b'f') => Ok(Next::Bool),
            Some(b'n') => Ok(Next::Null),
            _ => Err(self.fault("a value")),
        }
    }

    /// Enters an object or array; `next` said which.
    pub(crate) fn enter(&mut self) {
        self.at += 1;
    }

    /// The key of the next member, its colon taken; `None` behind the end of the object.
    pub(crate) fn key(&mut self, first: &mut bool) -> Result<Option<&str>, JsonFault> {
        if self.eat(b'}') {
            return Ok(None);
        }
        self.separator(first, "',' or '}'")?;
        let place = self.string_place()?;
        self.expect(b':', "':'")?;
        Ok(Some(self.at_place(&place)))
    }

    /// Whether the array goes on; its end is taken.
    pub(crate) fn element(&mut self, first: &mut bool) -> Result<bool, JsonFault> {
        if self.eat(b']') {
            return Ok(false);
        }
        self.separator(first, "',' or ']'")?;
        Ok(true)
    }

    fn separator(&mut self, first: &mut bool, expected: &'static str) -> Result<(), JsonFault> {
        if std::mem::take(first) {
            return Ok(());
        }
        self.expect(b',', expected)
    }

    /// A string, its escapes resolved; lone surrogates become U+FFFD and are counted.
    pub(crate) fn string(&mut self) -> Result<&str, JsonFault> {
        let place = self.string_place()?;
        Ok(self.at_place(&place))
    }

    fn at_place(&self, place: &Place) -> &str {
        match place {
            Place::Text(start, end) => self.text.get(*start..*end).unwrap_or_default(),
            Place::Unescaped => &self.unescaped,
        }
    }

    fn string_place(&mut self) -> Result<Place, JsonFault> {
        self.expect(b'"', "a string")?;
        let start = self.at;
        let byte = self.run()?;
        if byte == b'"' {
            let end = self.at;
            self.at += 1;
            return Ok(Place::Text(start, end));
        }
        self.unescaped.clear();
        self.unescaped.push_str(self.text.get(start..self.at).unwrap_or_default());
        loop {
            let start = self.at;
            let byte = self.run()?;
            self.unescaped.push_str(self.text.get(start..self.at).unwrap_or_default());
            self.at += 1;
            if byte == b'"' {
                return Ok(Place::Unescaped);
            }
            let (character, replaced) = self.escape()?;
            self.unescaped.push(character);
            self.n_replaced = self.n_replaced.saturating_add(u32::from(replaced));
        }
    }

    /// Goes to the next quote or backslash of a string, which is returned and not taken.
    fn run(&mut self) -> Result<u8, JsonFault> {
        let rest = self.text.as_bytes().get(self.at..).unwrap_or_default();
        let special = |byte: &u8| matches!(byte, b'"' | b'\\' | 0..0x20);
        let len = rest.iter().position(special).unwrap_or(rest.len());
        self.at += len;
        match rest.get(len) {
            Some(byte @ (b'"' | b'\\')) => Ok(*byte),
            Some(_) => Err(self.fault("no control character in a string")),
            None => Err(self.fault("the end of a string")),
        }
    }

    /// What stands behind a backslash, and whether it is a stand-in for a lone surrogate.
    fn escape(&mut self) -> Result<(char, bool), JsonFault> {
        let byte = self.text.as_bytes().get(self.at).copied();
        let character = match byte {
            Some(b'"') => '"',
            Some(b'\\') => '\\',
            Some(b'/') => '/',
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b'u') => {
                self.at += 1;
                return self.unicode_escape();
            }
            _ => return Err(self.fault("an escape of JSON")),
        };
        self.at += 1;
        Ok((character, false))
    }

    fn unicode_escape(&mut self) -> Result<(char, bool), JsonFault> {
        let unit = self.hex4()?;
        if let Some(character) = char::from_u32(unit) {
            return Ok((character, false));
        }
        let after = self.at;
        let is_high = (0xd800..0xdc00).contains(&unit);
        if is_high && self.text.as_bytes().get(after..after + 2) == Some(b"\\u") {
            self.at += 2;
            let low = self.hex4()?;
            if (0xdc00..0xe000).contains(&low) {
                let code = 0x1_0000 + ((unit - 0xd800) << 10) + (low - 0xdc00);
                return Ok((char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER), false));
            }
            // What follows is no second half: it stands for itself.
            self.at = after;
        }
        Ok((char::REPLACEMENT_CHARACTER, true))
    }

    fn hex4(&mut self) -> Result<u32, JsonFault> {
        let digits = self.text.get(self.at..self.at + 4).filter(|text| text.bytes().all(|b| b.is_ascii_hexdigit()));
        let unit = digits.and_then(|digits| u32::from_str_radix(digits, 16).ok());
        let unit = unit.ok_or_else(|| self.fault("4 hex digits"))?;
        self.at += 4;
        Ok(unit)
    }

    /// A number as written.
    pub(crate) fn number(&mut self) -> Result<&'a str, JsonFault> {
        let rest = self.text.get(self.at..).unwrap_or_default();
        let len = rest.bytes().take_while(|b| matches!(b, b'0'..=b'9' | b'+' | b'-' | b'.' | b'e' | b'E')).count();
        let number = rest.get(..len).filter(|text| super::number::is_number(text));
        let number = number.ok_or_else(|| self.fault("a number"))?;
        self.at += len;
        Ok(number)
    }

    /// `true` or `false`.
    pub(crate) fn bool(&mut self) -> Result<bool, JsonFault> {
        let rest = self.text.get(self.at..).unwrap_or_default();
        let value = rest.starts_with("true");
        self.literal(if value { "true" } else { "false" })?;
        Ok(value)
    }

    pub(crate) fn null(&mut self) -> Result<(), JsonFault> {
        self.literal("null")
    }

    fn literal(&mut self, literal: &str) -> Result<(), JsonFault> {
        if !self.text.get(self.at..).unwrap_or_default().starts_with(literal) {
            return Err(self.fault("true, false, null or a number"));
        }
        self.at += literal.len();
        Ok(())
    }

    /// Skips one value of any kind, of which `depth` objects and arrays lie around.
    pub(crate) fn skip(&mut self, depth: usize) -> Result<(), JsonFault> {
        self.skipping.clear();
        loop {
            self.skip_to_end_of_scalar(depth)?;
            // A value has ended, unless a container was entered.
            loop {
                let Some(close) = self.skipping.last().copied() else { return Ok(()) };
                if close & 0x80 != 0 {
                    // Just entered: its first value comes next, if there is one.
                    let close = close & 0x7f;
                    let _entered = self.skipping.pop();
                    if self.eat(close) {
                        continue;
                    }
                    self.skipping.push(close);
                } else if !self.eat(b',') {
                    self.expect(close, "',' or the end of an object or array")?;
                    let _closed = self.skipping.pop();
                    continue;
                }
                if close & 0x7f == b'}' {
                    self.skip_string()?;
                    self.expect(b':', "':'")?;
                }
                break;
            }
        }
    }

    /// Skips a scalar, or enters a container (marked by the high bit of its closing byte).
    fn skip_to_end_of_scalar(&mut self, depth: usize) -> Result<(), JsonFault> {
        match self.next()? {
            next @ (Next::Object | Next::Array) => {
                if JSON_DEPTH_MAX <= depth + self.skipping.len() {
                    return Err(self.fault("at most 10000 objects and arrays inside each other"));
                }
                self.enter();
                self.skipping.push(0x80 | if next == Next::Object { b'}' } else { b']' });
            }
            Next::String => self.skip_string()?,
            Next::Number => drop(self.number()?),
            Next::Bool => drop(self.bool()?),
            Next::Null => self.null()?,
        }
        Ok(())
    }

    fn skip_string(&mut self) -> Result<(), JsonFault> {
        self.expect(b'"', "a string")?;
        loop {
            let byte = self.run()?;
            self.at += 1;
            if byte == b'"' {
                return Ok(());
            }
            let _character = self.escape()?;
        }
    }

    /// Nothing but white space is left.
    pub(crate) fn is_at_end(&mut self) -> bool {
        self.peek().is_none()
    }

    /// Whether another object starts here, as in NDJSON.
    pub(crate) fn is_at_object(&mut self) -> bool {
        self.peek() == Some(b'{')
    }
}
