//! stub
use crate::base::id::ShardId;
use hashbrown::HashMap;
use parking_lot::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
/// x
#[derive(Debug, Default)]
pub struct Presence(Mutex<HashMap<Vec<u8>, Vec<(ShardId, u32)>>>, AtomicU64);
/// x
#[derive(Debug)]
pub struct Gen(pub u64);
impl Presence {
    /// x
    pub fn new(_lines_max: u32, _shards: u16) -> Self {
        Self::default()
    }
    /// x
    pub fn fingerprint(&self, id: &[u8]) -> Vec<u8> {
        id.to_vec()
    }
    /// x
    pub fn claim(&self, fp: Vec<u8>, shard: ShardId, slot: u32) -> Result<Vec<(ShardId, u32)>, ()> {
        let mut t = self.0.lock();
        let e = t.entry(fp).or_default();
        let others = e.clone();
        e.push((shard, slot));
        Ok(others)
    }
    /// x
    pub fn release(&self, fp: Vec<u8>, shard: ShardId, slot: u32) {
        let mut t = self.0.lock();
        if let Some(e) = t.get_mut(&fp) {
            e.retain(|x| *x != (shard, slot));
            if e.is_empty() {
                t.remove(&fp);
            }
        }
    }
    /// x
    pub fn lookup(&self, fp: Vec<u8>) -> Vec<(ShardId, u32)> {
        self.0.lock().get(&fp).cloned().unwrap_or_default()
    }
    /// x
    pub fn rehoming(&self) -> Option<u32> {
        None
    }
    /// x
    pub fn rehome(&self, _: Vec<u8>, _: ShardId, _: u32) {}
    /// x
    pub fn finish_rehome(&self, _: ShardId) {}
    /// x
    pub fn mint(&self, wall_ms: u64) -> Gen {
        Gen(self.1.fetch_add(1, Ordering::Relaxed) + (wall_ms << 16))
    }
}
