//! All chance in the exchange: one seeded sequence (SplitMix64), so that a run with the same seed and the same
//! requests is the same run.

#[derive(Debug, Clone)]
pub struct Seeded(u64);

const BASE62: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

impl Seeded {
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub const fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// A number from 0 to `limit` - 1; 0 where there is no room.
    pub const fn below(&mut self, limit: u32) -> u32 {
        if limit == 0 { 0 } else { (self.draw() % limit as u64) as u32 }
    }

    pub fn base62(&mut self, length: usize) -> String {
        (0..length).map(|_| char::from(BASE62[self.below(62) as usize])).collect()
    }
}
