//! Numbers for people.

/// With a comma between thousands; a dash for what was not measured.
pub fn number(value: Option<f64>, decimals: usize) -> String {
    let Some(value) = value.filter(|value| value.is_finite()) else { return "–".to_owned() };
    let text = format!("{value:.decimals$}");
    let (whole, fraction) = text.split_at(text.find('.').unwrap_or(text.len()));
    let mut grouped = String::new();
    for (at, digit) in whole.chars().enumerate() {
        if at > 0 && (whole.len() - at) % 3 == 0 && digit.is_ascii_digit() {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped + fraction
}

/// The same of a count.
pub fn count(value: u64) -> String {
    number(Some(value as f64), 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_are_grouped() {
        let cases = [(0.0, 0, "0"), (999.0, 0, "999"), (1000.0, 0, "1,000"), (1234567.25, 2, "1,234,567.25")];
        for (value, decimals, expected) in cases {
            assert_eq!(number(Some(value), decimals), expected);
        }
        assert_eq!((count(35_000).as_str(), number(None, 1).as_str()), ("35,000", "–"));
    }
}
