//! What a caller's certificate says about the caller.

use std::fmt::Write;

use x509_parser::asn1_rs::ToDer;
use x509_parser::extensions::GeneralName;
use x509_parser::parse_x509_certificate;
use x509_parser::x509::{AttributeTypeAndValue, X509Name};

use crate::types::Certificate;

/// The attribute types that have a short name (RFC 4514, section 3).
const SHORT: [(&str, &str); 9] = [
    ("2.5.4.3", "CN"),
    ("2.5.4.7", "L"),
    ("2.5.4.8", "ST"),
    ("2.5.4.10", "O"),
    ("2.5.4.11", "OU"),
    ("2.5.4.6", "C"),
    ("2.5.4.9", "STREET"),
    ("0.9.2342.19200300.100.1.25", "DC"),
    ("0.9.2342.19200300.100.1.1", "UID"),
];

/// Reads a certificate that rustls has verified.
///
/// # Errors
/// When it cannot be read, or a name in it has control characters, which no honest one has.
pub(super) fn read(der: &[u8]) -> Result<Certificate, String> {
    let unreadable = |_| "the caller's certificate cannot be read".to_owned();
    let (_, certificate) = parse_x509_certificate(der).map_err(unreadable)?;
    let mut names = Vec::new();
    let alternative = certificate
        .subject_alternative_name()
        .map_err(|_| "the caller's alternative names cannot be read".to_owned())?;
    for name in alternative.iter().flat_map(|extension| &extension.value.general_names) {
        let (GeneralName::DNSName(text) | GeneralName::URI(text) | GeneralName::RFC822Name(text)) =
            name
        else {
            continue;
        };
        if text.chars().any(char::is_control) {
            return Err("the caller's certificate has control characters in a name".to_owned());
        }
        names.push((*text).to_owned());
    }
    Ok(Certificate { subject: distinguished_name(certificate.subject()), names })
}

/// A name as RFC 4514 writes it: the last part first, everything escaped that means something.
pub(super) fn distinguished_name(name: &X509Name<'_>) -> String {
    let mut parts: Vec<String> = name
        .iter_rdn()
        .map(|part| part.iter().map(attribute).collect::<Vec<_>>().join("+"))
        .collect();
    parts.reverse();
    parts.join(",")
}

fn attribute(attribute: &AttributeTypeAndValue<'_>) -> String {
    let id = attribute.attr_type().to_id_string();
    let short = SHORT.iter().find(|(dotted, _)| *dotted == id).map(|(_, name)| *name);
    match (short, attribute.as_str()) {
        (Some(name), Ok(text)) => format!("{name}={}", escaped(text)),
        // Other types and other encodings go as they are in the certificate.
        (name, _) => {
            let der = attribute.attr_value().to_der_vec().unwrap_or_default();
            let mut out = format!("{}=#", name.unwrap_or(&id));
            der.iter().for_each(|byte| push_hex(&mut out, *byte));
            out
        }
    }
}

/// A value with its escapes (RFC 4514, section 2.4).
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let last = text.chars().count().saturating_sub(1);
    for (i, c) in text.chars().enumerate() {
        match c {
            '"' | '+' | ',' | ';' | '<' | '>' | '\\' => out.extend(['\\', c]),
            '#' if i == 0 => out.push_str("\\#"),
            ' ' if i == 0 || i == last => out.push_str("\\ "),
            c if c.is_control() => {
                for byte in c.encode_utf8(&mut [0; 4]).bytes() {
                    out.push('\\');
                    push_hex(&mut out, byte);
                }
            }
            c => out.push(c),
        }
    }
    out
}

fn push_hex(out: &mut String, byte: u8) {
    // Writing to a string cannot fail.
    let _ = write!(out, "{byte:02X}");
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, SanType};

    use super::*;

    fn certificate(change: impl FnOnce(&mut CertificateParams)) -> Vec<u8> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        params.self_signed(&key).unwrap().der().to_vec()
    }

    #[test]
    fn the_last_part_of_a_subject_comes_first() {
        let der = certificate(|params| {
            params.distinguished_name.push(DnType::CountryName, "DE");
            params.distinguished_name.push(DnType::OrganizationName, "Example, Inc.");
            params.distinguished_name.push(DnType::CommonName, "batch \"one\" #1");
            params.subject_alt_names = vec![
                SanType::DnsName("batch.example".try_into().unwrap()),
                SanType::URI("spiffe://example/batch".try_into().unwrap()),
                SanType::Rfc822Name("batch@example.org".try_into().unwrap()),
                SanType::IpAddress([127, 0, 0, 1].into()),
            ];
        });
        let read = read(&der).unwrap();
        assert_eq!(read.subject, "CN=batch \\\"one\\\" #1,O=Example\\, Inc.,C=DE");
        assert_eq!(read.names, ["batch.example", "spiffe://example/batch", "batch@example.org"]);
    }

    #[test]
    fn a_value_cannot_pose_as_another_part() {
        let der = certificate(|params| {
            params.distinguished_name.push(DnType::CommonName, "a,O=Admins");
        });
        assert_eq!(read(&der).unwrap().subject, "CN=a\\,O=Admins");
    }

    #[test]
    fn types_without_a_short_name_are_numbers() {
        let der = certificate(|params| {
            params.distinguished_name.push(DnType::CustomDnType(vec![2, 5, 4, 5]), "7");
        });
        assert_eq!(read(&der).unwrap().subject, "2.5.4.5=#0C0137");
    }

    #[test]
    fn spaces_at_the_ends_and_control_characters_are_escaped() {
        assert_eq!(escaped(" #x "), "\\ #x\\ ");
        assert_eq!(escaped("#x"), "\\#x");
        assert_eq!(escaped("a\0b\nc"), "a\\00b\\0Ac");
        assert_eq!(escaped("Jürgen"), "Jürgen");
    }

    /// Undoes the escapes.
    fn plain(text: &str) -> String {
        let (mut bytes, mut out) = (text.bytes(), Vec::new());
        while let Some(byte) = bytes.next() {
            if byte != b'\\' {
                out.push(byte);
                continue;
            }
            let first = bytes.next().unwrap();
            match char::from(first).to_digit(16) {
                Some(_) => {
                    let digits = [first, bytes.next().unwrap()];
                    let digits = std::str::from_utf8(&digits).unwrap();
                    out.push(u8::from_str_radix(digits, 16).unwrap());
                }
                None => out.push(first),
            }
        }
        String::from_utf8(out).unwrap()
    }

    proptest! {
        #[test]
        fn different_values_never_look_alike(text in any::<String>()) {
            let escaped = escaped(&text);
            prop_assert_eq!(plain(&escaped), text);
            let unescaped: Vec<_> = escaped.match_indices(',').collect();
            prop_assert!(unescaped.iter().all(|(at, _)| escaped[..*at].ends_with('\\')));
        }

        #[test]
        fn any_bytes_are_a_certificate_or_an_error(bytes in any::<Vec<u8>>()) {
            let _ = read(&bytes);
        }

        #[test]
        fn a_damaged_certificate_is_read_or_refused(at in any::<prop::sample::Index>(), to in any::<u8>()) {
            let mut der = certificate(|params| {
                params.distinguished_name.push(DnType::CommonName, "a");
                params.subject_alt_names = vec![SanType::DnsName("a.b".try_into().unwrap())];
            });
            let at = at.index(der.len());
            der[at] = to;
            let _ = read(&der);
        }
    }
}
