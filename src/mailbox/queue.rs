//! The bounded queue into a shard: many senders, one receiver, two lanes, at most one wake-up per sleep.
//!
//! A mutex around two buffers that the receiver swaps out whole. With a receiver that never sleeps, senders that batch by
//! 32 pay some 20 ns per message for it, as crossbeam's channel costs for each; its array queue costs 32, and messages
//! one by one 49 here (`benches/mailbox.rs`). The lane that cannot refuse and one wake-up for a batch come with it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::{fmt, mem};

use crossbeam::utils::CachePadded;

use self::sync::{AtomicUsize, Mutex, Relaxed};

/// The receiving end, owned by the shard. Commands `C` are bounded; completions `D` are never refused, because
/// whoever asked for one reserved its place.
pub struct Mailbox<C, D> {
    shared: Arc<Shared<C, D>>,
    /// What was swapped out and not yet received.
    taken: Lanes<C, D>,
}

impl<C, D> Mailbox<C, D> {
    /// An empty mailbox for `commands_max` commands. It allocates as it fills and gives back what a burst took.
    pub fn new(commands_max: usize, waker: impl Wake + 'static) -> Self {
        let shared = Shared {
            inbound: CachePadded::default(),
            places_taken: CachePadded::default(),
            commands_max,
            waker: Box::new(waker),
        };
        Self {
            shared: Arc::new(shared),
            taken: Lanes::default(),
        }
    }

    /// A sending end.
    pub fn post(&self) -> Post<C, D> {
        Post {
            shared: Arc::clone(&self.shared),
        }
    }

    /// Moves up to `budget` commands and every completion to the ends of the given buffers.
    ///
    /// What one sender sent keeps its order within each lane. Also ends the sleep that [`Self::sleep`] began.
    pub fn receive(&mut self, commands: &mut Vec<C>, completions: &mut Vec<D>, budget: usize) {
        self.take_inbound();
        let received = budget.min(self.taken.commands.len());
        commands.extend(self.taken.commands.drain(..received));
        completions.extend(self.taken.completions.drain(..));
        self.shared.give_places(received);
    }

    /// Announces that the owner is about to block, unless something waits: then false, and it must not.
    ///
    /// After true, the first sender to publish wakes it.
    pub fn sleep(&mut self) -> bool {
        let mut inbound = self.shared.inbound.lock();
        inbound.is_sleeping = self.taken.is_empty() && inbound.lanes.is_empty();
        inbound.is_sleeping
    }

    /// How many places for commands are taken: received last, staged or published since.
    pub fn depth(&self) -> usize {
        self.shared.places_taken.load(Relaxed)
    }

    fn take_inbound(&mut self) {
        self.taken.trim();
        let mut inbound = self.shared.inbound.lock();
        inbound.is_sleeping = false;
        if self.taken.commands.is_empty() {
            mem::swap(&mut self.taken.commands, &mut inbound.lanes.commands);
        }
        mem::swap(&mut self.taken.completions, &mut inbound.lanes.completions);
    }
}

impl<C, D> Drop for Mailbox<C, D> {
    /// Refuses every further command, and drops those that wait with whatever answers through them.
    fn drop(&mut self) {
        self.shared.places_taken.fetch_add(CLOSED, Relaxed);
        let lanes = mem::take(&mut self.shared.inbound.lock().lanes);
        drop(lanes);
    }
}

/// The sending end. Reactors make a [`Batch`] of it; the control plane posts one by one.
pub struct Post<C, D> {
    shared: Arc<Shared<C, D>>,
}

impl<C, D> Post<C, D> {
    /// Posts one command and wakes the receiver if it sleeps.
    ///
    /// # Errors
    ///
    /// Hands the command back when the mailbox is full.
    pub fn post(&self, command: C) -> Result<(), Full<C>> {
        if self.shared.reserve_places(1) == 0 {
            return Err(Full(command));
        }
        self.shared
            .publish(|lanes| lanes.commands.push_back(command));
        Ok(())
    }

    /// Posts one completion, for which its receiver has reserved the place.
    pub fn post_completion(&self, completion: D) {
        self.shared
            .publish(|lanes| lanes.completions.push_back(completion));
    }

    /// A buffer through which one sender sends many.
    pub fn batch(&self) -> Batch<C, D> {
        Batch {
            shared: Arc::clone(&self.shared),
            places: 0,
            commands: Vec::new(),
            completions: Vec::new(),
        }
    }
}

impl<C, D> Clone for Post<C, D> {
    fn clone(&self) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
        }
    }
}

/// What one sender sends to one mailbox in one iteration of its loop: admitted at once, published together.
pub struct Batch<C, D> {
    shared: Arc<Shared<C, D>>,
    /// Places that are reserved and not yet used.
    places: usize,
    commands: Vec<C>,
    completions: Vec<D>,
}

impl<C, D> Batch<C, D> {
    /// Keeps a command until [`Self::publish`]. Its place in the mailbox is certain from now on.
    ///
    /// # Errors
    ///
    /// Hands the command back when the mailbox is full.
    pub fn stage(&mut self, command: C) -> Result<(), Full<C>> {
        if self.places == 0 {
            self.places = self.shared.reserve_places(PLACES_AT_ONCE);
        }
        if self.places == 0 {
            return Err(Full(command));
        }
        self.places -= 1;
        self.commands.push(command);
        Ok(())
    }

    /// Keeps a completion until [`Self::publish`].
    pub fn stage_completion(&mut self, completion: D) {
        self.completions.push(completion);
    }

    /// Sends what was staged, under one lock and with at most one wake-up. Costs nothing when nothing was.
    pub fn publish(&mut self) {
        if self.places > 0 {
            self.shared.give_places(mem::take(&mut self.places));
        }
        if self.commands.is_empty() && self.completions.is_empty() {
            return;
        }
        self.shared.publish(|lanes| {
            lanes.commands.extend(self.commands.drain(..));
            lanes.completions.extend(self.completions.drain(..));
        });
    }
}

impl<C, D> Drop for Batch<C, D> {
    /// What was admitted is sent.
    fn drop(&mut self) {
        self.publish();
    }
}

/// What ends the block of a receiver that sleeps.
pub trait Wake: Send + Sync {
    /// Makes the present or the next block return at once.
    fn wake(&self);
}

impl Wake for mio::Waker {
    fn wake(&self) {
        #[expect(
            clippy::expect_used,
            reason = "a shard that cannot be woken must not live on"
        )]
        Self::wake(self).expect("the waker's eventfd stays open as long as the waker");
    }
}

/// The mailbox had no place; the command comes back.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the mailbox is full")]
pub struct Full<C>(pub C);

struct Shared<C, D> {
    inbound: CachePadded<Mutex<Inbound<C, D>>>,
    /// Places held by commands from their reservation to their receipt. A count that bounds and publishes nothing:
    /// the mutex carries the commands across. Hence relaxed.
    places_taken: CachePadded<AtomicUsize>,
    commands_max: usize,
    waker: Box<dyn Wake>,
}

impl<C, D> Shared<C, D> {
    /// Reserves up to `wanted` places; how many there were.
    fn reserve_places(&self, wanted: usize) -> usize {
        let mut granted = 0;
        let reserve = |taken: usize| {
            granted = wanted.min(self.commands_max.saturating_sub(taken));
            Some(taken + granted)
        };
        _ = self.places_taken.fetch_update(Relaxed, Relaxed, reserve);
        granted
    }

    fn give_places(&self, places: usize) {
        self.places_taken.fetch_sub(places, Relaxed);
    }

    /// Fills the lanes and wakes the receiver if it sleeps.
    ///
    /// The flag is guarded by the lanes' own lock. Either the receiver looked after us and saw what we put, or it
    /// looked before us and we see that it sleeps: no wake-up is lost, and no fence is needed.
    fn publish(&self, fill: impl FnOnce(&mut Lanes<C, D>)) {
        let mut inbound = self.inbound.lock();
        fill(&mut inbound.lanes);
        let was_sleeping = mem::take(&mut inbound.is_sleeping);
        drop(inbound);
        if was_sleeping {
            self.waker.wake();
        }
    }
}

struct Inbound<C, D> {
    lanes: Lanes<C, D>,
    /// Set by the receiver before it blocks, cleared by whoever wakes it or by itself.
    is_sleeping: bool,
}

impl<C, D> Default for Inbound<C, D> {
    fn default() -> Self {
        Self {
            lanes: Lanes::default(),
            is_sleeping: false,
        }
    }
}

struct Lanes<C, D> {
    commands: VecDeque<C>,
    completions: VecDeque<D>,
}

impl<C, D> Lanes<C, D> {
    fn is_empty(&self) -> bool {
        self.commands.is_empty() && self.completions.is_empty()
    }

    /// Gives back the memory of a burst that is over.
    fn trim(&mut self) {
        if self.commands.is_empty() && self.commands.capacity() > CAPACITY_KEPT {
            self.commands = VecDeque::new();
        }
        if self.completions.is_empty() && self.completions.capacity() > CAPACITY_KEPT {
            self.completions = VecDeque::new();
        }
    }
}

impl<C, D> Default for Lanes<C, D> {
    fn default() -> Self {
        Self {
            commands: VecDeque::new(),
            completions: VecDeque::new(),
        }
    }
}

impl<C, D> fmt::Debug for Mailbox<C, D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mailbox")
            .field("depth", &self.depth())
            .finish_non_exhaustive()
    }
}

impl<C, D> fmt::Debug for Post<C, D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Post").finish_non_exhaustive()
    }
}

impl<C, D> fmt::Debug for Batch<C, D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Batch")
            .field("staged", &self.commands.len())
            .finish_non_exhaustive()
    }
}

/// Places a batch reserves together, to touch the shared count less often than once per command. What it does not
/// use it holds until it publishes: little beside the thousands of a mailbox.
const PLACES_AT_ONCE: usize = 16;

/// More places than can ever be given back: what a mailbox whose owner is gone has taken.
const CLOSED: usize = usize::MAX / 2;

/// Capacity that an empty buffer keeps, in elements.
const CAPACITY_KEPT: usize = 256;

/// The primitives, which loom replaces by its own.
mod sync {
    #[cfg(not(tautline_loom))]
    pub(super) use parking_lot::Mutex;
    #[cfg(not(tautline_loom))]
    pub(super) use std::sync::atomic::AtomicUsize;
    pub(super) use std::sync::atomic::Ordering::Relaxed;

    #[cfg(tautline_loom)]
    pub(super) use loom::sync::atomic::AtomicUsize;

    /// loom's mutex in the shape of parking_lot's.
    #[cfg(tautline_loom)]
    #[derive(Default)]
    pub(super) struct Mutex<T>(loom::sync::Mutex<T>);

    #[cfg(tautline_loom)]
    impl<T> Mutex<T> {
        pub(super) fn lock(&self) -> loom::sync::MutexGuard<'_, T> {
            self.0
                .lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner)
        }
    }
}

#[cfg(test)]
#[cfg(not(tautline_loom))]
mod tests {
    use std::sync::atomic::AtomicU32;
    use std::thread;

    use super::*;

    /// Counts wake-ups.
    #[derive(Clone, Default)]
    struct Counter(Arc<AtomicU32>);

    impl Wake for Counter {
        fn wake(&self) {
            self.0.fetch_add(1, Relaxed);
        }
    }

    fn received<C, D>(mailbox: &mut Mailbox<C, D>, budget: usize) -> (Vec<C>, Vec<D>) {
        let (mut commands, mut completions) = (Vec::new(), Vec::new());
        mailbox.receive(&mut commands, &mut completions, budget);
        (commands, completions)
    }

    #[test]
    fn a_full_mailbox_gives_the_command_back_and_takes_completions() {
        let mut mailbox = Mailbox::new(2, Counter::default());
        let post = mailbox.post();
        assert!(post.post(1).is_ok() && post.post(2).is_ok());
        assert_eq!(post.post(3), Err(Full(3)));
        post.post_completion('d');
        assert_eq!(received(&mut mailbox, 1), (vec![1], vec!['d']));
        assert!(post.post(3).is_ok());
        assert_eq!(received(&mut mailbox, 9), (vec![2], vec![]));
        assert_eq!(received(&mut mailbox, 9), (vec![3], vec![]));
        assert_eq!(mailbox.depth(), 0);
    }

    #[test]
    fn a_batch_is_admitted_when_staged_and_seen_when_published() {
        let mut mailbox: Mailbox<_, ()> = Mailbox::new(20, Counter::default());
        let mut batch = mailbox.post().batch();
        let staged = (0..30).take_while(|&command| batch.stage(command).is_ok());
        assert_eq!(staged.count(), 20);
        assert_eq!(mailbox.post().post(99), Err(Full(99)));
        assert!(received(&mut mailbox, 99).0.is_empty());
        batch.publish();
        assert!(received(&mut mailbox, 99).0.into_iter().eq(0..20));
    }

    #[test]
    fn places_that_a_batch_did_not_use_are_given_back() {
        let mailbox: Mailbox<_, ()> = Mailbox::new(PLACES_AT_ONCE, Counter::default());
        let mut batch = mailbox.post().batch();
        batch.stage(1).unwrap();
        batch.publish();
        assert_eq!(mailbox.depth(), 1);
    }

    #[test]
    fn a_sleeper_is_woken_once_and_only_if_it_sleeps() {
        let counter = Counter::default();
        let mut mailbox: Mailbox<_, ()> = Mailbox::new(9, counter.clone());
        let post = mailbox.post();
        post.post(1).unwrap();
        assert!(!mailbox.sleep(), "something waits");
        received(&mut mailbox, 9);
        assert!(mailbox.sleep());
        post.post(2).unwrap();
        post.post(3).unwrap();
        assert_eq!(counter.0.load(Relaxed), 1);
        received(&mut mailbox, 1);
        assert!(!mailbox.sleep(), "the budget left something");
    }

    #[test]
    fn a_dropped_mailbox_drops_what_waits_and_refuses_the_rest() {
        let answer = Arc::new(());
        let mailbox: Mailbox<_, ()> = Mailbox::new(9, Counter::default());
        let post = mailbox.post();
        post.post(Arc::clone(&answer)).unwrap();
        drop(mailbox);
        assert_eq!(Arc::strong_count(&answer), 1);
        assert!(post.post(answer).is_err());
    }

    #[test]
    fn a_burst_leaves_no_memory_behind() {
        let mut mailbox: Mailbox<_, ()> = Mailbox::new(4096, Counter::default());
        let post = mailbox.post();
        (0..4096).for_each(|command| post.post(command).unwrap());
        received(&mut mailbox, 4096);
        received(&mut mailbox, 1);
        assert!(mailbox.taken.commands.capacity() <= CAPACITY_KEPT);
    }

    #[test]
    fn every_sender_keeps_its_order_across_threads() {
        const SENDERS: u32 = 3;
        const COMMANDS: u32 = 5_000;
        let mut mailbox: Mailbox<_, _> = Mailbox::new(64, Counter::default());
        let (mut commands, mut completions) = (Vec::new(), Vec::new());
        thread::scope(|scope| {
            for sender in 0..SENDERS {
                let mut batch = mailbox.post().batch();
                scope.spawn(move || {
                    for i in 0..COMMANDS {
                        while batch.stage((sender, i)).is_err() {
                            batch.publish();
                            thread::yield_now();
                        }
                        batch.stage_completion((sender, i));
                        if i % 7 == 0 {
                            batch.publish();
                        }
                    }
                });
            }
            while commands.len() < (SENDERS * COMMANDS) as usize {
                let before = commands.len();
                mailbox.receive(&mut commands, &mut completions, 40);
                assert!(commands.len() - before <= 40);
            }
        });
        mailbox.receive(&mut commands, &mut completions, 0);
        for sender in 0..SENDERS {
            let of_sender = |(from, i): &(u32, u32)| (*from == sender).then_some(*i);
            assert!(commands.iter().filter_map(of_sender).eq(0..COMMANDS));
            assert!(completions.iter().filter_map(of_sender).eq(0..COMMANDS));
        }
    }
}

#[cfg(test)]
#[cfg(tautline_loom)]
mod loom_tests {
    use loom::sync::Notify;
    use loom::thread;

    use super::*;

    /// Two preemptions lose a wake-up if one can be lost, and end within seconds.
    fn model(test: impl Fn() + Send + Sync + 'static) {
        let mut model = loom::model::Builder::new();
        model.preemption_bound = Some(2);
        model.check(test);
    }

    impl Wake for loom::sync::Arc<Notify> {
        fn wake(&self) {
            self.notify();
        }
    }

    /// Receives as a reactor does, blocking when there is nothing, until `count` commands came.
    fn received(mailbox: &mut Mailbox<u32, u32>, notify: &Notify, count: usize) -> Vec<u32> {
        let (mut commands, mut completions) = (Vec::new(), Vec::new());
        while commands.len() < count {
            let before = commands.len();
            mailbox.receive(&mut commands, &mut completions, usize::MAX);
            assert!(commands.len() - before <= mailbox.shared.commands_max);
            if commands.len() < count && mailbox.sleep() {
                notify.wait();
            }
        }
        commands
    }

    #[test]
    fn loom_no_wake_up_is_lost_and_order_is_kept() {
        model(|| {
            let notify = loom::sync::Arc::new(Notify::new());
            let mut mailbox = Mailbox::new(2 * PLACES_AT_ONCE, notify.clone());
            let (post, mut batch) = (mailbox.post(), mailbox.post().batch());
            let single = thread::spawn(move || post.post(9).unwrap());
            let batched = thread::spawn(move || {
                batch.stage(0).unwrap();
                batch.publish();
                batch.stage(1).unwrap();
            });
            let mut commands = received(&mut mailbox, &notify, 3);
            commands.retain(|&command| command != 9);
            assert_eq!(commands, [0, 1]);
            single.join().unwrap();
            batched.join().unwrap();
        });
    }

    #[test]
    fn loom_the_bound_is_never_exceeded_and_no_place_is_lost() {
        model(|| {
            let notify = loom::sync::Arc::new(Notify::new());
            let mut mailbox = Mailbox::new(1, notify.clone());
            let senders = [mailbox.post(), mailbox.post()]
                .map(|post| thread::spawn(move || usize::from(post.post(1).is_ok())));
            let first = received(&mut mailbox, &notify, 1).len();
            let accepted: usize = senders
                .into_iter()
                .map(|sender| sender.join().unwrap())
                .sum();
            assert_eq!(
                first + received(&mut mailbox, &notify, accepted - first).len(),
                accepted
            );
            assert_eq!(mailbox.depth(), 0);
        });
    }
}
