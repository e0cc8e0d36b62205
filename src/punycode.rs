//! The `xn--` form of international names (RFC 3492, RFC 5891), for messages about such names.
//!
//! This is not IDNA: there is no table of code points and no normalization. A name is converted
//! only if each of its characters is in one of the `SCRIPTS`, where lower case is all that IDNA
//! would change. For all other names there is no suggestion, because it might name another host.
//! The result is only ever shown. `host` calls this module, which has no state.

use std::ops::RangeInclusive;

/// The prefix of a converted label (RFC 5890 section 2.3.2.1).
const PREFIX: &str = "xn--";

/// The maximum number of characters of a label that is converted. A longer one does not fit into a
/// name, and the time of the conversion is quadratic.
const LABEL_CHARS_MAX: usize = 63;

/// Letters beyond ASCII, in lower case, that IDNA 2008 permits and leaves unchanged: Latin, Greek,
/// Cyrillic, Hebrew, Arabic, Japanese, Chinese and Korean. Letters with a compatibility mapping
/// are left out.
const SCRIPTS: [RangeInclusive<char>; 22] = [
    'ß'..='ö',
    'ø'..='ı',
    'ĵ'..='ľ',
    'ł'..='ň',
    'ŋ'..='ž',
    'ƀ'..='ƿ',
    'ǎ'..='ǰ',
    'ǵ'..='ɏ',
    'ΐ'..='ΐ',
    'ά'..='ώ',
    'а'..='џ',
    'ҋ'..='ӿ',
    'א'..='ת',
    'ؠ'..='ؿ',
    'ف'..='ي',
    '々'..='々',
    'ぁ'..='ゖ',
    'ァ'..='ヺ',
    'ー'..='ヾ',
    '㐀'..='䶿',
    '一'..='鿿',
    '가'..='힣',
];

/// The form of a name in which every label is ASCII: `xn--bcher-kva.example` for `bücher.example`.
/// `None` if the name has a character that this module does not convert, or a label is too long.
pub fn ascii_form(name: &str) -> Option<String> {
    let labels: Option<Vec<String>> = name.split('.').map(ascii_label).collect();
    labels.map(|labels| labels.join("."))
}

fn ascii_label(label: &str) -> Option<String> {
    if label.chars().count() > LABEL_CHARS_MAX {
        return None;
    }
    let lower: String = label.chars().flat_map(char::to_lowercase).collect();
    let is_convertible = |c: char| c.is_ascii() || SCRIPTS.iter().any(|script| script.contains(&c));
    if !lower.chars().all(is_convertible) {
        return None;
    }
    if lower.is_ascii() { Some(lower) } else { Some(format!("{PREFIX}{}", encode(&lower)?)) }
}

// The parameters of RFC 3492 section 5.
const BASE: u32 = 36;
const T_MIN: u32 = 1;
const T_MAX: u32 = 26;
const SKEW: u32 = 38;
const DAMP: u32 = 700;
const BIAS_FIRST: u32 = 72;
const CODE_FIRST: u32 = 0x80;

/// Punycode (RFC 3492 section 6.3). `None` if a number overflows, which no label of
/// [`LABEL_CHARS_MAX`] characters causes.
fn encode(label: &str) -> Option<String> {
    let codes: Vec<u32> = label.chars().map(u32::from).collect();
    let mut encoded: String = label.chars().filter(char::is_ascii).collect();
    let ascii_len = encoded.len() as u32;
    if ascii_len > 0 {
        encoded.push('-');
    }
    let (mut code, mut delta, mut bias) = (CODE_FIRST, 0_u32, BIAS_FIRST);
    let mut handled = ascii_len;
    while (handled as usize) < codes.len() {
        // The lowest code that is not handled yet.
        let next = codes.iter().copied().filter(|it| *it >= code).min()?;
        delta = (next - code).checked_mul(handled + 1)?.checked_add(delta)?;
        code = next;
        for other in &codes {
            if *other < code {
                delta = delta.checked_add(1)?;
            }
            if *other == code {
                push_number(&mut encoded, delta, bias);
                let damp = if handled == ascii_len { DAMP } else { 2 };
                bias = adapt(delta / damp, handled + 1);
                delta = 0;
                handled += 1;
            }
        }
        delta += 1;
        code += 1;
    }
    debug_assert!(encoded.is_ascii(), "every digit is ASCII");
    Some(encoded)
}

/// Appends a number of variable length (RFC 3492 section 3.3).
fn push_number(encoded: &mut String, number: u32, bias: u32) {
    let (mut rest, mut weight) = (number, BASE);
    loop {
        let threshold = weight.saturating_sub(bias).clamp(T_MIN, T_MAX);
        if rest < threshold {
            encoded.push(digit(rest));
            return;
        }
        encoded.push(digit(threshold + (rest - threshold) % (BASE - threshold)));
        rest = (rest - threshold) / (BASE - threshold);
        weight += BASE;
    }
}

/// `a` to `z` for 0 to 25, `0` to `9` for 26 to 35.
fn digit(value: u32) -> char {
    assert!(value < BASE, "a digit is below the base");
    let digit = if value < 26 { b'a' + value as u8 } else { b'0' + (value - 26) as u8 };
    char::from(digit)
}

/// The next bias (RFC 3492 section 6.1), from the damped delta.
const fn adapt(damped: u32, handled: u32) -> u32 {
    let mut delta = damped + damped / handled;
    let mut steps = 0;
    while delta > (BASE - T_MIN) * T_MAX / 2 {
        delta /= BASE - T_MIN;
        steps += BASE;
    }
    steps + (BASE - T_MIN + 1) * delta / (delta + SKEW)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The samples of RFC 3492 section 7.1. Those in mixed case are in lower case where the RFC
    /// shows the case of a letter beyond ASCII in the case of a digit.
    #[test]
    fn the_samples_of_rfc_3492_are_encoded_as_printed() {
        for (text, expected) in [
            ("ليهمابتكلموشعربي؟", "egbpdaj6bu4bxfgehfvwxn"),
            ("他们为什么不说中文", "ihqwcrb4cv8a8dqg056pqjye"),
            ("他們爲什麽不說中文", "ihqwctvzc91f659drss3x8bo0yb"),
            ("Pročprostěnemluvíčesky", "Proprostnemluvesky-uyb24dma41a"),
            ("למההםפשוטלאמדבריםעברית", "4dbcagdahymbxekheh6e0a7fei0b"),
            ("यहलोगहिन्दीक्योंनहींबोलसकतेहैं", "i1baa7eci9glrd9b2ae1bj0hfcgg6iyaf8o0a1dig0cd"),
            ("なぜみんな日本語を話してくれないのか", "n8jok5ay5dzabd5bym9f0cm5685rrjetr6pdxa"),
            (
                "세계의모든사람들이한국어를이해한다면얼마나좋을까",
                "989aomsvi5e83db1d2a355cv1e0vak1dwrv93d5xbh15a0dt30a5jpsd879ccm6fea98c",
            ),
            ("почемужеонинеговорятпорусски", "b1abfaaepdrnnbgefbadotcwatmq2g4l"),
            (
                "PorquénopuedensimplementehablarenEspañol",
                "PorqunopuedensimplementehablarenEspaol-fmd56a",
            ),
            ("TạisaohọkhôngthểchỉnóitiếngViệt", "TisaohkhngthchnitingVit-kjcr8268qyxafd2f1b9g"),
            ("3年B組金八先生", "3B-ww4c5e180e575a65lsy2b"),
            ("安室奈美恵-with-SUPER-MONKEYS", "-with-SUPER-MONKEYS-pc58ag80a8qai00g7n9n"),
            ("Hello-Another-Way-それぞれの場所", "Hello-Another-Way--fc4qua05auwb3674vfr0b"),
            ("ひとつ屋根の下2", "2-u9tlzr9756bt3uc0v"),
            ("MajiでKoiする5秒前", "MajiKoi5-783gue6qz075azm5e"),
            ("パフィーdeルンバ", "de-jg4avhby1noc0d"),
            ("そのスピードで", "d9juau41awczczp"),
            ("-> $1.00 <-", "-> $1.00 <--"),
        ] {
            assert_eq!(encode(text).as_deref(), Some(expected), "{text}");
        }
    }

    #[test]
    fn each_label_of_a_name_is_converted_in_lower_case() {
        for (name, expected) in [
            ("bücher.test", Some("xn--bcher-kva.test")),
            ("BÜCHER.Test", Some("xn--bcher-kva.test")),
            ("www.Straße.de.", Some("www.xn--strae-oqa.de.")),
            ("例え.テスト", Some("xn--r8jz45g.xn--zckzah")),
            ("ΒΌΛΟΣ.com", Some("xn--nxasmq6b.com")),
            ("βόλος.com", Some("xn--nxasmm1c.com")),
            ("правда.example", Some("xn--80aafi6cg.example")),
            ("example", Some("example")),
        ] {
            assert_eq!(ascii_form(name).as_deref(), expected, "{name}");
        }
    }

    #[test]
    fn a_name_that_idna_would_change_further_or_refuse_is_not_converted() {
        for name in [
            "bu\u{308}cher.test",
            "１２７.0.0.1",
            "127。0。0。1",
            "\u{fffd}",
            "ﬁle.test",
            "x².test",
            "İstanbul.test",
            "a\u{200d}b",
            "☃.net",
            &"ü".repeat(64),
        ] {
            assert_eq!(ascii_form(name), None, "{name}");
        }
    }

    #[test]
    fn every_character_of_the_scripts_is_a_letter() {
        for c in SCRIPTS.into_iter().flatten() {
            assert!(c.is_alphabetic() && !c.is_ascii(), "{c:?}");
        }
    }
}
