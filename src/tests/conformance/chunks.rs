//! The chunked transfer coding (RFC 9112 section 7.1), and its use for request smuggling.

use crate::case::{HIDDEN, Table};
use crate::drive;

#[test]
fn the_chunked_coding_is_parsed_strictly() {
    let mut table = Table::default();
    chunks(&mut table);
    sizes(&mut table);
    extensions(&mut table);
    trailers(&mut table);
    drive::check(table.cases);
}

fn chunks(t: &mut Table) {
    t.section("RFC 9112 7.1");
    for body in [
        "0\r\n\r\n",
        "00\r\n\r\n",
        "0000000000\r\n\r\n",
        "1\r\nx\r\n0\r\n\r\n",
        "5\r\nhello\r\n0\r\n\r\n",
        "5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n",
        "a\r\n0123456789\r\n0\r\n\r\n",
        "A\r\n0123456789\r\n0\r\n\r\n",
        "0A\r\n0123456789\r\n0\r\n\r\n",
        "05\r\nhello\r\n000\r\n\r\n",
        "2\r\n\r\n\r\n0\r\n\r\n",
        "5\r\n0\r\n\r\n\r\n0\r\n\r\n",
        "1\r\n\0\r\n0\r\n\r\n",
        "1\r\n\n\r\n0\r\n\r\n",
        "1\r\n\r\r\n0\r\n\r\n",
    ] {
        t.chunks(body, "200");
        t.chunks(format!("{body}{HIDDEN}"), "200 404");
    }
    t.chunks(format!("{:x}\r\n{HIDDEN}\r\n0\r\n\r\n", HIDDEN.len()), "200");
    t.chunks(format!("1{}\r\n{}\r\n0\r\n\r\n", "0".repeat(4), "x".repeat(65_536)), "200");
    t.chunks(format!("{}5\r\nhello\r\n0\r\n\r\n", "0".repeat(100)), "200");
    t.chunks("1\r\nx\r\n".repeat(500) + "0\r\n\r\n", "200");
    for body in [
        "5\r\nhello0\r\n\r\n",
        "5\r\nhello\n0\r\n\r\n",
        "5\r\nhello\r0\r\n\r\n",
        "5\r\nhell\r\n0\r\n\r\n",
        "5\r\nhello!\r\n0\r\n\r\n",
        "5\r\nhello world\r\n0\r\n\r\n",
        "5\r\nhello\r\n\r\n0\r\n\r\n",
        "5\r\nhello\r\n 0\r\n\r\n",
        "5\r\nhello \r\n0\r\n\r\n",
        "5\r\nhelloXX0\r\n\r\n",
        "5\nhello\r\n0\r\n\r\n",
        "5\rhello\r\n0\r\n\r\n",
        "5\r\nhello\r\n0\n\r\n",
        "5\r\nhello\r\n0\r\n\n",
        "5\n\nhello\r\n0\r\n\r\n",
        "5\r\rhello\r\n0\r\n\r\n",
        "5\r\r\nhello\r\n0\r\n\r\n",
        "0\n\n",
        "0\r\r",
        "0\r\n\rX",
        "0\r\n\nX",
        "0\nX: y\r\n\r\n",
        "\r\n0\r\n\r\n",
        "\n0\r\n\r\n",
        "5\r\nhello\r\r\n0\r\n\r\n",
        "5\r\nhello\n\n0\r\n\r\n",
        "2\r\nxx\r\n0\r\n\rx",
        "5hello\r\n0\r\n\r\n",
        "hello",
        "{}",
        "\0",
        "\r\n",
        "\n",
    ] {
        t.chunks(format!("{body}{HIDDEN}"), "400!");
    }
    for body in [
        "",
        "5",
        "5\r",
        "5\r\n",
        "5\r\nhell",
        "5\r\nhello",
        "5\r\nhello\r",
        "5\r\nhello\r\n",
        "5\r\nhello\r\n0",
        "5\r\nhello\r\n0\r\n",
        "0\r\n\r",
        "0\r\nX: y",
        "0\r\nX: y\r\n",
        "5;a",
    ] {
        t.chunks(body, "?400");
    }
}

fn sizes(t: &mut Table) {
    t.section("RFC 9112 7.1");
    for size in [
        "",
        " ",
        "+5",
        "-5",
        "-0",
        "+0",
        "0x5",
        "0X5",
        "x5",
        "5x",
        "5h",
        "5H",
        "g",
        "G",
        "5g",
        "#5",
        "$5",
        "5.0",
        "5,",
        ",5",
        "5,5",
        "5 5",
        "5_0",
        "_5",
        "\"5\"",
        "'5'",
        "5\\",
        "%35",
        "5%",
        "5L",
        "5u",
        "&H5",
        "\\x5",
        "{5}",
        "(5)",
        "5:",
        ":5",
        "5=",
        "=5",
        "5/",
        "5-",
        "\u{665}",
        "\u{ff15}",
        "5\u{a0}",
        " 5",
        "\t5",
        "5 ",
        "5\t",
        "5  ",
        "5\x0B",
        "5\x0C",
        "5\0",
        "\x005",
        "5\x7F",
        "\x0B5",
        "0 ",
        "0\t",
        " 0",
        "0x0",
        "0x",
        "-1",
        "5\u{feff}",
    ] {
        t.chunks(format!("{size}\r\nhello\r\n0\r\n\r\n{HIDDEN}"), "400!");
        t.chunks(format!("5\r\nhello\r\n{size}\r\n\r\n{HIDDEN}"), "400!");
    }
    for size in [
        "10001",
        "100000",
        "7fffffff",
        "80000000",
        "ffffffff",
        "100000000",
        "100000005",
        "7fffffffffffffff",
        "8000000000000000",
        "ffffffffffffffff",
        "FFFFFFFFFFFFFFFF",
        "10000000000000000",
        "10000000000000005",
        "fffffffffffffffffffffffffffffffff",
        "00000000000000000000010001",
    ] {
        t.chunks(format!("{size}\r\nhello\r\n0\r\n\r\n{HIDDEN}"), "413!");
    }
    t.chunks(format!("8000\r\n{}\r\n8001\r\n", "x".repeat(0x8000)), "413!");
    t.chunks(format!("{}\r\n", "0".repeat(5000)), "400!");
}

fn extensions(t: &mut Table) {
    t.section("RFC 9112 7.1.1");
    for extension in [
        ";a",
        ";a=b",
        ";a=b;c=d",
        ";a;b;c",
        ";a=\"b\"",
        ";a=\"\"",
        ";a=\"b c\"",
        ";a=\"\\\"\"",
        ";a=\"\\\\\"",
        ";a=\"b;c=d\"",
        ";a=\"5\"",
        ";a=\"\t\"",
        ";!#$%&'*+-.^_`|~=1",
        ";a=\"\u{e9}\"",
        // A recipient must parse bad whitespace (RFC 9110 section 5.6.3).
        " ;a",
        "\t;a",
        "; a",
        ";\ta",
        " ; a",
        ";a =b",
        ";a= b",
        ";a = b",
        ";a\t=\tb",
        ";a ;b",
        ";a=b ;c",
        ";a=\"b\" ;c=d",
        " \t;\t a \t=\t b",
        ";a = \"b\"",
        ";a=b  ;  c  =  d",
    ] {
        t.chunks(format!("5{extension}\r\nhello\r\n0\r\n\r\n{HIDDEN}"), "200 404");
        t.chunks(format!("5\r\nhello\r\n0{extension}\r\n\r\n{HIDDEN}"), "200 404");
    }
    t.chunks(format!("5;a={}\r\nhello\r\n0\r\n\r\n", "b".repeat(200)), "200");
    for extension in [
        ";",
        ";;",
        ";;a",
        ";a;",
        ";a;;b",
        ";=",
        ";=b",
        ";a=",
        ";a==b",
        ";a=b=c",
        ";a=;b",
        ";a,b",
        ";a b",
        ";a=b c",
        ";\"a\"",
        ";\"a\"=b",
        ";a=\"b",
        ";a=\"b\"c",
        ";a=b\"c\"",
        ";a=\"b\"\"c\"",
        ";a=\"\\",
        ";(a)",
        ";a(b)",
        ";a=(b)",
        ";a/b",
        ";a@b",
        ";a:b",
        ";a?",
        ";[a]",
        ";a\\",
        ";{a}",
        " a",
        " 5",
        "=a",
        ":a",
        ",a",
        " ",
        "; ",
        ";a ",
        ";a=b ",
        ";a= ",
        ";a=\"b\" ",
        "\t",
        ";\u{e9}",
        ";a=\u{e9}",
        ";a\0",
        ";a=\0",
        ";a=\"\0\"",
        ";a\x01",
        ";a\x0B",
        ";a=\"\x7F\"",
        ";a\x0C;b",
        ";a\n",
        ";a\nX",
        ";a=b\n",
        ";\n",
        ";a\r",
        ";a\rX",
        ";a=\"\r\"",
        ";a=\"\n\"",
        ";\r",
        ";a\r\r",
        ";a=\r",
        ";a=\"b\n5\"",
    ] {
        t.chunks(format!("5{extension}\r\nhello\r\n0\r\n\r\n{HIDDEN}"), "400!");
    }
    t.chunks(format!("2;\nxx\r\n4c\r\n0\r\n\r\n{HIDDEN}"), "400!");
    t.chunks(format!("5;{}\r\nhello\r\n0\r\n\r\n", "a".repeat(300)), "400!");
    t.chunks(format!("5;{}\r\nhello\r\n0\r\n\r\n", "a".repeat(65_536)), "400!");
    t.chunks(format!("5;a=\"{}\r\nhello\r\n0\r\n\r\n", " ".repeat(1000)), "400!");
}

fn trailers(t: &mut Table) {
    t.section("RFC 9112 7.1.2, RFC 9110 6.5");
    for trailer in [
        "X: y\r\n",
        "X:\r\n",
        "X: \r\n",
        "X: y\r\nZ: a\r\n",
        "x:y\r\n",
        "X: \u{e9}\r\n",
        "X: a\tb\r\n",
        // Fields that must not be taken from a trailer have no effect.
        "Content-Length: 100\r\n",
        "Content-Length: x\r\n",
        "Transfer-Encoding: chunked\r\n",
        "Transfer-Encoding: x\r\n",
        "Host: other\r\n",
        "Connection: close\r\n",
        "Expect: x\r\n",
        "Authorization: Bearer x\r\n",
        "Content-Type: a/b\r\n",
        "Trailer: X\r\n",
        "TE: x\r\n",
        "Content_Length: 5\r\n",
        "Accept: text/html\r\n",
    ] {
        t.chunks(format!("0\r\n{trailer}\r\n{HIDDEN}"), "200 404");
    }
    t.body(
        "Transfer-Encoding: chunked\r\nTrailer: X",
        format!("5\r\nhello\r\n0\r\nX: y\r\n\r\n{HIDDEN}"),
        "200 404",
    );
    for trailer in [
        "X\r\n",
        ": y\r\n",
        " X: y\r\n",
        "\tX: y\r\n",
        "X : y\r\n",
        "X\t: y\r\n",
        "X Y: z\r\n",
        "X: y\r\n z\r\n",
        "X: \0\r\n",
        "X: \x7F\r\n",
        "X\0: y\r\n",
        "X: y\n",
        "X: y\rZ: a\r\n",
        "X: y\r\r\n",
        "\u{e9}: y\r\n",
        "X\n",
        "GET / HTTP/1.1\r\n",
        "X(: y\r\n",
        "\n",
        "\r",
        "X: y\n\n",
        "X: y\r\n\rz",
        "X: \n",
    ] {
        t.chunks(format!("0\r\n{trailer}\r\n{HIDDEN}"), "400!");
    }
    t.chunks(format!("0\r\n{}\r\n", "X: y\r\n".repeat(100)), "200");
    t.chunks(format!("0\r\nX: {}\r\n\r\n", "y".repeat(2000)), "200");
    t.chunks(format!("0\r\n{}\r\n", "X: y\r\n".repeat(5000)), "431!");
    t.chunks(format!("0\r\nX: {}\r\n\r\n", "y".repeat(20_000)), "431!");
}
