//! Percent escapes of a disk's target string: `%3F` for `?`, `%26` for `&`, `%25` for `%`, and nothing else.

use super::ConfigError;
use std::borrow::Cow;

const ESCAPES: [(&str, char); 3] = [("3f", '?'), ("26", '&'), ("25", '%')];

/// Resolves the escapes.
///
/// # Errors
/// A percent sign that starts none of them: more likely a file's name than a mistake in an escape, so it is not
/// guessed at.
pub fn decode(text: &str) -> Result<Cow<'_, str>, ConfigError> {
    let mut parts = text.split('%');
    let head = parts.next().unwrap_or_default();
    let mut decoded = head.to_owned();
    for part in parts {
        let unknown = || ConfigError::Escape { text: text.to_owned() };
        let (code, rest) = part.split_at_checked(2).ok_or_else(unknown)?;
        let escape =
            ESCAPES.iter().find(|(known, _)| known.eq_ignore_ascii_case(code)).ok_or_else(unknown)?;
        decoded.push(escape.1);
        decoded.push_str(rest);
    }
    Ok(if head.len() == text.len() { Cow::Borrowed(text) } else { Cow::Owned(decoded) })
}

/// Writes a path or a value so that [`decode`] gives it back and neither `?` nor `&` ends it.
pub fn encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '?' => encoded.push_str("%3F"),
            '&' => encoded.push_str("%26"),
            '%' => encoded.push_str("%25"),
            c => encoded.push(c),
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_when_encoded_and_decoded_then_is_the_same() {
        for text in ["", "/disk.img", "/100%", "/what?&why=%3F", "/é%"] {
            assert_eq!(decode(&encode(text)).unwrap(), text);
        }
        assert_eq!(decode("%3f%26%25").unwrap(), "?&%");
    }

    #[test]
    fn percent_sign_when_no_escape_then_is_refused() {
        for text in ["%", "/50%", "%2", "%41", "%zz", "%é", "a%%25"] {
            assert!(matches!(decode(text), Err(ConfigError::Escape { .. })), "{text:?}");
        }
    }
}
