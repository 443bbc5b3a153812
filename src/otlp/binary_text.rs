//! Bytes as text: hex and base64, both ways.

use std::fmt::Write as _;

const BASE64: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Appends lower-case hex.
pub(crate) fn write_hex(bytes: &[u8], out: &mut String) {
    for byte in bytes {
        let _written = write!(out, "{byte:02x}");
    }
}

/// Reads hex digits of any case into `out`, replacing what it holds. False when the text is no hex.
pub(crate) fn read_hex(text: &str, out: &mut Vec<u8>) -> bool {
    out.clear();
    let (pairs, odd) = text.as_bytes().as_chunks::<2>();
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    for [high, low] in pairs {
        let (Some(high), Some(low)) = (digit(*high), digit(*low)) else { return false };
        out.push(high << 4 | low);
    }
    odd.is_empty()
}

/// Appends base64 of the standard alphabet, padded.
pub(crate) fn write_base64(bytes: &[u8], out: &mut String) {
    let symbol = |bits: u32| BASE64.get((bits & 63) as usize).copied().map_or('=', char::from);
    for chunk in bytes.chunks(3) {
        let mut padded = [0; 3];
        for (to, from) in padded.iter_mut().zip(chunk) {
            *to = *from;
        }
        let [a, b, c] = padded;
        let bits = u32::from_be_bytes([0, a, b, c]);
        out.push(symbol(bits >> 18));
        out.push(symbol(bits >> 12));
        out.push(if 1 < chunk.len() { symbol(bits >> 6) } else { '=' });
        out.push(if 2 < chunk.len() { symbol(bits) } else { '=' });
    }
}

/// Reads base64 of the standard or the URL-safe alphabet, padded or not, into `out`, replacing what it holds. False
/// when the text is no base64.
pub(crate) fn read_base64(text: &str, out: &mut Vec<u8>) -> bool {
    out.clear();
    let symbols = text.trim_end_matches('=').as_bytes();
    if 2 < text.len() - symbols.len() || symbols.len() % 4 == 1 {
        return false;
    }
    for chunk in symbols.chunks(4) {
        let mut bits = 0_u32;
        for symbol in chunk {
            let Some(value) = base64_value(*symbol) else { return false };
            bits = bits << 6 | value;
        }
        bits <<= 6 * (4 - chunk.len());
        let [_, bytes @ ..] = bits.to_be_bytes();
        out.extend(bytes.iter().take(chunk.len() - 1));
    }
    true
}

fn base64_value(symbol: u8) -> Option<u32> {
    let value = match symbol {
        b'A'..=b'Z' => symbol - b'A',
        b'a'..=b'z' => symbol - b'a' + 26,
        b'0'..=b'9' => symbol - b'0' + 52,
        b'+' | b'-' => 62,
        b'/' | b'_' => 63,
        _ => return None,
    };
    Some(u32::from(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_that_of_rfc_4648_and_reads_all_four_forms() {
        for (bytes, text) in
            [(&b""[..], ""), (b"f", "Zg=="), (b"fo", "Zm8="), (b"foo", "Zm9v"), (b"\xfb\xff\xfe", "+//+")]
        {
            let mut written = String::new();
            write_base64(bytes, &mut written);
            assert_eq!(written, text);
            let url = text.replace('+', "-").replace('/', "_");
            for form in [text, text.trim_end_matches('='), &url, url.trim_end_matches('=')] {
                let mut read = vec![9];
                assert!(read_base64(form, &mut read), "{form}");
                assert_eq!(read, bytes);
            }
        }
        for text in ["A", "AAAAA", "A===", "Zm9*", "Zm 9v", "Zg==Zg=="] {
            assert!(!read_base64(text, &mut Vec::new()), "{text}");
        }
    }

    #[test]
    fn hex_is_written_low_and_read_in_any_case() {
        let mut text = String::new();
        write_hex(&[0x0a, 0xbc], &mut text);
        assert_eq!(text, "0abc");
        let mut bytes = Vec::new();
        assert!(read_hex("0AbC", &mut bytes));
        assert_eq!(bytes, [0x0a, 0xbc]);
        for text in ["0", "0x", "+1", "zz", "\u{e9}"] {
            assert!(!read_hex(text, &mut bytes), "{text}");
        }
    }
}
