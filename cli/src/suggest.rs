//! What somebody may have meant.

/// The known word nearest to `word`, when it is near enough to be meant.
pub fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let distance_max = word.chars().count() / 3;
    known
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(word, candidate), candidate))
        .filter(|(distance, _)| (1..=distance_max.max(1)).contains(distance))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::nearest;

    #[test]
    fn only_near_words_are_suggested() {
        let known = ["substituters", "timeout", "cores"];
        assert_eq!(nearest("timout", known), Some("timeout"));
        assert_eq!(nearest("corse", known), Some("cores"));
        assert_eq!(nearest("frobnicate", known), None);
    }
}
