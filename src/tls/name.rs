//! The name of a certificate's holder or issuer, as text (RFC 4514).

use std::fmt::Write;

use pkcs8::der::asn1::{AnyRef, Ia5StringRef, ObjectIdentifier, PrintableStringRef, TeletexStringRef, Utf8StringRef};
use pkcs8::der::{Encode, Reader, Result, Tag, Tagged};

/// The names of the parts (RFC 4519, 2), and of the one in old certificates (RFC 2985, 5.2.1).
const PARTS: &[(ObjectIdentifier, &str)] = &[
    (ObjectIdentifier::new_unwrap("2.5.4.3"), "CN"),
    (ObjectIdentifier::new_unwrap("2.5.4.4"), "SN"),
    (ObjectIdentifier::new_unwrap("2.5.4.5"), "SERIALNUMBER"),
    (ObjectIdentifier::new_unwrap("2.5.4.6"), "C"),
    (ObjectIdentifier::new_unwrap("2.5.4.7"), "L"),
    (ObjectIdentifier::new_unwrap("2.5.4.8"), "ST"),
    (ObjectIdentifier::new_unwrap("2.5.4.9"), "STREET"),
    (ObjectIdentifier::new_unwrap("2.5.4.10"), "O"),
    (ObjectIdentifier::new_unwrap("2.5.4.11"), "OU"),
    (ObjectIdentifier::new_unwrap("0.9.2342.19200300.100.1.1"), "UID"),
    (ObjectIdentifier::new_unwrap("0.9.2342.19200300.100.1.25"), "DC"),
    (ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.1"), "EMAILADDRESS"),
];

/// Reads a name: a sequence of sets of parts, the most general first, which is last in the text.
pub(super) fn read<'a>(reader: &mut impl Reader<'a>) -> Result<String> {
    let mut sets: Vec<String> = Vec::new();
    reader.sequence(|reader| {
        while !reader.is_finished() {
            sets.push(set(reader.decode()?)?);
        }
        Ok::<_, pkcs8::der::Error>(())
    })?;
    sets.reverse();
    Ok(sets.join(","))
}

fn set(set: AnyRef) -> Result<String> {
    set.tag().assert_eq(Tag::Set)?;
    let mut reader = pkcs8::der::SliceReader::new(set.value())?;
    let mut parts = Vec::new();
    while !reader.is_finished() {
        parts.push(reader.sequence(|reader| {
            let kind = reader.decode()?;
            part(kind, reader.decode()?)
        })?);
    }
    Ok(parts.join("+"))
}

fn part(kind: ObjectIdentifier, value: AnyRef) -> Result<String> {
    let name = PARTS.iter().find(|(known, _)| *known == kind).map(|(_, name)| *name);
    if let (Some(name), Some(text)) = (name, text(value)) {
        return Ok(format!("{name}={}", escaped(text)));
    }
    let mut shown = format!("{kind}=#");
    for byte in value.to_der()? {
        let _ = write!(shown, "{byte:02x}");
    }
    Ok(shown)
}

fn text(value: AnyRef<'_>) -> Option<&str> {
    match value.tag() {
        Tag::PrintableString => value.decode_as::<PrintableStringRef>().ok().map(|text| text.as_str()),
        Tag::Utf8String => value.decode_as::<Utf8StringRef>().ok().map(|text| text.as_str()),
        Tag::Ia5String => value.decode_as::<Ia5StringRef>().ok().map(|text| text.as_str()),
        Tag::TeletexString => value.decode_as::<TeletexStringRef>().ok().map(|text| text.as_str()),
        _ => None,
    }
}

/// With a backslash before characters that have a special meaning (RFC 4514, 2.4).
fn escaped(text: &str) -> String {
    let last = text.chars().count().saturating_sub(1);
    let mut escaped = String::new();
    for (index, letter) in text.chars().enumerate() {
        match letter {
            '\0'..='\x1f' | '\x7f' => _ = write!(escaped, "\\{:02x}", u32::from(letter)),
            '"' | '+' | ',' | ';' | '<' | '>' | '\\' => escaped.extend(['\\', letter]),
            '#' if index == 0 => escaped.push_str("\\#"),
            ' ' if index == 0 || index == last => escaped.push_str("\\ "),
            _ => escaped.push(letter),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_mean_something_else_is_escaped() {
        assert_eq!(escaped("Ex, Inc. <a+b>\n"), "Ex\\, Inc. \\<a\\+b\\>\\0a");
        assert_eq!((escaped(" a b "), escaped("# #")), ("\\ a b\\ ".into(), "\\# #".into()));
        assert_eq!(escaped("é"), "é");
    }
}
