//! The mailbox against crossbeam's bounded queues: one sender, one receiver on another thread, 24-byte commands.

use std::thread;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use crossbeam::channel;
use crossbeam::queue::ArrayQueue;
use tautline::mailbox::queue::{Mailbox, Wake};

type Command = [u64; 3];

const COMMANDS: u64 = 100_000;
const COMMANDS_MAX: usize = 4_096;

/// The receiver spins, so that only the queue is measured.
struct Never;

impl Wake for Never {
    fn wake(&self) {}
}

fn benches(c: &mut Criterion) {
    let mut group = c.benchmark_group("mailbox");
    group
        .sample_size(10)
        .measurement_time(Duration::from_secs(2))
        .warm_up_time(Duration::from_millis(300));
    group.throughput(Throughput::Elements(COMMANDS));
    for batch in [1, 32] {
        group.bench_function(BenchmarkId::new("mailbox", batch), |b| {
            b.iter(|| through_mailbox(batch))
        });
    }
    group.bench_function("crossbeam_channel/1", |b| b.iter(through_crossbeam));
    group.bench_function("array_queue/1", |b| b.iter(through_array_queue));
    group.finish();
}

fn through_mailbox(batch: u64) {
    let mut mailbox: Mailbox<Command, ()> = Mailbox::new(COMMANDS_MAX, Never);
    let mut sender = mailbox.post().batch();
    thread::scope(|scope| {
        scope.spawn(move || {
            for i in 0..COMMANDS {
                while sender.stage([i; 3]).is_err() {
                    sender.publish();
                    thread::yield_now();
                }
                if i % batch == 0 {
                    sender.publish();
                }
            }
        });
        let (mut commands, mut completions, mut received) = (Vec::new(), Vec::new(), 0);
        while received < COMMANDS {
            mailbox.receive(&mut commands, &mut completions, COMMANDS_MAX);
            received += commands.drain(..).len() as u64;
        }
    });
}

fn through_crossbeam() {
    let (sender, receiver) = channel::bounded::<Command>(COMMANDS_MAX);
    thread::scope(|scope| {
        scope.spawn(move || (0..COMMANDS).all(|i| sender.send([i; 3]).is_ok()));
        assert_eq!(receiver.iter().count() as u64, COMMANDS);
    });
}

fn through_array_queue() {
    let queue: ArrayQueue<Command> = ArrayQueue::new(COMMANDS_MAX);
    thread::scope(|scope| {
        scope.spawn(|| {
            for i in 0..COMMANDS {
                while queue.push([i; 3]).is_err() {
                    thread::yield_now();
                }
            }
        });
        let mut received = 0;
        while received < COMMANDS {
            received += u64::from(queue.pop().is_some());
        }
    });
}

criterion_group!(groups, benches);
criterion_main!(groups);
