//! Tokens of syncs, timelines and connections.

#![no_main]

use hearth_core::probe;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| probe::token(input));
