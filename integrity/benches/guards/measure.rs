//! Measuring on a machine that others use too: all cases take turns in short rounds, and what counts is the ratio to
//! the baseline of the same round.

use std::time::{Duration, Instant};

/// One thing to measure.
pub struct Case<'a> {
    pub operation: &'static str,
    pub by: String,
    /// The case that this one is compared with: its operation and by.
    pub baseline: Option<(&'static str, &'static str)>,
    pub run: Box<dyn FnMut() + 'a>,
}

/// Runs all cases in turns and prints a table: best and median speed, and the median over the rounds of the ratio to
/// the baseline.
pub fn compare(title: &str, bytes: usize, budget: Duration, cases: &mut [Case<'_>]) {
    // As many repetitions per turn as take about half a millisecond, so that a turn is not all clock.
    let repetitions: Vec<u32> = cases
        .iter_mut()
        .map(|case| {
            (case.run)();
            let start = Instant::now();
            (case.run)();
            let once = start.elapsed().as_nanos().max(1);
            (500_000 / once).clamp(1, 10_000) as u32
        })
        .collect();
    let mut speeds: Vec<Vec<f64>> = vec![Vec::new(); cases.len()];
    let start = Instant::now();
    let mut round = 0;
    while round < 5 || (start.elapsed() < budget && round < 400) {
        for ((case, &repetitions), speeds) in cases.iter_mut().zip(&repetitions).zip(&mut speeds) {
            let start = Instant::now();
            for _ in 0..repetitions {
                (case.run)();
            }
            let seconds = start.elapsed().as_secs_f64() / f64::from(repetitions);
            speeds.push(bytes as f64 / seconds / 1e9);
        }
        round += 1;
    }

    println!("\n{title} ({round} rounds)");
    println!("  {:<16}{:<22}{:>10}{:>10}   ratio", "operation", "by", "best GB/s", "median");
    for (case, own) in cases.iter().zip(&speeds) {
        let best = own.iter().copied().fold(0.0, f64::max);
        print!("  {:<16}{:<22}{best:>10.1}{:>10.1}", case.operation, case.by, median(own.clone()));
        let base = case.baseline.and_then(|(operation, by)| {
            let found = |case: &Case<'_>| case.operation == operation && case.by.starts_with(by);
            cases.iter().position(found).map(|found| (operation, by, &speeds[found]))
        });
        match base {
            Some((operation, by, base)) => {
                let ratios = own.iter().zip(base).map(|(own, base)| own / base).collect();
                println!("   {:.2} x {by} {operation}", median(ratios));
            }
            None => println!("   -"),
        }
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
