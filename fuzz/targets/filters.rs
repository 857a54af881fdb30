//! An event filter, and an event that it is asked about.

#![no_main]

use hearth_core::probe;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| probe::filter(input));
