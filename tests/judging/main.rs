//! The judging, shown case by case through the kernel's public door: one desk, one story each, one `check`.

mod desk;
mod orders;
mod replays;
mod requests;
mod intents;
mod mirror;
mod sight;
mod comparison;
mod incidents;
mod capacity;
mod packs;
mod exceptions;
mod claims;
mod stopping;
mod trust;
mod still_speaks;
mod authority;
mod money;
mod flatten;
mod credentials;
mod drill;
mod order_limit;
mod alone;
mod any_order;
mod anything;
mod decimals;
