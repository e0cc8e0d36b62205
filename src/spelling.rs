//! How messages repeat text from outside: quoted, together with the most similar known word, or by
//! the code point of a character that looks like another one.

use std::fmt;

/// The word of `known` that takes the fewest edits to write, and the number of edits; among equal
/// ones the first. `None` if no word is similar enough: at most a third of its letters may be
/// wrong, two in a word of five, unless it was begun and not completed.
pub fn nearest(
    written: &str,
    known: impl IntoIterator<Item = &'static str>,
) -> Option<(&'static str, usize)> {
    let written: Vec<char> = written.chars().take(WRITTEN_CHARS_MAX).collect();
    known
        .into_iter()
        .map(|word| (word, edits_between(word, &written)))
        .filter(|(word, edits)| edits * 3 <= word.len() + 1 || is_begun(word, &written))
        .min_by_key(|(_, edits)| *edits)
}

/// Whether so much of `known` is written that another meaning is unlikely.
fn is_begun(known: &str, written: &[char]) -> bool {
    let mut letters = known.chars();
    written.len() >= BEGUN_CHARS_MIN
        && written.iter().all(|c| letters.next().is_some_and(|known| known.eq_ignore_ascii_case(c)))
}

/// The minimum number of characters of an incomplete word.
const BEGUN_CHARS_MIN: usize = 4;

/// The number of characters of an unknown word that are compared. No known word is longer.
const WRITTEN_CHARS_MAX: usize = 32;

/// The optimal string alignment distance, ignoring case: the number of characters to insert, delete
/// or replace, and of neighbours to swap, computed row by row.
fn edits_between(known: &str, written: &[char]) -> usize {
    let known: Vec<char> = known.chars().collect();
    let is_same = |row: usize, column: usize| known[row].eq_ignore_ascii_case(&written[column]);
    let mut rows = vec![vec![0; written.len() + 1]; known.len() + 1];
    rows[0] = (0..=written.len()).collect();
    for row in 0..known.len() {
        rows[row + 1][0] = row + 1;
        for column in 0..written.len() {
            let replaced = rows[row][column] + usize::from(!is_same(row, column));
            let mut edits = replaced.min(rows[row][column + 1] + 1).min(rows[row + 1][column] + 1);
            if row > 0 && column > 0 && is_same(row, column - 1) && is_same(row - 1, column) {
                edits = edits.min(rows[row - 1][column - 1] + 1);
            }
            rows[row + 1][column + 1] = edits;
        }
    }
    let edits = rows[known.len()][written.len()];
    assert!(edits >= known.len().abs_diff(written.len()), "each edit changes the length by one");
    assert!(edits <= known.len().max(written.len()), "replacing every character is enough");
    edits
}

/// The number of characters of a foreign text that a message repeats.
const QUOTED_CHARS_MAX: usize = 32;

/// A foreign text in the form for a message: in quotes, escaped so that it cannot forge a line, and
/// shortened with `…` if it is long.
pub fn quote(text: &str) -> String {
    let mut quoted = String::from('"');
    let mut chars = text.chars();
    quoted.extend(chars.by_ref().take(QUOTED_CHARS_MAX).flat_map(char::escape_debug));
    if chars.next().is_some() {
        quoted.push('…');
    }
    quoted.push('"');
    quoted
}

/// A character beyond ASCII that is part of no name, address or list of ports: one that is
/// confusable with an ASCII character (UTS 39), or an invisible one. Most come from text that was
/// copied from a document. A message has the code point, because the character itself would explain
/// nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Confusable(char);

impl Confusable {
    /// The first such character of a text. Letters are none, because international names have them.
    pub fn find(text: &str) -> Option<Self> {
        let is_confusable = |c: &char| CONFUSABLES.iter().any(|range| range.contains(c));
        text.chars().find(is_confusable).map(Self)
    }

    /// The dash that an argument begins with in place of a hyphen.
    pub fn leading_dash(text: &str) -> Option<Self> {
        text.chars().next().filter(|c| is_dash(*c)).map(Self)
    }
}

impl fmt::Display for Confusable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let reason = match self.0 {
            char::REPLACEMENT_CHARACTER => return f.write_str("the text is not UTF-8"),
            dash if is_dash(dash) => "no hyphen; write '-'",
            '\u{80}'..='\u{a0}'
            | '\u{ad}'
            | '\u{2000}'..='\u{200f}'
            | '\u{2028}'..='\u{202f}'
            | '\u{205f}'..='\u{206f}'
            | '\u{3000}'
            | '\u{fe00}'..='\u{fe0f}'
            | '\u{feff}' => "blank or invisible; remove it",
            _ => "not ASCII; write its ASCII form",
        };
        write!(f, "the character U+{:04X} is {reason}", u32::from(self.0))
    }
}

/// The characters of [`Confusable`]. The middle dot of Catalan names (U+00B7) is left out.
const CONFUSABLES: [std::ops::RangeInclusive<char>; 12] = [
    '\u{80}'..='\u{b6}',
    '\u{b8}'..='\u{bf}',
    '×'..='×',
    '÷'..='÷',
    // Arabic digits, which Persian texts have in a second form.
    '\u{660}'..='\u{669}',
    '\u{6f0}'..='\u{6f9}',
    // Punctuation, signs and arrows, among them the minus sign.
    '\u{2000}'..='\u{2bff}',
    '\u{3000}'..='\u{3003}',
    '\u{fe00}'..='\u{fe6f}',
    '\u{feff}'..='\u{feff}',
    // Digits and punctuation in the width of Chinese characters.
    '\u{ff00}'..='\u{ff20}',
    '\u{fff0}'..='\u{ffff}',
];

const fn is_dash(c: char) -> bool {
    matches!(c, '\u{2010}'..='\u{2015}' | '\u{2212}' | '\u{fe58}' | '\u{fe63}' | '\u{ff0d}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edits_are_counted_both_ways() {
        for (one, other, expected) in [
            ("", "", 0),
            ("a", "", 1),
            ("toPort", "toport", 0),
            ("toPort", "toPrt", 1),
            ("kitten", "sitting", 3),
            ("flaw", "lawn", 2),
            ("scan", "sacn", 1),
            ("ports", "prost", 2),
        ] {
            for (known, written) in [(one, other), (other, one)] {
                let written: Vec<char> = written.chars().collect();
                assert_eq!(edits_between(known, &written), expected, "{one} {other}");
            }
        }
    }

    #[test]
    fn the_first_of_the_nearest_words_is_suggested() {
        assert_eq!(nearest("prots", ["domain", "ports", "parts"]), Some(("ports", 1)));
        assert_eq!(nearest("x", []), None);
    }

    #[test]
    fn no_word_is_suggested_if_all_are_too_different() {
        let words = ["domain", "toPort", "fromPort", "rate"];
        for (written, expected) in [
            ("format", None),
            ("x", None),
            ("", None),
            ("host", None),
            ("domian", Some(("domain", 1))),
            ("TOPORT", Some(("toPort", 0))),
            ("from", Some(("fromPort", 4))),
            ("fro", None),
            ("rat", Some(("rate", 1))),
        ] {
            assert_eq!(nearest(written, words), expected, "{written}");
        }
    }

    #[test]
    fn a_confusable_is_named_by_its_code_point() {
        for (text, expected) in [
            ("–p 80", "the character U+2013 is no hyphen; write '-'"),
            ("8000−8100", "the character U+2212 is no hyphen; write '-'"),
            ("a\u{a0}b", "the character U+00A0 is blank or invisible; remove it"),
            ("\u{feff}a", "the character U+FEFF is blank or invisible; remove it"),
            ("a\u{200b}", "the character U+200B is blank or invisible; remove it"),
            ("127.0.0.١", "the character U+0661 is not ASCII; write its ASCII form"),
            ("１２７.0.0.1", "the character U+FF11 is not ASCII; write its ASCII form"),
            ("“a”", "the character U+201C is not ASCII; write its ASCII form"),
            ("bücher\u{fffd}", "the text is not UTF-8"),
        ] {
            assert_eq!(Confusable::find(text).unwrap().to_string(), expected, "{text}");
        }
        for text in ["a-b", "bücher.example", "пример", "例え.テスト", "col·lecció", "u\u{308}"]
        {
            assert_eq!(Confusable::find(text), None, "{text}");
        }
        assert!(Confusable::leading_dash("—open").is_some());
        assert!(
            Confusable::leading_dash("a–b").is_none() && Confusable::leading_dash("-p").is_none()
        );
    }
}
