//! Medians, spreads and ratios.

use serde_json::{Value, json};

/// What several rounds gave for one measure.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spread {
    pub median: f64,
    pub min: f64,
    pub max: f64,
}

impl Spread {
    /// None without a value.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_unstable_by(f64::total_cmp);
        let (min, max) = (*values.first()?, *values.last()?);
        let middle = values.len() / 2;
        let median = if values.len().is_multiple_of(2) {
            f64::midpoint(values[middle - 1], values[middle])
        } else {
            values[middle]
        };
        Some(Self { median, min, max })
    }

    pub fn json(&self) -> Value {
        json!({ "median": rounded(self.median), "min": rounded(self.min), "max": rounded(self.max) })
    }
}

/// The ratio of each round, taken inside the round, so that what disturbed a whole round cancels out.
pub fn ratios(above: &[f64], below: &[f64]) -> Option<Spread> {
    Spread::of(above.iter().zip(below).filter(|(_, below)| **below > 0.0).map(|(above, below)| above / below))
}

/// Four significant digits are more than the measurements carry.
pub fn rounded(value: f64) -> f64 {
    if value == 0.0 || !value.is_finite() {
        return 0.0;
    }
    let scale = 10f64.powi(3 - value.abs().log10().floor() as i32);
    (value * scale).round() / scale
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_of_odd_and_the_mean_of_even_counts() {
        assert_eq!(Spread::of([3.0, 1.0, 2.0]), Some(Spread { median: 2.0, min: 1.0, max: 3.0 }));
        assert_eq!(Spread::of([4.0, 1.0]), Some(Spread { median: 2.5, min: 1.0, max: 4.0 }));
        assert_eq!(Spread::of([]), None);
    }

    #[test]
    fn a_ratio_is_taken_round_by_round() {
        // The second round was disturbed for both: its ratio stands.
        assert_eq!(
            ratios(&[100.0, 50.0, 90.0], &[10.0, 5.0, 10.0]),
            Some(Spread { median: 10.0, min: 9.0, max: 10.0 })
        );
        assert_eq!(ratios(&[1.0], &[0.0]), None);
    }

    #[test]
    fn figures_keep_four_digits() {
        for (value, expected) in [(12345.6, 12350.0), (0.123_456, 0.1235), (0.0, 0.0), (7.0, 7.0)] {
            assert!((rounded(value) - expected).abs() < 1e-9, "{value}");
        }
    }
}
