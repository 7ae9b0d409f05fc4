//! The index of accounts against a plain map of lists behind dashmap's locks: a million accounts of one line, accounts
//! of four, one account of ten thousand. `memory` tells the bytes that a line costs in each.

use std::alloc::{GlobalAlloc, Layout, System};
use std::hint::black_box;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use dashmap::DashMap;
use tautline::base::id::ShardId;
use tautline::base::place::Place;
use tautline::route::account::Accounts;

/// What both do.
trait Index {
    fn insert(&self, account: &str, place: Place);
    fn remove(&self, account: &str, place: Place);
    fn page(&self, account: &str, limit: usize) -> Vec<Place>;
}

impl Index for Accounts {
    fn insert(&self, account: &str, place: Place) {
        black_box(Self::insert(self, self.key(account), place));
    }

    fn remove(&self, account: &str, place: Place) {
        black_box(Self::remove(self, self.key(account), place));
    }

    fn page(&self, account: &str, limit: usize) -> Vec<Place> {
        Self::page(self, self.key(account), None, limit)
    }
}

impl Index for DashMap<String, Vec<Place>> {
    fn insert(&self, account: &str, place: Place) {
        self.entry(account.to_owned()).or_default().push(place);
    }

    fn remove(&self, account: &str, place: Place) {
        if let Some(mut places) = self.get_mut(account)
            && let Some(at) = places.iter().position(|other| *other == place)
        {
            places.swap_remove(at);
        }
        self.remove_if(account, |_, places| places.is_empty());
    }

    fn page(&self, account: &str, limit: usize) -> Vec<Place> {
        let places = self.get(account);
        places.map_or_else(Vec::new, |places| {
            places.iter().take(limit).copied().collect()
        })
    }
}

/// Counts what is allocated: what a table costs cannot be asked of it.
struct Counting;

static ALLOCATED: AtomicUsize = AtomicUsize::new(0);

#[expect(unsafe_code, reason = "an allocator that counts has no other way")]
// SAFETY: every call goes to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATED.fetch_add(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        ALLOCATED.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller keeps the contract of `dealloc`.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn benches(c: &mut Criterion) {
    memory(&Accounts::new(), "index", 1);
    memory(&DashMap::<String, Vec<Place>>::new(), "dashmap", 1);
    memory(&Accounts::new(), "index", 4);
    memory(&DashMap::<String, Vec<Place>>::new(), "dashmap", 4);
    memory(&Accounts::new(), "index", 10_000);
    let mut group = c.benchmark_group("account");
    group
        .sample_size(10)
        .measurement_time(Duration::from_secs(1))
        .warm_up_time(Duration::from_millis(200));
    for per_account in [1, 4, 10_000] {
        let accounts = Accounts::new();
        let dashmap = DashMap::<String, Vec<Place>>::new();
        let lines = if per_account == 10_000 { 10_000 } else { LINES };
        fill(&accounts, lines, per_account);
        fill(&dashmap, lines, per_account);
        group.throughput(Throughput::Elements(1));
        for (name, index) in [("index", &accounts as &dyn Index), ("dashmap", &dashmap)] {
            let mut line = 0;
            group.bench_function(
                BenchmarkId::new(format!("come_and_go/{name}"), per_account),
                |b| {
                    b.iter(|| {
                        line = (line + 7_919) % lines;
                        index.remove(&account(line, per_account), place(line));
                        index.insert(&account(line, per_account), place(line));
                    });
                },
            );
            group.bench_function(
                BenchmarkId::new(format!("page_of_100/{name}"), per_account),
                |b| {
                    b.iter(|| {
                        line = (line + 7_919) % lines;
                        black_box(index.page(&account(line, per_account), 100));
                    });
                },
            );
        }
    }
    group.finish();
}

#[expect(clippy::print_stdout, reason = "criterion has no figure for bytes")]
fn memory(index: &dyn Index, name: &str, per_account: u32) {
    let before = ALLOCATED.load(Ordering::Relaxed);
    fill(index, LINES, per_account);
    let bytes = ALLOCATED.load(Ordering::Relaxed) - before;
    let per_line = bytes as f64 / f64::from(LINES);
    println!("account/memory/{name}/{per_account}: {per_line:.1} bytes per line");
}

fn fill(index: &dyn Index, lines: u32, per_account: u32) {
    (0..lines).for_each(|line| index.insert(&account(line, per_account), place(line)));
}

fn account(line: u32, per_account: u32) -> String {
    format!("account-{}", line / per_account)
}

fn place(line: u32) -> Place {
    Place {
        shard: ShardId((line % 16) as u16),
        slot: line / 16,
    }
}

const LINES: u32 = 1_000_000;

criterion_group!(account_index, benches);
criterion_main!(account_index);
