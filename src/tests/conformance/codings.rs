//! The end of a body by its transfer coding (RFC 9112 section 6), and its use for request
//! smuggling.
//!
//! Every variant hides a second request. The defence is that only one answer is sent and that the
//! connection is closed after it.

use crate::case::{HIDDEN, Table};
use crate::drive;

#[test]
fn transfer_encoding_is_parsed_strictly() {
    let mut table = Table::default();
    codings(&mut table);
    codings_with_length(&mut table);
    drive::check(table.cases);
}

fn codings(t: &mut Table) {
    t.section("RFC 9112 6.1, 6.3");
    let body = format!("0\r\n\r\n{HIDDEN}");
    for coding in [
        "",
        " ",
        ",",
        "x",
        "gzip",
        "deflate",
        "compress",
        "br",
        "identity",
        "xchunked",
        "chunkedx",
        "x-chunked",
        "chunked-x",
        "chunke",
        "hunked",
        "cHuNkEd2",
        "chunk",
        "chunked, chunked",
        "chunked,chunked",
        "gzip, chunked",
        "chunked, gzip",
        "chunked, identity",
        "identity, chunked",
        "identity,chunked",
        "chunked, cow",
        "cow, chunked",
        "chunked,",
        ",chunked",
        ", chunked",
        "chunked, ,",
        "chunked ,",
        ",,chunked",
        "chunked;",
        "chunked;a",
        "chunked;a=b",
        "chunked ;a=b",
        "chunked; q=1",
        "\"chunked\"",
        "'chunked'",
        "\"chunked",
        "chunked\"",
        "(chunked)",
        "chunked (x)",
        "chunked x",
        "x chunked",
        "chunked chunked",
        "chunked\tx",
        "ch unked",
        "chunked=",
        "=chunked",
        ":chunked",
        "chunked:",
        "chunked/1",
        "chunked.",
        "chunked\u{a0}",
        "\u{a0}chunked",
        "chun\u{212a}ed",
        "\u{441}hunked",
        "\u{feff}chunked",
        "chunked\\",
        "\\chunked",
        "chunked\\r\\n",
        "chun%6bed",
        "chun\\ked",
        "[chunked]",
        "{chunked}",
        "<chunked>",
        "chunked|",
        "chunked&",
        "chunked?",
        "chunked#",
        "trailers",
        "chunked, trailers",
        "close",
        "chunked, close",
        "null",
        "0",
        "false",
    ] {
        t.body(format!("Transfer-Encoding: {coding}"), &body, "400!");
    }
    for byte in [0, 1, 8, 11, 12, 14, 27, 31, 127, 128, 160, 255] {
        let before = [b"Transfer-Encoding: ", &[byte][..], b"chunked"].concat();
        let after = [b"Transfer-Encoding: chunked", &[byte][..]].concat();
        let at_name = [b"Transfer-Encoding", &[byte][..], b": chunked"].concat();
        let first = [&[byte][..], b"Transfer-Encoding: chunked"].concat();
        for field in [before, after, at_name, first] {
            t.body(field, &body, "400!");
        }
    }
    for fields in [
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: x",
        "Transfer-Encoding: x\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
        "Transfer-Encoding: identity\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nTransfer-encoding: cow",
        "Transfer-Encoding:\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding:",
        "Transfer-Encoding: gzip\r\nX: y\r\ntransfer-encoding: chunked",
        "Transfer-Encoding:\n chunked",
        "Transfer-Encoding: \nchunked",
        "X: y\nTransfer-Encoding: x",
        "X: y\rTransfer-Encoding: chunked",
        "X: y\r\n Transfer-Encoding: chunked",
        "Transfer-Encoding\r\n: chunked",
        "Transfer-Encoding : chunked",
        "Transfer-Encoding\t: chunked",
        " Transfer-Encoding: chunked",
        "\tTransfer-Encoding: chunked",
        "Transfer_Encoding: chunked",
        "Transfer Encoding: chunked",
        "\"Transfer-Encoding\": chunked",
        "Transfer\u{ad}Encoding: chunked",
        "Transfer-Encoding:: chunked",
        "Transfer-Encoding: chunked\r\n\r: x",
        "Transfer-Encoding",
        "Transfer-Encoding\\: chunked",
        "[Transfer-Encoding: chunked",
    ] {
        t.body(fields, &body, "400!");
    }
    for field in [
        "Transfer-Encoding: chunked",
        "Transfer-Encoding:chunked",
        "Transfer-Encoding: \tchunked \t",
        "transfer-encoding: CHUNKED",
        "TRANSFER-ENCODING: Chunked",
        "Transfer-Encoding:\tchunked",
        "Transfer-Encoding: chunked\r\nTE: trailers",
        "TE: chunked\r\nTransfer-Encoding: chunked",
    ] {
        t.body(field, "5\r\nhello\r\n0\r\n\r\n", "200");
    }
    for field in [
        "X-Transfer-Encoding: chunked",
        "TransferEncoding: chunked",
        "Transfer-Encodin: chunked",
        "Transfer-Encodings: chunked",
        "TE: chunked",
        "Content-Encoding: chunked",
        "Foo: chunked",
    ] {
        // Without a transfer coding there is no body, so the following bytes are the next request.
        t.body(field, HIDDEN, "200 404");
        t.body(field, &body, "200 400!");
    }
    for fields in ["Transfer-Encoding: chunked", "Transfer-Encoding: x"] {
        let head = format!("GET /healthz HTTP/1.0\r\nConnection: keep-alive\r\n{fields}\r\n\r\n");
        t.raw(&format!("{fields} of 1.0"), format!("{head}{body}"), "400!");
        let head = format!("GET /healthz HTTP/1.0\r\nContent-Length: 5\r\n{fields}\r\n\r\n");
        t.raw(&format!("{fields} and a length of 1.0"), format!("{head}{body}"), "400!");
    }
}

fn codings_with_length(t: &mut Table) {
    t.section("RFC 9112 6.1, 6.3, 11.2");
    let chunked = "Transfer-Encoding: chunked";
    for length in ["0", "3", "5", "6", "100", "x", "-1", "5, 5"] {
        let length = format!("Content-Length: {length}");
        t.body(format!("{length}\r\n{chunked}"), format!("0\r\n\r\n{HIDDEN}"), "400!");
        t.body(format!("{chunked}\r\n{length}"), format!("0\r\n\r\n{HIDDEN}"), "400!");
        t.body(format!("{length}\r\nX: y\r\n{chunked}"), format!("5\r\nhello\r\n{HIDDEN}"), "400!");
    }
    for coding in
        ["xchunked", "identity", "gzip", "chunked, identity", "", "chunked;a", "\"chunked\""]
    {
        let fields = format!("Content-Length: 5\r\nTransfer-Encoding: {coding}");
        t.body(fields, format!("0\r\n\r\n{HIDDEN}"), "400!");
    }
    for method in ["POST", "HEAD", "OPTIONS", "PUT"] {
        let head =
            format!("{method} /healthz HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n{chunked}");
        let expected = if method == "HEAD" { "H400!" } else { "400!" };
        let bytes = format!("{head}\r\n\r\n5c\r\n{HIDDEN}\r\n0\r\n\r\n");
        t.raw(&format!("TE.CL by {method}"), bytes, expected);
    }
    let twice = format!("Content-Length: 6\r\n{chunked}");
    t.body(&twice, "0\r\n\r\nG", "400!");
    t.body(&twice, format!("0\r\n\r\n{HIDDEN}{HIDDEN}{HIDDEN}"), "400!");
    t.body(format!("{twice}\r\nConnection: keep-alive"), format!("0\r\n\r\n{HIDDEN}"), "400!");
    t.body(format!("{chunked}\r\nConnection: transfer-encoding"), "0\r\n\r\n", "200");
    t.body("Content-Length: 5\r\nConnection: content-length", "hello", "200");
    t.body("Content-Length: 5\r\nTransfer-Encodin: chunked", format!("hello{HIDDEN}"), "200 404");
}
