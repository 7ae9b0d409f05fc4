//! When things are meant to begin: an open loop's arrivals, fixed before the server has a say.
//!
//! Latency is counted from these times, so a server that stalls cannot hide it by slowing the questions down.

use std::time::Duration;

use clap::ValueEnum;
use rand::Rng as _;
use rand::SeedableRng as _;
use rand::rngs::SmallRng;

/// How arrivals are spread.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Spread {
    /// One every `1 / rate`.
    Uniform,
    /// Exponential gaps, as many independent senders would make them.
    Poisson,
}

/// An endless row of intended times, counted from the start of the run.
#[derive(Debug)]
pub(crate) struct Schedule {
    spread: Spread,
    gap_seconds: f64,
    next_seconds: f64,
    random: SmallRng,
}

impl Schedule {
    /// `rate` arrivals a second; `seed` fixes the gaps of [`Spread::Poisson`].
    pub(crate) fn new(spread: Spread, rate: f64, seed: u64) -> Self {
        let random = SmallRng::seed_from_u64(seed);
        Self {
            spread,
            gap_seconds: 1.0 / rate,
            next_seconds: 0.0,
            random,
        }
    }

    /// The first arrival not yet taken.
    pub(crate) fn next_at(&self) -> Duration {
        Duration::from_secs_f64(self.next_seconds)
    }

    /// Takes the next arrival if it is due.
    pub(crate) fn take_due(&mut self, now: Duration) -> Option<Duration> {
        let at = self.next_at();
        (at <= now).then(|| {
            self.next_seconds += self.gap();
            at
        })
    }

    fn gap(&mut self) -> f64 {
        match self.spread {
            Spread::Uniform => self.gap_seconds,
            Spread::Poisson => -self.gap_seconds * (1.0 - self.random.random::<f64>()).ln(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn take(spread: Spread, rate: f64, seed: u64, count: usize) -> Vec<Duration> {
        let mut schedule = Schedule::new(spread, rate, seed);
        (0..count)
            .map(|_| schedule.take_due(HOUR).unwrap())
            .collect()
    }

    #[test]
    fn uniform_arrivals_are_evenly_spaced() {
        let times = take(Spread::Uniform, 500.0, 0, 1001);
        assert_eq!(times[0], Duration::ZERO);
        assert_eq!(times[1], Duration::from_millis(2));
        assert!((times[1000].as_secs_f64() - 2.0).abs() < 1e-6);
    }

    #[test]
    fn poisson_arrivals_keep_the_rate_and_vary() {
        let times = take(Spread::Poisson, 1000.0, 7, 50_000);
        let seconds = times.last().unwrap().as_secs_f64();
        assert!((48.5..51.5).contains(&seconds), "{seconds}");
        let gaps: Vec<f64> = times
            .windows(2)
            .map(|w| (w[1] - w[0]).as_secs_f64())
            .collect();
        let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
        let variance = gaps.iter().map(|g| (g - mean).powi(2)).sum::<f64>() / gaps.len() as f64;
        assert!(
            (0.9..1.1).contains(&(variance.sqrt() / mean)),
            "exponential gaps deviate by their mean"
        );
    }

    #[test]
    fn a_seed_replays() {
        assert_eq!(
            take(Spread::Poisson, 10.0, 3, 100),
            take(Spread::Poisson, 10.0, 3, 100)
        );
        assert_ne!(
            take(Spread::Poisson, 10.0, 3, 100),
            take(Spread::Poisson, 10.0, 4, 100)
        );
    }

    #[test]
    fn nothing_is_taken_before_it_is_due_and_a_late_taker_gets_the_intended_times() {
        let mut schedule = Schedule::new(Spread::Uniform, 100.0, 0);
        let second = Duration::from_secs(1);
        let due: Vec<_> = std::iter::from_fn(|| schedule.take_due(second)).collect();
        assert_eq!(due.len(), 101);
        assert_eq!(due[1], Duration::from_millis(10));
        assert!(schedule.take_due(second).is_none());
    }
}
