//! The random numbers of model tests. Each run draws a seed and prints it; `SEED=` replays one.

use rand::SeedableRng as _;
use rand::rngs::StdRng;

/// A generator whose seed is shown when the test fails.
pub(crate) fn rng() -> StdRng {
    let replayed = std::env::var("SEED").ok();
    let seed = replayed.map_or_else(rand::random, |text| text.parse().expect("SEED is a u64"));
    println!("SEED={seed}");
    StdRng::seed_from_u64(seed)
}
