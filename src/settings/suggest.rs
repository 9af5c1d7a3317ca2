//! The name that was probably meant.

use strsim::damerau_levenshtein;

/// The known name closest to `name`, if it is close enough to have been meant.
#[must_use]
pub fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let distance = |candidate: &'a str| (damerau_levenshtein(name, candidate), candidate);
    // If more than a third of the letters differ, it is another word.
    let near = |&(distance, candidate): &(usize, &str)| distance * 3 <= name.len().max(candidate.len());
    known.into_iter().map(distance).filter(near).min().map(|(_, candidate)| candidate)
}

/// The end of a message: the suggestion as a question, or nothing.
#[must_use]
pub fn did_you_mean(suggestion: Option<&str>) -> String {
    suggestion.map_or_else(String::new, |name| format!("; did you mean {name}?"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_is_recognised_and_another_word_is_not() {
        let known = ["WORKERS", "WORKERS_LIFETIME", "LOOP"];
        assert_eq!(nearest("WOKRERS", known), Some("WORKERS"));
        assert_eq!(nearest("WORKER", known), Some("WORKERS"));
        assert_eq!(nearest("FLAVOUR", known), None);
    }
}
