//! The known word nearest to an unknown one: for "did you mean" in errors of flags and parameters.

/// The word of `known` that takes the fewest edits to write, the first among equals, and the
/// number of edits; `None` only where nothing is known.
pub fn nearest(
    written: &str,
    known: impl IntoIterator<Item = &'static str>,
) -> Option<(&'static str, usize)> {
    let written: Vec<char> = written.chars().take(WRITTEN_CHARS_MAX).collect();
    known
        .into_iter()
        .map(|word| (word, edits_between(word, &written)))
        .min_by_key(|(_, edits)| *edits)
}

/// Characters of an unknown word that are looked at; no known one is longer.
const WRITTEN_CHARS_MAX: usize = 32;

/// Levenshtein's distance, blind to case: characters to insert, delete or replace, row by row.
fn edits_between(known: &str, written: &[char]) -> usize {
    let mut row: Vec<usize> = (0..=written.len()).collect();
    for (above, wanted) in known.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], above + 1);
        for (column, found) in written.iter().enumerate() {
            let replaced = diagonal + usize::from(!wanted.eq_ignore_ascii_case(found));
            diagonal = row[column + 1];
            row[column + 1] = replaced.min(diagonal + 1).min(row[column] + 1);
        }
    }
    let edits = row[written.len()];
    assert!(edits >= known.len().abs_diff(written.len()), "each edit changes the length by one");
    assert!(edits <= known.len().max(written.len()), "to replace every character is enough");
    edits
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
        ] {
            for (known, written) in [(one, other), (other, one)] {
                let written: Vec<char> = written.chars().collect();
                assert_eq!(edits_between(known, &written), expected, "{one} {other}");
            }
        }
    }

    #[test]
    fn the_first_of_the_nearest_words_is_named() {
        assert_eq!(nearest("prots", ["domain", "ports", "parts"]), Some(("ports", 2)));
        assert_eq!(nearest("x", []), None);
    }
}
