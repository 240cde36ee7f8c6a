//! Times as Nix writes them.

/// A time as Nix writes `lastModifiedDate`: `%Y%m%d%H%M%S` in UTC.
pub fn utc_digits(seconds: u64) -> String {
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    // civil date from days: an era is 400 years, a year begins in March
    let day = days + 719_468;
    let (era, in_era) = (day / 146_097, day % 146_097);
    let year_of_era = (in_era - in_era / 1_460 + in_era / 36_524 - in_era / 146_096) / 365;
    let day_of_year = in_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day_of_month = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    let (hours, minutes, seconds) = (rest / 3600, rest / 60 % 60, rest % 60);
    format!("{year:04}{month:02}{day_of_month:02}{hours:02}{minutes:02}{seconds:02}")
}

#[cfg(test)]
mod tests {
    use super::utc_digits;

    /// Compared with `date -u -d @N +%Y%m%d%H%M%S`.
    #[test]
    fn dates() {
        for (seconds, digits) in [
            (0, "19700101000000"),
            (951_782_400, "20000229000000"),
            (1_700_000_000, "20231114221320"),
            (4_107_542_399, "21000228235959"),
            (4_107_542_400, "21000301000000"),
        ] {
            assert_eq!(utc_digits(seconds), digits);
        }
    }
}
