//! The `tautline` program.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;
fn main() {
    let sources = tautline::config::source::Sources {
        flags: std::env::args()
            .skip(2)
            .filter(|a| a.contains('='))
            .collect(),
        ..Default::default()
    };
    let loaded = sources.load().unwrap();
    tautline::server::run(
        loaded.config,
        sources,
        std::env::args().any(|a| a == "--json"),
    )
    .unwrap();
}
