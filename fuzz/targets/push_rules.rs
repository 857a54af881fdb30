//! Push rules, an event, and power levels.

#![no_main]

use hearth_core::probe;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| probe::push_rules(input));
