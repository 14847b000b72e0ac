//! Heads of HTTP/1 that are still coming.

use memchr::{memchr_iter, memmem};

const HEAD_END: &[u8] = b"\r\n\r\n";
/// Pingora takes a head with more for none, and nobody would tell the client why.
const FIELDS_MAX: usize = 256;
/// Of more than that: each has a name, a colon and the end of a line.
const FIELDS_BYTES_MIN: usize = FIELDS_MAX * 4;

/// Whether there is the end of a head.
pub fn has_head(bytes: &[u8]) -> bool {
    memmem::find(begun(bytes), HEAD_END).is_some()
}

/// Whether there are more fields than are read.
pub fn has_too_many_fields(bytes: &[u8]) -> bool {
    if bytes.len() < FIELDS_BYTES_MIN {
        return false;
    }
    let head = begun(bytes);
    let head = match memmem::find(head, HEAD_END) {
        Some(end) => &head[..end],
        None => head.trim_ascii_end(),
    };
    memchr_iter(b'\n', head).count() > FIELDS_MAX
}

/// Without the empty lines before a request, which end no head (RFC 9112, 2.2).
fn begun(bytes: &[u8]) -> &[u8] {
    let start = bytes.iter().position(|b| !matches!(b, b'\r' | b'\n'));
    &bytes[start.unwrap_or(bytes.len())..]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_line_ends_a_head_that_has_begun() {
        for (bytes, whole) in [
            ("", false),
            ("\r\n\r\n", false),
            ("\r\n\r\nGET / HTTP/1.1\r\n", false),
            ("\r\nGET / HTTP/1.1\r\n\r\n", true),
        ] {
            assert_eq!(has_head(bytes.as_bytes()), whole, "{bytes:?}");
        }
    }

    #[test]
    fn fields_are_counted_up_to_the_end_of_the_head() {
        let head = |fields: usize| format!("\r\nGET / HTTP/1.1\r\n{}", "a:b\r\n".repeat(fields));
        for (fields, behind, too_many) in [
            (FIELDS_MAX, "", false),
            (FIELDS_MAX, "\r\n", false),
            (FIELDS_MAX, "\r\nbody\nof\nlines\n", false),
            (FIELDS_MAX, "a", true),
            (FIELDS_MAX + 1, "", true),
            (FIELDS_MAX + 1, "\r\n", true),
        ] {
            let bytes = head(fields) + behind;
            assert_eq!(has_too_many_fields(bytes.as_bytes()), too_many, "{fields} {behind:?}");
        }
    }
}
