//! An independent parser that counts the requests in a byte stream. It uses complete lines and
//! slices, and has no state.
//!
//! It accepts everything that matches the grammar of RFC 9112 and ignores the meaning (which host,
//! which length). So the service may refuse a request that this parser accepts, but never the
//! reverse.

/// An element of the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Element {
    /// A well-formed request.
    Request { is_head: bool },
    /// Bytes that are not a request or not yet one. No element follows.
    Rest,
}

/// Parses up to the last request that must be answered.
pub(crate) fn read(mut bytes: &[u8]) -> Vec<Element> {
    let mut elements = Vec::new();
    loop {
        while let [b'\r', b'\n', rest @ ..] = bytes {
            bytes = rest;
        }
        if bytes.is_empty() {
            return elements;
        }
        let Some((is_head, is_last, len)) = read_request(bytes) else {
            elements.push(Element::Rest);
            return elements;
        };
        elements.push(Element::Request { is_head });
        if is_last {
            return elements;
        }
        bytes = &bytes[len..];
    }
}

/// Returns whether the request is a HEAD, whether it is the last one, and its length.
fn read_request(bytes: &[u8]) -> Option<(bool, bool, usize)> {
    let head_len = bytes.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
    // The bytes are decoded as Latin-1, so that every byte is one character.
    let head: String = bytes[..head_len - 4].iter().map(|byte| char::from(*byte)).collect();
    let mut lines = head.split("\r\n");
    let words: Vec<&str> = lines.next()?.split(' ').collect();
    let &[method, target, version] = &words[..] else { return None };
    let minor = version.strip_prefix("HTTP/1.")?;
    let is_visible = |text: &str| !text.is_empty() && text.chars().all(|c| matches!(c, '!'..='~'));
    if !is_token(method) || !is_visible(target) || !matches!(minor.as_bytes(), [b'0'..=b'9']) {
        return None;
    }
    let (mut lengths, mut codings, mut options) = (Vec::new(), Vec::new(), Vec::new());
    for line in lines {
        let (name, value) = line.split_once(':')?;
        let is_text = |c: char| c == '\t' || !(c.is_ascii_control());
        if !is_token(name) || !value.chars().all(is_text) {
            return None;
        }
        let value = trim(value).to_ascii_lowercase();
        match &*name.to_ascii_lowercase() {
            "content-length" => lengths.push(value),
            "transfer-encoding" => codings.push(value),
            "connection" => options.extend(members(&value)),
            _ => {}
        }
    }
    let has_option = |option: &str| options.iter().any(|it| it == option);
    let is_last = has_option("close") || (minor == "0" && !has_option("keep-alive"));
    let body = &bytes[head_len..];
    let body_len = match (&lengths[..], &codings[..]) {
        ([], []) => 0,
        ([length], []) if length.bytes().all(|byte| byte.is_ascii_digit()) => {
            length.parse().ok()?
        }
        ([], [coding]) if coding == "chunked" && minor != "0" => read_chunks(body)?,
        _ => return None,
    };
    (body_len <= body.len()).then_some((method == "HEAD", is_last, head_len + body_len))
}

fn members(list: &str) -> Vec<String> {
    list.split(',').map(|member| trim(member).to_owned()).collect()
}

/// Trims HTTP whitespace only. Unicode whitespace such as 0xA0 is obs-text here.
fn trim(text: &str) -> &str {
    text.trim_matches([' ', '\t'])
}

/// The length of a chunked body.
fn read_chunks(body: &[u8]) -> Option<usize> {
    let mut rest = body;
    loop {
        let line = take_line(&mut rest)?;
        let digits = line.split(|byte| b"; \t".contains(byte)).next()?;
        if digits.is_empty() || !digits.iter().all(u8::is_ascii_hexdigit) {
            return None;
        }
        let size = usize::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
        if size == 0 {
            break;
        }
        rest = rest.get(size..)?.strip_prefix(b"\r\n")?;
    }
    loop {
        let trailer = take_line(&mut rest)?;
        if trailer.is_empty() {
            return Some(body.len() - rest.len());
        }
        if !trailer.contains(&b':') {
            return None;
        }
    }
}

fn take_line<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let len = rest.windows(2).position(|two| two == b"\r\n")?;
    let (line, after) = rest.split_at(len);
    *rest = &after[2..];
    Some(line)
}

fn is_token(text: &str) -> bool {
    let is_tchar = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
    !text.is_empty() && text.chars().all(is_tchar)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_counted_up_to_the_first_invalid_one() {
        let check = |text: &str, expected: &[Element]| assert_eq!(read(text.as_bytes()), expected);
        let (get, head) = (Element::Request { is_head: false }, Element::Request { is_head: true });
        let one = "GET / HTTP/1.1\r\nHost: h\r\n\r\n";
        let last = one.replace("1.1", "1.0");
        let chunked =
            "POST / HTTP/1.1\r\nTransfer-Encoding: Chunked\r\n\r\n5;a\r\nhello\r\n0\r\n\r\n";
        check("", &[]);
        check(&format!("\r\n{one}{}", one.replace("GET", "HEAD")), &[get, head]);
        check(&format!("{one}GET /"), &[get, Element::Rest]);
        check(&format!("{last}{one}"), &[get]);
        check(&format!("{chunked}{one}"), &[get, get]);
        check(&chunked.replace("5;", "6;"), &[Element::Rest]);
        check(&one.replace("Host", "Content-Length: 5\r\nHost"), &[Element::Rest]);
        check(
            &format!("{}hello{one}", one.replace("Host", "Content-Length: 5\r\nHost")),
            &[get, get],
        );
        check(&last.replace("Host: h", "Connection: x, keep-alive"), &[get]);
        assert_eq!(read(b"GET / HTTP/1.0\r\nConnection: \xA0keep-alive\r\n\r\nX"), [get]);
        check(&one.replace("Host", "Content-Length: +0\r\nHost"), &[Element::Rest]);
    }
}
