//! How messages repeat text from outside: quoted, or together with the most similar known word.

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
}
