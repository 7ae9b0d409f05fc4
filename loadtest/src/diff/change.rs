//! One figure of two runs.

use crate::make::Make;
use crate::report::Figure;

/// How far figures of the same code differ from run to run, as a share of their value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Noise(pub(crate) f64);

/// A figure that both runs have.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Change {
    /// Of the earlier run.
    pub(crate) before: Figure,
    /// Of the later run.
    pub(crate) after: Figure,
    /// What is to be thought of it.
    pub(crate) judgement: Judgement,
}

/// What is to be thought of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Judgement {
    /// As large as runs differ by chance.
    Noise,
    /// Outside the noise, to the good.
    Better,
    /// Outside the noise, to the bad.
    Worse,
    /// Outside the noise; whether it is good depends on what was asked for.
    Different,
}

/// Which way a figure should go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wish {
    More,
    Less,
    Neither,
}

/// Below these a difference is nothing to speak of, whatever its share: a page, a tick of the clock.
const TRIFLES: [(&str, f64); 4] = [("B", 1.0), ("µs", 1.0), ("s", 0.01), ("cores", 0.01)];

impl Change {
    /// Compares two figures of one name.
    pub(super) fn between(before: &Figure, after: &Figure, noise: Noise) -> Self {
        let (a, b) = (range(before, noise), range(after, noise));
        let trifle = TRIFLES.iter().find(|(unit, _)| *unit == after.unit);
        let is_trifle = (after.value - before.value).abs() <= trifle.map_or(0.0, |(_, t)| *t);
        let is_apart = a.1 < b.0 || b.1 < a.0;
        let judgement = match (is_apart && !is_trifle, wish(after)) {
            (false, _) => Judgement::Noise,
            (true, Wish::Neither) => Judgement::Different,
            (true, wish) if (wish == Wish::More) == (after.value > before.value) => {
                Judgement::Better
            }
            (true, _) => Judgement::Worse,
        };
        Self {
            before: before.clone(),
            after: after.clone(),
            judgement,
        }
    }

    /// How far it went, of what it was; `None` from nothing.
    pub(crate) fn share(&self) -> Option<f64> {
        let share = (self.after.value - self.before.value) / self.before.value.abs();
        share.is_finite().then_some(share)
    }
}

impl Judgement {
    /// In a word.
    pub(crate) fn text(self) -> &'static str {
        match self {
            Self::Noise => "noise",
            Self::Better => "better",
            Self::Worse => "WORSE",
            Self::Different => "different",
        }
    }
}

/// Within what the figure may as well have been. Several rounds say so themselves; a count of what must not happen has
/// no noise.
fn range(figure: &Figure, Noise(noise): Noise) -> (f64, f64) {
    if !figure.rounds.is_empty() || is_fault(figure) {
        return figure.range();
    }
    let reach = figure.value.abs() * noise;
    (figure.value - reach, figure.value + reach)
}

fn wish(figure: &Figure) -> Wish {
    let is_generators =
        word(figure).any(|w| ["generator", "sender_cpu", "generator_cpu"].contains(&w));
    match figure.unit.as_str() {
        _ if is_of_others(figure) => Wish::Neither,
        _ if is_fault(figure) => Wish::Less,
        _ if is_generators || word(figure).any(|w| w == "baseline") => Wish::Neither,
        "/s" if word(figure).any(|w| w == "ping_rate") => Wish::Neither,
        "/s" => Wish::More,
        "µs" | "s" | "B" | "cores" | "×" => Wish::Less,
        _ => Wish::Neither,
    }
}

/// Of a comparison: what another make does, and how far it is from ours.
fn is_of_others(figure: &Figure) -> bool {
    let mut words = word(figure);
    let first = words.next();
    let ours = Make::Tautline.name();
    first == Some("ratio") || first == Some("compare") && words.next() != Some(&ours)
}

/// What should be zero.
fn is_fault(figure: &Figure) -> bool {
    const FAULTS: [&str; 14] = [
        "failed",
        "lost",
        "lines_lost",
        "late_starts",
        "refused",
        "refused_untold",
        "unreached",
        "unknown",
        "duplicate",
        "misordered",
        "misdelivered",
        "unanswered",
        "refused_yet_delivered",
        "foreign",
    ];
    figure.unit.is_empty() && word(figure).any(|w| FAULTS.contains(&w))
}

fn word(figure: &Figure) -> impl Iterator<Item = &str> {
    figure.key.split('.')
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOISE: Noise = Noise(0.2);

    fn judge(before: &Figure, after: &Figure) -> Judgement {
        Change::between(before, after, NOISE).judgement
    }

    fn once(key: &str, unit: &str, before: f64, after: f64) -> Judgement {
        judge(
            &Figure::new(key, before, unit),
            &Figure::new(key, after, unit),
        )
    }

    #[test]
    fn a_figure_measured_once_may_drift_both_ways() {
        // 20 % up on one side and 20 % down on the other is one and the same figure.
        assert_eq!(once("ramp.rate", "/s", 1_000.0, 700.0), Judgement::Noise);
        assert_eq!(once("ramp.rate", "/s", 1_000.0, 660.0), Judgement::Worse);
        assert_eq!(once("ramp.rate", "/s", 1_000.0, 1_510.0), Judgement::Better);
        assert_eq!(
            once("server.cpu_per_line", "µs", 100.0, 151.0),
            Judgement::Worse
        );
        assert_eq!(
            once("server.bytes_per_line", "B", 300.0, 168.0),
            Judgement::Better
        );
    }

    #[test]
    fn rounds_say_themselves_how_far_they_scatter() {
        let of = |rounds: &[f64]| Figure::of_rounds("push.rate", rounds.to_vec(), "/s");
        assert_eq!(
            judge(&of(&[100.0, 101.0, 102.0]), &of(&[94.0, 95.0, 96.0])),
            Judgement::Worse
        );
        assert_eq!(
            judge(&of(&[100.0, 101.0, 102.0]), &of(&[94.0, 95.0, 100.0])),
            Judgement::Noise
        );
        let single = Figure::new("push.rate", 95.0, "/s");
        assert_eq!(
            judge(&of(&[100.0, 101.0, 102.0]), &single),
            Judgement::Noise
        );
    }

    #[test]
    fn one_lost_message_is_no_noise() {
        assert_eq!(once("messages.lost", "", 0.0, 1.0), Judgement::Worse);
        assert_eq!(once("lines.failed", "", 1.0, 0.0), Judgement::Better);
        assert_eq!(once("messages.lost", "", 0.0, 0.0), Judgement::Noise);
    }

    #[test]
    fn what_is_asked_for_or_the_generators_own_is_neither_good_nor_bad() {
        assert_eq!(
            once("messages.sent", "", 100.0, 900.0),
            Judgement::Different
        );
        assert_eq!(
            once("hold.generator_cpu", "cores", 0.1, 0.9),
            Judgement::Different
        );
        assert_eq!(
            once("compare.axum.pushes", "/s", 100.0, 9.0),
            Judgement::Different
        );
        assert_eq!(
            once("ratio.axum.pushes", "×", 2.0, 9.0),
            Judgement::Different
        );
        assert_eq!(
            once("compare.tautline.pushes", "/s", 100.0, 9.0),
            Judgement::Worse
        );
        assert_eq!(
            once("hold.ping_rate", "/s", 100.0, 900.0),
            Judgement::Different
        );
    }

    #[test]
    fn trifles_are_noise() {
        assert_eq!(once("push.delivery.p50", "µs", 1.0, 2.0), Judgement::Noise);
        assert_eq!(
            once("server.hold_cpu", "cores", 0.001, 0.009),
            Judgement::Noise
        );
    }

    #[test]
    fn from_nothing_there_is_no_share() {
        let change =
            |a, b| Change::between(&Figure::new("x", a, ""), &Figure::new("x", b, ""), NOISE);
        assert_eq!(change(0.0, 3.0).share(), None);
        assert_eq!(change(4.0, 3.0).share(), Some(-0.25));
    }
}
