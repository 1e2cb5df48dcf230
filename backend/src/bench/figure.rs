//! What is measured: samples, and their medians.

/// What a sample gives, and a figure of several.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Figure {
    /// Requests per second.
    pub rate: f64,
    /// Nanoseconds of the daemon's threads, or the raw loop's, for each request.
    pub daemon_ns: f64,
    /// What of that the daemon spun, waiting for the frontend.
    pub spin_ns: f64,
    /// System calls of the daemon's for each request.
    pub calls: f64,
    /// Nanoseconds of the frontend's own threads for each request.
    pub frontend_ns: f64,
    /// Sleeps of the frontend and notifications by it, for each request.
    pub wakeups: f64,
    pub notifications: f64,
}

impl Figure {
    /// The median of each of these.
    pub fn median(samples: &[Figure]) -> Figure {
        let of = |field: fn(&Figure) -> f64| {
            let mut values: Vec<f64> = samples.iter().map(field).collect();
            values.sort_unstable_by(f64::total_cmp);
            values.get(values.len() / 2).copied().unwrap_or_default()
        };
        Figure {
            rate: of(|sample| sample.rate),
            daemon_ns: of(|sample| sample.daemon_ns),
            spin_ns: of(|sample| sample.spin_ns),
            calls: of(|sample| sample.calls),
            frontend_ns: of(|sample| sample.frontend_ns),
            wakeups: of(|sample| sample.wakeups),
            notifications: of(|sample| sample.notifications),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn median_when_of_an_odd_number_then_is_the_middle_of_each_field() {
        let sample = |rate, daemon_ns| Figure { rate, daemon_ns, ..Figure::default() };
        let samples = [sample(3.0, 9.0), sample(1.0, 7.0), sample(2.0, 80.0)];
        assert_eq!(Figure::median(&samples), sample(2.0, 9.0));
    }
}
