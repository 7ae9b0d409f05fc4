//! What happens to a line once it is open: visits, ends, comebacks, blows.

use std::mem;
use std::time::Duration;

use rand::Rng as _;
use serde::Deserialize;
use socket2::{SockFilter, SockRef};

use crate::line::{Failure, Found, OpenLine};
use crate::name::{LineId, is_chosen};
use crate::oracle::mark::{FENCE, Mark};
use crate::oracle::whereabouts::Span;
use crate::swarm::Cut;
use crate::swarm::agenda::Task;
use crate::swarm::elder::Start;
use crate::swarm::strike::Blow;
use crate::swarm::thread::{Farewell, Line, Past, Steady, SwarmThread};

/// How long a server has to answer a goodbye; its own patience is usually as long.
pub(super) const GOODBYE_TIMEOUT: Duration = Duration::from_secs(5);
/// What was promised to a line while it did not read has arrived when it has been reading for so long.
const SETTLED_AFTER: Duration = Duration::from_millis(500);
/// The word by which a go-away is recognised before it is read.
const GOAWAY: &[u8] = b"\"goaway\"";
/// A filter program that lets nothing pass: `ret 0`.
const NOTHING: u16 = 0x06;

/// What a line found when it was read until nothing was left.
pub(super) enum End {
    /// It goes on.
    Open,
    /// The server asks it to leave and come back after this time, and it heeds that.
    Asked(Duration),
    /// It is over.
    Over(Failure),
}

impl SwarmThread {
    /// A line is open.
    pub(super) fn arrive(&mut self, id: LineId, intended: Duration, is_resumed: bool) {
        let now = self.clock_now();
        let waited = now.saturating_sub(intended);
        let past = *self.past(id);
        *self.past(id) = Past {
            has_been_open: true,
            failures: 0,
            ..past
        };
        if past.has_been_open {
            self.return_from(id, past.away_since, is_resumed, now);
            self.catch.reopening.record(waited);
            let storm = self.order.storm_start();
            if let Some(start) = storm.filter(|start| *start <= past.away_since) {
                self.catch.back.record(now.saturating_sub(start));
            }
            let attempts = self.catch.attempts.entry(past.failures.saturating_add(1));
            *attempts.or_default() += 1;
        } else {
            self.tally().count_open(is_resumed);
            self.catch.opening.record(waited);
        }
        if let Some(age_max) = self.plan.habit.age_max {
            let age = age_max.mul_f64(self.random.random());
            self.schedule(now + age, id, Task::Leave);
        }
    }

    /// An attempt to open a line has failed; `hint` is what the server says about the next one.
    pub(super) fn fail(&mut self, id: LineId, failure: Failure, hint: Option<Duration>) {
        let comeback = self.plan.habit.comeback;
        let past = self.past(id);
        let Some(comeback) = comeback.filter(|_| past.has_been_open) else {
            *self.line(id) = Line::Down;
            return self.tally().count_failed(failure);
        };
        past.failures = past.failures.saturating_add(1);
        let failures = past.failures;
        self.tally().count_setback(failure, hint.is_some());
        let now = self.clock_now();
        let due = comeback.due(failures, hint, &mut self.random, now);
        *self.line(id) = Line::Away;
        self.schedule(due, id, Task::Return);
        // One that was said to be replaced by this attempt was not, and is the end of the line.
        self.hear_elders((id, u16::MAX), false);
    }

    /// Reads an open line until nothing is left, and puts it back unless it ended.
    pub(super) fn visit(&mut self, id: LineId, mut open: Box<OpenLine>, is_ending: bool) {
        let start = (id, self.past(id).starts);
        match self.read(start, &mut open, is_ending) {
            End::Open => *self.line(id) = Line::Open(open),
            End::Asked(wait) => self.heed(id, open, wait),
            End::Over(failure) => self.lose(id, failure),
        }
    }

    /// The same for a line that has said goodbye: what was sent before the server heard it still arrives.
    pub(super) fn visit_leaving(
        &mut self,
        id: LineId,
        mut farewell: Box<Farewell>,
        is_ending: bool,
    ) {
        let start = (id, self.past(id).starts);
        match self.read(start, &mut farewell.line, is_ending) {
            End::Open | End::Asked(_) => *self.line(id) = Line::Leaving(farewell),
            End::Over(failure) => {
                if matches!(failure, Failure::Closed(..)) {
                    self.vouch(id, Duration::ZERO);
                }
                self.depart(id, farewell.back_at);
            }
        }
    }

    /// A line has reached its age.
    pub(super) fn leave(&mut self, id: LineId) {
        if self.order.is_settled() {
            return;
        }
        let line = mem::replace(self.line(id), Line::Away);
        if let Line::Open(open) = line {
            self.say_goodbye(id, open, None);
        } else {
            *self.line(id) = line;
        }
    }

    /// The server has not answered a goodbye.
    pub(super) fn give_up(&mut self, id: LineId) {
        let line = mem::replace(self.line(id), Line::Away);
        if let Line::Leaving(farewell) = line {
            self.tally().count_silence();
            self.depart(id, farewell.back_at);
        } else {
            *self.line(id) = line;
        }
    }

    /// Notes that a line is about to be cut, or not to read.
    pub(super) fn darken(&mut self, id: LineId, blow: Blow, now: Duration) {
        self.vouch(id, SETTLED_AFTER);
        let is_open = matches!(
            self.line(id),
            Line::Open(_) | Line::Deaf(_) | Line::Leaving(_)
        );
        if let Some(shadows) = &self.plan.habit.shadows
            && (is_open || blow == Blow::Doom)
        {
            shadows.fall(id, now);
        }
    }

    /// Does to a line what a strike says. Who is not open is spared, and so is who came back when the others' shadows had
    /// already fallen.
    pub(super) fn suffer(&mut self, id: LineId, blow: Blow, now: Duration) {
        let shadows = self.plan.habit.shadows.as_ref();
        if blow.casts_shadow() && shadows.is_some_and(|shadows| shadows.since(id).is_none()) {
            return;
        }
        let open = match (mem::replace(self.line(id), Line::Away), blow) {
            (Line::Deaf(open), Blow::Wake) => return self.wake(id, open, now),
            (Line::Away, Blow::Wake) => return self.schedule(now, id, Task::Return),
            (Line::Open(open), Blow::Deafness) => return *self.line(id) = Line::Deaf(open),
            (Line::Open(open) | Line::Deaf(open), blow) if blow.ends_lines() => open,
            (Line::Leaving(farewell), blow) if blow.ends_lines() => Box::new(farewell.line),
            (other, _) => return *self.line(id) = other,
        };
        self.tally().count_cut();
        match blow {
            Blow::Reset => reset(&open),
            Blow::Silence { .. } | Blow::Vanish => self.haunt(*open, now),
            Blow::Fin | Blow::Deafness | Blow::Wake | Blow::Doom => drop(open),
        }
        self.past(id).away_since = now;
        if blow == Blow::Vanish {
            self.tally().count_end();
        } else if let Blow::Silence { notice } = blow {
            let noticed = now + notice.mul_f64(self.random.random());
            self.await_return(id, noticed);
        } else {
            self.await_return(id, now);
        }
    }

    pub(super) fn cut_all(&mut self, cut: Cut) {
        for elder in self.recall_elders() {
            reset(&elder.line);
        }
        for (n, line) in self.take_lines().into_iter().enumerate() {
            self.note_absence(n, &line);
            match (line, cut) {
                (Line::Open(mut open), Cut::Close) => open.close(),
                // Without it the port stays taken for a minute.
                (Line::Open(open) | Line::Deaf(open), _) => reset(&open),
                (Line::Leaving(farewell), _) => reset(&farewell.line),
                (Line::Unborn | Line::Upgrading(_) | Line::Away | Line::Down, _) => {}
            }
        }
        self.lay_ghosts(Duration::MAX);
    }

    /// Reads a start of a line until nothing is left.
    pub(super) fn read(&mut self, (id, start): Start, open: &mut OpenLine, is_ending: bool) -> End {
        open.wake(is_ending);
        let mut asked = None;
        loop {
            match open.read() {
                Ok(Found::Ping) => self.tally().count_ping(),
                Ok(Found::Message(message)) => {
                    // A server writes each message to one line of a device, and what is on an elder was written before
                    // this one: seen later, it would look misordered. So it is not enough to read elders before the line.
                    if let Some(older) = start.checked_sub(1) {
                        self.hear_elders((id, older), false);
                    }
                    asked = self.receive(id, &message).or(asked);
                }
                Ok(Found::Other) => {}
                Ok(Found::Nothing) => return asked.map_or(End::Open, End::Asked),
                Err(failure) => return End::Over(failure),
            }
        }
    }

    /// What bears no mark is the server's own talk: a welcome, or a go-away, which some lines heed.
    fn receive(&mut self, id: LineId, message: &[u8]) -> Option<Duration> {
        let Some(mark) = Mark::find(message) else {
            if memchr::memchr(FENCE, message).is_some() {
                self.witness.see_foreign();
            }
            return self.hear(id, message);
        };
        let mark = mark.heard_by(id, self.plan.habit.broadcasts)?;
        self.witness.see(id, mark);
        self.tally().count_message(message.len());
        let now = self.clock_now();
        let intended = Duration::from_nanos(mark.intended_ns);
        // A line that was about to be cut, or did not read, says nothing about the server's speed.
        let shadows = self.plan.habit.shadows.as_ref();
        if shadows.is_some_and(|shadows| shadows.cover(id, intended, now)) {
            return None;
        }
        if let Some(lap) = self.laps.place(&self.order, mark.intended_ns) {
            let latency = now.saturating_sub(intended);
            self.catch.record(lap, latency);
            if let Some(timeline) = &mut self.catch.timeline {
                timeline.record(intended, latency);
            }
        }
        None
    }

    fn hear(&self, id: LineId, message: &[u8]) -> Option<Duration> {
        memchr::memmem::find(message, GOAWAY)?;
        let goaway: Goaway<'_> = serde_json::from_slice(message).ok()?;
        if goaway.r#type != "goaway" {
            return None;
        }
        self.tally().count_goaway();
        let wait = Duration::from_millis(goaway.reconnect_after_ms);
        is_chosen(id.0, self.plan.habit.heed).then_some(wait)
    }

    /// The server has asked a line to leave.
    fn heed(&mut self, id: LineId, open: Box<OpenLine>, wait: Duration) {
        match self.plan.habit.comeback {
            Some(comeback) if self.plan.habit.hands_over => self.stay(id, open, comeback, wait),
            _ => self.say_goodbye(id, open, Some(wait)),
        }
    }

    /// Says goodbye on a line that is to come back as its client does, or as the server has asked.
    fn say_goodbye(&mut self, id: LineId, mut line: Box<OpenLine>, hint: Option<Duration>) {
        let Some(comeback) = self.plan.habit.comeback else {
            line.close();
            return self.lose(id, Failure::Closed(1000, "by itself".to_owned()));
        };
        line.close();
        let now = self.clock_now();
        self.tally().count_leave();
        self.past(id).away_since = now;
        let back_at = comeback.due(0, hint, &mut self.random, now);
        let line = *line;
        *self.line(id) = Line::Leaving(Box::new(Farewell { line, back_at }));
        self.schedule(now + GOODBYE_TIMEOUT, id, Task::GiveUp);
    }

    /// A line that said goodbye is over.
    fn depart(&mut self, id: LineId, back_at: Duration) {
        self.steady.remove(&id);
        self.tally().count_end();
        let at = back_at.max(self.clock_now());
        *self.line(id) = Line::Away;
        self.schedule(at, id, Task::Return);
    }

    /// A line is over without its own doing.
    pub(super) fn lose(&mut self, id: LineId, failure: Failure) {
        if self.plan.habit.comeback.is_none() {
            *self.line(id) = Line::Down;
            return self.tally().count_lost(failure);
        }
        let now = self.clock_now();
        self.past(id).away_since = now;
        self.tally().count_setback_of_open(failure);
        self.await_return(id, now);
    }

    /// Has a line that is over come back in its time.
    fn await_return(&mut self, id: LineId, now: Duration) {
        self.steady.remove(&id);
        self.tally().count_end();
        let comeback = self.plan.habit.comeback;
        *self.line(id) = comeback.map_or(Line::Down, |_| Line::Away);
        if let Some(comeback) = comeback {
            let due = comeback.due(0, None, &mut self.random, now);
            self.schedule(due, id, Task::Return);
        }
    }

    /// A line that did not read reads all there is.
    fn wake(&mut self, id: LineId, open: Box<OpenLine>, now: Duration) {
        let dark_since = self.dark_since(id);
        self.visit(id, open, true);
        if matches!(self.line(id), Line::Open(_)) {
            let since = dark_since.unwrap_or(now);
            self.steady.insert(
                id,
                Steady {
                    since,
                    read_at: now,
                },
            );
            self.end_absence(id, since, now);
        } else if let Some(since) = dark_since {
            // It could be refused messages all the time, not only since it found that it was closed.
            let past = self.past(id);
            past.away_since = past.away_since.min(since);
        }
    }

    /// Who is not there at the end stays away.
    fn note_absence(&mut self, n: usize, line: &Line) {
        let id = self.line_at(n);
        let past = *self.past(id);
        if matches!(line, Line::Open(_)) {
            self.vouch(id, SETTLED_AFTER);
        }
        if matches!(line, Line::Unborn | Line::Upgrading(_) | Line::Down) {
            self.catch.down.push(id);
        }
        let is_there = matches!(line, Line::Open(_) | Line::Unborn | Line::Down);
        if past.has_been_open && !is_there {
            let since = self.dark_since(id).unwrap_or(past.away_since);
            let since = since.min(past.away_since);
            let now = self.clock_now();
            let absence = Span::absence(id, since, Duration::MAX);
            self.catch
                .away_for
                .push(now.saturating_sub(past.away_since));
            self.catch.absences.push(absence);
        }
    }

    /// A line that had been open is so again. One that was handed over has not been away: what was refused meanwhile has
    /// no excuse.
    fn return_from(&mut self, id: LineId, away_since: Duration, is_resumed: bool, now: Duration) {
        if self.hand_over(id, now) {
            self.tally().count_resumption(is_resumed);
            return self.catch.away.record(Duration::ZERO);
        }
        self.tally().count_return(is_resumed);
        self.catch.away.record(now.saturating_sub(away_since));
        self.end_absence(id, away_since, now);
    }

    fn end_absence(&mut self, id: LineId, away_since: Duration, now: Duration) {
        let since = self.dark_since(id).unwrap_or(away_since).min(away_since);
        self.catch.absences.push(Span::absence(id, since, now));
        if let Some(shadows) = &self.plan.habit.shadows
            && !self.is_doomed()
        {
            shadows.lift(id, now);
        }
    }

    /// A line that did not read for a while is still the same that it was before: all that was promised to it has arrived,
    /// if it has been reading for so long.
    fn vouch(&mut self, id: LineId, settled_after: Duration) {
        let now = self.clock_now();
        if let Some(steady) = self.steady.remove(&id)
            && now - steady.read_at >= settled_after
        {
            self.catch.stays.push(Span::stay(id, steady.since, now));
        }
    }

    fn dark_since(&self, id: LineId) -> Option<Duration> {
        self.plan.habit.shadows.as_ref()?.since(id)
    }

    /// Lets nothing pass through a socket any more, in silence: what comes in is dropped below TCP, without an
    /// acknowledgement, and nothing goes out because nothing is written and the socket is not closed.
    fn haunt(&mut self, open: OpenLine, now: Duration) {
        let mut stream = open.into_stream();
        let deaf = SockRef::from(&stream).attach_filter(&[SockFilter::new(NOTHING, 0, 0, 0)]);
        let gone = self.poll.registry().deregister(&mut stream);
        debug_assert!(deaf.and(gone).is_ok(), "the socket is open and registered");
        let stay = self
            .plan
            .habit
            .ghosts
            .map_or(Duration::MAX, |ghosts| ghosts.stay);
        self.ghosts.push_back((now.saturating_add(stay), stream));
    }

    /// Closes the sockets whose time has come.
    pub(super) fn lay_ghosts(&mut self, now: Duration) {
        while let Some((_, ghost)) = self.ghosts.pop_front_if(|(until, _)| *until <= now) {
            // A FIN would wait for an answer that the filter keeps out.
            drop(SockRef::from(&ghost).set_linger(Some(Duration::ZERO)));
        }
    }
}

/// The server's request to leave.
#[derive(Deserialize)]
struct Goaway<'a> {
    r#type: &'a str,
    #[serde(default)]
    reconnect_after_ms: u64,
}

/// Has a socket end with a reset when it is dropped; that it may be gone already is fine.
fn reset(open: &OpenLine) {
    drop(SockRef::from(open.stream()).set_linger(Some(Duration::ZERO)));
}
