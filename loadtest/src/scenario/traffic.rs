//! Messages to the measured lines while something else happens to them, with an account of every one.

use std::sync::Arc;
use std::time::Duration;

use clap::Args;

use crate::arg::parse_rate;
use crate::dialect::{Dialect, Template};
use crate::make::Make;
use crate::name::Row;
use crate::oracle::Verdict;
use crate::oracle::mark::BODY_BYTES_MIN;
use crate::oracle::shadow::Shadows;
use crate::oracle::whereabouts::Whereabouts;
use crate::report::{Figure, Record};
use crate::scenario::reading::count;
use crate::scenario::sending::{self, await_arrivals, verdict_figures};
use crate::scenario::{RunError, Stage, api, push_path};
use crate::sender::book::Book;
use crate::sender::{Medium, Sender, SenderPlan, Span};
use crate::swarm::catch::Catch;

/// What is pushed meanwhile.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Pushes")]
pub(crate) struct TrafficArg {
    /// Pushes per second to random lines, open loop, all the while; 0: none
    #[arg(long, value_name = "RATE", value_parser = parse_rate, default_value = "500")]
    pub(crate) push_rate: f64,
    /// Where they go; {device} and {account} are filled in [default: as for --against]
    #[arg(long, value_name = "PATH")]
    pub(crate) push_path: Option<Template>,
    /// Level to wait for, added to the path as `wait`
    #[arg(long, default_value = "written")]
    pub(crate) wait: String,
    /// Bytes of a message's body, at least 24
    #[arg(long, default_value_t = BODY_BYTES_MIN)]
    pub(crate) body_bytes: usize,
    /// Messages the server may refuse, or not know of, although the line is there, before the run has failed
    #[arg(long, default_value_t = 0)]
    pub(crate) refusals_max: u64,
    /// Fixes targets and arrivals
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
}

/// One of the senders of a run.
#[derive(Clone, Debug)]
pub(super) struct Part {
    /// The first word of its figures.
    pub(super) name: &'static str,
    /// What it sends over.
    pub(super) medium: Medium,
    /// Lines it sends to, which no other part sends to.
    pub(super) rows: Vec<Row>,
    /// Messages a second.
    pub(super) rate: f64,
    /// Bytes of a message's body.
    pub(super) body_bytes: usize,
    /// Where its messages go, if not where the others do.
    pub(super) path: Option<Template>,
}

/// Senders at work.
#[derive(Debug)]
pub(super) struct Traffic {
    parts: Vec<(&'static str, Sender)>,
    refusals_max: u64,
}

/// What they have to say at the end.
#[derive(Debug)]
pub(super) struct Account {
    books: Vec<(&'static str, Book)>,
    refusals_max: u64,
}

/// Pushes without an answer on each connection; what has to wait for room counts as late all the same.
const PIPELINE_MAX: u32 = 16;

impl TrafficArg {
    /// Where pushes to a server of this make go.
    pub(super) fn path(&self, make: Make) -> Result<Template, RunError> {
        self.path_for(make, &self.wait)
    }

    /// The same to wait for another level.
    pub(super) fn path_for(&self, make: Make, level: &str) -> Result<Template, RunError> {
        match push_path(self.push_path.as_ref(), make) {
            Ok(path) => Ok(path.with_query("wait", level)),
            Err(_) if self.push_rate <= 0.0 => Ok(Template::root()),
            Err(error) => Err(error),
        }
    }

    /// A part that pushes over HTTP to these lines; none if nothing is to be pushed.
    pub(super) fn part(
        &self,
        stage: &Stage,
        name: &'static str,
        rows: Vec<Row>,
        rate: f64,
    ) -> Result<Option<Part>, RunError> {
        if rate <= 0.0 || rows.iter().all(|row| row.count == 0) {
            return Ok(None);
        }
        let missing = "pushing to a --target needs --api, or --push-rate 0";
        Ok(Some(Part {
            name,
            medium: Medium::Http {
                api: api(&stage.node, missing)?,
                pipeline: PIPELINE_MAX,
            },
            rows: rows.into_iter().filter(|row| row.count > 0).collect(),
            rate,
            body_bytes: self.body_bytes,
            path: None,
        }))
    }

    /// A part that pushes to lines that do not read: it waits for no more than room, or it would wait for them.
    pub(super) fn flood(
        &self,
        stage: &Stage,
        make: Make,
        rows: Vec<Row>,
        rate: f64,
        body_bytes: usize,
    ) -> Result<Option<Part>, RunError> {
        let path = Some(self.path_for(make, "queued")?);
        let part = self.part(stage, "flood", rows, rate)?;
        Ok(part.map(|part| Part {
            body_bytes,
            path,
            ..part
        }))
    }
}

impl Traffic {
    /// Starts sending.
    pub(super) fn start(
        stage: &mut Stage,
        arg: &TrafficArg,
        parts: Vec<Part>,
        dialect: &Dialect,
        shadows: Option<&Arc<Shadows>>,
    ) -> Result<Self, RunError> {
        let record_from = stage.clock.now();
        stage.swarm.start_lap(record_from);
        let start = |part: Part| {
            let mut dialect = dialect.clone();
            if let Some(path) = part.path {
                dialect.push_path = path;
            }
            let plan = SenderPlan {
                rate: Some(part.rate),
                body_bytes: part.body_bytes,
                seed: arg.seed,
                shadows: shadows.cloned(),
                mends: true,
                ..SenderPlan::new(dialect, part.medium, part.rows)
            };
            let sender = Sender::open(plan, stage.clock).map_err(RunError::Sender)?;
            sender.start(Span {
                record_from,
                until: Duration::MAX,
            })?;
            Ok((part.name, sender))
        };
        Ok(Self {
            parts: parts
                .into_iter()
                .map(start)
                .collect::<Result<_, RunError>>()?,
            refusals_max: arg.refusals_max,
        })
    }

    /// Stops sending and waits for what is under way.
    pub(super) fn finish(self, stage: &mut Stage) -> Result<Account, RunError> {
        for (_, sender) in &self.parts {
            sender.finish();
        }
        stage.watch_done("answers", || {
            self.parts.iter().all(|(_, sender)| sender.is_done())
        })?;
        let stop = |(name, sender): (_, Sender)| Ok((name, sender.stop()?));
        let books: Vec<_> = self
            .parts
            .into_iter()
            .map(stop)
            .collect::<Result<_, RunError>>()?;
        let accepted = books.iter().map(|(_, book)| book.ledger.accepted()).sum();
        await_arrivals(stage, accepted)?;
        Ok(Account {
            books,
            refusals_max: self.refusals_max,
        })
    }
}

impl Account {
    /// The book of a part.
    pub(super) fn book(&self, name: &str) -> Option<&Book> {
        let found = self.books.iter().find(|(part, _)| *part == name);
        found.map(|(_, book)| book)
    }

    /// Accounts for every message of every part in the record of a stage that is closed.
    pub(super) fn settle(self, record: &mut Record, catch: &mut Catch) -> Verdict {
        let Self {
            books,
            refusals_max,
        } = self;
        if let Some(timeline) = catch.timeline.take() {
            record.series.extend(timeline.series("delivery"));
        }
        if books.is_empty() {
            sending::judge_unsent(record, &catch.witnesses);
            return Verdict::default();
        }
        record.add_latency("delivery", &catch.delivery());
        let mut bad_answers = Vec::new();
        let mut all = None;
        for (name, book) in books {
            report_part(name, &book, record);
            let as_part = |text: String| format!("{name}: {text}");
            let warnings = sending::warnings(&book).into_iter();
            record.warnings.extend(warnings.map(as_part));
            let faults = sending::book_faults(&book).into_iter();
            record.faults.extend(faults.map(as_part));
            bad_answers.push(format!("{name}: {}", book.bad_answers()));
            match &mut all {
                None => all = Some(book.ledger),
                Some(ledger) => ledger.merge(book.ledger),
            }
        }
        let absences = std::mem::take(&mut catch.absences);
        let whereabouts = Whereabouts::new(absences, std::mem::take(&mut catch.stays));
        let verdict = all.map(|all| Verdict::reach(&all, &catch.witnesses, &whereabouts));
        let verdict = verdict.unwrap_or_default();
        record.add(verdict_figures("messages", &verdict));
        let faults = sending::verdict_faults(&verdict, &bad_answers.join("; "), refusals_max);
        record.faults.extend(faults);
        verdict
    }
}

fn report_part(name: &str, book: &Book, record: &mut Record) {
    record.add([
        Figure::new(format!("{name}.sender_cpu"), book.busy, "cores"),
        Figure::new(format!("{name}.mended"), count(book.mended), ""),
    ]);
    record.add_quantiles(&format!("{name}.round_trip"), &book.round_trip);
    record.add_quantiles(&format!("{name}.lateness"), &book.lateness);
    let words = book.words.iter();
    record.add(
        words.map(|(word, (_, n))| Figure::new(format!("{name}.status.{word}"), count(*n), "")),
    );
}
